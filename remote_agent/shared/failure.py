"""How an exception becomes text and plain data: tracebacks, JobErrors, and the exception that SIGTERM becomes.

Rule: a failure is always reported, whatever the user's exception does (a `__str__` that raises, a `__reduce__` that exits, a chain of
a thousand causes). Our own frames are not part of a user's traceback.
"""

import dataclasses
import importlib
import os
import signal
import traceback
from typing import Any, List, Optional, Tuple

from remote_agent.job import JobError

__all__ = [
    "JobTerminated",
    "decided_error",
    "error_of_exception",
    "exit_code_of",
    "safe_text",
    "timed_out",
    "traceback_text",
    "type_name",
]

#: Characters of a message, and of a traceback, that are sent. Longer ones are cut in the middle.
_MAX_MESSAGE = 10000
_MAX_TRACEBACK = 60000
#: How many exceptions of a chain are reported one by one.
_MAX_CHAIN = 20
_OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORT_MACHINERY = (os.path.dirname(importlib.__file__) + os.sep, "<frozen importlib")


class JobTerminated(BaseException):
    """Raised in a job's main thread when SIGTERM arrives, so that `finally` blocks and end hooks run.

    It is not an `Exception`, so an application's `except Exception` does not catch it.
    """


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return "{}\n... {} characters left out ...\n{}".format(text[:half], len(text) - 2 * half, text[-half:])


def safe_text(value: Any) -> str:
    """Return `str(value)`, whatever `__str__` does. The result can always be encoded as UTF-8."""
    try:
        text = str(value)
    except BaseException as error:  # noqa: BLE001 - a user's __str__ may raise anything, SystemExit too
        text = "<{} whose text is not available: {}>".format(type_name(value), type_name(error))
    return _cut(text.encode("utf-8", "backslashreplace").decode("utf-8"), _MAX_MESSAGE)


def type_name(value: Any) -> str:
    """Return the full name of a value's type. Builtins have no module in it."""
    cls = type(value)
    module = getattr(cls, "__module__", None)
    name = getattr(cls, "__qualname__", None)
    if not isinstance(name, str):
        name = "?"
    return name if module in (None, "builtins") or not isinstance(module, str) else "{}.{}".format(module, name)


def _trimmed(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return the stack without frames at its beginning and end that are ours or belong to our import of the
    application.

    If there are no others (a SyntaxError), those of the import are kept. If all are ours, all are kept.
    """
    frames = list(stack)
    foreign = [index for index, frame in enumerate(frames) if not frame.filename.startswith(_OUR_FOLDER)]
    others = [index for index in foreign if not frames[index].filename.startswith(_IMPORT_MACHINERY)] or foreign
    if not others:
        return stack
    return traceback.StackSummary.from_list(frames[others[0] : others[-1] + 1])


def _links(error: BaseException) -> List[Tuple[BaseException, str]]:
    """Return the exception and what led to it, outermost first, each with its relation to the one before."""
    chain: List[Tuple[BaseException, str]] = [(error, "")]
    seen = {id(error)}
    while len(chain) < _MAX_CHAIN:
        cause, context = error.__cause__, error.__context__
        if cause is not None:
            following, relation = cause, "cause"
        elif context is not None and not error.__suppress_context__:
            following, relation = context, "context"
        else:
            break
        if id(following) in seen:
            break
        seen.add(id(following))
        chain.append((following, relation))
        error = following
    return chain


_BETWEEN = {
    "cause": "\nThe above exception was the direct cause of the following exception:\n\n",
    "context": "\nDuring handling of the above exception, another exception occurred:\n\n",
}


def _one_text(error: BaseException) -> str:
    """Return the text of one exception of a chain, without the others."""
    try:
        formatted = traceback.TracebackException(type(error), error, error.__traceback__)
        formatted.stack = _trimmed(formatted.stack)
        return "".join(formatted.format(chain=False))
    except BaseException:  # noqa: BLE001 - a hostile __str__, or a stack that is too deep; the text below is simpler
        lines = ["Traceback (most recent call last):\n"]
        try:
            lines += _trimmed(traceback.extract_tb(error.__traceback__)).format()
        except BaseException as problem:  # noqa: BLE001 - as above
            lines.append("  (its frames cannot be shown: {})\n".format(type_name(problem)))
        lines.append("{}: {}\n".format(type_name(error), safe_text(error)))
        return "".join(lines)


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception and its chain as Python prints it, without our own frames."""
    text = ""
    for link, relation in reversed(_links(error)):
        text += _one_text(link) + _BETWEEN.get(relation, "")
    return _cut(text.encode("utf-8", "backslashreplace").decode("utf-8"), _MAX_TRACEBACK)


def exit_code_of(error: SystemExit) -> int:
    """Return the exit code that `sys.exit` asked for: 0 for None, 1 for anything that is not a whole number."""
    code = error.code
    if code is None:
        return 0
    return int(code) if isinstance(code, int) else 1


def error_of_exception(error: BaseException, kind: str = "exception") -> JobError:
    """Return the JobError for an exception. SystemExit and JobTerminated decide the kind themselves."""
    result = JobError(
        kind=kind,
        type=type_name(error),
        message=safe_text(error),
        traceback=traceback_text(error),
        causes=[
            {"type": type_name(link), "message": safe_text(link), "relation": relation}
            for link, relation in _links(error)[1:]
        ],
    )
    if isinstance(error, JobTerminated):
        result.kind, result.type, result.message, result.signal = (
            "killed",
            "SIGTERM",
            "terminated by SIGTERM",
            int(signal.SIGTERM),
        )
    elif isinstance(error, SystemExit):
        result.kind, result.exit_code = "exited", exit_code_of(error)
        if isinstance(error.code, int):
            result.message = "sys.exit({})".format(int(error.code))
    return result


def timed_out(timeout: Optional[float]) -> str:
    """Return the message of a job that was ended by its time limit."""
    return "timed out after {} s".format(timeout)


def decided_error(error: JobError, kind: str, timeout: Optional[float]) -> JobError:
    """Return the error of a job that was told to end.

    The reason for that counts, and not the way in which the job ended.
    """
    if error.kind not in ("exception", "exited", "killed"):
        return error
    message = error.message
    if kind == "timeout":
        message = timed_out(timeout)
    elif not message or error.signal == signal.SIGTERM:
        message = kind
    return dataclasses.replace(error, kind=kind, message=message)
