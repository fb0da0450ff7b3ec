"""How many questions a second the two engines of synthesis bring through, against an endpoint that answers after a fixed time."""

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from latentomni.bench.endpoint import ScriptedEndpoint
from latentomni.bench.measures import compared
from latentomni.synthesis import Role, Settings, avworld_sources, synthesize

__all__ = ["bench_synthesize"]

_DELAY_S = 0.05  # of every reply, as a small model's
_CLIPS = 40
_WORKERS = (1, 2)


def bench_synthesize(seed: int = 0, repeats: int = 3) -> dict[str, Any]:
    """Seconds per run of all stages but for writing clips: ours is asyncio, the peer Ray Data, both with one worker; `throughput` in
    requests a second by engine and workers. Ray's start is not counted, its workers' starts are."""
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    with ScriptedEndpoint(delay_s=_DELAY_S) as endpoint, tempfile.TemporaryDirectory() as folder:
        settings = Settings.of_one(Role(endpoint.url, "scripted"), seed=seed)
        sources = avworld_sources(_CLIPS, seed)
        reports = [_timed(sources, settings, Path(folder) / "first", engine, 1)[1] for engine in ("ray", "local")]  # writes the clips, starts Ray
        for repeat in range(repeats):
            for engine in ("local", "ray"):
                for workers in _WORKERS:
                    out = Path(folder) / f"{repeat}-{engine}-{workers}"
                    out.mkdir()
                    (out / "clips").symlink_to(Path(folder) / "first" / "clips")
                    taken_s, report = _timed(sources, settings, out, engine, workers)
                    seconds[engine, workers].append(taken_s)
                    reports.append(report)
    requests = sum(row["requests"] for row in reports[0]["usage"].values())
    assert all(report == reports[0] for report in reports), "the engines differ"
    return {
        **compared({"ours": seconds["local", 1], "peer": seconds["ray", 1]}),
        "throughput": {engine: {str(w): round(requests / median(seconds[engine, w]), 2) for w in _WORKERS} for engine in ("local", "ray")},
        "shape": f"{_CLIPS} clips, {requests} requests that take {_DELAY_S} s each; a worker has 16 items and 8 requests of a role at a time",
    }


def _timed(sources: list, settings: Settings, out: Path, engine: str, workers: int) -> tuple[float, dict[str, Any]]:
    begun_s = time.perf_counter()
    report = synthesize(sources, settings, out, engine, workers)
    return time.perf_counter() - begun_s, report
