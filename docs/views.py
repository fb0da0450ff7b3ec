"""Draws docs/views/ from the app as it is: `python docs/views.py`. Needs Chromium, and a Chinese font for the language's own name."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from latentomni.bench.browser import FLAGS, find_browser
from latentomni.bench.served import served

VIEWS = Path(__file__).with_name("views")
LIMIT_MS = 120_000
CELL = "#inspector .li-cell:not(.is-pending)"


def nothing(page: Page) -> None:
    page.wait_for_timeout(500)


def latents(page: Page) -> None:
    """The second example, its last sound chosen."""
    page.locator(".lo-card").nth(1).click()
    page.locator(CELL).last.click()
    page.wait_for_function("document.querySelector('#clip-player')?.readyState >= 1")


def on_tab(name: str, button: str) -> Callable[[Page], None]:
    """A tab after what it is for was asked for."""

    def visit(page: Page) -> None:
        latents(page)
        page.get_by_role("tab", name=name).click()
        finished(page, button)

    return visit


def on_map(page: Page) -> None:
    latents(page)
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector("#map svg [data-latent]")


def runs(page: Page) -> None:
    latents(page)
    for number in range(3):
        page.locator("#suggestions .lo-suggestion").nth(number).click()
        page.wait_for_function("document.querySelector('#question textarea').value.length > 0")
        finished(page, "#ask")
    page.get_by_role("tab", name="Runs").click()
    page.locator(".lo-run").nth(2).wait_for()


def finished(page: Page, button: str) -> None:
    """Click, and wait until the status line is done with it."""
    page.evaluate("""() => {
        const line = document.querySelector("#status .lo-status");
        window.states = [];
        new MutationObserver(() => window.states.push(line.dataset.kind)).observe(line, {attributes: true, childList: true});
    }""")
    page.locator(button).click()
    page.wait_for_function("window.states.includes('busy') && window.states.at(-1) === 'done'")


PICTURES: dict[str, tuple[Callable[[Page], None], int, str]] = {
    "first-visit": (nothing, 1280, "light"),
    "latents": (latents, 1280, "light"),
    "latents-phone": (latents, 400, "light"),
    "does-it-matter": (on_tab("Does it matter?", "[data-arm=other_clip]"), 1280, "light"),
    "map": (on_map, 1280, "light"),
    "attention": (on_tab("Attention", "#attend"), 1280, "light"),
    "compare-dark": (on_tab("Compare", "#three"), 1280, "dark"),
    "runs": (runs, 1280, "light"),
}


def draw(browser: Browser, address: str, name: str) -> None:
    visit, width_px, scheme = PICTURES[name]
    page = browser.new_page(viewport={"width": width_px, "height": 900}, reduced_motion="reduce", color_scheme=scheme)
    page.set_default_timeout(LIMIT_MS)
    page.goto(address)
    page.wait_for_selector(".lo-card")
    visit(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # pictures load, and the curves settle
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=VIEWS / f"{name}.png", full_page=visit is not nothing)
    page.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, served("nano", folder) as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        for name in PICTURES:
            draw(browser, app.address, name)
            print(f"{name}.png")
        browser.close()
