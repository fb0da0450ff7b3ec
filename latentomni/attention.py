"""How much of its attention an answer gives to the clip: directly, and by way of latents. Two shares, never only their sum.

Dimensions: L layers, H heads, Q queries, T tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from latentomni.attention_flow import Kind, attention_mask
from latentomni.modeling import Thinker
from latentomni.sequence import Sequence, collate

__all__ = ["AttentionShares", "attention_shares", "shares"]


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


def shares(weights: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) direct and (Q,) via latents, of one layer's attention (H, Q, T) over tokens of these kinds (T,)."""
    mean = weights.mean(0)
    return mean[:, kinds == Kind.MEDIA].sum(1), mean[:, kinds == Kind.LATENT].sum(1)


@torch.no_grad()
def attention_shares(thinker: Thinker, row: Sequence, prompt: int) -> AttentionShares:
    """Of a finished row, whose answer begins at token `prompt`: one forward over the whole of it, layer by layer."""
    ids, positions, layout = collate([row])
    kinds = layout.kind[0].numpy()
    answer = np.arange(prompt, len(row))
    chosen = answer[np.isin(kinds[answer], (Kind.TEXT, Kind.LATENT))]
    mask = attention_mask(layout, layout)
    told: list[tuple[np.ndarray, np.ndarray]] = []
    with _watched(thinker, lambda weights: told.append(shares(weights[0, :, chosen].float().cpu().numpy(), kinds))):
        embeds = thinker.embed_rows([row], ids.to(thinker.device))
        thinker.forward(embeds, positions.to(thinker.device), mask.to(thinker.device), whole=True)
    visible = mask[0, chosen].numpy()
    direct, via_latents = (np.stack(part) for part in zip(*told, strict=True))
    expected = visible[:, kinds == Kind.MEDIA].sum(1) / visible.sum(1)
    return AttentionShares(chosen, kinds[chosen] == Kind.LATENT, direct, via_latents, expected)


@contextmanager
def _watched(thinker: Thinker, look) -> Iterator[None]:
    """Inside the context attention is computed with its weights (B, H, T, T) at hand, which `look` is given layer by layer."""
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
