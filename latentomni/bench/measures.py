"""Time and memory, measured alike for ours and for the peer."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch

from latentomni.memory import peak_bytes, trim

__all__ = ["compared", "growth_bytes", "in_fresh_processes", "seconds_of", "synchronize"]


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
    """Peak memory while `work` runs, above what was in use before; on a CPU with what the allocator then keeps of freed blocks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before_bytes = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before_bytes
    trim()
    with suppress(OSError):  # Linux forgets the peak of loading the model
        Path("/proc/self/clear_refs").write_text("5")
    before_bytes = peak_bytes()
    work()
    return peak_bytes() - before_bytes


def in_fresh_processes(measure: Callable[..., Any], arms: tuple[str, ...], *args: Any) -> list[Any]:
    """`measure(arm, *args)` of every arm, each in a process of its own, one after the other."""
    measured = []
    for arm in arms:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            measured.append(process.submit(measure, arm, *args).result())
    return measured
