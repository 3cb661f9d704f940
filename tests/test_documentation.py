"""What the pages, docstrings and comments point to is there, also in the source distribution."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import yaml

from launcher.hosts.inventory import load_hosts_file

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
SOURCES = sorted(
    path for top in ("launcher", "remote_agent", "hydra_plugins", "benchmarks") for path in (ROOT / top).rglob("*.py")
)
#: Names of ours that are no modules of today: what older versions stored, and loggers.
STORED = {
    "launcher/runs/record.py",
    "remote_agent/shared/job_log.py",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("*/former/*.py")),
}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    """To a file that is there, and to a heading that the page has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@functools.cache
def exists(name: str) -> bool:
    """A dotted name is a module of ours, or something that one defines."""
    place = ROOT
    for part in name.split("."):
        if (place / part).is_dir():
            place /= part
            continue
        if (place / f"{part}.py").is_file():
            return True
        init = place / "__init__.py"
        return part.startswith("__") or (init.is_file() and re.search(rf"\b{part}\b", init.read_text()) is not None)
    return True


def hosts_files() -> list[str]:
    """The examples of hosts files: YAML of which each value is a mapping with fields of a host."""
    fields = {"address", "slots", "env", "slurm", "environment", "workdir", "setup", "gpus"}
    found = []
    for page in PAGES:
        for text in re.findall(
            r"^```yaml[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        ):
            content = yaml.safe_load(text)
            if all(isinstance(value, dict) and fields & value.keys() for value in content.values()):
                found.append(text)
    return found


@pytest.mark.parametrize("text", hosts_files())
def test_every_example_of_a_hosts_file_can_be_read(text, tmp_path):
    """A user copies it."""
    (tmp_path / "hosts.yaml").write_text(text)
    assert load_hosts_file(tmp_path / "hosts.yaml")


def test_there_are_examples_of_hosts_files():
    """The last test would say nothing else."""
    assert any("slurm:" in text for text in hosts_files())


def test_every_module_that_a_file_names_is_there():
    """In comments and texts, too, where nothing else would notice that it has moved."""
    dotted = re.compile(r"(?<![\w./-])((?:launcher|remote_agent|benchmarks)(?:\.[a-z_]\w*)+)")
    files = {str(path.relative_to(ROOT)): path for path in SOURCES}
    named = {(file, name) for file in files.keys() - STORED for name in dotted.findall(files[file].read_text("utf-8"))}
    assert sorted(one for one in named if not exists(one[1]) and not one[1].endswith((".__file__", ".py"))) == []


def test_the_source_distribution_has_what_the_pages_need():
    """The README's commands and the pages' links work in an unpacked one."""
    listed = re.search(
        r"\[tool\.hatch\.build\.targets\.sdist\]\ninclude = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert listed is not None
    included = set(re.findall(r'"([^"]+)"', listed.group(1)))
    # hatchling brings these by itself.
    included |= {"LICENSE", "pyproject.toml"}
    linked = {"constraints.txt"}
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                linked.add((page.parent / link).resolve().relative_to(ROOT).parts[0])
    assert linked <= included
