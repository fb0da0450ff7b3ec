"""`data`: clips with their questions and all truth, written to a folder."""

import argparse
from collections.abc import Callable
from typing import Any

from latentomni.commands.arguments import add_command, new_folder, positive

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    kinds = commands.add_parser("data", help="write clips with questions and truth").add_subparsers(
        metavar="KIND", required=True
    )
    parser = add_command(
        kinds,
        "avworld",
        _run,
        "Draw AV World clips as mp4 files, with questions, answers and exact times as JSON lines.",
        "data avworld --split test --out build/avworld",
        "data avworld --split train --out build/train --n 300 --seed 5 --json",
    )
    parser.add_argument("--split", required=True, choices=["train", "validation", "test"])
    parser.add_argument("--out", required=True, type=new_folder, metavar="DIR")
    parser.add_argument("--n", type=positive, default=30, help="questions, three to a clip; default: 30")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.avworld.writing import write_split

    written = write_split(args.out, args.split, args.n, args.seed)
    say(f"{written['clips']} clips and {written['questions']} questions are in {args.out}.")
    return {**written, "device": "cpu", "seed": args.seed}
