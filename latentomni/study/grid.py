"""Train and score every arm with every seed. A run that is done is a file; what was killed goes on where its training was last saved.
Several processes on one folder share the work: each takes a run that none has, and at the end what another left.

All arms begin from one start, see the same clips, questions and noise of a seed in the same order, and take as many steps.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from latentomni import checkpoints
from latentomni.config import Mode
from latentomni.errors import require
from latentomni.modeling import Thinker
from latentomni.runtime import DONORS_FILE
from latentomni.study.arms import ARMS, StudyArm
from latentomni.study.report import START_FILE
from latentomni.study.scores import ScoreSpec, Set, question_sets, score_arm, score_start
from latentomni.training.batches import Batch, make_batches
from latentomni.training.examples import build_example
from latentomni.training.feedback import Phase
from latentomni.training.loop import FitSpec, Stage, fit
from latentomni.training.losses import Objective
from latentomni.training.nano import NanoRecipe, choose_nuances, choose_questions, noisy, train_nano
from latentomni.training.pool import ClipPool
from latentomni.training.run_folder import check_run, write_recipe

__all__ = ["StudySpec", "run_study"]

_ANCHORS, _FEEDBACK = Phase(noise=0.1), Phase("rollout", share=0.85, noise=0.1)
_WEIGHING, _JOINING = (500, 500, 400), (200, 100)  # steps: comparing alone, then with all else on anchors
_FEEDING, _SETTLING = 500, 400  # with feedback, after the second and after the third time


def _start() -> NanoRecipe:
    """nano's first stages, every way to answer as often as the others; with what a moment is like, then comparing two, three times; then feedback.

    Measures are learned one after the other: shade and loudness in the first 1,000 steps of comparing, pitch and, in words, onset in 400 more. A model
    that is asked comparisons alone does not learn them, and latents that were never fed back hold nothing of the picture (docs/LOG.md, items 56, 58 and
    60)."""
    alike = {"latent": 1, "text_cot": 1, "direct": 1, "gauge": 3, "talk": 0.0}
    seeing = [replace(s, draw=s.draw | alike) for s in NanoRecipe().stages if s.name in ("narrate", "localise", "widen")]
    last = seeing[-1]
    weigh = replace(last, name="weigh", steps=_WEIGHING[0], draw=dict.fromkeys(last.draw, 0) | {"weigh": 96}, forgets=True)
    join = replace(last, name="join", steps=_JOINING[0], draw=last.draw | {"gauge": 0, "hard": 3, "weigh": 24}, forgets=True)
    again = (replace(weigh, name="weigh again", steps=_WEIGHING[1]), replace(join, name="join again", steps=_JOINING[1]))
    feedback = replace(last, name="feedback", steps=_FEEDING, phase=_FEEDBACK, draw=last.draw | {"latent": 2, "text_cot": 2, "direct": 2, "hard": 3})
    more = (replace(weigh, name="weigh more", steps=_WEIGHING[2]), replace(feedback, name="settle", steps=_SETTLING, forgets=True))
    return NanoRecipe(rows=4, stages=(*seeing, weigh, join, *again, feedback, *more))


@dataclass(frozen=True)
class StudySpec:
    """Everything that decides the study. start: the recipe that makes what all arms begin from. begin_from: a checkpoint to begin from
    instead. steps: of each run. clips: rows per step. easy, hard: questions per row of each set. pool: clips to draw from."""

    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (1, 2, 3)
    start: NanoRecipe = field(default_factory=_start)
    begin_from: str = ""
    steps: int = 64
    lr: float = 5e-4
    clips: int = 4
    easy: int = 3
    hard: int = 3
    pool: int = 1000
    scores: ScoreSpec = field(default_factory=ScoreSpec)

    @property
    def settings(self) -> dict[str, Any]:
        """All that makes runs comparable: everything but which arms and seeds there are."""
        return {key: value for key, value in asdict(self).items() if key not in ("arms", "seeds")}

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    def stage(self, arm: StudyArm) -> Stage:
        return Stage("run", self.steps, self.lr, _FEEDBACK if arm.feedback and arm.mode is Mode.LATENT else _ANCHORS)


def run_study(out: Path, logs: Path, spec: StudySpec, say: Callable[[str], None], progress: Callable) -> int:
    """Do what is not done yet; returns how many runs were. `out` keeps what is being trained, `logs` one JSON file a run. Raises
    RequestError where either holds runs of another study."""
    check_run(out, spec.settings, resume=True)
    logs.mkdir(parents=True, exist_ok=True)
    _check_logs(logs, spec.digest)
    write_recipe(out, spec.settings)
    files = {(seed, name): logs / f"{name}-{seed}.json" for seed in spec.seeds for name in spec.arms}
    todo = [run for run, file in files.items() if not file.is_file()]
    if not todo:
        return 0
    start = spec.begin_from or _make_start(out / "start", spec.start)
    pool, sets = _material(start, spec, progress)
    with FileLock(out / "start.lock"):
        if not (logs / START_FILE).is_file():
            _write(logs / START_FILE, _start_log(start, out / "start", sets, spec))
    done = 0
    for wait_s in (0, -1):  # what no other process has, then, having waited for it, what another left
        for number, (seed, name) in enumerate(todo, 1):
            try:
                with FileLock(out / f"{name}-{seed}.lock", wait_s):
                    if not files[seed, name].is_file():
                        say(f"{number} of {len(todo)}: {name}, seed {seed}")
                        _write(files[seed, name], _run(out / f"{name}-{seed}", start, pool, sets, ARMS[name], seed, spec))
                        done += 1
            except Timeout:
                continue
    return done


def _check_logs(logs: Path, digest: str) -> None:
    for path in sorted(logs.glob("*-*.json")):
        found = json.loads(path.read_text(encoding="utf-8")).get("study")
        require(found == digest, f"{path} is of a study with other settings; choose another --logs.")


def _make_start(out: Path, recipe: NanoRecipe) -> str:
    """The checkpoint that all begin from."""
    with FileLock(out.with_suffix(".lock")):
        if not (out / "checkpoint" / DONORS_FILE).is_file():  # written last
            train_nano(out, recipe, resume=True)
    return str(out / "checkpoint")


def _start_log(start: str, out: Path, sets: dict[str, Set], spec: StudySpec) -> dict[str, Any]:
    curve = [] if spec.begin_from else [line for part in ("towers", "language") for line in _read_log(out / part)]
    return {"study": spec.digest, **score_start(checkpoints.load(start, dtype=torch.float32), sets), "curve": curve}


def _read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def _material(start: str, spec: StudySpec, progress: Callable) -> tuple[ClipPool, dict[str, Set]]:
    thinker = checkpoints.load(start, dtype=torch.float32)
    pool = ClipPool(thinker, spec.pool, 0, "train", progress)
    pool.encode(thinker, progress)
    return pool, question_sets(thinker, spec.scores, progress)


def _run(out: Path, start: str, pool: ClipPool, sets: dict[str, Set], arm: StudyArm, seed: int, spec: StudySpec) -> dict[str, Any]:
    thinker = checkpoints.load(start, dtype=torch.float32)
    thinker = replace(thinker, spec=replace(thinker.spec, **arm.latent), name=arm.name)
    torch.manual_seed(seed)  # the time probes begin at random
    objective = Objective.of_language(thinker, replace(spec.start.losses, **arm.losses))

    def draw(_stage: int, step: int) -> list[Batch]:
        return _draw(thinker, pool, arm, np.random.default_rng([seed, step]), spec)

    out.mkdir(exist_ok=True)
    fit(objective, (spec.stage(arm),), draw, out, FitSpec(seed, save_every=50, log_every=10), resume=True)
    log = _read_log(out)
    began = time.perf_counter()
    scores = score_arm(thinker, arm, sets, spec.scores)
    return {"arm": arm.name, "seed": seed, "study": spec.digest, "train_seconds": log[-1]["seconds"], "score_seconds": round(time.perf_counter() - began, 1),
            "device": str(thinker.device), "threads": torch.get_num_threads(), "torch": torch.__version__, "spec": thinker.spec.to_dict(),
            **scores, "curve": log}  # fmt: skip


def _draw(thinker: Thinker, pool: ClipPool, arm: StudyArm, rng: np.random.Generator, spec: StudySpec) -> list[Batch]:
    """One step's rows; which clips and questions follows from `rng` alone, whatever the arm."""
    examples = []
    for i in pool.draw(rng, spec.clips):
        asked = [*choose_questions(rng, pool.questions[i], spec.easy), *choose_nuances(rng, pool.worlds[i], spec.hard)]
        examples.append(build_example(thinker, noisy(pool.features[i]), [arm.turn(asked[k]) for k in rng.permutation(len(asked))], isolated=True))
    return make_batches(thinker, examples, spec.start.rows)


def _write(path: Path, run: dict[str, Any]) -> None:
    """In one move, so that a kill leaves no half of a run."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
