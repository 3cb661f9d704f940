"""The starts of a run's Slurm jobs: what each has written down, which are dead, and what a dead one owes.

Rule: an incarnation is one start of one Slurm job, and it alone writes in its folder. Its log is the only source of results. It is dead if its
log says that it has left, if Slurm says so, or if a later start of the same job has begun; silence proves nothing. If only others say it, its
log may hold more than can be seen here yet, so what it owes is decided `SETTLE` seconds later.

    incarnations/<slurm job>.<restart>/log      as in the spool of a host, and in it:
        began     {"node", "at", "request"}     it may take attempts from now on; the name of the request that it comes from
        gone      {"a"}                         the process of an attempt is gone, and its output complete
        note      {"text"}                      for the user
        left      {"why"}                       nothing follows
"""

import enum
import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.log import LogReader, Reference
from remote_agent.agent.spool.records import apply_record, unknown_spec
from remote_agent.slurm.shared_disk.shared_files import SharedFiles

__all__ = [
    "AGAIN",
    "EPILOGUE",
    "FOLDER",
    "SETTLE",
    "Debt",
    "Fate",
    "Incarnation",
    "Incarnations",
    "Reader",
    "holders",
    "is_fenced",
    "is_incarnation",
    "split_claim",
]

FOLDER = "incarnations"
#: The request of an incarnation that only fires what dead ones owe.
EPILOGUE = "epilogue"
#: A shared disk shows a change after this many seconds at the latest.
SETTLE = 60.0
#: Why an incarnation is dead of whose job a later start has begun. A preempted one says that itself, if it can.
AGAIN = "the batch system started its allocation again: its node failed, or somebody requeued it"
_NAME = re.compile(r"([0-9]{1,12})\.([0-9]{1,6})")


class Reader:
    """What an incarnation reads its log with: `LogReader`, or a test's."""

    def advance(self) -> Iterator[Tuple[Dict[str, Any], Reference]]:
        """Yield the records that were added since the last time."""
        raise NotImplementedError


class Fate(enum.Enum):
    """What became of an attempt that a dead incarnation took and has no result of."""

    #: It certainly never began, so it goes on elsewhere whatever the policy.
    UNBEGUN = "unbegun"
    #: It began, or may have.
    BROKEN = "broken"


class Debt(NamedTuple):
    """An attempt that a dead incarnation took and has no result of. `kind`: that of the error, if it began. `rank`: how often others have
    inherited it; see `heirs`.
    """

    attempt: str
    incarnation: str
    fate: Fate
    kind: str
    why: str
    rank: int = 0


class Incarnation:
    """One start of a Slurm job, as far as its log can be seen here.

    Attributes:
        attempts: what the log says of each attempt.
        gone: attempts whose output is complete.
        node: where it runs; empty before it has begun.
        request: the name of the request that it comes from; empty if that is not known.
        left: why it has left, in its own words; None if it has not.
    """

    def __init__(self, name: str, reader: Any) -> None:
        self.name = name
        self.job, self.restart = _parts(name)
        self.reader = reader
        self.attempts: Dict[str, Attempt] = {}
        #: Attempts for which a claim has been in the log. From then on they may have started.
        self._claimed: Set[str] = set()
        self.gone: Set[str] = set()
        self.node = self.request = ""
        self.has_begun = False
        self.left: Optional[str] = None
        #: Why others say that it is dead, and since when we know that.
        self.buried_because = ""
        self.kind = "lost"
        self.buried_at: Optional[float] = None

    def advance(self) -> List[Tuple[str, Dict[str, Any]]]:
        """Read what was added. Returns (record, header) of each."""
        found = []
        for header, reference in self.reader.advance():
            name = header["r"]
            found.append((name, header))
            if name == "began":
                self.has_begun, self.node = True, str(header.get("node", ""))
                self.request = str(header.get("request", ""))
            elif name == "left":
                self.left = str(header.get("why", ""))
            elif name == "gone":
                self.gone.add(header["a"])
            elif "a" in header:
                self._apply(name, header, reference)
        return found

    def _apply(self, name: str, header: Dict[str, Any], reference: Reference) -> None:
        attempt = self.attempts.get(header["a"])
        if attempt is None:
            attempt = self.attempts[header["a"]] = Attempt(unknown_spec(header["a"]))
        if name in ("claimed", "started", "forked"):
            self._claimed.add(attempt.id)
        elif name == "unclaimed":
            # Its next claim is on the disk before it starts. That of one that was `unstarted` is there already.
            self._claimed.discard(attempt.id)
        elif name == "acked" and header.get("back"):
            # It was not started, because the disk was full then.
            self._claimed.discard(attempt.id)
        apply_record(attempt, name, header, reference)
        if name == "final" and attempt.state == "queued":
            # It never had a process, so none has to go.
            attempt.state = "final"

    @property
    def is_over(self) -> bool:
        """Whether it takes nothing more, as far as anybody says."""
        return self.left is not None or self.buried_at is not None

    def fate_of(self, attempt_id: str) -> Optional[Fate]:
        """What became of an attempt that it took, if nothing follows in its log; None if it has a result."""
        attempt = self.attempts.get(attempt_id)
        if attempt is not None and attempt.final is not None:
            return None
        return Fate.BROKEN if attempt_id in self._claimed else Fate.UNBEGUN


