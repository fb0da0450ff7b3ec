"""The recipe that makes nano: towers, then narration, latent blocks and feedback. Each stage teaches what the next one needs.

Resumable at any step; every step draws its batch from (seed, stage, step) alone.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle, product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from latentomni import checkpoints
from latentomni.attention_flow import Kind
from latentomni.avworld import questions, sample_world
from latentomni.avworld.nuances import Nuance, contrasts, gauges, nuances
from latentomni.avworld.questions import Question
from latentomni.avworld.truth import narration
from latentomni.avworld.vocabulary import ORDINALS
from latentomni.avworld.world import World
from latentomni.config import Mode
from latentomni.errors import require
from latentomni.memory import peak_bytes
from latentomni.modeling import Thinker
from latentomni.runtime import DONORS_FILE
from latentomni.sequence import ClipFeatures, no_clip
from latentomni.training.batches import Batch, make_batch, make_batches
from latentomni.training.donors import build_donors
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase
from latentomni.training.loop import FitSpec, Stage, fit
from latentomni.training.losses import LossSpec, Objective
from latentomni.training.pool import ClipPool
from latentomni.training.run_folder import check_run, claimed, write_recipe
from latentomni.training.towers import TowerObjective, scale_features
from latentomni.training.turns import Segment, Turn
from latentomni.training.validation import validate

__all__ = ["NanoRecipe", "choose_nuances", "choose_questions", "noisy", "plan_nano", "question_turn", "train_nano"]

_LOSSES = LossSpec(
    alignment=4.0, alignment_reduction="mean", sync=0.02, clock=0.5, search=0.5,
    groups={"text": 0.5, "window": 2.0, "answer": 1.0, "caption": 0.5},
)  # fmt: skip
_OFTEN = {"sound": 2, "count": 2, "order": 2}  # finding an object by two words, and a second step, are the harder skills
_ANCHORS = Phase(noise=0.1)
_PLANNED_CLIPS = 96  # enough for a step of every stage


def _mix(clips: int, latent: int, text_cot: int = 0, direct: int = 0, narrate: float = 0.0, talk: float = 0.0, compare: int = 0,
         gauge: int = 0, hard: int = 0, weigh: int = 0) -> dict:  # fmt: skip
    """clips: rows per step. latent, text_cot, direct: questions per row in each mode. narrate: share of steps with narration.
    talk: share of rows asked as one conversation instead of apart. compare: further rows of words alone, with one object asked for,
    one seen, and only the yes or no to learn. gauge, hard: further questions per row, in each mode in turn, about what one moment is like and about nuances.
    weigh: further rows, half of them about how two moments differ in all, a quarter of either kind, in latents and in words in turn, with the
    reasoning given, no media, and only the answer to learn."""
    return {"clips": clips, "latent": latent, "text_cot": text_cot, "direct": direct, "narrate": narrate, "talk": talk, "compare": compare,
            "gauge": gauge, "hard": hard, "weigh": weigh}  # fmt: skip


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that decides the run. pool: clips. modality: "visual" or "audio" for a control that sees or hears alone. rows: of a
    micro-batch; fewer take less memory and, on a processor, less time. towers, stages: see `Stage`; a towers stage is named after its
    tower."""

    seed: int = 7
    pool: int = 5000
    vocabulary: int = 640
    modality: str = ""
    rows: int = 8
    losses: LossSpec = _LOSSES
    towers: tuple[Stage, ...] = (
        Stage("vision", 500, 2e-3, draw={"clips": 16}),
        Stage("audio", 400, 2e-3, draw={"clips": 16}),
    )
    stages: tuple[Stage, ...] = field(default=(
        Stage("narrate", 250, 1e-3, _ANCHORS, _mix(8, 4, narrate=1.0)),
        Stage("localise", 500, 1e-3, _ANCHORS, _mix(8, 6, narrate=0.1)),
        Stage("widen", 400, 1e-3, _ANCHORS, _mix(8, 5, 1, 1, narrate=0.05, talk=0.2)),
        Stage("feedback", 250, 1e-3, Phase("jacobi", 9, share=0.85, noise=0.1), _mix(8, 5, 1, 1)),
        Stage("practise", 500, 1e-3, _ANCHORS, _mix(8, 5, 1, 2, narrate=0.05, talk=0.2)),
        Stage("compare", 80, 1e-3, _ANCHORS, _mix(0, 0, compare=240), forgets=True),
        Stage("join", 160, 1e-3, _ANCHORS, _mix(8, 5, 1, 2, compare=16), forgets=True),
        Stage("settle", 280, 8e-4, Phase("rollout", share=0.85, noise=0.1), _mix(8, 5, 1, 2, compare=16)),
        Stage("polish", 120, 3e-4, Phase("rollout", share=0.95), _mix(8, 5, 1, 2, compare=16)),
    ))  # fmt: skip

    def __post_init__(self) -> None:
        require(self.modality in ("", "visual", "audio"), f'modality must be "visual", "audio" or "" for both, got {self.modality!r}')
        require(self.rows >= 1, f"a micro-batch has at least 1 row, got {self.rows}")
        for stage in self.towers:
            require(stage.name in ("vision", "audio"), f"a towers stage is named vision or audio, got {stage.name!r}")
            _check_draw(stage, {"clips"})
        for stage in self.stages:
            _check_draw(stage, {"clips", "latent"}, set(_mix(0, 0)))
        object.__setattr__(self, "stages", tuple(replace(stage, draw=_mix(**stage.draw)) for stage in self.stages))


