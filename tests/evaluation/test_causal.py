"""What the causal arms measure: hand-computed statistics, constructed models whose answers are known, the card, the command."""

import copy
import io
import json
import sys
import wave
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentomni import checkpoints
from latentomni.checkpoint_files import read_collapse
from latentomni.cli import main
from latentomni.clock import Window
from latentomni.config import AttentionFlow, Mode, SamplingSpec
from latentomni.evaluation.card import causal_section
from latentomni.evaluation.cases import Case, avworld_cases, record_cases
from latentomni.evaluation.causal import COLLAPSE_MEASURES, drop_interval, evaluate_causal, mcnemar_p
from latentomni.events import Finished
from latentomni.generation import generate
from latentomni.interventions import Arm
from latentomni.processing import add_question, new_sequence
from latentomni.runtime import Runtime
from latentomni.training.records import read_records

QUESTION = "What is seen while the bell rings?"
SAMPLING = SamplingSpec(max_new_tokens=5, max_blocks=1)
CONTRACT = {"arms", "follows_donor", "marker_only_share", "between_clip_variance", "segment_retrieval_top1", "raw_cosine",
            "effective_rank"}  # fmt: skip
OF_AN_ARM = {"accuracy", "drop", "interval", "p", "flips"}


@pytest.mark.parametrize(
    "lost, gained, p", [(0, 0, 1), (1, 0, 1), (5, 0, Fraction(1, 16)), (0, 5, Fraction(1, 16)), (8, 2, Fraction(112, 1024)), (4, 4, 1)]
)
def test_mcnemar_counts_both_tails_of_a_fair_coin(lost, gained, p):
    assert mcnemar_p(lost, gained) == p


def test_mcnemar_holds_for_many_cases():
    assert mcnemar_p(1000, 0) == 2.0**-999
    assert 0 < mcnemar_p(1100, 900) < 1e-4


def test_the_interval_of_a_drop_is_the_paired_bootstrap():
    right, still = np.ones(4, bool), np.array([True, True, True, False])
    # Of four cases drawn with replacement, the lost one comes 0, 1, 2, 3, 4 times with p 0.316, 0.422, 0.211, 0.047, 0.004.
    assert drop_interval(right, still) == (0.0, 0.75)
    assert drop_interval(right, right) == (0.0, 0.0)
    assert drop_interval(right, ~right) == (1.0, 1.0)
    rng = np.random.default_rng(0)
    before, after = rng.random(200) < 0.9, rng.random(200) < 0.4
    drawn = rng.integers(200, size=(20_000, 200))
    expected = np.percentile(before[drawn].mean(1) - after[drawn].mean(1), [2.5, 97.5])
    assert drop_interval(before, after) == pytest.approx(tuple(expected), abs=0.011)


def cases_of(thinker, clips, answers):
    """One question about every clip; an answer is the whole text."""
    return [
        Case(clip.name, thinker.encode_clip(clip), lambda clip=clip: clip, QUESTION, answer, str, "A red circle.", (Window(0.0, 2.0),))
        for clip, answer in zip(clips, answers, strict=True)
    ]


@pytest.fixture(scope="module")
def teller(tiny64):
    """Under the strict flow, and with one window for all clips, all that an answer knows of its clip is in its latents. They
    are large and the words that may be said are readable, so that every clip is answered in other words."""
    spec = replace(tiny64.spec, flow=AttentionFlow.STRICT, writes_window=False)
    thinker = replace(tiny64, spec=spec, model=copy.deepcopy(tiny64.model), head=torch.nn.Linear(32, 32, bias=False, dtype=torch.float64))
    words = {i for i in range(len(tiny64.tokenizer)) if tiny64.tokenizer.decode([i]).strip().isalpha()} | {tiny64.ids.trigger}
    with torch.no_grad():
        torch.nn.init.normal_(thinker.head.weight, generator=torch.Generator().manual_seed(0))
        weight = thinker.model.lm_head.weight
        for token in range(len(weight)):
            weight[token, 0] *= token == tiny64.ids.trigger
            weight[token] *= token in words
    return thinker


@pytest.fixture(scope="module")
def own_texts(teller, make_clip):
    """Four clips that are answered in different words, and these."""
    clips = [make_clip(seed) for seed in range(16)]
    rows = [new_sequence(teller.encode_clip(clip), teller.spec, teller.ids, teller.encode_text) for clip in clips]
    for row in rows:
        add_question(row, QUESTION, Mode.LATENT, teller.encode_text)
    with_trigger = replace(SAMPLING, max_new_tokens=SAMPLING.max_new_tokens + 1)
    answers = generate(teller, rows, [Mode.LATENT] * len(rows), with_trigger)
    said = {event.answer: clips[b] for b, event in answers if isinstance(event, Finished)}
    assert len(said) >= 4
    return list(said.values())[:4], list(said)[:4]


@pytest.fixture(scope="module")
def results(teller, own_texts):
    return {"data": "four clips"} | evaluate_causal(teller, cases_of(teller, *own_texts), SAMPLING)


