"""What a fuzzer found: each kind of failure once, with the input that showed it; and how it changes JSON without breaking its syntax."""

import hashlib
import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import atheris
import numpy as np

from latentomni.bench.abuse import flaw
from latentomni.bench.damage import damaged_json

__all__ = ["Findings", "mutated"]


def mutated(data: bytes, most_bytes: int, seed: int, head_bytes: int = 0) -> bytes:
    """The fuzzer's own mutation, or, as often, another value in the JSON that stands behind the first `head_bytes`."""
    rng = np.random.default_rng(seed)
    try:
        value = json.loads(data[head_bytes:]) if rng.random() < 0.5 else None
    except (ValueError, RecursionError):
        value = None
    if value:
        data = data[:head_bytes] + json.dumps(damaged_json(rng, value)).encode()
        return data if len(data) <= most_bytes else data[:most_bytes]
    return atheris.Mutate(data, len(data) + 64 if len(data) + 64 < most_bytes else most_bytes)


class Findings:
    """corpus: the fuzzer's folder, made where it is missing. scratch: a folder in memory where there is one."""

    def __init__(self, corpus: Path) -> None:
        self.folder = corpus.with_name(f"{corpus.name}-findings")
        for folder in (corpus, self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        memory = Path("/dev/shm")
        self.scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
        self._known: set[str] = set()

    @contextmanager
    def noted(self, data: bytes, refusal: type[Exception]) -> Iterator[None]:
        """Let refusals pass that are plain sentences; note all else."""
        try:
            yield
        except refusal as error:
            self.check(data, str(error))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._note(data, f"{type(error).__name__} {where.filename}:{where.lineno}", traceback.format_exc())

    def check(self, data: bytes, sentence: str) -> None:
        if found := flaw(sentence, str(self.scratch.parent)):
            self._note(data, f"{found}: {sentence[:30]}", sentence)

    def _note(self, data: bytes, name: str, told: str) -> None:
        if name not in self._known:
            self._known.add(name)
            (self.folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            print(f"FOUND {name}\n{told}", file=sys.stderr, flush=True)
