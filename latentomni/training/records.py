"""Training data: a JSONL file becomes Records, a Record the turns that one of four recipes learns. docs/DATA.md is the schema."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from latentomni.clock import WINDOW_STEP_S, Window
from latentomni.config import Mode
from latentomni.errors import DataError, LatentOmniError, MediaError, RequestError, plain
from latentomni.media import probe
from latentomni.modeling import LATENT_TOKENS
from latentomni.processing import check_question
from latentomni.training.members import Member
from latentomni.training.turns import Segment, Turn

__all__ = ["LATENT_PAIR", "Record", "Style", "read_records", "row_problems", "turns", "validate"]

LATENT_PAIR = "".join(LATENT_TOKENS[:2])
_ROW = {"media": str, "messages": list, "segments": list, "answer": str, "id": str, "family": str, "member": dict}
_MESSAGE = {"role": str, "content": str}
_SEGMENT = {"start_s": float, "end_s": float, "caption": str, "asked": str}
_REQUIRED = {"media", "messages", *_MESSAGE, "start_s", "end_s"}
_TYPE_NAMES = {str: "Unicode text", list: "a list", float: "a number of seconds", dict: "an object"}
_SPECIAL = re.compile(r"<\|\w+\|>|" + "|".join(LATENT_TOKENS))
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON lets it pass, no tokenizer does
_LISTED = 10  # problems that an error lists before it only counts
_MAX_S = 1e6
_MAX_CHARS = 500  # of a problem


class Style(str, Enum):
    """What a recipe makes of a record. latentomni: segments are latent blocks. explicit-text-cot: segments are told by their
    captions. vanilla-sft: segments are left out. direct: the answer alone."""

    LATENTOMNI = "latentomni"
    EXPLICIT_TEXT_COT = "explicit-text-cot"
    VANILLA_SFT = "vanilla-sft"
    DIRECT = "direct"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise RequestError(f"unknown style '{value}'; choose one of {', '.join(style.value for style in cls)}")


@dataclass(frozen=True)
class Record:
    """One row of a training file. conversation: its turns with every segment, in latent mode. answer: the short final one.
    system: kept, but the prompt of this project has no place for it. member: where the clip lies, if in a shard."""

    media: Path
    conversation: tuple[Turn, ...]
    answer: str
    system: str
    id: str
    family: str
    line: int
    member: Member | None = None


def turns(record: Record, style: Style | str) -> tuple[Turn, ...]:
    """What `style` learns from a record. DataError where explicit-text-cot has no caption to tell."""
    style = Style(style)
    if style is Style.LATENTOMNI:
        return record.conversation
    if style is Style.DIRECT:
        answers = [turn.parts[-1] for turn in record.conversation[:-1]] + [record.answer]
        return tuple(replace(t, mode=Mode.DIRECT, parts=(a,)) for t, a in zip(record.conversation, answers, strict=True))
    if style is Style.VANILLA_SFT:
        texts = [[part for part in turn.parts if isinstance(part, str)] for turn in record.conversation]
        parts = [(*text[:1], *(f" {more}" for more in text[1:])) for text in texts]
        return tuple(replace(t, mode=Mode.TEXT_COT, parts=p) for t, p in zip(record.conversation, parts, strict=True))
    segments = [part for turn in record.conversation for part in turn.parts if isinstance(part, Segment)]
    silent = next((number for number, segment in enumerate(segments, 1) if not segment.caption), None)
    if silent is not None:
        told = f"segment {silent} has no caption, which {style.value} tells in place of latents"
        raise DataError(f"line {record.line}: {told}; add captions or train another recipe.")
    return tuple(replace(turn, mode=Mode.TEXT_COT) for turn in record.conversation)


def read_records(path: Path | str) -> list[Record]:
    """Every record of a file, whose media are there (`validate` also looks into them). DataError lists the first problems."""
    records, errors = [], []
    for line, row, problems in _rows(Path(path), _existing):
        errors += problems
        if not problems:
            records.append(_record(row, Path(path).parent, line))
    if errors:
        count = f"{len(errors)} problem{'s' * (len(errors) > 1)}"
        first = "\n".join(errors[:_LISTED])
        more = f"; the first {_LISTED}" if len(errors) > _LISTED else ""
        raise DataError(f"{path} does not follow the schema of docs/DATA.md ({count}{more}):\n{first}")
    return records


def validate(path: Path | str) -> tuple[int, list[str]]:
    """How many rows a file has, and all that is wrong with them and their media, each with its line."""
    found = [problems for _, _, problems in _rows(Path(path), cache(_duration_s))]
    return len(found), [problem for problems in found for problem in problems]


def row_problems(row: Any) -> list[str]:
    """All that is wrong with one row but for its media."""
    problems: list[str] = []
    values = _fields(row, "", _ROW, problems)
    if "media" in values and not values["media"]:
        problems.append("'media' is empty; name the clip's file")
    if "messages" in values:
        pairs = _check_messages(values["messages"], problems)
        segments = len(values.get("segments", []))
        if pairs != segments:
            counted = f"{pairs} latent pair{'s' * (pairs != 1)} but {segments} segment{'s' * (segments != 1)}"
            problems.append(f"there {'is' if pairs == 1 else 'are'} {counted}; each {LATENT_PAIR} needs its own segment")
    for number, segment in enumerate(values.get("segments", []), 1):
        _check_segment(segment, f"segment {number}", problems)
    if "answer" in values:
        _check_text(values["answer"], "'answer'", problems)
    return problems


def _rows(path: Path, look: Callable[[Path], float]) -> Iterator[tuple[int, Any, list[str]]]:
    """Line number, row and problems of every line that is not blank. `look` gives a clip's seconds or raises MediaError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a JSONL file.") from None
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds no rows; write one JSON object a line (docs/DATA.md).")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row, problems = None, [f"the line is not JSON ({error}); write one object a line"]
        else:
            problems = row_problems(row) + _media_problems(row, path.parent, look)
        yield number, row, [f"line {number}: {plain(problem, _MAX_CHARS)}." for problem in problems]


