"""What can be set for a run: how the clip is read, how the latents stand, how words are chosen. `ask` and its kin share it."""

import argparse
from typing import Any, NamedTuple

from latentomni.commands.arguments import add_mode, positive
from latentomni.config import AttentionFlow, PositionVariant, ReadingSpec, SamplingSpec

__all__ = ["Settings", "add_settings", "given_settings"]


class Settings(NamedTuple):
    """latent: what `Runtime.stream` takes under that name."""

    reading: ReadingSpec
    latent: dict[str, Any]
    sampling: SamplingSpec


def add_settings(parser: argparse.ArgumentParser, *, has_mode: bool = True) -> None:
    """Every flag of a run; what is left out is as the model was trained."""
    run = parser.add_argument_group("answer")
    if has_mode:
        add_mode(run)
    run.add_argument("--seed", type=int, default=0, help="default: 0")
    limits = {"type": positive, "metavar": "N", "help": "default: %(default)s"}
    run.add_argument("--max-new-tokens", default=SamplingSpec.max_new_tokens, **limits)
    run.add_argument("--max-blocks", type=int, default=SamplingSpec.max_blocks, metavar="N", help="latent blocks at most; default: %(default)s")
    run.add_argument("--temperature", type=float, default=SamplingSpec.temperature, metavar="T", help="default: 0, the likeliest words")
    reading = parser.add_argument_group("reading", "the model's own unless given")
    reading.add_argument("--fps", type=float, help="frames per second")
    reading.add_argument("--max-pixels", type=int, metavar="N", help="pixels of a frame as the model sees it")
    reading.add_argument("--start", type=float, default=0.0, metavar="S", help="read from this second on")
    reading.add_argument("--end", type=float, metavar="S", help="read up to this second")
    reading.add_argument("--no-picture", action="store_true", help="leave the picture out")
    reading.add_argument("--no-sound", action="store_true", help="leave the sound out")
    latent = parser.add_argument_group("latents", "the model's own unless given; it was trained with no other")
    latent.add_argument("--instants", type=int, metavar="N", help="instants of a block")
    latent.add_argument("--positions", choices=[str(p) for p in PositionVariant], help="where latents stand on the clip's clock")
    latent.add_argument("--flow", choices=[str(f) for f in AttentionFlow], help="who may see the media")


def given_settings(args: argparse.Namespace) -> Settings:
    """Raises RequestError for values out of bounds."""
    reading = ReadingSpec(args.fps, args.max_pixels, args.start, args.end, not args.no_picture, not args.no_sound)
    latent = {name: value for name in ("instants", "positions", "flow") if (value := getattr(args, name)) is not None}
    sampling = SamplingSpec(args.temperature, seed=args.seed, max_new_tokens=args.max_new_tokens, max_blocks=args.max_blocks)
    return Settings(reading, latent, sampling)
