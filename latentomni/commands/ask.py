"""`ask`: one answer about a clip, streamed, with a line per latent block."""

import argparse
from collections.abc import Callable
from typing import Any

from latentomni.commands.arguments import add_command, add_model, new_file
from latentomni.commands.settings import add_settings, given_settings
from latentomni.commands.summary import block_line, summarise
from latentomni.events import LatentClosed, TextDelta
from latentomni.trace import Trace

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "ask",
        _run,
        "Ask a model about a clip and watch the answer and its latents stream.",
        'ask examples/1-colour.mp4 "Which colour is shown while the chirp plays?"',
        'ask clip.mp4 "What sound goes with the red circle?" --trace run.zip --json',
        'ask clip.mp4 "What is seen?" --start 10 --end 20 --fps 4 --no-sound',
    )
    parser.add_argument("clip", metavar="CLIP", help="a video or sound file")
    parser.add_argument("question", metavar="QUESTION")
    add_model(parser)
    add_settings(parser)
    parser.add_argument("--trace", type=new_file, metavar="FILE", help="record the run here, for `inspect` and the app")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.runtime import Runtime

    reading, latent, sampling = given_settings(args)
    runtime = Runtime.load(args.model, quantization=args.quantization)
    clip = runtime.read(args.clip, reading=reading)
    events = runtime.stream(clip, args.question, args.mode, sampling, latent=latent)
    trace = Trace.from_events([next(events)])
    for event in events:
        trace = trace.after(event)
        if isinstance(event, TextDelta):
            say(event.text, end="")
        elif isinstance(event, LatentClosed):
            say(f"\n  {block_line(trace.blocks[event.block])}")
    say()
    for notice in (*trace.clip.notices, *trace.notices):
        say(notice)
    if args.trace:
        trace.save(args.trace)
        say(f"The run is recorded in {args.trace}.")
    return {**summarise(trace), "device": str(runtime.thinker.device)}