class Incarnations:
    """All incarnations of a run, as one process sees them.

    Args:
        reader_of: makes what reads the log at a path.
    """

    def __init__(self, files: SharedFiles, reader_of: Callable[[str], Any] = LogReader) -> None:
        self._files = files
        self._reader_of = reader_of
        self._by_name: Dict[str, Incarnation] = {}
        files.make_folder(FOLDER)

    def __iter__(self) -> Iterator[Incarnation]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Optional[Incarnation]:
        """Return an incarnation that was seen."""
        return self._by_name.get(name)

    def advance(self, now: float) -> List[Tuple[Incarnation, str, Dict[str, Any]]]:
        """See which incarnations there are, and read what they have added. Returns (incarnation, record, header) of each.

        Raises:
            OSError: a log cannot be read now.
        """
        for name in self._files.names(FOLDER):
            if name not in self._by_name and _NAME.fullmatch(name):
                self._add(name)
        found = []
        for incarnation in self:
            if incarnation.left is None:
                found += [(incarnation, name, header) for name, header in incarnation.advance()]
        latest: Dict[int, int] = {}
        for incarnation in self:
            if incarnation.has_begun:
                latest[incarnation.job] = max(incarnation.restart, latest.get(incarnation.job, 0))
        for incarnation in self:
            if incarnation.restart < latest.get(incarnation.job, 0):
                self.bury(incarnation.name, "node_failed", AGAIN, now)
        return found

    def _add(self, name: str) -> Incarnation:
        reader = self._reader_of(self._files.path(FOLDER, name, "log"))
        incarnation = self._by_name[name] = Incarnation(name, reader)
        return incarnation

    def bury(self, name: str, kind: str, why: str, now: float) -> None:
        """Take note that somebody else says that an incarnation is dead, and of which kind of error. The first word counts."""
        incarnation = self._by_name.get(name) or self._add(name)
        if incarnation.buried_at is None:
            incarnation.kind, incarnation.buried_because, incarnation.buried_at = kind, why, now

    def debts(self, takers: Mapping[str, str], now: float) -> List[Debt]:
        """What dead incarnations owe: attempts that they took and have no result of.

        Call `advance` first. `takers`: who has taken each attempt, as the pool says.
        """
        found = []
        for attempt, (rank, taker) in holders(takers).items():
            incarnation = self._by_name.get(taker)
            if incarnation is None or not _is_settled(incarnation, now):
                continue
            fate = incarnation.fate_of(attempt)
            if fate is not None:
                why = incarnation.left if incarnation.left is not None else incarnation.buried_because
                found.append(Debt(attempt, taker, fate, incarnation.kind, why, rank))
        return found


def holders(takers: Mapping[str, str]) -> Dict[str, Tuple[int, str]]:
    """Attempt -> how often it was inherited, and who has it now."""
    found: Dict[str, Tuple[int, str]] = {}
    for claim, taker in takers.items():
        attempt, rank = split_claim(claim)
        if rank >= found.get(attempt, (0, ""))[0]:
            found[attempt] = rank, taker
    return found


def split_claim(claim: str) -> Tuple[str, int]:
    """Return the attempt of a claim, and the how manieth heir's it is: 0 for who took it to start it."""
    num, number, *rank = claim.split(".")
    return "{}.{}".format(num, number), int(rank[0]) if rank else 0


def _is_settled(incarnation: Incarnation, now: float) -> bool:
    """Whether nothing that we have not seen can be in its log."""
    if incarnation.left is not None:
        return True
    return incarnation.buried_at is not None and now >= incarnation.buried_at + SETTLE


def is_incarnation(name: str) -> bool:
    """Whether it is the name of one."""
    return _NAME.fullmatch(name) is not None


def is_fenced(name: str, others: Iterable[str]) -> bool:
    """Whether a later start of the same Slurm job is among these names. Then this one starts nothing more, and what it writes does not count."""
    job, restart = _parts(name)
    # Most are starts of other jobs.
    own = (one for one in others if one.startswith("{}.".format(job)))
    return any(_NAME.fullmatch(one) and _parts(one)[1] > restart for one in own)


def _parts(name: str) -> Tuple[int, int]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError("{!r} is not the name of an incarnation".format(name))
    return int(found.group(1)), int(found.group(2))
