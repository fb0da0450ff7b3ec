"""The page in a real browser, with the shipped model: open an example, ask, click a latent. Skips without a Chromium."""

import re
import socket

import pytest

from app.gallery import gallery
from app.settings import Settings
from app.ui import build, launch

CELL = ".li-cell:not(.is-pending)"
MOMENT = re.compile(r"Most similar to (\d+\.\d)–")
LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app, served by this process on a free port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = Settings(Settings.read([]).model, "127.0.0.1", port)
        demo = build(settings)
        # `_frontend`: gradio's own check gives its server 3 s to answer, which a busy machine does not keep
        launch(demo, settings, prevent_thread_lock=True, quiet=True, _frontend=False)
        yield f"http://127.0.0.1:{port}/"
        demo.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page; an error of a script or a request to another host fails the test."""
    complaints, pages = [], []

    def opened(width_px=1280):
        page = browser.new_page(viewport={"width": width_px, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or complaints.append(request.url))
        page.goto(address)
        page.wait_for_selector(".lo-hint")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def status(page):
    return page.locator(".lo-status").get_attribute("data-kind")


def open_example(page, number=0):
    card = page.locator(".lo-card").nth(number)
    card.click()
    page.locator("h2.lo-turn", has_text=card.locator("span").last.text_content()).wait_for()
    page.wait_for_selector(CELL)
    page.wait_for_function("document.querySelector('#clip-player')?.readyState >= 1")


def click_a_cell(page):
    """Click the last cell that names a moment later than the start; returns that moment in seconds."""
    cells = page.locator(CELL).all()
    moments = [(float(found[1]), cell) for cell in cells if (found := MOMENT.search(cell.get_attribute("aria-label")))]
    moment_s, cell = max(moments, key=lambda pair: pair[0])
    page.evaluate("document.querySelector('#clip-player').currentTime = 0")
    cell.click()
    return moment_s


def player_time_s(page):
    return page.evaluate("document.querySelector('#clip-player').currentTime")


def test_examples_open_at_once_and_a_click_on_a_cell_seeks(open_page):
    page = open_page()
    assert page.locator(".lo-card").count() == len(gallery()) >= 4
    for number in range(len(gallery())):
        open_example(page, number)
    moment_s = click_a_cell(page)
    assert player_time_s(page) == pytest.approx(moment_s, abs=0.051)


def test_a_question_streams_latents_and_a_click_on_a_cell_seeks(open_page):
    page = open_page()
    open_example(page)
    page.locator(".lo-suggestion").first.click()
    question = page.locator("#question textarea")
    page.wait_for_function("document.querySelector('#question textarea').value.length > 0")
    text = question.input_value()
    page.evaluate("""() => {
        window.states = [];
        new MutationObserver(() => window.states.push(document.querySelector('.lo-status').dataset.kind))
            .observe(document.querySelector('.lo-status'), {attributes: true});
    }""")
    question.press("Enter")
    page.wait_for_function("window.states.includes('busy') && window.states.at(-1) !== 'busy'")
    assert (status(page), page.locator("h2.lo-turn").inner_text()) == ("done", text)
    assert page.locator("button.lo-turn").count() == 1
    moment_s = click_a_cell(page)
    assert player_time_s(page) == pytest.approx(moment_s, abs=0.051)
    page.locator("#stop[disabled]").wait_for()
    page.locator("#download-trace").wait_for()


def test_asking_without_a_clip_is_answered_in_one_sentence(open_page):
    page = open_page()
    page.locator("#question textarea").fill("What is seen?")
    page.locator("#ask").click()
    page.locator(".lo-status[data-kind=error]").wait_for()
    assert "no clip yet" in page.locator(".lo-status").inner_text()
    assert page.locator("#question textarea").input_value() == "What is seen?"


def test_a_phone_needs_no_horizontal_scrolling(open_page):
    page = open_page(width_px=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    open_example(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