def _check_draw(stage: Stage, needed: set[str], known: set[str] | None = None) -> None:
    known = needed if known is None else known
    told = f"needs {', '.join(sorted(needed))} and knows {', '.join(sorted(known))}; got {', '.join(sorted(stage.draw)) or 'nothing'}"
    require(needed <= set(stage.draw) <= known, f"what stage {stage.name!r} draws {told}")


def nano_tokenizer(recipe: NanoRecipe):
    """The tokenizer, learned from questions, answers and narrations of the training split."""
    lines = ["Describe the clip. Answer directly. Think in words.", "<|im_start|>user", "<|im_start|>assistant\n"] * 50
    has_nuances = any(stage.draw["hard"] for stage in recipe.stages)
    for seed in range(400):
        world = sample_world(seed, "train")
        asked = [(q, q.closing) for q in questions(world)]
        if has_nuances:  # closed with the moment's name, so that names are whole wherever they stand
            asked += [(q, q.closing.replace(q.answer, q.steps[ORDINALS.index(q.answer)].asked)) for q in nuances(world)]
            asked += [(q, q.closing) for q in (*gauges(world), *contrasts(world)[:4])]
        lines.append(narration(world))
        lines += [f"{q.text} {' '.join(s.lead for s in q.steps)} {closing}" for q, closing in asked]
    return checkpoints.build_tokenizer(lines, recipe.vocabulary)


def question_turn(question: Question, mode: Mode) -> Turn:
    """A question with its reasoning as training and generation have it; a yes or no is a group of the loss by itself."""
    parts = [part for s in question.steps for part in (s.lead, Segment(s.window, s.asked, s.seen))]
    if mode is Mode.DIRECT:
        parts = parts[1::2]
    if question.family == "sync":
        return Turn(question.text, mode, (*parts, *_verdict(question)), "verdict")
    return Turn(question.text, mode, (*parts, question.closing))


def _comparison(question: Question) -> Turn:
    """A yes-or-no question with what is seen told, so that nothing is left but to compare it with what is asked for."""
    return Turn(question.text, Mode.DIRECT, _verdict(question), "comparison", given=True)


def _verdict(question: Question) -> tuple[str, str]:
    """The closing of a yes-or-no question: what is asked for and what is seen, and the decision."""
    said, comma, decision = question.closing.rpartition(",")
    return said + comma, decision


def train_nano(out: Path, recipe: NanoRecipe | None = None, *, resume: bool = False) -> dict:
    """Train nano into `out` (recipe.json, towers/ and language/ with their logs, checkpoint/). Returns steps, losses and
    the checkpoint's folder. Raises RequestError where `out` holds a run and this one does not go on with it, or another training writes there."""
    with claimed(out):
        return _train_nano(out, recipe or NanoRecipe(), resume)


