"""`data`: training data and clips with all truth: drawn, checked, converted."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentomni.commands.arguments import add_command, new_file, new_folder, positive

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    kinds = commands.add_parser("data", help="draw, check and convert training data").add_subparsers(
        metavar="KIND", required=True
    )
    _add_avworld(kinds)
    parser = add_command(
        kinds,
        "validate",
        _validate,
        "Check training data line by line, clips included; what is wrong is told with its line.",
        "data validate build/train/train.jsonl",
        "data validate train.jsonl --json",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL as docs/DATA.md describes it")
    parser = add_command(
        kinds,
        "convert",
        _convert,
        "Convert training data of the LatentOmni authors' format; what cannot be converted is told with its reason.",
        "data convert latentomni_sft.json --out train.jsonl",
        "data convert latentomni_sft.jsonl --out train.jsonl --cut-s 10",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON list or JSONL of samples")
    parser.add_argument("--out", required=True, type=new_file, metavar="FILE", help="JSONL to write")
    parser.add_argument("--cut-s", type=_seconds, default=5.0, metavar="S", help="seconds of a cut; default: %(default)s")


def _add_avworld(kinds: Any) -> None:
    parser = add_command(
        kinds,
        "avworld",
        _avworld,
        "Draw AV World clips as mp4 files, with questions, answers and exact times as JSON lines.",
        "data avworld --split test --out build/avworld",
        "data avworld --split train --out build/train --n 300 --seed 5 --json",
    )
    parser.add_argument("--split", required=True, choices=["train", "validation", "test"])
    parser.add_argument("--out", required=True, type=new_folder, metavar="DIR")
    parser.add_argument("--n", type=positive, default=30, help="questions, three to a clip; default: 30")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _seconds(text: str) -> float:
    """A length of time from 0.1 to 600 seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 600 seconds, got {text!r}")
    return value


def _avworld(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.avworld.writing import write_split

    written = write_split(args.out, args.split, args.n, args.seed)
    say(f"{written['clips']} clips and {written['questions']} questions are in {args.out}.")
    return {**written, "seed": args.seed}


def _validate(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.records import validate

    rows, errors = validate(args.file)
    for error in errors:
        say(error)
    say(f"{_count(rows, 'row')}, {_count(len(errors), 'problem')}.")
    return {"rows": rows, "errors": errors, "ok": not errors}


def _convert(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.conversion import convert

    rows, errors = convert(args.file, args.out, args.cut_s)
    for error in errors:
        say(error)
    say(f"{_count(rows, 'row')} written to {args.out}, {_count(len(errors), 'sample')} left out.")
    return {"rows": rows, "errors": errors, "ok": rows > 0}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
