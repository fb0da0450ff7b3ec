"""What all visitors share: the model and the line before it, the tickets of the tasks under way, conversations as the model reads
them, the runs, and the journal."""

from app.clips import LIMITS
from app.journal import Journal
from app.line import Line
from app.runs import Runs
from app.session import LazyRuntime, Talks, Tickets

__all__ = ["journal", "line", "runs", "runtime", "talks", "tickets"]

runtime = LazyRuntime("nano", LIMITS)
journal = Journal()
line = Line(journal, lambda: runtime.loaded_s)
tickets = Tickets()
talks = Talks()
runs = Runs()
