"""The page of a report in a real browser, without a network.

Rule: a test waits for what the page says, never for time to pass.
"""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher import events
from launcher.report_page.facts import read_facts
from launcher.report_page.page import render
from tests.controllers import until
from tests.journals import START, MadeJob, failure, make_run
from tests.launcher.report_page.test_page import hostile_jobs
from tests.requirements import need_module, need_programs

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: A busy machine draws ten thousand lines in a minute.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


class Page:
    """A page in the browser."""

    def __init__(self, chrome: Chrome) -> None:
        self._chrome = chrome

    def open(
        self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True, at: str = ""
    ) -> None:
        """Open a page in a window of this size, at the element with this id (`#jobs`)."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self._chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        # The same page again with an element's id would not be loaded again.
        self._chrome.get("about:blank")
        self._chrome.get(path.as_uri() + at)

    def __call__(self, script: str) -> Any:
        """What an expression of JavaScript gives."""
        return self._chrome.execute_script(f"return {script}")

    def change(self, element: str, value: str) -> None:
        """Type or choose a value."""
        self._chrome.execute_script(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1]; one.dispatchEvent(new Event('input'));"
            "one.dispatchEvent(new Event('change'));",
            element,
            value,
        )

    def until(self, script: str, act: Callable[[], object] = lambda: None) -> Any:
        """Wait until an expression is true. Before each look, `act` is called."""
        return until(script, lambda: (act(), self(script))[1], timeout=240)

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            pressed = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self._chrome.execute_cdp_cmd("Input.dispatchKeyEvent", pressed)

    def draw(self, chart: str) -> None:
        """Scroll to a chart, and wait until it is drawn."""
        self(f"document.getElementById('{chart}').scrollIntoView()")
        self.until(f"report.charts.has('{chart}')")

    def media(self, kind: str) -> None:
        """Show the page as it is for this kind of media: `print`, or the empty text for a screen."""
        self._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind})

    def role(self, selector: str) -> str:
        """What an element is for a screen reader."""
        root = self._chrome.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        node = self._chrome.execute_cdp_cmd("DOM.querySelector", {"nodeId": root, "selector": selector})
        found = self._chrome.execute_cdp_cmd("Accessibility.getPartialAXTree", {**node, "fetchRelatives": False})
        return str(found["nodes"][0]["role"]["value"])

    def drag(self, x: float, first: float, last: float) -> None:
        """Drag with the mouse, up or down, in the window."""
        for kind, y in (
            ("mouseMoved", first),
            ("mousePressed", first),
            ("mouseMoved", (first + last) / 2),
            ("mouseMoved", last),
            ("mouseReleased", last),
        ):
            pressed = {"button": "left", "buttons": 1, "clickCount": 1} if kind != "mouseMoved" or y != first else {}
            self._chrome.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **pressed})

    @property
    def errors(self) -> list[str]:
        """What the browser complained of since it was asked last: errors of scripts, and what the policy forbade."""
        return [one["message"] for one in self._chrome.get_log("browser")]

    def picture(self) -> bytes:
        """A picture of the window, in WebP."""
        made = self._chrome.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 70})
        return base64.b64decode(made["data"])


def start_chrome(user_data: Path) -> Chrome:
    """Start a Chromium that finds no host."""
    need_module("selenium")
    programs = need_programs("chromium", "chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--hide-scrollbars", f"--user-data-dir={user_data}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    driver.set_page_load_timeout(240)
    return driver


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A Chromium for the tests of this file."""
    driver = start_chrome(tmp_path_factory.mktemp("chromium"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(chrome: Chrome) -> Page:
    """The browser, with its complaints of earlier pages forgotten."""
    chrome.get_log("browser")
    return Page(chrome)


def write(folder: Path, jobs: list[MadeJob], sort: str = "", **how: Any) -> Path:
    """The report of a run of these jobs, as a file."""
    path = folder / "report.html"
    path.write_bytes(render(read_facts(make_run(folder, jobs, **how), sort=sort), folder))
    return path


def sweep(count: int) -> list[MadeJob]:
    """A sweep over five hosts of four slots, of which some jobs fail."""
    chance = random.Random(3)
    free = [[1.0] * 4 for _ in range(5)]
    jobs = []
    for num in range(count):
        host, slot = min(((host, slot) for host in range(5) for slot in range(4)), key=lambda one: free[one[0]][one[1]])
        lr, model = 10 ** chance.uniform(-5, -1), chance.choice(["resnet", "vit", "mlp"])
        loss = 0.2 + abs(math.log10(lr) + 3) * 0.2 + chance.gauss(0, 0.03) + (model == "mlp") * 0.1
        duration = 2 + chance.expovariate(0.05)
        is_bad = chance.random() < 0.05
        error = failure() if num % 2 else failure("killed", type="", message="", traceback="", signal=9)
        jobs.append(
            MadeJob(
                [f"lr={lr:.5g}", f"model={model}", f"batch={chance.choice([16, 32, 64, 128])}", "seed=1"],
                {"loss": loss, "acc": 1 - loss}, "FAILED" if is_bad else "COMPLETED", f"gpu{host + 1}", slot, free[host][slot] + 0.1, duration, error,
            )
        )  # fmt: skip
        free[host][slot] += duration + 0.3
    return jobs


def write_small(folder: Path) -> Path:
    """The report of 120 jobs, with a link that was lost and a warning."""
    happened = [
        events.HostUnknown(START + 30, "gpu2", "the connection was reset"),
        events.HostReady(START + 60, "gpu2", 4, "3.11.7", reconnected=True),
        events.Warned(START + 40, "hook", "Progress.on_job_return raised ValueError: no"),
    ]
    setup = {
        "argv": ["launcher", "multirun", "train.py", "lr=..."],
        "code": {"root": "/x", "commit": "8c5f0c2", "dirty": True},
    }
    return write(folder, sweep(120), slots=4, setup=setup, happened=happened, sort="loss")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run."""
    return write_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ten thousand jobs."""
    return write(tmp_path_factory.mktemp("large"), sweep(10_000), slots=4)


def test_a_page_draws_its_charts_and_nothing_is_forbidden(page: Page, small: Path) -> None:
    """ECharts works under the policy: without `eval`, and without styles in markup."""
    page.open(small)
    for chart in ("parallel", "scatter", "lanes"):
        page.draw(chart)
        page.until(f"document.querySelector('#{chart} canvas') !== null")
    assert page.errors == []
    assert page("performance.getEntriesByType('resource').length") == 0


def test_the_policy_forbids_what_is_not_ours(page: Page, small: Path, tmp_path: Path) -> None:
    """A script that got into the page would not run, and would reach no host. So the other tests can see it."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        small.read_text().replace(
            "<main>",
            "<main><script>document.title = 'owned'</script><img src='http://gpu1/x' onerror='document.title = 1'>",
        )
    )
    page.open(broken)
    assert "owned" not in page("document.title")
    assert len([one for one in page.errors if "Content Security Policy" in one]) >= 2


def test_ten_thousand_jobs_are_filtered(page: Page, large: Path) -> None:
    """By words, by numbers and by state. All rows are in the page, and the browser lays out only those in view."""
    jobs = sweep(10_000)
    page.open(large, at="#jobs")
    page.until("window.report && document.getElementById('shown').textContent === '10,000 jobs'")
    assert page("document.getElementById('table').rows.length") == 10_001
    page.until("document.getElementById('job-0').checkVisibility({contentVisibilityAuto: true})")
    assert not page("document.getElementById('job-9999').checkVisibility({contentVisibilityAuto: true})")
    page.change("filter", "vit loss<0.3")
    expected = [
        num
        for num, job in enumerate(jobs)
        if "model=vit" in job.overrides and job.state == "COMPLETED" and job.value["loss"] < 0.3
    ]
    assert page("report.found()") == expected
    page.change("filter", "")
    page.change("state", "FAILED")
    assert page("report.found()") == [num for num, job in enumerate(jobs) if job.state == "FAILED"]
    page.change("filter", "sigkill")
    assert 0 < page("report.found().length") < 300
    assert page.errors == []


def test_ten_thousand_jobs_scroll_to_their_end(page: Page, large: Path) -> None:
    """The key End shows the last row, also of what was filtered; and the browser's own search finds a row that was never in view."""
    page.open(large, at="#jobs")
    page.until("window.report !== undefined")
    assert page(
        "window.find('9999') && getSelection().anchorNode.parentNode.closest('tr').textContent.includes('9999')"
    )
    for state in ("", "FAILED"):
        page.change("state", state)
        page("scrollTo(0, 0)")
        last = f"document.getElementById('job-{page('report.found()')[-1]}')"
        # The window grows a little while rows that were only estimated come into view.
        page.until(f"({last}.getBoundingClientRect().bottom <= innerHeight)", lambda: page.press("End", 35))
        assert page(
            f"{last}.getBoundingClientRect().top > 0 && {last}.checkVisibility({{contentVisibilityAuto: true}})"
        )
    assert page.errors == []


def test_rows_are_sorted_by_a_header(page: Page, small: Path) -> None:
    """Up and down, by mouse and by keyboard. Jobs without a value come last."""
    jobs = sweep(120)
    page.open(small)
    loss = "Array.from(document.querySelectorAll('#table thead th')).find((one) => one.textContent === 'loss')"
    for act in (f"{loss}.click()", f"{loss}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}))"):
        page(act)
        found = page("report.found()")
        values = [jobs[num].value["loss"] for num in found if jobs[num].state == "COMPLETED"]
        assert values == sorted(values, reverse="dispatch" in act)
        assert all(jobs[num].state == "FAILED" for num in found[len(values) :])
        assert page(f"{loss}.getAttribute('aria-sort')") == ("descending" if "dispatch" in act else "ascending")


def test_a_brushed_axis_selects_its_jobs(page: Page, small: Path) -> None:
    """With a real mouse: the table has the jobs of the upper half of the axis `acc`, until the selection is cleared."""
    jobs = sweep(120)
    page.open(small)
    page.draw("parallel")
    page("document.getElementById('parallel').scrollIntoView({block: 'center'})")
    place = page(
        "(() => { const chart = report.charts.get('parallel'); const box = chart.getDom().getBoundingClientRect();"
        "const axes = chart.getModel().queryComponents({mainType: 'parallelAxis'}); const axis = axes[axes.length - 1].axis;"
        "const system = axes[axes.length - 1].coordinateSystem; const layout = system.getAxisLayout('dim' + (axes.length - 1));"
        "const extent = axis.getExtent(); const greatest = axis.scale.getExtent();"
        "return {name: axes[axes.length - 1].get('name'), x: box.left + layout.position[0], bottom: box.top + layout.position[1], length: Math.abs(extent[1] - extent[0]), scale: greatest}; })()"
    )
    assert place["name"] == "acc"
    page.drag(place["x"], place["bottom"] - place["length"] + 1, place["bottom"] - place["length"] / 2)
    page.until("report.found().length < 120")
    low, high = place["scale"]
    brushed = page("report.found()")
    assert brushed
    threshold = (low + high) / 2
    slack = (high - low) / 50
    completed = {num: job.value["acc"] for num, job in enumerate(jobs) if job.state == "COMPLETED"}
    assert {num for num, acc in completed.items() if acc > threshold + slack} <= set(brushed)
    assert all(completed[num] > threshold - slack for num in brushed)
    page("document.getElementById('unbrush').click()")
    page.until("report.found().length === 120")
    assert page.errors == []


def test_the_best_share_is_drawn(page: Page, small: Path) -> None:
    """The least ten per cent of a value: the sort of the report says which end is best."""
    jobs = sweep(120)
    page.open(small)
    page.draw("scatter")
    page.change("top", "10")
    drawn = page("report.charts.get('scatter').getOption().series[0].data.map((one) => one[3])")
    completed = sorted((job.value["loss"], num) for num, job in enumerate(jobs) if job.state == "COMPLETED")
    assert sorted(drawn) == sorted(num for _, num in completed[: math.ceil(len(completed) / 10)])
    assert page("report.charts.get('scatter').getOption().xAxis[0].type") == "log"


def test_a_link_to_a_job_finds_its_row(page: Page, large: Path) -> None:
    """Also of a row that is far below, or filtered out."""
    page.open(large, at="#jobs")
    page.until("window.report !== undefined")
    page.change("filter", "nothing like that")
    page("(location.hash = '#job-9000')")
    page.until("document.getElementById('job-9000') !== null")


def test_texts_of_a_hostile_host_do_nothing(page: Page, tmp_path: Path) -> None:
    """In the table, in charts and their tooltips, in the timeline, in messages."""
    happened = [events.Warned(START + 0.6, job.overrides[0], "x", host=job.overrides[0]) for job in hostile_jobs()]
    jobs = hostile_jobs()
    for job in jobs:
        job.host = str(job.overrides[0])[:100].replace("\ud800", "")
        if job.state == "COMPLETED":
            job.value["loss"] = jobs.index(job)
    page.open(write(tmp_path, jobs, happened=happened))
    page("(window.alert = () => { window.owned = true })")
    for chart in ("parallel", "scatter", "lanes"):
        page.draw(chart)
    page("report.charts.get('scatter').dispatchAction({type: 'showTip', seriesIndex: 0, dataIndex: 0})")
    page("report.charts.get('lanes').dispatchAction({type: 'showTip', seriesIndex: 0, dataIndex: 0})")
    page("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page("window.owned === undefined && document.images.length === 0 && document.scripts.length === 4")
    assert page.errors == []


def test_without_a_script_all_is_there(page: Page, small: Path) -> None:
    """Every row is visible, and places for charts are not."""
    page.open(small, script=False)
    try:
        rows = page(
            "Array.from(document.getElementById('table').tBodies[0].rows).filter((one) => one.offsetHeight > 0).length"
        )
        assert rows == 120
        assert page("document.getElementById('parallel').offsetHeight") == 0
    finally:
        page.open(small)


@pytest.mark.parametrize(
    ("name", "how"), [("light", {}), ("dark", {"dark": True}), ("narrow", {"width": 390, "height": 844})]
)
def test_pictures_are_made(page: Page, small: Path, name: str, how: dict[str, Any]) -> None:
    """In light, dark and narrow windows. Nothing is wider than the window, and charts follow the colours."""
    page.open(small, **how)
    for chart in ("parallel", "lanes"):
        page.draw(chart)
        assert page.picture().startswith(b"RIFF")
    assert page("document.documentElement.scrollWidth <= innerWidth")
    ground = page("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if name == "dark" else "rgb(255, 255, 255)")
    assert page.errors == []


def test_a_print_has_all_rows_and_open_details(page: Page, small: Path) -> None:
    """As one table, of which no row is left out."""
    page.open(small)
    page.until("window.report !== undefined")
    page("dispatchEvent(new Event('beforeprint'))")
    page.media("print")
    assert page("Array.from(document.querySelectorAll('details')).every((one) => one.open)")
    rows = "Array.from(document.getElementById('table').tBodies).flatMap((one) => Array.from(one.rows))"
    assert (
        page(f"{rows}.filter((one) => getComputedStyle(one).display === 'table-row' && one.offsetHeight > 0).length")
        == 120
    )
    page.media("")


def test_rows_stay_rows_for_a_screen_reader(page: Page, small: Path) -> None:
    """Although the style does not lay them out as a table."""
    page.open(small, at="#job-3")
    page.until("document.getElementById('job-3').checkVisibility({contentVisibilityAuto: true})")
    roles = [page.role(one) for one in ("#table", "#table thead th", "#job-3", "#job-3 th", "#job-3 td")]
    assert roles == ["table", "columnheader", "row", "rowheader", "cell"]
