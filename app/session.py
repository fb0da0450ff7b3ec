"""What the server remembers: the model, loaded once, and of each visitor the running answer and the conversation."""

import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradio.utils import get_upload_folder

from app.library import library
from app.runs import VISITOR
from latentomni.config import MediaLimits, ReadingSpec
from latentomni.memory import give_back

if TYPE_CHECKING:  # torch is imported with the model, not with the page
    from latentomni.media import Clip
    from latentomni.runtime import Runtime
    from latentomni.sequence import Sequence

__all__ = ["LazyRuntime", "Session", "Talks", "Tickets", "Turn", "new_folder", "remove_folder"]

_KEPT_CLIPS = 2
_KEPT_TALKS = 64


@dataclass(frozen=True)
class Turn:
    """A question with its answer. trace: file. is_live: the model remembers it when the next question is asked.
    true_answer: where it is known. run: the id by which the answer opens again. findings: what a self test found."""

    question: str
    answer: str
    trace: str
    is_live: bool
    true_answer: str = ""
    run: str = ""
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """What a page holds between two events, plain values only.

    clip: file, None before there is one. is_foreign: a visitor brought the clip. shown: the turn in the inspector.
    asked: the last question. has_answer: whether the last turn answers it. ticket: names the task that was last begun.
    trial: seed of the self test that drew the clip.
    """

    clip: str | None = None
    is_foreign: bool = False
    folder: str = ""
    turns: tuple[Turn, ...] = ()
    shown: int = -1
    asked: str = ""
    has_answer: bool = False
    ticket: str = ""
    trial: int | None = None


def new_folder() -> str:
    """A folder for one visitor's traces, beside the uploads."""
    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix=VISITOR, dir=uploads)


def remove_folder(session: Session) -> None:
    """Called when a visitor's page is closed for good."""
    if session.folder:
        shutil.rmtree(session.folder, ignore_errors=True)


class LazyRuntime:
    """The model, loaded when it is first needed; one at a time, whoever asks."""

    def __init__(self, name: str, limits: MediaLimits) -> None:
        self.name, self.limits, self.quantization = name, limits, None
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self.loaded_s = 0.0  # on the monotonic clock
        self._clips: OrderedDict[tuple[str, int, ReadingSpec], Clip] = OrderedDict()

    def use(self, name: str, quantization: str | None = None) -> None:
        """Answer with another model from now on; the memory of the one before is free when this returns, unless it still answers."""
        with self._lock:
            self.name, self.quantization, self._runtime = name, quantization, None
            self._clips.clear()
            give_back()

    @property
    def is_loaded(self) -> bool:
        return self._runtime is not None

    def get(self) -> "Runtime":
        if (loaded := self._runtime) is not None:  # without the lock, which a process that was forked may find taken for ever
            return loaded
        with self._lock:
            if self._runtime is None:
                self._runtime = library().Runtime.load(self.name, self.limits, self.quantization)
                self.loaded_s = time.monotonic()
            return self._runtime

    def facts(self) -> dict[str, str | None]:
        """weights, device and quantization of the model; None each before it is loaded."""
        thinker = getattr(self._runtime, "thinker", None)
        return {name: None if thinker is None else str(getattr(thinker, name)) for name in ("weights", "device", "quantization")}

    def let_go(self) -> None:
        """Forget the clips in memory: it ran out."""
        self._clips.clear()
        give_back()

    def read(self, path: str, cancelled: Callable[[], bool], reading: ReadingSpec) -> "Clip":
        """A clip in memory, read in a process of its own; follow-up questions find the last few already read."""
        key = (path, Path(path).stat().st_mtime_ns if Path(path).is_file() else 0, reading)
        clip = self._clips.get(key) or self.get().read(path, cancelled, reading, isolated=True)
        self._clips[key] = clip
        self._clips.move_to_end(key)
        while len(self._clips) > _KEPT_CLIPS:
            self._clips.popitem(last=False)
        return clip


@dataclass
class _Run:
    ticket: str
    stop: threading.Event = field(default_factory=threading.Event)
    is_claimed: bool = False


class Tickets:
    """One running answer per visitor. A ticket is good for one run; giving it back early tells the run that nobody waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def take(self, visitor: str) -> str | None:
        """A new ticket; None while an answer is still being computed for this visitor."""
        with self._lock:
            if visitor in self._runs:
                return None
            self._runs[visitor] = _Run(uuid.uuid4().hex)
            return self._runs[visitor].ticket

    def claim(self, visitor: str, ticket: str) -> threading.Event | None:
        """The stop sign of the run that holds this ticket, once; None for any other."""
        with self._lock:
            run = self._runs.get(visitor)
            if run is None or run.ticket != ticket or run.is_claimed:
                return None
            run.is_claimed = True
            return run.stop

    def stop(self, visitor: str) -> bool:
        """Ask the run to end; False where none is under way."""
        with self._lock:
            run = self._runs.get(visitor)
            if run:
                run.stop.set()
            return run is not None

    def give_back(self, visitor: str, ticket: str | None = None) -> None:
        """The run of this ticket is over; without a ticket, whatever runs for this visitor is no longer wanted."""
        with self._lock:
            run = self._runs.get(visitor)
            if run and ticket in (None, run.ticket):
                run.stop.set()
                del self._runs[visitor]

    def is_current(self, visitor: str, ticket: str) -> bool:
        with self._lock:
            run = self._runs.get(visitor)
            return run is not None and run.ticket == ticket


class Talks:
    """Conversations as the model reads them: before and after the last answer, so that Retry can go one step back."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, Sequence, Sequence]] = OrderedDict()

    def find(self, visitor: str, talk: str) -> "Sequence | None":
        """What the next answer follows in the talk of this name; None at the beginning. It must not be changed: let `copied` of it grow."""
        name, _, after = self._kept.get(visitor, ("", None, None))
        return after if name == talk else None

    @staticmethod
    def copied(row: "Sequence") -> "Sequence":
        """A copy to grow in; the clip's features are shared. A run that fails then leaves nothing behind."""
        return deepcopy(row, {id(row.clip): row.clip})

    def keep(self, visitor: str, talk: str, before: "Sequence", after: "Sequence") -> None:
        self._kept[visitor] = (talk, before, after)
        self._kept.move_to_end(visitor)
        while len(self._kept) > _KEPT_TALKS:
            self._kept.popitem(last=False)

    def step_back(self, visitor: str) -> None:
        """Take the last answer back."""
        if visitor in self._kept:
            name, before, _ = self._kept[visitor]
            self._kept[visitor] = (name, before, before)

    def clear(self) -> None:
        """Forget them all: another model reads them otherwise."""
        self._kept.clear()

    def forget(self, visitor: str) -> None:
        self._kept.pop(visitor, None)
