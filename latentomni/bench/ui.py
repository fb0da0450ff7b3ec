"""How the web app feels: `app.py` in a process of its own, driven through a headless browser as a visitor would.

Every wait is bounded, and server and browser end with the measurement, however it ends.
"""

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from latentomni.bench.browser import BROWSERS, FLAGS, find_browser
from latentomni.bench.served import served
from latentomni.errors import RequestError

__all__ = ["bench_ui", "first_latents"]

_WAIT_MS = 120_000
_LATENTS = 40
_SEEDS = 20
_log = logging.getLogger(__name__)

# What the page tells of itself. Times are milliseconds of the page's own clock.
_PROBES = """
window.probe = {tasks: [], shift: 0, cell: null, seek: null, done: null};
new PerformanceObserver(list => list.getEntries().forEach(e => probe.tasks.push([e.startTime, e.duration])))
  .observe({type: "longtask", buffered: true});
new PerformanceObserver(list => list.getEntries().forEach(e => e.hadRecentInput || (probe.shift += e.value)))
  .observe({type: "layout-shift", buffered: true});
window.cells = () => document.querySelectorAll("#inspector .li-cell:not(.is-pending)").length;
window.kind = () => document.querySelector("#status .lo-status")?.dataset.kind;
new MutationObserver(() => {
  if (probe.asked == null) return;
  probe.cleared ||= cells() === 0;
  if (probe.cleared && probe.cell === null && cells() > 0) probe.cell = performance.now() - probe.asked;
  probe.begun ||= kind() === "busy";
  if (probe.begun && probe.done === null && kind() !== "busy") probe.done = performance.now();
}).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["class", "data-kind"]});
document.addEventListener("click", event => {
  if (event.target.closest?.("#ask")) Object.assign(probe, {asked: performance.now(), cell: null, cleared: cells() === 0, begun: false, done: null});
  if (event.target.closest?.("#stop")) probe.stopped = performance.now();
  if (event.target.closest?.(".li-cell")) Object.assign(probe, {clicked: performance.now(), seek: null});
}, true);
document.addEventListener("seeked", () => (probe.seek ??= performance.now() - probe.clicked), true);
"""


def bench_ui(model: str = "nano", repeats: int = 5) -> dict[str, Any]:
    """Medians over `repeats` of what a visitor waits for.

    first_cell_s: Ask to the first latent on the page, the model loaded; first_visit_s: the same for the first question of a
    fresh server. seek_ms: click on a latent to the player at its moment. stop_s: Stop to the end of the run. long_task_ms:
    sum of the browser's long tasks while 40 latents stream. layout_shift: over the whole visit. example_open_s: click to the
    recorded answer with its latents and clip. RequestError where playwright or a browser is missing.
    """
    path = _browser_path()
    with tempfile.TemporaryDirectory() as folder, served(model, folder) as app, _page(app.address, path) as page, _explained(page):
        opened_s = [_open_example(page, number) for number in range(repeats)]
        first_visit_s, *_ = _ask(page)
        found = [_ask(page) for _ in range(repeats)]
        streamed = [(latents, tasks_ms) for _, latents, tasks_ms in found]
        while sum(latents for latents, _ in streamed) < _LATENTS and len(streamed) < 40:
            streamed.append(_ask(page)[1:])
        enough = first_latents(streamed)
        seeks_ms = [_seek(page, number) for number in range(repeats)]
        stops_s = [_stop(page, number * _SEEDS) for number in range(repeats)]
        shift = page.evaluate("probe.shift")
    return {
        "first_cell_s": statistics.median(cell for cell, _, _ in found),
        "first_visit_s": first_visit_s,
        "seek_ms": statistics.median(seeks_ms),
        "stop_s": statistics.median(stops_s),
        "long_task_ms": sum(tasks_ms for _, tasks_ms in enough),
        "layout_shift": shift,
        "example_open_s": statistics.median(opened_s),
        "latents": sum(latents for latents, _ in enough),
        "repeats": repeats,
        "shape": f"{model}, headless Chromium, 1280 x 900 px, {os.cpu_count()} cores, medians of {repeats}",
    }


@contextmanager
def _explained(page: Any) -> Iterator[None]:
    """A wait that ran out, as one sentence with what the page showed then."""
    from playwright.sync_api import TimeoutError as WaitError

    try:
        yield
    except WaitError as error:
        waited, shown = str(error).splitlines()[0], page.evaluate("({status: document.querySelector('#status')?.innerText, ...probe, tasks: null})")
        raise RequestError(f"The page did not come to what was waited for within {_WAIT_MS / 1000:.0f} s ({waited}); it showed {shown}.") from error


