"""What two processes must know alike stands in one place."""

import ast
from pathlib import Path

import remote_agent
from launcher.bootstrap import start
from remote_agent.protocol import constants

SOURCES = Path(remote_agent.__file__).parent.parent


def test_no_other_module_has_a_value_of_its_own():
    """A number that is changed here is changed on both sides, also in the text that stage-0 is."""
    for package in ("launcher", "remote_agent"):
        for path in sorted((SOURCES / package).rglob("*.py")):
            if path == Path(constants.__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    assert node.id.lstrip("_") not in constants.__all__, (path.name, node.lineno)


def test_stage_0_is_told_them():
    """It runs where nothing of ours can be imported yet."""
    program = start._program()
    for name in ("NEED", "EXIT_FOLDERS"):
        assert name in program
        assert repr(getattr(constants, name)) not in program
