"""What thousands of hostile inputs do to the real entries: they may be refused in a plain sentence or be answered, nothing else.

Inputs are fed from a process of their own, so that a crash below Python and an endless loop are seen, counted and survived.
"""

import logging
import multiprocessing
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.bench.damage import Attacked
from latentomni.errors import LatentOmniError
from latentomni.trace import Trace

__all__ = ["bench_abuse", "flaw"]

_SHARES = {
    "media_damaged": 0.30,
    "media_made": 0.14,
    "traces_damaged": 0.18,
    "traces_made": 0.08,
    "rows": 0.20,
    "questions": 0.07,
    "changes": 0.03,
}
_HANG_S = 60.0  # above what any entry allows itself
_END_S = 5.0
_START_S = 300.0  # a model is loaded, seeds are made
_MOST_CHARS = 900
_LISTED = 20
_log = logging.getLogger(__name__)


def flaw(text: str, folder: str) -> str:
    """What keeps a refusal from being one plain sentence; empty where nothing does. folder: one that must not be named."""
    checks = {
        "empty": not text.strip(),
        "more than a line": len(text.splitlines()) > 1,
        "unprintable": any(not c.isprintable() for c in text),
        "no full stop": not text.endswith((".", ".)")),
        "a traceback": "Traceback" in text or 'File "' in text,
        "a folder of the server": folder in text,
        "too long": len(text) > _MOST_CHARS,
    }
    return next((name for name, is_so in checks.items() if is_so), "")


def bench_abuse(
    show: Callable[[Trace], Any], model: str = "nano", repeats: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Feed `repeats` inputs, shared out among the kinds; equal seeds make equal inputs.

    A crash is any exception but a LatentOmniError, or the death of the process; a hang is 60 s without an end. `unclear` counts refusals
    that are no plain sentence, `ended` the clips whose reading had to be ended (it broke, took too long or too much), `found` tells the
    first defects with the number that makes them again.
    """
    kinds: dict[str, dict[str, int]] = {}
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        worker = _Worker(Attacked(Path(folder), seed, model, show))
        try:
            for kind, count in _counts(repeats).items():
                kinds[kind] = _attacked(worker, kind, count, found)
                _log.info("abuse %s: %s", kind, ", ".join(f"{value} {name}" for name, value in kinds[kind].items()))
        finally:
            worker.end()
    total = {name: sum(kind[name] for kind in kinds.values()) for name in ("inputs", *_OUTCOMES)}
    clean = not (total["crashes"] or total["hangs"] or total["unclear"])
    shape = f"{total['inputs']} inputs of {len(kinds)} kinds, seed {seed}"
    return {**total, "kinds": kinds, "found": found[:_LISTED], "is_clean": clean, "shape": shape}


_OUTCOMES = ("crashes", "hangs", "unclear", "ended", "refused", "answered")


def _counts(n: int) -> dict[str, int]:
    """Inputs of every kind, at least one; they add up to n where n allows it."""
    counts = {kind: max(1, round(n * share)) for kind, share in _SHARES.items()}
    counts["media_damaged"] = max(1, counts["media_damaged"] + n - sum(counts.values()))
    return counts


def _attacked(worker: "_Worker", kind: str, count: int, found: list[dict[str, Any]]) -> dict[str, int]:
    told: Counter[str] = Counter(inputs=count)
    for number in range(count):
        outcome, text, has_ended = worker.feed(kind, number)
        told[outcome] += 1
        told["ended"] += has_ended
        if outcome == "refused" and (what := flaw(text, str(worker.attacked.folder))):
            told["unclear"] += 1
            text = f"{what}: {text}"
        elif outcome not in ("crashes", "hangs"):
            continue
        found.append({"kind": kind, "number": number, "outcome": outcome, "told": text[-2000:]})
        _log.warning("abuse %s %d: %s\n%s", kind, number, outcome, text)
    return {name: told[name] for name in ("inputs", *_OUTCOMES)}


class _Worker:
    """The process that makes inputs and feeds them; another takes its place when it dies."""

    def __init__(self, attacked: Attacked) -> None:
        self.attacked = attacked
        self._kinds: set[str] = set()  # for which it is ready
        self._process: multiprocessing.process.BaseProcess | None = None

    def feed(self, kind: str, number: int) -> tuple[str, str, bool]:
        """The outcome, the refusal or the traceback, and whether a reader had to be ended."""
        if self._process is None:
            self._start()
        if kind not in self._kinds:
            self._kinds.add(kind)
            outcome = self._told((kind, None), _START_S)
            assert outcome[0] == "ready", f"the inputs of kind {kind} could not be made: {outcome}"
        return self._told((kind, number), _HANG_S)

    def _told(self, request: tuple[str, int | None], limit_s: float) -> tuple[str, str, bool]:
        assert self._process is not None
        self._pipe.send(request)
        if not self._pipe.poll(limit_s):
            self.end()
            return "hangs", f"no end within {limit_s:g} s", False
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            self.end()
            return "crashes", f"the process died with status {status}", False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.attacked))
        self._process.start()
        theirs.close()

    def end(self) -> None:
        if self._process is not None:
            self._pipe.close()  # it then ends by itself, unless it is stuck
            self._process.join(_END_S)
            self._process.kill()
            self._process.join()
            self._process = None
            self._kinds.clear()


def _serve(pipe: Connection, attacked: Attacked) -> None:
    """The process: kinds and numbers come, outcomes go, until it is killed or the pipe ends."""
    os.chdir(attacked.folder)
    ended = _Ended()
    logging.getLogger("latentomni.isolation").addHandler(ended)
    feeders: dict[str, Callable[[np.random.Generator, int], None]] = {}
    while True:
        try:
            kind, number = pipe.recv()
        except EOFError:
            return
        if number is None:
            feeders[kind] = _feeder(kind, attacked)
            pipe.send(("ready", "", False))
            continue
        rng = np.random.default_rng([attacked.seed, list(_SHARES).index(kind), number])
        ended.count = 0
        try:
            feeders[kind](rng, number)
            outcome, text = "answered", ""
        except LatentOmniError as error:
            outcome, text = "refused", str(error)
        except Exception:
            outcome, text = "crashes", traceback.format_exc()
        pipe.send((outcome, text, bool(ended.count)))


def _feeder(kind: str, attacked: Attacked) -> Callable[[np.random.Generator, int], None]:
    """Imports what this kind needs and no more."""
    if kind.startswith("media"):
        from latentomni.bench.hostile_media import media_feeder as feeder
    elif kind.startswith("traces"):
        from latentomni.bench.hostile_traces import trace_feeder as feeder
    elif kind == "rows":
        from latentomni.bench.hostile_rows import row_feeder as feeder
    else:
        from latentomni.bench.hostile_questions import question_feeder as feeder
    return feeder(kind, attacked)


class _Ended(logging.Handler):
    """Counts the readers that had to be ended."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
