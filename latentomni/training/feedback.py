"""What stands in the latent slots while the model is trained: anchors, or the model's own latents fed back.

A batch is cut at the first latent of every strand (a conversation, or a question asked apart): the tokens before it form the
prefix, whose keys and values every pass shares. Dimensions: B rows, T tokens, P prefix tokens, R remaining tokens, n latents
of the batch, K latents per block, S blocks of a strand, D hidden.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
from transformers import DynamicCache

from latentomni.attention_flow import Kind, Layout, attention_mask
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.training.batches import Batch

__all__ = ["Feedback", "Phase", "jacobi", "open_prefix", "rollout"]


@dataclass(frozen=True, eq=False)
class Feedback:
    """A batch whose prefix has been run. embeds: (B, T, D) inputs, with anchors in the slots. prefix, rest: (B, P) and (B, R)
    token indices, -1 where a row has fewer. chunks: per step the token indices (B, m) that can be fed once the latents before
    them are known. hidden: (B, P, D) of the prefix."""

    thinker: Thinker
    batch: Batch
    embeds: torch.Tensor
    prefix: torch.Tensor
    rest: torch.Tensor
    chunks: list[torch.Tensor]
    cache: DynamicCache
    hidden: torch.Tensor

    def patched(self, vectors: torch.Tensor) -> torch.Tensor:
        """(B, T, D) hidden states with `vectors` (n, D) in the slots: one pass over the rest behind the shared prefix, with gradient."""
        return self.whole(self.hidden, self.feed(self.rest, vectors, self.cache, self.prefix))

    def whole(self, prefix: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        """(B, T, D) from the values (B, P, D) of the prefix and (B, R, D) of the rest; 0 at padding."""
        return _put(_put(torch.zeros_like(self.embeds), self.prefix, prefix), self.rest, rest)

    def feed(self, index: torch.Tensor, vectors: torch.Tensor, cache: DynamicCache, before: torch.Tensor) -> torch.Tensor:
        """(B, m, D) of the tokens `index` (B, m) behind the keys of the tokens `before` (B, k) in the cache, which grows."""
        layout, device = self.batch.layout, self.embeds.device
        keys = _chosen(layout, torch.cat([before, index], 1))
        query = keys.slice(before.shape[1], keys.order.shape[1])
        at = index.clamp_min(0).to(device)
        positions = self.batch.positions.gather(2, at.expand(3, -1, -1))
        tokens = self.embeds.gather(1, at[..., None].expand(-1, -1, self.embeds.shape[-1]))
        row, place, known = _located(index, self.embeds.shape[1], self.batch.latents[0], self.batch.latents[2])
        tokens = tokens.index_put((row, place), vectors[known].to(tokens.dtype))
        unread = self.batch.unread
        is_start = before.shape[1] == 0 and bool((index[:, :unread] == torch.arange(unread)).all())
        return self.thinker.forward(tokens, positions, attention_mask(query, keys).to(device), cache, unread if is_start else 0)


def open_prefix(thinker: Thinker, batch: Batch, *, grad: bool) -> Feedback:
    """Run the prefix of a batch. grad: its keys and values carry the gradient, as `Feedback.patched` needs."""
    prefix, rest, chunks = _cut(batch)
    cache = DynamicCache(config=thinker.model.config.text_config)
    with nullcontext() if grad else torch.no_grad():
        embeds = batch.embeds(thinker, batch.anchors)
        cut = Feedback(thinker, batch, embeds, prefix, rest, chunks, cache, torch.empty(0))
        return replace(cut, hidden=cut.feed(prefix, batch.anchors, cache, prefix[:, :0]))


@torch.no_grad()
def jacobi(feedback: Feedback, passes: int, start: torch.Tensor | None = None) -> torch.Tensor:
    """(n, D) latents after `passes` parallel passes from `start` (the anchors): each makes at least one more latent of every
    strand exactly that of sequential feedback, so all are after S * K - 1."""
    batch, cache = feedback.batch, _detached(feedback.cache, feedback.thinker)
    start = batch.anchors if start is None else start
    vectors = _predicted(feedback, feedback.prefix, feedback.hidden, start.to(feedback.hidden.dtype))
    index = torch.cat(feedback.chunks, 1) if feedback.chunks else torch.zeros(len(batch.ids), 0, dtype=torch.long)
    for _ in range(passes if index.shape[1] else 0):
        hidden = feedback.feed(index, vectors, cache, feedback.prefix)
        cache.crop(-index.shape[1])
        vectors = _predicted(feedback, index, hidden, vectors)
    return vectors


def rollout(feedback: Feedback, *, grad: bool = False) -> torch.Tensor:
    """(n, D) latents of exact sequential feedback, as decoding makes them: one step per latent, all strands of all rows at once.
    grad: back through every step (the reference that the passes above save)."""
    batch, thinker, fed = feedback.batch, feedback.thinker, feedback.prefix
    with nullcontext() if grad else torch.no_grad():
        cache = _detached(feedback.cache, thinker, keep_graph=grad)
        vectors = _predicted(feedback, feedback.prefix, feedback.hidden, batch.anchors.to(feedback.hidden.dtype))
        for index in feedback.chunks:
            hidden = feedback.feed(index, vectors, cache, fed)
            fed = torch.cat([fed, index], 1)
            vectors = _predicted(feedback, index, hidden, vectors)
    return vectors


@dataclass(frozen=True)
class Phase:
    """What fills the slots. kind: "anchors" (phase A, one pass), "jacobi" (phase B, `passes` parallel passes) or "rollout" (phase C,
    exact). share: of the blocks that are fed their own latents; the others, and those that are given, stay at their anchors. noise: standard
    deviation added to anchors."""

    kind: str = "anchors"
    passes: int = 2
    share: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(self.kind in ("anchors", "jacobi", "rollout"), f"a phase is anchors, jacobi or rollout, got {self.kind!r}")
        require(self.passes >= 1 and 0 <= self.share <= 1 and self.noise >= 0, f"a phase needs passes >= 1, 0 <= share <= 1, noise >= 0: {self}")

    def fill(self, thinker: Thinker, batch: Batch, seed: int = 0) -> tuple[torch.Tensor, Feedback | None]:
        """The (n, D) vectors for the slots, detached, and the feedback whose prefix carries the gradient; None where all tokens
        go through one pass: in phase A, and under gradient checkpointing, which keeps no keys and values."""
        random = torch.Generator().manual_seed(seed)
        noise = self.noise * torch.randn(batch.anchors.shape, generator=random).to(batch.device) if self.noise else 0
        vectors = batch.anchors + noise
        if self.kind == "anchors" or not len(vectors):
            return vectors, None
        is_shared = not getattr(thinker.text_model.layers[0], "gradient_checkpointing", False)
        with nullcontext() if is_shared else _as_decoding(thinker):
            feedback = open_prefix(thinker, batch, grad=is_shared)
            own = rollout(feedback) if self.kind == "rollout" else jacobi(feedback, self.passes)
        learned = batch.exists.view(-1, thinker.spec.n_latents).any(1)  # what is given is read as it is
        fed = learned & (torch.rand(len(learned), generator=random) < self.share).to(learned.device)
        own = torch.where(fed.repeat_interleave(thinker.spec.n_latents)[:, None], own, vectors.to(own.dtype))
        return own, feedback if is_shared else None


@contextmanager
def _as_decoding(thinker: Thinker) -> Iterator[None]:
    """Out of training mode, in which layers under gradient checkpointing drop the cache."""
    was_training = thinker.text_model.training
    thinker.text_model.eval()
    try:
        yield
    finally:
        thinker.text_model.train(was_training)


def _cut(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Token indices of the prefix, of the rest, and of the chunks of the rollout."""
    kinds, predictors = batch.layout.kind.tolist(), set(zip(batch.latents[0].tolist(), batch.latents[1].tolist(), strict=True))
    prefixes, rests, steps = [], [], []
    for b in range(len(kinds)):
        prefix, rest, chunks = [], [], []
        for strand in _strands(batch.layout, b):
            slots = [i for i in strand if kinds[b][i] == Kind.LATENT]
            first, last = (slots[0], slots[-1]) if slots else (strand[-1] + 1, 0)
            prefix += [i for i in strand if i < first]
            rest += [i for i in strand if i >= first]
            chunks.append(list(_chunks([i for i in strand if first <= i < last], b, predictors)))
        prefixes.append(sorted(prefix))
        rests.append(rest)
        steps.append(chunks)
    longest = max((len(c) for row in steps for c in row), default=0)
    fed = [[[i for c in row if s < len(c) for i in c[s]] for row in steps] for s in range(longest)]
    return _padded(prefixes), _padded(rests), [_padded(rows) for rows in fed]


