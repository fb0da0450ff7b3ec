"""The sizes a thinker comes in: stock configs, own tokenizers, and random weights for tests, training from scratch and benchmarks."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from latentomni.config import AttentionFlow, LatentSpec, VideoSpec
from latentomni.modeling import LATENT_TOKENS, Thinker

__all__ = ["OMNI_SIZES", "PUBLISHED", "add_latent_tokens", "build", "build_tokenizer", "draw_weights", "layout"]

OMNI_SIZES = ("qwen2.5-omni-7b", "qwen2.5-omni-3b", "qwen2.5-omni-0.1b")
PUBLISHED = {"Qwen/Qwen2.5-Omni-7B": "qwen2.5-omni-7b", "Qwen/Qwen2.5-Omni-3B": "qwen2.5-omni-3b"}  # hub ids whose config.json is stated here
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|IMAGE|>", "<|AUDIO|>", "<|VIDEO|>", "<|vision_bos|>",
            "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>", *LATENT_TOKENS)  # fmt: skip
_SMALL_PICTURES = VideoSpec(max_pixels=56 * 56)
# The two published towers differ in nothing but the width they project to.
_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "fullatt_block_indexes": [7, 15, 23, 31]}
_AUDIO = {"encoder_layers": 32, "d_model": 1280, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "num_mel_bins": 128}
_PUBLISHED = {"max_position_embeddings": 32_768, "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
# nano gives half of the rotary pairs to time: with the published shares (1/4, 3/8, 3/8) and heads this small, the longest
# wavelength of t is 1.9 s, and a visual token's second in the clip cannot be read (docs/LOG.md).
_SIZES = {
    "qwen2.5-omni-7b": {
        "text": {"vocab_size": 152_064, "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
                 "num_key_value_heads": 4, "intermediate_size": 18_944, **_PUBLISHED},
        "vision": _VISION, "audio": _AUDIO, "latent": LatentSpec(), "video": VideoSpec(),
    },
    "qwen2.5-omni-3b": {
        "text": {"vocab_size": 151_936, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
                 "num_key_value_heads": 2, "intermediate_size": 11_008, **_PUBLISHED},
        "vision": _VISION, "audio": _AUDIO, "latent": LatentSpec(), "video": VideoSpec(),
    },
    "qwen2.5-omni-0.1b": {
        "text": {"vocab_size": 32_000, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
                 "num_key_value_heads": 2, "intermediate_size": 2048, **_PUBLISHED, "mrope_section": [8, 12, 12]},
        "vision": {"depth": 4, "hidden_size": 256, "num_heads": 4, "intermediate_size": 688, "fullatt_block_indexes": [1, 3]},
        "audio": {"encoder_layers": 4, "d_model": 256, "encoder_attention_heads": 4, "encoder_ffn_dim": 1024, "num_mel_bins": 128},
        "latent": LatentSpec(), "video": VideoSpec(),
    },
    "nano": {
        "text": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "intermediate_size": 768, "mrope_section": [16, 8, 8], "initializer_range": 0.05},
        "vision": {"depth": 2, "hidden_size": 128, "num_heads": 4, "intermediate_size": 344, "fullatt_block_indexes": [0, 1]},
        "audio": {"encoder_layers": 2, "d_model": 128, "encoder_attention_heads": 4, "encoder_ffn_dim": 512, "num_mel_bins": 64},
        "latent": LatentSpec(instants=2, flow=AttentionFlow.STRICT, writes_window=True, has_head=True, single_turn=True),
        "video": _SMALL_PICTURES,
    },
    "tiny": {
        "text": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
                 "intermediate_size": 48, "mrope_section": [2, 3, 3]},
        "vision": {"depth": 1, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40, "fullatt_block_indexes": [0]},
        "audio": {"encoder_layers": 1, "d_model": 20, "encoder_attention_heads": 2, "encoder_ffn_dim": 28, "num_mel_bins": 16},
        "latent": LatentSpec(instants=3, rows=2, columns=1, flow=AttentionFlow.STRICT, writes_window=True, has_head=True),
        "video": _SMALL_PICTURES,
    },
}  # fmt: skip


def build_tokenizer(lines: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `lines`; digits stand alone so that window text is the same tokens everywhere; any text encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(_SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(lines, trainer)
    named = {"image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>", "vision_bos_token": "<|vision_bos|>",
             "vision_eos_token": "<|vision_eos|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=named, clean_up_tokenization_spaces=False)  # fmt: skip


def add_latent_tokens(tokenizer: PreTrainedTokenizerFast, vocab_size: int) -> None:
    """Give a published tokenizer the three latent tokens, on the next free rows of a vocabulary of `vocab_size` rows.

    In the order of the authors' code, so that weights trained with it find their rows. Raises ValueError where a token of
    the layout is missing or the rows do not suffice."""
    trigger, close, pad = LATENT_TOKENS
    tokenizer.add_tokens([AddedToken(token, special=True) for token in (pad, trigger, close)], special_tokens=True)
    absent = [token for token in _SPECIAL if token not in tokenizer.get_vocab()]
    if absent:
        raise ValueError(f"the tokenizer lacks {', '.join(absent)}")
    if len(tokenizer) > vocab_size:
        raise ValueError(f"the vocabulary of {vocab_size} rows has no room for the {len(tokenizer)} tokens")


def layout(size: str, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerConfig:
    """The stock thinker's config in one of our sizes: "nano", "tiny", or one of OMNI_SIZES, whose vocabulary is padded."""
    parts, ids = _SIZES[size], dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 8192, "rope_theta": 10_000.0} | parts["text"]
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta"), "mrope_section": text.pop("mrope_section")}
    hidden = text["hidden_size"]
    return Qwen2_5OmniThinkerConfig(
        text_config=text | {"rope_parameters": rope, "tie_word_embeddings": False,
                            "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]},
        vision_config=parts["vision"] | {"out_hidden_size": hidden, "window_size": 112},
        audio_config=parts["audio"] | {"output_dim": hidden, "n_window": 100},
        audio_token_index=ids["<|AUDIO|>"], image_token_index=ids["<|IMAGE|>"], video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"], audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"], vision_end_token_id=ids["<|vision_eos|>"],  # read by the stock get_rope_index
        pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
    )  # fmt: skip


