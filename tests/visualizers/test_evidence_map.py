"""The heat map's numbers: those that were recorded, or searched again where none were."""

from dataclasses import replace

import numpy as np
import pytest

from latentomni.events import LatentStep
from latentomni.trace import Trace
from visualizers.evidence import compute_evidence, plot_evidence


def test_the_best_time_of_each_row_is_the_best_match(trace):
    for modality, slots in (("visual", [0, 1, 2, 3]), ("audio", [4, 5])):
        found = compute_evidence(trace, 0, modality)
        assert found.slots.tolist() == slots
        assert found.scores.shape == (len(slots), 6)
        best = [trace.blocks[0].latents[k].matches[0].start_s for k in slots]
        assert found.times_s[found.scores.argmax(axis=1), 0].tolist() == best
    np.testing.assert_allclose(compute_evidence(trace, 0, "audio").p, [0.01, 0.6])


def test_scores_are_searched_again_where_none_were_recorded(events, trace):
    bare = Trace.from_events(replace(e, scores=None) if isinstance(e, LatentStep) else e for e in events())
    for modality in ("visual", "audio"):
        recorded, searched = compute_evidence(trace, 1, modality), compute_evidence(bare, 1, modality)
        np.testing.assert_allclose(searched.scores, recorded.scores, atol=5e-3)


@pytest.mark.parametrize("settings", [{"sound": False}, {"null": False}])
def test_figure_shows_the_same_numbers(events, settings):
    trace = Trace.from_events(events(**settings))
    for modality in ("visual", "audio"):
        found = compute_evidence(trace, 0, modality)
        heat = plot_evidence(found).data[0]
        np.testing.assert_array_equal(np.asarray(heat.z), found.scores)
        assert list(heat.x) == found.times_s.mean(axis=1).tolist()
