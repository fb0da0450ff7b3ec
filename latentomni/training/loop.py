"""The training loop: stages of steps through Accelerate, on one process or several, resumable at any step.

Everything random about a step is drawn from (seed, stage, step), so a run that was killed and resumed is the run that was not.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm

from latentomni.errors import RequestError, require
from latentomni.training.feedback import Phase

__all__ = ["FitSpec", "Stage", "fit", "learning_rate", "make_accelerator"]

_LOG, _STATE, _PLACE, _TRAINED = "log.jsonl", "state", "place.json", "trained.safetensors"


@dataclass(frozen=True)
class Stage:
    """Steps under one regime. lr: peak learning rate. phase: what fills the latent slots. draw: what the step's batches hold, as
    the source of the samples understands it. forgets: the optimiser's moments begin anew: those of large gradients would hold a task
    with small ones back (docs/LOG.md, 17)."""

    name: str
    steps: int
    lr: float
    phase: Phase = field(default_factory=Phase)
    draw: dict[str, Any] = field(default_factory=dict)
    forgets: bool = False

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.lr > 0, f"stage {self.name!r} needs at least 1 step and lr > 0, got {self.steps} and {self.lr}")
        if isinstance(self.phase, dict):
            object.__setattr__(self, "phase", Phase(**self.phase))


@dataclass(frozen=True)
class FitSpec:
    """seed: of everything. save_every, log_every: steps. warmup: share of the steps. restarts: warm-up and decay begin anew
    with every stage, instead of once for all. log_with: "tensorboard", "trackio" or None."""

    seed: int = 7
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    warmup: float = 0.05
    restarts: bool = True
    save_every: int = 100
    log_every: int = 20
    log_with: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        require(0 <= self.warmup <= 1, f"warmup must be a share from 0 to 1, got {self.warmup}")
        require(self.save_every >= 1 and self.log_every >= 1, f"save_every and log_every must be at least 1: {self.save_every}, {self.log_every}")
        require(self.log_with in (None, "tensorboard", "trackio"), f"log_with must be tensorboard or trackio, got {self.log_with!r}")


def make_accelerator(spec: FitSpec, out: Path) -> Accelerator:
    """How this process takes part, as `accelerate launch` says. Raises RequestError where what is to log is not installed."""
    kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)  # a batch without latents leaves the latent head alone
    accelerator = Accelerator(log_with=spec.log_with, project_dir=str(out), kwargs_handlers=[kwargs])
    require(not spec.log_with or bool(accelerator.log_with), f"log_with is {spec.log_with}, which is not installed; `pip install {spec.log_with}`.")
    if accelerator.distributed_type is DistributedType.MULTI_CPU and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _shard_on_cpus(accelerator)
    if accelerator.distributed_type is DistributedType.DEEPSPEED:  # it clips and counts by itself
        accelerator.state.deepspeed_plugin.deepspeed_config |= {"gradient_clipping": spec.clip_norm, "train_micro_batch_size_per_gpu": 1}
    return accelerator


def _shard_on_cpus(accelerator: Accelerator) -> None:
    """As Accelerate does on GPUs; on CPUs it would leave sharding out without a word."""
    state, plugin = accelerator.state, FullyShardedDataParallelPlugin()
    if state.mixed_precision != "no":
        plugin.set_mixed_precision(state.mixed_precision)
    state.fsdp_plugin = plugin
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP  # both are asked


def fit(
    module: torch.nn.Module,
    stages: tuple[Stage, ...],
    draw: Callable[[int, int], list[Any]],
    out: Path,
    spec: FitSpec,
    *,
    resume: bool = False,
    accelerator: Accelerator | None = None,
    on_stage_end: Callable[[Stage], dict[str, Any]] = lambda stage: {},
) -> dict[str, float]:
    """Train what requires a gradient in `module`; returns the last means of all terms.

    module(batch, phase, seed) -> (sums of terms, latents that were fed); module.counts(batch) -> how many each is over;
    module.weight(term) -> its weight. draw(stage, step) -> this step's micro-batches, the same on every process, of which process
    r of w takes r, r + w, ...; the others are not asked for. accelerator: made here, and ended, unless given. Writes
    `out`/log.jsonl, a line per `log_every` steps, and `out`/state.
    """
    used = accelerator or make_accelerator(spec, out)
    means = _Fit(module, stages, draw, out, spec, used, on_stage_end).run(resume)
    if accelerator is None:
        used.end_training()
    return means


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    warm = max(round(steps * warmup), 1)
    return peak * min((step + 1) / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


class _Fit:
    def __init__(self, module, stages, draw, out: Path, spec: FitSpec, accelerator: Accelerator, on_stage_end) -> None:
        self.bare, self.stages, self.draw, self.out, self.spec, self.on_stage_end = module, stages, draw, out, spec, on_stage_end
        self.accelerator = accelerator
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(trained.values(), lr=stages[0].lr, betas=spec.betas, weight_decay=spec.weight_decay)
        self.module, self.optimizer = accelerator.prepare(module, optimizer)
        for part in self.module.modules():
            if isinstance(part, FSDPModule):  # it is whole in the backward pass; the default would gather for passes that others did not make
                part.set_modules_to_backward_prefetch([part])
        if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):  # these keep states of their own
            _keep_trained_only(accelerator, trained)
        self.stage = self.step = 0
        self.seconds = 0.0

    def run(self, resume: bool) -> dict[str, float]:
        if not (resume and self._restore()) and self.accelerator.is_main_process:
            (self.out / _LOG).unlink(missing_ok=True)  # of a run that was killed before its first save
        if self.spec.log_with:
            self.accelerator.init_trackers("latentomni")
        means: dict[str, float] = {}
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            means = self._run_stage(stage) or means
            if self.accelerator.is_main_process and (told := self.on_stage_end(stage)):
                self._log({"stage": stage.name, **told})
            self.accelerator.wait_for_everyone()
            self.stage, self.step = self.stage + 1, 0
            self._save()
        return means

    def _run_stage(self, stage: Stage) -> dict[str, float]:
        if stage.forgets and not self.step:
            self.optimizer.state.clear()
        started, means = time.perf_counter(), {}
        steps = tqdm(range(self.step, stage.steps), initial=self.step, total=stage.steps, desc=stage.name, mininterval=5,
                     disable=not self.accelerator.is_main_process)  # fmt: skip
        for step in steps:
            means = self._take_step(stage, step)
            self.step = step + 1
            if self.step % self.spec.log_every == 0 or self.step == stage.steps:
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                steps.set_postfix({k: f"{v:.3f}" for k, v in means.items() if k.startswith(("ce_", "al"))})
                self._log({"stage": stage.name, "step": self.step, "seconds": round(self.seconds, 1), **_rounded(means)})
            if self.step % self.spec.save_every == 0:
                self._save()
        return means

    def _take_step(self, stage: Stage, step: int) -> dict[str, float]:
        """One optimiser step; means of all terms, unweighted, and what tells how the run does."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        seed = (self.spec.seed * 1_000_003 + self.stage * 100_003 + step) % 2**31
        torch.manual_seed(seed)
        batches = self.draw(self.stage, step)
        require(len(batches) % world == 0, f"a step has {len(batches)} micro-batches for {world} processes; make it a multiple of the processes")
        own = [batches[i] for i in range(rank, len(batches), world)]
        counts = _added(gather_object([self.bare.counts(b) for b in own]))
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(stage, step)
        sums: dict[str, float] = {}
        fed = []
        for number, batch in enumerate(own):
            is_last = number == len(own) - 1
            self.accelerator.sync_gradients = is_last
            with nullcontext() if is_last else self.accelerator.no_sync(self.module):
                terms, vectors = self.module(batch, stage.phase, seed + rank + number * world)
                total = sum(self.bare.weight(name) * term / counts[name] for name, term in terms.items() if counts[name])
                self.accelerator.backward(total * world)  # processes are averaged
            sums = _added([sums, {name: term.item() for name, term in terms.items()}])
            fed.append(vectors)
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**self._shared(sums, counts), "grad_norm": float(norm), **self._collapse(torch.cat(fed))}

    def _learning_rate(self, stage: Stage, step: int) -> float:
        if self.spec.restarts:
            return learning_rate(step, stage.steps, stage.lr, self.spec.warmup)
        done = sum(s.steps for s in self.stages[: self.stage])
        return learning_rate(done + step, sum(s.steps for s in self.stages), stage.lr, self.spec.warmup)

    def _shared(self, sums: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
        """Means over all processes."""
        names = sorted(n for n in counts if counts[n])
        totals = torch.tensor([sums.get(n, 0.0) for n in names], device=self.accelerator.device)
        totals = self.accelerator.reduce(totals, "sum")
        return {n: float(t) / counts[n] for n, t in zip(names, totals, strict=True)}

    def _collapse(self, vectors: torch.Tensor) -> dict[str, float]:
        """Of the latents (n, D) that all processes fed: the mean norm, and the mean cosine with one another, where 1 is full collapse."""
        if vectors.ndim < 2:  # this part of the model feeds none
            return {}
        vectors = vectors.detach().float()
        norms = vectors.norm(dim=1)
        own = torch.cat([torch.nn.functional.normalize(vectors, dim=1).sum(0), norms.sum()[None], norms.new_tensor([len(norms)])])
        *direction, norm, n = self.accelerator.reduce(own, "sum").double().tolist()
        if not n:
            return {}
        return {"latent_norm": norm / n, "latent_cosine": (sum(x * x for x in direction) - n) / max(n * (n - 1), 1)}

    def _log(self, values: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.out / _LOG).open("a") as file:
                file.write(json.dumps(values) + "\n")
        if self.spec.log_with:
            done = sum(s.steps for s in self.stages[: self.stage]) + self.step
            self.accelerator.log({k: v for k, v in values.items() if isinstance(v, float)}, step=done)

    def _save(self) -> None:
        """Replace the saved state in one move, so that a kill leaves the old one or the new one."""
        partial, state = self.out / (_STATE + ".partial"), self.out / _STATE
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()  # every process writes into it
        if self.accelerator.is_main_process:
            place = {"stage": self.stage, "step": self.step, "seconds": self.seconds, "stages": [s.name for s in self.stages],
                     "log_bytes": log.stat().st_size if (log := self.out / _LOG).exists() else 0}  # fmt: skip
            (partial / _PLACE).write_text(json.dumps(place))
            old = self.out / (_STATE + ".old")
            shutil.rmtree(old, ignore_errors=True)
            if state.exists():
                state.rename(old)
            partial.rename(state)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _restore(self) -> bool:
        found = [f for f in (self.out / _STATE, self.out / (_STATE + ".old")) if (f / _PLACE).is_file()]
        if not found:
            return False
        place = json.loads((found[0] / _PLACE).read_text())
        if place["stages"][: place["stage"] + 1] != [s.name for s in self.stages][: place["stage"] + 1]:
            raise RequestError(f"{self.out} holds a run with stages {place['stages']}; resume it with its own recipe, or choose another --out.")
        self.accelerator.load_state(str(found[0]))
        self.stage, self.step, self.seconds = place["stage"], place["step"], place["seconds"]
        if self.accelerator.is_main_process and (self.out / _LOG).exists():
            os.truncate(self.out / _LOG, place.get("log_bytes", (self.out / _LOG).stat().st_size))  # what was said after the save is said again
        return True


def _keep_trained_only(accelerator: Accelerator, trained: dict[str, torch.nn.Parameter]) -> None:
    """Save of the model what is trained, not the frozen rest."""

    def save(_models: list[torch.nn.Module], weights: list[dict[str, torch.Tensor]], folder: str) -> None:
        weights.clear()
        if accelerator.is_main_process:
            save_file({name: p.detach().contiguous() for name, p in trained.items()}, Path(folder) / _TRAINED)

    def load(models: list[torch.nn.Module], folder: str) -> None:
        models.clear()
        saved = load_file(Path(folder) / _TRAINED)
        require(saved.keys() == trained.keys(), f"{folder} holds a run that trains other parameters; resume it with its own recipe.")
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(saved[name])

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _added(parts: list[dict[str, Any]]) -> dict[str, Any]:
    names = {name for part in parts for name in part}
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 4) for k, v in sorted(values.items())}
