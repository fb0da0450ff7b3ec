"""`eval`: how well a checkpoint answers, beside chance and controls."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from latentomni.commands.arguments import add_command, add_mode, add_model, positive
from latentomni.config import Mode

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    kinds = commands.add_parser("eval", help="score a checkpoint").add_subparsers(metavar="BENCHMARK", required=True)
    parser = add_command(
        kinds,
        "avworld",
        _run,
        "Score held-out AV World questions: accuracy by family with its chance, each modality removed, windows, evidence.",
        "eval avworld --json",
        "eval avworld --mode direct --n 200",
        "eval avworld --checkpoint runs/nano/checkpoint",
    )
    add_model(parser, "--checkpoint")
    add_mode(parser)
    parser.add_argument("--n", type=positive, default=1000, help="questions; default: 1000")
    parser.add_argument("--seed", type=int, help="draw other questions; without it the fixed held-out ones are asked")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.evaluation.avworld import evaluate_avworld
    from latentomni.runtime import Runtime

    runtime = Runtime.load(args.model)
    scores = evaluate_avworld(runtime, args.n, args.seed, Mode(args.mode), _progress)
    rows = {
        **scores["families"],
        "all": scores,
        "without sound": scores["without_audio"],
        "without picture": scores["without_video"],
    }
    say(f"{'':16}accuracy  chance")
    for name, row in rows.items():
        say(f"{name:16}{_figure(row['accuracy'])}{_figure(row['chance'])}")
    thinker = runtime.thinker
    return {
        **scores,
        "model": thinker.name,
        "weights": thinker.weights,
        "device": str(thinker.device),
        "seed": args.seed,
    }


def _figure(value: float | None) -> str:
    """Eight characters; a family that was not asked about has no accuracy."""
    return f"{'-':>8}" if value is None else f"{value:8.3f}"


def _progress(items: Iterable, what: str) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, desc=what, mininterval=2, leave=False)
