"""The other views in a real browser: drawing, choosing, seeking, keys, themes. Skips without a Chromium."""

from dataclasses import replace

import pytest

from latentomni.trace import Trace
from tests.visualizers.test_attention_view import make_record
from tests.visualizers.test_compare import outcome, spoken
from visualizers.attention import attention_view
from visualizers.compare import compare_view, whatif_view
from visualizers.page import component_css, component_js
from visualizers.trajectory import map_view
from visualizers.view import view


@pytest.fixture
def show(open_page):
    """show(name, value): the view on a page that keeps what it is told in `window.told`."""

    def shown(name, value, **settings):
        page = open_page(
            f'<!doctype html><meta charset="utf-8"><style>body {{margin: 12px}} {component_css()}</style><body><div id="here"></div>'
            f"<script>{component_js()}; window.told = [];"
            'for (const name of ["latent-select", "latent-seek"]) document.addEventListener(name, (event) => told.push([name, event.detail]));'
            f'window.shown = LatentViews.mount("{name}", document.getElementById("here"), {{theme: "auto"}});</script>',
            **settings,
        )
        page.evaluate("value => shown.update(value)", value)
        return page

    return shown


@pytest.fixture
def values(trace):
    """One value of every view, with pictures and sound."""
    media = view(trace)["media"]
    runs = {"latent": trace, "text-cot": spoken(trace, "First [0.5-2.0 s] a bell. At 3 s."), "direct": spoken(trace, "At 3 s.")}
    compared = compare_view({**runs, "again": trace})
    return {
        "map": {**map_view([trace, trace]), "media": media},
        "attention": {**attention_view(make_record(), trace), "media": media},
        "compare": {**compared, "media": media},
        "whatif": whatif_view(outcome(trace)),
    }


def told(page):
    return page.evaluate("told.splice(0)")


