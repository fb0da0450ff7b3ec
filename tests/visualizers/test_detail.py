"""The detail of a latent in a browser: cells, curve, spectrogram, sync, collapse; and every card kept as a file."""

import csv
import io
from dataclasses import replace

import pytest
from PIL import Image

from latentomni.trace import Trace
from visualizers.page import html_page

expect = pytest.importorskip("playwright.sync_api").expect
COLLAPSE = {"between_clip_variance": 0.84, "segment_retrieval_top1": 0.98, "effective_rank": 5.2, "raw_cosine": 0.19}


def kept(page, card, kind):
    menu = page.locator(card).first.locator(".li-keep")
    menu.locator("summary").click()
    with page.expect_download() as download:
        menu.locator(f"[data-keep='{kind}']").click()
    return download.value.suggested_filename, download.value.path().read_bytes()


@pytest.fixture
def page(open_page, trace):
    page = open_page(html_page(replace(trace, collapse=COLLAPSE)))
    page.locator(".li-cell[data-slot='1']").first.click()
    return page


def test_a_visual_latent_shows_the_scores_of_the_frames_cells_and_over_the_clip(page, trace):
    latent = trace.blocks[0].latents[1]
    cells = page.locator(".li-heat small").all_inner_texts()
    assert [float(text) for text in cells] == pytest.approx(latent.cell_scores, abs=0.011)
    assert page.locator(".li-best").get_attribute("style").startswith("top:0.00%;left:0.00%;width:50.00%")
    assert "stay below 0.50" in page.locator("[data-curve]").get_attribute("aria-label")
    assert "0.50 above the null’s 95 % level" in page.locator(".li-words").inner_text()
    curve = page.locator("[data-curve]").bounding_box()
    page.mouse.click(curve["x"] + curve["width"] * 0.75, curve["y"] + 20)
    assert float(page.get_by_role("slider").get_attribute("aria-valuenow")) == pytest.approx(4.5, abs=0.05)


def test_an_audio_latent_shows_the_pitches_around_its_moment(page):
    page.locator(".li-cell[data-slot='4']").first.click()
    picture = page.locator(".li-view[data-modality='audio'] img")
    expect(picture).to_have_js_property("naturalWidth", 150, timeout=30_000)  # 3 s at 50 windows
    expect(picture).to_have_js_property("naturalHeight", 64)
    assert picture.get_attribute("src").startswith("data:image/png")


def test_without_a_level_only_p_is_told(open_page, events):
    page = open_page(html_page(Trace.from_events(events(level=None))))
    page.locator(".li-cell[data-slot='1']").first.click()
    assert "p 0.02; the null’s level was not recorded" in page.locator("[data-curve]").get_attribute("aria-label")
    assert page.locator(".li-curve-level").count() == 0


def test_the_sync_lane_draws_the_gap_of_every_instant(page):
    assert page.locator(".li-sync .is-gap").count() == 1  # the second instant's sound is no evidence
    assert page.locator(".li-sync text").text_content() == "−3.50 s"
    assert "pictures 3.50 s before sounds" in page.locator(".li-said-sync").inner_text()


def test_the_collapse_meter_is_in_sight(page, open_page, trace):
    said = page.locator(".li-meter").inner_text()
    assert "0.84 of variance between clips" in said and "(low)" not in said
    assert "effective rank, of 6" in said
    low = open_page(html_page(replace(trace, collapse={**COLLAPSE, "between_clip_variance": 0.1}))).locator(".li-meter").inner_text()
    assert "0.10 of variance between clips (low)" in low
    assert "of this model" not in open_page(html_page(trace)).locator(".li-meter").inner_text()


@pytest.mark.parametrize("card", [".li-answer", ".li-timeline", ".li-block", ".li-detail"])
def test_every_card_can_be_kept(page, card):
    box = page.locator(card).first.bounding_box()
    name, data = kept(page, card, "SVG")
    assert name.endswith(".svg") and b"<foreignObject" in data and b"li-keep\"" not in data
    name, data = kept(page, card, "PNG")
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.size == pytest.approx((2 * box["width"], 2 * box["height"]), abs=2)
    assert len(picture.getcolors(2**20)) > 20  # drawn, not blank
    name, data = kept(page, card, "CSV")
    header, *rows = csv.reader(io.StringIO(data.decode()))
    assert rows and {len(row) for row in rows} == {len(header)}


def test_the_table_of_a_block_is_what_it_shows(page, trace):
    _, data = kept(page, ".li-block", "CSV")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert [float(row["start_s"]) for row in rows] == [z.matches[0].start_s for z in trace.blocks[0].latents]
    assert [row["evidence"] for row in rows] == ["true", "true", "true", "false", "true", "false"]
