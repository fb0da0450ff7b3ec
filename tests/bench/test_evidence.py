"""The evidence benchmark on a few seconds: which figures it gives. That both sides agree it asserts itself."""

import pytest

from latentomni.bench.evidence import bench_evidence
from visualizers import plot_timeline


@pytest.fixture(scope="module")
def report():
    return bench_evidence(repeats=2, duration_s=4, draw=plot_timeline)


def test_every_figure_is_ours_over_the_peers(report):
    for compared in (report, report["wide"]):
        assert compared["ratio"] == compared["ours"] / compared["peer"] > 0
        assert compared["bank_s"] > 0 and compared["fastest_s"] <= compared["ours"]
    assert report["nulls_s"] > 0 and report["wide"]["nulls_s"] is None
    assert report["timeline_figure_s"] > 0


def test_nano_is_searched_by_every_token_and_the_wide_one_by_moments(report):
    assert report["shape"].startswith("4 s; 32 visual latents against 16 moments, 8 audio latents against 100, width 256, p against 199")
    assert report["wide"]["shape"].startswith("4 s; 32 visual latents against 1024 moments, 8 audio latents against 8, width 3584, ranks")
