"""An evaluation that is shared by two processes says what one says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentomni.cli import main
from latentomni.evaluation.processes import Processes
from tests.evaluation.test_benchmarks import daily_omni

ROOT = Path(__file__).parents[2]
PASSING = {"seconds", "processes"}


def launched(*arguments, processes=2):
    """What the main process printed last; no other printed a line."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "--module", "--", "latentomni"]
    done = subprocess.run([*launch, *map(str, arguments), "--json"], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["processes"] == processes
    return {key: value for key, value in told.items() if key not in PASSING}


def alone(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["processes"] == 1
    return {key: value for key, value in told.items() if key not in PASSING}


def lines(file):
    told = [json.loads(line) for line in file.read_text().splitlines()]
    return told[0], {line["id"]: {k: v for k, v in line.items() if k != "seconds"} for line in told[1:]}


def test_shares_are_whole_and_come_back_in_order():
    parts = list(range(7))
    shares = [Processes(index, 3).share(parts) for index in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert Processes(0, 9).share(parts) == [0] and Processes(8, 9).share(parts) == []
    assert list(Processes().gather({2: "b", 0: "a"}).items()) == [(0, "a"), (2, "b")]


def test_a_benchmark_is_shared_and_goes_on_after_a_kill(tmp_path, capsys):
    daily_omni(tmp_path)
    whole, half = tmp_path / "whole.jsonl", tmp_path / "half.jsonl"
    arguments = ("eval", "daily-omni", "--data", tmp_path, "--max-new-tokens", 24, "--predictions")
    told = alone(capsys, *arguments, whole)
    first, *_ = rest = whole.read_text().splitlines(keepends=True)
    half.write_text(first + rest[2] + rest[1][:20])
    assert launched(*arguments, half) == told
    assert lines(half) == lines(whole) and rest[2] in half.read_text()


@pytest.mark.slow
def test_av_world_is_shared(tmp_path, capsys):
    """Three batches on two processes, so that one has two and a short one."""
    arguments = ("eval", "avworld", "--n", 60)
    assert launched(*arguments, "--traces", tmp_path) == alone(capsys, *arguments)
    assert len(list(tmp_path.glob("*.zip"))) == 60


def test_what_is_not_shared_is_refused_under_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["plan", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "Process 1: This command is one process's; start it without a launcher.\n" and printed.out == ""
