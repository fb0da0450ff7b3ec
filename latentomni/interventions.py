"""Change the latents of a finished answer and let the model answer again: the causal arms.

Surgery on an assembled row. What an arm changes is all that changes: the question, the words between blocks, the windows
and every position id stay as they were, the row ends right behind the last block, and `generation.generate` (with
`max_blocks=0`) writes the rest. Dimensions: S blocks of the answer, K latents per block, N blocks of a dataset, D hidden.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import torch

from latentomni.attention_flow import FLOW_CODES, Kind
from latentomni.clock import SAMPLE_RATE_HZ, WINDOW_STEP_S, Window
from latentomni.config import AttentionFlow
from latentomni.sequence import ClipFeatures, Sequence

if TYPE_CHECKING:
    from latentomni.media import Clip

__all__ = ["Arm", "Material", "black_out", "intervene", "other_window", "reopen"]


class Arm(str, Enum):
    """What becomes of an answer's latents."""

    __str__ = str.__str__

    INTACT = "intact"
    ZERO = "zero"
    MEAN = "mean"
    NOISE = "noise"
    OTHER_CLIP = "other_clip"
    OTHER_TIME = "other_time"
    SHUFFLED = "shuffled"
    REMOVED_MARKERS_KEPT = "removed_markers_kept"
    MARKERS_REMOVED = "markers_removed"
    PAUSE_TOKENS = "pause_tokens"
    VISUAL_ONLY = "visual_only"
    AUDIO_ONLY = "audio_only"
    ORACLE = "oracle"


@dataclass(frozen=True, eq=False)
class Material:
    """What arms put in the place of an answer's latents.

    bank: (N, K, D) latents that the checkpoint made over the dataset. pad: (D,) embedding of `<Unified_Latent_pad>`.
    donor: (S, K, D) latents of an answer about another clip. other_time, oracle: (S, K, D) anchors of other windows of
    this clip, and of the true ones. None where there are none; the arm is then undefined.
    """

    bank: torch.Tensor
    pad: torch.Tensor
    donor: torch.Tensor | None = None
    other_time: torch.Tensor | None = None
    oracle: torch.Tensor | None = None


def intervene(row: Sequence, arm: Arm, material: Material, random: torch.Generator) -> Sequence | None:
    """The row up to the close of its last block, with the latents of its last turn changed; None where the arm is undefined.

    Noise is Gaussian with its slot's mean and covariance over the bank, scaled to the norm of the latent it replaces.
    """
    if arm in (Arm.REMOVED_MARKERS_KEPT, Arm.MARKERS_REMOVED):
        return _without_latents(row, keep_markers=arm is Arm.REMOVED_MARKERS_KEPT)
    first, n_visual = _turn_blocks(row)[0], row.spec.n_visual
    own = torch.stack(row.latents).view(-1, row.spec.n_latents, row.latents[0].shape[-1])[first:]
    changed = _changed(own, arm, material, n_visual, random)
    if changed is None:
        return None
    kept = row.latents[: first * row.spec.n_latents]
    return replace(_up_to(row, _end(row)), latents=[*kept, *changed.to(own).flatten(0, 1)])


def _changed(own: torch.Tensor, arm: Arm, material: Material, n_visual: int, random: torch.Generator) -> torch.Tensor | None:
    """(S, K, D) latents that stand in for `own`."""
    given = {Arm.INTACT: own, Arm.OTHER_CLIP: material.donor, Arm.OTHER_TIME: material.other_time, Arm.ORACLE: material.oracle}
    if arm in given:
        return given[arm]
    if arm is Arm.ZERO:
        return torch.zeros_like(own)
    if arm is Arm.PAUSE_TOKENS:
        return material.pad.expand_as(own)
    if arm is Arm.NOISE:
        return _noise(own, material.bank, random)
    if arm is Arm.SHUFFLED:
        return torch.stack([torch.cat([_shuffle(part, random) for part in (block[:n_visual], block[n_visual:])]) for block in own])
    mean = material.bank.mean(0).to(own).expand_as(own)
    if arm is Arm.MEAN:
        return mean
    is_visual = (torch.arange(own.shape[1], device=own.device) < n_visual)[:, None]
    return torch.where(is_visual == (arm is Arm.VISUAL_ONLY), own, mean)


