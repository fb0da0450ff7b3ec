"""Fine-tune a model on a JSONL file as a recipe says: whole, through LoRA, or through LoRA on a base in 4 bits (QLoRA)."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from tqdm import tqdm

from latentomni import checkpoints
from latentomni.adapters import add_lora, checkpoint_gradients, save_adapter
from latentomni.config import QuantizationSpec
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.training.loop import fit, make_accelerator
from latentomni.training.losses import Objective
from latentomni.training.recipes import TrainRecipe
from latentomni.training.records import Record, Style, read_records
from latentomni.training.run_folder import check_run, claimed, write_recipe
from latentomni.training.source import Source

__all__ = ["adapted", "encode_clips", "finetune", "freeze"]

_CHECKPOINT = "checkpoint"


def finetune(recipe: TrainRecipe, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train into `out`: recipe.json, log.jsonl, state/, and checkpoint/ at the end. Returns steps, losses and the checkpoint's folder.

    Every process of an `accelerate launch` calls it. Raises RequestError where the recipe, the model or a run that is in `out`
    do not go together, or another training writes there."""
    records = read_records(recipe.data)
    accelerator = make_accelerator(recipe.fit, out)
    with claimed(out) if accelerator.is_main_process else nullcontext():
        return _finetune(recipe, out, records, accelerator, resume)


def _finetune(recipe: TrainRecipe, out: Path, records: list[Record], accelerator: Accelerator, resume: bool) -> dict[str, Any]:
    check_run(out, recipe.to_dict(), resume)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_recipe(out, recipe.to_dict())
    accelerator.wait_for_everyone()
    thinker = freeze(_load(recipe, accelerator.device), recipe)
    source = Source(thinker, records, recipe, accelerator.num_processes)
    if source.cache:
        source.fill_cache(accelerator.process_index, lambda paths: _shown(paths, accelerator))
        accelerator.wait_for_everyone()
    objective = Objective(thinker, recipe.losses)
    if objective.log_sharpness is not None:  # sharding takes no scalars
        objective.log_sharpness = torch.nn.Parameter(objective.log_sharpness.detach()[None])
    _prepare_sharding(recipe, thinker, accelerator)
    losses = fit(objective, recipe.stages, source.draw, out, recipe.fit, resume=resume, accelerator=accelerator)
    _save(recipe, thinker, objective, out / _CHECKPOINT, accelerator)
    accelerator.end_training()
    return {"steps": recipe.steps, "processes": accelerator.num_processes, "losses": losses, "checkpoint": str(out / _CHECKPOINT),
            "model": recipe.model, "weights": thinker.weights, "device": str(accelerator.device), "seed": recipe.fit.seed}  # fmt: skip


def encode_clips(recipe: TrainRecipe, part: int, parts: int) -> dict[str, Any]:
    """Encode one of so many parts (from 0) of a recipe's clips into its folder of features, as `finetune` would before its first step.

    The processes that make the parts need not know of one another. Raises RequestError where the recipe keeps no features."""
    require(bool(recipe.features), "the recipe keeps no features; name a folder with --features, or as its 'features'.")
    records = read_records(recipe.data)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    thinker = _load(recipe, device)
    source = Source(thinker, records, replace(recipe, samples=parts), parts)
    clips = source.fill_cache(part, lambda paths: tqdm(paths, desc=f"part {part + 1} of {parts}", mininterval=5, position=local))
    return {"part": f"{part + 1}/{parts}", "clips": clips, "encoded": source.cache.encoded, "bytes": source.cache.size_bytes,
            "features": recipe.features, "model": recipe.model, "weights": thinker.weights, "device": device}  # fmt: skip


def adapted(thinker: Thinker, recipe: TrainRecipe) -> Thinker:
    """The thinker with the recipe's block and pictures. Raises RequestError where it cannot have them."""
    require(not hasattr(thinker.model, "peft_config"), f"'{recipe.model}' is an adapter; name its base instead.")
    learns_latents = recipe.style is Style.LATENTOMNI
    spec, video = replace(thinker.spec, is_trained=thinker.spec.is_trained or learns_latents, **recipe.latent), replace(thinker.video, **recipe.video)
    require(spec.has_head == thinker.spec.has_head, f"latent.has_head cannot be changed; '{recipe.model}' has it {thinker.spec.has_head}.")
    require(spec.writes_window or not learns_latents,
            "latent.writes_window must be true: windows are part of what is learned.")  # fmt: skip
    return replace(thinker, spec=spec, video=video)


def freeze(thinker: Thinker, recipe: TrainRecipe) -> Thinker:
    """Let train what the recipe trains, in place, and nothing else."""
    thinker.model.requires_grad_(False)
    if recipe.method == "full":
        trained = [thinker.text_model, thinker.model.lm_head, thinker.head]
        towers = [thinker.towers.visual, thinker.towers.audio_tower] if recipe.train_towers else []
        for module in (*trained, *towers):
            if module is not None:
                module.requires_grad_(True)
    else:
        add_lora(thinker, recipe.lora, recipe.fit.seed)
    thinker.text_model.train()
    checkpoint_gradients(thinker, recipe.gradient_checkpointing)
    return thinker


def _load(recipe: TrainRecipe, device: torch.device | str) -> Thinker:
    """Whole models are trained in float32, under the mixed precision that `accelerate launch` sets: small steps are lost in bf16."""
    dtype = torch.float32 if recipe.method == "full" else None
    quantization = QuantizationSpec.NF4 if recipe.method == "qlora" else None
    return adapted(checkpoints.load(recipe.model, device=str(device), dtype=dtype, quantization=quantization), recipe)


def _shown(paths: list[Path], accelerator: Accelerator) -> Iterable[Path]:
    return tqdm(paths, desc="encode clips", mininterval=5, leave=False, disable=not accelerator.is_main_process)


def _prepare_sharding(recipe: TrainRecipe, thinker: Thinker, accelerator: Accelerator) -> None:
    """Refuse what does not work sharded: processes wait for one another in every pass, so each must make as many as the others."""
    if accelerator.distributed_type is not DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    require(accelerator.is_fsdp2 and not plugin.reshard_after_forward,
            "FSDP needs fsdp_version 2 and fsdp_reshard_after_forward false: steps that feed latents back differ in their number "
            "of passes between processes.")  # fmt: skip
    require(recipe.method == "full", f"method {recipe.method} is not sharded; launch it without FSDP.")
    require(recipe.gradient_checkpointing, "FSDP needs gradient_checkpointing true: it makes one backward pass per process.")
    require(not recipe.train_towers, "towers are not trained under FSDP; launch it without, or with DeepSpeed.")
    plugin.ignored_modules = [thinker.towers.visual, thinker.towers.audio_tower]  # they run outside the step
    if plugin.mixed_precision_policy:  # losses are summed in float32, and stay so
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)


def _save(recipe: TrainRecipe, thinker: Thinker, objective: Objective, folder: Path, accelerator: Accelerator) -> None:
    is_sharded = accelerator.distributed_type is DistributedType.FSDP
    state = accelerator.get_state_dict(objective) if is_sharded else None  # gathered from all
    if accelerator.is_main_process:
        if recipe.method != "full":
            base = Path(recipe.model)
            save_adapter(thinker, folder, str(base.resolve()) if base.is_dir() else recipe.model)
        elif state is None:
            checkpoints.save(thinker, folder)
        else:
            whole = _load(recipe, "cpu")
            parts = {"model": whole.model, "head": whole.head}
            for name, module in parts.items():
                if module is not None:
                    prefix = f"{name}."
                    module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
            checkpoints.save(whole, folder)
    accelerator.wait_for_everyone()
