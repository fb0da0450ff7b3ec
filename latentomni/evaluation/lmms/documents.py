"""What the task folders are made of: a benchmark's questions as lmms-eval's documents, and an answer's score, both as `eval` has them.

A task's questions lie in the folder of its name in LATENTOMNI_DATA: as they were published, or as `data avworld` wrote them. Its own data file
names the benchmark alone, so that nothing of it stands here twice.
"""

import json
import os
from pathlib import Path
from typing import Any

from latentomni.avworld import parse_answer
from latentomni.errors import DataError, require
from latentomni.evaluation.benchmarks import option_of, read_benchmark

__all__ = ["FAILED", "TASKS", "asked", "documents", "messages", "process_results", "rows"]

FAILED = "[!]"  # in the place of an answer; no letter, so that no task's parser finds an option in it
TASKS = Path(__file__).parent / "tasks"
_AVWORLD = "avworld"


def documents(dataset: Any) -> Any:
    """A task's data file, which names its benchmark, as the dataset of its questions. dataset: a `datasets.Dataset`; so is what is returned."""
    root = os.environ.get("LATENTOMNI_DATA", "")
    require(bool(root), "LATENTOMNI_DATA is not set; give the folder that holds a folder of each benchmark.")
    name = dataset[0]["benchmark"]
    return dataset.from_list(rows(name, Path(root) / name))


def rows(name: str, folder: Path) -> list[dict[str, Any]]:
    """One a question: id, video, prompt, options (none in AV World), answer, family (of AV World) and categories, as JSON. Raises
    DataError."""
    if name == _AVWORLD:
        return _avworld_rows(folder)
    items = read_benchmark(name, folder)
    return [{"id": i.id, "video": str(i.video), "prompt": i.prompt, "options": list(i.options), "answer": i.answer, "family": "",
             "categories": json.dumps(i.categories)} for i in items]  # fmt: skip


def _avworld_rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / "questions.jsonl"
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [{"id": str(number), "video": str(folder / line["clip"]), "prompt": line["text"], "options": [], "answer": line["answer"],
                 "family": line["family"], "categories": json.dumps({"family": line["family"]})} for number, line in enumerate(lines)]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}); write it with `data avworld --split test --seed 20000 --out {folder}`.") from None


def messages(document: dict[str, Any]) -> list[dict[str, Any]]:
    """As every chat model of lmms-eval is asked: the video, then the question with its options."""
    content = [{"type": "video", "url": document["video"]}, {"type": "text", "text": document["prompt"]}]
    return [{"role": "user", "content": content}]


def asked(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """The file and the question of messages, ours or another task's. Raises RequestError unless it is one whole video or sound file."""
    parts = [part for message in messages if message["role"] == "user" for part in message["content"]]
    media = [part.get("url") for part in parts if part["type"] != "text"]
    is_one = len(media) == 1 and isinstance(media[0], str) and all(part["type"] != "image" for part in parts)
    require(is_one, f"LatentOmni is asked about one video or sound file, and this question has {len(media)} media; choose another task.")
    return media[0], "\n".join(part["text"] for part in parts if part["type"] == "text")


def process_results(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """accuracy: 1 where the answer is right. failed: 1 where it could not be asked. unread: 1 where it names no option. The latter two are
    wrong as well."""
    text = results[0]
    is_failed = text == FAILED
    chosen = parse_answer(document["family"], text) if document["family"] else option_of(text, tuple(document["options"]))
    return {"accuracy": float(chosen == document["answer"] and not is_failed), "failed": float(is_failed), "unread": float(chosen is None and not is_failed)}
