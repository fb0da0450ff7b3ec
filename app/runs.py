"""Runs that can be opened again: each has a folder beside the uploads, under a name that nobody can guess."""

import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from app import copy
from app.gallery import Example, gallery
from latentomni.errors import RequestError
from latentomni.trace import Trace

__all__ = ["MAX_AGE_S", "Runs"]

MAX_AGE_S = 7 * 24 * 3600
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Runs:
    """Folders of traces, each with its clip and the report and reel made of it. Whoever knows an id may open the run; it is
    deleted after a week."""

    @property
    def folder(self) -> Path:
        return Path(get_upload_folder()) / "latentomni-runs"

    def keep(self, trace: Trace, name: str, clip: str | None = None) -> tuple[str, str]:
        """Save a run under a new id, with its clip where one is given (answers about one clip share its bytes); returns the id
        and the file. What is too old is deleted first."""
        self.sweep()
        run = secrets.token_urlsafe(16)
        path = self.folder / run / f"{name}.trace.zip"
        path.parent.mkdir(parents=True)
        trace.save(path)
        if clip:
            kept = path.parent / "clip" / Path(clip).name
            kept.parent.mkdir()
            try:
                os.link(clip, kept)
            except OSError:  # on another file system
                shutil.copy(clip, kept)
        return run, str(path)

    def find(self, run: str) -> str:
        """The trace of a run. RequestError where there is none."""
        found = sorted((self.folder / run).glob("*.trace.zip")) if isinstance(run, str) and _ID.fullmatch(run) else []
        if not found:
            raise RequestError(copy.ERRORS["no_run"])
        return str(found[0])

    def clip(self, run: str) -> str | None:
        """The clip that was kept with a run. RequestError where there is no such run."""
        return next(map(str, Path(self.find(run)).parent.glob("clip/*")), None)

    def example(self, run: str) -> Example | None:
        """The recorded example of this name, which opens by link as runs do."""
        return next((example for example in gallery() if Path(example.clip).stem == run), None)

    def forget(self, run: str) -> None:
        """Delete a run, if it is there."""
        if _ID.fullmatch(run):
            shutil.rmtree(self.folder / run, ignore_errors=True)

    def sweep(self, now_s: float | None = None) -> None:
        """Delete the runs that are older than a week."""
        oldest_s = (time.time() if now_s is None else now_s) - MAX_AGE_S
        for path in self.folder.glob("*"):
            if _ID.fullmatch(path.name) and path.stat().st_mtime < oldest_s:
                shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def entry(run: str, trace: Trace, at_s: float) -> dict[str, Any]:
        """What a visitor's browser remembers of a run."""
        return {
            "run": run, "question": trace.question, "answer": trace.answer, "clip": trace.clip.name, "mode": trace.mode,
            "at_s": round(at_s), "latents": sum(len(block.latents) for block in trace.blocks),
        }  # fmt: skip
