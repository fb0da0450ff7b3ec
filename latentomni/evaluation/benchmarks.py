"""Public multiple-choice benchmarks as they are published: their files as items, and an answer's text as an option.

Read: Daily-Omni (2505.17862), WorldSense (2502.04326), OmniVideoBench (2510.10689), LVOmniBench (2603.19217) and Video-MME (2405.21075). A
folder holds the questions (JSON, JSON lines, TSV, or Parquet where pyarrow is installed) and the videos, where the publisher put them.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentomni.clock import Window
from latentomni.errors import DataError

__all__ = ["BENCHMARKS", "LETTERS", "Benchmark", "Item", "TimedStep", "option_of", "read_benchmark"]

LETTERS = "ABCDEFGH"
_VIDEO_FOLDERS = ("", "videos", "Videos", "video", "data", "test")
_VIDEO_ENDINGS = (".mp4", ".MP4", ".mkv", ".webm")
_ENDINGS = (".json", ".jsonl", ".tsv", ".parquet")
_TIME = re.compile(r"\b(?:(\d{1,2}):)?(\d{1,2}):(\d{2})\b")


@dataclass(frozen=True)
class TimedStep:
    """What the annotators looked or listened for. modality: "visual" or "audio". window: from the first to the last second that the
    step names, None where it names none."""

    modality: str
    window: Window | None


@dataclass(frozen=True)
class Item:
    """A question with options. video: where its file is to be, whether it is there or not. answer: the letter. categories: what the publisher
    groups by, by its name."""

    id: str
    video: Path
    question: str
    options: tuple[str, ...]
    answer: str
    categories: dict[str, str]
    steps: tuple[TimedStep, ...] = ()

    @property
    def prompt(self) -> str:
        """The question with its options, as every model is asked."""
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, self.options, strict=False))
        return f"{self.question}\n{options}\nAnswer with the letter of the right option."


@dataclass(frozen=True)
class Benchmark:
    """How one is published. files: names of its questions' file without their endings, the likeliest first. hears: whether sound is a part
    of it. rows: its file's content as items."""

    title: str
    files: tuple[str, ...]
    rows: Callable[[list[dict[str, Any]], Path], Iterator[Item]]
    hears: bool = field(default=True, kw_only=True)


def read_benchmark(name: str, folder: Path) -> list[Item]:
    """Its questions in the file's order. Raises DataError where there is no file, or one that is not as published."""
    benchmark = BENCHMARKS[name]
    known = [folder / (stem + ending) for stem in benchmark.files for ending in _ENDINGS]
    file = folder if folder.is_file() else next((path for path in known if path.is_file()), None)
    if file is None:
        raise DataError(f"{folder} holds no questions of {benchmark.title}: expected {benchmark.files[0]} as {', '.join(_ENDINGS)}; give the folder that does.")
    rows = _rows(file)
    try:
        items = list(benchmark.rows(rows, file.parent))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{file} is not as {benchmark.title} was published ({type(error).__name__}: {error}); download it again.") from None
    for item in items:
        if item.answer not in tuple(LETTERS[: len(item.options)]):
            raise DataError(f"{file}: question {item.id} has the answer {item.answer!r} and {len(item.options)} options; download it again.")
    if not items:
        raise DataError(f"{file} holds no question; download it again.")
    return items


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return _parquet_rows(file)
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".tsv":
            return list(csv.DictReader(text.splitlines(), delimiter="\t"))
        return [json.loads(line) for line in text.splitlines() if line.strip()] if file.suffix == ".jsonl" else json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file} cannot be read ({error}); download it again.") from None


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{file.name} is a Parquet file, which needs pyarrow; `pip install pyarrow`, or convert it to JSON lines.") from None
    try:
        return parquet.read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        raise DataError(f"{file} cannot be read ({error}); download it again.") from None


def _daily_omni(rows: list[dict[str, Any]], folder: Path) -> Iterator[Item]:
    for number, row in enumerate(rows):
        video = _video(folder, f"{row['video_id']}/{row['video_id']}_video")
        yield _item(str(number), video, row["Question"], row["Choice"], row["Answer"], row,
                    {"type": "Type", "duration": "video_duration", "video category": "video_category"})  # fmt: skip


def _worldsense(rows: list[dict[str, Any]], folder: Path) -> Iterator[Item]:
    for row in rows:
        video = folder / row["video_path"]
        yield _item(str(row["index"]), video if video.is_file() else _video(folder, Path(row["video_path"]).stem), row["question"], row["candidates"],
                    row["answer"], row, {"task": "task_type", "domain": "task_domain", "duration": "duration"})  # fmt: skip


