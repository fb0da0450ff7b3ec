"""Build, save and load checkpoints: the shipped nano, a folder, or (tests) tiny random weights of the same classes."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from latentomni.config import AttentionFlow, LatentSpec, VideoSpec
from latentomni.errors import CheckpointError
from latentomni.modeling import LATENT_TOKENS, Thinker

__all__ = ["NANO_DIR", "build", "build_tokenizer", "layout", "load", "save"]

NANO_DIR = Path(__file__).parent / "nano"
_SETTINGS = "latentomni.json"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|IMAGE|>", "<|AUDIO|>", "<|VIDEO|>", "<|vision_bos|>",
            "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>", *LATENT_TOKENS)  # fmt: skip
# nano gives half of the rotary pairs to time: with the published shares (1/4, 3/8, 3/8) and heads this small, the longest
# wavelength of t is 1.9 s, and a visual token's second in the clip cannot be read (docs/LOG.md).
_SIZES = {
    "nano": {
        "text": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "intermediate_size": 768, "mrope_section": [16, 8, 8], "initializer_range": 0.05},
        "vision": {"depth": 2, "hidden_size": 128, "num_heads": 4, "intermediate_size": 344, "fullatt_block_indexes": [0, 1]},
        "audio": {"encoder_layers": 2, "d_model": 128, "encoder_attention_heads": 4, "encoder_ffn_dim": 512, "num_mel_bins": 64},
        "latent": LatentSpec(instants=2, flow=AttentionFlow.STRICT, writes_window=True, has_head=True, single_turn=True),
    },
    "tiny": {
        "text": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
                 "intermediate_size": 48, "mrope_section": [2, 3, 3]},
        "vision": {"depth": 1, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40, "fullatt_block_indexes": [0]},
        "audio": {"encoder_layers": 1, "d_model": 20, "encoder_attention_heads": 2, "encoder_ffn_dim": 28, "num_mel_bins": 16},
        "latent": LatentSpec(instants=3, rows=2, columns=1, flow=AttentionFlow.STRICT, writes_window=True, has_head=True),
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


def layout(size: str, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5OmniThinkerConfig:
    """The stock thinker's config in one of our sizes ("nano", "tiny")."""
    parts, ids = _SIZES[size], dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    text = dict(parts["text"])
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": text.pop("mrope_section")}
    hidden = text["hidden_size"]
    return Qwen2_5OmniThinkerConfig(
        text_config=text | {"vocab_size": len(tokenizer), "rope_parameters": rope, "tie_word_embeddings": False, "max_position_embeddings": 8192,
                            "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]},
        vision_config=parts["vision"] | {"out_hidden_size": hidden, "window_size": 112},
        audio_config=parts["audio"] | {"output_dim": hidden, "n_window": 100},
        audio_token_index=ids["<|AUDIO|>"], image_token_index=ids["<|IMAGE|>"], video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"], audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"], vision_end_token_id=ids["<|vision_eos|>"],  # read by the stock get_rope_index
        pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
    )  # fmt: skip


def build(size: str, tokenizer: PreTrainedTokenizerFast, seed: int, video: VideoSpec | None = None) -> Thinker:
    """A checkpoint with random weights, the same for the same seed."""
    config, spec = layout(size, tokenizer), _SIZES[size]["latent"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
        head = torch.nn.Linear(config.text_config.hidden_size, config.text_config.hidden_size)
    mel = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    return Thinker(model, tokenizer, mel, spec, video or VideoSpec(max_pixels=56 * 56), head, size, "random")


def save(thinker: Thinker, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a checkpoint folder: stock files, `latentomni.json`, and the latent head in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(dtype) for k, v in thinker.model.state_dict().items()}
    thinker.model.save_pretrained(folder, state_dict=state)
    thinker.tokenizer.save_pretrained(folder)
    if thinker.head is not None:
        save_file({k: v.detach().float().contiguous() for k, v in thinker.head.state_dict().items()}, folder / "latent_head.safetensors")
    settings = {"latent": thinker.spec.to_dict(), "video": asdict(thinker.video), "mel_bins": thinker.mel.feature_size,
                "name": thinker.name, "weights": thinker.weights}  # fmt: skip
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def load(name: str = "nano", *, device: str | None = None, dtype: torch.dtype | None = None) -> Thinker:
    """Load `nano` or a folder written by `save`. fp32 on CPU, bf16 on a GPU, unless told otherwise."""
    folder = NANO_DIR if name == "nano" else Path(name)
    if not (folder / _SETTINGS).is_file():
        raise CheckpointError(f"'{name}' is no LatentOmni checkpoint: expected 'nano' or a folder that holds {_SETTINGS}.")
    try:
        return _load(folder, device, dtype)
    except Exception as error:  # what is wrong with a file is told by three libraries, the tokenizer's raises nothing narrower
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"The checkpoint '{name}' cannot be loaded ({reason}); train or download it again.") from error


def _load(folder: Path, device: str | None, dtype: torch.dtype | None) -> Thinker:
    settings = json.loads((folder / _SETTINGS).read_text())
    stock = json.loads((folder / "config.json").read_text())
    if stock.get("model_type") != "qwen2_5_omni_thinker":  # the library would go on and build its default of 11 B parameters
        raise ValueError(f"config.json is of model type {stock.get('model_type')}, not of a Qwen2.5-Omni thinker")
    if "text_config" not in stock:
        raise ValueError("config.json lacks text_config")
    absent = [key for key in ("latent", "video", "mel_bins", "name", "weights") if key not in settings]
    if absent:
        raise ValueError(f"{_SETTINGS} lacks {', '.join(absent)}")
    spec, video = LatentSpec.from_dict(settings["latent"]), VideoSpec(**settings["video"])
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device == "cuda" else torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:  # the library would fill them with random numbers
        raise ValueError(f"{len(report['missing_keys'])} weights are missing, such as {min(report['missing_keys'])}")
    head = _load_head(folder, model.config.text_config.hidden_size).to(device) if spec.has_head else None
    mel = WhisperFeatureExtractor(feature_size=settings["mel_bins"])
    return Thinker(model.to(device).eval(), tokenizer, mel, spec, video, head, settings["name"], settings["weights"])


def _load_head(folder: Path, hidden: int) -> torch.nn.Linear:
    head = torch.nn.Linear(hidden, hidden)
    head.load_state_dict(load_file(folder / "latent_head.safetensors"))
    return head.requires_grad_(False)
