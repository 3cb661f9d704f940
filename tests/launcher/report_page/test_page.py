"""The page of a report, as text: what it says without a script, and that nothing of a host is markup."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from launcher import events
from launcher.report_page import page as page_module
from launcher.report_page.facts import read_facts
from launcher.report_page.page import render
from tests.journals import START, MadeJob, failure, make_run

#: What a host may write, to become markup, a script, another line or another direction of text.
HOSTILE = [
    "<script>alert(1)</script>", "</script><script>alert(2)</script>", "<!--<script>", '"><img src=x onerror=alert(3)>',
    "javascript:alert(4)", "{{ 7*7 }}{% raw %}", "]]>\x00\x1b[2J\x9b\u2028\u2029\u202e\ud800", "'-alert(5)-'", "&lt;b&gt;", "A" * 100_000,
]  # fmt: skip


class Parsed(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else self._in
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif not self._in:
            self.texts.append(data)


def page_of(folder: Path, jobs: list[MadeJob], **how: Any) -> str:
    """The page of a run of these jobs."""
    return render(read_facts(make_run(folder, jobs, **how)), folder).decode()


def data_of(page: str) -> Any:
    """What the page's script gets."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def hostile_jobs() -> list[MadeJob]:
    """Jobs in which a host says these wherever it can."""
    jobs = []
    for text in HOSTILE:
        error = failure(type=text, message=text, traceback=f'  File "{text}", line 1, in {text}\n{text}')
        jobs += [MadeJob([f"x={text}"], {text: text, "loss": 1.0}), MadeJob([f"x={text}"], state="FAILED", error=error)]
    return jobs


def test_everything_is_there_without_a_script(tmp_path: Path) -> None:
    """Outcome, failures with a traceback and a command, every job with its values, hosts, and what ran."""
    jobs = [MadeJob([f"lr={lr}", "seed=1"], {"loss": lr / 8}) for lr in range(1, 4)]
    jobs.append(MadeJob(["lr=9", "seed=1"], state="FAILED", host="gpu2", earlier=("gpu1",)))
    text = " ".join(" ".join(Parsed(page_of(tmp_path, jobs, run="20231114-221320-aaaa")).texts).split())
    for said in (
        "train failed run 20231114-221320-aaaa", "jobs 4 completed 3 failed 1", "least loss 0.125 job 0", "ZeroDivisionError: division by zero",
        "launcher reproduce 20231114-221320-aaaa#3", "return 1 / cfg.lr", "all jobs: seed=1", "0.375", "1 on gpu1: given up (the host was lost)",
    ):  # fmt: skip
        assert said in text, said


def test_nothing_that_a_host_wrote_is_markup(tmp_path: Path) -> None:
    """The elements, their attributes' names and the scripts are those of a run that says nothing of the kind."""
    happened = [
        *(events.Warned(START + 0.6, text, text, host=text) for text in HOSTILE),
        *(events.HostUnusable(START + 0.6, text[:200], text, text) for text in HOSTILE),
    ]
    page = page_of(tmp_path, hostile_jobs(), happened=happened)
    parsed = Parsed(page)
    allowed = {
        "a", "body", "button", "code", "dd", "details", "div", "dl", "dt", "footer", "h1", "h2", "head", "header", "html", "input", "label", "li",
        "main", "meta", "nav", "noscript", "option", "output", "p", "pre", "script", "section", "select", "span", "style", "summary", "table",
        "tbody", "td", "th", "thead", "title", "tr", "ul",
    }  # fmt: skip
    assert {tag for tag, _ in parsed.elements} <= allowed
    assert len(parsed.scripts) == 4
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith(("#", "./"))
        assert "src" not in attributes
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", re.sub(r"(?s)<script>.*?</script>", "", page)
    )
    assert "alert(1)" in " ".join(parsed.texts)


def test_data_for_the_script_has_no_markup(tmp_path: Path) -> None:
    """It is JSON in ASCII without `<`, and what JSON cannot write is missing."""
    jobs = [*hostile_jobs(), MadeJob(value={"loss": math.nan, "big": 1 << 200}), MadeJob(value={"loss": -math.inf})]
    page = page_of(tmp_path, jobs)
    raw = page.partition('id="data">')[2].partition("</script>")[0]
    assert raw.isascii()
    assert not set("<>&") & set(raw)
    (loss,) = (one["cells"] for one in data_of(page)["columns"] if one["name"] == "loss")
    assert loss[-2:] == [None, None]


