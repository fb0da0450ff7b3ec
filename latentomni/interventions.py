"""Change the latents of a finished answer and let the model answer again: the causal arms.

Surgery on an assembled row. What an arm changes is all that changes: the question, the words between blocks, the windows
and every position id stay as they were, the row ends right behind the last block, and `generation.generate` (with
`max_blocks=0`) writes the rest. Dimensions: S blocks of the answer, K latents per block, N blocks of a dataset, D hidden.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from latentomni.arms import Arm
from latentomni.attention_flow import FLOW_CODES, Kind
from latentomni.clock import SAMPLE_RATE_HZ, WINDOW_STEP_S, Window
from latentomni.config import AttentionFlow
from latentomni.sequence import ClipFeatures, Sequence

if TYPE_CHECKING:
    from latentomni.media import Clip

__all__ = ["Arm", "Material", "black_out", "intervene", "other_window", "reopen", "shift_sound"]


@dataclass(frozen=True, eq=False)
class Material:
    """What arms put in the place of an answer's latents.

    bank: (N, K, D) latents that the checkpoint made over a dataset. pad: (D,) embedding of `<Unified_Latent_pad>`.
    donor: (S, K, D) latents of an answer about another clip. other_time, oracle: (S, K, D) anchors of other windows of
    this clip, and of the true ones. None where there are none; the arm is then undefined.
    """

    bank: torch.Tensor | None
    pad: torch.Tensor
    donor: torch.Tensor | None = None
    other_time: torch.Tensor | None = None
    oracle: torch.Tensor | None = None


def intervene(row: Sequence, arm: Arm, material: Material, random: torch.Generator, where: torch.Tensor | None = None) -> Sequence | None:
    """The row up to the close of its last block, with the latents of its last turn changed; None where the arm is undefined.

    where: (S, K) bool, which latents; all where it is None. Blocks are removed whole or not at all. Noise is Gaussian with its
    slot's mean and covariance over the bank, scaled to the norm of the latent it replaces.
    """
    numbers, n_visual = _turn_blocks(row), row.spec.n_visual
    if arm.removes:
        assert where is None or torch.equal(where.all(1), where.any(1)), "a block is removed whole or not at all"
        gone = [n for i, n in enumerate(numbers) if where is None or where[i, 0]]
        return _without_latents(row, gone, keep_markers=arm is Arm.REMOVED_MARKERS_KEPT)
    first = numbers[0]
    own = torch.stack(row.latents).view(-1, row.spec.n_latents, row.latents[0].shape[-1])[first:]
    changed = _changed(own, arm, material, n_visual, random)
    if changed is None:
        return None
    changed = changed.to(own)
    if where is not None:
        changed = torch.where(where[:, :, None].to(own.device), changed, own)
    kept = row.latents[: first * row.spec.n_latents]
    return replace(row.up_to(_end(row)), latents=[*kept, *changed.flatten(0, 1)])


def _changed(own: torch.Tensor, arm: Arm, material: Material, n_visual: int, random: torch.Generator) -> torch.Tensor | None:
    """(S, K, D) latents that stand in for `own`."""
    given = {Arm.INTACT: own, Arm.OTHER_CLIP: material.donor, Arm.OTHER_TIME: material.other_time, Arm.ORACLE: material.oracle}
    if arm in given:
        return given[arm]
    if arm is Arm.ZERO:
        return torch.zeros_like(own)
    if arm is Arm.PAUSE_TOKENS:
        return material.pad.expand_as(own)
    if material.bank is None and arm in (Arm.NOISE, Arm.MEAN, Arm.VISUAL_ONLY, Arm.AUDIO_ONLY):
        return None
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


def _select(row: Sequence, kept: Iterable[int], next_id: int) -> Sequence:
    """A new row of the tokens `kept`, each with all it had; later text stands from `next_id` on."""
    kept = list(kept)
    names = ("token_ids", "kinds", "blocks", "turns", "flows", "sources")
    chosen = {name: [getattr(row, name)[i] for i in kept] for name in names}
    positions = tuple([axis[i] for i in kept] for axis in row.positions)
    return replace(row, **chosen, positions=positions, latents=list(row.latents), windows=list(row.windows),
                   builder=replace(row.builder, next_id=next_id))  # fmt: skip


def _without_latents(row: Sequence, numbers: list[int], *, keep_markers: bool) -> Sequence:
    """The last turn's blocks `numbers` without their latents or, markers and all, gone. Later text keeps its position ids, and
    what it may see: under the paper flow it stays blind to the media even where no trigger is left to make it so."""
    end, k = _end(row), row.spec.n_latents
    last = {n: i for i, n in enumerate(row.blocks) if n >= 0}
    closes = {last[n] + 1 for n in numbers}
    inside = {i for i in range(end) if row.blocks[i] in numbers}
    gone = {i for i in inside if row.kinds[i] == Kind.LATENT} if keep_markers else inside | closes
    cut = row.up_to(end)
    if not keep_markers and cut.flow is AttentionFlow.PAPER:
        _stay_blind(cut, numbers)
    # Markers without latents are no block any more: their numbers, which keep them to themselves, count down from -2. The
    # blocks behind them move up.
    stay = [n for n in range(len(cut.windows)) if n not in numbers]
    renumbered = {n: -2 - n for n in numbers} | {n: i for i, n in enumerate(stay)}
    cut.sources = [
        source + k * (renumbered[n] - n) if kind == Kind.LATENT and n in stay else source
        for source, kind, n in zip(cut.sources, cut.kinds, cut.blocks, strict=True)
    ]
    cut.blocks = [renumbered.get(n, n) for n in cut.blocks]
    cut.windows = [cut.windows[n] for n in stay]
    cut.latents = [vector for n in stay for vector in cut.latents[n * k : (n + 1) * k]]
    return _select(cut, (i for i in range(end) if i not in gone), cut.builder.next_id)


def _stay_blind(row: Sequence, numbers: list[int]) -> None:
    """Text behind the first trigger of `numbers`, which goes, is made blind by the strict flow until another trigger does so."""
    triggers = [i for i, kind in enumerate(row.kinds) if kind == Kind.TRIGGER and row.turns[i] == row.turn]
    first, stay = row.blocks.index(numbers[0]), [i for i in triggers if row.blocks[i] not in numbers]
    if not any(i < first for i in stay):
        until = stay[0] if stay else len(row)
        row.flows = [FLOW_CODES[AttentionFlow.STRICT] if first <= i < until else code for i, code in enumerate(row.flows)]
        row.flow = row.flow if stay else AttentionFlow.STRICT


def reopen(row: Sequence, block: int, clip: ClipFeatures) -> Sequence:
    """The row up to the written window of block number `block`, over other features of a clip of the same length:
    `generate` computes the latents anew, after the same words and inside the same window."""
    end = next(i for i, (kind, n) in enumerate(zip(row.kinds, row.blocks, strict=True)) if kind == Kind.LATENT and n == block)
    return replace(row.up_to(end), clip=clip)


def black_out(clip: "Clip", window: Window, *, picture: bool = True) -> "Clip":
    """The clip with black frames and no sound inside a window; without `picture`, with no sound there."""
    frames, waveform = clip.frames.copy(), None if clip.waveform is None else clip.waveform.copy()
    if picture:
        frames[[window.contains(i / clip.sample_fps) for i in range(len(frames))]] = 0
    if waveform is not None:
        waveform[_samples(window)] = 0
    return replace(clip, frames=frames, waveform=waveform)


def shift_sound(clip: "Clip", shift_s: float, window: Window | None = None) -> "Clip":
    """The clip with the sound of a window, or all of it, heard `shift_s` seconds later. Silence stays behind; where the sound
    arrives it is added to what is there, and beyond the clip's ends it is lost."""
    assert clip.waveform is not None, "a clip without sound has none to move"
    span = slice(0, len(clip.waveform)) if window is None else _samples(window)
    waveform, offset = clip.waveform.copy(), round(shift_s * SAMPLE_RATE_HZ)
    waveform[span] = 0
    moved = np.arange(len(waveform))[span]
    moved = moved[(moved + offset >= 0) & (moved + offset < len(waveform))]
    waveform[moved + offset] += clip.waveform[moved]
    return replace(clip, waveform=waveform)


def _samples(window: Window) -> slice:
    return slice(*(round(t * SAMPLE_RATE_HZ) for t in (window.start_s, window.end_s)))


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
