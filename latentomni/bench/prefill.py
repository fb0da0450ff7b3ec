"""What a prompt costs before the first word: in time for a new clip and for a further question about it, and in memory.

The peer is the stock class's `generate()` on the same inputs, which reads all of them for every question.
"""

import logging
from collections.abc import Callable
from typing import Any

from latentomni import checkpoints
from latentomni.bench.measures import compared, growth_bytes, in_fresh_processes, seconds_of
from latentomni.bench.peers import beginning, bench_clip, describe, prompt_row, stock_first_token
from latentomni.config import Mode, SamplingSpec
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.plan import plan_run, weight_bytes
from latentomni.runtime import Runtime

__all__ = ["bench_followup", "bench_memory", "bench_prefill"]

_ONE = SamplingSpec(max_new_tokens=1)
_log = logging.getLogger(__name__)


def bench_prefill(thinker: Thinker, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Seconds from a clip in memory to the first token of an answer about it; ours also makes the evidence banks."""
    clip, (question, _) = bench_clip(thinker, seed)
    return _compare(thinker, clip, question, lambda: _first_token(Runtime(thinker), clip, question), repeats)


def bench_followup(thinker: Thinker, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Seconds to the first token of another question about a clip that one was asked about; the peer reads everything again."""
    clip, (first, second) = bench_clip(thinker, seed)
    runtime = Runtime(thinker)
    _first_token(runtime, clip, first)
    return _compare(thinker, clip, second, lambda: _first_token(runtime, clip, second), repeats)


def _compare(thinker: Thinker, clip: Clip, question: str, ours: Callable[[], None], repeats: int) -> dict[str, Any]:
    for arm in ("ours", "peer"):
        _read(arm, thinker, beginning(clip), question)
    row, seconds = prompt_row(thinker, thinker.encode_clip(clip), question, Mode.DIRECT), {"ours": [], "peer": []}
    for repeat in range(repeats):
        seconds["ours"].append(seconds_of(ours))
        seconds["peer"].append(seconds_of(lambda: stock_first_token(thinker, clip, row)))
        _log.info("first token %d/%d: %.3f and %.3f s", repeat + 1, repeats, seconds["ours"][-1], seconds["peer"][-1])
    return {**compared(seconds), "shape": f"{describe(thinker)}; prompt of {len(row)} tokens ({clip.duration_s:g} s clip), to the first token; "
            "peer: generate() on the same inputs", "repeats": repeats}  # fmt: skip


def _first_token(runtime: Runtime, clip: Clip, question: str) -> None:
    for _ in runtime.stream(clip, question, Mode.DIRECT, _ONE):
        pass


def _read(arm: str, thinker: Thinker, clip: Clip, question: str) -> None:
    """Reads the clip and the question, to the first token, as one of the two does."""
    if arm == "ours":
        _first_token(Runtime(thinker), clip, question)
    else:
        stock_first_token(thinker, clip, prompt_row(thinker, thinker.encode_clip(clip), question, Mode.DIRECT))


def bench_memory(name: str, quantization: str | None = None, repeats: int = 3, seed: int = 0) -> dict[str, Any]:
    """Peak bytes from a clip in memory to the first token, above the loaded model, each time in a process that loads it by `name`.

    `plan`: what was planned for this run in all (`ours`), beside weights, clip and the measured peak above them (`peer`).
    """
    growth = {"ours": [], "peer": []}
    for repeat in range(repeats):
        (ours, planned, held, about), (peer, *_) = in_fresh_processes(_measure_peak, ("ours", "peer"), name, quantization, seed)
        _log.info("prefill memory %d/%d: %.1f and %.1f MiB, planned %.1f MiB with %.1f MiB of weights and clip",
                  repeat + 1, repeats, *(n / 2**20 for n in (ours, peer, planned, held)))  # fmt: skip
        growth["ours"].append(ours)
        growth["peer"].append(peer)
    figures = compared(growth)
    measured = held + figures["ours"]
    return {**figures, "plan": {"ours": planned, "peer": measured, "ratio": planned / measured}, **about, "repeats": repeats,
            "shape": f"{about['shape']}, peak bytes above the loaded model; peer: generate() on the same inputs"}  # fmt: skip


def _measure_peak(arm: str, name: str, quantization: str | None, seed: int) -> tuple[int, int, int, dict[str, str]]:
    """Runs in a fresh process. The growth, what was planned, what was held before, and what was measured."""
    thinker = checkpoints.load(name, quantization=quantization)
    clip, (question, _) = bench_clip(thinker, seed)
    _read(arm, thinker, beginning(clip), question)  # brings in libraries
    plan = plan_run(thinker, clip, mode=Mode.DIRECT, max_new_tokens=1, question=question)
    held = weight_bytes(thinker) + (clip.frames.nbytes + clip.waveform.nbytes) * (thinker.device.type == "cpu")
    tokens = sum(plan.tokens[part] for part in ("visual", "audio", "text"))
    shape = f"{describe(thinker)}; prompt of {tokens} tokens ({clip.duration_s:g} s clip)"
    return growth_bytes(lambda: _read(arm, thinker, clip, question), thinker.device), plan.peak_bytes, held, {"shape": shape, **thinker.facts}
