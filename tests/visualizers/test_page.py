"""The report is one file that needs no other, says what it shows, and lets nothing through as markup."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from latentomni.clock import Window
from latentomni.trace import Trace
from latentomni.truth import Truth
from visualizers.page import component_css, component_js, html_page


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_colours_have_contrast(scheme):
    pairs = dict(re.findall(r"--li-([\w-]+): light-dark\(([^)]+)\)", component_css()))
    colours = {name: pair.split(", ")[scheme] for name, pair in pairs.items()}
    for ink, grounds in {
        "text": ("surface", "raised", "visual-soft", "audio-soft"),
        "muted": ("surface", "raised"),
        "visual": ("surface", "visual-soft"),
        "audio": ("surface", "audio-soft"),
    }.items():
        for ground in grounds:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert min(contrast(colours[mark], colours["surface"]) for mark in ("none", "true")) >= 3


def test_everything_from_outside_is_escaped(events):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)> {0} {policy}"
    page = html_page(replace(Trace.from_events(events(question=evil, text=evil, answer=evil)), truth=Truth(evil, False)))
    assert page.count("<script") == 2 == page.count("</script>")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; {0} {policy}" in page


def test_the_truth_is_told_where_it_is_known(events):
    trace = Trace.from_events(events())
    page = html_page(replace(trace, truth=Truth("at 5 s", False, (Window(5.0, 6.0),), ("audio",))))
    assert "<span>True:</span> at 5 s, the answer is wrong; [5.0-6.0 s] audio</p>" in page
    assert "<span>True:</span>" not in html_page(trace)


def test_half_characters_do_not_stop_the_page(events):
    html_page(Trace.from_events(events(question="\ud800?"))).encode("utf-8")


def test_page_names_no_other_place(trace):
    page = html_page(trace)
    assert set(re.findall(r"\bhttps?://[^\s\"')]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page


def test_words_claim_similarity_only():
    said = component_js() + component_css()
    assert "Most similar to" in said
    assert "no evidence" in said
    assert "ranks only" in said
    assert not re.search(r"look(s|ed|ing)? at|attend", said, re.IGNORECASE)


def test_settings_and_notices_are_shown(events):
    page = html_page(Trace.from_events(list(events())[:-1]))
    assert "none yet" in page
    assert "<dt>latents: instants</dt><dd>2</dd>" in page
    assert '<audio id="player"' in page
    assert '<audio id="player"' not in html_page(Trace.from_events(events(sound=False)))


def test_needs_neither_torch_nor_plotly():
    code = "import sys; sys.modules.update(torch=None, plotly=None, umap=None, gradio=None); import visualizers.page"
    subprocess.run([sys.executable, "-c", code], check=True)
