"""Load and save checkpoints: the shipped nano, a folder, an adapter on its base, a published model, or random weights."""

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, constants, is_offline_mode, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerTextModel,
    WhisperFeatureExtractor,
)

from latentomni.checkpoint_files import SETTINGS_FILE, read_parts, read_settings, write_parts
from latentomni.config import LatentSpec, QuantizationSpec, VideoSpec
from latentomni.errors import CheckpointError
from latentomni.layouts import OMNI_SIZES, PUBLISHED, add_latent_tokens, build, build_tokenizer, draw_weights
from latentomni.memory import is_out_of_memory, trim
from latentomni.modeling import Thinker
from latentomni.plan import check_room

__all__ = ["NANO_DIR", "build", "build_tokenizer", "find", "load", "save"]

NANO_DIR = Path(__file__).parent / "nano"
_RANDOM = "random:"
_NO_WEIGHTS = "meta"
_SIZES = f"'{_RANDOM}' and one of {', '.join(OMNI_SIZES)}"
_MODEL_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")  # the full model, whose talker is left aside, and the thinker alone
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FILES = ("*.json", "*.safetensors", "*.txt")
_SIZE_FILES = ("*.json", "*.txt", "latent_head.safetensors", "adapter_model.safetensors")
_NF4_BLOCK = 64
_TIDY_TOKENS = 256


def save(thinker: Thinker, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a checkpoint folder: stock files, `latentomni.json`, and the latent head in float32."""
    if hasattr(thinker.model, "hf_quantizer") or hasattr(thinker.model, "peft_config"):
        raise CheckpointError("A model that is quantised or carries an adapter is not saved whole; save its adapter.")
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(dtype) for k, v in thinker.model.state_dict().items()}
    thinker.model.save_pretrained(folder, state_dict=state)
    thinker.tokenizer.save_pretrained(folder)
    write_parts(thinker, folder)


@dataclass(frozen=True)
class _How:
    """device_map: where each part lies, as accelerate has it; None for all on the device. max_memory: for "auto", bytes of each."""

    device: str
    dtype: torch.dtype
    quantization: QuantizationSpec | None
    device_map: dict[str, str | int] | str | None = None
    max_memory: dict[int | str, int] | None = None


def load(name: str = "nano", *, device: str | None = None, dtype: torch.dtype | None = None, quantization: QuantizationSpec | str | None = None,
         device_map: dict[str, str | int] | None = None) -> Thinker:  # fmt: skip
    """Load a model by name: `nano`, a folder written by `save` or `save_adapter`, a published Qwen2.5-Omni (a folder or its hub
    id), or `random:` with one of OMNI_SIZES. fp32 on CPU, bf16 on a GPU (fp16 where it has none), unless told otherwise. Quantisation: none unless
    told otherwise, but an adapter's base is loaded as it was trained. On the device "meta" a model has no weights, only sizes, and of a
    hub model no more than a few small files is fetched; the sizes of the published ones are known here, their words are counted with
    nano's tokenizer. device_map: modules on other devices, in main memory beside a GPU ("cpu"), or on "disk", as accelerate has it; made here
    where a GPU has not room for all. Raises CheckpointError for what cannot be loaded, or would not fit into the memory at hand."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        on_gpu = torch.device(device).type == "cuda"
        dtype = (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16) if on_gpu else torch.float32
    how = _How(device, dtype, None if quantization is None else QuantizationSpec(quantization), device_map)
    try:
        if device == _NO_WEIGHTS and name in PUBLISHED and not Path(name).exists():
            sizes = _load_random(_RANDOM + PUBLISHED[name], replace(how, quantization=None))
            return replace(sizes, name=name, weights="pretrained", spec=replace(sizes.spec, is_trained=False))
        if device != _NO_WEIGHTS and device_map is None:
            max_memory = check_room(load(name, device=_NO_WEIGHTS, dtype=dtype), device, how.quantization)
            how = replace(how, device_map=max_memory and "auto", max_memory=max_memory)
        folder = find(name, has_weights=device != _NO_WEIGHTS)
        if folder is None:
            return _load_random(name, how)
        return _load_folder(folder, name, how)
    except CheckpointError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise CheckpointError(f"Memory ran out while '{name}' was loaded; `python -m latentomni plan --model {name}` says what it needs, and "
                                  "--quantization nf4 what it then needs.") from None  # fmt: skip
        # what is wrong with a file is told by three libraries, the tokenizer's raises nothing narrower
        raise CheckpointError(f"The checkpoint '{name}' cannot be loaded ({_first_line(error)}); train or download it again.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def find(name: str, *, has_weights: bool = True) -> Path | None:
    """The folder of a model, None for random weights; a hub model's is fetched, with its weights or what tells its sizes. Raises
    CheckpointError where there is none."""
    if name.startswith(_RANDOM):
        return None
    if name == "nano":
        return NANO_DIR
    folder = Path(name)
    if (folder / SETTINGS_FILE).is_file() or (folder / "config.json").is_file():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"'{name}' is no LatentOmni checkpoint: expected 'nano', a folder that holds {SETTINGS_FILE}, "
                              f"a published Qwen2.5-Omni (folder or hub id), or {_SIZES}.")  # fmt: skip
    return _fetch(name, has_weights)


def _fetch(hub_id: str, has_weights: bool) -> Path:
    """A hub model's files: from this machine where all are there, else from the network."""
    try:
        return _snapshot(hub_id, has_weights, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    if is_offline_mode():
        raise CheckpointError(f"'{hub_id}' is not on this machine and HF_HUB_OFFLINE forbids to fetch it; unset it, or give a folder.")
    try:
        HfApi().model_info(hub_id, timeout=constants.HF_HUB_ETAG_TIMEOUT)  # the snapshot's own first question would wait for ever
        return _snapshot(hub_id, has_weights)
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"'{hub_id}' is neither a folder here nor a model that the hub shows you; check the name, or log in "
                              "with `hf auth login`.") from error  # fmt: skip
    except Exception as error:  # of several HTTP libraries
        raise CheckpointError(f"'{hub_id}' is not on this machine and cannot be fetched ({_first_line(error)}); connect to the "
                              "network, or give a folder.") from error  # fmt: skip


def _snapshot(hub_id: str, has_weights: bool, **options: bool) -> Path:
    """The folder of a hub model. Raises LocalEntryNotFoundError where the cache holds a part of it, as when another program has
    fetched its tokenizer alone."""
    folder = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES if has_weights else _SIZE_FILES, **options))
    index, weights = folder / "model.safetensors.index.json", set()
    if has_weights:
        weights = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    is_adapter = (folder / "adapter_config.json").is_file()
    absent = [] if is_adapter else [file for file in ("config.json", *sorted(weights)) if not (folder / file).is_file()]
    if absent:
        raise LocalEntryNotFoundError(f"{absent[0]} is missing")
    return folder


