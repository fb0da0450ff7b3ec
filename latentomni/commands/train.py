"""`train`: make a checkpoint from a recipe."""

import argparse
import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentomni.commands.arguments import add_command, new_folder
from latentomni.errors import RequestError

if TYPE_CHECKING:
    from latentomni.training.nano import NanoRecipe
    from latentomni.training.recipes import TrainRecipe

__all__ = ["add_recipe", "add_to", "chosen_recipe", "nano_recipe"]

_SHIPPED_DIR = Path(__file__).parents[2] / "examples" / "training"  # told before anything heavy is imported


def add_to(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        _run,
        "Train a checkpoint: nano from scratch, or any model on your data; every run can be resumed.",
        "train nano --out runs/nano",
        "train nano --config runs/nano/recipe.json --seed 8 --out runs/nano-8",
        "train latentomni --data build/train/train.jsonl --dry-run",
        "train latentomni-qlora --data build/train/train.jsonl --model Qwen/Qwen2.5-Omni-3B --resume",
        "train examples/training/anchors-only.json --data build/train/train.jsonl",
    )
    add_recipe(parser, "nano")
    parser.add_argument("--out", type=new_folder, metavar="DIR", help="default: runs/ and the recipe's name")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done: parameters, tokens, memory, time")


def add_recipe(parser: argparse.ArgumentParser, *others: str) -> None:
    """A recipe and what is laid over it. others: names beside those of the shipped recipes."""
    known, besides = [*others, *sorted(file.stem for file in _SHIPPED_DIR.glob("*.json"))], "".join(f"; not for {name}" for name in others)
    names = ", ".join([*others, "a shipped recipe (examples/training), or a JSON file"])
    parser.add_argument("recipe", type=partial(_name, known), metavar="RECIPE", help=names)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as JSON, laid over the recipe")
    parser.add_argument("--data", metavar="FILE", help=f"JSONL as docs/DATA.md describes it, instead of the recipe's{besides}")
    parser.add_argument("--model", metavar="MODEL", help=f"what to start from, instead of the recipe's{besides}")


def chosen_recipe(args: argparse.Namespace, **more: Any) -> "TrainRecipe":
    """The recipe with what --config, --data, --model and `more` (where told) change. RequestError for what is unknown or wrong."""
    from latentomni.training.recipes import read_recipe

    changes = _settings(args.config) if args.config else {}
    told = {"data": args.data, "model": args.model, **more}
    changes |= {key: value for key, value in told.items() if value is not None}
    if getattr(args, "seed", None) is not None:
        fit = changes.get("fit", {})
        changes["fit"] = fit | {"seed": args.seed} if isinstance(fit, dict) else fit
    return read_recipe(args.recipe, changes)


def _name(known: list[str], text: str) -> str:
    """A recipe that is there."""
    if text not in known and not (text.endswith(".json") and Path(text).is_file()):
        raise argparse.ArgumentTypeError(f"expected a JSON file or one of {', '.join(known)}, got {text!r}")
    return text


def _run(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    args.out = args.out or Path("runs") / Path(args.recipe).stem
    return _run_nano(args, say) if args.recipe == "nano" else _run_recipe(args, say)


def _run_recipe(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    from latentomni.training.finetune import finetune
    from latentomni.training.plan import describe, make_plan

    recipe = chosen_recipe(args)
    if args.dry_run:
        plan = make_plan(recipe)
        for line in describe(plan):
            say(line)
        return {**plan, "losses": {}, "checkpoint": str(args.out / "checkpoint"), "dry_run": True, "seed": recipe.fit.seed}
    done = finetune(recipe, args.out, resume=args.resume)
    say(f"The checkpoint is {done['checkpoint']}.")
    return done


def _run_nano(args: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    import torch

    from latentomni.training.nano import plan_nano, train_nano

    if args.data or args.model:
        raise RequestError("nano is trained from scratch on clips that it draws; leave --data and --model out.")
    recipe = nano_recipe(args)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.dry_run:
        plan = plan_nano(recipe)
        for line in _described(plan):
            say(line)
        steps = sum(phase["steps"] for phase in plan["phases"])
        done = {**plan, "steps": steps, "losses": {}, "checkpoint": str(args.out / "checkpoint"), "dry_run": True}
    else:
        done = train_nano(args.out, recipe, resume=args.resume)
        say(f"The checkpoint is {done['checkpoint']}.")
    return {**done, "model": "nano", "weights": "nano", "device": device, "seed": recipe.seed}


def _described(plan: dict[str, Any]) -> list[str]:
    counts, memory = plan["parameters"], plan["memory_bytes"]
    told = [f"{p['name']}: {p['steps']} steps of about {p['seconds_per_step']:.3g} s" for p in plan["phases"]]
    return [
        f"{counts['all']:,} parameters, {counts['trained']:,} of them trained behind the towers.",
        *(f"{line}, {p['tokens_per_step']} tokens each" if p["tokens_per_step"] else line for line, p in zip(told, plan["phases"], strict=True)),
        f"Memory: {memory['steps'] / 2**30:.2f} GiB for steps, {memory['pool'] / 2**30:.2f} GiB for the clips.",
        f"About {plan['seconds_total'] / 3600:.2g} hours of steps on this machine.",
    ]


def nano_recipe(args: argparse.Namespace) -> "NanoRecipe":
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
