"""Picture and sound: the same drawing at every size, events where the truth says, files that play."""

import json
from dataclasses import asdict, replace
from itertools import product

import av
import numpy as np
import pytest

from latentomni.avworld import render_frames, render_sound, sample_world, world_clip
from latentomni.avworld.questions import draw_questions
from latentomni.avworld.truth import truth_sha256
from latentomni.avworld.vocabulary import SOUNDS
from latentomni.avworld.world import SCENE_S, World
from latentomni.avworld.writing import write_split
from latentomni.clock import SAMPLE_RATE_HZ


def test_every_size_shows_the_same_drawing() -> None:
    for seed in range(4):
        world = sample_world(seed, "train")
        times_s = np.arange(world.duration_s) + 0.5
        small, large = render_frames(world, times_s, 112), render_frames(world, times_s, 448)
        reduced = large.reshape(len(times_s), 112, 4, 112, 4, 3).astype(float).mean((2, 4))
        assert np.abs(reduced - small).mean() < 0.6
        assert np.abs(reduced - small).max() < 40  # one pixel of a sharp edge


def _object_mask(world: World, time_s: float) -> np.ndarray:
    """(448, 448) where the white outline or the fill hides the background."""
    frame = render_frames(world, np.array([time_s]), 448)[0].astype(int)
    return (frame.min(2) > 235) | (frame.max(2) - frame.min(2) > 125)


def test_the_object_stands_in_its_corner_whole() -> None:
    for seed in range(6):
        world = sample_world(seed, "train")
        for scene in world.scenes:
            rows, columns = np.nonzero(_object_mask(world, scene.window.start_s + 0.3 * seed))
            top, left = 224 * scene.place.startswith("bottom"), 224 * scene.place.endswith("right")
            assert top <= rows.mean() < top + 224 and left <= columns.mean() < left + 224
            assert min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 447
            assert 0.33 <= np.ptp(columns) / 448 <= 0.5


def test_the_object_moves_and_the_next_scene_is_another() -> None:
    world = sample_world(2, "train")
    now, later, last, following = render_frames(world, np.array([0.1, 0.6, 1.96, 2.0]), 112).astype(int)
    assert (now != later).any() and np.abs(now - later).mean() < 8 < np.abs(last - following).mean()


