"""Where the attention of an answer's steps falls: directly on the clip, and by way of latents. Two shares, never only their sum.

Dimensions: L layers, H heads, Q steps of the answer, T tokens of the row, G groups of steps, P temporal patches of the picture,
R x C grid cells, S half seconds of sound.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from latentomni.attention_flow import Kind, attention_mask
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.sequence import ClipFeatures, Sequence, collate

__all__ = ["MAX_TOKENS", "AttentionRecord", "AttentionShares", "attention_record", "attention_shares", "heat", "shares"]

MAX_TOKENS = 8192
_SOUND_STEP_S = 0.5
_GROUPS = {"text": (Kind.TEXT,), "window": (Kind.TRIGGER, Kind.WINDOW), "latent": (Kind.LATENT,)}


@dataclass(frozen=True)
class AttentionShares:
    """tokens: (Q,) places of the answer's tokens in the row. is_latent: (Q,) whether one is a latent. direct, via_latents: (L, Q) mean over
    heads of the attention that falls on media tokens, and on latents. expected: (Q,) what an even spread over all visible
    tokens would give to media: a share says little without it."""

    tokens: np.ndarray
    is_latent: np.ndarray
    direct: np.ndarray
    via_latents: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True, eq=False)
class AttentionRecord:
    """Shares of every step that the model took for an answer, and where in the clip they fall; means over heads.

    texts: Q, the token that each step reads, "" for a latent. groups: Q, its group: "text", "window" (with the trigger) or
    "latent". blocks: (Q,) its latent block, or -1. direct, via_latents: (L, Q). even_direct, even_via_latents: (Q,) what an
    even spread over all that the step may see would give. frames: (L, Q, P) and sounds: (L, Q, S) parts of `direct`; the
    brackets around media have the rest. cells: group -> (L, P, R, C), the mean over its steps.
    frame_spans_s: (P, 2). sound_spans_s: (S, 2).
    """

    texts: tuple[str, ...]
    groups: tuple[str, ...]
    blocks: np.ndarray
    direct: np.ndarray
    via_latents: np.ndarray
    even_direct: np.ndarray
    even_via_latents: np.ndarray
    frames: np.ndarray
    sounds: np.ndarray
    cells: dict[str, np.ndarray]
    frame_spans_s: np.ndarray
    sound_spans_s: np.ndarray


def shares(weights: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) direct and (Q,) via latents, of one layer's attention (H, Q, T) over tokens of these kinds (T,)."""
    mean = weights.mean(0)
    return mean[:, kinds == Kind.MEDIA].sum(1), mean[:, kinds == Kind.LATENT].sum(1)


def heat(weights: np.ndarray, bins: np.ndarray, n_bins: int) -> np.ndarray:
    """(Q, n_bins) sums of one layer's attention (H, Q, T), mean over heads; bins: (T,) where a token belongs, -1 for nowhere."""
    mean = weights.mean(0)
    sums = np.zeros((n_bins, len(mean)), mean.dtype)
    np.add.at(sums, bins[bins >= 0], mean[:, bins >= 0].T)
    return sums.T


def attention_shares(thinker: Thinker, row: Sequence, prompt: int) -> AttentionShares:
    """Of a finished row, whose answer begins at token `prompt`: of its words and latents."""
    kinds = np.array(row.kinds)
    told: list[tuple[np.ndarray, np.ndarray]] = []
    chosen, even_direct, _ = _each_layer(thinker, row, prompt, _GROUPS["text"] + _GROUPS["latent"], lambda w: told.append(shares(w, kinds)))
    direct, via_latents = (np.stack(part) for part in zip(*told, strict=True))
    return AttentionShares(chosen, kinds[chosen] == Kind.LATENT, direct, via_latents, even_direct)