def _chunks(tokens: list[int], row: int, predictors: set[tuple[int, int]]) -> Iterator[list[int]]:
    """Runs of tokens, each ending where a latent is predicted."""
    chunk: list[int] = []
    for i in tokens:
        chunk.append(i)
        if (row, i) in predictors:
            yield chunk
            chunk = []


def _strands(layout: Layout, b: int) -> list[list[int]]:
    """Tokens of a row by what they depend on: per sample the shared prefix, each question asked apart, and the conversation."""
    strands: dict[tuple[int, int], list[int]] = {}
    for i, (kind, sample, turn) in enumerate(zip(layout.kind[b].tolist(), layout.sample[b].tolist(), layout.turn[b].tolist(), strict=True)):
        if kind != Kind.PAD:
            strands.setdefault((sample, min(turn, 1)), []).append(i)
    return list(strands.values())


def _padded(rows: list[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r, dtype=torch.long) for r in rows], batch_first=True, padding_value=-1)


def _chosen(layout: Layout, index: torch.Tensor) -> Layout:
    """The tokens `index` of each row; -1 gives padding."""
    chosen = layout.select(index.clamp_min(0))
    order = torch.where(index < 0, -1 - torch.arange(index.shape[1]), chosen.order)  # each sees itself alone
    return Layout(order, torch.where(index < 0, int(Kind.PAD), chosen.kind), *(getattr(chosen, f.name) for f in fields(Layout)[2:]))


