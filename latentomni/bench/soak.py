"""Whether a server can stay up: users come, ask, stop, change answers, upload clips, fetch traces and leave, for as long as is told."""

import logging
import os
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file

from latentomni.avworld.selftest import draw_trial
from latentomni.avworld.writing import write_clip
from latentomni.bench.load import first_output, settled
from latentomni.bench.served import Served, served

__all__ = ["bench_soak"]

_log = logging.getLogger(__name__)
_USERS = 3
_VISIT = 12  # actions before a user leaves and another comes
_WAIT_S = 120
_LOOKS, _WARM = 20, 5  # how often the app is looked at; after which of them it is warm
_REST_S = 15  # before the app is looked at: it returns freed memory every 10 s
_KEEP_H = 1 / 60  # so that uploads go while the test runs
_ROOM_MIB = 64


def bench_soak(model: str = "nano", minutes: float = 2.0, seed: int = 0) -> dict[str, Any]:
    """Mixed use by three users. Returns what the app holds at rest after a quarter of the time ("warm") and at the end: "memory", resident bytes;
    "open_files"; "threads"; "temp_bytes", of uploads and runs. "growth_bytes" is the memory's; "busy" is the memory at twenty moments in use;
    "actions" counts what was done, "errors" what failed of it."""
    done: Counter[str] = Counter()
    limits = {"LATENTOMNI_KEEP_H": str(_KEEP_H), "LATENTOMNI_RUNS_MIB": str(_ROOM_MIB)}
    with tempfile.TemporaryDirectory() as folder, served(model, folder, **limits) as app, ThreadPoolExecutor(_USERS) as threads:
        begun_s = time.monotonic()
        users = [_User(app, Path(folder), random.Random(f"{seed} {n}"), done) for n in range(_USERS)]
        held, busy = [], []
        for look in range(1, _LOOKS + 1):
            list(threads.map(lambda user, until_s=begun_s + 60 * minutes * look / _LOOKS: user.act(until_s), users))
            busy.append(_held(app)["memory"])
            if look in (_WARM, _LOOKS):
                settled(app)
                time.sleep(_REST_S)
                held.append(_held(app))
    warm, end = held
    errors = done.pop("error", 0)
    return {
        "minutes": minutes, "warm": warm, "end": end, "growth_bytes": end["memory"] - warm["memory"], "busy": busy, "actions": dict(sorted(done.items())),
        "errors": errors, "shape": f"{model}, {_USERS} users for {minutes:g} min, {sum(done.values())} actions",
    }  # fmt: skip


def _held(app: Served) -> dict[str, int]:
    process = Path("/proc", str(app.process.pid))
    status = (process / "status").read_text()
    files = [path for path in app.cache.rglob("*") if path.is_file()]
    sizes = {}
    for path in files:
        with suppress(OSError):  # just deleted
            sizes[path.stat().st_ino] = path.stat().st_size
    memory, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))
    return {"memory": memory * 1024, "threads": threads, "open_files": len(os.listdir(process / "fd")), "temp_bytes": sum(sizes.values())}


class _User:
    """Acts at random, one thing after the other, in visits."""

    def __init__(self, app: Served, folder: Path, chance: random.Random, done: Counter[str]) -> None:
        self._app, self._folder, self._chance, self._done = app, folder, chance, done
        self._client: Client | None = None
        self._left, self._clip, self._question, self._run = 0, "", "", ""

    def act(self, until_s: float) -> None:
        actions: tuple[Callable[[], Any], ...] = (self._ask, self._ask, self._stop, self._intervene, self._trace, self._nonsense)
        while time.monotonic() < until_s:
            if self._left == 0:
                self._come()
            action = self._chance.choice(actions)
            try:
                action()
                self._done[action.__name__.strip("_")] += 1
            except CancelledError:
                self._done["stop"] += 1
            except Exception as error:  # whatever went wrong, it is counted
                self._done["error"] += 1
                _log.info("soak: %s failed: %s", action.__name__.strip("_"), error)
            self._left -= 1

    def _come(self) -> None:
        """A new user, with a clip of his own that nobody has uploaded before."""
        if self._client is not None:
            self._client.close()
        self._client, self._left, self._run = Client(self._app.address, verbose=False, download_files=str(self._folder)), _VISIT, ""
        trial = draw_trial(self._chance.randrange(2**31))
        Path(self._clip or "none").unlink(missing_ok=True)
        self._clip, self._question = str(self._folder / f"{self._chance.getrandbits(64):x}.mp4"), trial.question.text
        write_clip(trial.world, self._clip)
        self._done["upload"] += 1
        self._ask()

    def _submit(self, name: str, *values: Any, **named: Any) -> Any:
        return self._client.submit(*values, **named, api_name=name)

    def _ask(self) -> None:
        told = self._submit("/ask_video", handle_file(self._clip), self._question, seed=self._chance.randrange(9)).result(_WAIT_S)
        self._run = told["run"]

    def _stop(self) -> None:
        job = self._submit("/ask_video", handle_file(self._clip), self._question, "text-cot", 0, 2.0, 1024)
        first_output(job, _WAIT_S)
        job.cancel()

    def _intervene(self) -> None:
        arm = self._chance.choice(("zero", "noise", "shuffled", "mute", "shift_sound"))
        self._submit("/intervene", self._run, arm, end_s=2.0 if arm == "mute" else 0.0).result(_WAIT_S)

    def _trace(self) -> None:
        Path(self._submit("/get_trace", self._run).result(_WAIT_S)).unlink()
        self._submit("/decode_latent", self._run).result(_WAIT_S)

    def _nonsense(self) -> None:
        """A file that is no clip is refused."""
        path = self._folder / f"{self._chance.getrandbits(64):x}.mp4"
        path.write_bytes(np.random.default_rng(self._chance.getrandbits(32)).bytes(10_000))
        try:
            self._submit("/ask_video", handle_file(str(path)), "Why?").result(_WAIT_S)
        except Exception as error:
            if path.name not in str(error):
                raise
        finally:
            path.unlink()