def _train_nano(out: Path, recipe: NanoRecipe, resume: bool) -> dict:
    check_run(out, asdict(recipe), resume)
    write_recipe(out, asdict(recipe))
    thinker, pool = _start(recipe)
    torch.manual_seed(recipe.seed)
    _fit_towers(thinker, pool, recipe, out / "towers", resume)
    scale_features(thinker, pool)
    _encode(thinker, pool, recipe)
    losses = _fit_language(thinker, pool, recipe, out / "language", resume)
    checkpoints.save(thinker, out / "checkpoint")
    build_donors(checkpoints.load(str(out / "checkpoint")), modality=recipe.modality).save(out / "checkpoint" / DONORS_FILE)
    steps = sum(s.steps for s in (*recipe.towers, *recipe.stages))
    return {"steps": steps, "losses": losses, "checkpoint": str(out / "checkpoint")}


def plan_nano(recipe: NanoRecipe) -> dict:
    """What a run would be: two steps of every stage are taken on a few clips, the optimiser with them, and the second is timed.

    parameters: all, and those trained by the last stage. phases: steps and, per step, seconds and the language model's tokens
    (None while a tower is trained). memory_bytes: the most that this process held, and what the whole pool takes."""
    clips = max(_PLANNED_CLIPS, *(6 * stage.draw["clips"] for stage in (*recipe.towers, *recipe.stages)))
    thinker, pool = _start(replace(recipe, pool=clips))
    for part in (thinker.model, thinker.head):
        part.to("cuda" if torch.cuda.is_available() else "cpu")
    towers = TowerObjective(thinker, pool)
    phases = [_try_stage(towers, stage, partial(_draw_tower, pool, recipe, k)) for k, stage in enumerate(recipe.towers)]
    held = sum(x.nbytes for x in (*pool.patches, *pool.mels))
    _encode(thinker, pool, recipe)
    objective = Objective.of_language(thinker, recipe.losses)
    phases += [_try_stage(objective, stage, partial(_draw_rows, thinker, pool, recipe, k)) for k, stage in enumerate(recipe.stages)]
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()
    counts = [p.numel() * np.array([1, p.requires_grad]) for part in (thinker.model, thinker.head) for p in part.parameters()]
    return {
        "parameters": dict(zip(("all", "trained"), sum(counts).tolist(), strict=True)),
        "phases": phases,
        "memory_bytes": {"steps": peak, "pool": held * recipe.pool // clips},
        "seconds_total": sum(p["steps"] * p["seconds_per_step"] for p in phases),
    }


def _try_stage(objective: torch.nn.Module, stage: Stage, draw: Callable[[int], list]) -> dict:
    optimizer = torch.optim.AdamW(objective.to(objective.thinker.device).parameters(), lr=0.0)
    for step in range(2):
        started = time.perf_counter()
        batches = draw(step)
        for batch in batches:
            total = sum(objective(batch, stage.phase, step)[0].values())
            total.backward()
        optimizer.step()
        optimizer.zero_grad()
        total.item()  # a GPU has done it all by then
        seconds = time.perf_counter() - started
    tokens = sum(int((b.layout.kind != Kind.PAD).sum()) for b in batches) if isinstance(batches[0], Batch) else None
    return {"name": stage.name, "steps": stage.steps, "lr": stage.lr, "tokens_per_step": tokens, "seconds_per_step": seconds}


def _start(recipe: NanoRecipe) -> tuple[Thinker, ClipPool]:
    thinker = checkpoints.build("nano", nano_tokenizer(recipe), recipe.seed)
    thinker.weights = "nano"
    return thinker, ClipPool(thinker, recipe.pool, 0, "train", _progress)


def _encode(thinker: Thinker, pool: ClipPool, recipe: NanoRecipe) -> None:
    pool.encode(thinker, _progress)
    if recipe.modality:
        pool.features = [f.only(recipe.modality) for f in pool.features]


def _progress(items, what: str):
    return tqdm(items, desc=what, leave=False, mininterval=5)


def _fit_towers(thinker: Thinker, pool: ClipPool, recipe: NanoRecipe, out: Path, resume: bool) -> None:
    out.mkdir(exist_ok=True)
    thinker.model.requires_grad_(False)
    fit(TowerObjective(thinker, pool), recipe.towers, partial(_draw_tower, pool, recipe), out, FitSpec(recipe.seed), resume=resume)
    thinker.model.requires_grad_(False)


def _draw_tower(pool: ClipPool, recipe: NanoRecipe, stage: int, step: int) -> list[tuple[str, np.ndarray]]:
    chosen = pool.draw(np.random.default_rng([recipe.seed, 0, stage, step]), recipe.towers[stage].draw["clips"])
    return [(recipe.towers[stage].name, chosen)]


def _fit_language(thinker: Thinker, pool: ClipPool, recipe: NanoRecipe, out: Path, resume: bool) -> dict[str, float]:
    out.mkdir(exist_ok=True)

    def judge(_: Stage) -> dict:
        return {"validation": validate(thinker, modality=recipe.modality)}

    draw = partial(_draw_rows, thinker, pool, recipe)
    return fit(Objective.of_language(thinker, recipe.losses), recipe.stages, draw, out, FitSpec(recipe.seed), resume=resume, on_stage_end=judge)


def _draw_rows(thinker: Thinker, pool: ClipPool, recipe: NanoRecipe, stage: int, step: int) -> list[Batch]:
    return _draw(thinker, pool, np.random.default_rng([recipe.seed, 1, stage, step]), recipe.rows, **recipe.stages[stage].draw)


def _draw(thinker: Thinker, pool: ClipPool, rng: np.random.Generator, rows: int, clips: int, latent: int, text_cot: int, direct: int,
          narrate: float, talk: float, compare: int, gauge: int, hard: int, weigh: int) -> list[Batch]:  # fmt: skip
    """One step's micro-batches: rows with the same number of questions in each mode about every clip, and comparisons without a clip
    (apart, since media go ahead without a mask only where every row begins with them)."""
    modes = [Mode.LATENT] * latent + [Mode.TEXT_COT] * text_cot + [Mode.DIRECT] * direct
    is_narrated = rng.random() < narrate
    examples = []
    for i in pool.draw(rng, clips) if clips else ():
        turns = [question_turn(q, mode) for q, mode in zip(choose_questions(rng, pool.questions[i], len(modes)), modes, strict=True)]
        further = (_choose(rng, gauges(pool.worlds[i]), gauge), choose_nuances(rng, pool.worlds[i], hard))
        turns += [question_turn(q, mode) for chosen in further for q, mode in zip(chosen, cycle(Mode), strict=False)]
        turns = [turns[k] for k in rng.permutation(len(turns))]
        if is_narrated:
            turns.append(Turn("Describe the clip.", Mode.DIRECT, (narration(pool.worlds[i]),), "narration"))
        examples.append(build_example(thinker, noisy(pool.features[i]), turns, isolated=rng.random() >= talk))
    batches = make_batches(thinker, examples, rows)
    nothing, comparisons = no_clip(thinker.hidden_size), []
    for i in rng.integers(len(pool.worlds), size=compare):
        asked = [q for q in pool.questions[i] if q.family == "sync"]
        comparisons.append(build_example(thinker, nothing, [_comparison(asked[int(rng.integers(len(asked)))])]))
    kinds = cycle(product((contrasts, gauges, contrasts, nuances), (Mode.LATENT, Mode.TEXT_COT)))
    for i, (of, mode) in zip(rng.integers(len(pool.worlds), size=weigh), kinds, strict=False):
        turn = replace(question_turn(_choose(rng, of(pool.worlds[i]), 1)[0], mode), group="comparison", given=True)
        comparisons.append(build_example(thinker, noisy(pool.features[i]), [turn], shown=False))
    return batches + ([make_batch(thinker, comparisons)] if comparisons else [])


def choose_questions(rng: np.random.Generator, asked: tuple[Question, ...], count: int) -> list[Question]:
    """`count` different questions, of every family as often as `_OFTEN` says."""
    sizes: dict[str, int] = {}
    for q in asked:
        sizes[q.family] = sizes.get(q.family, 0) + 1
    p = np.array([_OFTEN.get(q.family, 1) / sizes[q.family] for q in asked])
    return [asked[i] for i in rng.choice(len(asked), count, replace=False, p=p / p.sum())]


def choose_nuances(rng: np.random.Generator, world: World, count: int) -> list[Nuance]:
    """`count` different questions about nuances."""
    return _choose(rng, nuances(world), count)


def _choose(rng: np.random.Generator, asked: tuple[Question, ...], count: int) -> list:
    return [asked[k] for k in rng.choice(len(asked), count, replace=False)]


def noisy(clip: ClipFeatures, std: float = 0.05) -> ClipFeatures:
    """Features in float32 with a little noise, so that five thousand clips are not learned by heart."""
    visual, audio = (x.float() + std * torch.randn(x.shape) for x in (clip.visual, clip.audio))
    return replace(clip, visual=visual, audio=audio)
