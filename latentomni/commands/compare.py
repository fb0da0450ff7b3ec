"""`compare`: one question answered in several modes, side by side."""

import argparse
from collections.abc import Callable
from typing import Any

from latentomni.commands.arguments import add_command, add_model, new_folder
from latentomni.commands.settings import add_settings, given_settings
from latentomni.commands.summary import block_line, summarise
from latentomni.config import Mode
from latentomni.trace import Trace

__all__ = ["add_to"]

_MODES = tuple(map(str, Mode))


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "compare",
        _run,
        "Answer a question through latents, in words and directly, on the same clip and seed.",
        'compare examples/1-colour.mp4 "Which colour is shown while the chirp plays?"',
        'compare clip.mp4 "What sound goes with the red circle?" --modes latent,direct --traces runs --json',
    )
    parser.add_argument("clip", metavar="CLIP", help="a video or sound file")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--modes", type=_modes, default=_MODES, metavar="MODE,...", help=f"default: {','.join(_MODES)}")
    add_model(parser)
    parser.add_argument("--traces", type=new_folder, metavar="DIR", help="record the runs here, as MODE.trace.zip")
    add_settings(parser, has_mode=False)


def _modes(text: str) -> tuple[str, ...]:
    modes = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [mode for mode in modes if mode not in _MODES]:
        raise argparse.ArgumentTypeError(f"expected modes out of {', '.join(_MODES)}, got {unknown[0]!r}")
    return modes


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.runtime import Runtime

    settings = given_settings(args)
    runtime = Runtime.load(args.model, quantization=args.quantization)
    clip = runtime.read(args.clip, reading=settings.reading)
    runtime.encode(clip)  # once and for all modes, so that none pays for it alone
    say(f"{'mode':10}{'tokens':>7}{'seconds':>9}  answer")
    traces = {}
    for mode in args.modes:
        traces[mode] = runtime.answer(clip, args.question, mode, settings.sampling, settings.latent)
        _show(mode, traces[mode], say)
    if args.traces:
        args.traces.mkdir(parents=True, exist_ok=True)
        for mode, trace in traces.items():
            trace.save(args.traces / f"{mode}.trace.zip")
        say(f"The runs are recorded in {args.traces}.")
    return {
        "runs": {mode: {**summarise(trace), "seconds": trace.elapsed_s} for mode, trace in traces.items()},
        "question": next(iter(traces.values())).question,
        **runtime.thinker.facts,
        "seed": args.seed,
    }


def _show(mode: str, trace: Trace, say: Callable[..., None]) -> None:
    say(f"{mode:10}{trace.tokens:7}{trace.elapsed_s:9.2f}  {trace.answer}")
    for block in trace.blocks:
        say(f"{'':28}{block_line(block)}")
