"""What the app asks of the model: on this process's device or, where the package `spaces` is there, on a GPU that is lent for one run.

A lent GPU (ZeroGPU of Hugging Face) belongs to a process that is forked for the run: plain values go in, numpy values come out, and what the run
leaves in memory is gone with it. Sentences for people are handed over as values, since `spaces` keeps only the name of an error.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from app.clips import LIMITS
from app.library import library
from app.shared import runtime
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.errors import LatentOmniError
from latentomni.events import Event, Finished, Started, TextDelta
from latentomni.media import probe
from latentomni.trace import Trace

try:
    import spaces
except ImportError:
    spaces = None

__all__ = ["IS_LENT", "attend", "change_answer", "stream_answer"]

_TIMES = {"answer": 1, "change": 4, "attention": 2}  # how many answers a job takes: the replay, the change, its control, and what is said of them
_UNKNOWN_S, _LEAST_S, _MOST_S = 60, 15, 120


@dataclass(frozen=True)
class _Asked:
    """An answer about a file, in plain values."""

    path: str
    question: str
    mode: str | None
    sampling: SamplingSpec
    reading: ReadingSpec
    latent: dict[str, Any] | None = None


def stream_answer(
    path: str, question: str, mode: Mode | str | None, sampling: SamplingSpec, reading: ReadingSpec, cancelled: Callable[[], bool],
    latent: dict[str, Any] | None = None,
) -> Iterator[Event]:  # fmt: skip
    """The events of an answer that follows no other, as of `Runtime.stream`. Raises what that and reading the file raise."""
    asked = _Asked(path, question, None if mode is None else str(mode), sampling, reading, latent)
    with closing(_run("answer", asked, cancelled)) as events:
        yield from _until(cancelled, events) if IS_LENT else events


def change_answer(path: str, trace: Trace, change: Any, cancelled: Callable[[], bool]) -> Any:
    """The Outcome of a Change, as of `rerun`."""
    return next(_run("change", _asked_before(path, trace), cancelled, trace, change))


def attend(path: str, trace: Trace, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """What the tab of the attention draws of an answer, which is decoded again for this."""
    return next(_run("attention", _asked_before(path, trace), cancelled, trace))


def _asked_before(path: str, trace: Trace) -> _Asked:
    return _Asked(path, trace.question, trace.mode, SamplingSpec(max_new_tokens=max(trace.tokens, 1)), ReadingSpec.from_dict(trace.reading or {}))


def _run(job: str, asked: _Asked, cancelled: Callable[[], bool], *more: Any) -> Iterator[Any]:
    if not IS_LENT:
        yield from _JOBS[job](asked, cancelled, *more)
        return
    for value in _lent(job, asked, *more):
        if isinstance(value, LatentOmniError):
            raise value
        yield value


def _seconds(job: str, asked: _Asked, *more: Any) -> int:
    """For how long the GPU is asked for, from the plan of the answer."""
    try:
        model = runtime.get()
        plan = library().plan_run(
            model, probe(asked.path, LIMITS), asked.reading, asked.latent, asked.mode or model.spec.default_mode, asked.sampling.max_new_tokens,
            max_blocks=asked.sampling.max_blocks, question=asked.question,
        )  # fmt: skip
    except LatentOmniError:  # which the run itself will tell
        return _LEAST_S
    expected_s = _UNKNOWN_S if plan.seconds is None else 10 + 1.5 * plan.seconds * _TIMES[job]
    return min(max(math.ceil(expected_s), _LEAST_S), _MOST_S)


def _on_lent_gpu(job: str, asked: _Asked, *more: Any) -> Iterator[Any]:
    """In the forked process."""
    try:
        yield from _JOBS[job](asked, lambda: False, *more)
    except LatentOmniError as error:
        yield type(error)(str(error))


_lent = _on_lent_gpu if spaces is None else spaces.GPU(duration=_seconds)(_on_lent_gpu)
IS_LENT = _lent is not _on_lent_gpu  # on other machines the package changes nothing


def _answer(asked: _Asked, cancelled: Callable[[], bool]) -> Iterator[Event]:
    clip, model = runtime.read(asked.path, cancelled, asked.reading), runtime.get()
    with closing(model.stream(clip, asked.question, asked.mode, asked.sampling, None, cancelled, asked.latent)) as events:
        yield from events


def _change(asked: _Asked, cancelled: Callable[[], bool], trace: Trace, change: Any) -> Iterator[Any]:
    clip = runtime.read(asked.path, cancelled, asked.reading)
    yield library().rerun(runtime.get(), clip, trace, change, cancelled=cancelled)


def _attention(asked: _Asked, cancelled: Callable[[], bool], trace: Trace) -> Iterator[dict[str, Any]]:
    from visualizers.attention import attention_view

    parts, model = library(), runtime.get()
    again = parts.replay(model, runtime.read(asked.path, cancelled, asked.reading), trace, cancelled)
    yield attention_view(parts.attention_record(model.thinker, again.row, again.prompt), again.trace)


_JOBS: dict[str, Callable[..., Iterator[Any]]] = {"answer": _answer, "change": _change, "attention": _attention}


def _until(cancelled: Callable[[], bool], events: Iterator[Event]) -> Iterator[Event]:
    """A lent GPU's events until nobody wants more: this process ends the answer then, as the other would. It also keeps the pace, which goes with
    the other process."""
    started, text, tokens, elapsed_s, first_s = None, "", 0, 0.0, None
    for event in events:
        if isinstance(event, Started):
            started = event
        elif isinstance(event, Finished):
            runtime.get().pace.note_answer(Mode(started.mode), started.prompt_tokens, event.kv_tokens - started.prompt_tokens, event)
        else:
            elapsed_s = event.elapsed_s
            first_s = elapsed_s if first_s is None else first_s
            if isinstance(event, TextDelta):
                text, tokens = text + event.text, tokens + len(event.token_ids)
        yield event
        if cancelled() and started is not None and not isinstance(event, Finished):
            yield Finished("cancelled", text.strip(), tokens, first_s or 0.0, elapsed_s, (Finished.ENDINGS["cancelled"],))
            return
