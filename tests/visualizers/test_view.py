"""The component's values: plain JSON, the same for a prefix, and honest about what is not known."""

import json

import pytest

from latentomni.events import TextDelta
from latentomni.trace import Trace
from visualizers.view import view


@pytest.mark.parametrize("settings", [{}, {"blocks": 0}, {"null": False}, {"sound": False}, {"picture": False}])
def test_every_prefix_is_plain_json(events, settings):
    run = list(events(**settings))
    for end in range(1, len(run) + 1):
        shown = view(Trace.from_events(run[:end]))
        assert json.loads(json.dumps(shown, allow_nan=False)) == json.loads(json.dumps(shown))
        assert shown["running"] == (end < len(run))
        assert len(shown["pieces"]) == len(shown["blocks"]) + 1


def test_text_is_cut_where_blocks_were_opened(trace):
    shown = view(trace)
    assert shown["pieces"] == ["Listen: ", "after 0. ", "after 1. "]
    assert "".join(shown["pieces"]) == trace.text


def test_pieces_count_characters_not_code_units(events):
    run = [TextDelta("\N{BELL}\N{GRINNING FACE} ", (1,), 0.1) if isinstance(e, TextDelta) else e for e in events()]
    assert view(Trace.from_events(run))["pieces"] == ["\N{BELL}\N{GRINNING FACE} "] * 3


def test_latents_carry_time_rank_score_and_certainty(trace):
    first, *_, last = view(trace)["blocks"][0]["latents"]
    assert (first["modality"], first["time_s"], first["p"], first["evidence"]) == ("visual", 1.5, 0.01, True)
    assert first["matches"][0] == {"start_s": 0.0, "end_s": 1.0, "box": [0.0, 0.0, 1.0, 0.5], "score": 1.0, "rank": 1}
    assert (last["modality"], last["cell"], last["p"], last["evidence"]) == ("audio", None, 0.6, False)
    assert view(trace)["blocks"][0]["moments"]["audio"] in [(4.0, 5.0), (5.0, 6.0)]


def test_without_a_null_nothing_is_called_evidence(events):
    shown = view(Trace.from_events(events(null=False)))
    assert not shown["has_null"]
    assert {z["evidence"] for block in shown["blocks"] for z in block["latents"]} == {None}


def test_media_is_sent_only_when_asked_for(trace):
    with_media, without = view(trace), view(trace, media=False)
    media = with_media.pop("media")
    assert with_media == without
    assert len(media["thumbnails"]) == len(media["thumbnail_times_s"]) == 6
    assert media["thumbnails"][0].startswith("data:image/jpeg;base64,")
    assert media["aspect"] == pytest.approx(80 / 60)
    assert len(json.dumps(without)) < 10_000
