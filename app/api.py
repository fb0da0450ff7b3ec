"""Named endpoints for programs and agents: the same runs as on the page, without a page. Served as MCP tools where `mcp` is installed."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData
from gradio.utils import get_upload_folder

from app import copy
from app.asking import folded
from app.lent import change_answer, stream_answer
from app.library import library
from app.page import failed
from app.shared import line, runs
from latentomni.clock import Window
from latentomni.config import ReadingSpec, SamplingSpec
from latentomni.errors import RequestError, plain, require
from latentomni.trace import Trace

__all__ = ["ask_video", "decode_latent", "get_trace", "has_mcp", "intervene", "publish", "uploaded"]

_KINDS = {str: "text", int: "a whole number", float: "a number"}
_LANE = {"concurrency_id": "model", "concurrency_limit": None}  # they wait in a line of their own


def has_mcp() -> bool:
    return find_spec("mcp") is not None


def publish() -> None:
    """Offer the endpoints; called while the page is built. What asks the model waits in its lane."""
    for endpoint, lane in ((ask_video, _LANE), (get_trace, {}), (decode_latent, {}), (intervene, _LANE)):
        gr.api(_spoken(endpoint), api_name=endpoint.__name__, **lane)


def ask_video(
    video: FileData, question: str, mode: str = "latent", seed: int = 0, temperature: float = 0.0, max_new_tokens: int = 256,
    request: gr.Request = None,
) -> Iterator[dict]:  # fmt: skip
    """
    Ask a question about a video or sound file, and get the answer with its latent blocks.

    Args:
        video: The video or sound file.
        question: What to ask about it.
        mode: How to answer: latent, text-cot or direct.
        seed: Seed of the sampling.
        temperature: 0 always takes the likeliest word.
        max_new_tokens: Longest answer, in tokens.
    Returns:
        The run's id (`run`), which the other tools take, the answer, the text around its blocks, tokens, seconds, and the blocks:
        window in seconds and, per latent, modality, time and the moment of the clip it is most similar to. `state` is waiting,
        running or, the last time, how the run ended; `waited_s` and `first_s` are seconds until its turn and until its first word.
    """
    sampling = SamplingSpec(float(temperature), seed=seed, max_new_tokens=max_new_tokens)
    path = uploaded(video)
    with line.place("question", request.session_hash) as place:
        for ahead, seconds in place.waits():
            yield {"state": "waiting", "ahead": ahead, "seconds": seconds}
        yield {"state": "running", "text": ""}  # gradio can end no run before it has said something
        with closing(stream_answer(path, question, mode, sampling, ReadingSpec(), place.cancelled)) as events:
            for trace in folded(events):
                if trace.reason == "running":
                    yield {"state": "running", "text": trace.text}
        run, _ = runs.keep(trace, Path(path).stem, clip=path)
        state = place.ending or "finished"
    yield {"state": state, "run": run, **_told(trace), **place.waited()}


def uploaded(file: Any) -> str:
    """The path of a file that came to this server by upload. RequestError for any other: gradio holds a path against its folder only
    where the request calls it a file."""
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    try:
        is_upload = Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (TypeError, ValueError, OSError):  # no path at all
        is_upload = False
    require(is_upload, copy.ERRORS["not_uploaded"])
    return str(path)


def _spoken(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, to which values come as its hints say, and whose refusals reach the caller as a sentence."""

    def typed(*values: Any, **named: Any) -> dict[str, Any]:
        given = inspect.signature(endpoint).bind(*values, **named).arguments
        return {name: _typed(name, value, endpoint.__annotations__[name]) for name, value in given.items()}

    def told(error: Exception) -> gr.Error:
        return gr.Error(failed(error)["text"], print_exception=False)

    @functools.wraps(endpoint)
    def once(*values: Any, **named: Any) -> Any:
        try:
            return endpoint(**typed(*values, **named))
        except Exception as error:
            raise told(error) from None

    @functools.wraps(endpoint)
    def streamed(*values: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from endpoint(**typed(*values, **named))
        except Exception as error:
            raise told(error) from None

    return streamed if inspect.isgeneratorfunction(endpoint) else once


def _typed(name: str, value: Any, kind: type) -> Any:
    """A value as JSON gave it. RequestError where it is of another kind than the hint says; a file is looked at later."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    fits = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
    require(kind not in _KINDS or fits, f"{name} must be {_KINDS.get(kind)}, got {plain(repr(value), 40)}.")
    return value


def get_trace(run: str) -> FileData:
    """
    Get the trace of a run: one zip of JSON, safetensors, pictures and sound, which the app and the library open.

    Args:
        run: The id that ask_video or intervene gave.
    Returns:
        The trace file.
    """
    path = runs.find(run)
    return FileData(path=path, orig_name=Path(path).name)


def decode_latent(run: str, block: int = 0, latent: int = 0) -> dict:
    """
    Say which moments of the clip one latent of a run is most similar to. Similar does not mean used: see intervene.

    Args:
        run: The id that ask_video or intervene gave.
        block: Number of the latent block, from 0.
        latent: Number of the latent in its block, from 0.
    Returns:
        modality, time_s (its place on the clip's clock), p (against latents of other clips), and the moments, best first.
    """
    trace = Trace.load(runs.find(run))
    matches = trace.evidence(latent, block)
    return {**_latent(trace.blocks[block].latents[latent]), "moments": [_moment(match) for match in matches]}


def intervene(
    run: str, arm: str = "zero", block: int = -1, latent: int = -1, modality: str = "", start_s: float = 0.0, end_s: float = 0.0,
    request: gr.Request = None,
) -> Iterator[dict]:
    """
    Change the latents of a run, or its clip, and let the model answer again: does it matter for the answer?

    Args:
        run: The id that ask_video gave.
        arm: zero, mean, noise, other_clip, other_time, shuffled, removed_markers_kept, markers_removed, pause_tokens, visual_only,
            audio_only or oracle change latents; black_out, mute and shift_sound change the clip.
        block: Number of the block to change, from 0; -1 changes all.
        latent: Number of the latent to change, from 0; -1 changes the whole block.
        modality: visual or audio to change the latents of one modality only.
        start_s: Start of the window that black_out or mute changes, in seconds.
        end_s: End of that window.
    Returns:
        The answer before and after, whether it flipped, probabilities, the change of the margin, and the matched control; `run` is
        the id of the new answer.
    """
    trace, clip = Trace.load(runs.find(run)), runs.clip(run)
    if clip is None:
        raise RequestError(copy.ERRORS["no_clip_in_trace"])
    window = _window(start_s, end_s) if end_s > start_s else None
    change = library().Change(arm, block=None if block < 0 else block, latent=None if latent < 0 else latent, modality=modality, window=window)
    with line.place("rerun", request.session_hash) as place:
        for ahead, seconds in place.waits():
            yield {"state": "waiting", "ahead": ahead, "seconds": seconds}
        yield {"state": "running"}
        outcome = change_answer(clip, trace, change, place.cancelled)
    after, _ = runs.keep(outcome.after, Path(clip).stem, clip=clip)
    control = outcome.control
    yield {
        "state": place.ending or "finished", "run": after, "arm": arm,
        "before": outcome.before.answer, "after": outcome.after.answer, "flipped": outcome.flipped,
        "probabilities": {answer: list(pair) for answer, pair in outcome.probabilities.items()}, "margin_change": outcome.margin_change,
        "control": control and {"what": control.what, "answer": control.answer, "flipped": control.flipped, "margin_change": control.margin_change},
        "notices": list(outcome.notices),
    }  # fmt: skip


def _window(start_s: float, end_s: float) -> Window:
    try:
        return Window(float(start_s), float(end_s))
    except (ValueError, OverflowError):
        raise RequestError(f"A window lies within the clip, got {start_s:.6g} to {end_s:.6g} s; give other seconds.") from None


def _told(trace: Trace) -> dict[str, Any]:
    blocks = [
        {
            "window_s": [block.window.start_s, block.window.end_s],
            "window_source": block.window_source,
            "latents": [
                {**_latent(z), "evidence": _moment(z.matches[0]) if z.matches else None} for z in block.latents
            ],
        }
        for block in trace.blocks
    ]
    return {"answer": trace.answer, "text": trace.text, "tokens": trace.tokens, "seconds": trace.elapsed_s,
            "ttft_s": trace.ttft_s, "tokens_per_s": trace.tokens_per_s, "latents_per_s": trace.latents_per_s, "blocks": blocks}  # fmt: skip


def _latent(latent: Any) -> dict[str, Any]:
    return {"modality": latent.modality, "time_s": latent.time_s, "p": latent.p if latent.p_corrected is None else latent.p_corrected}


def _moment(match: Any) -> dict[str, Any]:
    return {"start_s": match.start_s, "end_s": match.end_s, "rank": match.rank, "score": match.score}
