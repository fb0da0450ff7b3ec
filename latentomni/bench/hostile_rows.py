"""Training files that are damaged or hostile, given to the validator and the reader."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.avworld.questions import draw_questions
from latentomni.avworld.sound import render_sound
from latentomni.avworld.truth import training_row
from latentomni.bench.damage import ODD_TEXTS, Attacked, damaged, damaged_json
from latentomni.bench.hostile_media import write_sound
from latentomni.errors import DataError
from latentomni.training.records import read_records, validate

__all__ = ["row_feeder"]

_FILE = Path("train.jsonl")
_ODD_FILES = (
    b"",
    b"\n\n",
    b"\xff\xfe" + "{}".encode("utf-16-le"),
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 100_000,
    b"{}" * 5000,
    b'{"media":' + b"9" * 5000 + b"}",
    b"\x00" * 4096,
    b'{"media":1e999}',
    b'{"media":NaN}',
    b'{"media":"a","media":"b"}',
    b'{"messages":' + b"[]," * 3000,
    b"null",
    b"true",
    b'"' + b"x" * 2_000_000 + b'"',
    b'"\\ud800"',
    b"{}\r{}\x0b{}\x85{}",
)


def row_feeder(kind: str, attacked: Attacked) -> Callable[[np.random.Generator, int], None]:
    """Feeds a file of rows; a problem that the validator lists is a refusal."""
    drawn = draw_questions("train", 12, attacked.seed)
    write_sound(Path("a.wav"), render_sound(drawn[0][0]))
    Path("pipe.mp4").exists() or os.mkfifo("pipe.mp4")
    rows = [training_row(question, "a.wav") for _, question in drawn]

    def feed(rng: np.random.Generator, number: int) -> None:
        _FILE.write_bytes(_hostile(rng, rows, number))
        _, problems = validate(_FILE)
        if problems:
            raise DataError(problems[int(rng.integers(len(problems)))])
        read_records(_FILE)

    return feed


def _hostile(rng: np.random.Generator, rows: list[dict[str, Any]], number: int) -> bytes:
    if number % 8 == 0:
        return _ODD_FILES[number // 8 % len(_ODD_FILES)]
    some = [rows[int(i)] for i in rng.integers(0, len(rows), int(rng.integers(1, 4)))]
    if number % 8 == 1:  # the clip's file is another
        some[0] = some[0] | {
            "media": [*ODD_TEXTS, "pipe.mp4", ".", "train.jsonl", "/proc/self/mem", "/dev/random"][
                number // 8 % (len(ODD_TEXTS) + 5)
            ]
        }
    elif number % 8 < 5:
        some = [damaged_json(rng, row) for row in some]
    data = b"\n".join(json.dumps(row).encode() for row in some)
    return data if number % 8 < 5 else damaged(rng, data, json.dumps(rows[0]).encode())
