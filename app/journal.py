"""What happened, for who runs the server: a line per event on stderr, and counts. Never what was asked, answered or uploaded."""

import json
import logging
import sys
import threading
import traceback
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

__all__ = ["SECONDS", "Journal", "log_to_stderr"]

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # upper bounds of the histogram's classes
_LOG = logging.getLogger("app")


class Journal:
    """runs: how many, by kind ("question", "rerun", ...) and state ("asked", then one of "finished", "stopped", "failed", "cut", "limit",
    or "refused"). first: how many first words came within each of SECONDS, the last place for what took longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.runs: Counter[tuple[str, str]] = Counter()
        self.first, self.first_sum_s = [0] * (len(SECONDS) + 1), 0.0

    def run(self, request: str, kind: str, state: str, error: BaseException | None = None, **facts: float) -> None:
        """A run came to a state. Of an error its type and place are told, not its words, which may be a visitor's."""
        with self._lock:
            self.runs[kind, state] += 1
        told = {name: round(value, 3) for name, value in facts.items()}
        if error is not None:
            told |= {"error": type(error).__name__, "where": where(error)}
        self.event(f"{kind} {state}", request=request, **told)

    def note_first(self, seconds: float) -> None:
        with self._lock:
            self.first[sum(seconds > bound for bound in SECONDS)] += 1
            self.first_sum_s += seconds

    def event(self, event: str, level: int = logging.INFO, **facts: Any) -> None:
        _LOG.log(level, "%s%s", event, "".join(f" {name}={value}" for name, value in facts.items()), extra={"event": event, "facts": facts})


def where(error: BaseException) -> str:
    """The innermost lines of code that an error came through, without its words."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


class _Lines(logging.Formatter):
    """Errors with their type and place alone."""

    def __init__(self, *, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        facts = dict(getattr(record, "facts", {}))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            facts |= {"error": type(error).__name__, "where": where(error)}
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        event = getattr(record, "event", None) or record.getMessage()
        if self._is_json:
            return json.dumps({"time": at, "level": record.levelname.lower(), "event": event, **facts})
        return " ".join([at, event, *(f"{name}={value}" for name, value in facts.items())])


def log_to_stderr(form: str) -> None:
    """Events of the app and warnings of all others as lines on stderr; form: "plain" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(is_json=form == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOG.setLevel(logging.INFO)
