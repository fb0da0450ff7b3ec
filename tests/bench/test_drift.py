"""Drift: none for the model itself, some under quantisation, and the chart shows what was measured."""

from xml.etree import ElementTree

import pytest
import torch

from latentomni import checkpoints
from latentomni.bench.drift import bench_drift
from latentomni.errors import RequestError
from latentomni.runtime import Runtime
from visualizers.charts import draw_chart
from visualizers.drift import drift_chart


@pytest.fixture(scope="module")
def report():
    return bench_drift(Runtime.load("nano"), "nano", "int8", repeats=4)


def test_a_model_does_not_drift_from_itself():
    report = bench_drift(Runtime.load("nano"), "nano", "none", repeats=2)
    assert [step["cosine"] for step in report["steps"]] == pytest.approx([1.0] * 10, abs=1e-6)
    assert (report["agreement"], report["same_answer"]) == (1.0, 1.0)
    assert report["accuracy"]["none"] in (0.0, 0.5, 1.0)


def test_a_quantised_model_drifts_less_than_clips_differ(report):
    assert [step["modality"] for step in report["steps"]] == ["visual"] * 8 + ["audio"] * 2
    assert all(step["cosine_low"] <= step["cosine"] < 1 for step in report["steps"])
    assert report["peer"] < report["ours"] < 1
    assert report["ratio"] == report["ours"] / report["peer"]


def test_the_chart_draws_every_step(report):
    drawn = ElementTree.fromstring(draw_chart(drift_chart(report)))
    assert len([e for e in drawn.iter() if e.tag.endswith("polyline")]) == 4
    assert "int8" in drawn.get("aria-label")


def test_a_model_without_blocks_is_refused(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    with pytest.raises(RequestError, match="nothing can drift"):
        bench_drift(Runtime.load(str(tmp_path)), str(tmp_path), "none", repeats=1)
