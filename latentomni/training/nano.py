"""The recipe that makes nano: towers, narration, latent blocks, feedback. Each stage teaches what the next one needs.

Resumable: a checkpoint holds weights, optimiser and the step; every step draws its batch from (seed, stage, step) alone.
"""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from latentomni import checkpoints
from latentomni.avworld import questions, sample_world
from latentomni.avworld.truth import narration
from latentomni.runtime import DONORS_FILE
from latentomni.training.donors import build_donors
from latentomni.training.examples import build_example, choose
from latentomni.training.losses import TimeProbes, batch_losses, make_batch, self_fed_latents
from latentomni.training.pool import ClipPool
from latentomni.training.towers import AudioProbe, VisionProbe, scale_features
from latentomni.training.validation import family_accuracy

__all__ = ["NanoRecipe", "Stage", "train_nano"]

logger = logging.getLogger(__name__)
_WEIGHTS = {"ce_text": 0.5, "ce_window": 2.0, "ce_answer": 1.0, "ce_narration": 1.0, "clock": 0.5, "search": 0.5, "alignment": 4.0}


@dataclass(frozen=True)
class Stage:
    """clips: rows per step. latent, direct: questions per row answered through a block / directly. narrate: share of steps
    with narration. self_fed: share of blocks fed their own latents. noise: standard deviation added to anchors."""

    name: str
    steps: int
    clips: int
    lr: float
    latent: int = 0
    direct: int = 0
    narrate: float = 0.0
    self_fed: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that decides the run."""

    seed: int = 7
    pool: int = 5000
    vocabulary: int = 640
    stages: tuple[Stage, ...] = (
        Stage("vision", 500, 16, 2e-3),
        Stage("audio", 250, 16, 2e-3),
        Stage("narrate", 250, 8, 1e-3, latent=4, narrate=1.0, noise=0.1),
        Stage("localise", 250, 10, 1e-3, latent=6, narrate=0.1, noise=0.1),
        Stage("feedback", 200, 8, 1e-3, latent=6, direct=1, narrate=0.05, self_fed=0.85, noise=0.1),
        Stage("practise", 300, 8, 8e-4, latent=6, direct=1, narrate=0.1, noise=0.1),
        Stage("settle", 120, 8, 5e-4, latent=6, direct=1, self_fed=0.85, noise=0.1),
    )


def nano_tokenizer(recipe: NanoRecipe):
    """The tokenizer, learned from questions, answers and narrations of the training split."""
    lines = ["Describe the clip. Answer directly.", "<|im_start|>user", "<|im_start|>assistant\n"] * 50
    for seed in range(400):
        world = sample_world(seed, "train")
        lines.append(narration(world))
        lines += [f"{q.text} {q.lead} {q.closing}" for q in questions(world)]
    return checkpoints.build_tokenizer(lines, recipe.vocabulary)


class _Run:
    """A run in progress: model, probes, pool, and where it stands."""

    def __init__(self, recipe: NanoRecipe, out: Path, device: str) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        self.thinker = checkpoints.build("nano", nano_tokenizer(recipe), recipe.seed)
        self.thinker.model.to(device)
        self.thinker.head.to(device)
        self.thinker.weights = "nano"
        torch.manual_seed(recipe.seed)
        self.times = TimeProbes(self.thinker.hidden_size).to(device)
        self.probes = {"vision": VisionProbe(self.thinker.hidden_size).to(device), "audio": AudioProbe(self.thinker.hidden_size).to(device)}
        self.pool: ClipPool | None = None
        self.stage, self.step, self.seconds, self.scaled = 0, 0, 0.0, False
        self.optimizer_state: dict | None = None

    def modules(self) -> dict[str, torch.nn.Module]:
        return {"model": self.thinker.model, "head": self.thinker.head, "times": self.times, **self.probes}

    def save(self, optimizer: torch.optim.Optimizer | None) -> None:
        state = {name: m.state_dict() for name, m in self.modules().items()}
        place = {"stage": self.stage, "step": self.step, "seconds": self.seconds, "scaled": self.scaled}
        partial = self.out / "state.partial"
        torch.save({**state, **place, "optimizer": optimizer and optimizer.state_dict()}, partial)
        partial.replace(self.out / "state.pt")

    def resume(self) -> None:
        path = self.out / "state.pt"
        if path.is_file():
            state = torch.load(path, weights_only=True, map_location=self.device)
            for name, module in self.modules().items():
                module.load_state_dict(state[name])
            self.stage, self.step, self.seconds, self.scaled = (state[k] for k in ("stage", "step", "seconds", "scaled"))
            self.optimizer_state = state["optimizer"]

    def log(self, values: dict) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")


def train_nano(out: Path, recipe: NanoRecipe | None = None, *, resume: bool = False, device: str | None = None) -> dict:
    """Train nano into `out` (state.pt, log.jsonl, checkpoint/). Returns steps, losses and the checkpoint's folder."""
    recipe = recipe or NanoRecipe()
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe, out, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if resume:
        run.resume()
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    losses: dict[str, float] = {}
    while run.stage < len(recipe.stages):
        stage = recipe.stages[run.stage]
        losses = _run_stage(run, stage)
        if stage.latent:
            run.log({"stage": stage.name, "validation": family_accuracy(run.thinker)})
        run.stage, run.step, run.optimizer_state = run.stage + 1, 0, None
        run.save(None)
    checkpoints.save(run.thinker, out / "checkpoint")
    build_donors(checkpoints.load(str(out / "checkpoint"))).save(out / "checkpoint" / DONORS_FILE)
    steps = sum(s.steps for s in recipe.stages)
    return {"steps": steps, "losses": losses, "checkpoint": str(out / "checkpoint"), "train_seconds": round(run.seconds, 1)}


