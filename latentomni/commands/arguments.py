"""What the commands' arguments share: how a command is declared, and paths that are checked before any work begins."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentomni.config import Mode, QuantizationSpec

__all__ = ["add_command", "add_mode", "add_model", "new_file", "new_folder", "positive"]


def add_command(
    commands: Any, name: str, run: Callable[..., dict], summary: str, *examples: str
) -> argparse.ArgumentParser:
    """Declare a command. `run(args, say)` returns what `--json` prints; `say` prints for people, like `print`."""
    lines = "\n".join(f"  python -m latentomni {example}" for example in examples)
    parser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line; all else goes to stderr"
    )
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser, flag: str = "--model") -> None:
    """The model, and how its weights are stored."""
    parser.add_argument(
        flag, dest="model", metavar="MODEL", default="nano", help="'nano' (the default), a checkpoint's folder, or a hub id"
    )
    parser.add_argument(
        "--quantization", choices=[str(q) for q in QuantizationSpec], help="of the language model; default: none, for an adapter that of its base"
    )


def add_mode(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--mode", choices=[str(mode) for mode in Mode], help="default: latent; direct where the model never learned latents"
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return number


def new_file(text: str) -> Path:
    """A file that can be written: its folder is there."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, got {text!r}")
    return path


def new_folder(text: str) -> Path:
    """A folder, there or to be made."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, got the file {text!r}")
    return path
