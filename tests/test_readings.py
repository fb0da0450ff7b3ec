"""Readings other than the plain one: cuts, pictures or sound left out, and what names a clip then."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from latentomni.config import MediaLimits, ReadingSpec
from latentomni.errors import RequestError
from latentomni.media import probe, read_clip
from tests.media_files import drawn, indices, write

CUTS = [(1.0, 2.5), (0.5, None), (0.0, 1.0), (1.25, 2.0), (2.9, None)]


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_is_what_the_whole_clip_holds_there(tmp_path: Path, cut: tuple[float, float | None]) -> None:
    path = write(tmp_path / "clip.mkv", "libx264", "flac", sound=np.random.default_rng(0).normal(0, 0.1, (1, 144_000)))
    whole, clip = read_clip(path), read_clip(path, reading=ReadingSpec(start_s=cut[0], end_s=cut[1]))
    start_s, end_s = cut[0], cut[1] or whole.duration_s
    assert clip.duration_s == pytest.approx(end_s - start_s) and clip.sample_fps == 2.0
    first = round(start_s * 16_000)
    assert np.array_equal(clip.waveform, whole.waveform[first : first + round(clip.duration_s * 16_000)])
    shown_s = [start_s + k / 2 for k in range(len(clip.frames))]
    assert indices(clip) == [int(10 * t + 1e-6) for t in shown_s] and shown_s[-1] < end_s < shown_s[-1] + 0.5 + 1e-6
    presented_s = np.floor(10 * np.array(shown_s) + 1e-6) / 10 - start_s
    assert np.allclose(clip.frame_times_s, presented_s.clip(0), atol=1e-3)
    assert clip.notices == (f"Read from {start_s:.1f} to {end_s:.1f} s of the file.",)


@pytest.mark.parametrize(("name", "codec"), [("b.mp4", "libx264"), ("b.webm", "libvpx-vp9"), ("b.avi", "mpeg4")])
def test_a_cut_decodes_what_its_pictures_refer_to(tmp_path: Path, name: str, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    pictures = [np.ascontiguousarray(noise[i : i + 96, 2 * i : 2 * i + 128]) for i in range(40)]
    path = write(tmp_path / name, codec, pictures=pictures, codec_options={"bf": "2"} if codec != "libvpx-vp9" else {})
    whole, clip = read_clip(path, fps=2), read_clip(path, fps=2, reading=ReadingSpec(start_s=1.5, end_s=3.0))
    assert np.array_equal(clip.frames, whole.frames[3:6])


def test_a_cut_gets_the_frames_that_the_whole_has_no_room_for(tmp_path: Path) -> None:
    path, limits = write(tmp_path / "clip.mp4", "libx264"), MediaLimits(max_frames=6)
    assert read_clip(path, fps=10, limits=limits).sample_fps == pytest.approx(2.0)
    clip = read_clip(path, limits=limits, reading=ReadingSpec(fps=10, start_s=1.0, end_s=1.5))
    assert clip.sample_fps == 10 and indices(clip) == [10, 11, 12, 13, 14]


def test_picture_and_sound_can_be_switched_off(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "libx264", "aac")
    whole = read_clip(path)
    deaf, blind = (read_clip(path, reading=ReadingSpec(**{name: False})) for name in ("sound", "picture"))
    assert deaf.waveform is None and np.array_equal(deaf.frames, whole.frames) and deaf.notices == ("The sound is switched off.",)
    assert len(blind.frames) == 0 and blind.notices == ("The picture is switched off.",)
    assert np.array_equal(blind.waveform, whole.waveform[: len(blind.waveform)])
    for codecs, reading, said in ((("libx264", None), ReadingSpec(picture=False), "has no sound, and its picture is switched off"),
                                  ((None, "flac"), ReadingSpec(sound=False), "has no picture, and its sound is switched off")):  # fmt: skip
        with pytest.raises(RequestError, match=said):
            read_clip(write(tmp_path / "one.mkv", *codecs), reading=reading)


def test_a_cut_behind_the_end_is_refused_and_one_behind_the_picture_has_sound_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "short.mkv", "libx264", "flac", pictures=[drawn(9)] * 10)
    with pytest.raises(RequestError, match=r"short.mkv lasts 3.0 s, so nothing of it is left from 4 s on"):
        read_clip(path, reading=ReadingSpec(start_s=4.0))
    clip = read_clip(path, reading=ReadingSpec(start_s=1.5))
    assert len(clip.frames) == 0 and clip.duration_s == pytest.approx(1.5, abs=0.05) and "This clip has no picture." in clip.notices


def test_every_reading_has_a_name_of_its_own_and_the_files_hash_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "libx264", "aac")
    readings = [ReadingSpec(), ReadingSpec(fps=3), ReadingSpec(max_pixels=784), ReadingSpec(start_s=1), ReadingSpec(end_s=1),
                ReadingSpec(sound=False), ReadingSpec(picture=False)]  # fmt: skip
    clips = [read_clip(path, reading=reading) for reading in readings]
    assert len({clip.sha256 for clip in clips}) == len(readings)
    assert {clip.file_sha256 for clip in clips} == {clips[0].sha256} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert read_clip(path, reading=ReadingSpec(start_s=1.0)).sha256 == clips[3].sha256
    assert [clip.reading for clip in clips] == readings


def test_probe_tells_when_the_picture_ends(tmp_path: Path) -> None:
    for name, codecs in (("a.mp4", ("libx264", "aac")), ("a.mkv", ("libx264", "flac")), ("a.avi", ("mpeg4", "pcm_s16le"))):
        path = write(tmp_path / name, *codecs, pictures=[drawn(9)] * 10)
        assert probe(path).picture_end_s == pytest.approx(1.0, abs=0.01) and probe(path).duration_s == pytest.approx(3.0, abs=0.05)
    assert probe(write(tmp_path / "a.wav", None, "pcm_s16le")).picture_end_s == 0
