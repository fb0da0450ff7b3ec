"""The command line: one parser, one way to fail, one shape of JSON. Imports what a command needs only when it runs."""

import argparse
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NoReturn, TextIO

import latentomni
from latentomni.commands import (
    ask,
    bench,
    compare,
    data,
    evaluate,
    inspect,
    intervene,
    plan,
    publish,
    selftest,
    space,
    study,
    train,
)
from latentomni.errors import LatentOmniError, require

__all__ = ["build_parser", "main"]

_COMMANDS = (ask, compare, inspect, intervene, selftest, plan, data, train, publish, evaluate, study, bench, space)
_VERSIONED = ("numpy", "torch", "transformers")
_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_INPUT, f"{self.prog}: {message}; `{self.prog} --help` shows examples.\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m latentomni", description=latentomni.__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 where its result says not `ok`, 2 for bad input, 130 after Ctrl-C. Argparse
    itself exits with 0 or 2."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("latentomni").setLevel(logging.INFO)
    started_s = time.perf_counter()
    rank, count = (int(os.environ.get(name, least)) for name, least in (("RANK", 0), ("WORLD_SIZE", 1)))  # as launchers set them
    try:
        require(count == 1 or getattr(args, "is_shared", False), "This command is one process's; start it without a launcher.")
        result = args.run(args, _silent if rank else partial(_say, file=sys.stderr if args.json else sys.stdout))
    except LatentOmniError as error:
        _say(f"Process {rank}: {error}" if rank else str(error), file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        _say("Stopped.", file=sys.stderr)
        return _INTERRUPTED
    if args.json and not rank:
        about = {"model": None, "weights": None, "device": "cpu", "seed": None}
        done = {**about, **result, "versions": _versions(), "seconds": time.perf_counter() - started_s}
        print(json.dumps(done, allow_nan=False), flush=True)
    return 0 if result.get("ok", True) else _FAILED


def _say(text: str = "", *, end: str = "\n", file: TextIO) -> None:
    """Print what models and files say without the control characters that would steer a terminal."""
    print("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), end=end, file=file, flush=True)


def _silent(*_: Any, **__: Any) -> None:
    """Of several processes of a launch the main one alone speaks."""


def _versions() -> dict[str, Any]:
    """Of what this command has really used."""
    used = {name: version(name) for name in _VERSIONED if name in sys.modules}
    return {"latentomni": latentomni.__version__, "python": platform.python_version(), **used}
