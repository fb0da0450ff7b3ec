"""`intervene`, `compare` and `selftest` on the shipped model, in process: their JSON, their files, their refusals."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from latentomni.avworld.questions import FAMILIES
from latentomni.cli import main
from latentomni.commands.selftest import _wilson
from latentomni.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
TRACE, CLIP = EXAMPLES / "8-pair.trace.zip", EXAMPLES / "8-pair.mp4"
EVERY = {"model", "weights", "device", "versions", "seed", "seconds"}


def run(*arguments):
    """A command that succeeds, as the JSON it prints."""
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert main([*map(str, arguments), "--json"]) == 0
        report = json.loads(sys.stdout.getvalue())
    finally:
        sys.stdout = out
    assert set(report) >= EVERY and (report["model"], report["weights"]) == ("nano", "nano")
    return report


def intervene(*arguments):
    return run("intervene", TRACE, "--clip", CLIP, *arguments)


def test_the_intact_arm_repeats_the_recorded_answer():
    report = intervene("--arm", "intact")
    assert (report["before"], report["after"], report["flipped"], report["margin_change"]) == (Trace.load(TRACE).answer,) * 2 + (False, 0)
    assert (report["control"], report["moved"], report["done"]) == (None, [], "All latents were left as they were.")


def test_latents_of_another_clip_change_the_answer_and_random_ones_do_not(tmp_path):
    report = intervene("--arm", "other_clip", "--block", 1, "--save", tmp_path / "t.zip")
    assert (report["arm"], report["block"], report["latent"], report["modality"]) == ("other_clip", 1, None, None)
    assert report["flipped"] and report["before"] != report["after"] and report["margin_change"] < 0
    assert not report["control"]["flipped"] and set(report["control"]) == {"what", "answer", "flipped", "margin_change"}
    for when in ("before", "after"):
        assert sum(p[when] for p in report["probabilities"].values()) == pytest.approx(1)
    saved, before = Trace.load(tmp_path / "t.zip"), Trace.load(TRACE)
    assert (saved.answer, saved.notices) == (report["after"], (report["done"],))
    old, new = (np.array([[z.vector for z in block.latents] for block in trace.blocks], np.float32) for trace in (before, saved))
    far = np.linalg.norm(new - old, axis=-1) / np.linalg.norm(old, axis=-1)  # the record was made on another machine
    assert far[0].max() < 0.01 and far[1].min() > 0.1
    again = intervene("--arm", "other_clip", "--block", 1)
    assert again | {"seconds": 0} == report | {"seconds": 0}


def test_a_blacked_out_window_moves_the_latents(capsys):
    report = intervene("--arm", "black_out", "--window", 0, 2)
    assert "of [0.0-2.0 s] were taken out" in report["done"] and "was done elsewhere" in report["control"]["what"]
    assert len(report["moved"]) == 20 and all(-1 <= cosine <= 1 + 1e-6 for cosine in report["moved"])
    assert main(["intervene", str(TRACE), "--clip", str(CLIP), "--arm", "black_out", "--window", "0", "2"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n{word}" in f"\n{told}" for word in ("before ", "after ", "The answer ", "Cosine of the latents", "Control: "))


def test_modes_are_compared_on_one_clip(tmp_path, capsys):
    question = Trace.load(TRACE).question
    report = run("compare", CLIP, question, "--modes", "latent,direct", "--traces", tmp_path / "runs")
    assert list(report["runs"]) == ["latent", "direct"] and report["question"] == question
    latent, direct = report["runs"].values()
    assert len(latent["blocks"]) == 2 and direct["blocks"] == [] and latent["answer"] == Trace.load(TRACE).answer
    assert latent["tokens"] > direct["tokens"] > 0 and latent["seconds"] > 0
    for mode, told in report["runs"].items():
        trace = Trace.load(tmp_path / "runs" / f"{mode}.trace.zip")
        assert (trace.mode, trace.answer, trace.tokens, trace.clip.sha256) == (mode, told["answer"], told["tokens"], told["clip"]["sha256"])
    assert main(["compare", str(CLIP), question, "--modes", "direct"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["mode", "tokens", "seconds", "answer"] and row.startswith("direct ") and row.endswith(direct["answer"])


def test_the_self_test_reports_rates_with_their_intervals():
    report = run("selftest", "--n", 4, "--seed", 2)
    assert (report["n"], report["seed"], report["blocks"]) == (4, 2, 4)
    assert report["families"].keys() == set(FAMILIES[:4]) and sum(f["n"] for f in report["families"].values()) == 4
    assert report["answer_right"] == sum(f["answer_right"] for f in report["families"].values()) / 4
    assert 0 <= report["window_iou"] <= 1 and 0 < report["chance"] < 1
    assert report["evidence_hit"].keys() == {"visual", "audio"}
    low, high = report["intervals"]["answer_right"]
    assert low <= report["answer_right"] <= high


def test_the_interval_is_wilsons():
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for (hits, n), expected in {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)}.items():
        assert _wilson(hits, n) == pytest.approx(expected, abs=5e-5)
    assert _wilson(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["intervene", str(TRACE), "--arm", "zero"],
        ["intervene", str(TRACE), "--clip", str(CLIP), "--arm", "upside_down"],
        ["intervene", str(TRACE), "--clip", str(CLIP), "--arm", "mute", "--window", "2"],
        ["compare", str(CLIP), "What?", "--modes", "latent,sideways"],
        ["selftest", "--n", "0"],
    ],
    ids=lambda arguments: " ".join(arguments[-2:]),
)
def test_bad_use_is_refused_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["intervene", CLIP, "--clip", CLIP, "--arm", "zero"], "is not a readable trace file"),
        (["intervene", TRACE, "--clip", EXAMPLES / "1-colour.mp4", "--arm", "zero"], "give the clip it is about"),
        (["intervene", TRACE, "--clip", CLIP, "--arm", "zero", "--latent", "3"], "say which block"),
        (["intervene", TRACE, "--clip", CLIP, "--arm", "zero", "--block", "2"], "the answer has 2, counted from 0"),
        (["intervene", TRACE, "--clip", CLIP, "--arm", "mute", "--window", "4", "2"], "--window needs 0 <= A < B in seconds, got 4 2"),
        (["intervene", TRACE, "--clip", CLIP, "--arm", "mute", "--seed", "-1"], "A seed is a whole number from 0 on, got -1"),
        (["selftest", "--seed", "-1"], "A seed is a whole number from 0 on"),
    ],
    ids=lambda value: " ".join(map(str, value[2:])) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_sentence(arguments, said, capsys):
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and said in printed.err.splitlines()[-1]
