"""How fast an answer is decoded: our loop beside the stock class's `generate()`, and a latent step beside a bare decoder step.

Everything is measured in one interleaved run on the same prompt.
"""

import logging
import time
from copy import copy
from dataclasses import fields, replace
from statistics import median
from typing import Any

import torch

from latentomni.bench.measures import compared, synchronize
from latentomni.bench.peers import bench_clip, describe, prompt_row, stock_inputs
from latentomni.config import Mode, SamplingSpec
from latentomni.events import Finished, LatentStep, TextDelta
from latentomni.generation import generate
from latentomni.modeling import Thinker
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
    features = thinker.encode_clip(clip)
    inputs = stock_inputs(thinker, clip, prompt_row(thinker, features, question, Mode.DIRECT))
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    steps: dict[str, list[float]] = {"ours": [], "peer": []}
    for repeat in range(repeats + 1):
        row = prompt_row(thinker, features, question, Mode.DIRECT)
        ours, tokens = _our_rate(thinker, row)
        peer, stock_tokens = _stock_rate(thinker, inputs)
        ours_s, peer_s = _latent_steps(thinker, features, question)
        _log.info(
            "decode %d/%d: %.0f and %.0f tokens/s, %.2f and %.2f ms",
            repeat,
            repeats,
            ours,
            peer,
            median(ours_s) * 1e3,
            median(peer_s) * 1e3,
        )
        if repeat:  # the first round warms up
            rates["ours"].append(ours)
            rates["peer"].append(peer)
            steps["ours"] += ours_s
            steps["peer"] += peer_s
    length = len(row) - _TOKENS // 2
    limit_s = _bytes_per_token(thinker, length) / _copy_bandwidth(thinker.device)
    return {
        **compared(rates),
        "latent_step": compared(steps),
        "share_of_limit": limit_s * median(rates["ours"]),
        "same_tokens": tokens == stock_tokens,
        "shape": f"{describe(thinker)}; prompt of "
        f"{len(row) - _TOKENS} tokens ({clip.duration_s:g} s clip), {_TOKENS} greedy tokens; {thinker.spec.n_latents} latents a block; "
        "peers: generate() with its cache, one token through the language model without head",
        "repeats": repeats,
    }


def _our_rate(thinker: Thinker, row: Sequence) -> tuple[float, list[int]]:
    """Tokens per second after the first delta, and the tokens."""
    endless = copy(thinker)
    endless.ids = replace(thinker.ids, end_of_turn=-1)  # no token ends the turn, so that exactly _TOKENS are written
    events = [event for _, event in generate(endless, [row], [Mode.DIRECT], SamplingSpec(max_new_tokens=_TOKENS))]
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


def _latent_steps(thinker: Thinker, features: ClipFeatures, question: str) -> tuple[list[float], list[float]]:
    """Seconds of latent steps in our loop, and of as many tokens through the bare decoder behind the same rows."""
    opening = _Opening(*(getattr(thinker, f.name) for f in fields(Thinker)))
    ours: list[float] = []
    bare: list[float] = []
    while len(ours) < _LATENTS:
        row = prompt_row(thinker, features, question, Mode.LATENT)
        events = generate(opening, [row], [Mode.LATENT], SamplingSpec(max_new_tokens=2, max_blocks=1))
        arrived_s = [event.elapsed_s for _, event in events if isinstance(event, LatentStep)]
        ours += [b - a for a, b in zip(arrived_s, arrived_s[1:], strict=False)]
        bare += _bare_steps(thinker, row, len(arrived_s) - 1)
    return ours, bare


@torch.no_grad()
def _bare_steps(thinker: Thinker, row: Sequence, count: int) -> list[float]:
    """Seconds per token; the cache begins with all of the row but the last `count` tokens."""
    decoder = thinker.text_model
    embeds = thinker.embed_rows([row], torch.tensor([row.token_ids], device=thinker.device))
    positions = torch.tensor(row.positions, device=thinker.device)[:, None]
    start = len(row) - count
    cache = decoder(
        inputs_embeds=embeds[:, :start], position_ids=positions[..., :start], use_cache=True
    ).past_key_values
    seconds = []
    for i in range(start, len(row)):
        synchronize(thinker.device)
        begun_s = time.perf_counter()
        decoder(
            inputs_embeds=embeds[:, i : i + 1],
            position_ids=positions[..., i : i + 1],
            past_key_values=cache,
            use_cache=True,
        )
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
