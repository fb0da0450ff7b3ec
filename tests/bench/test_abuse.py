"""Hostile inputs: none crashes or hangs an entry; and the harness sees it where one does."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from latentomni.bench import abuse
from latentomni.bench.abuse import bench_abuse, flaw
from latentomni.bench.damage import ODD_VALUES, Attacked, damaged, damaged_json
from latentomni.commands.bench import show_as_page
from latentomni.errors import TraceError


@pytest.mark.timeout(600)
def test_sixty_hostile_inputs_are_refused_or_answered():
    report = bench_abuse(show_as_page, repeats=60, seed=1)
    assert report["found"] == [] and report["is_clean"]
    assert report["inputs"] == 60 == report["refused"] + report["answered"]
    assert report["refused"] > 10 and report["answered"] > 3
    assert sum(kind["inputs"] for kind in report["kinds"].values()) == 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clip.mp4 is empty (0 bytes); record it again.", ""),
        ("a.mp4 is no film (mp4 can be read.)", ""),
        ("", "empty"),
        ("One.\nTwo.", "more than a line"),
        ("One\u2028two.", "more than a line"),
        ("A \x1b[2J.", "unprintable"),
        ("No stop", "no full stop"),
        ("Traceback (most recent call last).", "a traceback"),
        ("There is no file /srv/uploads/a.mp4.", "a folder of the server"),
        (f"{'long ' * 300}.", "too long"),
    ],
)
def test_what_is_no_plain_sentence_is_told(text, said):
    assert flaw(text, "/srv/uploads") == said


def broken(trace):
    """What a broken page might do with the first four traces that it is given."""
    counter = Path("shown")
    shown = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (shown + 1))
    if shown == 0:
        raise KeyError("a defect")
    if shown == 1:
        raise TraceError("two\nlines")
    if shown == 2:
        threading.Event().wait()
    if shown == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_defects_are_seen_counted_and_survived(tmp_path, monkeypatch):
    """The harness itself, with an entry that is broken on purpose."""
    monkeypatch.setattr(abuse, "_HANG_S", 15.0)
    found, worker = [], abuse._Worker(Attacked(tmp_path, 1, "nano", broken))
    try:
        counts = abuse._attacked(worker, "traces_damaged", 30, found)
    finally:
        worker.end()
    assert (counts["crashes"], counts["hangs"], counts["unclear"]) == (2, 1, 1) and counts["answered"] > 0
    assert counts["crashes"] + counts["hangs"] + counts["refused"] + counts["answered"] == 30
    tails = ["KeyError: 'a defect'\n", "more than a line: two\nlines", "no end within 15 s", "the process died with status -9"]
    assert [one["told"].endswith(tail) for one, tail in zip(found, tails, strict=True)] == [True] * 4


def test_equal_seeds_damage_alike():
    data, value = bytes(range(256)) * 8, {"a": [1, {"b": "c"}], "d": 2.5}
    twice = [[damaged(np.random.default_rng([3, i]), data, data[::-1]) for i in range(50)] for _ in range(2)]
    assert twice[0] == twice[1] and len(set(twice[0])) > 40
    once = [damaged_json(np.random.default_rng([3, i]), value) for i in range(50)]
    assert [repr(v) for v in once] == [repr(damaged_json(np.random.default_rng([3, i]), value)) for i in range(50)]
    assert value == {"a": [1, {"b": "c"}], "d": 2.5} and len({repr(v)[:200] for v in once}) > 20
    assert any(v is None for v in ODD_VALUES)
