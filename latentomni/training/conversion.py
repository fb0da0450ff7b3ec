"""The LatentOmni authors' training format -> ours. What cannot be converted is said, sample by sample; nothing is lost silently.

Theirs: a JSON list or JSONL of `{"metadata": {...}, "data": [turns]}` or of bare lists of turns. Every content is a list of
`{"type": "text" | "video", ...}`; after each empty latent pair of an answer stands the segment's own clip, a cut of fixed
length named `{hash of the source}_{number from 0}.mp4`.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentomni.errors import DataError, MediaError, RequestError
from latentomni.media import probe
from latentomni.training.records import LATENT_PAIR, row_problems

__all__ = ["CUT_S", "convert"]

CUT_S = 5.0
_CUT_NAME = re.compile(r"(.+)_(\d{1,6})\.\w+")


def convert(path: Path | str, out: Path | str, cut_s: float = CUT_S) -> tuple[int, list[str]]:
    """Write the samples of `path` as rows of `out`; returns how many rows, and why each other sample is none of them.

    cut_s: seconds of a segment's cut; the n-th lasts from (n - 1) * cut_s to n * cut_s, or to the end of the video where it is there.
    """
    path, out = Path(path), Path(out)
    samples = list(_samples(path))
    if out.exists() and out.samefile(path):
        raise RequestError(f"{out} is the file to convert; write to another one.")
    place, rows, errors = _Place(path.parent, out.parent, cut_s), [], []
    for name, sample in samples:
        try:
            rows.append(_row(sample, place))
        except DataError as error:
            errors.append(f"{name}: {error}")
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows), errors


@dataclass(frozen=True)
class _Place:
    """Where the samples lie, where the rows will lie, and the length of a cut."""

    source: Path
    target: Path
    cut_s: float


def _samples(path: Path) -> Iterator[tuple[str, Any]]:
    """Every sample with its name in messages: "sample 3" of a list, "line 3" of lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path} cannot be read ({reason}); give a JSON or JSONL file.") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list) and not _is_conversation(whole):
        yield from ((f"sample {number}", sample) for number, sample in enumerate(whole, 1))
        return
    for number, line in enumerate(text.split("\n"), 1) if whole is None else [(1, text)]:
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", error


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def _row(sample: Any, place: _Place) -> dict[str, Any]:
    """A sample as a row of our schema; DataError says why it cannot be one."""
    if isinstance(sample, Exception):
        raise DataError(f"this is not JSON ({sample})")
    data, metadata = sample, {}
    if isinstance(sample, dict):
        data, metadata = sample.get("data"), sample.get("metadata")
    if not _is_conversation(data):
        raise DataError("there is no list of turns, each with a role, under 'data' or in place of it")
    messages, videos, cuts = [], [], []
    for turn in data:
        role, content = turn["role"], turn.get("content")
        items = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = _text(items, cuts if role == "assistant" else videos, f"the turn of {role!r}", is_answer=role == "assistant")
        messages.append({"role": role, "content": text})
    if len(videos) != 1:
        raise DataError(f"the question shows {len(videos)} videos where one was expected")
    file = place.source / videos[0]  # an absolute name stays as it is
    media = file if Path(videos[0]).is_absolute() else Path(os.path.relpath(file, place.target))
    row = {"media": media.as_posix(), "messages": messages, "segments": _segments(cuts, file, place.cut_s)}
    answer = _boxed(messages[-1]["content"])
    row |= {"answer": answer} if answer else {}
    known = metadata if isinstance(metadata, dict) else {}
    names = [str(known[key]) for key in ("dataset_name", "sample_id") if known.get(key) not in (None, "")]
    row |= {"id": "/".join(names)} if names else {}
    problems = row_problems(row)
    if problems:
        raise DataError("; ".join(problems))
    return row


def _text(items: Any, files: list[str], name: str, *, is_answer: bool) -> str:
    """The text of a turn; its videos go to `files`. In an answer each must stand right behind a latent pair."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"the content of {name} is neither text nor a list of items")
    texts, pairs, before = [], 0, len(files)
    for item in items:
        kind = item.get("type")
        value = item.get(kind) if kind in ("text", "video") else None
        if not isinstance(value, str):
            raise DataError(f"{name} holds an item of type {kind!r} that is no text and names no video file")
        if kind == "text":
            texts.append(value)
            pairs += value.count(LATENT_PAIR)
            continue
        files.append(value.removeprefix("file://"))
        follows = bool(texts) and texts[-1].rstrip().endswith(LATENT_PAIR)
        if is_answer and not (follows and pairs == len(files) - before):
            raise DataError(f"{files[-1]} does not follow a latent pair of its own")
    if is_answer and pairs != len(files) - before:
        raise DataError(f"{name} has {pairs} latent pairs but {len(files) - before} cuts")
    return ("" if is_answer else "\n").join(texts).strip()


def _segments(cuts: list[str], video: Path, cut_s: float) -> list[dict[str, float]]:
    """The seconds that the cuts' names stand for; the last one ends with the video, where that can be looked at."""
    found = [_CUT_NAME.fullmatch(Path(cut).name) for cut in cuts]
    unnamed = next((cut for cut, match in zip(cuts, found, strict=True) if not match), None)
    if unnamed is not None:
        raise DataError(f"the name of {unnamed} does not end in a cut's number, as in name_3.mp4")
    if len({match[1] for match in found}) > 1:
        raise DataError(f"the cuts are of different videos: {', '.join(Path(cut).name for cut in cuts)}")
    try:
        duration_s = probe(video).duration_s
    except (MediaError, OSError, ValueError):
        duration_s = float("inf")  # not here yet; `validate` will look again
    segments = []
    for cut, match in zip(cuts, found, strict=True):
        start_s = int(match[2]) * cut_s
        if start_s >= duration_s:
            raise DataError(f"{Path(cut).name} starts at {start_s} s, but the video lasts {duration_s:.2f} s")
        segments.append({"start_s": start_s, "end_s": min(start_s + cut_s, round(duration_s, 3))})
    return segments


def _boxed(text: str) -> str:
    r"""What the last `\boxed{...}` of a text holds, braces inside included; "" without one."""
    _, box, rest = text.rpartition("\\boxed{")
    depth = 1
    for place, character in enumerate(rest if box else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if not depth:
            return rest[:place].strip()
    return ""
