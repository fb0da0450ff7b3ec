"""How many items are worked on at once: under asyncio on one machine, under Ray Data on many. The stages and their results are the same."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentomni.errors import LatentOmniError, RequestError
from latentomni.synthesis.endpoint import Asker
from latentomni.synthesis.settings import Settings
from latentomni.synthesis.stages import Item, run_stage

__all__ = ["ENGINES", "Engine"]

Engine = Callable[[str, list[Item], Settings, Path, int, Callable[[Iterable], Iterable]], list[dict[str, Any]]]

_ITEMS_AT_A_TIME = 16  # of one worker; requests are held back by their roles
_KEPT = "replies"


def _local(stage: str, items: list[Item], settings: Settings, out: Path, workers: int, shown: Callable[[Iterable], Iterable]) -> list[dict[str, Any]]:
    """All items in one process."""

    async def run() -> list[dict[str, Any]]:
        asker, places = Asker(settings, out / _KEPT, workers), asyncio.Semaphore(workers * _ITEMS_AT_A_TIME)

        async def one(item: Item) -> dict[str, Any]:
            async with places:
                return await run_stage(stage, item, asker, out)

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            for done in shown(asyncio.as_completed(tasks)):
                await done
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            await asker.close()
        return [task.result() for task in tasks]

    return asyncio.run(run())


def _ray(stage: str, items: list[Item], settings: Settings, out: Path, workers: int, shown: Callable[[Iterable], Iterable]) -> list[dict[str, Any]]:
    """Batches of items on `workers` processes of the Ray cluster that is there, or of one made here. `out` is a folder that all share.

    Items travel as JSON: Arrow would give all of them the keys of each.
    """
    try:
        import ray
    except ImportError:
        raise RequestError("the engine ray needs Ray; `pip install 'ray[data]'`.") from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address, log_to_driver=False, logging_level="error", **({} if address else {"num_cpus": workers + 1, "include_dashboard": False}))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    roles = {name: replace(role, requests_per_minute=role.requests_per_minute and role.requests_per_minute / workers) for name, role in settings.roles.items()}
    settings = replace(settings, roles=roles)
    rows = [{"number": number, "item": json.dumps(item)} for number, item in enumerate(items)]
    batches = ray.data.from_items(rows, override_num_blocks=min(len(rows), max(len(rows) // _ITEMS_AT_A_TIME, workers)))
    worker = {"fn_constructor_args": (stage, settings, str(out.resolve())), "batch_size": _ITEMS_AT_A_TIME, "batch_format": "numpy"}
    done = batches.map_batches(_RayWorker, concurrency=workers, num_cpus=1, **worker)
    try:
        results = {int(row["number"]): json.loads(row["result"]) for row in shown(done.iter_rows())}
    except ray.exceptions.RayTaskError as error:
        raise _ours(error) or error from None
    return [results[number] for number in range(len(items))]


class _RayWorker:
    """One process of the cluster, as long as a stage."""

    def __init__(self, stage: str, settings: Settings, out: str) -> None:
        self.stage, self.settings, self.out = stage, settings, Path(out)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        items = [json.loads(item) for item in batch["item"]]
        results = _local(self.stage, items, self.settings, self.out, 1, lambda tasks: tasks)
        return {"number": batch["number"], "result": [json.dumps(result) for result in results]}


def _ours(error: BaseException | None) -> LatentOmniError | None:
    """Our own error within those that Ray wraps around it."""
    while error is not None:
        if isinstance(error, LatentOmniError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


ENGINES: dict[str, Engine] = {"local": _local, "ray": _ray}
