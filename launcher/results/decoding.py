"""How a value of a host is decoded: its bytes become an object only here, and only when somebody reads it.

Rule: only this module unpickles bytes that a host made, and only under the run's `results` policy: `trusted` (any
pickle), `safe` (only plain data, see `launcher.serialization.plain_values`) or `never`. A codec that a host names is
used only if the policy allows it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.errors import ResultNotDecoded, ValueNotPlain
from launcher.results.plain import read_part
from launcher.runs.journal import StoredResult
from launcher.util.frozen import frozen
from remote_agent.protocol.result_parts import PLAIN
from remote_agent.shared.plain_value import MAX_SIZE, MAX_SMALL, encode

if TYPE_CHECKING:
    from launcher.serialization.plain_records import FindType

__all__ = ["Decoder"]

_TRUSTED = "results=trusted decodes it, and any code with it (launcher.Session.resume(RUN, results='trusted'))"
_RETURN_PLAIN = (
    "have the task return plain data (docs/values.md), or write a file into its output directory; or run it with "
    "results=trusted, which unpickles what the host sends"
)
#: The pickles of None, which are recognised by their bytes.
_NONE = frozenset(pickle.dumps(None, protocol) for protocol in range(2, 6))
_PLAIN_NONE = encode(None)


@frozen
class Decoder:
    """Makes values from the bytes of a run's results.

    Attributes:
        policy: `trusted`, `safe` or `never`.
        loads: decodes any pickle.
        find_type: policy -> function that finds the classes that plain data names.
    """

    policy: str
    loads: Callable[[bytes], Any]
    find_type: Callable[[str], FindType]

    def part(self, stored: StoredResult, name: str) -> Any:
        """Decode one part of a result.

        Raises:
            ResultNotDecoded: the digest does not match, it is damaged, or the policy forbids it.
            ValueNotPlain: it, or a part of it, has no plain form.
            Exception: whatever the pickle raises, but only under `trusted`.
        """
        what = f"{name} of job {stored.num} on {stored.host}"
        if self.policy == "never":
            raise ResultNotDecoded(
                f"{what} was not decoded: results=never (results=safe decodes plain data, results=trusted everything)"
            )
        is_plain = stored.parts.codec == PLAIN
        if not is_plain and self.policy == "trusted":
            try:
                return self.loads(read_part(stored, name))
            except RecursionError as error:
                raise ResultNotDecoded(f"{what}: nested too deeply to be decoded") from error
        # Imported for a run that has plain values: with what it imports it is 5 % of the time that `launcher` takes to import.
        from launcher.serialization.plain_values import read_plain

        try:
            return read_plain(_said(stored, name, is_plain=is_plain, what=what), self.find_type(self.policy))
        except ValueNotPlain as error:
            raise error.told_of(what, _RETURN_PLAIN if is_plain else _TRUSTED) from None
        except ResultNotDecoded as error:
            raise (error if str(error).startswith(what) else ResultNotDecoded(f"{what}: {error}")) from error.__cause__

    def digest(self, stored: StoredResult) -> str:
        """Return a digest.

        Two results with the same digest have equal values. It is empty if they must be decoded to compare them.
        """
        from launcher.serialization.plain_values import is_whole

        part = stored.parts.by_name["value"]
        if stored.parts.codec == PLAIN and not (part.size <= MAX_SIZE and is_whole(read_part(stored, "value"))):
            # Parts without a plain form are not compared.
            return ""
        return part.sha256


def _said(stored: StoredResult, name: str, *, is_plain: bool, what: str) -> bytes:
    """Return the plain form of a part, which the host sent alone or beside a pickle.

    Raises:
        ResultNotDecoded: it has no plain form, or one over the cap.
    """
    if not is_plain and (name != "value" or stored.parts.plain is None):
        if name == "value" and stored.parts.by_name[name].size < 100 and read_part(stored, "value") in _NONE:
            return _PLAIN_NONE
        raise ResultNotDecoded(f"{what} is a pickle, and results=safe opens no pickles; {_TRUSTED}")
    name, cap = (name, MAX_SIZE) if is_plain else ("plain", MAX_SMALL)
    size = stored.parts.by_name[name].size
    if size > cap:
        raise ResultNotDecoded(f"{what}: its plain form has {size:,} bytes; the cap is {cap:,}")
    return read_part(stored, name)
