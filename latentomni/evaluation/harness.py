"""Public benchmarks asked of a model: every question counts, those that could not be asked as wrong, and each is kept as it comes."""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.clock import Window
from latentomni.config import MediaLimits, Mode, ReadingSpec, SamplingSpec
from latentomni.errors import DataError, LatentOmniError
from latentomni.evaluation.benchmarks import BENCHMARKS, LETTERS, Item, option_of
from latentomni.evaluation.evidence import BASELINES, Guesses, Ranking
from latentomni.evaluation.processes import Processes
from latentomni.runtime import Runtime
from latentomni.sequence import Sequence
from latentomni.trace import Trace
from latentomni.truth import Truth

__all__ = ["VIDEO_LIMITS", "compare_predictions", "evaluate_benchmark", "read_predictions", "score_benchmark", "score_steps"]

VIDEO_LIMITS = MediaLimits(max_duration_s=3 * 3600, max_bytes=16 * 2**30)  # of a benchmark's
_RESAMPLES = 10_000
_TOLERANCE_S = 2.0  # around a moment that annotators wrote down to the second

Lines = dict[str, dict[str, Any]]  # by the id of the question


def evaluate_benchmark(runtime: Runtime, name: str, items: list[Item], mode: Mode, sampling: SamplingSpec, reading: ReadingSpec,
                       predictions: Path | None = None, traces: Path | None = None, progress: Callable = lambda items, _: items,
                       processes: Processes | None = None) -> Lines:  # fmt: skip
    """Ask every item: what came of each, by its id.

    predictions: a file of these as JSON lines, that is gone on with where it holds some already. traces: a folder for the run of every
    question. reading: but for the sound, which Video-MME is asked without. processes: share the videos; each gets all lines. Raises DataError
    where the predictions are of another model or other settings.
    """
    processes = processes or Processes()
    reading = replace(reading, sound=reading.sound and BENCHMARKS[name].hears)
    settings = {"benchmark": name, "model": runtime.thinker.name, "quantization": str(runtime.thinker.quantization), "mode": str(mode),
                "sampling": vars(sampling), "reading": reading.to_dict()}  # fmt: skip
    done = _begun(predictions, settings, processes)
    if traces:
        traces.mkdir(parents=True, exist_ok=True)
    videos = [list(group) for _, group in groupby(range(len(items)), key=lambda i: items[i].video)]
    own = [i for video in processes.share(videos) for i in video]
    told = {}
    for i in progress(own, name):
        told[i] = done.get(items[i].id) or _asked(runtime, items[i], mode, sampling, reading, traces)
        if predictions and items[i].id not in done:
            _append(predictions, told[i])
    return {line["id"]: line for line in processes.gather(told).values()}


def _append(file: Path, line: dict[str, Any]) -> None:
    """In one write, so that lines of several processes stay whole."""
    with file.open("ab", buffering=0) as lines:
        lines.write(json.dumps(line).encode() + b"\n")


def _asked(runtime: Runtime, item: Item, mode: Mode, sampling: SamplingSpec, reading: ReadingSpec, traces: Path | None) -> dict[str, Any]:
    began = time.perf_counter()
    told = {"id": item.id, "video": item.video.name, "answer": item.answer, "chosen": None, "right": False, "text": "", "windows_s": [], "failed": ""}
    try:
        clip = runtime.read(item.video, reading=reading)
        row = runtime.conversation(clip)
        trace = Trace.from_events(runtime.stream(clip, item.prompt, mode, sampling, row))
        if traces:
            replace(trace, truth=_truth(item, trace)).save(traces / f"{re.sub(r'[^A-Za-z0-9_-]', '_', item.id)}.zip")  # an id is whatever the file says
    except LatentOmniError as error:
        return told | {"failed": str(error), "seconds": round(time.perf_counter() - began, 2)}
    chosen = option_of(trace.answer, item.options)
    windows = [[block.window.start_s, block.window.end_s] for block in trace.blocks]
    return told | {"chosen": chosen, "right": chosen == item.answer, "text": trace.answer, "windows_s": windows,
                   "steps": score_steps(item, trace, runtime, row), "seconds": round(time.perf_counter() - began, 2)}  # fmt: skip


def _truth(item: Item, trace: Trace) -> Truth:
    """The right option, and where the annotators looked and listened; what they timed behind the end of the clip is left out."""
    option = dict(zip(LETTERS, item.options, strict=False))[item.answer]
    timed = [step for step in item.steps if step.window and step.window.start_s < trace.clip.duration_s]
    is_right = option_of(trace.answer, item.options) == item.answer
    return Truth(f"{item.answer}. {option}", is_right, tuple(step.window for step in timed), tuple(step.modality for step in timed))


