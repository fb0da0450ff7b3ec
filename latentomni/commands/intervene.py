"""`intervene`: change the latents of a recorded answer, or its clip, and see whether the answer changes."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from latentomni.arms import ARMS, Change
from latentomni.clock import Window
from latentomni.commands.arguments import add_command, add_model, new_file
from latentomni.config import ReadingSpec
from latentomni.errors import RequestError
from latentomni.trace import Trace

if TYPE_CHECKING:
    from latentomni.reruns import Outcome

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "intervene",
        _run,
        "Change the latents of a recorded answer, or its clip, and let it be written again: does it matter?",
        "intervene examples/1-colour.trace.zip --clip examples/1-colour.mp4 --arm zero",
        "intervene examples/8-pair.trace.zip --clip examples/8-pair.mp4 --arm other_clip --block 1 --modality visual --json",
        "intervene examples/1-colour.trace.zip --clip examples/1-colour.mp4 --arm mute --window 2 4 --save muted.trace.zip",
    )
    parser.add_argument("trace", metavar="TRACE", help="a file that `ask --trace` or the app wrote")
    parser.add_argument("--clip", required=True, metavar="CLIP", help="the file the trace is about; it is checked by its hash")
    parser.add_argument("--arm", required=True, choices=ARMS, metavar="ARM", help=f"of the latents or, the last three, the clip: {', '.join(ARMS)}")
    parser.add_argument("--block", type=int, metavar="I", help="this latent block only, counted from 0; for the clip: the window it states")
    parser.add_argument("--latent", type=int, metavar="K", help="this latent of the block only, counted from 0")
    parser.add_argument("--modality", choices=("visual", "audio"), default="", help="latents of this modality only")
    parser.add_argument("--window", type=float, nargs=2, metavar=("A", "B"), help="of the clip, in seconds; default: the windows the answer states")
    parser.add_argument("--shift", type=float, default=Change.shift_s, metavar="SECONDS", help="for shift_sound; default: %(default)s")
    add_model(parser)
    parser.add_argument("--seed", type=int, default=0, help="of donors, noise, orders and the control; default: 0")
    parser.add_argument("--save", type=new_file, metavar="FILE", help="record the new answer here, for `inspect` and the app")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.reruns import rerun
    from latentomni.runtime import Runtime

    trace = Trace.load(args.trace)
    change = Change(args.arm, args.block, args.latent, args.modality, args.window and _window(*args.window), args.shift)
    runtime = Runtime.load(args.model, quantization=args.quantization)
    outcome = rerun(runtime, runtime.read(args.clip, reading=ReadingSpec.from_dict(trace.reading)), trace, change, seed=args.seed)
    _show(outcome, say)
    if args.save:
        outcome.after.save(args.save)
        say(f"The new answer is recorded in {args.save}.")
    return {**_report(outcome), **runtime.thinker.facts, "seed": args.seed}


def _window(start_s: float, end_s: float) -> Window:
    try:
        return Window(start_s, end_s)
    except ValueError:
        raise RequestError(f"--window needs 0 <= A < B in seconds, got {start_s:g} {end_s:g}; try --window 2 4.") from None


def _report(outcome: "Outcome") -> dict[str, Any]:
    change = outcome.change
    return {
        "arm": str(change.arm),
        "block": change.block,
        "latent": change.latent,
        "modality": change.modality or None,
        "done": outcome.after.notices[0],
        "question": outcome.before.question,
        "before": outcome.before.answer,
        "after": outcome.after.answer,
        "flipped": outcome.flipped,
        "probabilities": {text: {"before": before, "after": after} for text, (before, after) in outcome.probabilities.items()},
        "margin_change": outcome.margin_change,
        "control": None if outcome.control is None else asdict(outcome.control),
        "moved": list(outcome.moved),
        "notices": list(outcome.notices),
    }


def _show(outcome: "Outcome", say: Callable[..., None]) -> None:
    say(outcome.after.notices[0])
    say(f"before   {outcome.before.answer}")
    say(f"after    {outcome.after.answer}")
    for text, (before, after) in outcome.probabilities.items():
        say(f"{before:8.3f} -> {after:.3f}  {text or '(no words)'}")
    say(f"The answer {'changed' if outcome.flipped else 'stayed'}; margin {outcome.margin_change:+.2f}.")
    if outcome.moved:
        say(f"Cosine of the latents before and after: {min(outcome.moved):.2f} to {max(outcome.moved):.2f}.")
    if outcome.control is not None:
        control = outcome.control
        say(f"Control: {control.what} The answer {'changed' if control.flipped else 'stayed'}; margin {control.margin_change:+.2f}.")
    for notice in outcome.notices:
        say(notice)