def _progress(items, what: str):
    return tqdm(items, desc=what, leave=False, mininterval=5)


def _prepare(run: _Run, stage: Stage) -> None:
    """Draw the pool once; encode it once the towers are trained and scaled."""
    if run.pool is None:
        run.pool = ClipPool(run.thinker, run.recipe.pool, 0, "train", _progress)
    if stage.name not in run.probes and not run.pool.features:
        if not run.scaled:
            scale_features(run.thinker, run.pool)
            run.scaled = True
        run.pool.encode(run.thinker, _progress)


def _parameters(run: _Run, stage: Stage) -> list[torch.nn.Parameter]:
    towers = run.thinker.towers
    parts = {"vision": [towers.visual, run.probes["vision"]], "audio": [towers.audio_tower, run.probes["audio"]]}
    modules = parts.get(stage.name, [run.thinker.text_model, run.thinker.model.lm_head, run.thinker.head, run.times])
    run.thinker.model.requires_grad_(False)
    run.thinker.head.requires_grad_(False)
    return [p.requires_grad_(True) for m in modules for p in m.parameters()]


def _run_stage(run: _Run, stage: Stage) -> dict[str, float]:
    started = time.perf_counter()
    _prepare(run, stage)
    optimizer = torch.optim.AdamW(_parameters(run, stage), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.02)
    if run.optimizer_state:
        optimizer.load_state_dict(run.optimizer_state)
    bar = tqdm(range(run.step, stage.steps), initial=run.step, total=stage.steps, desc=stage.name, mininterval=5)
    values: dict[str, float] = {}
    for step in bar:
        rng = np.random.default_rng([run.recipe.seed, run.stage, step])
        torch.manual_seed(run.recipe.seed * 1_000_003 + run.stage * 100_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * _schedule(step, stage.steps)
        values = _step(run, stage, rng, optimizer)
        run.step = step + 1
        if run.step % 20 == 0 or run.step == stage.steps:
            now = time.perf_counter()
            run.seconds, started = run.seconds + now - started, now
            run.log({"stage": stage.name, "step": run.step, "seconds": round(run.seconds, 1), **{k: round(v, 4) for k, v in values.items()}})
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()})
        if run.step % 100 == 0:
            run.save(optimizer)
    return values


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over 5 %, then a cosine to a tenth."""
    warm = max(steps // 20, 1)
    return min((step + 1) / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _step(run: _Run, stage: Stage, rng: np.random.Generator, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    chosen = run.pool.draw(rng, stage.clips)
    if stage.name in run.probes:
        total, values = run.probes[stage.name].loss(run.thinker, run.pool, chosen)
    else:
        terms = _block_terms(run, stage, rng, chosen)
        total = sum(_WEIGHTS[name] * term for name, term in terms.items())
        values = {name: term.item() for name, term in terms.items()}
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    return values


def _block_terms(run: _Run, stage: Stage, rng: np.random.Generator, chosen: np.ndarray) -> dict[str, torch.Tensor]:
    narrate = rng.random() < stage.narrate
    examples = []
    for i in chosen:
        asked = choose(rng, run.pool.questions[i], stage.latent + stage.direct)
        told = narration(run.pool.worlds[i]) if narrate else None
        examples.append(build_example(run.thinker, _noisy(run.pool.features[i]), asked[: stage.latent], asked[stage.latent :], told))
    batch = make_batch(run.thinker, examples)
    vectors = batch.anchors + stage.noise * torch.randn_like(batch.anchors)
    if stage.self_fed:
        own = self_fed_latents(run.thinker, batch, run.thinker.spec.n_latents)
        blocks = len(vectors) // run.thinker.spec.n_latents
        fed = torch.from_numpy(rng.random(blocks) < stage.self_fed).repeat_interleave(run.thinker.spec.n_latents)
        vectors = torch.where(fed.to(vectors.device)[:, None], own, vectors)
    return batch_losses(run.thinker, batch, vectors, run.times)


def _noisy(clip, std: float = 0.05):
    """Features in float32 with a little noise, so that five thousand clips are not learned by heart."""
    return replace(clip, visual=clip.visual.float() + std * torch.randn(clip.visual.shape), audio=clip.audio.float() + std * torch.randn(clip.audio.shape))