def _load_folder(folder: Path, name: str, how: _How) -> Thinker:
    settings = read_settings(folder) if (folder / SETTINGS_FILE).is_file() else None
    if settings and "adapter" in settings:
        return _load_adapter(folder, settings["adapter"], how)
    stock = json.loads((folder / "config.json").read_text())
    if stock.get("model_type") not in _MODEL_TYPES:  # the library would go on and build its default of 11 B parameters
        raise ValueError(f"config.json is of model type {stock.get('model_type')}, not of a Qwen2.5-Omni thinker")
    if "text_config" not in stock.get("thinker_config", stock):
        raise ValueError("config.json lacks text_config")
    config = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
    if settings:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = _read_model(folder, config, how)
        return Thinker(model, tokenizer, **read_parts(folder, model))
    tokenizer = AutoTokenizer.from_pretrained(folder, config=config)
    add_latent_tokens(tokenizer, config.text_config.vocab_size)
    model = _read_model(folder, config, how)
    mel = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    name = folder.resolve().name if folder == Path(name) else name  # a hub id stays whole
    return Thinker(model, tokenizer, mel, LatentSpec(is_trained=False), VideoSpec(), None, name, "pretrained")


def _load_adapter(folder: Path, settings: dict[str, str], how: _How) -> Thinker:
    from latentomni.adapters import LORA_FILE, attach_adapter  # few checkpoints are adapters: no need to wait for peft

    if (Path(settings["base"]) / LORA_FILE).is_file():
        raise ValueError(f"its base {settings['base']} is an adapter itself")
    base = load(settings["base"], device=how.device, dtype=how.dtype, quantization=how.quantization or settings["quantization"],
                device_map=None if how.max_memory else how.device_map)  # fmt: skip
    return attach_adapter(Thinker(base.model, base.tokenizer, **read_parts(folder, base.model)), folder)


