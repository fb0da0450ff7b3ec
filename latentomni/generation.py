"""The decode loop: text mode and latent mode over one or more rows, as a stream of events.

The loop owns cache, positions and mask. Each tick feeds, for every row, the tokens whose embeddings have become known:
the prompt, a sampled word, the trigger with its echo, a latent with (after the last one) the closing token.
Dimensions: B rows, K latents per block, D hidden.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from latentomni.attention_flow import Kind
from latentomni.config import Mode, SamplingSpec
from latentomni.events import Event, Finished, LatentClosed, LatentOpened, LatentStep, TextDelta
from latentomni.memory import peak_bytes
from latentomni.modeling import Thinker
from latentomni.positions import LatentPlace
from latentomni.prefix import Columns, Prefix, growing_cache, make_room
from latentomni.sequence import Sequence
from latentomni.steps import FixedStep

__all__ = ["PREFILL_CHUNK", "Progress", "generate", "read_on", "read_prefix", "score"]

PREFILL_CHUNK = 1024  # tokens of a prompt that go through the model at once
_LEAST_TEMPERATURE = 1e-3
_SEED_STEP = 0x9E3779B97F4A7C15


@dataclass
class _Row:
    """Decoding state of one row. `fed` tokens are in the cache; tokens before `ready` have known embeddings."""

    sequence: Sequence
    mode: Mode
    random: torch.Generator
    fed: int = 0
    ready: int = 0
    window_text: str | None = None
    window_tokens: int = 0
    places: tuple[LatentPlace, ...] = ()
    latents_done: int = 0
    pending: list[int] = field(default_factory=list)
    text: str = ""
    gap: bool = False
    tokens: int = 0
    blocks: int = 0
    ttft_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """What an answer that is gone on with has come to: its text, the tokens it has cost and the blocks it has opened."""

    text: str = ""
    tokens: int = 0
    blocks: int = 0


@torch.no_grad()
def read_prefix(thinker: Thinker, sequences: list[Sequence], counts: list[int], cancelled: Callable[[], bool] = lambda: False) -> Prefix | None:
    """Feed the first `counts` tokens of each sequence, for rows that begin like these and then differ. None where `cancelled()` turned true
    on the way."""
    decoder = _Decoder(thinker, sequences, [Mode.LATENT] * len(sequences), SamplingSpec(), cancelled)
    for row, count in zip(decoder.rows, counts, strict=True):
        row.ready = count
    try:
        decoder.feed()
    except _Stopped:
        return None
    return Prefix(counts, decoder.cache, decoder.columns)


@torch.no_grad()
def read_on(thinker: Thinker, sequences: list[Sequence], prefix: Prefix | None = None) -> torch.Tensor:
    """(B, n, D) hidden states of every sequence's tokens behind the prefix."""
    return _Decoder(thinker, sequences, [Mode.LATENT] * len(sequences), SamplingSpec(), prefix=prefix).feed()


@torch.no_grad()
def score(thinker: Thinker, sequences: list[Sequence], texts: list[list[int]], prefix: Prefix | None = None) -> list[float]:
    """Log probability of the token ids of a text behind each sequence; they are appended to it."""
    starts = [len(s) for s in sequences]
    for sequence, text in zip(sequences, texts, strict=True):
        sequence.add_text(text)
    decoder = _Decoder(thinker, sequences, [Mode.LATENT] * len(sequences), SamplingSpec(), prefix=prefix)
    fed, hidden, scores = [row.fed for row in decoder.rows], decoder.feed(), []
    for b, (start, text) in enumerate(zip(starts, texts, strict=True)):
        first = start - 1 - fed[b]
        p = thinker.logits(hidden[b, first : first + len(text)]).float().log_softmax(-1)
        scores.append(float(p.gather(1, torch.tensor(text, dtype=torch.long, device=p.device)[:, None]).sum()))
    return scores


def generate(thinker: Thinker, sequences: list[Sequence], modes: list[Mode], sampling: SamplingSpec,
             cancelled: Callable[[], bool] = lambda: False, prefix: Prefix | Callable[[], Prefix | None] | None = None,
             progress: list[Progress] | None = None) -> Iterator[tuple[int, Event]]:  # fmt: skip
    """Answer the open assistant turn of every sequence, which grow in place. Yields (row, event), ending in Finished.

    A sequence may end inside a latent block that is open (behind its trigger or in its window): it goes on from there.
    Stops between any two steps, or two parts of a long prompt, when `cancelled()` turns true or the generator is closed; a block begun is then
    taken back.
    `prefix`: what the sequences begin with, where that has been read already; or what reads it, once the answer is wanted.
    `progress`: of answers that are gone on with, so that limits, text and numbers of blocks run on. Every block begins a random
    stream of its own, so an answer that goes on behind a block draws what it would have drawn without a break.
    """
    started_s = time.perf_counter()
    read = prefix() if callable(prefix) else prefix
    yield from _Decoder(thinker, sequences, modes, sampling, cancelled, read, progress).run(started_s)


