"""The pages as a person sees them, in a real browser: pictures load, nothing overlaps, nothing complains."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweep.findings import find
from sweep.rate import agreement, rating_study
from sweep.report import write_report
from sweep.study import load_study
from tests.sweep.conftest import ROOT, environment
from tests.sweep.made import add_failed, add_scored, new_study

playwright = pytest.importorskip("playwright.sync_api", reason="an extra: make test-browser installs it")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="an extra: make test-browser installs it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium"),
    pytest.mark.filterwarnings("ignore"),  # of the drivers of the browser
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
# What is laid over something else: blocks that share more than a few pixels and do not contain each other.
OVERLAPS = """() => {
  const kinds = "h1,h2,p,table,section,.chart,figure,details";
  const blocks = [...document.querySelectorAll(kinds)].filter(e => e.offsetHeight && e.checkVisibility());
  const boxes = blocks.map(e => [e, e.getBoundingClientRect()]);
  const found = [];
  for (const [a, r] of boxes) for (const [b, s] of boxes)
    if (a !== b && !a.contains(b) && !b.contains(a)
        && Math.min(r.right, s.right) - Math.max(r.left, s.left) > 2
        && Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 2) found.push(a.textContent.slice(0, 40));
  return found;
}"""
PICTURES = "() => [...document.images].filter(i => i.loading !== 'lazy').map(i => i.naturalWidth)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on disk with ties, a broken constraint and a failure."""
    folder = tmp_path_factory.mktemp("views") / "multirun" / "made"
    study = new_study(folder, on_disk=True)
    for level, leakage in ((0.7, -0.05), (0.71, -0.05), (0.5, -0.05), (0.9, 0.2)):
        add_scored(study, folder, level, leakage=leakage)
    add_failed(study, "out of memory: the process was killed in it 3 times")
    study.set_user_attr("sandbox", True)
    write_report(study, folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


Look = Callable[..., Any]


@pytest.fixture
def look(browser: Any) -> Iterator[Look]:
    """Opens a page of some width; at the end nothing may have been complained about."""
    complaints: list[str] = []
    pages = []

    def open_(address: str, width: int = 1280) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        pages.append(page)
        page.goto(address)
        return page

    yield open_
    for page in pages:
        page.close()
    assert complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_is_whole_at_every_width(folder: Path, look: Look, width: int) -> None:
    page = look((folder / "report.html").as_uri(), width)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing hangs over the edge"
    assert page.evaluate(OVERLAPS) == []
    sizes = page.evaluate(PICTURES)
    assert len(sizes) == 4 * 2 + 8 * 5 and all(sizes), (
        "four pairs; eight prompts without a LoRA and with those of four trials"
    )
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(OVERLAPS) == [], "nor with everything unfolded"


def test_the_report_prints_within_the_page(folder: Path, look: Look) -> None:
    page = look((folder / "report.html").as_uri(), 690)  # A4 between its margins
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.evaluate(OVERLAPS) == []
    above = (
        "[...document.querySelectorAll('p.question, h1')].map(e => e.getBoundingClientRect()).map(r => [r.left, r.top])"
    )
    question, headline = page.evaluate(above)
    assert question[0] == headline[0] and question[1] < headline[1], "the answer stands below its question"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@contextmanager
def served(*command: str, cwd: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/dashboard"
    arguments = [sys.executable, "-m", *command, "--port", str(port)]
    made = {**environment(), "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(arguments, cwd=cwd, env=made, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(address, timeout=10).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def test_the_dashboard_shows_sheet_note_and_feasible_front(folder: Path, look: Look) -> None:
    with served("sweep.dashboard", cwd=folder.parents[1]) as address:
        page = look(f"{address}/studies/1/trials?numbers=3")
        page.get_by_text("Ruled out by leakage.").wait_for(timeout=30_000)
        page.get_by_text("0.200 over its limit").wait_for(timeout=30_000)
        sheet = page.locator("img[src*='/artifacts/']").first
        sheet.wait_for(timeout=30_000)
        assert sheet.evaluate("i => i.decode().then(() => i.naturalWidth)") == 600
        note = look(f"{address}/studies/1/note")
        note.get_by_text("What is best?").wait_for(timeout=30_000)
        assert "Trial 0001" in note.inner_text("body"), "0003 has better values and was ruled out"
        graph = look(f"{address}/studies/1")
        graph.get_by_text("ruled out (1)").first.wait_for(timeout=30_000)
        for opened in (page, note, graph):
            opened.close()  # before their server goes


def test_a_click_on_the_page_of_preferences_counts(folder: Path, look: Look) -> None:
    found = find(load_study(folder), folder)
    rating = rating_study(found)
    with served("sweep.rate", cwd=folder.parents[1]) as address:
        page = look(f"{address}/studies/{rating._study_id}")
        page.wait_for_function("[...document.images].filter(i => i.naturalWidth == 600).length == 4", timeout=30_000)
        with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
            page.get_by_role("button", name="Worst").last.click()
        assert answer.value.ok
        page.close()  # before its server goes
    assert agreement(rating_study(found)).pairs == 3, "the worst of four is behind three"