def test_a_model_that_says_what_its_latents_hold_follows_the_donor(results):
    arms = results["arms"]
    assert results["with_block"] == results["intact_repeats"] == 1
    assert (arms["intact"]["accuracy"], arms["intact"]["drop"], arms["intact"]["flips"], arms["intact"]["p"]) == (1, 0, 0, 1)
    assert arms["other_clip"] | {"margin_change": None} == {
        "accuracy": 0.0, "drop": 1.0, "interval": [1.0, 1.0], "p": 2 / 2**4, "flips": 1.0, "margin_change": None, "n": 4,
    }  # fmt: skip
    assert results["follows_donor"] == 1 > results["follows_donor_control"]
    kept, removed = (arms[arm]["accuracy"] for arm in ("removed_markers_kept", "markers_removed"))
    assert kept <= 0.25 and removed <= 0.25  # without latents all clips are answered alike
    assert results["marker_only_share"] == pytest.approx((kept - removed) / (1 - removed), abs=1e-4)


def test_a_model_with_one_and_the_same_latent_shows_that_it_is_collapsed(teller, make_clip):
    head = torch.nn.Linear(32, 32, dtype=torch.float64)
    torch.nn.init.zeros_(head.weight)
    fixed = replace(teller, head=head)
    clips = [make_clip(seed) for seed in range(4)]
    results = evaluate_causal(fixed, cases_of(fixed, clips, ["one", "two", "three", "four"]), SAMPLING)
    assert {results["arms"][arm]["flips"] for arm in ("mean", "other_clip", "shuffled", "visual_only", "audio_only")} == {0}
    assert results["arms"]["other_clip"]["margin_change"] == pytest.approx(0, abs=1e-4)
    assert (results["between_clip_variance"], results["raw_cosine"], results["effective_rank"]) == (0, 1, 1)
    assert (results["input_side"]["cited"], results["follows_donor"], results["marker_only_share"]) == (None, 0, None)


def test_the_cited_window_is_compared_with_another_of_its_length(tiny64, make_clip):
    clips = [make_clip(seed, 8.0) for seed in range(2)]
    results = evaluate_causal(tiny64, cases_of(tiny64, clips, ["one", "two"]), SAMPLING)
    moved = results["input_side"]
    assert moved["n"] == 2 and moved["cited"] > 0 and moved["control"] > 0 and 0 <= moved["cited_moves_more"] <= 1


def test_an_answer_without_a_block_counts_as_unchanged(teller, own_texts):
    clips, _ = own_texts
    silent = replace(SAMPLING, max_blocks=0)
    results = evaluate_causal(teller, cases_of(teller, clips[:3], ["one", "two", "three"]), silent)
    assert results["with_block"] == 0
    assert {(a["n"], a["drop"], a["flips"], a["margin_change"]) for a in results["arms"].values()} == {(3, 0, 0, 0)}
    assert results["follows_donor"] is results["effective_rank"] is results["input_side"]["cited"] is None


def test_what_an_arm_lacks_leaves_its_cases_out(teller, own_texts):
    """No true windows; no donor for the last, alone in its family, nor for the first, whose answer alone is possible."""
    clips, texts = own_texts
    cases = [
        replace(case, windows=(), family="b" if case.answer == texts[3] else "a", candidates=(case.answer, texts[0]))
        for case in cases_of(teller, clips, texts)
    ]
    results = evaluate_causal(teller, cases, SAMPLING)
    assert [results["arms"][arm]["n"] for arm in ("zero", "other_clip", "other_time", "oracle")] == [4, 2, 0, 0]
    assert results["follows_donor"] == 1
    assert results["arms"]["oracle"]["interval"] is None and results["segment_retrieval_top1"] is None


def test_the_same_seed_gives_the_same_results(teller, own_texts, results):
    assert evaluate_causal(teller, cases_of(teller, *own_texts), SAMPLING).items() <= results.items()


def test_held_out_questions_become_cases(tiny):
    cases = avworld_cases(tiny, 6, None, lambda items, _: items)
    assert [case.family for case in cases] == ["colour", "shape", "place", "sound", "sync", "count"]
    assert len({case.clip for case in cases}) == 2
    assert cases[0].features is cases[1].features
    for case in cases:
        assert case.parse(case.closing) == case.answer and case.answer in case.candidates
        assert all(window.end_s <= case.features.duration_s for window in case.windows)
        assert case.read().name == case.clip


