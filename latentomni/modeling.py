"""The stock Qwen2.5-Omni thinker, driven from outside: embeddings in, last hidden state out.

Dimensions: B batch, T tokens, K keys, D hidden, V visual tokens, A audio tokens.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import (
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from latentomni.attention_flow import Kind, attention_mask, causal_length
from latentomni.clock import POSITIONS_PER_SECOND, SAMPLE_RATE_HZ
from latentomni.config import LatentSpec, QuantizationSpec, VideoSpec
from latentomni.errors import MediaError
from latentomni.memory import trim
from latentomni.processing import patchify, resized_size
from latentomni.sequence import ClipFeatures, Sequence, SpecialIds, collate
from latentomni.window_grammar import WindowGrammar

if TYPE_CHECKING:
    from latentomni.media import Clip

__all__ = ["LATENT_TOKENS", "MIN_SAMPLES", "Thinker", "special_ids", "times_at_once"]

LATENT_TOKENS = ("<Unified_Latent>", "</Unified_Latent>", "<Unified_Latent_pad>")
MIN_SAMPLES = SAMPLE_RATE_HZ // 10  # shorter sounds make no whole audio token
_PATCHES_AT_ONCE = 4096


def special_ids(tokenizer: PreTrainedTokenizerFast) -> SpecialIds:
    """Look the layout's tokens up by their strings."""
    names = (*LATENT_TOKENS, "<|VIDEO|>", "<|AUDIO|>", "<|vision_bos|>", "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>",
             "<|im_end|>", "<|endoftext|>")  # fmt: skip
    return SpecialIds(*tokenizer.convert_tokens_to_ids(list(names)))


