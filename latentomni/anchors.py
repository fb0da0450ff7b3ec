"""Anchors: what the latents of a window should be, pooled from the clip's own features (paper 1.6), never back-propagated.

Dimensions: K latents per block, V visual tokens, A audio tokens, D hidden.
"""

from collections.abc import Iterable

import numpy as np
import torch

from latentomni.clock import Window
from latentomni.config import LatentSpec
from latentomni.sequence import ClipFeatures

__all__ = ["anchors_over", "pool_anchors"]


def _overlap(starts: np.ndarray, ends: np.ndarray, instant: Window) -> np.ndarray:
    """(N,) seconds that each span shares with the instant; an instant between samples takes the nearest one."""
    shared = np.minimum(ends, instant.end_s) - np.maximum(starts, instant.start_s)
    if len(shared) and shared.max() <= 0:
        return (np.arange(len(starts)) == np.abs((starts + ends) / 2 - instant.midpoint_s).argmin()).astype(float)
    return shared.clip(0)


def _cell_weights(count: int, parts: int) -> np.ndarray:
    """(parts, count) share of each of `count` media rows in each of `parts` block rows."""
    edges, rows = np.arange(parts + 1) / parts, np.arange(count + 1) / count
    shared = np.minimum(edges[1:, None], rows[None, 1:]) - np.maximum(edges[:-1, None], rows[None, :-1])
    return shared.clip(0)


def pool_anchors(clip: ClipFeatures, window: Window, spec: LatentSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """Anchors (K, D) of a window on the block's grid and which exist (K,) bool (no sound: no audio anchors).

    Each is the mean of the features inside its instant and cell, weighted by squared norm and by shared time and area.
    """
    instants = window.instants(spec.instants)
    d = clip.vectors.shape[1]
    anchors = torch.zeros(spec.n_latents, d, dtype=clip.vectors.dtype)
    exists = torch.zeros(spec.n_latents, dtype=torch.bool)
    if spec.visual and len(clip.visual):
        space = np.einsum("rh,cw->rchw", _cell_weights(clip.grid[0], spec.rows), _cell_weights(clip.grid[1], spec.columns))
        time = np.stack([_overlap(clip.visual_times_s, clip.visual_end_s, i) for i in instants])
        weights = np.einsum("it,rchw->ircthw", time, space).reshape(spec.n_visual, -1)
        anchors[: spec.n_visual], exists[: spec.n_visual] = _weighted(clip.visual, weights), True
    if spec.audio and len(clip.audio):
        step_s = 1 / 25
        weights = np.stack([_overlap(clip.audio_times_s, clip.audio_times_s + step_s, i) for i in instants])
        anchors[spec.n_visual :], exists[spec.n_visual :] = _weighted(clip.audio, weights), True
    return anchors, exists


def anchors_over(own: torch.Tensor, clip: ClipFeatures, windows: Iterable[Window], spec: LatentSpec) -> torch.Tensor:
    """(S, K, D) anchors of one window a block; `own` latents stay where there is nothing to pool, as in a clip without sound."""
    pooled = [pool_anchors(clip, window, spec) for window in windows]
    return torch.stack([torch.where(exists[:, None], a.to(own), z) for (a, exists), z in zip(pooled, own, strict=True)])


def _weighted(features: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    features = features.to(torch.promote_types(features.dtype, torch.float32))  # sums of thousands, in half precision before
    energy = torch.from_numpy(weights).to(features) * features.square().sum(-1)
    return (energy @ features) / energy.sum(-1, keepdim=True).clamp_min(1e-12)
