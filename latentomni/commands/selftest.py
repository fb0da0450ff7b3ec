"""`selftest`: fresh clips whose truth is known, asked one by one as a user would ask."""

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latentomni.commands.arguments import add_command, add_model, positive

if TYPE_CHECKING:
    from latentomni.avworld.selftest import Trial, Verdict

__all__ = ["add_to"]

_SEEDS_APART = 16_000  # a multiple of the sixteen seeds that ask about every family in both ways
_Z_95 = 1.959964


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "selftest",
        _run,
        "Ask about fresh AV World clips whose truth is known: are answers, windows and evidence right?",
        "selftest",
        "selftest --n 50 --seed 1 --json",
    )
    parser.add_argument("--n", type=positive, default=16, help="clips, with a question each; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other clips; default: 0")
    add_model(parser)


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.avworld.selftest import draw_trial, judge
    from latentomni.runtime import Runtime

    runtime, told = Runtime.load(args.model, quantization=args.quantization), []
    for number in range(args.n):
        trial = draw_trial(args.seed * _SEEDS_APART + number)
        trace = runtime.answer(trial.clip, trial.question.text)
        told.append((trial, judge(trace, trial)))
        say(f"{'right' if told[-1][1].answer_right else 'WRONG'}  {trial.question.text} {trace.answer} (true: {trial.question.answer})")
    rates = _rates(told)
    for name, rate, (low, high) in (
        ("answers right", rates["answer_right"], rates["intervals"]["answer_right"]),
        *((f"{m} evidence", rate, rates["intervals"]["evidence_hit"][m] or (0, 1)) for m, rate in rates["evidence_hit"].items()),
    ):
        say(f"{name:16}{'-' if rate is None else f'{rate:.3f}'}  (95 %: {low:.3f} to {high:.3f})")
    say(f"{'window IoU':16}{rates['window_iou']:.3f}")
    return {**rates, **runtime.thinker.facts, "seed": args.seed}


def _rates(told: list[tuple["Trial", "Verdict"]]) -> dict[str, Any]:
    """Shares with 95 % Wilson intervals; evidence is counted by blocks, as `eval avworld` does."""
    verdicts = [verdict for _, verdict in told]
    right, blocks = sum(v.answer_right for v in verdicts), sum(v.blocks for v in verdicts)
    hits = {m: sum(v.evidence_hit[m] * v.blocks for v in verdicts if v.blocks) for m in ("visual", "audio")}
    families: dict[str, dict[str, int]] = {}
    for trial, verdict in told:
        family = families.setdefault(trial.question.family, {"answer_right": 0, "n": 0})
        family["answer_right"] += verdict.answer_right
        family["n"] += 1
    return {
        "n": len(told),
        "blocks": blocks,
        "answer_right": right / len(told),
        "chance": sum(trial.question.chance for trial, _ in told) / len(told),
        "window_iou": sum(v.window_iou for v in verdicts) / len(told),
        "evidence_hit": {m: found / blocks if blocks else None for m, found in hits.items()},
        "intervals": {
            "answer_right": _wilson(right, len(told)),
            "evidence_hit": {m: _wilson(found, blocks) if blocks else None for m, found in hits.items()},
        },
        "families": families,
    }


def _wilson(hits: float, n: int) -> list[float]:
    """95 % interval of a share (Wilson 1927), which stays inside 0 to 1 also where all or none hit."""
    share, z2 = hits / n, _Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)]