def times_at_once(patches: int) -> int:
    """How many times of a video, of so many patches each, go through the vision tower together. None sees another's patches, and all
    at once would take more memory than the language model."""
    return max(_PATCHES_AT_ONCE // patches, 1)


@dataclass(eq=False)
class Thinker:
    """A loaded checkpoint: model, tokenizer, mel extractor, specs, and the latent head (None: the hidden state is the latent).
    fixes_steps: decode over keys and values at fixed places (`FixedStep`); None: on a GPU that holds all of the model."""

    model: Qwen2_5OmniThinkerForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    mel: WhisperFeatureExtractor
    spec: LatentSpec
    video: VideoSpec
    head: torch.nn.Linear | None
    name: str
    weights: str
    fixes_steps: bool | None = None

    def __post_init__(self) -> None:
        self.ids = special_ids(self.tokenizer)
        self.grammar = WindowGrammar(self.tokenizer)
        self._texts: dict[str, list[int]] = {}
        self._states: list[torch.Tensor] | None = None
        inner = self.model.model  # up to transformers 5.20, the last for Python 3.10, the text model; the towers stand beside it
        self.text_model = getattr(inner, "language_model", inner)
        self.towers = inner if inner is not self.text_model else self.model
        if self.fixes_steps is None:
            self.fixes_steps = self.device.type == "cuda" and not self.is_spread

    @property
    def device(self) -> torch.device:
        """Where it computes; of a model that lies on several devices, the first that is no mere storage."""
        computing = [place for place in getattr(self.model, "hf_device_map", {}).values() if place not in ("cpu", "disk")]
        return torch.device(computing[0]) if computing else self.model.device

    @property
    def facts(self) -> dict[str, str]:
        """model, weights ("nano", "random" or "pretrained"), quantization and device: which model a figure is from."""
        return {"model": self.name, "weights": self.weights, "quantization": str(self.quantization), "device": str(self.device)}

    @property
    def is_spread(self) -> bool:
        """Whether its parts lie on several devices."""
        return len(set(getattr(self.model, "hf_device_map", {}).values())) > 1

    @property
    def is_offloaded(self) -> bool:
        """Whether weights are fetched from main memory or a disk whenever they are needed."""
        places = set(getattr(self.model, "hf_device_map", {}).values())
        return "disk" in places or ("cpu" in places and len(places) > 1)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def quantization(self) -> QuantizationSpec:
        """How the language model's linear layers are stored, as bitsandbytes was told."""
        told = getattr(self.model.config, "quantization_config", None)
        return QuantizationSpec("none" if told is None else "int8" if told.load_in_8bit else "nf4")

    @property
    def hidden_size(self) -> int:
        return self.model.config.text_config.hidden_size

    @property
    def key_shape(self) -> tuple[int, int]:
        """Key heads of a layer, and the width of one."""
        text = self.model.config.text_config
        return text.num_key_value_heads, getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads

    def tidy(self) -> None:
        """Between two parts of a long input: return what the last one left in holes. A GPU's allocator knows its own."""
        if self.device.type == "cpu":
            trim()

    def encode_text(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def cached_text(self, text: str) -> list[int]:
        """`encode_text` for texts that come again and again, as in training."""
        if text not in self._texts:
            self._texts[text] = self.encode_text(text)
        return self._texts[text]

    def encode_clip(self, clip: "Clip", cancelled: Callable[[], bool] = lambda: False, *, grad: bool = False) -> ClipFeatures:
        """Run both towers once; the features serve every question about the clip. grad: for towers in training. Raises MediaError where
        `cancelled()` turns true between some frames and the next."""
        with torch.set_grad_enabled(grad):
            visual, starts, ends, grid = self._encode_frames(clip, cancelled)
            audio = self._encode_sound(clip)
        return ClipFeatures(visual, starts, ends, grid, audio, np.arange(len(audio)) / POSITIONS_PER_SECOND, clip.duration_s)

    def _encode_frames(self, clip: "Clip", cancelled: Callable[[], bool]) -> tuple[torch.Tensor, np.ndarray, np.ndarray, tuple[int, int]]:
        if not len(clip.frames):
            empty = torch.zeros(0, self.hidden_size, dtype=self.dtype, device=self.device)
            return empty, np.zeros(0), np.zeros(0), (1, 1)
        video = clip.reading.video(self.video)
        height, width = (side // video.patch_px for side in resized_size(*clip.frames.shape[1:3], video))
        at_once = times_at_once(height * width) * video.temporal_patch
        parts, times = [], 0
        for first in range(0, len(clip.frames), at_once):
            if cancelled():
                raise MediaError(f"Reading {clip.name} was stopped.")
            if first:
                self.tidy()
            patches, grid = patchify(clip.frames[first : first + at_once], video)
            parts.append(self.model.get_video_features(self._sent(patches), torch.tensor([grid], device=self.device)).pooler_output[0])
            times += grid[0]
        features = torch.cat(parts)
        # Frame i is what is shown at i / fps, so these are true times whatever the file's own frame rate is.
        starts = np.arange(times) * self.video.temporal_patch / clip.sample_fps
        end_s = max(clip.duration_s, float(starts[-1]) + 1 / clip.sample_fps)
        return features, starts, np.append(starts[1:], end_s), (height // self.video.merge, width // self.video.merge)

    def _encode_sound(self, clip: "Clip") -> torch.Tensor:
        if clip.waveform is None or len(clip.waveform) < MIN_SAMPLES:
            return torch.zeros(0, self.hidden_size, dtype=self.dtype, device=self.device)
        samples = clip.waveform[: len(clip.waveform) // 160 * 160]
        mel = self.mel(samples, sampling_rate=SAMPLE_RATE_HZ, padding=False, truncation=False, return_tensors="pt")["input_features"]
        frames = torch.ones(1, mel.shape[-1], dtype=torch.long, device=self.device)
        return self.model.get_audio_features(self._sent(mel), frames).last_hidden_state

    def _sent(self, values: torch.Tensor) -> torch.Tensor:
        """On its way to the device; from pinned memory, where that is another."""
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values.to(self.device)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.text_model.embed_tokens(ids)

    def place_vectors(self, embeds: torch.Tensor, row: Sequence, start: int, stop: int) -> None:
        """Write the media features and latents of tokens `start` to `stop` into their embeddings (>= stop - start, D)."""
        for kind in (Kind.MEDIA, Kind.LATENT):
            known = len(row.latents) if kind == Kind.LATENT else sys.maxsize
            slots = [i for i in range(start, stop) if row.kinds[i] == kind and 0 <= row.sources[i] < known]
            if slots:  # the clip's features are put together only where a media token is fed
                chosen = [row.sources[i] for i in slots]
                rows = torch.stack([row.latents[c] for c in chosen]) if kind == Kind.LATENT else row.clip.vectors[chosen]
                embeds[[i - start for i in slots]] = rows.to(embeds.device, embeds.dtype)

    def embed_rows(self, rows: list[Sequence], ids: torch.Tensor) -> torch.Tensor:
        """(B, T, D) inputs of assembled rows; ids: (B, T)."""
        embeds = self.embed(ids).clone()
        for b, row in enumerate(rows):
            self.place_vectors(embeds[b], row, 0, len(row))
        return embeds

    def full(self, rows: list[Sequence]) -> torch.Tensor:
        """(B, T, D) hidden states of assembled rows in one forward: what decoding step by step must equal."""
        ids, positions, layout = collate(rows)
        embeds = self.embed_rows(rows, ids.to(self.device))
        mask = attention_mask(layout, layout).to(self.device)
        return self.forward(embeds, positions.to(self.device), mask)

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.text_config)

    def forward(self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: DynamicCache | None = None,
                unread: int = 0) -> torch.Tensor:
        """Last hidden state (B, T, D) after the final norm. positions: (3, B, T). mask: (B, T, K) bool, None for plain causal.
        unread: so many of the first states are not used by the caller, and carry no gradient.

        A row's first tokens that see all before them, as media do, go ahead without a mask: a causal kernel does half the work.
        """  # fmt: skip
        tokens = embeds.shape[1]
        n = 0 if mask is None or mask.shape[2] > tokens else causal_length(mask)
        if n == tokens:
            return self._run(embeds, positions, None, cache)
        n = min(n, unread) if unread > tokens // 4 else n
        is_checkpointed = cache is None and getattr(self.text_model.layers[0], "gradient_checkpointing", False)
        if n <= tokens // 4 or is_checkpointed:
            return self._run(embeds, positions, mask, cache)
        cache = self.new_cache() if cache is None else cache
        first = self._run(embeds[:, :n], positions[..., :n], None, cache)
        rest = self._run(embeds[:, n:], positions[..., n:], mask[:, n:], cache)
        if self._states is not None:
            depth = len(self.text_model.layers)
            parts = zip(self._states[-2 * depth : -depth], self._states[-depth:], strict=True)
            self._states[-2 * depth :] = [torch.cat(part, 1) for part in parts]
        return torch.cat([first.detach() if n <= unread else first, rest], 1)

    def _run(self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: DynamicCache | None = None) -> torch.Tensor:
        if mask is not None:  # as numbers, once: every layer would make its own of a boolean mask, and keep it for the backward pass
            mask = embeds.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)[:, None]
        attention = {"full_attention": mask}
        return self.text_model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=attention, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state

    @contextmanager
    def layer_states(self) -> Iterator[list[torch.Tensor]]:
        """Inside the context, a forward appends the hidden state (B, T, D) after each layer."""
        states = self._states = []

        def keep(_module, _inputs, out) -> None:
            states.append(out[0] if isinstance(out, tuple) else out)

        hooks = [layer.register_forward_hook(keep) for layer in self.text_model.layers]
        try:
            yield states
        finally:
            self._states = None
            for hook in hooks:
                hook.remove()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(hidden)

    def latent(self, hidden: torch.Tensor) -> torch.Tensor:
        """The vector that is fed back (paper eq. 2); float32 head, never quantised."""
        return hidden if self.head is None else self.head(hidden.to(self.head.weight.dtype)).to(hidden.dtype)
