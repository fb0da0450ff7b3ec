"""The timeline as data, and its figure read back."""

from dataclasses import replace

import numpy as np

from latentomni.clock import Window
from latentomni.trace import Trace
from latentomni.truth import Truth
from visualizers.timeline import ENVELOPE_HZ, compute_timeline, plot_timeline


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


def test_true_windows_stand_beside_the_stated_ones(trace):
    truth = Truth("at 5 s", False, (Window(5.0, 6.0), Window(0.5, 1.0)), ("audio", "both"))
    timeline = compute_timeline(replace(trace, truth=truth))
    assert timeline.true_s.tolist() == [[5, 6], [0.5, 1]] and timeline.windows_s.tolist() == [[1, 3], [3, 5]]
    figure = plot_timeline(timeline)
    (line,) = [line for line in figure.data if line.name == "true window"]
    np.testing.assert_equal(np.asarray(line.x), [5, 6, np.nan, 0.5, 1, np.nan])
    assert line.line.color not in {other.line.color for other in figure.data if other is not line}
    drawn = {shape.fillcolor: (shape.x0, shape.x1) for shape in figure.layout.shapes}
    assert drawn[line.line.color] == (0.5, 1.0) and len(drawn) == 2
    assert "true window" not in {line.name for line in plot_timeline(compute_timeline(trace)).data}
    assert compute_timeline(trace).true_s.shape == (0, 2)


def test_figures_of_empty_and_silent_runs(events):
    for settings in ({"blocks": 0}, {"sound": False}, {"null": False}):
        plot_timeline(compute_timeline(Trace.from_events(events(**settings)))).to_json()
