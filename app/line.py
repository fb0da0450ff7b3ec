"""Who waits for the model: first come, first served, one run at a time, whichever page or program asked for it."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

from app import copy
from app.journal import Journal
from app.settings import Limits
from latentomni.errors import MediaError, RequestError

__all__ = ["Line", "Place"]

_LOOK_S = 0.5  # how often a waiting run is told its place
_LAST_RUNS = 20  # whose mean says how long one takes
_STUCK_S = 60  # beyond its limit


@dataclass(eq=False)
class Place:
    """A run's place in the line. request: its id in logs. ending: why it was ended from outside, "stopped" by its visitor, at the "limit"
    of time, or "cut" by the end of the server; "" while nobody ended it."""

    line: "Line"
    kind: str
    visitor: str
    stop: threading.Event
    request: str = field(default_factory=lambda: secrets.token_hex(6))
    asked_s: float = field(default_factory=time.monotonic)
    begun_s: float | None = None
    first_s: float | None = None
    ending: str = ""

    def cancelled(self) -> bool:
        """Asked by the run between two steps: whether it must end."""
        if not self.ending and self.stop.is_set():
            self.ending = "stopped"
        if not self.ending and self.line.ran_s(self) > self.line.limits.run_s:
            self.ending = "limit"
        return bool(self.ending)

    def waits(self) -> Iterator[tuple[int, float | None]]:
        """Until it is this run's turn: how many are before it, and about how many seconds that takes (None before any run was seen).
        MediaError where it is ended before."""
        while ahead := self.line.advance(self, _LOOK_S):
            if self.cancelled():
                raise MediaError(copy.STATUS[self.ending])
            yield ahead, self.line.expected_s(ahead)

    def waited(self) -> dict[str, float | None]:
        """Seconds from the question to its turn, and to its first word or latent; None for what did not come."""
        return {name: at and at - self.asked_s for name, at in (("waited_s", self.begun_s), ("first_s", self.first_s))}

    def note_first(self) -> None:
        """The first word or latent is there."""
        if self.first_s is None:
            self.first_s = time.monotonic()
            self.line.journal.note_first(self.first_s - self.asked_s)


class Line:
    """loaded_s: when the model was loaded; the time of a run counts from then on."""

    def __init__(self, journal: Journal, loaded_s: Callable[[], float] = lambda: 0.0) -> None:
        self.journal, self.limits = journal, Limits()
        self.is_closed = False
        self._loaded_s = loaded_s
        self._changed = threading.Condition()
        self._places: list[Place] = []
        self._took_s: deque[float] = deque(maxlen=_LAST_RUNS)

    @property
    def running(self) -> int:
        return sum(place.begun_s is not None for place in list(self._places))

    @property
    def waiting(self) -> int:
        return len(self._places) - self.running

    @property
    def is_stuck(self) -> bool:
        """Whether a run went on long after it was told to end."""
        return any(self.ran_s(place) > self.limits.run_s + _STUCK_S for place in list(self._places) if place.kind != "model")

    def check(self, visitor: str) -> None:
        """RequestError where another run of this visitor would not be taken."""
        if self.is_closed:
            raise RequestError(copy.ERRORS["stopping"])
        if self.waiting >= self.limits.queue:
            raise RequestError(copy.ERRORS["full"].format(self.waiting))
        if sum(place.visitor == visitor for place in list(self._places)) >= self.limits.per_user:
            raise RequestError(copy.ERRORS["too_many"].format(self.limits.per_user))

    @contextmanager
    def place(self, kind: str, visitor: str, stop: threading.Event | None = None) -> Iterator[Place]:
        """A place for one run, which first goes through `waits`; it is free again however the run ends. RequestError as of `check`."""
        place, outcome = Place(self, kind, visitor, stop or threading.Event()), "failed"
        try:
            with self._changed:
                self.check(visitor)
                self._places.append(place)
        except RequestError:
            self.journal.run(place.request, kind, "refused")
            raise
        self.journal.run(place.request, kind, "asked", ahead=len(self._places) - 1)
        error: BaseException | None = None
        try:
            yield place
            outcome = place.ending or "finished"
        except GeneratorExit:  # nobody reads on
            outcome = place.ending or "stopped"
            raise
        except Exception as failure:
            error = failure
            outcome = place.ending if place.ending and isinstance(failure, MediaError) else "failed"
            raise
        finally:
            self._leave(place, outcome, error)

    def advance(self, place: Place, timeout_s: float) -> int:
        """How many are before a run; with none it begins. Waits until that changes, at most timeout_s."""
        with self._changed:
            if self._places[0] is not place:
                self._changed.wait(timeout_s)
            ahead = self._places.index(place)
            if ahead == 0 and place.begun_s is None:
                place.begun_s = time.monotonic()
            return ahead

    def expected_s(self, ahead: int) -> float | None:
        return fmean(self._took_s) * ahead if self._took_s else None

    def ran_s(self, place: Place) -> float:
        return 0.0 if place.begun_s is None else time.monotonic() - max(place.begun_s, self._loaded_s())

    def note_first(self) -> None:
        """The first word or latent of the run under way is there."""
        for place in list(self._places)[:1]:
            place.note_first()

    def close(self, grace_s: float, cut_s: float = 5.0) -> bool:
        """Take no more runs; those in line have grace_s to end, then are cut. False where one is still there cut_s later."""
        with self._changed:
            self.is_closed = True
            if self._changed.wait_for(lambda: not self._places, grace_s):
                return True
            for place in self._places:
                place.ending = place.ending or "cut"
            return self._changed.wait_for(lambda: not self._places, cut_s)

    def _leave(self, place: Place, outcome: str, error: BaseException | None) -> None:
        now_s = time.monotonic()
        with self._changed:
            self._places.remove(place)
            if place.begun_s is not None and outcome == "finished":
                self._took_s.append(self.ran_s(place))
            self._changed.notify_all()
        facts = {name: seconds for name, seconds in place.waited().items() if seconds is not None}
        self.journal.run(place.request, place.kind, outcome, error, seconds=now_s - place.asked_s, **facts)
