"""How fast an answer is decoded: our loop beside the stock class's `generate()`, and a latent step beside a bare decoder step.

Everything is measured in one interleaved run on the same prompt.
"""

import logging
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, fields, replace
from itertools import islice
from statistics import median
from typing import Any

import torch

from latentomni.bench.measures import compared, synchronize
from latentomni.bench.peers import beginning, bench_clip, describe, prompt_row, stock_inputs
from latentomni.config import Mode, SamplingSpec
from latentomni.events import Finished, LatentStep, TextDelta
from latentomni.generation import generate, read_prefix
from latentomni.media import Clip
from latentomni.modeling import Thinker
from latentomni.prefix import Prefix
from latentomni.processing import new_sequence
from latentomni.runtime import Runtime
from latentomni.sequence import ClipFeatures, Sequence

__all__ = ["bench_decode"]

_TOKENS = 64
_LATENTS = 40  # per repeat, at least
_COPY_BYTES = 256 * 2**20  # far more than any cache holds
_log = logging.getLogger(__name__)


class _Opening(Thinker):
    """Opens a latent block wherever it may, whatever its weights say."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = super().logits(hidden)
        scores[:, self.ids.trigger] = torch.inf
        return scores


@dataclass(frozen=True)
class _Round:
    """Of "ours" and "peer" tokens per second and seconds of latent steps; tokens of the prompt; whether both wrote the same."""

    rates: dict[str, float]
    steps: dict[str, list[float]]
    prompt: int
    same_tokens: bool


class _Arrivals(list):
    """A streamer for `generate()` that notes when the prompt and each token arrive (seconds)."""

    def put(self, token_ids: torch.Tensor) -> None:
        self.append(time.perf_counter())

    def end(self) -> None:
        pass


def bench_decode(runtime: Runtime, repeats: int = 10, seed: int = 0) -> dict[str, Any]:
    """`ours`, `peer`: tokens per second after the first, our loop in direct mode and `generate()`, 64 greedy tokens each.

    `latent_step`: median seconds of one latent step in our loop (`ours`) and of one token through the bare decoder over a
    cache of the same length (`peer`). `share_of_limit`: the time that reading weights and cache takes at the copy bandwidth
    measured here, over the time our text step takes. `same_tokens`: whether both loops wrote the same text.
    """
    thinker = runtime.thinker
    clip, (question, _) = bench_clip(thinker, seed)
    next(_rounds(thinker, beginning(clip), question))  # warms up
    rounds: list[_Round] = []
    for done in islice(_rounds(thinker, clip, question), repeats):
        rounds.append(done)
        _log.info("decode %d/%d: %.3g and %.3g tokens/s, %.2f and %.2f ms", len(rounds), repeats, *done.rates.values(),
                  *(median(seconds) * 1e3 for seconds in done.steps.values()))  # fmt: skip
    rates = {who: [r.rates[who] for r in rounds] for who in ("ours", "peer")}
    steps = {who: [s for r in rounds for s in r.steps[who]] for who in ("ours", "peer")}
    length = rounds[0].prompt + _TOKENS // 2
    limit_s = _bytes_per_token(thinker, length) / _copy_bandwidth(thinker.device)
    return {
        **compared(rates),
        "latent_step": compared(steps),
        "share_of_limit": limit_s * median(rates["ours"]),
        "same_tokens": all(r.same_tokens for r in rounds),
        "shape": f"{describe(thinker)}; prompt of "
        f"{rounds[0].prompt} tokens ({clip.duration_s:g} s clip), {_TOKENS} greedy tokens; {thinker.spec.n_latents} latents a block; "
        "peers: generate() with its cache, one token through the language model without head",
        "repeats": repeats,
    }


def _rounds(thinker: Thinker, clip: Clip, question: str) -> Iterator[_Round]:
    """As many as are asked for. Ours, and the bare steps, go on from the clip, which was read once."""
    features = thinker.encode_clip(clip)
    seen = new_sequence(features, thinker.spec, thinker.ids, thinker.encode_text)
    prefix = read_prefix(thinker, [seen], [len(seen)])
    inputs = stock_inputs(thinker, clip, prompt_row(thinker, features, question, Mode.DIRECT))
    while True:
        row = prompt_row(thinker, features, question, Mode.DIRECT)
        (ours, tokens), (peer, stock_tokens) = _our_rate(thinker, row, prefix), _stock_rate(thinker, inputs)
        ours_s, peer_s = _latent_steps(thinker, features, question, prefix)
        yield _Round({"ours": ours, "peer": peer}, {"ours": ours_s, "peer": peer_s}, len(row) - _TOKENS, tokens == stock_tokens)


def _our_rate(thinker: Thinker, row: Sequence, prefix: Prefix) -> tuple[float, list[int]]:
    """Tokens per second after the first delta, and the tokens."""
    endless = copy(thinker)
    endless.ids = replace(thinker.ids, end_of_turn=-1)  # no token ends the turn, so that exactly _TOKENS are written
    events = [event for _, event in generate(endless, [row], [Mode.DIRECT], SamplingSpec(max_new_tokens=_TOKENS), prefix=prefix)]
    first, last = next(e for e in events if isinstance(e, TextDelta)), events[-1]
    assert isinstance(last, Finished) and last.tokens == _TOKENS, last
    return (_TOKENS - len(first.token_ids)) / (last.elapsed_s - first.elapsed_s), row.token_ids[-_TOKENS:]


def _stock_rate(thinker: Thinker, inputs: dict[str, Any]) -> tuple[float, list[int]]:
    arrivals = _Arrivals()
    written = thinker.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=_TOKENS,
        eos_token_id=None,
        pad_token_id=thinker.ids.padding,
        streamer=arrivals,
    )
    _prompt_s, first_s, *_, last_s = arrivals
    assert len(arrivals) == 1 + _TOKENS
    return (_TOKENS - 1) / (last_s - first_s), written[0, -_TOKENS:].tolist()


def _latent_steps(thinker: Thinker, features: ClipFeatures, question: str, prefix: Prefix) -> tuple[list[float], list[float]]:
    """Seconds of latent steps in our loop, and of as many tokens through the bare decoder behind the same rows."""
    opening = _Opening(*(getattr(thinker, f.name) for f in fields(Thinker)))
    ours: list[float] = []
    bare: list[float] = []
    while len(ours) < _LATENTS:
        row = prompt_row(thinker, features, question, Mode.LATENT)
        events = generate(opening, [row], [Mode.LATENT], SamplingSpec(max_new_tokens=2, max_blocks=1), prefix=prefix)
        arrived_s = [event.elapsed_s for _, event in events if isinstance(event, LatentStep)]
        ours += [b - a for a, b in zip(arrived_s, arrived_s[1:], strict=False)]
        bare += _bare_steps(thinker, row, len(arrived_s) - 1, prefix)
    return ours, bare


@torch.no_grad()
def _bare_steps(thinker: Thinker, row: Sequence, count: int, prefix: Prefix) -> list[float]:
    """Seconds per token; the stock cache begins with all of the row but the last `count` tokens."""
    decoder, cache = thinker.text_model, type(prefix.cache)(config=thinker.model.config.text_config)  # with layers of its own kind
    for number, layer in enumerate(prefix.cache.layers):
        cache.update(layer.keys, layer.values, number)
    embeds = thinker.embed_rows([row], torch.tensor([row.token_ids], device=thinker.device))
    positions = torch.tensor(row.positions, device=thinker.device)[:, None]
    (read,), start = prefix.fed, len(row) - count
    decoder(inputs_embeds=embeds[:, read:start], position_ids=positions[..., read:start], past_key_values=cache, use_cache=True)
    seconds = []
    for i in range(start, len(row)):
        synchronize(thinker.device)
        begun_s = time.perf_counter()
        decoder(inputs_embeds=embeds[:, i : i + 1], position_ids=positions[..., i : i + 1], past_key_values=cache, use_cache=True)
        synchronize(thinker.device)
        seconds.append(time.perf_counter() - begun_s)
    return seconds


def _bytes_per_token(thinker: Thinker, length: int) -> int:
    """What one text step must read: every weight of the decoder and its head, and keys and values of `length` tokens."""
    decoder, text = thinker.text_model, thinker.model.config.text_config
    weights = [*decoder.layers.parameters(), *decoder.norm.parameters(), *thinker.model.lm_head.parameters()]
    head_dim = text.hidden_size // text.num_attention_heads
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * length * thinker.dtype.itemsize
    return sum(w.numel() * w.element_size() for w in weights) + cached


def _copy_bandwidth(device: torch.device, repeats: int = 5) -> float:
    """Bytes per second: a large array is read and written, the fastest of some copies."""
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        begun_s = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        seconds.append(time.perf_counter() - begun_s)
    return 2 * _COPY_BYTES / min(seconds)
