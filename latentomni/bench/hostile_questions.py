"""Questions and settings that are odd, and strangers' traces whose answers are to be changed, given to the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.arms import ARMS
from latentomni.bench.damage import ODD_TEXTS, ODD_VALUES, Attacked, damaged_json
from latentomni.bench.hostile_traces import asked, packed, unpacked
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.media import Clip
from latentomni.reruns import Change, rerun
from latentomni.runtime import Runtime
from latentomni.trace import Trace

__all__ = ["question_feeder"]

_FILE = Path("upload.trace.zip")
_SAMPLINGS = ("temperature", "top_p", "seed", "max_new_tokens", "max_blocks")
_READINGS = ("fps", "max_pixels", "start_s", "end_s", "picture", "sound")
_CHANGED = ("question", "mode", "model", "spec", "sampling", "reading", "flow")  # what a rerun takes from a trace


def question_feeder(kind: str, attacked: Attacked) -> Callable[[np.random.Generator, int], None]:
    """Feeds questions with settings of any kind; or, of kind "changes", a trace that says odd things about how it was made."""
    runtime, clip, trace = asked(attacked)
    if kind == "questions":
        return lambda rng, number: _ask(rng, number, runtime, clip)
    trace.save(_FILE)
    members = unpacked(_FILE.read_bytes())
    return lambda rng, number: _change(rng, number, runtime, clip, members)


def _ask(rng: np.random.Generator, number: int, runtime: Runtime, clip: Clip) -> None:
    """An odd question, or a plain one with odd settings."""
    question: Any = "What is seen?"
    sampling: dict[str, Any] = {"max_new_tokens": 4}
    mode: Any = list(Mode)[number % len(Mode)]
    if number % 4 < 2:
        odd = ODD_TEXTS if number % 4 else ODD_VALUES
        question = odd[number // 4 % len(odd)]
        question = question + " what?" if isinstance(question, str) and rng.random() < 0.5 else question
    elif number % 4 == 2:
        sampling[_SAMPLINGS[int(rng.integers(len(_SAMPLINGS)))]] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    else:
        name = _READINGS[int(rng.integers(len(_READINGS)))]
        ReadingSpec.from_dict({name: ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]})
        mode = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    runtime.answer(clip, question, mode, SamplingSpec(**sampling))


def _change(rng: np.random.Generator, number: int, runtime: Runtime, clip: Clip, members: dict[str, bytes]) -> None:
    header = json.loads(members["trace.json"])
    name = _CHANGED[number % len(_CHANGED)]
    if rng.random() < 0.9:  # else it is as the model wrote it, and is changed as it should be
        header |= damaged_json(rng, {name: header[name]})
    _FILE.write_bytes(packed({**members, "trace.json": json.dumps(header).encode()}))
    trace = Trace.load(_FILE)
    ReadingSpec.from_dict(trace.reading or {})
    rerun(
        runtime,
        clip,
        trace,
        Change(ARMS[number % len(ARMS)], block=int(rng.integers(0, 2)) if rng.random() < 0.3 else None),
    )
