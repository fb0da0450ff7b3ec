"""FSDP2 as `accelerate launch` starts it from the shipped configurations, on CPUs: shards train what one process trains, through a kill."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from latentomni import checkpoints
from latentomni.config import SamplingSpec
from latentomni.runtime import Runtime
from latentomni.training.finetune import finetune
from latentomni.training.recipes import read_recipe
from latentomni.training.records import read_records
from latentomni.training.source import Source
from tests.training.conftest import CLIPS

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "examples" / "training" / "accelerate"


@pytest.fixture
def recipe(tiny, train_file, tmp_path):
    """recipe(anchors, jacobi, rollout) -> the file of a recipe with so many steps, of unlike rows: some feed back, some have no block."""
    checkpoints.save(tiny, tmp_path / "base", dtype=torch.float32)
    rows = [json.loads(line) for line in train_file.read_text().splitlines()] * 2
    lines = [json.dumps({**row, "media": str(train_file.parent / row["media"])}) for row in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))

    def write(*steps):
        phases = {kind: {"steps": n} for kind, n in zip(("anchors", "jacobi", "rollout"), steps, strict=True)}
        few = {"latent": {"instants": 3, "rows": 2, "columns": 1}, "video": {"max_pixels": 56 * 56}, "samples": 4, "tokens": 300}
        where = {"model": str(tmp_path / "base"), "data": str(tmp_path / "train.jsonl")}
        fit = {"log_every": 1, "save_every": 1}
        file = tmp_path / "recipe.json"
        file.write_text(json.dumps({"extends": "latentomni", "phases": phases, "lr": 1e-3, "fit": fit, **few, **where}))
        return file

    return write


def start(recipe, out, configuration, *options, resume=False):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / configuration), "--num_processes", "2",
               "--mixed_precision", "no", *options, "-m", "latentomni.training", str(recipe), "--out", str(out),
               *["--resume"] * resume]  # fmt: skip
    env = os.environ | {"ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)


def end(process):
    """What it printed and its exit status; one that hangs is ended with its children."""
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        raise
    return process.returncode, out, err


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launch(recipe, out, *, resume=False):
    return end(start(recipe, out, "fsdp2.yaml", "--main_process_port", free_port(), resume=resume))


def assert_alike(two, one, tmp_path):
    """Every logged loss and every trained weight of both runs within 1e-4; the weights have moved by more."""
    logs = [[json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] for out in (two, one)]
    assert len(logs[0]) == len(logs[1])
    for ours, alone in zip(*logs, strict=True):
        assert (ours["stage"], ours["step"]) == (alone["stage"], alone["step"])
        figures = [{k: v for k, v in line.items() if k not in ("stage", "seconds")} for line in (ours, alone)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-4, abs=1e-4)
    dcp_to_torch_save(two / "state" / "pytorch_model_fsdp_0", tmp_path / "whole.pt")
    gathered = torch.load(tmp_path / "whole.pt", weights_only=True)["model"]
    trained, start = load_file(one / "state" / "trained.safetensors"), load_file(tmp_path / "base" / "model.safetensors")
    for name, value in trained.items():
        torch.testing.assert_close(gathered[name], value, rtol=0, atol=1e-4, msg=name)
    moved = {name: (value - start[name.removeprefix("model.")]).abs().max() for name, value in trained.items() if name.removeprefix("model.") in start}
    assert max(moved.values()) > 1e-3
    written = [load_file(out / "checkpoint" / "model.safetensors") for out in (two, one)]
    for name, value in written[1].items():
        torch.testing.assert_close(written[0][name], value, rtol=2**-7, atol=1e-4, msg=name)  # stored in bf16


def break_step(recipe, step):
    """Give a row that is first drawn at a step a clip of its own, which cannot be read; returns that file and what it would hold."""
    settings = read_recipe(recipe)
    data = Path(settings.data)
    number = Source(checkpoints.load(settings.model), read_records(data), settings).rows(0, step)[0]
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    clip, late = Path(rows[number]["media"]).read_bytes(), data.with_name(f"late{Path(rows[number]['media']).suffix}")
    rows[number]["media"] = str(late)
    data.write_text("\n".join(map(json.dumps, rows)))
    late.write_bytes(b"nothing")
    return late, clip


@pytest.mark.slow
def test_shards_that_were_stopped_and_resumed_are_what_one_process_trains(recipe, tmp_path, forced):
    file = recipe(1, 2, 1)
    late, clip = break_step(file, 2)
    status, _, said = launch(file, tmp_path / "two")
    assert status and "late" in said
    place = json.loads((tmp_path / "two" / "state" / "place.json").read_text())
    assert (place["stage"], place["step"]) == (1, 1)
    late.write_bytes(clip)
    status, printed, said = launch(file, tmp_path / "two", resume=True)
    assert status == 0, said
    report = json.loads(printed.splitlines()[-1])
    assert (report["processes"], report["steps"]) == (2, 4)
    finetune(read_recipe(file), tmp_path / "one")
    assert_alike(tmp_path / "two", tmp_path / "one", tmp_path)
    runtime = Runtime.load(report["checkpoint"])
    thinker = runtime.thinker
    said = [thinker.ids.trigger, *thinker.encode_text("[1.0-2.0 s]"), *thinker.encode_text("Yes"), thinker.ids.end_of_turn]
    with forced(thinker, said):
        trace = runtime.answer(runtime.read(CLIPS[0]), "What is seen?", sampling=SamplingSpec(max_new_tokens=32))
    assert trace.answer == "Yes" and len(trace.blocks) == 1


@pytest.mark.slow
def test_two_machines_train_for_twenty_steps_what_one_process_trains(recipe, tmp_path):
    file, port = recipe(8, 8, 4), free_port()
    where = ("--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port)
    machines = [start(file, tmp_path / "two", "fsdp2-nodes.yaml", *where, "--machine_rank", str(rank)) for rank in (0, 1)]
    for status, _, said in map(end, machines):
        assert status == 0, said
    finetune(read_recipe(file), tmp_path / "one")
    assert_alike(tmp_path / "two", tmp_path / "one", tmp_path)
