"""Worlds as clips: in memory for training, as mp4 files with their questions for everything else."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.avworld.picture import render_frames
from latentomni.avworld.questions import draw_questions
from latentomni.avworld.sound import render_sound
from latentomni.avworld.truth import narration, question_row, training_row, truth_sha256
from latentomni.avworld.world import World
from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.media import Clip

__all__ = ["world_clip", "write_clip", "write_split"]

_WRITTEN_PX = 448
_WRITTEN_FPS = 25


def world_clip(world: World, size_px: int = 112, fps: float = 2.0) -> Clip:
    """The world as media would read it, without a file: `fps` frames per second at times k / fps."""
    times_s = np.arange(round(world.duration_s * fps)) / fps
    return Clip(
        frames=render_frames(world, times_s, size_px),
        frame_times_s=times_s,
        waveform=render_sound(world),
        duration_s=world.duration_s,
        sample_fps=fps,
        sha256=hashlib.sha256(f"{world.name} {size_px} {fps}".encode()).hexdigest(),
        name=world.name,
        notices=(),
    )


def write_clip(world: World, path: Path | str) -> None:
    """Write a playable mp4: 448 px, 25 frames per second, h264 and aac, ready to stream."""
    from moviepy import VideoClip
    from moviepy.audio.AudioClip import AudioArrayClip

    path = Path(path)
    stereo = np.repeat(render_sound(world)[:, None], 2, axis=1)  # moviepy hands on two channels whatever it is given
    sound = AudioArrayClip(stereo, fps=SAMPLE_RATE_HZ)
    clip = VideoClip(lambda time_s: render_frames(world, [time_s], _WRITTEN_PX)[0], duration=world.duration_s)
    clip.with_audio(sound).write_videofile(
        str(path), fps=_WRITTEN_FPS, codec="libx264", preset="veryfast", pixel_format="yuv420p",
        audio_codec="aac", audio_fps=SAMPLE_RATE_HZ, audio_bitrate="96k", temp_audiofile_path=str(path.parent),
        ffmpeg_params=["-crf", "20", "-movflags", "+faststart"], logger=None,
    )  # fmt: skip


def write_split(out_dir: Path | str, split: str, n: int, seed: int) -> dict[str, Any]:
    """Write `n` questions of a split, with their clips, and say what was written.

    `out_dir` gets clip_00000.mp4 ..., questions.jsonl: per line a question, its file, its narration and all truth, and
    train.jsonl: the same questions as training data (docs/DATA.md).
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    drawn = draw_questions(split, n, seed)
    files: dict[int, str] = {}
    rows, training_rows = [], []
    for world, question in drawn:
        if world.seed not in files:
            files[world.seed] = f"clip_{len(files):05d}.mp4"
            write_clip(world, out_dir / files[world.seed])
        file = files[world.seed]
        rows.append({"clip": file, **question_row(world, question), "narration": narration(world)})
        training_rows.append(training_row(question, file))
    for name, lines in (("questions.jsonl", rows), ("train.jsonl", training_rows)):
        (out_dir / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    families = Counter(question.family for _, question in drawn)
    return {"clips": len(files), "questions": n, "families": dict(families), "sha256": truth_sha256(drawn)}
