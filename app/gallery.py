"""The example clips with their recorded answers, as `examples/record.py` writes them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from latentomni.trace import Trace
from visualizers.view import data_uri

__all__ = ["EXAMPLES_DIR", "Example", "cards", "gallery"]

EXAMPLES_DIR = Path(__file__).parents[1] / "examples"
_STILLS = 3


@dataclass(frozen=True)
class Example:
    """clip, trace: files. title: what is asked. true_answer: to the recorded question. questions: others about this clip.
    sha256: of the clip, as its trace names it."""

    clip: str
    trace: str
    title: str
    true_answer: str
    questions: tuple[str, ...]
    sha256: str


@cache
def gallery(folder: Path = EXAMPLES_DIR) -> tuple[Example, ...]:
    """Every clip of `folder` that has a trace beside it; titles and further questions from its index.json."""
    index_file = folder / "index.json"
    index = json.loads(index_file.read_text(encoding="utf-8")) if index_file.is_file() else {}
    found = []
    for clip in sorted(folder.glob("*.mp4")):
        trace = clip.with_suffix(".trace.zip")
        if trace.is_file():
            entry = index.get(clip.name, {})
            questions = tuple(entry.get("questions", ()))
            title, true_answer = entry.get("title", clip.stem), entry.get("true_answer", "")
            sha256 = Trace.load(trace).clip.file_sha256
            found.append(Example(str(clip), str(trace), title, true_answer, questions, sha256))
    return tuple(found)


@cache
def cards(folder: Path = EXAMPLES_DIR) -> list[dict[str, Any]]:
    """What the strip of examples draws: a title, the question and a few stills of each."""
    return [_card(example, Trace.load(example.trace)) for example in gallery(folder)]


def _card(example: Example, trace: Trace) -> dict[str, Any]:
    pictures = trace.clip.thumbnails
    chosen = [pictures[len(pictures) * (2 * i + 1) // (2 * _STILLS)] for i in range(_STILLS)] if pictures else []
    return {
        "title": example.title,
        "question": trace.question,
        "stills": [data_uri("image/jpeg", picture) for picture in chosen],
    }