def first_latents(streamed: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """As many answers as it takes to come to 40 latents."""
    for count in range(1, len(streamed) + 1):
        if sum(latents for latents, _ in streamed[:count]) >= _LATENTS:
            return streamed[:count]
    return streamed


def _browser_path() -> str:
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        raise RequestError("bench ui needs the Python package playwright, which is missing; install latentomni[test].") from error
    path = find_browser()
    if path is None:
        raise RequestError(f"bench ui needs one of the browsers {', '.join(BROWSERS)}, and found none; install chromium.")
    return path


@contextmanager
def _page(address: str, browser_path: str) -> Iterator[Any]:
    """The app's page with its probes, in a browser that ends with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=list(FLAGS), timeout=_WAIT_MS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(_WAIT_MS)
            page.goto(address)
            page.wait_for_selector(".lo-card")
            page.evaluate(_PROBES)
            yield page
        finally:
            browser.close()


def _open_example(page: Any, number: int) -> float:
    """Seconds from the click to the answer with its latents and a clip that can play."""
    cards = page.locator(".lo-card")
    card = cards.nth(number % cards.count())
    question, begun_s = card.locator("span").last.text_content(), time.perf_counter()
    card.click()
    page.locator("h2.lo-turn", has_text=question).wait_for()
    page.wait_for_function("cells() > 0 && document.querySelector('#clip-player')?.readyState >= 1")
    return time.perf_counter() - begun_s


def _ask(page: Any) -> tuple[float, int, float]:
    """Ask the last example's own question; returns seconds to the first latent, how many came, and ms of long tasks."""
    page.locator("#question textarea").fill(page.locator("h2.lo-turn").inner_text())
    page.wait_for_selector("#ask:not([disabled])")
    page.locator("#ask").click()
    page.wait_for_function("probe.done !== null")
    cell_ms, latents = page.evaluate("[probe.cell, cells()]")
    if cell_ms is None:
        raise RequestError("The model answered without a latent, so nothing can be timed; choose one that reasons in latents.")
    tasks_ms = page.evaluate("probe.tasks.filter(([at]) => at >= probe.asked && at <= probe.done).reduce((sum, [, ms]) => sum + ms, 0)")
    _log.info("ui: first latent after %.0f ms, %d latents, %.0f ms of long tasks", cell_ms, latents, tasks_ms)
    return cell_ms / 1000, latents, tasks_ms


def _seek(page: Any, number: int) -> float:
    """Milliseconds from a click on a latent to the player at its moment."""
    cells = page.locator("#inspector .li-cell:not(.is-pending):not(.is-none)")
    page.evaluate("() => new Promise(done => {const p = document.querySelector('#clip-player'); p.onseeked = done; p.currentTime = p.duration;})")
    cells.nth(number % cells.count()).click()
    page.wait_for_function("probe.seek !== null")
    return page.evaluate("probe.seek")


def _stop(page: Any, first_seed: int) -> float:
    """Seconds from Stop to the end of a run of any words that come; one that ends by itself before that is asked with another seed."""
    settings = page.locator("#settings")
    if not settings.get_by_label("Seed").is_visible():
        settings.locator("> button").click()
    page.locator("#mode").get_by_label("Words").check()
    for seed in range(first_seed, first_seed + _SEEDS):
        for label, value in (("Temperature", "2"), ("Seed", str(seed)), ("Longest answer", "1024")):
            field = settings.get_by_label(f"number input for {label}").or_(settings.get_by_label(label)).first
            field.fill(value)
            field.press("Tab")
        page.locator("#question textarea").fill(page.locator("h2.lo-turn").inner_text())
        page.wait_for_selector("#ask:not([disabled])")
        page.locator("#ask").click()
        page.wait_for_function("probe.done !== null || probe.begun && document.querySelector('#inspector .li-text')?.textContent.length > 40")
        stopped = page.evaluate("probe.done === null && (document.querySelector('#stop').click(), true)")
        page.wait_for_function("probe.done !== null")
        if stopped and page.evaluate("probe.stopped > probe.asked"):
            return page.evaluate("(probe.done - probe.stopped) / 1000")
    raise RequestError(f"{_SEEDS} answers in words ended by themselves within 40 characters, so Stop cannot be timed; choose another model.")
