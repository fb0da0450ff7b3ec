"""Time and memory, measured alike for ours and for the peer."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from latentomni.memory import limit_malloc, peak_bytes

__all__ = ["compared", "growth_bytes", "in_fresh_processes", "seconds_of", "synchronize"]

_KEPT_BYTES = 256 * 1024


def compared(figures: dict[str, list[float]]) -> dict[str, float]:
    """Medians of "ours" and "peer", and their ratio."""
    ours, peer = median(figures["ours"]), median(figures["peer"])
    return {"ours": ours, "peer": peer, "ratio": ours / peer}


def seconds_of(work: Callable[[], Any]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def growth_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Peak memory while `work` runs, above what was held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before_bytes = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before_bytes
    with suppress(OSError):  # Linux forgets the peak of loading the model
        Path("/proc/self/clear_refs").write_text("5")
    before_bytes = peak_bytes()
    work()
    return peak_bytes() - before_bytes


def in_fresh_processes(measure: Callable[..., Any], arms: tuple[str, ...], *args: Any) -> list[Any]:
    """`measure(arm, *args)` of every arm, each in a process of its own, one after the other. What glibc would keep of freed blocks is not measured."""
    measured = []
    for arm in arms:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), partial(limit_malloc, kept_bytes=_KEPT_BYTES)) as process:
            measured.append(process.submit(measure, arm, *args).result())
    return measured
