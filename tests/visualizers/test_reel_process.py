"""A reel cut in a process of its own: the same film, and an end to whatever goes wrong with it."""

import time
from pathlib import Path

import pytest

from latentomni.errors import MediaError, RequestError
from latentomni.trace import Trace
from visualizers.reel import write_reel
from visualizers.reel_process import write_reel_apart

EXAMPLES = Path(__file__).parents[2] / "examples"
TRACE, CLIP = EXAMPLES / "1-colour.trace.zip", EXAMPLES / "1-colour.mp4"


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Puts a program of these lines in ffmpeg's place."""

    def put(lines):
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))

    return put


def reels(folder):
    return [path.name for path in folder.iterdir() if path.name != "ffmpeg"]


def test_it_is_the_film_that_this_process_would_cut(tmp_path):
    write_reel_apart(TRACE, CLIP, tmp_path / "apart.mp4")
    write_reel(Trace.load(TRACE), CLIP, tmp_path / "here.mp4")
    assert (tmp_path / "apart.mp4").read_bytes() == (tmp_path / "here.mp4").read_bytes()
    assert sorted(reels(tmp_path)) == ["apart.mp4", "here.mp4"]


def test_what_is_refused_is_refused_in_the_same_words(tmp_path):
    with pytest.raises(RequestError, match=r"about 1-colour.mp4, and 2-shape.mp4 is missing or another"):
        write_reel_apart(TRACE, EXAMPLES / "2-shape.mp4", tmp_path / "reel.mp4")
    assert reels(tmp_path) == []


def test_an_ffmpeg_that_hangs_is_ended_and_leaves_nothing(tmp_path, ffmpeg):
    ffmpeg(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    began_s = time.monotonic()
    with pytest.raises(MediaError, match=r"1-colour.mp4 takes more than 6 s to cut; cut it shorter or scale it down"):
        write_reel_apart(TRACE, CLIP, tmp_path / "reel.mp4", 6.0)
    assert time.monotonic() - began_s < 60
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("ffmpeg goes on")
    assert reels(tmp_path) == ["pid"]


def test_an_ffmpeg_that_breaks_its_process_is_told_in_a_sentence(tmp_path, ffmpeg):
    ffmpeg("kill -9 $PPID")
    with pytest.raises(MediaError, match=r"1-colour.mp4 could not be cut, because reading it broke ffmpeg; save it as mp4 first"):
        write_reel_apart(TRACE, CLIP, tmp_path / "reel.mp4")
    assert reels(tmp_path) == []