def build(size: str, tokenizer: PreTrainedTokenizerFast, seed: int, video: VideoSpec | None = None, *,
          device: str = "cpu", dtype: torch.dtype = torch.float32) -> Thinker:  # fmt: skip
    """A checkpoint with random weights, made on `device` ("meta": their shapes alone); the same for the same seed, device and dtype."""
    config, parts = layout(size, tokenizer), _SIZES[size]
    spec, hidden = parts["latent"], config.text_config.hidden_size
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=dtype).eval()
        head = torch.nn.Linear(hidden, hidden) if spec.has_head else None
    mel = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    return Thinker(model, tokenizer, mel, spec, video or parts["video"], head, size, "random")


@dataclass(frozen=True)
class _Drawn:
    """A weight that is made when it is read, as a file's is: what is quantised while it loads is never there whole in full precision."""

    like: torch.Tensor
    is_bias: bool
    std: float
    seed: int
    device: str

    def __getitem__(self, _whole: object) -> torch.Tensor:
        weight = torch.empty(self.like.shape, dtype=self.like.dtype, device=self.device)
        if weight.dim() == 1:
            return weight.fill_(0.0 if self.is_bias else 1.0)
        return weight.normal_(0.0, self.std, generator=torch.Generator(self.device).manual_seed(self.seed))


def draw_weights(model: Qwen2_5OmniThinkerForConditionalGeneration, seed: int, device: str) -> dict[str, _Drawn]:
    """Random weights by name for a model that has none, as `from_pretrained` takes them, each made on `device` when it is read: norms 1,
    biases 0, all else normal. The same for the same seed and device, quantised or not."""
    std = model.config.text_config.initializer_range
    return {name: _Drawn(p, name.endswith(".bias"), std, seed + n, device) for n, (name, p) in enumerate(model.named_parameters())}
