"""One selection, linked everywhere: text, time, cells, timeline, detail, other views of the page."""

import pytest

from latentomni.trace import Trace
from visualizers.page import html_page

expect = pytest.importorskip("playwright.sync_api").expect
LIT_TEXT = "[...document.querySelectorAll('.li-text span.is-lit')].map(node => node.textContent)"
NOW = "[...document.querySelectorAll('.li-cell.is-now')].map(node => node.dataset.block + '/' + node.dataset.slot)"


def ready(page):
    expect(page.locator("#player")).to_have_js_property("readyState", 4, timeout=30_000)
    return page


def chosen(page):
    node = page.locator('[aria-pressed="true"]')
    return f"{node.get_attribute('data-block')}/{node.get_attribute('data-slot')}"


@pytest.fixture
def page(open_page, trace):
    return ready(open_page(html_page(trace)))


def test_the_text_around_the_block_lights_up(page):
    page.locator(".li-cell[data-slot='2']").first.click()
    assert page.evaluate(LIT_TEXT) == ["Listen: ", "after 0. "]
    assert page.locator(".li-chip.is-lit").count() == 1
    page.locator(".li-cell[data-block='1']").nth(1).click()
    page.mouse.move(0, 0)
    assert page.evaluate(LIT_TEXT) == ["after 0. ", "after 1. "]


def test_only_the_sentences_next_to_a_block_are_around_it(open_page, events):
    run = list(events(blocks=1, text="It rings twice. I saw a bell. Listen: "))
    page = ready(open_page(html_page(Trace.from_events(run))))
    page.locator(".li-cell").first.click()
    assert page.evaluate(LIT_TEXT) == ["Listen: ", "after 0. "]
    assert page.locator(".li-text").inner_text().startswith("It rings twice. I saw a bell. Listen:")


def test_scrubbing_lights_the_latents_whose_moment_lies_there(page):
    assert page.evaluate(NOW) == []  # nothing before the player has been used
    page.evaluate("document.getElementById('player').currentTime = 2.5")
    expect(page.locator(".li-cell.is-now")).to_have_count(2, timeout=30_000)
    assert page.evaluate(NOW) == ["0/2", "1/1"]
    assert page.locator(".li-dot.is-now").count() == 2  # of the shown block: stated and evidence
    assert page.evaluate("document.getElementById('player').paused")
    page.evaluate("document.getElementById('player').currentTime = 3.5")  # of no evidence in block 0, of slot 2 in block 1
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuenow", "3.50", timeout=30_000)
    assert page.evaluate(NOW) == ["1/2"]


def test_shift_click_on_the_clip_chooses_the_nearest_latent_of_its_kind(page):
    box = page.locator(".li-track").bounding_box()

    def shift_click(seconds, y):
        page.keyboard.down("Shift")
        page.mouse.click(box["x"] + box["width"] * seconds / 6, box["y"] + y)
        page.keyboard.up("Shift")
        return chosen(page)

    assert shift_click(2.4, 20) == "1/1"  # the film: visual
    assert shift_click(5.9, 80) == "1/4"  # the wave: audio; the other one has no evidence
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert chosen(page) == "1/0"


def test_enter_plays_the_moment_and_stops_at_its_end(page):
    player = "document.getElementById('player')"
    page.evaluate(f"{player}.addEventListener('pause', () => (document.body.dataset.stopped = {player}.currentTime))")
    page.locator(".li-cell").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(f"{player}.paused")
    page.keyboard.press("Enter")
    expect(page.locator("body[data-stopped]")).to_be_attached(timeout=30_000)
    assert 2 <= float(page.locator("body").get_attribute("data-stopped")) < 6  # by itself, not at the end of the clip
    page.keyboard.press("Space")  # a click: there, without sound
    assert page.evaluate("[document.getElementById('player').currentTime, document.getElementById('player').paused]") == [1, True]


def test_hover_and_focus_tell_time_rank_score_and_p(page):
    tip = page.locator(".li-tip")
    page.locator(".li-cell[data-slot='1']").first.hover()
    assert tip.inner_text().splitlines()[:3] == ["Most similar to 1.0–2.0 s", "rank 1, score 1.00", "p 0.02"]
    page.locator(".li-dot[data-slot='5']").last.hover(force=True)
    assert "p 0.6, no evidence" in tip.inner_text()
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    page.locator(".li-cell").first.focus()
    page.keyboard.press("ArrowRight")
    assert "rank 1" in tip.inner_text()


def test_other_views_of_the_page_choose_and_seek_through_events(page):
    tell = """([name, detail]) => {
      const other = document.body.appendChild(document.createElement("div"));
      other.dispatchEvent(new CustomEvent(name, {bubbles: true, detail}));
    }"""
    page.evaluate(tell, ["latent-select", {"block": 0, "slot": 2, "start_s": 2}])
    assert chosen(page) == "0/2"
    page.evaluate(tell, ["latent-seek", {"seconds": 4.25}])
    assert page.evaluate("document.getElementById('player').currentTime") == 4.25
    for elsewhere in ({"block": 7, "slot": 2}, {"run": 1, "block": 0, "slot": 4}):  # no such block; another run
        page.evaluate(tell, ["latent-select", {**elsewhere, "start_s": 2}])
    assert chosen(page) == "0/2"
