"""Shell lines before the job environment's Python, such as `module load cuda`. They run one by one, and are named if
they fail.

Rule: the lines share one shell, as if they had been typed into it. The first that fails ends it. The zygote's log shows
which one that was, because each line is announced there before it runs. A line may also end the shell itself.

A construct over several lines counts as one line here: a line that the shell considers unfinished is joined with the
next.
"""

import os
import re
import subprocess
from typing import Dict, List, NamedTuple, Optional, Sequence

__all__ = ["SetupLine", "failure", "script", "split", "without_marks"]

_MARK = re.compile(r"^\[set-up ([0-9a-f]+) (\d+|done)(?: (\d+))?\]\n?", re.MULTILINE)
_EXIT = 97
#: How many characters of a line, and of its output, a message shows.
_MAX_SHOWN = 2000
#: Shorter values of variables are not secrets, and occur in any text.
_SHORTEST_SECRET = 4


class SetupLine(NamedTuple):
    """The text that one `eval` runs, and the numbers of its first and last line."""

    text: str
    first: int
    last: int


def split(setup: Sequence[str], shell: str) -> List[SetupLine]:
    """Split the text into lines that the shell considers complete.

    A rest that it never considers complete is one line.
    """
    lines = [line for entry in setup for line in str(entry).rstrip("\n").split("\n")]
    found: List[SetupLine] = []
    start = 0
    while start < len(lines):
        end = start + 1
        while end < len(lines) and not _is_complete("\n".join(lines[start:end]), shell):
            end += 1
        found.append(SetupLine("\n".join(lines[start:end]), start + 1, end))
        start = end
    return found


def _is_complete(text: str, shell: str) -> bool:
    trailing = len(text) - len(text.rstrip("\\"))
    if trailing % 2:
        return False
    if "<<" in text and os.path.basename(shell) != "bash":
        return False  # other shells do not report a here-document without an end
    try:
        checked = subprocess.run(
            [shell, "-n", "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True  # an error will show when it runs
    return checked.returncode == 0 and not checked.stderr


def script(lines: Sequence[SetupLine], token: str, log: str, shell: str, fd: int) -> str:
    """Return the script for the shell: the lines, then the command in its arguments.

    `fd` is the zygote's socket. Processes that a line leaves running must not hold it open.
    """
    closed = " {}>&-".format(fd) if os.path.basename(shell) == "bash" else ""
    announce = "echo '[set-up {} {}]' >> {}"
    parts = []
    for index, line in enumerate(lines):
        parts.append(announce.format(token, index, _quoted(log)))
        parts.append("eval {}{}".format(_quoted(line.text), closed))
        failed = 'echo "[set-up {} {} $?]" >> {}; exit {}'.format(token, index, _quoted(log), _EXIT)
        parts.append("case $? in 0) ;; *) {};; esac".format(failed))
    parts.append(announce.format(token, "done", _quoted(log)))
    parts.append('exec "$@"')
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "'\\''"))


def failure(
    log: str, token: str, lines: Sequence[SetupLine], status: Optional[int], environ: Dict[str, str]
) -> Optional[str]:
    """Return from the log the error of the line that failed or ended the shell; None if all of them succeeded.

    Args:
        status: the shell's exit status, if it is known.
        environ: variables of the jobs, whose values are not shown.
    """
    marks = [mark for mark in _MARK.finditer(log) if mark.group(1) == token]
    if not marks or marks[-1].group(2) == "done" or int(marks[-1].group(2)) >= len(lines):
        return None
    number = marks[-1].group(2)
    begun = [mark for mark in marks if mark.group(2) == number and mark.group(3) is None]
    printed = log[begun[-1].end() if begun else 0 : marks[-1].start() if marks[-1].group(3) else len(log)]
    line = lines[int(number)]
    where = str(line.first) if line.first == line.last else "{} to {}".format(line.first, line.last)
    if marks[-1].group(3):
        how = "ended with exit status {}".format(marks[-1].group(3))
    else:
        how = "ended the shell" + ("" if status is None else " with exit status {}".format(status))
    output = without_marks(printed).strip()
    text = "set-up line {} of {} ({}) {}{}".format(
        where,
        lines[-1].last,
        line.text.strip()[:_MAX_SHOWN],
        how,
        "; it printed:\n{}".format(output[-_MAX_SHOWN:]) if output else ", and printed nothing",
    )
    for value in sorted(map(str, environ.values()), key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text


def without_marks(log: str) -> str:
    """Return the log without our marks."""
    return _MARK.sub("", log)
