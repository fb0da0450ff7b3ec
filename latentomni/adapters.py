"""Adapt a model by training little of it: LoRA on the language model, a few rows of its vocabulary, the latent head.

On a base that is stored in 4 bits this is QLoRA. Everything happens in place: the thinker's modules keep their names, and
`text_model`, `embed`, `logits` and `layer_states` work as before.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from latentomni.checkpoint_files import write_parts
from latentomni.config import QuantizationSpec
from latentomni.errors import require
from latentomni.modeling import Thinker

__all__ = ["LORA_FILE", "LoraSpec", "add_lora", "attach_adapter", "checkpoint_gradients", "save_adapter"]

LORA_FILE = "adapter_model.safetensors"  # peft's name, as are the names inside
_PEFT_PREFIX = "base_model.model.model.language_model."
_ROWS_FILE = "latent_tokens.safetensors"
_NAME = "default"
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraSpec:
    """What is trained: low-rank changes of `targets` in every layer of the language model, and, where asked for, the rows of
    the tokens around a block in the embedding and the output layer, and the latent head (if the model has one)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = _LINEAR
    train_tokens: bool = True
    train_head: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        require(self.rank >= 1, f"LoraSpec.rank must be at least 1, got {self.rank}")
        require(self.alpha > 0, f"LoraSpec.alpha must be positive, got {self.alpha}")
        require(0 <= self.dropout < 1, f"LoraSpec.dropout must be at least 0 and below 1, got {self.dropout}")
        require(bool(self.targets) and set(self.targets) <= set(_LINEAR),
                f"LoraSpec.targets must be some of {', '.join(_LINEAR)}, got {', '.join(self.targets) or 'none'}")  # fmt: skip


def add_lora(thinker: Thinker, spec: LoraSpec, seed: int = 0) -> Thinker:
    """Freeze the thinker and add trainable parameters in float32; its answers change only once these are trained."""
    layers = rf"model\.(language_model\.)?layers\.\d+\.(self_attn|mlp)\.({'|'.join(spec.targets)})"
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=layers)
    _inject(thinker, config, spec.train_tokens, seed)
    if thinker.head is not None:
        thinker.head.requires_grad_(spec.train_head)
    return thinker


def save_adapter(thinker: Thinker, folder: Path, base: str) -> None:
    """Write what was trained: peft's two files, the tokens' rows, and ours, which name `base` as `checkpoints.load` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = thinker.model.peft_config[_NAME]
    config.base_model_name_or_path = base
    config.save_pretrained(folder)
    save_file({_PEFT_PREFIX + name: value.detach().cpu().contiguous() for name, value in _lora_state(thinker).items()},
              folder / LORA_FILE, {"format": "pt"})  # fmt: skip
    rows = {name: layer.latent_rows.detach().cpu() for name, layer in _vocabulary(thinker).items() if hasattr(layer, "latent_rows")}
    if rows:
        save_file(rows, folder / _ROWS_FILE)
    write_parts(thinker, folder, adapter={"base": base, "quantization": str(_quantization(thinker))})


def attach_adapter(thinker: Thinker, folder: Path) -> Thinker:
    """Add what `save_adapter` wrote to its freshly loaded base. Raises ValueError where the two do not belong together."""
    state = {name.removeprefix(_PEFT_PREFIX): value for name, value in load_file(folder / LORA_FILE).items()}
    rows = load_file(folder / _ROWS_FILE) if (folder / _ROWS_FILE).is_file() else {}
    _inject(thinker, LoraConfig.from_pretrained(folder), bool(rows), seed=0)
    if _lora_state(thinker).keys() != state.keys():
        raise ValueError("the adapter's layers are not those of its base")
    prefix = _text_model_name(thinker)
    if thinker.device.type != "meta":  # there is no room for values, and torch would say so of every one
        set_peft_model_state_dict(thinker.model, {f"{prefix}.{name}": value for name, value in state.items()}, _NAME)
    for name, values in rows.items():
        _vocabulary(thinker)[name].latent_rows.data.copy_(values)
    return thinker


def checkpoint_gradients(thinker: Thinker, enabled: bool = True) -> None:
    """Compute the language model's layers again in the backward pass instead of keeping what they computed.

    Takes effect in training mode, and only in passes without a cache: keys and values come from a pass that keeps them."""
    # The library's public switch also lets every embedding require gradients, for good; without reentrance none need to.
    thinker.text_model._set_gradient_checkpointing(enabled, partial(checkpoint, use_reentrant=False))


def _inject(thinker: Thinker, config: LoraConfig, train_tokens: bool, seed: int) -> None:
    require(not hasattr(thinker.model, "peft_config"), "The model has an adapter already; load its base again.")
    thinker.model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, thinker.model, _NAME)
    for parameter in thinker.model.parameters():
        if parameter.requires_grad:  # small steps are lost in half precision
            parameter.data = parameter.data.float()
    if train_tokens:
        tokens = [thinker.ids.trigger, thinker.ids.close]  # a pad's embedding is a latent, and it is never predicted
        for layer, hook in zip(_vocabulary(thinker).values(), (_replace_embeddings, _replace_logits), strict=True):
            layer.latent_rows = nn.Parameter(layer.weight.detach()[tokens].float())
            layer.register_buffer("latent_row_ids", torch.tensor(tokens, device=layer.weight.device), persistent=False)
            layer.register_forward_hook(hook)


# Own rows instead of peft's trainable_token_indices, which copies both matrices in every forward (2.2 GB in the 7B layout, for
# two rows of each) and computes gradients of all their rows.
def _replace_embeddings(layer: nn.Embedding, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    for token, row in zip(layer.latent_row_ids, layer.latent_rows, strict=True):
        output = torch.where((inputs[0] == token)[..., None], row.to(output.dtype), output)
    return output


def _replace_logits(layer: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    logits = F.linear(inputs[0], layer.latent_rows.to(inputs[0].dtype))
    return output.index_copy_(-1, layer.latent_row_ids, logits.to(output.dtype))


def _vocabulary(thinker: Thinker) -> dict[str, nn.Module]:
    return {"embedding": thinker.text_model.embed_tokens, "output": thinker.model.lm_head}


def _text_model_name(thinker: Thinker) -> str:
    return next(name for name, module in thinker.model.named_modules() if module is thinker.text_model)


def _lora_state(thinker: Thinker) -> dict[str, torch.Tensor]:
    """The low-rank matrices by their names inside the language model, which do not depend on the library's version."""
    state = get_peft_model_state_dict(thinker.model, adapter_name=_NAME, save_embedding_layers=False)
    return {name.removeprefix(f"{_text_model_name(thinker)}."): value for name, value in state.items()}


def _quantization(thinker: Thinker) -> QuantizationSpec:
    if getattr(thinker.model, "is_loaded_in_4bit", False):
        return QuantizationSpec.NF4
    return QuantizationSpec.INT8 if getattr(thinker.model, "is_loaded_in_8bit", False) else QuantizationSpec.NONE
