"""Evidence metrics against hand counts and brute force, nano's figures, and what an answer without blocks is worth."""

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from latentomni.cli import main
from latentomni.clock import Window
from latentomni.errors import RequestError
from latentomni.evaluation.cases import avworld_cases
from latentomni.evaluation.evidence import BASELINES, Ranking, evaluate_evidence
from latentomni.runtime import Runtime

METRICS = {"hit_at_1", "hit_at_5", "mrr"}


def spans(count, step_s=1.0):
    starts = np.arange(count) * step_s
    return np.stack([starts, starts + step_s], axis=1)


def test_a_ranking_is_that_of_a_hand_count():
    scores = np.array([0.2, 0.9, 0.9, 0.1, 0.5, 0.3, 0.8])
    ranking = Ranking.of(scores, spans(7), Window(2.0, 4.0))  # places 2 and 3 are right; 1, 2, 6, 4, 5, 0, 3 is the order
    assert ranking.is_right.tolist() == [False, True, False, False, False, False, True]
    assert (ranking.hit(1), ranking.hit(5), ranking.reciprocal_rank) == (0.0, 1.0, 0.5)
    nowhere = Ranking.of(scores, spans(7), Window(20.0, 24.0))
    assert (nowhere.hit(5), nowhere.reciprocal_rank, nowhere.chance()["mrr"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("count", "right"), [(1, 1), (4, 1), (6, 2), (7, 7), (7, 3), (3, 0)])
def test_chance_is_the_mean_over_all_orders(count, right):
    orders = [Ranking(np.array(order)) for order in set(permutations([True] * right + [False] * (count - right)))]
    chance = orders[0].chance()
    assert chance["hit_at_1"] == pytest.approx(np.mean([r.hit(1) for r in orders]))
    assert chance["hit_at_5"] == pytest.approx(np.mean([r.hit(5) for r in orders]))
    assert chance["mrr"] == pytest.approx(np.mean([r.reciprocal_rank for r in orders]))


@pytest.fixture(scope="module")
def nano():
    return Runtime.load("nano")


def test_latents_of_nano_point_at_the_right_moments(nano):
    cases = avworld_cases(nano.thinker, 24, None, lambda items, _: items)
    told = evaluate_evidence(nano, cases)
    assert told["blocks"] == told["blocks_written"] == sum(len(case.windows) for case in cases)
    assert told["hit_at_1"] > 0.9 > 0.5 > told["baselines"]["question"] and told["window_iou"] > 0.9
    assert told["hit_at_1"] <= told["mrr"] <= told["hit_at_5"] == 1.0
    assert set(told["modalities"]) == {"visual", "audio"} and all(set(m) >= METRICS for m in told["modalities"].values())
    assert set(told["baselines"]) == set(BASELINES) and told["baselines"]["uniform"] == told["chance"]["hit_at_1"]
    centres = [window.contains(case.features.duration_s / 2) for case in cases for window in case.windows]
    assert told["baselines"]["centre"] == pytest.approx(np.mean(centres), abs=0.3)  # half a scene's breadth aside

    # true windows that are swapped for another scene's make the same latents wrong
    moved = [replace(c, windows=tuple(_elsewhere(w, c.features.duration_s) for w in c.windows)) for c in cases]
    assert evaluate_evidence(nano, moved)["hit_at_1"] < 0.1


def _elsewhere(window, duration_s):
    return Window(0.0, 2.0) if window.start_s > 0 else Window(duration_s - 2.0, duration_s)


def test_an_answer_without_blocks_is_a_miss_of_latents_alone():
    mute = Runtime.load("nano")
    mute.thinker.model.lm_head.weight.data[mute.thinker.ids.trigger] = 0.0
    told = evaluate_evidence(mute, avworld_cases(mute.thinker, 4, None, lambda items, _: items))
    assert (told["blocks_written"], told["hit_at_1"], told["window_iou"]) == (0, 0.0, 0.0) and told["blocks"] > 0
    assert told["baselines"]["attention"] is None and told["baselines"]["uniform"] > 0


def test_data_without_windows_is_refused(nano):
    cases = [replace(c, windows=()) for c in avworld_cases(nano.thinker, 1, None, lambda items, _: items)]
    with pytest.raises(RequestError, match="this data has none; give questions with segments"):
        evaluate_evidence(nano, cases)


def test_the_command_prints_the_contract(capsys):
    assert main(["eval", "evidence", "--data", "avworld", "--n", "3", "--json"]) == 0
    printed, told = capsys.readouterr(), {}
    told = json.loads(printed.out.splitlines()[-1])
    assert set(told) >= METRICS | {"window_iou", "baselines", "chance", "model", "weights", "device", "seed"}
    assert (told["data"], told["n"], told["weights"]) == ("avworld", 3, "nano")
    assert "times as often as the best guess" in printed.err + printed.out