def _load_random(name: str, how: _How) -> Thinker:
    """The true layout for benchmarks, with nano's tokens on the first rows of its vocabulary."""
    size = name.removeprefix(_RANDOM)
    if size not in OMNI_SIZES:
        raise CheckpointError(f"'{name}' is no layout: expected {_SIZES}.")
    thinker = build(size, PreTrainedTokenizerFast.from_pretrained(NANO_DIR), 0, device=_NO_WEIGHTS, dtype=how.dtype)
    thinker.name = name
    if how.device == _NO_WEIGHTS:
        return thinker
    weights = draw_weights(thinker.model, 0, how.device if how.device_map is None else "cpu")
    return replace(thinker, model=_read_model(None, thinker.model.config, how, state_dict=weights))


def _read_model(folder: Path | None, config: Qwen2_5OmniThinkerConfig, how: _How, **options: Any) -> Qwen2_5OmniThinkerForConditionalGeneration:
    if how.device == _NO_WEIGHTS:
        with torch.device(_NO_WEIGHTS):
            return Qwen2_5OmniThinkerForConditionalGeneration(config).to(how.dtype).eval()
    if how.quantization not in (None, QuantizationSpec.NONE):
        options["quantization_config"] = _bitsandbytes(config, how.dtype, how.quantization)
    if how.max_memory:
        options["max_memory"] = how.max_memory
    model, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, config=config, dtype=how.dtype, device_map=how.device_map or {"": how.device}, use_safetensors=True, output_loading_info=True, **options
    )
    if report["missing_keys"]:  # the library would fill them with random numbers
        raise ValueError(f"{len(report['missing_keys'])} weights are missing, such as {min(report['missing_keys'])}")
    if "quantization_config" in options:
        _check_quantized(model)
    if how.quantization is QuantizationSpec.INT8 and model.device.type == "cpu":
        for layer in model.get_submodule(_text_model_name(model)).layers:
            layer.register_forward_hook(_tidy)
    return model.eval()


def _bitsandbytes(config: Qwen2_5OmniThinkerConfig, dtype: torch.dtype, quantization: QuantizationSpec) -> BitsAndBytesConfig:
    """What to quantise is read from the module tree: names in a skip list that match nothing are passed over in silence."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # int8 tells of a cast at every layer and step
    with torch.device("meta"):
        tree = Qwen2_5OmniThinkerForConditionalGeneration(config)
    inside = _text_model_name(tree)
    above = {inside.rsplit(".", n)[0] for n in range(1, inside.count(".") + 1)} | {""}
    outside = [name for name, _ in tree.named_modules() if name.rpartition(".")[0] in above and name not in {inside, *above}]
    if quantization is QuantizationSpec.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=outside)
    widths = {m.in_features for m in tree.get_submodule(inside).modules() if isinstance(m, torch.nn.Linear)}
    if odd := [width for width in widths if width % _NF4_BLOCK]:  # bitsandbytes stores them wrongly on a CPU
        raise ValueError(f"nf4 needs layers whose width is a multiple of {_NF4_BLOCK}, it has {min(odd)}")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=outside)  # fmt: skip


def _check_quantized(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt  # takes seconds to import

    layers = {name: module for name, module in model.named_modules() if isinstance(module, (Linear4bit, Linear8bitLt))}
    assert layers and all(name.startswith(_text_model_name(model) + ".") for name in layers), sorted(layers)
    for layer in layers.values():  # its fast path on some CPUs computes in bf16, and once taken leaves a layer without gradients
        layer.support_avx512bf16_for_cpu = False


def _tidy(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
    """A layer in int8 makes so many blocks on the way to its sums and back that glibc, left alone, would come to keep twice as much of
    them over the layers of a long prompt (docs/LOG.md 53)."""
    if inputs[0].shape[1] >= _TIDY_TOKENS:
        trim()


def _text_model_name(model: Qwen2_5OmniThinkerForConditionalGeneration) -> str:
    return next(name for name, module in model.named_modules() if isinstance(module, Qwen2_5OmniThinkerTextModel))
