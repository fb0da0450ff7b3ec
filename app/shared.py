"""What all visitors share: the model, the tickets of the tasks under way, the conversations as the model reads them, the runs."""

from app.clips import LIMITS
from app.runs import Runs
from app.session import LazyRuntime, Talks, Tickets

__all__ = ["runs", "runtime", "talks", "tickets"]

runtime = LazyRuntime("nano", LIMITS)
tickets = Tickets()
talks = Talks()
runs = Runs()
