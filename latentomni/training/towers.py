"""Stage one: the towers alone. The language model's gradient is too indirect to teach them shapes or sounds."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from latentomni.avworld.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, SOUNDS
from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.modeling import Thinker
from latentomni.training.pool import ClipPool

__all__ = ["TowerObjective", "scale_features"]

_FEATURE_STD = 0.5
_BLUR = 0.2  # noise before the readers, in standard deviations: what they are to tell must stand out in the features


class TowerObjective(torch.nn.Module):
    """Both towers with a linear reader each, trained one after the other. A batch is the name of a tower and numbers of clips."""

    def __init__(self, thinker: Thinker, pool: ClipPool) -> None:
        super().__init__()
        self.thinker, self.pool = thinker, pool
        self.towers = torch.nn.ModuleDict({"vision": thinker.towers.visual, "audio": thinker.towers.audio_tower}).requires_grad_(True)
        self.probes = torch.nn.ModuleDict({"vision": VisionProbe(thinker.hidden_size), "audio": AudioProbe(thinker.hidden_size)})
        self.probes.to(thinker.device)

    def weight(self, name: str) -> float:
        """1 for a tower's loss, 0 for what only tells how it does."""
        return float(name in self.probes)

    def counts(self, batch: tuple[str, np.ndarray]) -> dict[str, int]:
        return dict.fromkeys([batch[0], *self.probes[batch[0]].told], 1)

    def forward(self, batch: tuple[str, np.ndarray], _phase: object, _seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        loss, told = self.probes[batch[0]].loss(self.thinker, self.pool, batch[1])
        return {batch[0]: loss, **told}, torch.empty(0)


class VisionProbe(torch.nn.Module):
    """Per merged cell: colour, shape and place of the frame's object, which cell this is, and the background's hue.

    Every cell is taught the whole frame's object: with only the object's own cell knowing it, two tokens in 58 a scene
    carried the answer and the language model did not find them (docs/LOG.md).
    """

    told = ("colour", "shape", "place", "hue_mse")

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.sizes = (len(COLOURS), len(SHAPES), len(PLACES), len(PLACES))
        self.head = torch.nn.Linear(hidden, sum(self.sizes) + 2)

    def loss(self, thinker: Thinker, pool: ClipPool, chosen: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = _blurred(torch.cat(pool.visual(thinker, chosen)))
        kinds, hue = (t.to(features.device) for t in _vision_target(pool, chosen))
        *logits, told_hue = self.head(features).split([*self.sizes, 2], dim=1)
        kind_loss = sum(F.cross_entropy(x, kinds[:, k]) for k, x in enumerate(logits))
        hue_loss = F.mse_loss(told_hue, torch.stack([hue.cos(), hue.sin()], 1))
        right = [(x.argmax(1) == kinds[:, k]).float().mean() for k, x in enumerate(logits[:3])]
        return kind_loss + hue_loss, dict(zip(self.told, [*right, hue_loss.detach()], strict=True))


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
    """Per 40 ms token: which sound ("none" last), how often it plays in its scene, and its pitch and loudness."""

    told = ("sound", "repeats", "detail_mse")

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(hidden, len(SOUNDS) + 1 + len(COUNTS) + 2)

    def loss(self, thinker: Thinker, pool: ClipPool, chosen: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = _blurred(torch.cat(pool.audio(thinker, chosen)))
        kind, repeats, detail = (torch.cat(parts).to(features.device) for parts in zip(*(_audio_target(pool, i) for i in chosen), strict=True))
        told_kind, told_repeats, told_detail = self.head(features).split([len(SOUNDS) + 1, len(COUNTS), 2], dim=1)
        here = kind < len(SOUNDS)
        detail_loss = F.mse_loss(told_detail[here], detail[here])
        loss = F.cross_entropy(told_kind, kind) + F.cross_entropy(told_repeats[here], repeats[here]) + 2 * detail_loss
        right = [(told[here].argmax(1) == true[here]).float().mean() for told, true in ((told_kind, kind), (told_repeats, repeats))]
        return loss, dict(zip(self.told, [*right, detail_loss.detach()], strict=True))


def _audio_target(pool: ClipPool, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of every audio token of a clip: number of its sound and of its repeats, (N,) each, and (N, 2) pitch and loudness, both
    scaled to about -1 to 1."""
    world = pool.worlds[i]
    times = (np.arange(round(world.duration_s * POSITIONS_PER_SECOND)) + 0.5) / POSITIONS_PER_SECOND
    kind, repeats, detail = np.full(len(times), len(SOUNDS)), np.zeros(len(times), dtype=int), np.zeros((len(times), 2))
    for s in world.scenes:
        inside = (times >= s.sound_window.start_s) & (times < s.sound_window.end_s)
        kind[inside], repeats[inside] = SOUNDS.index(s.sound), s.repeats - 1
        detail[inside] = (s.pitch - 1) * 4, (s.loudness - 0.75) * 4
    return torch.tensor(kind), torch.tensor(repeats), torch.tensor(detail, dtype=torch.float32)


def _blurred(features: torch.Tensor) -> torch.Tensor:
    return features + _BLUR * features.detach().std() * torch.randn_like(features)


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
