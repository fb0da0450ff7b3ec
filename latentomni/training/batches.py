"""Training rows as tensors: padded, or several samples packed into one row and blind to one another.

Dimensions: B rows, T tokens, n latents of the batch, K latents per block, D hidden.
"""

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from latentomni.attention_flow import Kind, Layout, attention_mask
from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.modeling import Thinker
from latentomni.positions import latent_places
from latentomni.sequence import ClipFeatures, Sequence, collate
from latentomni.training.examples import Example

__all__ = ["Batch", "make_batch", "make_batches", "pack"]


@dataclass(frozen=True, eq=False)
class Batch:
    """ids (B, T), positions (3, B, T) and layout as `collate` makes them. media: (2, m) row and token of every media feature.
    features: (m, D) of frozen towers, still on the CPU; encode: the same with gradient, of towers in training. text: (3, t) row,
    predictor, token id, with one group name each. latents: (3, n) row, predictor, token index of the latent, block by block.
    anchors: (n, D) and exists: (n,). sample: (n,) number of the sample a latent belongs to. times: (n,) its time in position
    ids. is_visual: (n,). asked: (3, a) row, token, position id of the middle of the window that is asked for, from the start
    of the clip.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    layout: Layout
    media: torch.Tensor
    features: torch.Tensor
    text: torch.Tensor
    groups: list[str]
    latents: torch.Tensor
    anchors: torch.Tensor
    exists: torch.Tensor
    sample: torch.Tensor
    times: torch.Tensor
    is_visual: torch.Tensor
    asked: torch.Tensor
    encode: Callable[[], torch.Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.ids.device

    @property
    def mask(self) -> torch.Tensor:
        """(B, T, T), made when it is needed: of a long row it is larger than all else here."""
        return attention_mask(self.layout, self.layout).to(self.device)

    @cached_property
    def unread(self) -> int:
        """How many tokens at the start of every row predict nothing that is supervised."""
        return int(torch.cat([self.text[1], self.latents[1]]).min()) if self.text.numel() + self.latents.numel() else 0

    def embeds(self, thinker: Thinker, vectors: torch.Tensor) -> torch.Tensor:
        """(B, T, D) inputs, with `vectors` (n, D) at the latents."""
        embeds = thinker.embed(self.ids)
        features = self.encode() if self.encode and torch.is_grad_enabled() else self.features
        embeds = embeds.index_put((self.media[0], self.media[1]), features.to(embeds.device, embeds.dtype))
        return embeds.index_put((self.latents[0], self.latents[2]), vectors.to(embeds.dtype))


def make_batch(thinker: Thinker, examples: list[Example], packs: list[int] | None = None,
               encode: Callable[[int], ClipFeatures] | None = None) -> Batch:  # fmt: skip
    """Collate examples. packs: how many of them share each row, in order; one each unless given. encode: gives the features of
    the n-th example's clip again, with gradient, where towers are trained."""
    device = thinker.device
    ids, positions, layout = collate([e.sequence for e in examples], packs)
    starts = _starts(examples, packs)
    media = [_media(e.sequence) for e in examples]
    d = thinker.hidden_size

    def fed(clip_of: Callable[[int], ClipFeatures]) -> torch.Tensor:
        parts = [clip_of(n).vectors[list(sources.values())] for n, sources in enumerate(media) if sources]
        return torch.cat(parts) if parts else torch.zeros(0, d)

    placed = list(zip(starts, examples, strict=True))
    places = [(latent_places(w, thinker.spec), k) for k, e in enumerate(examples) for w in e.sequence.windows]
    return Batch(
        ids.to(device), positions.to(device), layout,
        _index([(b, at + i) for (b, at), sources in zip(starts, media, strict=True) for i in sources], 2, device),
        fed(lambda n: examples[n].sequence.clip),
        _index([(b, at + i, token) for (b, at), e in placed for i, token, _ in e.text_targets], 3, device),
        [group for e in examples for _, _, group in e.text_targets],
        _index([(b, at + i, at + j) for (b, at), e in placed for i, j in e.latent_targets], 3, device),
        torch.cat([a for e in examples for a in e.anchors] or [torch.zeros(0, d)]).to(device).float(),
        torch.cat([x for e in examples for x in e.exists] or [torch.zeros(0, dtype=torch.bool)]).to(device),
        torch.tensor([k for p, k in places for _ in p], dtype=torch.long, device=device),
        torch.tensor([round(x.time_s * POSITIONS_PER_SECOND) for p, _ in places for x in p], dtype=torch.long, device=device),
        torch.tensor([x.modality == "visual" for p, _ in places for x in p], dtype=torch.bool, device=device),
        _index([(b, at + i, int(w.midpoint_s * POSITIONS_PER_SECOND)) for (b, at), e in placed for i, w in e.asked], 3, device),
        partial(fed, encode) if encode else None,
    )  # fmt: skip


def make_batches(thinker: Thinker, examples: list[Example], rows: int) -> list[Batch]:
    """Micro-batches of so many examples, the last of what is left."""
    return [make_batch(thinker, examples[k : k + rows]) for k in range(0, len(examples), rows)]


def _starts(examples: list[Example], packs: list[int] | None) -> list[tuple[int, int]]:
    """Row and first token of every example."""
    starts, chosen = [], iter(examples)
    for b, count in enumerate(packs or [1] * len(examples)):
        at = 0
        for _ in range(count):
            starts.append((b, at))
            at += len(next(chosen).sequence)
    return starts


def _media(row: Sequence) -> dict[int, int]:
    """Which feature of the clip each media token is fed."""
    return {i: source for i, (kind, source) in enumerate(zip(row.kinds, row.sources, strict=True)) if kind == Kind.MEDIA and source >= 0}


def _index(rows: list[tuple[int, ...]], width: int, device: torch.device) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(-1, width).T.contiguous()


def pack(lengths: Listing[int], max_tokens: int) -> tuple[list[int], list[int]]:
    """First-fit-decreasing: an order of the samples and how many of them share each row of at most `max_tokens` tokens. A
    longer sample has a row of its own."""
    rows: list[tuple[int, list[int]]] = []
    for i in np.argsort([-n for n in lengths], kind="stable").tolist():
        place = next((r for r, (used, _) in enumerate(rows) if used + lengths[i] <= max_tokens), None)
        if place is None:
            rows.append((lengths[i], [i]))
        else:
            rows[place] = (rows[place][0] + lengths[i], [*rows[place][1], i])
    return [i for _, members in rows for i in members], [len(members) for _, members in rows]
