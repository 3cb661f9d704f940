"""How to prepare the application for a host's jobs, as the journal stores it, as the agent gets it, and as the zygote
gets it.

Rule: the values of variables are in no journal and in no error message.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from remote_agent.protocol.fields import FieldError, is_sha256, read, to_json

__all__ = ["Command", "ControllerFacts", "ZygoteSpec"]

#: Values of fields that an earlier version did not have, or that only the agent sets.
_EARLIER = {
    "argv0_is_absolute": False,
    "main_is_module": False,
    "values": "cloudpickle",
    "code_blob": None,
    "code_root": None,
    "environment": False,
    "shared_file": "",
    "warm": 0.0,
    "umask": 0o022,
}


class ControllerFacts(NamedTuple):
    """Facts about the controller that matter for loading its pickles.

    Attributes:
        python: major and minor version.
        by_value, values: whether something is pickled by value, and its names.
        omegaconf, hydra, cloudpickle: versions; None if jobs do not need them.
        family_python: the oldest Python that the bundle's omegaconf runs under; empty for any.
    """

    python: List[int]
    by_value: bool
    values: List[str]
    omegaconf: Optional[str]
    hydra: Optional[str]
    family_python: List[int]
    cloudpickle: Optional[str]

    def to_json(self) -> Dict[str, Any]:
        """Return the facts as a JSON object, which `from_json` reads."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> "ControllerFacts":
        """Read the facts that the controller sent.

        Raises:
            FieldError: they are not valid.
        """
        return read(cls, "controller", data, {"values": list, "family_python": list})


class Command(NamedTuple):
    """What the jobs' Python looks as if it had been started with.

    Attributes:
        argv: the first item is relative to the jobs' folder.
        argv0_is_absolute: whether it was given as an absolute path.
        main_is_module: whether it was started with `-m`.
    """

    argv: List[str]
    argv0_is_absolute: bool
    main_is_module: bool


class ZygoteSpec(NamedTuple):
    """How to prepare the application.

    Attributes:
        sys_path, cwd: relative to the code if it is sent, else absolute; always absolute for the zygote.
        isolation: `auto`, `fork`, `spawn` or `reuse`.
        main_module: the module to import as `__main__`; None for nothing.
        argv, argv0_is_absolute, main_is_module: see `Command`.
        host: as the user named it.
        code: what a JobReturn says about the code.
        environ, setup, python: what is needed to start the zygote: variables, shell lines, its Python.
        shared, code_blob: the names of contents: what all jobs share, and the manifest of the code.
        values: the form in which values are sent: `cloudpickle` or `plain`.
        environment: whether it starts in the environment that the controller describes, under that environment's Python.
        warm: for how many seconds an interpreter waits for the next run afterwards; 0: this run uses and leaves none.
        code_root, shared_file, umask: from the agent to the zygote: the paths of these, and the user's umask.
    """

    sys_path: List[str]
    cwd: str
    isolation: str
    main_module: Optional[str]
    controller: ControllerFacts
    argv: List[str]
    argv0_is_absolute: bool
    main_is_module: bool
    host: str
    code: Dict[str, Any]
    environ: Dict[str, str]
    setup: List[str]
    python: Optional[str]
    shared: str
    values: str
    code_blob: Optional[str]
    environment: bool
    warm: float
    code_root: Optional[str]
    shared_file: str
    umask: int

    @property
    def command(self) -> Command:
        """What the jobs' Python looks as if it had been started with."""
        return Command(self.argv, self.argv0_is_absolute, self.main_is_module)

    def to_json(self) -> Dict[str, Any]:
        """Return the spec as a JSON object, which `from_json` reads."""
        return dict(to_json(self), controller=self.controller.to_json())

    def to_journal(self) -> Dict[str, Any]:
        """Return the same without the values of variables."""
        return dict(self.to_json(), environ=sorted(self.environ))

    @classmethod
    def from_json(cls, data: Any) -> "ZygoteSpec":
        """Read a spec that the other side sent.

        Raises:
            FieldError: it is not valid.
        """
        spec = read(cls, "prepare", data, _EARLIER)
        for name, sha256 in (("shared", spec.shared), ("code_blob", spec.code_blob)):
            if sha256 and not is_sha256(sha256):
                raise FieldError("prepare", name, sha256)
        return spec

    @classmethod
    def from_journal(cls, data: Dict[str, Any]) -> "ZygoteSpec":
        """Read a spec that `to_journal` wrote, without variables. `values` is empty if a version before plain data
        wrote it.

        Raises:
            FieldError: it is not valid.
        """
        return cls.from_json({"values": "", **data, "environ": {}})
