"""What a run would be, before it is one: parameters, tokens, memory and time, without weights and without reading clips.

Memory and FLOPs are formulas over the layout; seconds divide FLOPs by what this device was measured to do, see `make_plan`.
"""

import time
from pathlib import Path
from typing import Any

import torch

from latentomni import checkpoints
from latentomni.layouts import OMNI_SIZES
from latentomni.modeling import Thinker
from latentomni.training.finetune import adapted, freeze
from latentomni.training.recipes import TrainRecipe
from latentomni.training.records import read_records
from latentomni.training.source import Size, Source

__all__ = ["describe", "make_plan"]

_MOST = 200  # records whose size is looked up
_USED = 0.4  # share of the measured matrix product rate that training reaches
_NF4_BYTES = 0.516  # 4 bits and the doubly quantised scales of blocks of 64
_GIB = 2**30


def make_plan(recipe: TrainRecipe, processes: int = 1) -> dict[str, Any]:
    """Everything as JSON. Memory is that of one process that holds the whole model (FSDP2 and ZeRO-2 share it), for the longest
    micro-batch. Seconds are FLOPs over 0.4 of the rate of a matrix product, measured here; many small rollout steps may take longer."""
    thinker, records = _layout(recipe), read_records(recipe.data)
    source = Source(thinker, records, recipe, processes)
    looked_at = range(0, len(records), -(-len(records) // _MOST))
    sizes = [source.size(i) for i in looked_at]
    rows = [[source.size(i) for i in part] for part in source.draw(0, 0).chosen]
    parameters = _parameters(thinker)
    flops = {stage.name: _step_flops(thinker, recipe, stage.phase, rows) for stage in recipe.stages}
    rate = _measured_flops()
    seconds = {name: n / (rate * _USED * processes) for name, n in flops.items()}
    phases = [
        {"name": s.name, "steps": s.steps, "lr": s.lr, "passes": s.phase.passes if s.name == "jacobi" else None,
         "flops_per_step": flops[s.name], "seconds_per_step": seconds[s.name]} for s in recipe.stages
    ]  # fmt: skip
    tokens = [size.tokens for size in sizes]
    return {
        "model": recipe.model, "data": recipe.data, "style": recipe.style.value, "method": recipe.method, "processes": processes,
        "steps": recipe.steps, "phases": phases, "rows": len(records), "epochs": recipe.steps * recipe.samples / len(records),
        "parameters": parameters,
        "tokens": {"per_sample": sum(tokens) / len(tokens), "longest": max(tokens), "per_step": sum(s.tokens for row in rows for s in row),
                   "supervised_per_sample": sum(s.targets for s in sizes) / len(sizes), "micro_batches_per_step": len(rows)},
        "memory_bytes": _memory(thinker, recipe, parameters, rows),
        "seconds_total": sum(s.steps * seconds[s.name] for s in recipe.stages), "measured_flops": rate,
    }  # fmt: skip


def describe(plan: dict[str, Any]) -> list[str]:
    """The plan in sentences."""
    total, tokens, memory = plan["parameters"]["total"], plan["tokens"], plan["memory_bytes"]
    parts = ", ".join(f"{name} {memory[name] / _GIB:.2f}" for name in memory if name != "total")
    lines = [
        f"{plan['model']}, {plan['style']}, {plan['method']}: {total['trained']:,} of {total['all']:,} parameters are trained.",
        f"{plan['rows']} rows, {tokens['per_sample']:.0f} tokens each ({tokens['longest']} at most, {tokens['supervised_per_sample']:.0f} supervised); "
        f"{tokens['per_step']} tokens in {tokens['micro_batches_per_step']} micro-batches a step; {plan['epochs']:.2f} epochs.",
        f"Memory of a process: {memory['total'] / _GIB:.2f} GiB ({parts}).",
    ]
    lines += [f"{p['name']}: {p['steps']} steps of about {_plain(p['seconds_per_step'])} s, lr {p['lr']:g}" for p in plan["phases"]]
    return [*lines, f"About {_plain(plan['seconds_total'] / 3600)} hours for {plan['steps']} steps on {plan['processes']} process(es) like this one."]


def _plain(number: float) -> str:
    """Three digits; of large numbers all before the point, so that none has an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _layout(recipe: TrainRecipe) -> Thinker:
    """The model without its weights. A published one is known by its name, nothing is fetched."""
    size = recipe.model.rpartition("/")[2].lower()
    name = f"random:{size}" if size in OMNI_SIZES and not Path(recipe.model).is_dir() else recipe.model
    dtype = torch.bfloat16 if recipe.method != "full" and torch.cuda.is_available() else torch.float32
    return freeze(adapted(checkpoints.load(name, device="meta", dtype=dtype), recipe), recipe)


def _parameters(thinker: Thinker) -> dict[str, dict[str, int]]:
    """Of each part: all, and those that are trained."""
    counts: dict[str, dict[str, int]] = {}
    modules = {"embedding": thinker.text_model.embed_tokens, "layers": thinker.text_model, "output": thinker.model.lm_head,
               "vision": thinker.towers.visual, "audio": thinker.towers.audio_tower, "latent_head": thinker.head}  # fmt: skip
    for part, module in modules.items():
        for name, p in module.named_parameters() if module is not None else ():
            if part == "layers" and name.startswith("embed_tokens."):
                continue
            counted = counts.setdefault("adapter" if "lora_" in name or name == "latent_rows" else part, {"all": 0, "trained": 0})
            counted["all"] += p.numel()
            counted["trained"] += p.numel() * p.requires_grad
    return counts | {"total": {key: sum(c[key] for c in counts.values()) for key in ("all", "trained")}}


def _memory(thinker: Thinker, recipe: TrainRecipe, parameters: dict[str, dict[str, int]], rows: list[list[Size]]) -> dict[str, int]:
    """Activations per layer and token: what attention and the gated feed-forward layer keep for their gradient; under gradient
    checkpointing each layer's input and the inside of one layer. mask: of one row, as bool and as numbers."""
    config, trained = thinker.model.config.text_config, parameters["total"]["trained"]
    weight_bytes = torch.finfo(thinker.dtype).bits // 8
    layers = parameters["layers"]["all"] * (_NF4_BYTES if recipe.method == "qlora" else weight_bytes)
    others = parameters["total"]["all"] - parameters["layers"]["all"]
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    width, depth = config.hidden_size, config.num_hidden_layers
    inside = 4 * width + 2 * (heads + kv) * (width // heads) + 4 * config.intermediate_size
    number_bytes = 2 if torch.cuda.is_available() else weight_bytes
    tokens, row, targets = max((sum(s.tokens for s in part), _row_tokens(recipe, part), sum(s.targets for s in part)) for part in rows)
    kept = depth * width + inside if recipe.gradient_checkpointing else depth * inside
    memory = {
        "weights": layers + others * weight_bytes,
        "gradients": trained * 4,
        "optimizer": trained * 8,
        "activations": tokens * kept * number_bytes,
        "mask": tokens * row * (1 + number_bytes),
        "logits": 3 * targets * config.vocab_size * 4,
    }
    memory = {name: int(n) for name, n in memory.items()}
    return memory | {"total": sum(memory.values())}


def _row_tokens(recipe: TrainRecipe, part: list[Size]) -> int:
    lengths = [size.tokens for size in part]
    return sum(lengths) if recipe.packing else max(lengths)


def _step_flops(thinker: Thinker, recipe: TrainRecipe, phase: Any, rows: list[list[Size]]) -> int:
    """2 a weight and token, and attention over the whole row, which a dense mask computes; the backward pass takes twice the
    forward (once where weights are frozen), and once more under gradient checkpointing. Feedback reads the prefix again only
    under checkpointing, and each of its passes reads the latents."""
    config = thinker.model.config.text_config
    weights = sum(p.numel() for name, p in thinker.text_model.layers.named_parameters() if p.ndim == 2 and "lora_" not in name)
    passes = 1 + (2 if recipe.method == "full" else 1) + recipe.gradient_checkpointing
    again = {"anchors": 0, "jacobi": phase.passes, "rollout": 1}[phase.kind]
    total = 0
    for part in rows:
        tokens, latents = sum(s.tokens for s in part), sum(s.latents for s in part)
        per_token = 2 * weights + 4 * _row_tokens(recipe, part) * config.hidden_size * config.num_hidden_layers
        fed_back = (latents * again + tokens * recipe.gradient_checkpointing) * per_token if again and latents else 0
        logits = 2 * sum(s.targets for s in part) * config.vocab_size * config.hidden_size
        total += passes * (tokens * per_token + logits) + fed_back + _tower_flops(thinker, recipe, part)
    return total


def _tower_flops(thinker: Thinker, recipe: TrainRecipe, part: list[Size]) -> int:
    """Every merged visual token is four patches, every audio token two frames of the encoder."""
    if recipe.features:
        return 0
    vision, audio = (sum(p.numel() for p in tower.parameters()) for tower in (thinker.towers.visual, thinker.towers.audio_tower))
    once = 2 * sum(s.visual * thinker.video.merge**2 * vision + s.audio * 2 * audio for s in part)
    return once * (4 if recipe.train_towers else 1)


def _measured_flops() -> float:
    """FLOP/s of a matrix product on this device, the best of five."""
    cuda = torch.cuda.is_available()
    n, dtype, device = (8192, torch.bfloat16, "cuda") if cuda else (512, torch.float32, "cpu")
    a, best_s = torch.ones(n, n, dtype=dtype, device=device), float("inf")
    for _ in range(5):
        started_s = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * n**3 / best_s
