"""The component's values: plain JSON, the same for a prefix, and honest about what is not known."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from latentomni.clock import Window
from latentomni.events import Moments, TextDelta
from latentomni.trace import Trace
from latentomni.truth import Truth
from visualizers.evidence import compute_cells
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


def test_the_truth_is_sent_where_it_is_known(trace):
    truth = Truth("at 5 s", False, (Window(5.0, 6.0), Window(0.5, 1.0)), ("audio", "both"))
    assert view(replace(trace, truth=truth))["truth"] == {"answer": "at 5 s", "is_right": False, "windows": [[5.0, 6.0, "audio"], [0.5, 1.0, "both"]]}
    assert view(trace)["truth"] is None


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
    assert len(json.dumps(without)) < 1_000 * 12  # bytes a latent: it travels ten times a second


def decoded(coded):
    codes = np.frombuffer(base64.b64decode(coded["codes"]), np.uint8).astype(float)
    low, high = coded["range"]
    return np.where(codes == 0, np.nan, low + (high - low) * (codes - 1) / 254)


def test_scores_over_the_clip_and_over_the_frame(trace):
    latent, shown = trace.blocks[0].latents[1], view(trace)["blocks"][0]["latents"][1]
    np.testing.assert_allclose(decoded(shown["curve"])[10::20], latent.scores, atol=0.006)
    assert (shown["cells"]["rows"], shown["cells"]["columns"], shown["cells"]["recorded"]) == (1, 2, True)
    np.testing.assert_allclose(decoded(shown["cells"]), latent.cell_scores, atol=0.006)
    assert shown["null_level"] == 0.5


def test_cells_of_older_runs_are_computed_and_marked(trace):
    old = replace(trace.blocks[0].latents[1], cell_scores=None, null_level=None)
    cells = compute_cells(trace, old)
    assert not cells.is_recorded
    assert cells.scores[0] == pytest.approx(1, abs=1e-2) and cells.scores[1] < 0.9
    assert compute_cells(trace, trace.blocks[0].latents[4]) is None  # sound has no cells


def test_a_curve_has_gaps_where_nothing_was_compared(events):
    run = Trace.from_events(events())
    kept = slice(2, None)  # no audio moment in the first two seconds
    audio = Moments(run.audio.start_s[kept], run.audio.end_s[kept], run.audio.cells[kept], run.audio.features[kept])
    block = run.blocks[0]
    latents = tuple(replace(z, scores=z.scores[kept], matches=()) if z.modality == "audio" else z for z in block.latents)
    shown = view(replace(run, audio=audio, blocks=(replace(block, latents=latents),)))["blocks"][0]["latents"][4]
    curve = decoded(shown["curve"])
    assert np.isnan(curve[:40]).all() and np.isfinite(curve[40:]).all()


def test_collapse_is_shown_as_it_was_given(trace):
    assert view(trace)["collapse"] is None
    assert view(replace(trace, collapse={"raw_cosine": 0.19, "other": 1}))["collapse"] == {
        "between_clip_variance": None, "segment_retrieval_top1": None, "effective_rank": None, "raw_cosine": 0.19,
    }  # fmt: skip
    assert 1 <= view(trace)["blocks"][0]["spread"]["effective_rank"] <= 6
