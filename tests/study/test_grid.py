"""The grid in small: killed and resumed, every run is made once and is what it would have been; arms differ in what they should."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from latentomni.avworld import questions, sample_world
from latentomni.avworld.nuances import nuances
from latentomni.config import Mode
from latentomni.errors import RequestError
from latentomni.study.arms import ARMS
from latentomni.study.grid import StudySpec, run_study
from latentomni.study.report import read_study, summarise
from latentomni.study.scores import ScoreSpec
from latentomni.training.turns import Segment

SPEC = StudySpec(arms=("latentomni", "direct"), seeds=(1,), begin_from="nano", steps=2, clips=2, pool=12,
                 scores=ScoreSpec(answered=4, changed=2, watched=1))  # fmt: skip


class Killed(Exception):
    pass


def told(folder):
    """Every log without what depends on the clock."""
    runs = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))}
    for run in runs.values():
        del run["train_seconds"], run["score_seconds"]
        for line in run["curve"]:
            del line["seconds"]
        for scores in run["sets"].values():
            del scores["seconds_per_answer"]
    return runs


def plain(items, _what):
    return items


def test_killed_and_resumed_is_uninterrupted_and_nothing_is_run_twice(tmp_path):
    torch.set_num_threads(1)
    through = tmp_path / "through"
    assert run_study(through, through / "logs", SPEC, lambda line: None, plain) == 2

    def kill(line):
        if line.startswith("2 of 2"):
            raise Killed

    out = tmp_path / "killed"
    with pytest.raises(Killed):
        run_study(out, out / "logs", SPEC, kill, plain)
    first = (out / "logs" / "latentomni-1.json").read_bytes()
    said = []
    assert run_study(out, out / "logs", SPEC, said.append, plain) == 1
    assert said == ["1 of 1: direct, seed 1"] and (out / "logs" / "latentomni-1.json").read_bytes() == first
    assert told(out / "logs") == told(through / "logs")
    assert run_study(out, out / "logs", SPEC, said.append, plain) == 0
    other = replace(SPEC, clips=3)
    with pytest.raises(RequestError, match=r"has another recipe \(clips\)"):
        run_study(out, out / "logs", other, said.append, plain)
    with pytest.raises(RequestError, match=r"direct-1\.json is of a study with other settings"):
        run_study(tmp_path / "new", out / "logs", other, said.append, plain)
    assert run_study(out, out / "logs", replace(SPEC, arms=("latentomni",)), said.append, plain) == 0  # a part of it is the same study
    start = json.loads((out / "logs" / "start.json").read_text())
    assert set(start["accuracy"]) == set(Mode) and start["curve"] == [] and start == json.loads((through / "logs" / "start.json").read_text())
    summary = summarise(read_study(out / "logs"))
    assert list(summary["recipes"]) == ["latentomni", "direct"] and summary["questions"] == {"easy": 4, "hard": 4}
    runs = told(out / "logs")
    assert set(runs["latentomni-1.json"]["sets"]["hard"]) - set(runs["direct-1.json"]["sets"]["hard"]) == {"window_iou", "evidence", "explained", "causal"}
    assert 0.5 < runs["latentomni-1.json"]["sets"]["easy"]["explained"]["visual"] < 1  # nano's latents hold the picture
    assert runs["direct-1.json"]["sets"]["easy"]["attention"]["direct"][0] > 0


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_says_what_its_name_says(name):
    arm, world = ARMS[name], sample_world(3, "train")
    pair = next(q for q in questions(world) if q.family == "pair")
    sync = next(q for q in questions(world) if q.family == "sync")
    assert arm.turn(sync).group == "verdict" and "".join(p for p in arm.turn(sync).parts if isinstance(p, str)).endswith(sync.closing)
    for question in (pair, nuances(world)[0]):
        turn = arm.turn(question)
        segments = [part for part in turn.parts if isinstance(part, Segment)]
        words = "".join(part for part in turn.parts if isinstance(part, str))
        assert turn.parts[-1].strip() == question.closing and turn.mode is arm.mode
        assert len(segments) == (0 if name == "vanilla-sft" else 2)
        assert (question.steps[0].lead in words) == (name != "direct")
        assert all(s.caption for s in segments)


def test_there_is_an_arm_for_every_part_of_the_method():
    assert len(ARMS) == 17
    assert [name for name, arm in ARMS.items() if arm.mode is not Mode.LATENT] == ["explicit-text-cot", "vanilla-sft", "direct"]
    assert {name for name, arm in ARMS.items() if not arm.feedback} == {"anchors-only"}


def test_two_share_the_work_and_what_one_leaves_the_other_does(tmp_path):
    torch.set_num_threads(1)
    said: list[str] = []
    other = FileLock(tmp_path / "latentomni-1.lock")  # what another process holds
    with ThreadPoolExecutor(1) as pool:
        with other:
            run = pool.submit(run_study, tmp_path, tmp_path / "logs", SPEC, said.append, plain)
            while not (tmp_path / "logs" / "direct-1.json").is_file() and not run.done():
                time.sleep(0.1)
            assert said == ["2 of 2: direct, seed 1"]
        assert run.result() == 2
    assert said[1:] == ["1 of 2: latentomni, seed 1"]
