"""What the benchmarks of a loaded model share: a prompt of the wanted length, and the stock class's `generate()` on the same inputs."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from latentomni.avworld import questions, sample_world, world_clip
from latentomni.bench.measures import synchronize
from latentomni.clock import POSITIONS_PER_SECOND, SAMPLE_RATE_HZ
from latentomni.config import Mode
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence, patchify, resized_size
from latentomni.sequence import ClipFeatures, Sequence

__all__ = ["beginning", "bench_clip", "describe", "prompt_row", "stock_first_token", "stock_inputs"]

_CPU_TOKENS, _GPU_TOKENS = 4096, 10_240  # of a prompt
_FRAME_PX = 448
_BEGINNING_S = 2.0
_MEL_SAMPLES = SAMPLE_RATE_HZ // 100


def bench_clip(thinker: Thinker, seed: int) -> tuple[Clip, tuple[str, str]]:
    """A clip and two questions: drawn from AV World for nano, noise of about 4,096 tokens (10,240 on a GPU) for any other model."""
    world = sample_world(seed, "test")
    first, second = (q.text for q in questions(world)[:2])
    if thinker.weights == "nano":
        return world_clip(world), (first, second)
    video, rng = thinker.video, np.random.default_rng(seed)
    height, width = (side // video.factor_px for side in resized_size(_FRAME_PX, _FRAME_PX, video))
    per_s = height * width * video.fps / video.temporal_patch + POSITIONS_PER_SECOND
    seconds = max(round((_CPU_TOKENS if thinker.device.type == "cpu" else _GPU_TOKENS) / per_s), 1)
    frames = rng.integers(0, 256, (round(seconds * video.fps), _FRAME_PX, _FRAME_PX, 3), dtype=np.uint8)
    waveform = rng.normal(0, 0.1, seconds * SAMPLE_RATE_HZ).astype(np.float32)
    sha256 = hashlib.sha256(frames.tobytes()).hexdigest()
    return Clip(frames, np.arange(len(frames)) / video.fps, waveform, float(seconds), video.fps, sha256, "noise.mp4"), (first, second)


def beginning(clip: Clip) -> Clip:
    """Its first two seconds, which both sides read before anything is measured."""
    frames = round(_BEGINNING_S * clip.sample_fps)
    return replace(clip, frames=clip.frames[:frames], frame_times_s=clip.frame_times_s[:frames], sha256="beginning",
                   waveform=clip.waveform[: round(_BEGINNING_S * SAMPLE_RATE_HZ)], duration_s=_BEGINNING_S)  # fmt: skip


def prompt_row(thinker: Thinker, features: ClipFeatures, question: str, mode: Mode) -> Sequence:
    """The row that waits for its answer."""
    row = new_sequence(features, thinker.spec, thinker.ids, thinker.encode_text)
    add_question(row, question, mode, thinker.encode_text)
    return row


def stock_inputs(thinker: Thinker, clip: Clip, row: Sequence) -> dict[str, Any]:
    """The prompt as `generate()` takes it; `get_rope_index` then finds the position ids that the row has."""
    patches, grid = patchify(clip.frames, thinker.video)
    samples = clip.waveform[: len(clip.waveform) // _MEL_SAMPLES * _MEL_SAMPLES]
    mel = thinker.mel(samples, sampling_rate=SAMPLE_RATE_HZ, padding=False, truncation=False, return_tensors="pt")["input_features"]
    inputs = {
        "input_ids": torch.tensor([row.token_ids]),
        "attention_mask": torch.ones(1, len(row), dtype=torch.long),
        "pixel_values_videos": patches.to(thinker.dtype),
        "video_grid_thw": torch.tensor([grid]),
        "video_second_per_grid": torch.tensor([thinker.video.temporal_patch / clip.sample_fps]),
        "input_features": mel.to(thinker.dtype),
        "feature_attention_mask": torch.ones(1, mel.shape[-1], dtype=torch.long),
    }
    return {**{name: values.to(thinker.device) for name, values in inputs.items()}, "use_audio_in_video": True}


def stock_first_token(thinker: Thinker, clip: Clip, row: Sequence) -> int:
    """The whole prompt through the stock class, towers and all, to one greedy token."""
    inputs = stock_inputs(thinker, clip, row)
    written = thinker.model.generate(**inputs, do_sample=False, max_new_tokens=1, eos_token_id=None, pad_token_id=thinker.ids.padding)
    synchronize(thinker.device)
    return int(written[0, -1])


def describe(thinker: Thinker) -> str:
    """Of what a figure is."""
    return f"{thinker.name} with {thinker.weights} weights, {str(thinker.dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads"
