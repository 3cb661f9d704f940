"""The code of a run: what is missing of it is requested from the controller, and when it is all here, it is laid out.

Rule: the disk is the background thread's. The agent's thread only says what is missing, and counts what arrives.
"""

from typing import Callable, Collection, List, Optional, Set

from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.code.code_tree import CodeTree, Missing
from remote_agent.agent.spool.code.manifest import ManifestError
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import unwritten
from remote_agent.system.private_files import SpoolError

__all__ = ["Code"]

#: How often content that was altered on this host is requested again.
_MAX_ALTERED = 3
#: Contents that one message names.
_PART = 10000


class Code:
    """The code, and the requests for it.

    Args:
        on_change: called when the code is laid out, or cannot be.

    Attributes:
        error: why it cannot be laid out; None if it may come yet.
        is_busy: the disk is read or written.
    """

    def __init__(
        self, tree: CodeTree, background: BackgroundThread, controller: Controller, on_change: Callable[[], None]
    ) -> None:
        self._tree = tree
        self._background = background
        self._controller = controller
        self._on_change = on_change
        self._root = ""
        self._requested: Set[str] = set()
        self._altered = 0
        #: Contents were requested since the controller asked.
        self._has_answered = False
        self._is_asked_again = False
        self.is_busy = False
        self.error: Optional[BaseException] = None

    @property
    def folder(self) -> Optional[str]:
        """The tree, if it is complete."""
        return self._tree.path if self._tree.is_complete else None

    def request(self, root: str) -> None:
        """Say what is missing of the code with this manifest, now and whenever what was missing has arrived."""
        self.error = None
        if self.is_busy:
            self._is_asked_again = True
            return
        self._root, self._has_answered = root, False
        self._go_on()

    def arrived(self, sha256: Collection[str]) -> None:
        """Go on if all that was requested has arrived."""
        if self._requested:
            self._requested.difference_update(sha256)
            if not self._requested and not self.is_busy:
                self._go_on()

    def _go_on(self) -> None:
        self.is_busy = True
        self._requested = set()
        found: List[Optional[Missing]] = []
        root = self._root
        self._background.submit(
            lambda: found.append(self._tree.advance(root)), lambda error: self._advanced(found, error)
        )

    def _advanced(self, found: List[Optional[Missing]], error: Optional[BaseException]) -> None:
        self.is_busy = False
        is_asked_again, self._is_asked_again = self._is_asked_again, False
        if isinstance(error, ManifestError):
            self._controller.refuse("manifest", str(error))
        elif isinstance(error, SpoolError) and self._altered < _MAX_ALTERED:
            # Content had been altered in the cache. It was removed, and is requested again.
            self._altered += 1
            is_asked_again = True
        if is_asked_again:
            self._has_answered = False
            self._go_on()
            return
        # What could not be stored meanwhile stands.
        self.error = error or self.error
        if self.error is None and not (found[0] is None and self._has_answered):
            self._say(found[0])
        if self.error is not None or found[0] is None:
            self._on_change()

    def _say(self, missing: Optional[Missing]) -> None:
        rest, is_manifest = missing if missing is not None else Missing([], is_manifest=False)
        self._requested = set(rest)
        self._has_answered = not is_manifest
        if rest == [self._root]:
            self._controller.say({"t": "missing", "sha256": [], "manifest": self._root, "more": False})
            return
        while True:
            part, rest = rest[:_PART], rest[_PART:]
            self._controller.say({"t": "missing", "sha256": part, "manifest": None, "more": bool(rest) or is_manifest})
            if not rest:
                return

    def fail(self, error: OSError) -> None:
        """Take note that content could not be stored. It stands until the code is requested anew."""
        self.error = error

    def reason(self) -> str:
        """Why it cannot be laid out, in words."""
        if isinstance(self.error, OSError):
            return unwritten(self.error, self._tree.path)
        return str(self.error)
