"""What this process has held in memory, and what it may still take."""

import ctypes
import gc
import math
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["available_bytes", "give_back", "is_out_of_memory", "limit_malloc", "peak_bytes", "resident_bytes", "trim"]

_ARENA_MAX = -8  # of mallopt
_GROUP = Path("/sys/fs/cgroup")


def peak_bytes(device: Any = "cpu") -> int:
    """Most memory of a torch device that this process held at once; of main memory ru_maxrss on Linux starts at the parent's peak,
    which VmHWM does not."""
    if getattr(device, "type", device) == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """Main memory that this process holds now; its peak where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmRSS:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return peak_bytes()


def available_bytes(device: Any) -> int | None:
    """Memory that can still be taken on a torch device: main memory within the container's limit, or a GPU's own; None where
    the system does not say."""
    if getattr(device, "type", device) == "cuda":
        import torch

        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists() or not (found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        return None
    return min(int(found[1]) * 1024, _left_in_container())


def give_back() -> None:
    """Return to the system what is no longer used: objects in circles, torch's reserve on a GPU, and glibc's, which a model that was
    quantised while it was loaded leaves full of holes. All threads wait for it, 0.3 s in an app that serves."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim()


def trim() -> None:
    """Return to the system what glibc keeps of freed memory: a tenth of what an app holds after a few seconds of answers; takes about 10 ms."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def limit_malloc(arenas: int) -> None:
    """Let all threads share so many of glibc's arenas, in this process from now on. By default glibc makes eight a core, and each keeps the
    most that any run on one of its threads took: a server whose runs go from thread to thread grows by that."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_ARENA_MAX, arenas)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch says so of main memory in words alone."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _left_in_container() -> float:
    """Infinite without a limit. Cached files count as used, but are given back under pressure."""
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)", (_GROUP / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return math.inf
    return math.inf if limit == "max" else max(int(limit) - int(used) + int(cached[1] if cached else 0), 0)
