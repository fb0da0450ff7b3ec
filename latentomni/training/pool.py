"""A pool of AV World clips in memory: small frames and mel spectra for the towers, then the frozen towers' features."""

import numpy as np
import torch

from latentomni.avworld import questions, render_frames, render_sound, sample_world
from latentomni.avworld.world import SCENE_S, World
from latentomni.clock import POSITIONS_PER_SECOND, SAMPLE_RATE_HZ
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.processing import patchify
from latentomni.sequence import ClipFeatures

__all__ = ["ClipPool"]

_RENDER_PX = 112


class ClipPool:
    """`count` worlds of a split from `seed` on. patches: one (grids * 16, 1176) float16 a world. mels: (bins, frames) float16."""

    def __init__(self, thinker: Thinker, count: int, seed: int, split: str, progress) -> None:
        self.worlds: list[World] = [sample_world(seed + i, split) for i in range(count)]
        self.questions = [questions(w) for w in self.worlds]
        self.patches, self.mels = [], []
        for world in progress(self.worlds, "draw clips"):
            times = np.arange(0, world.duration_s, 1 / thinker.video.fps)
            self.patches.append(patchify(render_frames(world, times, _RENDER_PX), thinker.video)[0].half())
            mel = thinker.mel(render_sound(world), sampling_rate=SAMPLE_RATE_HZ, padding=False, truncation=False, return_tensors="pt")
            self.mels.append(mel["input_features"][0].half())
        self.features: list[ClipFeatures] = []

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` worlds of one length (so that rows need little padding); a length is as likely as it is common."""
        like = self.worlds[int(rng.integers(len(self.worlds)))].duration_s
        alike = np.flatnonzero([w.duration_s == like for w in self.worlds])
        require(count <= len(alike), f"a step takes {count} clips of one length, of {len(self.worlds)} clips {len(alike)} are of {like:g} s; enlarge the pool.")
        return rng.choice(alike, count, replace=False)

    @torch.no_grad()
    def encode(self, thinker: Thinker, progress, batch: int = 16) -> None:
        """Run the (now frozen) towers over the pool; afterwards patches and mels are dropped."""
        for start in progress(range(0, len(self.worlds), batch), "encode clips"):
            chosen = range(start, min(start + batch, len(self.worlds)))
            visual, audio = self.visual(thinker, chosen), self.audio(thinker, chosen)
            for i, v, a in zip(chosen, visual, audio, strict=True):
                step_s = thinker.video.temporal_patch / thinker.video.fps
                starts = np.arange(0, self.worlds[i].duration_s, step_s)
                self.features.append(ClipFeatures(v.half().cpu(), starts, starts + step_s, (2, 2), a.half().cpu(),
                                                  np.arange(len(a)) / POSITIONS_PER_SECOND, self.worlds[i].duration_s))  # fmt: skip
        self.patches, self.mels = [], []

    def visual(self, thinker: Thinker, chosen) -> tuple[torch.Tensor, ...]:
        """(T * 4, D) merged features of each chosen world."""
        patches = [self.patches[i] for i in chosen]
        grids = torch.tensor([[len(p) // 16, 4, 4] for p in patches], device=thinker.device)
        return thinker.model.get_video_features(torch.cat(patches).to(thinker.device).float(), grids).pooler_output

    def audio(self, thinker: Thinker, chosen) -> list[torch.Tensor]:
        """(25 * seconds, D) features of each chosen world; whole 2 s chunks, so worlds of any length run together."""
        mels = [self.mels[i] for i in chosen]
        frames = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True).permute(0, 2, 1).to(thinker.device).float()
        mask = torch.arange(frames.shape[-1]) < torch.tensor([m.shape[1] for m in mels])[:, None]
        merged = thinker.model.get_audio_features(frames, mask.long().to(thinker.device)).last_hidden_state
        return list(merged.split([m.shape[1] // 4 for m in mels]))

    def scene_index(self, i: int) -> np.ndarray:
        """(T,) scene of each temporal patch (one second) of world `i`."""
        return (np.arange(0, self.worlds[i].duration_s) // SCENE_S).astype(int)