def _fields(value: Any, name: str, known: dict[str, type], problems: list[str]) -> dict[str, Any]:
    """The entries of a JSON object that are as they should be; what is not is noted."""
    prefix = f"{name}: " if name else ""
    if not isinstance(value, dict):
        problems.append(f"{prefix}expected an object with {', '.join(known)}, got {_shown(value)}")
        return {}
    for key in sorted(value.keys() - known.keys()):
        near = get_close_matches(key, known, 1, 0.0)
        problems.append(f"{prefix}unknown key '{key:.40}'; the nearest known one is '{near[0]}'")
    problems += [f"{prefix}'{key}' is missing" for key in known if key in _REQUIRED and key not in value]
    wrong = {key for key, kind in known.items() if key in value and not _is_a(value[key], kind)}
    problems += [
        f"{prefix}'{key}' must be {_TYPE_NAMES[known[key]]}, got {_shown(value[key])}" for key in known if key in wrong
    ]
    return {key: value[key] for key in known if key in value and key not in wrong}


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_S
    return isinstance(value, kind) and not (kind is str and _LONE_SURROGATE.search(value))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _check_messages(messages: list[Any], problems: list[str]) -> int:
    """Note what is wrong with a conversation; returns how many latent pairs its answers hold."""
    pairs, expected = 0, "user"
    for number, message in enumerate(messages, 1):
        values = _fields(message, f"message {number}", _MESSAGE, problems)
        role, text = values.get("role", expected), values.get("content")
        if role == "system" and number == 1:
            expected = "user"
        elif role != expected:
            problems.append(f"message {number} is from {_shown(role)}, where {expected} was expected")
            expected = "assistant" if role == "user" else "user"
        else:
            expected = "assistant" if expected == "user" else "user"
        if text is None:
            continue
        if role == "assistant":
            pieces = text.split(LATENT_PAIR)
            pairs += len(pieces) - 1
            if len(pieces) > 1 and not pieces[-1].strip():
                problems.append(f"message {number} ends with a latent pair; write the answer behind it")
            text = " ".join(pieces)
        _check_text(text, f"message {number}", problems, is_question=role == "user")
    if expected == "assistant" or not messages or len(messages) == 1:
        problems.append("the conversation needs a question of the user and, last, an answer of the assistant")
    return pairs


