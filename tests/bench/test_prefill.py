"""The benchmarks of a prompt: both sides do the same work, and ratios are ours over the peer's."""

import pytest
import torch

from latentomni import checkpoints
from latentomni.bench.peers import bench_clip, prompt_row, stock_first_token
from latentomni.bench.prefill import bench_followup, bench_memory, bench_prefill
from latentomni.config import Mode, SamplingSpec
from latentomni.runtime import Runtime


def test_both_sides_come_to_the_same_first_token(tiny):
    clip, (question, _) = bench_clip(tiny, 0)
    row = prompt_row(tiny, tiny.encode_clip(clip), question, Mode.DIRECT)
    assert 3900 < len(row) < 4300
    runtime = Runtime(tiny)
    answered = runtime.conversation(clip)
    list(runtime.stream(clip, question, Mode.DIRECT, SamplingSpec(max_new_tokens=1), answered))
    assert answered.token_ids == [*row.token_ids, stock_first_token(tiny, clip, row)]


@pytest.mark.parametrize("bench", [bench_prefill, bench_followup])
def test_seconds_are_compared(tiny, bench):
    report = bench(tiny, repeats=1)
    assert report["ratio"] == report["ours"] / report["peer"]
    assert min(report["ours"], report["peer"]) > 0


def test_memory_is_measured_in_processes_that_load_the_model(tiny, tmp_path):
    checkpoints.save(tiny, tmp_path, dtype=torch.float32)
    report = bench_memory(str(tmp_path), repeats=2)
    assert report["repeats"] == 2
    assert report["ratio"] == report["ours"] / report["peer"]
    assert report["peer"] > 0
    assert report["plan"]["ratio"] == report["plan"]["ours"] / report["plan"]["peer"]
    assert report["plan"]["peer"] > report["ours"]