def _noise(own: torch.Tensor, bank: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """A Gaussian mixture of the bank's centred rows has the bank's covariance, whatever the width."""
    mean = bank.mean(0)
    weights = torch.randn(len(own), bank.shape[1], len(bank), generator=random).to(bank)
    drawn = (mean + torch.einsum("skn,nkd->skd", weights, bank - mean) / max(len(bank) - 1, 1) ** 0.5).to(own)
    return drawn * (own.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def _shuffle(latents: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Another order of (n, D) latents; one alone stays."""
    own = torch.arange(len(latents))
    order = own
    while len(latents) > 1 and torch.equal(order, own):
        order = torch.randperm(len(latents), generator=random)
    return latents[order.to(latents.device)]


def _turn_blocks(row: Sequence) -> list[int]:
    numbers = sorted({n for n, turn in zip(row.blocks, row.turns, strict=True) if n >= 0 and turn == row.turn})
    assert numbers, "an answer without a latent block has nothing to change"
    return numbers


def _end(row: Sequence) -> int:
    """Index behind the close of the last block."""
    return len(row) - row.kinds[::-1].index(Kind.LATENT) + 1


def _up_to(row: Sequence, end: int) -> Sequence:
    return _select(row, range(end), row.positions[0][end - 1] + 1)


def _select(row: Sequence, kept: Iterable[int], next_id: int) -> Sequence:
    """A new row of the tokens `kept`, each with all it had; later text stands from `next_id` on."""
    kept = list(kept)
    names = ("token_ids", "kinds", "blocks", "turns", "flows", "sources")
    chosen = {name: [getattr(row, name)[i] for i in kept] for name in names}
    positions = tuple([axis[i] for i in kept] for axis in row.positions)
    return replace(row, **chosen, positions=positions, latents=list(row.latents), windows=list(row.windows),
                   builder=replace(row.builder, next_id=next_id))  # fmt: skip


def _without_latents(row: Sequence, *, keep_markers: bool) -> Sequence:
    """The last turn's blocks without their latents or, markers and all, gone. Later text keeps its position ids, and what
    it may see: under the paper flow it stays blind to the media even where no trigger is left to make it so."""
    numbers, end = _turn_blocks(row), _end(row)
    first = row.blocks.index(numbers[0])
    last = {n: i for i, n in enumerate(row.blocks) if n >= 0}
    closes = {last[n] + 1 for n in numbers}
    gone = {i for i in range(first, end) if row.kinds[i] == Kind.LATENT or (not keep_markers and (i in closes or row.blocks[i] >= 0))}
    cut = _up_to(row, end)
    # Markers without latents are no block any more: their numbers, which keep them to themselves, count down from -2.
    cut.blocks = [-2 - n if n in numbers else n for n in cut.blocks]
    if not keep_markers and cut.flow is AttentionFlow.PAPER:
        cut.flow = AttentionFlow.STRICT
        cut.flows = [FLOW_CODES[cut.flow] if i >= first else code for i, code in enumerate(cut.flows)]
    del cut.windows[numbers[0] :], cut.latents[numbers[0] * row.spec.n_latents :]
    return _select(cut, (i for i in range(end) if i not in gone), cut.builder.next_id)


def reopen(row: Sequence, block: int, clip: ClipFeatures) -> Sequence:
    """The row up to the written window of block number `block`, over other features of a clip of the same length:
    `generate` computes the latents anew, after the same words and inside the same window."""
    end = next(i for i, (kind, n) in enumerate(zip(row.kinds, row.blocks, strict=True)) if kind == Kind.LATENT and n == block)
    cut = _up_to(row, end)
    del cut.windows[block:], cut.latents[block * row.spec.n_latents :]
    return replace(cut, clip=clip)


def black_out(clip: "Clip", window: Window) -> "Clip":
    """The clip with black frames and no sound inside a window."""
    frames = clip.frames.copy()
    frames[[window.contains(i / clip.sample_fps) for i in range(len(frames))]] = 0
    waveform = None if clip.waveform is None else clip.waveform.copy()
    if waveform is not None:
        first, last = (round(t * SAMPLE_RATE_HZ) for t in (window.start_s, window.end_s))
        waveform[first:last] = 0
    return replace(clip, frames=frames, waveform=waveform)


def other_window(window: Window, duration_s: float, avoid: Iterable[Window], rng: np.random.Generator) -> Window | None:
    """A window of equal length elsewhere in the clip, clear of it and of `avoid`; None where there is no room.

    Whole lengths away if possible, else at any half second.
    """
    taken, length_s = [window, *avoid], window.duration_s
    shifts = [k * length_s for k in range(-int(duration_s / length_s) - 1, int(duration_s / length_s) + 2)]
    grid = np.arange(0, duration_s, WINDOW_STEP_S)
    for starts in ([window.start_s + s for s in shifts], grid):
        free = [
            w for w in (Window(max(s, 0.0), s + length_s) for s in map(float, starts) if s > -1e-6)
            if w.end_s <= duration_s + 1e-6 and all(w.iou(t) < 1e-6 for t in taken)
        ]  # fmt: skip
        if free:
            return free[int(rng.integers(len(free)))]
    return None
