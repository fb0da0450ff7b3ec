"""Stage one: the towers alone. The language model's gradient is too indirect to teach them shapes or sounds."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from latentomni.avworld.vocabulary import COLOURS, PLACES, SHAPES, SOUNDS
from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.modeling import Thinker
from latentomni.training.pool import ClipPool

__all__ = ["AudioProbe", "VisionProbe", "scale_features"]

_FEATURE_STD = 0.5


class VisionProbe(torch.nn.Module):
    """Per merged cell: colour, shape and place of the frame's object, which cell this is, and the background's hue.

    Every cell is taught the whole frame's object: with only the object's own cell knowing it, two tokens in 58 a scene
    carried the answer and the language model did not find them (docs/LOG.md).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = (len(COLOURS), len(SHAPES), len(PLACES), len(PLACES))
        self.head = torch.nn.Linear(hidden, sum(self.sizes) + 2)

    def loss(self, thinker: Thinker, pool: ClipPool, chosen: np.ndarray) -> tuple[torch.Tensor, dict[str, float]]:
        features = torch.cat(pool.visual(thinker, chosen))
        kinds, hue = (t.to(features.device) for t in _vision_target(pool, chosen))
        *logits, told_hue = self.head(features).split([*self.sizes, 2], dim=1)
        kind_loss = sum(F.cross_entropy(x, kinds[:, k]) for k, x in enumerate(logits))
        hue_loss = F.mse_loss(told_hue, torch.stack([hue.cos(), hue.sin()], 1))
        right = [(x.argmax(1) == kinds[:, k]).float().mean().item() for k, x in enumerate(logits)]
        return kind_loss + hue_loss, {"colour": right[0], "shape": right[1], "place": right[2], "hue_mse": hue_loss.item()}


def _vision_target(pool: ClipPool, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 4) numbers of colour, shape, place and own cell, and (N,) hue in radians, for every merged cell of the worlds."""
    kinds, hues = [], []
    for i in chosen:
        for k in pool.scene_index(i):
            scene = pool.worlds[i].scenes[k]
            object_ = COLOURS.index(scene.colour), SHAPES.index(scene.shape), PLACES.index(scene.place)
            kinds += [(*object_, cell) for cell in range(len(PLACES))]
            hues += [scene.hue * 2 * math.pi] * len(PLACES)
    return torch.tensor(kinds), torch.tensor(hues)


class AudioProbe(torch.nn.Module):
    """Per 40 ms token: which sound ("none" last), and its pitch and loudness."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(hidden, len(SOUNDS) + 1 + 2)

    def loss(self, thinker: Thinker, pool: ClipPool, chosen: np.ndarray) -> tuple[torch.Tensor, dict[str, float]]:
        features = torch.cat(pool.audio(thinker, chosen))
        target = torch.cat([_audio_target(pool, i) for i in chosen]).to(features.device)
        out = self.head(features)
        here = target[:, 0] < len(SOUNDS)
        kind = F.cross_entropy(out[:, :-2], target[:, 0].long())
        detail = F.mse_loss(out[here, -2:], target[here, 1:])
        right = (out[:, :-2].argmax(1) == target[:, 0])[here].float().mean()
        return kind + detail, {"sound": right.item(), "detail_mse": detail.item()}


def _audio_target(pool: ClipPool, i: int) -> torch.Tensor:
    """(25 * seconds, 3) sound number, pitch and loudness (both scaled to about -1 to 1) of every audio token."""
    world = pool.worlds[i]
    times = (np.arange(round(world.duration_s * POSITIONS_PER_SECOND)) + 0.5) / POSITIONS_PER_SECOND
    target = np.tile([len(SOUNDS), 0.0, 0.0], (len(times), 1))
    for s in world.scenes:
        inside = (times >= s.sound_window.start_s) & (times < s.sound_window.end_s)
        target[inside] = SOUNDS.index(s.sound), (s.pitch - 1) * 4, (s.loudness - 0.75) * 4
    return torch.tensor(target, dtype=torch.float32)


@torch.no_grad()
def scale_features(thinker: Thinker, pool: ClipPool) -> None:
    """Fold zero mean and a standard deviation of 0.5 into each tower's last linear layer: the scale the language model reads."""
    chosen = range(min(64, len(pool.worlds)))
    towers = thinker.towers
    for features, linear in ((torch.cat(pool.visual(thinker, chosen)), towers.visual.merger.mlp[-1]),
                             (torch.cat(pool.audio(thinker, chosen)), towers.audio_tower.proj)):  # fmt: skip
        scale = _FEATURE_STD / (features - features.mean(0)).std()
        linear.bias.sub_(features.mean(0)).mul_(scale)
        linear.weight.mul_(scale)
