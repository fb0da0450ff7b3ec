"""The controlled attention flow: one pure function that says which token may see which, for training and for inference.

Dimensions: B batch, Q query tokens, K key tokens.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import torch

from latentomni.config import AttentionFlow

__all__ = ["FLOW_CODES", "Kind", "Layout", "attention_mask", "causal_length"]

FLOW_CODES = {AttentionFlow.OPEN: 0, AttentionFlow.PAPER: 1, AttentionFlow.STRICT: 2}


class Kind(IntEnum):
    """What a token is. Brackets around media count as media; `</Unified_Latent>` counts as text."""

    PAD = 0
    TEXT = 1
    MEDIA = 2
    TRIGGER = 3
    ECHO = 4
    WINDOW = 5
    LATENT = 6


@dataclass(frozen=True)
class Layout:
    """What the mask needs to know of each token; every field is (B, T) int64.

    order: place in the sequence (a token sees itself and what stands before it). kind: `Kind`. block: latent block
    number, -1 outside. turn: 0 for the shared prefix (system, media), 1, 2, ... for the turns of a conversation, which see
    the earlier ones, -1, -2, ... for questions asked apart, which do not. flow: `FLOW_CODES` of the turn. sample: number of the
    sample in a packed row; samples are blind to one another.
    """

    order: torch.Tensor
    kind: torch.Tensor
    block: torch.Tensor
    turn: torch.Tensor
    flow: torch.Tensor
    sample: torch.Tensor

    def slice(self, start: int, stop: int) -> "Layout":
        """Tokens `start` to `stop` of every row."""
        return Layout(*(getattr(self, f.name)[:, start:stop] for f in fields(self)))

    def select(self, index: torch.Tensor) -> "Layout":
        """Tokens `index` (B, N) of each row."""
        return Layout(*(getattr(self, f.name).gather(1, index) for f in fields(self)))


def attention_mask(query: Layout, key: Layout) -> torch.Tensor:
    """(B, Q, K) bool, True where the query may see the key. Padding is never seen but by padding, which
    always sees itself, so that no query is without a key.

    open: plain causal. paper: after the first trigger of its turn, text no longer sees media. strict: media are visible
    only to media, triggers, echoes, windows and latents; triggers, echoes and windows only inside their own block; so
    the latents are the only road from media to text (paper 1.7; official-code.md 2c for the rule in the released code).
    """
    q = {f.name: getattr(query, f.name)[:, :, None] for f in fields(query)}
    k = {f.name: getattr(key, f.name)[:, None, :] for f in fields(key)}
    # What only some layouts have is asked for once, and not computed for every pair of tokens where it is missing.
    visible = k["order"] <= q["order"]
    in_reach = (k["turn"] > 0) & (q["turn"] > 0) | (k["turn"] == 0)
    if bool((query.turn < 0).any()):
        in_reach |= k["turn"] == q["turn"]
    visible &= in_reach
    visible &= k["kind"] != Kind.PAD
    if bool((key.sample != key.sample[:, :1]).any()) or bool((query.sample != key.sample[:, :1]).any()):
        visible &= k["sample"] == q["sample"]
    is_text, to_media = q["kind"] == Kind.TEXT, k["kind"] == Kind.MEDIA
    paper, strict = FLOW_CODES[AttentionFlow.PAPER], FLOW_CODES[AttentionFlow.STRICT]
    closed = q["flow"] == strict
    if bool((query.flow == paper).any()):
        trigger_seen = (visible & (k["turn"] == q["turn"]) & (k["kind"] == Kind.TRIGGER)).any(-1, keepdim=True)
        closed = closed | (q["flow"] == paper) & trigger_seen
    blind = (is_text & closed) & to_media
    # A block written under the strict flow stays closed in every later turn, whatever that turn's own flow is.
    inner = (k["kind"] >= Kind.TRIGGER) & (k["kind"] <= Kind.WINDOW) & (k["flow"] == strict)
    if bool(inner.any()):
        blind |= inner & (k["block"] != q["block"])
    visible &= ~blind
    if bool((query.kind == Kind.PAD).any()):
        visible |= (q["kind"] == Kind.PAD) & (k["order"] == q["order"])
    return visible


def causal_length(mask: torch.Tensor) -> int:
    """How many tokens at the start of every row see just what stands before them and themselves. mask: (B, T, T)."""
    plain = torch.ones(mask.shape[1:], dtype=torch.bool, device=mask.device).tril()
    return int((mask == plain).all(2).all(0).long().cumprod(0).sum())
