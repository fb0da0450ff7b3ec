"""The training benchmark on the smallest shape: which figures it gives, and that its arms do the work they are named after."""

import pytest
import torch

from latentomni import checkpoints
from latentomni.bench.train import StepShape, bench_train

SHAPE = StepShape(prefix=200, instants=2, rows=1, columns=1, suffix=8, batch=8, vocabulary=20_000, vocabulary_batch=1)
PHASES = ["phase_a", "phase_b", "phase_c"]


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(tiny, folder, dtype=torch.float32)
    return bench_train(checkpoints.load(str(folder)), str(folder), repeats=1, shape=SHAPE)


def test_every_figure_is_ours_over_the_peers(report):
    memory = report["memory"]
    for compared in (*(report[name] for name in PHASES), report["sequential"], memory, memory["own_vocabulary"]):
        assert compared["ratio"] == compared["ours"] / compared["peer"] > 0
    assert len({report[name]["peer"] for name in (*PHASES, "sequential")}) == 1
    assert (memory["vocabulary"], memory["batch"], memory["own_vocabulary"]["vocabulary"]) == (20_000, 1, 300)
    assert report["shape"].startswith(
        "tiny with random weights, float32, 1 threads; 8 rows of 200 tokens, 4 latents, 8 tokens;"
    )
    assert report["repeats"] == 1


def test_exact_feedback_has_one_loss_and_approximations_another(report):
    loss = {name: report[name]["loss"] for name in (*PHASES, "sequential")}
    assert loss["phase_c"] == pytest.approx(loss["sequential"], rel=1e-6)
    assert abs(loss["phase_b"] - loss["phase_c"]) > 1e-6 < abs(loss["phase_a"] - loss["phase_b"])
