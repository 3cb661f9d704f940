"""What the submitters of a run have written down. Each writes a log of its own (see `turns`), and reads those before it.

submitter.<turn>     as the log in the spool of a host, for attempts that no allocation has, and in it:
    asking     {"name", "count"}     allocations are about to be asked for
    answered   {"name", "job"}       Slurm has taken the request
    refused    {"name", "why"}       it has not, and no such request will come
    acked      {"a"}                 the controller has the result
    back       {"a"}                 the attempt was given back to the controller, and never starts
    owed       {"a", "n", "source"}  the end hooks of a job whose allocation died are owed, for the nth time
    given      {"a"}                 the controller knows of this attempt, which is not the first one of its job
    epilogue   {"name"}              an allocation is about to be asked for that fires what is owed when all others have ended
    left       {}                    nothing follows
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.log import LogReader, Reference, SpoolLog
from remote_agent.agent.spool.records import apply_record
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.slurm.batch.classes import DEFAULT
from remote_agent.slurm.shared_disk.turns import Turn, TurnTaken

__all__ = ["Asked", "SubmitterLog"]


class Asked(NamedTuple):
    """A request for allocations.

    Attributes:
        tasks: how many they are.
        klass: the class of jobs for which they are.
        slots: how many jobs each runs at once.
        at_once: how many of them may run at a time; None for all.
    """

    tasks: int
    klass: str
    slots: int
    at_once: Optional[int]


class SubmitterLog:
    """What is known from all of them, and the log of this one. Making it waits until those before have stopped.

    Args:
        is_wanted: whether a controller waits for this submitter.

    Raises:
        TurnTaken: one before has not stopped.

    Attributes:
        file: the log of this submitter.
        acked: attempts whose result the controller has.
        back: attempts that were given back.
        given: attempts after the first one of which the controller knows.
        own: attempts that no allocation has, or none any more, and that have ended.
        requests: all that Slurm has, or may have, by name.
        answered: name of a request that Slurm has answered -> its id.
        epilogues: names of requests for allocations that only fire what is owed.
        owed: attempt -> how often its end hooks were owed, and by which incarnation now.
    """

    def __init__(self, turn: Turn, is_wanted: Callable[[], bool]) -> None:
        self.acked: Set[str] = set()
        self.back: Set[str] = set()
        self.given: Set[str] = set()
        self.own: Dict[str, Attempt] = {}
        self.requests: Dict[str, Asked] = {}
        self.answered: Dict[str, str] = {}
        self.epilogues: List[str] = []
        self.owed: Dict[str, Tuple[int, str]] = {}
        self.file = SpoolLog(turn.path)
        self.file.flush()
        try:
            turn.wait(is_wanted)
        except TurnTaken:
            # It has written nothing, so nobody need wait for it.
            self.record("left")
            raise
        for number in turn.earlier():
            for header, reference in LogReader(turn.log_of(number)).advance():
                self._on_record(header, reference)
        # An end that was not recorded whole is decided anew.
        self.own = {name: attempt for name, attempt in self.own.items() if attempt.final is not None}
        for attempt in self.own.values():
            attempt.is_synced = True
            attempt.state = "final"

    def record(self, record: str, **fields: Any) -> Reference:
        """Append a record and bring it to the disk."""
        reference = self.file.append(dict(fields, r=record))
        self.file.flush()
        self.file.sync()
        return reference

    @property
    def is_unanswered(self) -> bool:
        """Whether it is not known of a request whether Slurm has it."""
        return any(name not in self.answered for name in self.requests)

    def is_done(self, attempt: str) -> bool:
        """Whether the controller has its result, or has it back."""
        return attempt in self.acked or attempt in self.back

    def is_hidden(self, attempt: str) -> bool:
        """Whether the controller does not know of an attempt yet: it was made here, and the result of the one before has not arrived there."""
        return not attempt.endswith(".1") and attempt not in self.given

    def is_own(self, attempt: str) -> bool:
        """Whether the controller gets the result of an attempt from this log."""
        return attempt in self.own and attempt not in self.acked and not self.is_hidden(attempt)

    def _on_record(self, header: Dict[str, Any], reference: Reference) -> None:
        name = header["r"]
        if name == "asking":
            self.requests[header["name"]] = Asked(
                header["count"], header.get("class", DEFAULT), header.get("slots", 1), header.get("at_once")
            )
        elif name == "answered":
            self.answered[header["name"]] = str(header["job"])
        elif name == "refused":
            self.requests.pop(header["name"], None)
        elif name == "acked":
            self.acked.add(header["a"])
        elif name == "back":
            self.back.add(header["a"])
        elif name == "given":
            self.given.add(header["a"])
        elif name == "owed":
            self.owed[header["a"]] = header["n"], header["source"]
        elif name == "epilogue":
            self.epilogues.append(header["name"])
        elif name == "left":
            return
        elif name == "accepted":
            self.own[header["a"]] = Attempt(JobSpec.from_json(header["spec"]))
        else:
            apply_record(self.own[header["a"]], name, header, reference)