def test_the_policy_allows_our_scripts_and_nothing_else(tmp_path: Path) -> None:
    """By their hashes. No script of the page makes another one from text."""
    page = page_of(tmp_path, [MadeJob(value=float(x)) for x in range(2)])
    (policy,) = (
        one["content"] or "" for tag, one in Parsed(page).elements if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == 3
    for text in (*scripts, style):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy


def test_a_page_is_small_and_the_same_each_time(tmp_path: Path) -> None:
    """Two megabytes without the data. It has no time of its making, so that two reports can be compared."""
    entry = make_run(tmp_path, [MadeJob([f"lr={num}"], num) for num in range(10)])
    pages = [render(read_facts(entry), tmp_path) for _ in range(2)]
    assert pages[0] == pages[1]
    assert len(pages[0]) < 2_000_000


def test_only_what_varies_has_a_column(tmp_path: Path) -> None:
    """The rest is said once. Values come after what was set."""
    page = page_of(tmp_path, [MadeJob([f"lr={num}", "seed=1"], {"loss": num}) for num in range(2)])
    assert [one["name"] for one in data_of(page)["columns"] if one["role"]] == ["lr", "loss"]


def test_no_place_names_a_home_folder(tmp_path: Path) -> None:
    """Not overrides, values, their names, errors, nor what hosts say of themselves; unless the user asks for it."""
    secret = "/home/ann/secret"
    jobs = [
        MadeJob([f"data={secret}/{num}", f"all={secret}"], {"path": secret, f"of {secret}": num}, earlier=("gpu2",))
        for num in range(2)
    ]
    jobs.append(MadeJob([f"all={secret}"], state="FAILED", error=failure(message=secret, traceback=f'File "{secret}"')))
    happened = [
        events.HostUnknown(START + 0.6, "gpu2", secret),
        events.HostLost(START + 0.6, "gpu2", secret),
        events.HostUnusable(START + 0.6, "gpu3", "python", secret),
        events.Warned(START + 0.6, "hook", secret),
        events.JobRequeued(START + 0.9, 0, 1, "gpu2", secret),
    ]
    entry = make_run(tmp_path, jobs, happened=happened)
    facts = read_facts(entry)
    page = render(facts, tmp_path).decode()
    assert "/home/ann" not in page
    assert page.count("~/secret") > 10
    assert "/home/ann/secret" in render(read_facts(entry, full_paths=True), tmp_path, full_paths=True).decode()


def test_an_idle_slot_has_a_lane(tmp_path: Path) -> None:
    """And a job stands in the lane of its slot."""
    data = data_of(page_of(tmp_path, [MadeJob(slot=1)], slots=3))
    assert data["lanes"] == ["gpu1 · 0", "gpu1 · 1", "gpu1 · 2"]
    assert data["spans"] == [[1, 1.0, 3.0, 3.02, 0, data["states"].index("COMPLETED"), 1]]


def test_links_to_files_are_relative_and_name_no_folder_above(tmp_path: Path) -> None:
    """A page that lies elsewhere has none, unless the user asks for it. A colon in a name is not a scheme."""
    folder = tmp_path / "run"
    entry = make_run(folder, [MadeJob(value=1), MadeJob(value=2)])
    (folder / "0").mkdir()
    facts = read_facts(entry)
    links = [one["href"] for tag, one in Parsed(render(facts, folder).decode()).elements if tag == "a"]
    assert "./0/" in links
    assert "./1/" not in links
    assert b"./" not in render(facts, tmp_path / "elsewhere").partition(b"<tbody>")[2].partition(b"</tbody>")[0]
    assert b'href="./../run/0/"' in render(facts, tmp_path / "elsewhere", full_paths=True)


def test_the_library_is_whole_and_stays_in_its_element() -> None:
    """Its licence is beside it and in it."""
    folder = Path(page_module.__file__).parent
    text = (folder / "echarts-6.1.0.min.js").read_text(encoding="utf-8")
    assert "</script" not in text.lower()
    assert "<!--" not in text
    assert "Licensed to the Apache Software Foundation" in text[:1000]
    assert "Apache License" in (folder / "echarts-LICENSE").read_text()
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
    )


@pytest.mark.parametrize("end", ["", "detached"])
def test_a_page_of_a_run_that_is_not_over_says_so(tmp_path: Path, end: str) -> None:
    """Its time is that so far."""
    text = " ".join(Parsed(page_of(tmp_path, [MadeJob(value=1), MadeJob(state="running")], end=end)).texts)
    assert "so far" in text
    assert "was not complete" in text


def test_what_jobs_used_has_columns_where_it_is_known(tmp_path: Path) -> None:
    """For people in the page, and in bytes for sorting."""
    jobs = [MadeJob(used={"peak_memory": 3 << 30}), MadeJob(used={"cpu_seconds": "<script>"})]
    text = page_of(tmp_path / "known", jobs)
    assert '<th scope="col" class="number">memory</th>' in text
    assert "<td>3.0 GiB" in text
    assert "CPU time" not in text
    data = json.loads(next(one for one in Parsed(text).scripts if one.startswith("{")))
    assert next(one["cells"] for one in data["columns"] if one["name"] == "memory") == [3 << 30, None]
    assert "memory</th>" not in page_of(tmp_path / "unknown", [MadeJob()])
