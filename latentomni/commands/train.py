"""`train`: make a checkpoint from a recipe."""

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentomni.commands.arguments import add_command, new_folder
from latentomni.errors import RequestError

if TYPE_CHECKING:
    from latentomni.training.nano import NanoRecipe

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        _run,
        "Train a checkpoint; every run can be resumed.",
        "train nano --out runs/nano",
        "train nano --out runs/nano --resume",
        "train nano --config runs/nano/recipe.json --seed 8 --out runs/nano-8",
    )
    parser.add_argument("recipe", choices=["nano"])
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as JSON, such as a run's recipe.json")
    parser.add_argument("--out", type=new_folder, default=Path("runs/nano"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    import torch

    from latentomni.training.nano import train_nano

    recipe = _recipe(args)
    for stage in (*recipe.towers, *recipe.stages):
        say(f"{stage.name}: {stage.steps} steps of {stage.draw['clips']} clips, latents from {stage.phase.kind}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.dry_run:
        steps = sum(stage.steps for stage in (*recipe.towers, *recipe.stages))
        done = {"steps": steps, "losses": {}, "checkpoint": str(args.out / "checkpoint"), "dry_run": True}
    else:
        done = train_nano(args.out, recipe, resume=args.resume)
        say(f"The checkpoint is {done['checkpoint']}.")
    return {**done, "model": "nano", "weights": "nano", "device": device, "seed": recipe.seed}


def _recipe(args: argparse.Namespace) -> "NanoRecipe":
    """The default recipe with what --config and --seed change; RequestError where a setting is unknown."""
    from latentomni.training.loop import Stage
    from latentomni.training.losses import LossSpec
    from latentomni.training.nano import NanoRecipe

    values = _settings(args.config) if args.config else {}
    if args.seed is not None:
        values["seed"] = args.seed
    unknown = sorted(set(values) - {f.name for f in fields(NanoRecipe)})
    if unknown:
        raise RequestError(
            f"{args.config} sets {', '.join(unknown)}, which the recipe does not have; take a run's recipe.json as a start."
        )
    try:
        for part in {"towers", "stages"} & set(values):
            values[part] = tuple(Stage(**stage) for stage in values[part])
        if "losses" in values:
            values["losses"] = LossSpec(**values["losses"])
        return replace(NanoRecipe(), **values)
    except TypeError as error:
        raise RequestError(
            f"{args.config} has a part that cannot be read ({error}); take a run's recipe.json as a start."
        ) from error


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as JSON ({error}); give a run's recipe.json.") from error
    if not isinstance(values, dict):
        raise RequestError(f"{path} must hold one JSON object; give a run's recipe.json.")
    return values
