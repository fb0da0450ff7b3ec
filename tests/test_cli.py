"""The command line in process, on a tiny random checkpoint: what it prints, what it writes, how it refuses."""

import argparse
import csv
import io
import json
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentomni import checkpoints
from latentomni.avworld.world import SPLITS
from latentomni.cli import build_parser, main
from latentomni.config import Mode, ReadingSpec
from latentomni.evidence import DonorBank
from latentomni.processing import add_question
from latentomni.runtime import Runtime
from latentomni.trace import Trace

ROOT = Path(__file__).parents[1]
QUESTION = "What is seen while the bell rings?"
EVERY = {"model", "weights", "device", "versions", "seed", "seconds"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder and report of one clip with three questions, as `data` writes them."""
    folder = tmp_path_factory.mktemp("avworld")
    return folder, run("data", "avworld", "--split", "test", "--n", "3", "--seed", "4", "--out", folder)


@pytest.fixture(scope="module")
def clip(drawn):
    return drawn[0] / "clip_00000.mp4"


@pytest.fixture(scope="module")
def model(tokenizer, clip, tmp_path_factory):
    """A checkpoint with donors, whose likeliest first word about the clip is the trigger of a latent block."""
    folder = tmp_path_factory.mktemp("checkpoint")
    thinker = checkpoints.build("tiny", tokenizer, seed=0)
    runtime = Runtime(thinker)
    row = runtime.conversation(runtime.read(clip))
    add_question(row, QUESTION, Mode.LATENT, thinker.encode_text)
    with torch.no_grad():
        thinker.model.lm_head.weight[thinker.ids.trigger] = thinker.full([row])[0, -1]
    checkpoints.save(thinker, folder, dtype=torch.float32)
    donors = np.random.default_rng(0).normal(size=(thinker.spec.n_latents, 199, thinker.hidden_size))
    DonorBank(donors, thinker.spec.n_visual).save(folder / "donors.safetensors")
    return folder


@pytest.fixture(scope="module")
def asked(model, clip, tmp_path_factory):
    """A trace's path and the report of the run that wrote it."""
    path = tmp_path_factory.mktemp("traces") / "run.zip"
    return path, run("ask", clip, QUESTION, "--model", model, "--max-new-tokens", "6", "--trace", path)


def run(*arguments):
    """A command that succeeds, as the JSON it prints; nothing else goes to stdout."""
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        assert main([*map(str, arguments), "--json"]) == 0
        printed = sys.stdout.getvalue()
    finally:
        sys.stdout = out
    assert printed.count("\n") == 1
    report = json.loads(printed)
    assert set(report) >= EVERY
    assert report["seconds"] > 0
    assert report["versions"]["latentomni"]
    return report


def test_data_knows_every_split():
    data = next(parser for parser in commands(build_parser()) if parser.prog.endswith("data avworld"))
    assert tuple(next(action for action in data._actions if action.dest == "split").choices) == SPLITS


def test_data_writes_clips_and_says_what(drawn):
    folder, report = drawn
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert (report["clips"], report["questions"], len(rows), report["seed"]) == (1, 3, 3, 4)
    assert sum(report["families"].values()) == 3
    assert len(report["sha256"]) == 64
    assert {row["clip"] for row in rows} == {"clip_00000.mp4"}


def test_ask_reports_text_blocks_and_evidence(asked, model, clip):
    report = asked[1]
    spec = checkpoints.load(str(model)).spec
    assert set(report) >= {"answer", "text", "blocks", "tokens", "ttft_s", "tokens_per_s"}
    assert (report["model"], report["weights"], report["question"]) == ("tiny", "random", QUESTION)
    assert report["tokens"] == 6
    assert report["blocks"]
    for block in report["blocks"]:
        assert set(block) == {"window_s", "window_source", "latents"}
        assert block["window_s"][0] < block["window_s"][1]
        assert len(block["latents"]) == spec.n_latents
        for latent in block["latents"]:
            assert latent["modality"] in ("visual", "audio")
            ranks = [(e["rank"], e["p"] is not None) for e in latent["evidence"]]
            assert ranks == [(1, True), (2, False), (3, False), (4, False), (5, False)]
            assert all(e["start_s"] <= e["time_s"] <= e["end_s"] for e in latent["evidence"])


def test_ask_prints_a_line_per_block(asked, model, clip, capsys):
    assert main(["ask", str(clip), QUESTION, "--model", str(model), "--max-new-tokens", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    blocks = [line for line in lines if line.startswith("  [")]
    assert len(blocks) == len(asked[1]["blocks"])
    assert all(line.count("latents most similar to ") == line.count("(p ") == 2 for line in blocks)
    assert "The answer was cut at the token limit." in lines


def test_ask_takes_every_setting_of_a_run(model, clip, tmp_path):
    how = ["--start", "1", "--end", "2.5", "--fps", "4", "--max-pixels", "12544", "--no-sound", "--instants", "2", "--positions", "relative",
           "--flow", "open", "--max-blocks", "1", "--temperature", "0.5"]  # fmt: skip
    report = run("ask", clip, QUESTION, "--model", model, "--max-new-tokens", "6", *how, "--trace", tmp_path / "run.zip")
    trace = Trace.load(tmp_path / "run.zip")
    assert trace.reading == {"fps": 4.0, "max_pixels": 12544, "start_s": 1.0, "end_s": 2.5, "picture": True, "sound": False}
    assert [trace.spec[name] for name in ("instants", "positions", "flow")] == [2, "relative", "open"]
    assert (trace.sampling["max_blocks"], trace.sampling["temperature"], trace.flow) == (1, 0.5, "open")
    assert len(report["blocks"]) <= 1 and report["clip"]["duration_s"] == pytest.approx(1.5)


def test_plan_counts_before_any_weight_is_loaded(model, clip, capsys):
    report = run("plan", "--clip", clip, "--model", model, "--end", "2", "--max-blocks", "1", "--max-new-tokens", "6")
    assert set(report) >= {"parameters", "bytes", "frames", "tokens", "kv_bytes", "peak_bytes", "fits", "advice"}
    thinker = checkpoints.load(str(model))
    parameters = sum(p.numel() for part in (thinker.model, thinker.head) for p in part.parameters())
    assert report["parameters"]["total"] == sum(report["parameters"].values()) / 2 == parameters
    assert (report["bytes"], report["frames"], report["weights"]) == (4 * parameters, 4, "random")
    clip_read = Runtime(thinker).read(clip, reading=ReadingSpec(end_s=2))
    features = thinker.encode_clip(clip_read)
    assert (report["tokens"]["visual"], report["tokens"]["audio"]) == (len(features.visual), len(features.audio))
    assert report["tokens"]["latent"] == thinker.spec.n_latents and report["fits"] in (True, None)
    assert report["bytes"] < report["peak_bytes"] > report["kv_bytes"] > 0
    assert run("plan", "--model", model)["tokens"]["visual"] == 0
    assert main(["plan", "--clip", str(clip), "--model", str(model)]) == 0
    assert "frames; tokens: " in capsys.readouterr().out


def test_direct_mode_writes_no_block(model, clip):
    assert run("ask", clip, QUESTION, "--model", model, "--mode", "direct", "--max-new-tokens", "3")["blocks"] == []


def test_inspect_tells_what_ask_told(asked, capsys):
    path, report = asked
    inspected = run("inspect", path)
    assert inspected["schema"] == "latentomni.trace/1"
    both = set(inspected) - {"device", "seconds", "versions"}
    assert {key: inspected[key] for key in both} == {key: report[key] for key in both}
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().out.count("\nblock ") == len(report["blocks"])


def test_inspect_writes_tables_that_hold_the_trace(asked, tmp_path):
    run("inspect", asked[0], "--csv", tmp_path / "tables")
    trace = Trace.load(asked[0])
    tables = {}
    for name in ("text", "blocks", "latents", "evidence"):
        with (tmp_path / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            tables[name] = list(csv.DictReader(file))
    assert "".join(row["text"] for row in tables["text"]) == trace.text
    assert [float(row["start_s"]) for row in tables["blocks"]] == [b.window.start_s for b in trace.blocks]
    latents = [z for block in trace.blocks for z in block.latents]
    assert [float(row["p_corrected"]) for row in tables["latents"]] == [z.p_corrected for z in latents]
    assert [float(row["score"]) for row in tables["evidence"]] == [m.score for z in latents for m in z.matches]


def test_a_trace_is_inspected_where_torch_and_plotly_are_missing(asked, tmp_path):
    """In a process of its own, where importing them fails."""
    missing = ("torch", "transformers", "av", "PIL", "plotly", "gradio", "moviepy", "tqdm")
    written = ["--html", str(tmp_path / "run.html"), "--csv", str(tmp_path / "tables")]
    arguments = ["inspect", str(asked[0]), *written, "--json"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); from latentomni.cli import main; main({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["blocks"] == asked[1]["blocks"]
    assert QUESTION in (tmp_path / "run.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "tables").iterdir())) == 4


def test_what_a_trace_says_cannot_steer_the_terminal(asked, tmp_path, capsys):
    replace(Trace.load(asked[0]), answer="\x1b[2J\rred").save(tmp_path / "t.zip")
    assert main(["inspect", str(tmp_path / "t.zip")]) == 0
    printed = capsys.readouterr().out
    assert "[2J" in printed
    assert not {"\x1b", "\r"} & set(printed)


def test_train_dry_run_says_what_would_be_done(tmp_path):
    tower = {"name": "vision", "steps": 3, "lr": 0.001, "draw": {"clips": 2}}
    draw = {"clips": 2, "latent": 2, "text_cot": 0, "direct": 0, "narrate": 0.0, "talk": 0.0, "compare": 2, "gauge": 1, "hard": 2, "weigh": 2}
    stage = {"name": "settle", "steps": 4, "lr": 0.001, "phase": {"kind": "rollout"}, "draw": draw}
    (tmp_path / "recipe.json").write_text(json.dumps({"pool": 8, "modality": "audio", "towers": [tower], "stages": [stage]}))
    out = tmp_path / "run"
    report = run("train", "nano", "--dry-run", "--config", tmp_path / "recipe.json", "--seed", "5", "--out", out)
    assert (report["steps"], report["losses"], report["seed"]) == (7, {}, 5)
    assert report["checkpoint"] == str(out / "checkpoint")
    assert report["parameters"]["all"] > report["parameters"]["trained"] > 3_000_000
    vision, settle = report["phases"]
    assert (vision["tokens_per_step"], vision["steps"], settle["name"]) == (None, 3, "settle") and settle["tokens_per_step"] > 400
    assert report["seconds_total"] == pytest.approx(3 * vision["seconds_per_step"] + 4 * settle["seconds_per_step"])
    assert min(report["memory_bytes"].values()) > 0
    assert not out.exists()


def test_eval_scores_a_checkpoint(model):
    report = run("eval", "avworld", "--checkpoint", model, "--n", "5", "--seed", "3")
    assert set(report) >= {"mode", "flow", "self_fed", "blocks_per_answer", "accuracy", "chance", "families", "without_audio",
                           "without_video", "window_iou", "evidence"}  # fmt: skip
    assert (report["mode"], report["flow"], report["seed"], report["quantization"]) == ("latent", "strict", 3, "none")
    assert run("eval", "avworld", "--n", "2", "--quantization", "nf4")["quantization"] == "nf4"
    assert all(set(family) == {"accuracy", "chance", "n"} for family in report["families"].values())


def test_bench_decode_compares_like_with_like(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    report = run("bench", "decode", "--model", tmp_path, "--n", "1")["decode"]
    assert report["same_tokens"]  # the stock generate() writes what our loop writes
    assert report["ratio"] == report["ours"] / report["peer"]
    assert report["latent_step"]["ratio"] == report["latent_step"]["ours"] / report["latent_step"]["peer"]
    assert report["share_of_limit"] > 0


def test_what_was_measured_is_told_though_the_next_benchmark_fails(tiny, tmp_path, capsys):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    assert main(["bench", "decode", "drift", "--model", str(tmp_path), "--n", "1", "--json"]) == 2
    told = capsys.readouterr()
    assert re.search(r"^decode: ours \S+, peer \S+, ratio \S+$", told.err, re.MULTILINE)
    assert "nf4 needs layers whose width is a multiple of 64" in told.err and not told.out


USES = [
    [],
    ["frobnicate"],
    ["ask"],
    ["ask", "a.mp4", "What?", "--mode", "sideways"],
    ["ask", "a.mp4", "What?", "--max-new-tokens", "0"],
    ["ask", "a.mp4", "What?", "--trace", "no/such/folder/run.zip"],
    ["data", "avworld", "--out", "x"],
    ["data", "avworld", "--split", "tomorrow", "--out", "x"],
    ["data", "avworld", "--split", "test", "--out", "README.md"],
    ["train", "mega"],
    ["eval", "avworld", "--n", "many"],
    ["bench", "nothing"],
    ["plan", "--fps", "fast"],
    ["plan", "--flow", "loose"],
]


@pytest.mark.parametrize("arguments", USES, ids=" ".join)
def test_bad_use_is_refused_in_one_line(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert "--help` shows examples" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "CLIP", "What?", "--model", "nowhere"], "'nowhere' is no LatentOmni checkpoint"),
        (["ask", "nowhere.mp4", "What?", "--model", "MODEL"], "There is no file nowhere.mp4"),
        (["ask", "CLIP", " \t", "--model", "MODEL"], "The question is empty"),
        (["ask", "CLIP", "What?", "--model", "MODEL", "--max-new-tokens", "9000"], "max_new_tokens must be 1 to 8192"),
        (["ask", "CLIP", "What?", "--model", "MODEL", "--start", "99"], "so nothing of it is left from 99 s on; start the cut earlier"),
        (["ask", "CLIP", "What?", "--model", "MODEL", "--no-picture", "--no-sound"], "picture and sound are both switched off"),
        (["ask", "CLIP", "What?", "--model", "MODEL", "--instants", "0"], "a block has 1 to 64 instants, got 0"),
        (["plan", "--clip", "CLIP", "--start", "99"], "Nothing of clip_00000.mp4 is left to read"),
        (["bench", "train", "decode", "--quantization", "nf4"], "bench train measures what is not quantised"),
        (["bench", "decode", "--plot", "x.svg"], "--plot draws drift"),
        (["plan", "--fps", "99"], "fps must be between 0.05 and 30, got 99.0"),
        (["inspect", "nowhere.zip"], "There is no file nowhere.zip; check the path."),
        (["inspect", "CLIP"], "is not a readable trace file"),
        (["train", "nano", "--config", "nowhere.json"], "nowhere.json cannot be read as JSON"),
        (["train", "nano", "--config", "CLIP"], "cannot be read as JSON"),
        (["train", "nano", "--dry-run", "--config", "UNKNOWN"], "sets depth, which the recipe does not have"),
        (["train", "nano", "--dry-run", "--config", "DRAW"], "stage 'settle' draws needs clips, latent and knows clips, compare, direct, gauge, hard,"),
        (["train", "nano", "--dry-run", "--config", "TOWER"], "a towers stage is named vision or audio, got 'ears'"),
        (["train", "nano", "--out", "RUN"], "holds a run already; add --resume, or choose another --out"),
        (["train", "nano", "--out", "RUN", "--resume"], "has another recipe (losses, modality, pool, rows, seed, stages, towers, vocabulary)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_sentence(arguments, said, model, clip, tmp_path, capsys):
    (tmp_path / "unknown.json").write_text('{"depth": 3}')
    (tmp_path / "draw.json").write_text('{"stages": [{"name": "settle", "steps": 1, "lr": 0.1, "draw": {"clips": 2}}]}')
    (tmp_path / "tower.json").write_text('{"towers": [{"name": "ears", "steps": 1, "lr": 0.1, "draw": {"clips": 2}}]}')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    places = {"CLIP": clip, "MODEL": model, "UNKNOWN": tmp_path / "unknown.json", "RUN": tmp_path / "run"}
    places |= {"DRAW": tmp_path / "draw.json", "TOWER": tmp_path / "tower.json"}
    assert main([str(places.get(argument, argument)) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err.splitlines()[-1]


def test_ctrl_c_stops_without_a_traceback(asked, capsys, monkeypatch):
    class Pressed(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGINT)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Pressed())
    assert main(["inspect", str(asked[0])]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_where_packages_are_missing_a_sentence_says_so():
    """`-S` leaves site-packages out, as the system's Python does where only .venv has them."""
    done = subprocess.run([sys.executable, "-S", "-m", "latentomni", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "is missing here; use the environment of `make demo`" in done.stderr


def commands(parser: argparse.ArgumentParser):
    """Every command's own parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from commands(inner)
            return
    yield parser


@pytest.mark.parametrize("parser", list(commands(build_parser())), ids=lambda parser: parser.prog)
def test_every_command_helps_with_examples_that_parse(parser, monkeypatch):
    monkeypatch.chdir(ROOT)
    examples = parser.format_help().partition("\nexamples:\n")[2].splitlines()
    assert examples
    for example in examples:
        python, m, package, *arguments = shlex.split(example)
        assert (python, m, package) == ("python", "-m", "latentomni")
        assert build_parser().parse_args(arguments).run