def _check_text(text: str, name: str, problems: list[str], *, is_question: bool = False) -> None:
    problems += [
        f"{name} holds '{token}'; special tokens are set by the program, but for the pairs {LATENT_PAIR} of an answer"
        for token in sorted(set(_SPECIAL.findall(text)))
    ]
    if not text.strip():
        problems.append(f"{name} is empty; write its text")
    elif is_question:
        try:
            check_question(text)
        except RequestError as error:
            problems.append(f"{name}: {error}")


def _check_segment(segment: Any, name: str, problems: list[str]) -> None:
    values = _fields(segment, name, _SEGMENT, problems)
    for key in ("caption", "asked"):
        if values.get(key):
            _check_text(values[key], f"'{key}' of {name}", problems)
    start_s, end_s = values.get("start_s", 0.0), values.get("end_s", math.inf)
    if start_s < 0:
        problems.append(f"{name} starts at {start_s}, before the clip; count seconds from its start")
    if end_s < start_s:
        problems.append(f"{name} ends ({end_s}) before it starts ({start_s}); swap them")
    elif end_s == start_s:
        problems.append(f"{name} is empty, it starts and ends at {start_s}; widen it")


def _media_problems(row: Any, folder: Path, look: Callable[[Path], float]) -> list[str]:
    """What is wrong with a row's clip, and which segments lie outside it."""
    media = row.get("media") if isinstance(row, dict) else None
    if not isinstance(media, str) or not media:
        return []
    try:
        member = row.get("member")
        duration_s = Member.from_dict(member, folder).info.duration_s if isinstance(member, dict) else look(folder / media)
    except LatentOmniError as error:
        return [str(error)]
    except (OSError, ValueError):  # too long, or with a zero byte
        return [f"'media' is no path of a file, got {_shown(media)}; name the clip's file"]
    segments = row.get("segments")
    ends_s = [s.get("end_s") if isinstance(s, dict) else None for s in (segments if isinstance(segments, list) else [])]
    return [
        f"segment {number} ends at {end_s} s, but {media} lasts {duration_s:.2f} s"
        for number, end_s in enumerate(ends_s, 1)
        if _is_a(end_s, float) and end_s > duration_s + WINDOW_STEP_S / 2
    ]


def _existing(path: Path) -> float:
    """As `probe` refuses a missing file; how long it lasts is not asked."""
    if not path.is_file():
        raise MediaError(f"There is no file {path}; check the path.")
    return math.inf


def _duration_s(path: Path) -> float:
    return probe(path).duration_s


def _record(row: dict[str, Any], folder: Path, line: int) -> Record:
    """The Record of a row without problems."""
    segments = iter(row.get("segments", ()))
    texts = [message["content"] for message in row["messages"]]
    system = texts.pop(0) if row["messages"][0]["role"] == "system" else ""
    conversation = tuple(
        Turn(question, Mode.LATENT, tuple(_parts(answer, segments)))
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )
    answer = row.get("answer", conversation[-1].parts[-1])
    member = Member.from_dict(row["member"], folder) if "member" in row else None
    return Record(folder / row["media"], conversation, answer, system, row.get("id", ""), row.get("family", ""), line, member)


def _parts(answer: str, segments: Iterator[dict[str, Any]]) -> Iterator[str | Segment]:
    """Texts and segments in turn. Space around a latent block belongs to neither: words are set apart where they are shown."""
    for number, text in enumerate(answer.split(LATENT_PAIR)):
        if number:
            segment = next(segments)
            asked, caption = (segment.get(key, "").strip() for key in ("asked", "caption"))
            yield Segment(_on_grid(segment["start_s"], segment["end_s"]), asked, caption)
        if text.strip():
            yield text.strip()


def _on_grid(start_s: float, end_s: float) -> Window:
    """The window in the steps in which a model can write it; at least one."""
    first, last = (math.floor(time_s / WINDOW_STEP_S + 0.5) for time_s in (start_s, end_s))
    if first == last:
        first = math.floor((start_s + end_s) / 2 / WINDOW_STEP_S)
    return Window(first * WINDOW_STEP_S, max(last, first + 1) * WINDOW_STEP_S)
