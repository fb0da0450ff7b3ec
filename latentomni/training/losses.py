"""Losses over packed rows, anchor-forced or self-fed.

Dimensions: B rows, T tokens, N latents of a row, K latents per block, D hidden.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from latentomni.attention_flow import Kind, Layout, attention_mask
from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.modeling import Thinker
from latentomni.sequence import collate
from latentomni.training.examples import Example

__all__ = ["Batch", "TimeProbes", "batch_losses", "make_batch", "self_fed_latents"]

_CLOCK_BINS, _CLOCK_STEP_IDS = 24, 12  # bins of about half a second


@dataclass(frozen=True, eq=False)
class Batch:
    """Packed rows as tensors. embeds: (B, T, D) with latents at their anchors. text, latents: (3 or 4, n) index lists:
    row, predictor, target (token id, or token index of the latent). anchors: (n, D). asked: (3, n) row, token, time bin. group: one name per text target."""

    embeds: torch.Tensor
    positions: torch.Tensor
    layout: Layout
    mask: torch.Tensor
    text: torch.Tensor
    groups: list[str]
    latents: torch.Tensor
    anchors: torch.Tensor
    exists: torch.Tensor
    asked: torch.Tensor


def make_batch(thinker: Thinker, examples: list[Example]) -> Batch:
    rows = [e.sequence for e in examples]
    ids, positions, layout = collate(rows)
    device = thinker.device
    embeds = thinker.embed_rows(rows, ids.to(device))
    text = torch.tensor([(b, i, t) for b, e in enumerate(examples) for i, t, _ in e.text_targets]).T
    latents = torch.tensor([(b, i, j) for b, e in enumerate(examples) for i, j in e.latent_targets], dtype=torch.long).reshape(-1, 3).T
    anchors = torch.cat([a for e in examples for a in e.anchors] or [torch.zeros(0, embeds.shape[-1])]).to(device).float()
    exists = torch.cat([x for e in examples for x in e.exists] or [torch.zeros(0, dtype=torch.bool)]).to(device)
    mask = attention_mask(layout, layout, packed=True)
    asked = torch.tensor([(b, i, int(w.midpoint_s * POSITIONS_PER_SECOND) // _CLOCK_STEP_IDS)
                          for b, e in enumerate(examples) for i, w in e.asked], dtype=torch.long).reshape(-1, 3).T  # fmt: skip
    embeds = embeds.index_put((latents[0], latents[2]), anchors.to(embeds.dtype))
    return Batch(embeds, positions.to(device), layout, mask.to(device), text.to(device),
                 [g for e in examples for _, _, g in e.text_targets], latents.to(device), anchors, exists, asked.to(device))  # fmt: skip


class TimeProbes(torch.nn.Module):
    """Two linear readers of time inside the model, used in training only.

    clock: the half second of every media token, after the first layer. Rotary positions are relative; without this no
    token is told its own time. search: the middle of the window, after the second layer, at the echoed word that is asked
    for ("bell", or "star" of "red star"). Without them the model finds what is asked for late, and when it was never (docs/LOG.md).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.clock, self.search = torch.nn.Linear(hidden, _CLOCK_BINS), torch.nn.Linear(hidden, _CLOCK_BINS)

    def losses(self, states: list[torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
        """states: (B, T, D) after each layer."""
        t = batch.positions[0]
        media = (batch.layout.kind == Kind.MEDIA).to(t.device)
        start = t.masked_fill(~media, 1 << 30).amin(1, keepdim=True)
        time_bin = ((t - start - 1).clamp_min(0) // _CLOCK_STEP_IDS).clamp_max(_CLOCK_BINS - 1)
        losses = {"clock": F.cross_entropy(self.clock(states[0][media]), time_bin[media])}
        if batch.asked.numel():
            row, token, bin_ = batch.asked
            losses["search"] = F.cross_entropy(self.search(states[1][row, token]), bin_)
        return losses


def batch_losses(thinker: Thinker, batch: Batch, vectors: torch.Tensor, probes: TimeProbes | None = None) -> dict[str, torch.Tensor]:
    """Unweighted terms with `vectors` (n, D) fed at the latent slots: cross-entropy by group, and the alignment of every
    predicted latent with its anchor (paper eq. 5, mean over dimensions: alignment_reduction="mean")."""
    embeds = batch.embeds.index_put((batch.latents[0], batch.latents[2]), vectors.to(batch.embeds.dtype))
    with thinker.layer_states() as states:
        hidden = thinker.forward(embeds, batch.positions, batch.mask)
    logits = thinker.logits(hidden[batch.text[0], batch.text[1]])
    nll = F.cross_entropy(logits.float(), batch.text[2], reduction="none")
    names = sorted(set(batch.groups))
    number = torch.tensor([names.index(g) for g in batch.groups], device=nll.device)
    losses = {f"ce_{name}": nll[number == k].mean() for k, name in enumerate(names)}
    if len(batch.anchors):
        predicted = thinker.latent(hidden[batch.latents[0], batch.latents[1]]).float()
        losses["alignment"] = F.mse_loss(predicted[batch.exists], batch.anchors[batch.exists])
    return losses | (probes.losses(states, batch) if probes else {})


@torch.no_grad()
def self_fed_latents(thinker: Thinker, batch: Batch, passes: int) -> torch.Tensor:
    """(n, D) latents after `passes` Jacobi passes from the anchors: the first `passes` latents of every block are exactly
    those of sequential feedback; all are after K passes (one block per question). Keys and values of everything before
    the latents come from one forward and are shared by all passes."""
    cache = DynamicCache(config=thinker.model.config.text_config)
    hidden = thinker.forward(batch.embeds, batch.positions, batch.mask, cache)
    row, predictor, slot = (x.contiguous() for x in batch.latents)
    vectors = thinker.latent(hidden[row, predictor])
    index = _padded_index(row, slot, len(batch.embeds))
    place = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)
    query = batch.layout.select(index.clamp_min(0).cpu())
    query = Layout(query.order, torch.where(index.cpu() < 0, int(Kind.PAD), query.kind), query.block, query.turn, query.flow)
    base = batch.layout
    hidden_slots = Layout(base.order, torch.where(base.kind == Kind.LATENT, int(Kind.PAD), base.kind), base.block, base.turn, base.flow)
    keys = Layout(*(torch.cat([getattr(hidden_slots, f), getattr(query, f)], 1) for f in ("order", "kind", "block", "turn", "flow")))
    mask = attention_mask(query, keys, packed=True).to(batch.embeds.device)
    positions = batch.positions.gather(2, index.clamp_min(0).expand(3, -1, -1))
    first = _starts_block(batch.layout, row, predictor)
    for _ in range(passes - 1):
        embeds = batch.embeds.new_zeros(*index.shape, batch.embeds.shape[-1])
        embeds[row, place] = vectors.to(embeds.dtype)
        out = thinker.latent(thinker.forward(embeds, positions, mask, cache))
        cache.crop(-index.shape[1])
        # Latent k + 1 is what stands at latent k; the first of a block is predicted from outside it and stays.
        vectors = torch.where(first[:, None], vectors, out[row, (place - 1).clamp_min(0)])
    return vectors


def _starts_block(layout: Layout, row: torch.Tensor, predictor: torch.Tensor) -> torch.Tensor:
    """(n,) whether a latent is the first of its block."""
    return layout.kind.to(row.device)[row, predictor] != Kind.LATENT


def _padded_index(row: torch.Tensor, slot: torch.Tensor, rows: int) -> torch.Tensor:
    """(B, N) token index of every latent slot, -1 as padding."""
    per_row = [slot[row == b] for b in range(rows)]
    return torch.nn.utils.rnn.pad_sequence(per_row, batch_first=True, padding_value=-1)