def score_steps(item: Item, trace: Trace, runtime: Runtime, row: Sequence) -> list[dict[str, Any]]:
    """How the moments that the run's latents are most similar to, and the windows that it states, stand to those that the annotators timed, two
    seconds around them allowed; beside guesses without latents and chance. row: the finished run."""
    told, guesses = [], None
    for step in item.steps:
        window = step.window and Window(max(step.window.start_s - _TOLERANCE_S, 0.0), step.window.end_s + _TOLERANCE_S)
        ranking = window and Ranking.of_trace(trace, step.modality, window)
        if ranking:
            guesses = guesses or Guesses(runtime, row, trace.prompt_tokens)
            iou = max(block.window.iou(step.window) for block in trace.blocks)
            told.append({"modality": step.modality, "hit_at_1": ranking.hit(1), "hit_at_5": ranking.hit(5), "mrr": ranking.reciprocal_rank, "window_iou": iou,
                         "baselines": guesses.hits(step.modality, window, list(range(len(trace.blocks)))), "chance": ranking.chance()})  # fmt: skip
    return told


def score_benchmark(items: list[Item], lines: Lines) -> dict:
    """Keys as in the command line's contract; failed: what could not be asked, unread: answers that name no option."""
    told = [lines[item.id] for item in items]
    groups: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for item, line in zip(items, told, strict=True):
        for group, value in item.categories.items():
            groups[group][value].append(line["right"])
    return {
        "n": len(items),
        "accuracy": _mean([line["right"] for line in told]),
        "chance": _mean([1 / len(item.options) for item in items]),
        "categories": {g: {v: {"accuracy": _mean(right), "n": len(right)} for v, right in sorted(values.items())} for g, values in groups.items()},
        "failed": [{"id": line["id"], "why": line["failed"]} for line in told if line["failed"]],
        "evidence": _evidence([step for line in told for step in line.get("steps", ())]),
        "unread": [line["id"] for line in told if line["chosen"] is None and not line["failed"]],
    }


def _evidence(steps: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of timed steps, where a benchmark has any."""
    if not steps:
        return None
    names, chances = ("hit_at_1", "hit_at_5", "mrr", "window_iou"), ("hit_at_1", "hit_at_5", "mrr")
    guessed = {name: [step["baselines"][name] for step in steps if name in step["baselines"]] for name in BASELINES}
    return {
        "steps": len(steps),
        **{name: _mean([step[name] for step in steps]) for name in names},
        "baselines": {name: _mean(values) if values else None for name, values in guessed.items()},
        "chance": {name: _mean([step["chance"][name] for step in steps]) for name in chances},
    }


def _mean(values: list) -> float:
    return round(float(np.mean(values)), 4)


def _begun(file: Path | None, settings: dict[str, Any], processes: Processes) -> Lines:
    """What a file of predictions holds, by question; a new one gets the settings as its first line."""
    if file is None:
        return {}
    if processes.is_main:
        if file.exists():
            read_predictions(file)  # half a line is cut off
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    processes.wait()
    known, lines = read_predictions(file)
    processes.wait()  # until all have read what there was
    if known != json.loads(json.dumps(settings)):
        raise DataError(f"{file} holds predictions of another model or with other settings; give another file.")
    return lines


def read_predictions(file: Path) -> tuple[dict[str, Any], Lines]:
    """Settings and lines by question of what `evaluate_benchmark` wrote; half a line at the end, as a kill leaves it, is cut off. Raises
    DataError for anything else."""
    try:
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        settings, *lines = [json.loads(line) for line in whole.splitlines()]
        known = settings, {line["id"]: line for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds no predictions ({type(error).__name__}: {error}); give a file that `eval` wrote.") from None
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return known


def compare_predictions(lines: Lines, others: Lines) -> dict[str, Any]:
    """How much better the first answered than the second: over the questions that both were asked, with the 95 % interval of a bootstrap over
    videos (all questions about one go together)."""
    shared = [name for name in lines if name in others]
    if not shared:
        raise DataError("The two files of predictions share no question; compare runs of one benchmark.")
    gain = np.array([float(lines[name]["right"]) - float(others[name]["right"]) for name in shared])
    videos = np.unique([lines[name]["video"] for name in shared], return_inverse=True)[1]
    sums, counts = np.bincount(videos, gain), np.bincount(videos)
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _RESAMPLES)
    interval = np.percentile(drawn @ sums / (drawn @ counts), [2.5, 97.5])
    return {"n": len(shared), "difference": round(float(gain.mean()), 4), "interval": [round(float(end), 4) for end in interval]}