def test_rows_of_a_file_become_cases(tiny, tmp_path, make_clip):
    told = [
        ("colour", "I look. <Unified_Latent></Unified_Latent> The object is red.", "red"),
        ("colour", "I look. <Unified_Latent></Unified_Latent> It has a dark red.", "dark red"),
        ("choice", "The bell, a loud one: B", "B"),
        ("choice", "The drum: A", "A"),
        ("", "A dog barks.", None),
    ]
    rows = []
    for family, text, answer in told:
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        segments = [{"start_s": 1.0, "end_s": 2.0}] * text.count("</")
        rows.append({"media": "clip.mp4", "messages": messages, "segments": segments, "family": family})
        rows[-1] |= {"answer": answer} if answer else {}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "clip.mp4").write_bytes(b"stands for a clip")
    opened = []
    cases = record_cases(tiny, read_records(tmp_path / "rows.jsonl"), lambda path: opened.append(path) or make_clip(0), lambda i, _: i)
    assert opened == [tmp_path / "clip.mp4"]
    assert [case.answer for case in cases] == ["red", "dark red", "B", "A", "A dog barks."]
    assert [case.windows for case in cases] == [(Window(1.0, 2.0),)] * 2 + [()] * 3
    assert [case.candidates for case in cases] == [("red", "dark red")] * 2 + [("B", "A")] * 2 + [()]
    read = {case.family: case.parse for case in cases}
    assert [read["colour"](text) for text in ("Not red but Dark-Red!", "red", "Redder", "")] == ["dark red", "red", None, None]
    assert [read["choice"](text) for text in ("a bell is B", "A or B", "a bell", "The drum: A")] == ["B", "B", None, "A"]
    assert [read[""](text) for text in ("Yes, a dog barks", "A cat")] == ["A dog barks.", None]


def test_the_card_says_what_was_measured_and_missed(results):
    section = causal_section(results)
    assert section.startswith("## Do the latents matter?\n")
    assert "four clips, 4 questions about 4 clips; 100 % of the answers had a latent block." in section
    assert max(len(line) for line in section.splitlines() if not line.startswith("|")) <= 120
    assert "| another clip's latents | 0.000 | 1.000 | 1.000 to 1.000 | 0.12 | 1.000 |" in section
    assert "| another clip's latents drop accuracy by at least 0.4 | 1.000 | reached |" in section
    missed = causal_section(results | {"follows_donor": 0.1, "marker_only_share": 0.5, "segment_retrieval_top1": None})
    assert "in at least 0.5 | 0.100 | **missed** |" in missed
    assert "at most 0.3 | 0.500 | **missed** |" in missed
    assert "of 4 clips in at least 0.8 | not measured | not measured |" in missed


@pytest.fixture(scope="module")
def checkpoint(tokenizer, make_clip, tmp_path_factory):
    """A checkpoint that opens a block at once and ends its answer behind it."""
    thinker = checkpoints.build("tiny", tokenizer, seed=0)
    row = new_sequence(thinker.encode_clip(make_clip(0)), thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, QUESTION, Mode.LATENT, thinker.encode_text)
    weight, ids = thinker.model.lm_head.weight, thinker.ids
    with torch.no_grad():
        weight.zero_()
        weight[ids.trigger] = thinker.full([row])[0, -1]
        list(generate(thinker, [row], [Mode.LATENT], SamplingSpec(max_new_tokens=2)))
        weight[ids.end_of_turn] = thinker.full([row])[0, row.token_ids.index(ids.close)]
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(thinker, folder, dtype=torch.float32)
    return folder


def report(*arguments):
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert main(["eval", "causal", *map(str, arguments), "--json"]) == 0
        return json.loads(sys.stdout.getvalue())
    finally:
        sys.stdout = out


def test_the_command_reports_every_arm_and_writes_the_card(checkpoint):
    told = report("--data", "avworld", "--checkpoint", checkpoint, "--n", 3, "--seed", 5, "--write-card")
    assert set(told) >= CONTRACT | {"model", "weights", "device", "versions", "seed", "seconds"}
    assert list(told["arms"]) == [str(arm) for arm in Arm]
    assert all(set(arm) >= OF_AN_ARM for arm in told["arms"].values())
    assert (told["n"], told["seed"], told["weights"]) == (3, 5, "random")
    assert "## Do the latents matter?" in (checkpoint / "README.md").read_text()
    measures = read_collapse(checkpoint)
    assert measures == {name: told[name] for name in COLLAPSE_MEASURES}
    assert Runtime.load(str(checkpoint)).collapse == measures  # and so every run of it tells them


def test_the_command_reads_a_file(checkpoint, tmp_path, capsys):
    rows = []
    for name, answer in (("low", "A bell."), ("high", "A drum.")):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((np.sin(np.arange(64_000) / len(name)) * 9000).astype(np.int16).tobytes())
        told = f"I listen. <Unified_Latent></Unified_Latent> {answer}"
        messages = [{"role": "user", "content": "What sounds?"}, {"role": "assistant", "content": told}]
        rows.append({"media": f"{name}.wav", "messages": messages, "segments": [{"start_s": 0.0, "end_s": 1.0}]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["eval", "causal", "--data", str(tmp_path / "rows.jsonl"), "--checkpoint", str(checkpoint), "--seed", "1"]) == 0
    table = capsys.readouterr().out
    assert all(f"\n{arm} " in table for arm in Arm)
    assert main(["eval", "causal", "--data", str(tmp_path / "none.jsonl"), "--checkpoint", str(checkpoint)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
