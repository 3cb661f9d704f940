"""Constants that two processes must agree on are defined once."""

import ast
from pathlib import Path

import remote_agent
from launcher.bootstrap import start
from remote_agent.protocol import constants

SOURCES = Path(remote_agent.__file__).parent.parent


def test_no_other_module_defines_the_constants():
    """A number that is changed here changes on both sides, and in the text of stage-0."""
    for package in ("launcher", "remote_agent"):
        for path in sorted((SOURCES / package).rglob("*.py")):
            text = path.read_text()
            if path == Path(constants.__file__) or not any(name in text for name in constants.__all__):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    assert node.id.lstrip("_") not in constants.__all__, (path.name, node.lineno)


def test_stage_0_gets_the_constants():
    """It runs when nothing of ours can be imported yet."""
    program = start._program()
    for name in ("NEED", "EXIT_FOLDERS"):
        assert name in program
        assert repr(getattr(constants, name)) not in program