def attention_record(thinker: Thinker, row: Sequence, prompt: int) -> AttentionRecord:
    """Of a finished row, whose answer begins at token `prompt`. Raises RequestError for rows of more than 8,192 tokens."""
    kinds, (bins, n_visual, n_bins, sound_spans_s) = np.array(row.kinds), _bins(row)
    told: list[tuple[np.ndarray, ...]] = []
    asked = tuple(kind for group in _GROUPS.values() for kind in group)
    chosen, *even = _each_layer(thinker, row, prompt, asked, lambda w: told.append((*shares(w, kinds), heat(w, bins, n_bins))))
    direct, via_latents, fallen = (np.stack(part) for part in zip(*told, strict=True))
    clip = row.clip
    visual = fallen[..., :n_visual].reshape(*direct.shape, len(clip.visual_times_s), *clip.grid)
    name_of = {kind: name for name, members in _GROUPS.items() for kind in members}
    groups = tuple(name_of[kind] for kind in kinds[chosen])
    members = {name: np.array([group == name for group in groups], bool) for name in _GROUPS}
    return AttentionRecord(
        texts=tuple("" if kinds[i] == Kind.LATENT else thinker.tokenizer.decode([row.token_ids[i]]) for i in chosen),
        groups=groups,
        blocks=np.array(row.blocks)[chosen],
        direct=direct,
        via_latents=via_latents,
        even_direct=even[0],
        even_via_latents=even[1],
        frames=visual.sum((-2, -1)),
        sounds=fallen[..., n_visual:],
        cells={name: visual[:, here].mean(1) for name, here in members.items() if here.any()},
        frame_spans_s=np.stack([clip.visual_times_s, clip.visual_end_s], axis=1),
        sound_spans_s=sound_spans_s,
    )


def _bins(row: Sequence) -> tuple[np.ndarray, int, int, np.ndarray]:
    """(T,) bin of every token: patch by patch and cell by cell, then half seconds of sound; how many are visual, how many in all;
    (S, 2) spans of the half seconds."""
    clip: ClipFeatures = row.clip
    n_visual, n_audio = len(clip.visual), len(clip.audio)
    half_seconds = np.floor(clip.audio_times_s / _SOUND_STEP_S + 1e-6).astype(int)
    n_sounds = int(half_seconds.max()) + 1 if n_audio else 0
    bin_of_source = np.concatenate([np.arange(n_visual), n_visual + half_seconds, [-1]]).astype(int)
    sources = np.where(np.array(row.kinds) == Kind.MEDIA, row.sources, -1)
    starts = np.arange(n_sounds) * _SOUND_STEP_S
    spans = np.stack([starts, np.minimum(starts + _SOUND_STEP_S, max(clip.duration_s, _SOUND_STEP_S))], axis=1)
    return bin_of_source[sources], n_visual, n_visual + n_sounds, spans


@torch.no_grad()
def _each_layer(
    thinker: Thinker, row: Sequence, prompt: int, asked: tuple[Kind, ...], look: Callable[[np.ndarray], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give `look` each layer's attention (H, Q, T) of the answer's tokens of the kinds asked for.

    What stands before the answer goes ahead with the usual kernels, so that weights exist for the answer alone, and for
    one layer at a time. Returns places (Q,) of the tokens, and what an even spread would give to media and to latents (Q,).
    """
    require(len(row) <= MAX_TOKENS, f"Attention is shown for runs of at most {MAX_TOKENS} tokens, and this one has {len(row)}; "
            "ask about a shorter clip, or with fewer frames or pixels.")  # fmt: skip
    ids, positions, layout = collate([row])
    kinds, answer = layout.kind[0].numpy(), np.arange(prompt, len(row))
    chosen = answer[np.isin(kinds[answer], asked)]
    mask, positions = attention_mask(layout, layout), positions.to(thinker.device)
    on_device, cache = mask.to(thinker.device), thinker.new_cache()
    embeds = thinker.embed_rows([row], ids.to(thinker.device))
    thinker.forward(embeds[:, :prompt], positions[..., :prompt], on_device[:, :prompt, :prompt], cache)
    with _watched(thinker, lambda weights: look(weights[0, :, chosen - prompt].float().cpu().numpy())):
        thinker.forward(embeds[:, prompt:], positions[..., prompt:], on_device[:, prompt:], cache)
    visible = mask[0, chosen].numpy()
    even = (visible[:, kinds == kind].sum(1) / visible.sum(1) for kind in (Kind.MEDIA, Kind.LATENT))
    return chosen, *even


@contextmanager
def _watched(thinker: Thinker, look: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Inside the context attention is computed with its weights (B, H, Q, T) at hand, which `look` is given layer by layer."""
    config = thinker.text_model.config
    implementation = config._attn_implementation
    hooks = [layer.self_attn.register_forward_hook(lambda _module, _inputs, out: look(out[1])) for layer in thinker.text_model.layers]
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = implementation
        for hook in hooks:
            hook.remove()