def _put(target: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`target` (B, T, D) with `values` (B, m, D) at the tokens `index` (B, m)."""
    row, place = (index >= 0).nonzero(as_tuple=True)
    return target.index_put((row, index[row, place]), values[row, place])


def _predicted(feedback: Feedback, index: torch.Tensor, hidden: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """`vectors` (n, D) with those replaced whose predictor is among the tokens `index` (B, m), of which `hidden` (B, m, D) is known."""
    row, place, known = _located(index, feedback.embeds.shape[1], feedback.batch.latents[0], feedback.batch.latents[1])
    return vectors.index_put((known,), feedback.thinker.latent(hidden[row, place]).to(vectors.dtype))


def _located(index: torch.Tensor, tokens: int, row: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of the places (row, token), (n,) each, in rows of so many tokens, are among `index` (B, m): their rows, where they
    stand in it, and their numbers."""
    places = torch.full((len(index), tokens), -1)
    b, p = (index >= 0).nonzero(as_tuple=True)
    places[b, index[b, p]] = p
    place = places[row.cpu(), token.cpu()]
    known = (place >= 0).nonzero()[:, 0]
    device = row.device
    return row[known.to(device)], place[known].to(device), known.to(device)


def _detached(cache: DynamicCache, thinker: Thinker, *, keep_graph: bool = False) -> DynamicCache:
    """A cache of its own on the same keys and values."""
    copy = DynamicCache(config=thinker.model.config.text_config)
    for number, layer in enumerate(cache.layers):
        keys, values = (layer.keys, layer.values) if keep_graph else (layer.keys.detach(), layer.values.detach())
        copy.update(keys, values, number)
    return copy
