"""The gap between what pictures and sounds are most similar to, per instant."""

from dataclasses import replace

import numpy as np
import pytest

from latentomni.events import LatentStep, Match
from latentomni.trace import Trace
from visualizers.sync import compute_sync


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