@pytest.mark.parametrize("name", ["map", "attention", "compare", "whatif"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_into_400_pixels_and_follows_the_theme(show, values, name, scheme):
    page = show(name, values[name], width=400, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    ground = page.evaluate("getComputedStyle(document.querySelector('.li-card')).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 30)"}[scheme]
    assert page.locator("button:not([aria-label])").evaluate_all("nodes => nodes.filter(node => !node.textContent.trim()).length") == 0


def test_a_click_on_the_map_selects_a_latent_or_asks_for_a_moment(show, values):
    page = show("map", values["map"])
    assert page.locator("[data-latent]").count() == 24 and page.locator("[data-moment]").count() == 18
    page.locator("[data-latent='16']").dispatch_event("click")
    assert told(page) == [["latent-select", {"block": 0, "slot": 4, "run": 1, "start_s": 4}]]
    assert page.locator(".lv-dot.is-lit").get_attribute("data-latent") == "16"
    page.locator("[data-moment='5']").dispatch_event("click")
    assert told(page) == [["latent-seek", {"seconds": values["map"]["moments"][5]["span_s"][0]}]]
    page.evaluate("document.body.dispatchEvent(new CustomEvent('latent-select', {bubbles: true, detail: {block: 1, slot: 2, start_s: 3}}))")
    assert page.locator(".lv-dot.is-lit").get_attribute("data-latent") == "8"  # chosen in another view


def test_keys_move_through_the_latents_of_the_map(show, values):
    page = show("map", values["map"])
    page.locator("[data-latent='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert told(page) == [["latent-select", {"block": 0, "slot": 1, "run": 0, "start_s": 1}]]
    assert page.locator("[data-latent][tabindex='0']").count() == 1
    assert "Most similar to 1.0–2.0 s" in page.locator(".lv-tip").inner_text()
    assert page.locator(".lv-tip img").count() == 1
    assert page.locator(".lv-near").get_attribute("d") != ""


def test_the_map_is_coloured_by_what_is_chosen(show, values):
    page = show("map", values["map"])

    def fills():
        return page.locator(".lv-dot").evaluate_all("nodes => nodes.map(node => node.style.getPropertyValue('--tone'))")

    assert page.get_by_role("radio").all_inner_texts() == ["modality", "time", "block", "run"]
    assert set(fills()) == {"var(--li-visual)", "var(--li-audio)"}
    page.get_by_role("radio", name="run").click()
    assert fills() == ["var(--lv-0)"] * 12 + ["var(--lv-1)"] * 12
    page.keyboard.press("ArrowLeft")
    assert fills() == (["var(--lv-0)"] * 6 + ["var(--lv-1)"] * 6) * 2
    assert page.locator("[role=radio][aria-checked=true]").inner_text() == "block"


def test_a_map_shows_progress_above_what_it_has_drawn(show, values):
    page = show("map", values["map"])
    assert page.locator(".lv-progress").is_hidden()
    page.evaluate("shown.update({progress: {share: 0.3, text: 'placing 42 points'}})")
    assert page.locator(".lv-progress").inner_text() == "placing 42 points"
    assert page.locator("[data-latent]").count() == 24
    page.evaluate("value => shown.update(value)", values["map"])
    assert page.locator(".lv-progress").is_hidden()


def test_a_step_of_the_attention_is_read_and_narrows_the_heat(show, values):
    page, value = show("attention", values["attention"]), values["attention"]
    assert page.locator(".lv-curve").count() == 2 and page.locator(".lv-even").count() == 2
    assert page.locator(".lv-frame").count() == 6 and page.locator(".lv-cells i").count() == 12 and page.locator(".lv-half").count() == 12
    chart = page.get_by_role("slider")
    chart.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    direct, via = (100 * sum(layer[4] for layer in value[key]) / 3 for key in ("direct", "via_latents"))
    said = page.locator(".lv-readout").inner_text()
    assert said.startswith("Step 5, latent 2 of block 1: ") and f"{direct:.1f} % (evenly" in said and f"{via:.1f} % (evenly" in said
    assert chart.get_attribute("aria-valuenow") == "5"
    assert told(page)[-1] == ["latent-select", {"block": 0, "slot": 1, "start_s": 1}]
    record = make_record()
    shares = page.locator(".lv-frame b").all_inner_texts()
    assert shares == [f"{100 * share:.1f} %" for share in record.frames[:, 4].mean(0)]
    page.locator("select").select_option("2")
    assert page.locator(".lv-frame b").all_inner_texts() == [f"{100 * share:.1f} %" for share in record.frames[2, 4]]
    page.get_by_role("radio", name="latents").click()
    assert page.locator(".lv-frame b").all_inner_texts() == [f"{100 * share:.1f} %" for share in record.cells["latent"][2].sum((1, 2))]
    page.locator(".lv-frame").nth(3).click()
    page.locator(".lv-half").nth(7).click()
    assert told(page) == [["latent-seek", {"seconds": 3}], ["latent-seek", {"seconds": 3.5}]]


def test_runs_are_compared_on_one_clock(show, values):
    page = show("compare", values["compare"])
    assert page.locator(".lv-column h3").all_inner_texts() == ["latent", "text-cot", "direct", "again"]
    assert page.locator(".lv-column mark").all_inner_texts() == ["0.5–2.0 s"]
    lanes = page.locator(".lv-run")
    assert [lanes.nth(r).locator(".li-window").count() for r in range(4)] == [2, 1, 0, 2]
    assert [lanes.nth(r).locator("[data-slot]").count() for r in range(4)] == [12, 0, 0, 12]
    assert lanes.nth(2).inner_text() == "states no window"
    lane, window = lanes.nth(1).bounding_box(), lanes.nth(1).locator(".li-window").bounding_box()
    assert window["x"] - lane["x"] == pytest.approx(lane["width"] * 0.5 / 6, abs=1)
    assert window["width"] == pytest.approx(lane["width"] * 1.5 / 6, abs=1)
    page.locator("[data-run='3'][data-block='1'][data-slot='4']").click()
    assert told(page) == [["latent-seek", {"seconds": 5}], ["latent-select", {"run": 3, "block": 1, "slot": 4, "start_s": 5}]]
    page.locator("[data-run='0'][tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert told(page)[-1] == ["latent-select", {"run": 0, "block": 0, "slot": 2, "start_s": 2}]
    assert "Most similar to 2.0–3.0 s" in page.locator(".lv-tip").inner_text()
    assert page.locator(".lv-differences section").count() == 3
    assert page.locator(".lv-differences section").last.locator(".lv-cosine").all_inner_texts() == ["1.00"] * 12


def test_a_running_run_grows_in_place(show, events, trace):
    run = list(events())
    page = show("compare", compare_view({"a": Trace.from_events(run[:1])}))
    for end in range(2, len(run) + 1):
        page.evaluate("value => shown.update(value)", compare_view({"a": Trace.from_events(run[:end])}))
    assert page.locator(".lv-run [data-slot]").count() == 12
    assert page.locator(".lv-column.li-running").count() == 0


def test_what_if_says_what_changed_and_what_the_control_did(show, values, trace):
    page = show("whatif", values["whatif"])
    assert page.locator(".lv-column p").all_inner_texts() == ["at 3 s", "at 5 s"]
    assert page.locator(".lv-column h3").all_inner_texts() == ["Before", "After: black out, 2.0–4.0 s"]
    assert page.locator(".lv-verdict").inner_text() == "The answer changed. Under the matched control it does not."
    assert page.locator(".lv-bar b").all_inner_texts() == ["90 %", "20 %", "5.0 %", "70 %"]
    assert page.locator(".lv-margin b").all_inner_texts() == ["−3.50", "−0.25"]
    assert page.locator(".lv-moved .lv-cosine").all_inner_texts() == ["0.50", "1.00", "–"]
    assert page.locator(".li-note").all_inner_texts() == ["Control: Another window, black.", "A note."]
    alone = whatif_view(outcome(trace, control=None, flipped=False, moved=(), probabilities={}, notices=()))
    page.evaluate("value => shown.update(value)", alone)
    assert page.locator(".lv-verdict").inner_text() == "The answer stayed the same. There is no matched control for this change."
    assert page.locator(".lv-bar").count() == page.locator(".lv-moved .lv-cosine").count() == page.locator(".lv-notes .li-note").count() == 0


def test_nothing_from_outside_becomes_markup(show, trace):
    evil = "<img src=x onerror='window.wrong = 1'><b>bold</b>"
    page = show("compare", compare_view({evil: replace(trace, answer=evil, deltas=(replace(trace.deltas[0], text=evil),), blocks=())}))
    assert page.locator(".lv-answer").inner_text() == evil
    assert page.evaluate("window.wrong") is None


def test_a_hidden_view_is_drawn_when_it_is_shown(show, values):
    page = show("map", {**values["map"], "latents": []})
    page.evaluate("document.getElementById('here').style.display = 'none'")
    page.evaluate("value => shown.update(value)", values["map"])
    assert page.locator("[data-latent]").count() == 0
    page.evaluate("document.getElementById('here').style.display = ''")
    page.wait_for_function("document.querySelectorAll('[data-latent]').length === 24")


def test_no_such_view_is_said(open_page):
    page = open_page(f"<!doctype html><body><script>{component_js()}</script>")
    said = page.evaluate("(() => { try { LatentViews.mount('maps', document.body); } catch (error) { return error.message; } })()")
    assert said == "there is no view named maps, but map, attention, compare, whatif"
