"""`accelerate launch -m latentomni.training RECIPE.json --out DIR`: fine-tune on one process or several."""

import argparse
import json
import os
import sys
from pathlib import Path

from latentomni.errors import LatentOmniError
from latentomni.training.finetune import finetune
from latentomni.training.plan import describe, make_plan
from latentomni.training.recipes import read_recipe


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 2 for bad input. The main process alone speaks; its last line is JSON."""
    args = _parser().parse_args(arguments)
    changes = {key: value for key in ("model", "data") if (value := getattr(args, key)) is not None}
    is_main = os.environ.get("RANK", "0") == "0"  # accelerate's own state would be set up before the run can set it up
    try:
        recipe = read_recipe(args.recipe, changes)
        if args.dry_run:
            done = make_plan(recipe, int(os.environ.get("WORLD_SIZE", "1"))) if is_main else {}
            print(*(describe(done) if is_main else ()), sep="\n", end="\n" * is_main)
        else:
            done = finetune(recipe, args.out, resume=args.resume)
    except LatentOmniError as error:
        if is_main:
            print(error, file=sys.stderr)
        return 2
    if is_main:
        print(json.dumps(done))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="accelerate launch -m latentomni.training", description=__doc__)
    parser.add_argument("recipe", metavar="RECIPE", help="a JSON file, or the name of a shipped recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", metavar="FILE", help="instead of the recipe's")
    parser.add_argument("--model", metavar="MODEL", help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--dry-run", action="store_true", help="print what would be trained, its tokens, memory and time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
