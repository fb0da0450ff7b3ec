"""`plan`: what a run would need, before any weight is loaded."""

import argparse
from collections.abc import Callable
from typing import Any

from latentomni.commands.arguments import add_command, add_model
from latentomni.commands.settings import add_settings, given_settings

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "plan",
        _run,
        "Say what a run would need, before any weight is loaded: frames, tokens, memory.",
        "plan --clip examples/1-colour.mp4",
        "plan --model runs/nano/checkpoint --clip clip.mp4 --fps 1 --end 60 --json",
        "plan --model Qwen/Qwen2.5-Omni-7B --clip clip.mp4 --quantization nf4",
    )
    parser.add_argument("--clip", metavar="FILE", help="a video or sound file; without it, of the model and a question alone")
    add_model(parser)
    add_settings(parser)


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni import checkpoints
    from latentomni.media import probe
    from latentomni.plan import parameter_counts, plan_run, weight_bytes

    reading, latent, sampling = given_settings(args)
    info = probe(args.clip) if args.clip else None
    thinker = checkpoints.load(args.model, device="meta")
    planned = plan_run(thinker, info, reading, latent, args.mode or thinker.spec.default_mode, sampling.max_new_tokens, max_blocks=sampling.max_blocks,
                       quantization=args.quantization)  # fmt: skip
    parameters, size_bytes = parameter_counts(thinker), weight_bytes(thinker, args.quantization)
    say(f"{thinker.name}: {sum(parameters.values()):,} parameters, {_size(size_bytes)}")
    say(f"{planned.frames} frames; tokens: {', '.join(f'{n} {name}' for name, n in planned.tokens.items())}")
    say(f"{_size(planned.kv_bytes)} of keys and values, {_size(planned.peak_bytes)} in all")
    say(planned.advice or ("It fits." if planned.fits else "This system does not say how much memory is free."))
    return {
        "parameters": {**parameters, "total": sum(parameters.values())},
        "bytes": size_bytes,
        "frames": planned.frames,
        "tokens": planned.tokens,
        "kv_bytes": planned.kv_bytes,
        "peak_bytes": planned.peak_bytes,
        "fits": planned.fits,
        "advice": planned.advice,
        "model": thinker.name,
        "weights": thinker.weights,
        "seed": sampling.seed,
    }


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
