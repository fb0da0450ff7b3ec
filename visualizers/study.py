"""What the study found, as charts."""

from typing import Any

from visualizers.charts import Chart, Panel, Series

__all__ = ["compute_charts"]

_MAIN = ("latentomni", "explicit-text-cot", "vanilla-sft", "direct")
_SETS = {"easy": "Easy to say", "hard": "Hard to say"}


def compute_charts(summary: dict[str, Any]) -> tuple[Chart, ...]:
    """Of what `study` prints."""
    recipes = summary["recipes"]
    main = [arm for arm in _MAIN if arm in recipes]
    accuracy = [Panel(title, "right", "", (_dots(recipes, name),), tuple(recipes)) for name, title in _SETS.items()]
    cost = [Panel(title, "decoder steps an answer", "right", _costs(recipes, name, main)) for name, title in _SETS.items()]
    attention = [
        Panel(title, "share of attention", "", tuple(_shares(recipes, name, key, told) for key, told in
              (("direct", "on the clip"), ("via_latents", "on latents"), ("even", "on the clip, were it even"))), tuple(recipes))
        for name, title in _SETS.items()
    ]  # fmt: skip
    curves = tuple(Series(arm, tuple(recipes[arm]["curve"]["steps"]), tuple(recipes[arm]["curve"]["ce_answer"]), is_line=True) for arm in main)
    nuance = tuple(
        Series(arm, *(tuple(part[key] for part in recipes[arm]["hard"]["by_difference"]) for key in ("difference", "accuracy")), is_line=True)
        for arm in main
    )
    return (
        Chart("accuracy", "Accuracy, mean over seeds, with 95 % intervals", tuple(accuracy)),
        Chart("cost", "Accuracy against cost", tuple(cost)),
        Chart("nuance", "Hard questions by how much the two moments differ", (Panel("", "difference, share of its range", "right", nuance),)),
        Chart("attention", "Where the words of the answers attend, mean over layers", tuple(attention)),
        Chart("curves", "Learning: cross-entropy of the answers", (Panel("", "steps", "nats a token", curves),)),
    )


def _dots(recipes: dict[str, Any], name: str) -> Series:
    told = [recipe[name] for recipe in recipes.values()]
    low, high = (tuple(t["interval"][k] for t in told) for k in (0, 1))
    return Series("right", tuple(t["mean"] for t in told), tuple(range(len(told))), low, high)


def _shares(recipes: dict[str, Any], name: str, key: str, told: str) -> Series:
    return Series(told, tuple(r[name]["attention"][key] for r in recipes.values()), tuple(range(len(recipes))))


def _costs(recipes: dict[str, Any], name: str, main: list[str]) -> tuple[Series, ...]:
    """The main arms by name, the others together."""
    points = {arm: (recipe[name]["decoder_steps"], recipe[name]["mean"]) for arm, recipe in recipes.items()}
    others = [points[arm] for arm in points if arm not in main]
    named = tuple(Series(arm, (points[arm][0],), (points[arm][1],)) for arm in main)
    return (*named, Series("variants", *(tuple(axis) for axis in zip(*others, strict=True)))) if others else named