def _event_levels(world: World, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peak of each event, and peak of the background before it."""
    events, before = [], []
    for scene in world.scenes:
        first, last = (round(t * SAMPLE_RATE_HZ) for t in (scene.onset_s, scene.sound_window.end_s))
        events.append(np.abs(sound[first:last]).max())
        before.append(np.abs(sound[round(scene.window.start_s * SAMPLE_RATE_HZ) : first]).max())
    return np.array(events), np.array(before)


def test_sound_is_where_the_truth_says_and_nowhere_else() -> None:
    for seed in range(8):
        world = sample_world(seed, "test")
        sound = render_sound(world)
        assert sound.dtype == np.float32 and sound.shape == (round(world.duration_s * SAMPLE_RATE_HZ),)
        assert np.array_equal(sound, render_sound(world)) and np.abs(sound).max() <= 0.9
        events, before = _event_levels(world, sound)
        assert events.min() > 0.1 and before.max() < 0.04


def _one_sound(seed: int, kind: str, repeats: int) -> np.ndarray:
    world = sample_world(seed, "train")
    scene = replace(world.scenes[0], sound=kind, repeats=repeats)
    return render_sound(replace(world, scenes=(scene,)))


@pytest.mark.parametrize("kind", SOUNDS)
def test_bursts_can_be_counted_and_what_goes_on_inside_them_cannot_be_taken_for_them(kind: str) -> None:
    for seed, repeats in product(range(8), (1, 2, 3)):
        sound = _one_sound(seed, kind, repeats)
        level = np.sqrt(np.mean(sound.reshape(-1, SAMPLE_RATE_HZ // 50) ** 2, axis=1))
        quiet_s = np.diff(np.flatnonzero(level > 0.02)) / 50
        assert np.sum(quiet_s > 0.1) == np.sum(quiet_s > 0.18) == repeats - 1


def _timbre(sound: np.ndarray) -> np.ndarray:
    """(48,) level in bands of equal ratio from 80 to 7000 Hz while it sounds, and how much it varies; logarithms."""
    frames = sound[: len(sound) // 512 * 512].reshape(-1, 512)
    power = np.abs(np.fft.rfft(frames[frames.std(1) > 0.02] * np.hanning(512), n=4096)) ** 2
    edges = (np.geomspace(80, 7000, 25) * 4096 / SAMPLE_RATE_HZ).astype(int)
    bands = np.stack([power[:, a:b].sum(1) for a, b in zip(edges, edges[1:], strict=False)], axis=1)
    shares = np.log(bands / bands.sum(1, keepdims=True) + 1e-4)
    return np.concatenate([shares.mean(0), shares.std(0)])


def test_all_kinds_of_sound_stay_apart_however_often_they_play() -> None:
    typical = {kind: np.mean([_timbre(_one_sound(seed, kind, 1)) for seed in range(10)], axis=0) for kind in SOUNDS}
    for kind, seed, repeats in product(SOUNDS, range(10, 20), (1, 2, 3)):
        heard = _timbre(_one_sound(seed, kind, repeats))
        assert min(SOUNDS, key=lambda other: np.abs(heard - typical[other]).sum()) == kind


def test_clip_in_memory_samples_the_world() -> None:
    world = sample_world(5, "train")
    clip = world_clip(world, size_px=56, fps=4.0)
    assert clip.duration_s == world.duration_s and clip.sample_fps == 4.0
    assert np.array_equal(clip.frame_times_s, np.arange(4 * world.duration_s) / 4)
    assert np.array_equal(clip.frames, render_frames(world, clip.frame_times_s, 56))
    assert np.array_equal(clip.waveform, render_sound(world))
    assert clip.sha256 != world_clip(world, size_px=56, fps=2.0).sha256 != world_clip(sample_world(6, "train")).sha256


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    folder = tmp_path_factory.mktemp("avworld")
    return folder, write_split(folder, "validation", n=2, seed=7), draw_questions("validation", 2, seed=7)


def test_a_written_split_says_what_it_holds(written: tuple) -> None:
    folder, summary, drawn = written
    assert summary == {"clips": 1, "questions": 2, "families": {"colour": 1, "shape": 1}, "sha256": truth_sha256(drawn)}
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert [row["clip"] for row in rows] == ["clip_00000.mp4"] * 2
    assert [(row["text"], row["answer"], row["closing"], row["chance"]) for row in rows] == [
        (q.text, q.answer, q.closing, round(q.chance, 6)) for _, q in drawn
    ]
    assert [[step | {"window_s": tuple(step["window_s"])} for step in row["steps"]] for row in rows] == [
        [asdict(s) | {"window": str(s.window), "window_s": (s.window.start_s, s.window.end_s)} for s in q.steps]
        for _, q in drawn
    ]


def test_a_written_clip_plays_with_picture_and_sound_in_time(written: tuple) -> None:
    folder, _, ((world, _), *_) = written
    with av.open(folder / "clip_00000.mp4") as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name, video.pix_fmt) == ("h264", "aac", "yuv420p")
        frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in file.decode(video)]
        file.seek(0)
        sound = np.zeros(round((world.duration_s + 1) * SAMPLE_RATE_HZ))
        for piece in file.decode(audio):
            first = round(float(piece.pts * piece.time_base) * SAMPLE_RATE_HZ)
            samples = piece.to_ndarray()[0]
            sound[max(first, 0) : first + len(samples)] = samples[max(-first, 0) :]
    assert len(frames) == 25 * world.duration_s and frames[-1][0] == pytest.approx(world.duration_s - 0.04)
    for time_s, frame in frames[10::50]:
        truth = render_frames(world, np.array([time_s]), 448)[0].astype(int)
        assert np.abs(frame - truth).mean() < 4
    for scene in world.scenes:
        heard = sound[round(scene.window.start_s * SAMPLE_RATE_HZ) :][: round(SCENE_S * SAMPLE_RATE_HZ)]
        onset_s = scene.window.start_s + np.argmax(np.abs(heard) > 0.05) / SAMPLE_RATE_HZ
        assert abs(onset_s - scene.onset_s) < 0.03
