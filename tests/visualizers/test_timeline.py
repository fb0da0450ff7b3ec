"""The timeline as data, and its figure read back."""

from dataclasses import replace

import numpy as np
import pytest

from latentomni.events import LatentStep, Match
from latentomni.trace import Trace
from visualizers.timeline import ENVELOPE_HZ, compute_sync, compute_timeline, plot_timeline


def test_latents_stand_at_their_stated_time_and_at_their_evidence(trace):
    timeline = compute_timeline(trace)
    assert timeline.windows_s.tolist() == [[1, 3], [3, 5]]
    assert timeline.block.tolist() == [0] * 6 + [1] * 6
    assert timeline.is_visual.tolist() == [True] * 4 + [False] * 2 + [True] * 4 + [False] * 2
    np.testing.assert_allclose(timeline.stated_s[:6], [1.5, 1.5, 2.5, 2.5, 1.5, 2.5])
    np.testing.assert_allclose(timeline.evidence_s[:6, 0], [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(timeline.evidence_s[6:, 1], [2, 3, 4, 5, 6, 1])
    assert timeline.is_evidence.tolist() == [True, True, True, False, True, False] * 2


def test_envelope_shows_when_the_beep_sounds(trace):
    loud = np.flatnonzero(compute_timeline(trace).envelope > 0.5) / ENVELOPE_HZ
    assert (loud.min(), loud.max()) == (3.0, 4.0 - 1 / ENVELOPE_HZ)


def test_without_null_sound_or_blocks(events):
    without_null = compute_timeline(Trace.from_events(events(null=False)))
    assert np.isnan(without_null.p).all()
    assert not without_null.is_evidence.any()
    silent = compute_timeline(Trace.from_events(events(sound=False)))
    assert len(silent.envelope) == 0
    assert np.isnan(silent.evidence_s[4:6]).all()
    assert compute_timeline(Trace.from_events(events(blocks=0))).evidence_s.shape == (0, 2)


def test_figure_joins_every_latent_to_its_evidence(trace):
    figure = plot_timeline(compute_timeline(trace))
    by_name = {line.name: line for line in figure.data}
    assert np.asarray(by_name["visual"].x).reshape(-1, 3)[:3, :2].tolist() == [[1.5, 0.5], [1.5, 1.5], [2.5, 2.5]]
    assert [len(by_name[name].x) // 3 for name in ("visual", "audio", "no evidence")] == [6, 2, 4]
    assert list(figure.layout.xaxis2.range) == [0, 6]
    assert sum(shape.type == "rect" for shape in figure.layout.shapes) >= 2


def test_figures_of_empty_and_silent_runs(events):
    for settings in ({"blocks": 0}, {"sound": False}, {"null": False}):
        plot_timeline(compute_timeline(Trace.from_events(events(**settings)))).to_json()


def test_sync_compares_what_the_two_kinds_are_most_similar_to(trace):
    lane = compute_sync(trace)
    assert lane.block.tolist() == [0, 0, 1, 1] and lane.instant.tolist() == [0, 1, 0, 1]
    assert lane.stated_s.tolist() == [[1.5, 1.5], [2.5, 2.5], [3.5, 3.5], [4.5, 4.5]]
    # visual slots 0, 1 at seconds 0, 1 and audio slot 4 at second 4; slots 3 and 5 are no evidence
    np.testing.assert_allclose(lane.evidence_s, [[1, 4.5], [2.5, np.nan], [2, 5.5], [3.5, np.nan]])
    np.testing.assert_allclose(lane.gap_s, [-3.5, np.nan, -3.5, np.nan])
    assert lane.median_gap_s(0) == -3.5
    assert lane.resolution_s.tolist() == [0.5] * 4


def test_latents_of_one_moment_have_no_gap(events):
    together = [replace(e, matches=(Match(0, 2.0, 3.0, (0, 0, 1, 1), 1.0, 1),)) if isinstance(e, LatentStep) else e for e in events()]
    lane = compute_sync(Trace.from_events(together))
    assert lane.gap_s[0] == 0
    assert lane.median_gap_s(1) == 0


@pytest.mark.parametrize("settings", [{"blocks": 0}, {"sound": False}, {"picture": False}])
def test_sync_of_runs_that_lack_something(events, settings):
    lane = compute_sync(Trace.from_events(events(**settings)))
    assert np.isnan(lane.gap_s).all()
    assert lane.median_gap_s(0) is None
    assert len(lane.block) == len(lane.stated_s) == (0 if "blocks" in settings else 4)


def test_sync_without_a_null_takes_every_match(events):
    lane = compute_sync(Trace.from_events(events(null=False)))
    np.testing.assert_allclose(lane.gap_s, [1 - 4.5, 3 - 5.5, 2 - 5.5, 4 - 0.5])
