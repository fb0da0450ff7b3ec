"""Runs that can be opened again: each has a folder beside the uploads, under a name that nobody can guess."""

import math
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from app import copy
from app.gallery import Example, gallery
from app.settings import Limits
from latentomni.errors import RequestError
from latentomni.trace import Trace

__all__ = ["VISITOR", "Runs"]

VISITOR = "latentomni-visitor-"  # how the name of a visitor's folder begins
_UPLOAD = re.compile(r"[0-9a-f]{40,64}")  # gradio's folder of one
_SWEPT_S = 60  # how often at most, where runs are kept in between
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Runs:
    """Folders of traces, each with its clip and the report and reel made of it. Whoever knows an id may open the run. What is older than
    the limits say, and the oldest where all together take more, is deleted."""

    def __init__(self) -> None:
        self.limits, self.owns_uploads, self._swept_s = Limits(), False, -math.inf

    @property
    def folder(self) -> Path:
        return Path(get_upload_folder()) / "latentomni-runs"

    def keep(self, trace: Trace, name: str, clip: str | None = None) -> tuple[str, str]:
        """Save a run under a new id, with its clip where one is given (answers about one clip share its bytes); returns the id
        and the file. What is too old is deleted first."""
        if time.monotonic() - self._swept_s > _SWEPT_S:
            self.sweep()
        run = secrets.token_urlsafe(16)
        path = self.folder / run / f"{name}.trace.zip"
        path.parent.mkdir(parents=True)
        if clip:
            kept = path.parent / "clip" / Path(clip).name
            kept.parent.mkdir()
            try:
                os.link(clip, kept)
            except OSError:  # on another file system
                shutil.copy(clip, kept)
        trace.save(path)  # last: a run that has a trace is complete
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
        """Delete the runs that are too old, and the oldest until the others fit; also what a killed server left of its visitors: their
        folders and, where no other app uploads to the same place, their uploads."""
        now_s, self._swept_s = time.time() if now_s is None else now_s, time.monotonic()
        for path in self.folder.parent.glob("*"):
            if path.name.startswith(VISITOR) or (self.owns_uploads and _UPLOAD.fullmatch(path.name)):
                with suppress(OSError):
                    if now_s - path.stat().st_mtime > self.limits.uploads_s:
                        shutil.rmtree(path, ignore_errors=True)
        found, room = [], self.limits.runs_mib * 2**20
        for path in self.folder.glob("*"):
            with suppress(OSError):  # another sweep took it
                found.append((path.stat().st_mtime, _size(path), path))
        for made_s, size, path in sorted(found, key=lambda one: one[0], reverse=True):
            room -= size
            if now_s - made_s > self.limits.keep_h * 3600 or room < 0:
                shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def entry(run: str, trace: Trace, at_s: float) -> dict[str, Any]:
        """What a visitor's browser remembers of a run."""
        return {
            "run": run, "question": trace.question, "answer": trace.answer, "clip": trace.clip.name, "mode": trace.mode,
            "at_s": round(at_s), "latents": sum(len(block.latents) for block in trace.blocks),
        }  # fmt: skip


def _size(folder: Path) -> int:
    """Bytes that a run takes; of a clip that others share, its part."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(file.st_size // file.st_nlink for file in files)
