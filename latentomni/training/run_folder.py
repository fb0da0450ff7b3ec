"""The folder of a run: which recipe it is of, and that one training at a time writes to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from latentomni.errors import RequestError, require

__all__ = ["check_run", "claimed", "write_recipe"]

_RECIPE, _LOCK = "recipe.json", "training.lock"


def check_run(out: Path, recipe: dict[str, Any], resume: bool) -> None:
    """Raise RequestError where `out` holds a run and this one does not go on with it: it was not said, or the recipe is another."""
    file = out / _RECIPE
    if not file.is_file():
        return
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise RequestError(f"{file} is damaged; choose another --out.") from None
    require(resume, f"{out} holds a run already; add --resume, or choose another --out.")
    changed = sorted(key for key, value in json.loads(json.dumps(recipe)).items() if known.get(key) != value)
    require(not changed, f"the run in {out} has another recipe ({', '.join(changed)}); resume it with {file}, or choose another --out.")


def write_recipe(out: Path, recipe: dict[str, Any]) -> None:
    """Make the folder of a run and write down what it is, where that is not done; in one move, so that a kill leaves no half of it."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / _RECIPE).exists():
        partial = out / (_RECIPE + ".partial")
        partial.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
        partial.rename(out / _RECIPE)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other trainings out of a folder, which is made; the claim ends with the process. Raises RequestError where another has it."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(f"another training writes to {out}; wait until it ends, or choose another --out.") from None
    try:
        yield
    finally:
        lock.release()