def _omnivideobench(rows: list[dict[str, Any]], folder: Path) -> Iterator[Item]:
    for row in rows:
        for number, asked in enumerate(row["questions"]):
            steps = tuple(_step(step) for step in asked.get("reasoning_steps") or ())
            yield _item(f"{row['video']}-{number}", _video(folder, row["video"]), asked["question"], asked["options"], asked["correct_option"],
                        row | asked, {"type": "question_type", "audio": "audio_type", "video type": "video_type"}, steps)  # fmt: skip


def _lvomnibench(rows: list[dict[str, Any]], folder: Path) -> Iterator[Item]:
    for number, row in enumerate(rows):
        yield _item(str(number), _video(folder, row["video_id"]), row["question"], row["options"], row["correct_option"], row,
                    {"difficulty": "difficulty", "type": "question_type"})  # fmt: skip


def _videomme(rows: list[dict[str, Any]], folder: Path) -> Iterator[Item]:
    for row in rows:
        yield _item(str(row["question_id"]), _video(folder, row["videoID"]), row["question"], row["options"], row["answer"], row,
                    {"duration": "duration", "domain": "domain", "task": "task_type"})  # fmt: skip


BENCHMARKS = {
    "daily-omni": Benchmark("Daily-Omni", ("qa", "QA_all"), _daily_omni),
    "worldsense": Benchmark("WorldSense", ("worldsense", "test", "test-00000-of-00001"), _worldsense),
    "omnivideobench": Benchmark("OmniVideoBench", ("data", "OmniVideoBench"), _omnivideobench),
    "lvomnibench": Benchmark("LVOmniBench", ("data", "LVOmniBench"), _lvomnibench),
    "videomme": Benchmark("Video-MME", ("videomme", "test", "test-00000-of-00001"), _videomme, hears=False),
}


def _item(name: str, video: Path, question: str, options: Iterable[str] | str, answer: str, row: dict[str, Any], groups: dict[str, str],
          steps: tuple[TimedStep, ...] = ()) -> Item:  # fmt: skip
    options = json.loads(options) if isinstance(options, str) else options  # a table's cell
    categories = {group: str(row[key]).strip() for group, key in groups.items() if row.get(key) not in (None, "")}
    return Item(name, video, question.strip(), tuple(map(_without_letter, options)), answer.strip().strip(".()").upper()[:1], categories, steps)


def _without_letter(option: str) -> str:
    return re.sub(r"^\s*\(?[A-H][.):]\s*", "", option).strip()


def _video(folder: Path, name: str) -> Path:
    """Where a video is, or would be."""
    tried = [folder / place / (name + ending) for place in _VIDEO_FOLDERS for ending in _VIDEO_ENDINGS]
    return next((path for path in tried if path.is_file()), tried[len(_VIDEO_ENDINGS)])


def _step(step: dict[str, Any]) -> TimedStep:
    """Keys and modalities are misspelled in places ("evidece", "nmodality", "aduio")."""
    modality = next((str(value).lower() for key, value in step.items() if key.lower().lstrip("n").startswith("mod")), "")
    said = next((str(value) for key, value in step.items() if key.lower().startswith("evid")), "")
    times = [int(h or 0) * 3600 + int(m) * 60 + int(s) for h, m, s in _TIME.findall(said)]
    return TimedStep("audio" if modality.startswith("a") else "visual", Window(float(min(times)), float(max(times)) + 1.0) if times else None)


def option_of(text: str, options: tuple[str, ...]) -> str | None:
    """The letter that an answer chooses: the last that it calls its answer, else the first that stands alone ("B", "(B)", "B."; an article at the
    head of a sentence does not), else the only option whose words it names; None where it chooses none."""
    letters = LETTERS[: len(options)]
    called = re.findall(rf"\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([{letters}])\b", text, re.IGNORECASE)
    if called:
        return called[-1].upper()
    alone = re.search(rf"(?<![\w'])\(?([{letters}])(?=[).:,]|\s*$)", text.strip())
    if alone:
        return alone[1]
    plain = [" ".join(re.findall(r"\w+", value.lower())) for value in (text, *options)]
    named = [letter for letter, option in zip(letters, plain[1:], strict=True) if option and f" {option} " in f" {plain[0]} "]
    return named[0] if len(named) == 1 else None