class _Stopped(Exception):
    """Nobody waits any more for what is being read."""


class _Decoder:
    def __init__(self, thinker: Thinker, sequences: list[Sequence], modes: list[Mode], sampling: SamplingSpec,
                 cancelled: Callable[[], bool] = lambda: False, prefix: Prefix | None = None,
                 progress: list[Progress] | None = None) -> None:  # fmt: skip
        self.thinker, self.sampling, self.cancelled = thinker, sampling, cancelled
        self.ids, self.spec = thinker.ids, thinker.spec
        self.grammar = thinker.grammar
        self.rows = [
            _Row(s, m, self._stream(p.blocks), ready=len(s), text=p.text, gap=bool(p.text), tokens=p.tokens, blocks=p.blocks)
            for s, m, p in zip(sequences, modes, progress or [Progress()] * len(sequences), strict=True)
        ]
        self.cache, self.columns = growing_cache(thinker.model.config.text_config), Columns()
        if prefix is not None:
            self.cache, self.columns = prefix.fork()
            for row, count in zip(self.rows, prefix.fed, strict=True):
                row.fed = count
        self.fixed = FixedStep(thinker, self.cache) if thinker.fixes_steps else None
        never = [self.ids.close, self.ids.latent_pad, self.ids.video, self.ids.audio, self.ids.vision_bos, self.ids.vision_eos,
                 self.ids.audio_bos, self.ids.audio_eos, self.ids.padding]  # fmt: skip
        self.never = torch.tensor(never, device=thinker.device)

    @torch.no_grad()
    def run(self, started_s: float) -> Iterator[tuple[int, Event]]:
        self.started_s = started_s
        try:
            for b in range(len(self.rows)):
                yield from self._enter_open_block(b)
            while active := [b for b, row in enumerate(self.rows) if not row.reason]:
                if self.cancelled():
                    yield from self._stop(active)
                    return
                try:
                    hidden = self._tick()
                except _Stopped:
                    yield from self._stop(active)
                    return
                if self.fixed and len(self.rows) == 1 and self.rows[0].places:
                    yield from self._latent_block(hidden)
                    continue
                for b in active:
                    yield from self._advance(b, hidden[b : b + 1])
        finally:  # the generator was closed, or a step failed
            self._drop_open_blocks()

    def _stream(self, blocks: int) -> torch.Generator:
        """The random numbers behind block number `blocks` (counted from 1; before the first one: 0)."""
        return torch.Generator().manual_seed((self.sampling.seed + blocks * _SEED_STEP) % 2**63)

    def _enter_open_block(self, b: int) -> Iterator[tuple[int, Event]]:
        row, s = self.rows[b], self.rows[b].sequence
        if s.blocks[-1] != len(s.windows):
            return
        written = [t for t, kind, n in zip(s.token_ids, s.kinds, s.blocks, strict=True) if kind == Kind.WINDOW and n == len(s.windows)]
        row.blocks = len({n for n, turn in zip(s.blocks, s.turns, strict=True) if n >= 0 and turn == s.turn})
        row.window_tokens, row.window_text = len(written), "".join(map(self.grammar.text, written))
        if not self.spec.writes_window or self._window_is_written(row):
            yield from self._open_latents(b)

    def _stop(self, active: list[int]) -> Iterator[tuple[int, Event]]:
        self._drop_open_blocks()
        for b in active:
            yield from self._finish(b, "cancelled")

    def _drop_open_blocks(self) -> None:
        for row in self.rows:
            row.sequence.drop_open_block()

    def _tick(self) -> torch.Tensor:
        """Feed every row's known tokens; (B, D) hidden state of the last one fed (rubbish for finished rows)."""
        ends = [max(row.ready - row.fed - 1, 0) for row in self.rows]
        hidden = self.feed()
        return hidden[:, 0] if hidden.shape[1] == 1 else hidden[torch.arange(len(ends)), torch.tensor(ends)]

    def feed(self) -> torch.Tensor:
        """(B, n, D) hidden states of every row's known tokens, and rubbish behind them. Long prompts go through in chunks."""
        n = max(row.ready - row.fed for row in self.rows)
        known = [self._known(row, n) for row in self.rows]
        step = torch.tensor(known, device=self.thinker.device).transpose(0, 1)
        embeds, hidden = self._embed(step[6]), []
        if n > PREFILL_CHUNK and not self.thinker.is_spread:
            heads, width = self.thinker.key_shape
            make_room(self.cache, self.cache.get_seq_length() + n, embeds.new_empty(len(embeds), heads, 0, width))
        for start in range(0, n, PREFILL_CHUNK):
            if start:
                if self.cancelled():
                    raise _Stopped
                self.thinker.tidy()
            chunk = slice(start, min(start + PREFILL_CHUNK, n))
            last = [[values[chunk.stop - 1] for values in row[1:5]] for row in known]
            hidden.append(self._forward(embeds[:, chunk], step[:, :, chunk], last))
        for row in self.rows:
            row.fed = row.ready
        return hidden[0] if len(hidden) == 1 else torch.cat(hidden, 1)

    def _forward(self, embeds: torch.Tensor, step: torch.Tensor, last: list[list[int]]) -> torch.Tensor:
        """(B, n, D) hidden states of tokens whose fields, ids and positions are `step` (10, B, n)."""
        mask = self.columns.append(step[:6], last)
        if self.fixed and embeds.shape[1] == 1:
            return self.fixed.run(embeds, step[7:], mask)
        return self.thinker.forward(embeds, step[7:], mask, self.cache)

    def _known(self, row: _Row, n: int) -> list[list[int]]:
        """(10, n): the fields of `Layout`, token ids and position ids of the tokens to feed, then padding."""
        s, span, n_known = row.sequence, slice(row.fed, row.ready), row.ready - row.fed
        pads = (-1, int(Kind.PAD), -1, 0, 0, 0, self.ids.padding, 0, 0, 0)
        parts = (range(row.fed, row.ready), s.kinds[span], s.blocks[span], s.turns[span], s.flows[span], [0] * n_known, s.token_ids[span],
                 *(axis[span] for axis in s.positions))  # fmt: skip
        return [[*part, *[pad] * (n - len(part))] for part, pad in zip(parts, pads, strict=True)]

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        embeds = self.thinker.embed(ids)
        for b, row in enumerate(self.rows):
            if any(source >= 0 for source in row.sequence.sources[row.fed : row.ready]):
                self.thinker.place_vectors(embeds[b], row.sequence, row.fed, row.ready)
        return embeds

    def _advance(self, b: int, hidden: torch.Tensor) -> Iterator[tuple[int, Event]]:
        row = self.rows[b]
        if row.places:
            yield from self._latent_step(b, hidden)
        elif row.window_text is not None:
            yield from self._window_step(b, hidden)
        else:
            yield from self._text_step(b, hidden)

    def _text_step(self, b: int, hidden: torch.Tensor) -> Iterator[tuple[int, Event]]:
        row, logits = self.rows[b], self.thinker.logits(hidden)[0].float()
        logits[self.never] = -torch.inf
        is_last = row.tokens + 1 >= self.sampling.max_new_tokens  # a block is of no use without a word after it
        if row.mode is not Mode.LATENT or row.blocks >= self.sampling.max_blocks or is_last:
            logits[self.ids.trigger] = -torch.inf
        token = self._choose(logits, row.random)
        row.tokens += 1
        if token == self.ids.end_of_turn:
            row.sequence.add_text([token])
            yield from self._finish(b, "stop")
        elif token == self.ids.trigger:
            yield from self._flush(b, final=True)
            row.sequence.open_block()
            row.ready, row.blocks, row.window_text, row.window_tokens = len(row.sequence), row.blocks + 1, "", 0
            if not self.spec.writes_window:
                yield from self._open_latents(b)
        else:
            row.sequence.add_text([token])
            row.ready += 1
            row.pending.append(token)
            yield from self._flush(b, final=False)
            if row.tokens >= self.sampling.max_new_tokens:
                yield from self._finish(b, "length")

    def _window_step(self, b: int, hidden: torch.Tensor) -> Iterator[tuple[int, Event]]:
        row, logits = self.rows[b], self.thinker.logits(hidden)[0].float()
        allowed = torch.tensor(self.grammar.allowed(row.window_text), device=logits.device)
        token = int(allowed[self._choose(logits[allowed], row.random)])
        row.window_text += self.grammar.text(token)
        row.sequence.add_window_tokens([token])
        row.ready += 1
        row.window_tokens += 1
        if self._window_is_written(row):
            yield from self._open_latents(b)

    def _window_is_written(self, row: _Row) -> bool:
        return self.grammar.complete(row.window_text) or row.window_tokens >= self.spec.max_window_tokens

    def _open_latents(self, b: int) -> Iterator[tuple[int, Event]]:
        row = self.rows[b]
        window, source = self.grammar.resolve(row.window_text, row.sequence.clip.duration_s)
        row.places, row.window_text, row.latents_done = row.sequence.add_latents(window), None, 0
        row.random = self._stream(row.blocks)
        row.sequence.close_block()
        yield b, LatentOpened(row.blocks - 1, window, source, self._mark(row))

    def _latent_step(self, b: int, hidden: torch.Tensor) -> Iterator[tuple[int, Event]]:
        row = self.rows[b]
        vector = self.thinker.latent(hidden)[0]
        row.sequence.latents.append(vector)
        place, index, block = row.places[row.latents_done], row.latents_done, row.blocks - 1
        row.latents_done += 1
        row.ready += 1
        yield b, LatentStep(block, index, place.modality, place.instant, place.cell, place.time_s, vector.float().cpu().numpy(),
                            elapsed_s=self._mark(row))  # fmt: skip
        if row.latents_done == len(row.places):
            row.gap = True
            row.ready, row.places = row.ready + 1, ()  # the closing token is fed with the last latent
            yield b, LatentClosed(block, None, self._mark(row))

    def _latent_block(self, hidden: torch.Tensor) -> Iterator[tuple[int, Event]]:
        """All latents of the only row in one go: the device waits for nobody between two of them, and they are told together.
        hidden: (1, D) behind the window. The last one is fed with the closing token, as ever."""
        row, count = self.rows[0], len(self.rows[0].places)
        row.ready += count - 1
        known = self._known(row, count - 1) if count > 1 else []
        step, vectors = torch.tensor([known], device=self.thinker.device).transpose(0, 1), [self.thinker.latent(hidden)]
        for k in range(count - 1):
            if self.cancelled():
                yield from self._stop([0])
                return
            last = [[values[k] for values in known[1:5]]]
            vectors.append(self.thinker.latent(self._forward(vectors[-1][None], step[:, :, k : k + 1], last)[:, 0]))
        row.fed = row.ready
        block = torch.cat(vectors)
        told, elapsed_s = block.float().cpu().numpy(), self._mark(row)
        for index, place in enumerate(row.places):
            row.sequence.latents.append(block[index])  # one that is not told is not kept either
            yield 0, LatentStep(row.blocks - 1, index, place.modality, place.instant, place.cell, place.time_s, told[index], elapsed_s=elapsed_s)
        row.gap, row.places, row.ready = True, (), row.ready + 2
        yield 0, LatentClosed(row.blocks - 1, None, self._mark(row))

    def _choose(self, logits: torch.Tensor, random: torch.Generator) -> int:
        """Greedy at temperature 0 and so near to it that nothing else could be chosen, else nucleus sampling. logits: (N,)."""
        if self.sampling.temperature < _LEAST_TEMPERATURE:  # logits divided by less overflow
            return int(logits.argmax())
        p, order = torch.softmax(logits.cpu() / self.sampling.temperature, -1).sort(descending=True)
        p[p.cumsum(-1) - p >= self.sampling.top_p] = 0
        return int(order[torch.multinomial(p, 1, generator=random)])

    def _flush(self, b: int, *, final: bool) -> Iterator[tuple[int, Event]]:
        """Show text that can no longer change: half a UTF-8 character waits for its other half. Words around a block are set apart."""
        row = self.rows[b]
        text = self.thinker.tokenizer.decode(row.pending, skip_special_tokens=True)
        if row.pending and (final or not text.endswith("\ufffd")):
            if row.gap and row.text and not row.text[-1].isspace() and text[:1].isalnum():
                text = " " + text
            row.gap = False
            pending, row.pending, row.text = tuple(row.pending), [], row.text + text
            yield b, TextDelta(text, pending, self._mark(row))

    def _mark(self, row: _Row) -> float:
        elapsed_s = time.perf_counter() - self.started_s
        row.ttft_s = row.ttft_s or elapsed_s
        return elapsed_s

    def _finish(self, b: int, reason: str) -> Iterator[tuple[int, Event]]:
        row = self.rows[b]
        yield from self._flush(b, final=True)
        row.reason = reason
        elapsed_s, held = time.perf_counter() - self.started_s, peak_bytes(self.thinker.device)
        yield b, Finished(reason, row.text.strip(), row.tokens, row.ttft_s, elapsed_s, kv_tokens=row.fed, memory_bytes=held)
