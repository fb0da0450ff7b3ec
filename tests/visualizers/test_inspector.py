"""The component in a real browser: streaming without jumps, seeking, keys, theme. Skips without a Chromium."""

from dataclasses import replace

import pytest

from latentomni.clock import Window
from latentomni.trace import Trace
from latentomni.truth import Truth
from visualizers.page import component_css, component_js, html_page
from visualizers.view import view

expect = pytest.importorskip("playwright.sync_api").expect  # its waits poll without eval, which the page forbids
LAYOUT = """[...document.querySelectorAll(".li-card, .li-cell")]
    .map(node => [node.offsetTop, node.offsetLeft, node.offsetHeight])"""


def component_page(theme="host"):
    return (
        f'<!doctype html><style>{component_css()}</style><body><div id="here"></div><script>{component_js()}'
        f'window.inspector = LatentInspector.mount(document.getElementById("here"), {{theme: "{theme}"}});</script>'
    )


def time_of_player(page):
    return page.evaluate("document.getElementById('player').currentTime")


def test_click_on_a_cell_moves_the_player_there_and_selects_it_everywhere(open_page, trace):
    page = open_page(html_page(trace))
    expect(page.locator("#player")).to_have_js_property("readyState", 4, timeout=30_000)
    cells = page.locator(".li-cell")
    assert cells.count() == 12
    page.locator(".li-cell[data-slot='2']").first.click()
    assert time_of_player(page) == 2
    assert page.locator('[aria-pressed="true"]').get_attribute("data-slot") == "2"
    assert page.locator(".li-detail .li-said").inner_text() == "Most similar to 2.0–3.0 s"
    assert page.locator(".li-dot.is-lit").count() == 2
    assert page.get_by_role("slider").get_attribute("aria-valuenow") == "2.00"
    page.locator(".li-dot[data-slot='4']").last.click(force=True)
    assert time_of_player(page) == 4
    page.locator(".li-ranks button").nth(1).click()
    assert time_of_player(page) == trace.blocks[0].latents[4].matches[1].start_s


def test_keys_move_through_cells_and_time(open_page, trace):
    page = open_page(html_page(trace))
    expect(page.locator("#player")).to_have_js_property("readyState", 4, timeout=30_000)
    slot = "document.activeElement.dataset.slot"
    page.locator(".li-cell").first.focus()
    visited = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "End", "Home"):
        page.keyboard.press(key)
        visited.append(int(page.evaluate(slot)))
    assert visited == [1, 2, 5, 5, 4, 0, 3, 0]
    assert page.locator('article:first-of-type .li-cell[tabindex="0"]').count() == 1
    page.keyboard.press("ArrowRight")
    assert time_of_player(page) == 1
    assert page.evaluate("document.getElementById('player').paused")  # arrows never start the sound
    assert page.locator('[aria-pressed="true"]').get_attribute("data-slot") == "1"
    assert "Most similar to 1.0–2.0 s, rank 1, score 1.00, p 0.02" in page.evaluate("document.activeElement.ariaLabel")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert time_of_player(page) == 1.5
    page.keyboard.press("End")
    assert time_of_player(page) == 6


def test_player_moves_the_playhead_and_a_click_on_the_film_seeks(open_page, trace):
    page = open_page(html_page(trace))
    expect(page.locator("#player")).to_have_js_property("readyState", 4, timeout=30_000)
    page.evaluate("document.getElementById('player').currentTime = 4.5")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuenow", "4.50", timeout=30_000)
    box = page.locator(".li-track").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    assert time_of_player(page) == pytest.approx(3, abs=0.02)


def test_cells_stream_in_without_moving_anything(open_page, events):
    page = open_page(component_page())
    run = list(events(blocks=1))
    layouts, filled = [], []
    for end in range(1, len(run) + 1):
        page.evaluate("values => inspector.update(values)", view(Trace.from_events(run[:end]), media=end == 1))
        filled.append(page.locator(".li-cell:not(.is-pending)").count())
        if page.locator(".li-cell").count():
            layouts.append(page.evaluate(LAYOUT))
    assert filled == [0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert len(layouts[0]) == 4 + 6  # answer, timeline, block, detail; and all cells at once
    assert all(layout == layouts[0] for layout in layouts)
    assert page.locator(".li-cell img").count() == 4  # the pictures were kept from the first values
    assert page.locator(".li-cell.is-none").all_inner_texts() == ["no evidence"] * 2
    assert page.locator(".li-text").inner_text().split() == ["Listen:", "1.0–3.0", "s", "after", "0."]


def test_a_shorter_run_replaces_a_longer_one(open_page, trace, events):
    page = open_page(component_page())
    for shown in (trace, Trace.from_events(events(blocks=0)), Trace.from_events(list(events())[:5]), trace):
        page.evaluate("values => inspector.update(values)", view(shown))
        assert page.locator("article").count() == len(shown.blocks)
        assert page.locator(".li-cell:not(.is-pending)").count() == sum(len(b.latents) for b in shown.blocks)


@pytest.mark.parametrize("settings", [{"sound": False}, {"picture": False}, {"null": False}, {"blocks": 0}])
def test_clips_that_lack_something(open_page, events, settings):
    page = open_page(html_page(Trace.from_events(events(**settings))))
    said = page.locator("#inspector").inner_text()
    for key, words in {
        "sound": "no sound",
        "picture": "no picture",
        "null": "ranks only",
        "blocks": "used no latents",
    }.items():
        assert (words in said) == (key in settings)
    if settings.get("blocks") != 0:
        page.locator(".li-cell").first.click()
        assert page.locator('[aria-pressed="true"]').count() == 1


def test_true_windows_have_their_own_colour_and_key(open_page, trace):
    truth = Truth("at 5 s", False, (Window(3.0, 6.0), Window(0.0, 1.5)), ("audio", "both"))
    page = open_page(html_page(replace(trace, truth=truth)))
    drawn = page.locator(".li-window.is-true")
    width = page.locator(".li-track").bounding_box()["width"]
    assert [round(drawn.nth(i).bounding_box()["width"] / width, 2) for i in range(2)] == [0.5, 0.25]
    assert page.locator(".li-timeline .li-legend").inner_text().split("\n").count("true window") == 1
    colour = "node => getComputedStyle(node).borderTopColor"
    assert drawn.first.evaluate(colour) != page.locator(".li-window:not(.is-true)").first.evaluate(colour)
    assert open_page(html_page(trace)).locator(".li-window.is-true").count() == 0


def test_nothing_from_outside_becomes_markup(open_page, events):
    evil = "</script><img src=x onerror='window.wrong = 1'><b>bold</b>"
    page = open_page(html_page(Trace.from_events(events(question=evil, text=evil, answer=evil))))
    assert page.locator("h1").inner_text() == evil
    assert page.locator(".li-text").inner_text().startswith(evil)
    assert page.locator("b", has_text="bold").count() == 0
    assert page.evaluate("window.wrong") is None


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(open_page, trace, width):
    page = open_page(html_page(trace), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_theme_follows_the_system_or_the_host(open_page, trace):
    def text_colour(page, scheme):
        page.emulate_media(color_scheme=scheme)
        return page.evaluate("getComputedStyle(document.querySelector('.li-text')).color")

    system, host = open_page(component_page("auto")), open_page(component_page("host"))
    light, dark = text_colour(system, "light"), text_colour(system, "dark")
    assert light != dark
    assert text_colour(host, "dark") == light
    host.evaluate("document.body.className = 'dark'")
    assert text_colour(host, "light") == dark
