"""What the tests share: one thread, a tokenizer, tiny random checkpoints, and clips drawn from a seed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from latentomni import checkpoints
from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.media import Clip

torch.set_num_threads(1)

pytest_plugins = ["tests.browser"]

LINES = [
    "What is seen while the bell rings? A red circle is seen.",
    "From [2.0-4.0 s] on a buzz sounds.",
    "Yes. No.",
] * 3


@pytest.fixture(scope="session")
def tokenizer():
    return checkpoints.build_tokenizer(LINES, 300)


@pytest.fixture(scope="session")
def tiny(tokenizer):
    """The random checkpoint in float32. Its sizes differ pairwise, so that a swapped axis cannot go unseen."""
    thinker = checkpoints.build("tiny", tokenizer, seed=0)
    config, spec = thinker.model.config, thinker.spec
    widths = [part.hidden_size for part in (config.text_config, config.vision_config)] + [config.audio_config.d_model]
    widths += [
        config.text_config.intermediate_size,
        config.vision_config.intermediate_size,
        config.audio_config.encoder_ffn_dim,
    ]
    widths += [config.audio_config.num_mel_bins, config.text_config.vocab_size]
    assert len(set(widths)) == len(widths)
    assert len({spec.instants, spec.rows, spec.columns, spec.n_visual, spec.n_latents}) == 5
    assert sum(p.numel() for p in (*thinker.model.parameters(), *thinker.head.parameters())) < 100_000
    return thinker


@pytest.fixture(scope="session")
def tiny64(tokenizer):
    """The same in float64 throughout (the stock norm computes in float32), with weights as large as trained ones, so
    that attention and positions matter. All words share one component, which the trigger's row reads: greedy answers
    open blocks at once, sampled ones at about every second word."""
    thinker = checkpoints.build("tiny", tokenizer, seed=0)
    thinker.model.double()
    thinker.head.double()
    text_model, lm_head = thinker.text_model, thinker.model.lm_head.weight
    for module in list(text_model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "Qwen2_5OmniRMSNorm":
                setattr(module, name, torch.nn.RMSNorm(len(child.weight), child.variance_epsilon, dtype=torch.float64))
    with torch.no_grad():
        for weight in (*text_model.parameters(), lm_head):
            if weight.ndim == 2:
                weight *= 0.16 / weight.std()
        for layer in text_model.layers:  # nothing writes to the shared component after the embedding
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        text_model.embed_tokens.weight[:, 0] = 3
        lm_head[thinker.ids.trigger] = 0
        lm_head[thinker.ids.trigger, 0] = 2.6
    return thinker


@pytest.fixture(scope="session")
def make_clip():
    """make_clip(seed, seconds, picture=True, sound=True): noise; 2 frames a second of 56 x 84 pixels, at least one."""

    def make(seed: int, seconds: float = 4.0, *, picture: bool = True, sound: bool = True) -> Clip:
        rng = np.random.default_rng(seed)
        frames = rng.integers(0, 256, (max(round(2 * seconds), 1) if picture else 0, 56, 84, 3), dtype=np.uint8)
        waveform = rng.normal(0, 0.1, round(seconds * SAMPLE_RATE_HZ)).astype(np.float32) if sound else None
        sha256 = hashlib.sha256(frames.tobytes() + (waveform.tobytes() if sound else b"")).hexdigest()
        return Clip(frames, np.arange(len(frames)) / 2, waveform, seconds, 2.0, sha256, f"clip {seed}.mp4")

    return make


@pytest.fixture(scope="session")
def forced():
    """forced(thinker, tokens): inside the context, generation chooses these tokens, all of them: a hook on the stock output
    layer raises their logits one after the other."""

    @contextmanager
    def force(thinker, tokens: list[int]) -> Iterator[None]:
        script = iter(tokens)

        def raise_next(module, inputs, output):
            output[..., next(script)] = 1e9
            return output

        handle = thinker.model.lm_head.register_forward_hook(raise_next)
        try:
            yield
        finally:
            handle.remove()
        assert next(script, None) is None

    return force
