"""Sections of a model card, in words and numbers, misses included: what a run was, what was measured, and whether the latents matter."""

from textwrap import fill

__all__ = ["CAUSAL", "causal_section", "results_section", "training_section"]

CAUSAL = "causal arms"  # the section's name in a model card
_STAGE_KEYS = ("stage", "step", "seconds")
_ARMS = {
    "intact": "its own latents",
    "zero": "zeros",
    "mean": "the mean latent of each slot",
    "noise": "Gaussian noise of the same mean, covariance and norm",
    "other_clip": "another clip's latents",
    "other_time": "features of another window of the clip",
    "shuffled": "its own, in another order",
    "removed_markers_kept": "no latents, markers kept",
    "markers_removed": "no block at all",
    "pause_tokens": "pause tokens",
    "visual_only": "visual latents only, the others at their mean",
    "audio_only": "audio latents only, the others at their mean",
    "oracle": "features of the true window",
}
_NOT_MEASURED = "not measured"
_WIDTH = 120


def causal_section(results: dict) -> str:
    """Markdown from what `eval causal` reports: the results of `evaluate_causal`, and `data`, their name."""
    arms = results["arms"]
    rows = [_row(_ARMS[name], arms[name]) for name in _ARMS]
    return "\n".join([
        "## Do the latents matter?",
        "",
        fill(
            f"{results['data']}, {results['n']} questions about {results['clips']} clips; {_percent(results['with_block'])} of the answers "
            "had a latent block. Each answer was written again behind changed latents, with the same words, windows and positions before "
            "them. Drop: accuracy lost against its own latents to the same questions, with its 95 % paired bootstrap interval and "
            "McNemar's exact p. Flips: answers that became another one. Margin: change of the true sentence's log probability, in nats.",
            _WIDTH,
        ),
        "",
        "| latents | right | drop | 95 % | p | flips | margin | n |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "| goal | measured | |",
        "|---|---|---|",
        *(f"| {goal} | {_number(value)} | {_verdict(value, met)} |" for goal, value, met in _goals(results)),
        "",
        fill(" ".join(_remarks(results)), _WIDTH),
    ])  # fmt: skip


def training_section(recipe: dict, log: list[dict]) -> str:
    """Markdown from a run's recipe and the lines of its log: what was done, and the losses at the end of every stage."""
    kept = ("model", "style", "method", "samples", "seed")
    values = {**recipe, **{key: value for key, value in recipe.get("fit", {}).items() if key == "seed"}}
    steps = {line["stage"]: line for line in log if "step" in line}  # the last of each stage
    names = sorted({name for line in steps.values() for name in line if name not in _STAGE_KEYS})
    figures = [[line["stage"], str(line["step"]), *(_number(line.get(name), ".4g") for name in names)] for line in steps.values()]
    return "\n".join([
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {values[key]} |" for key in kept if key in values),
        "",
        *_table(["stage", "steps", *names], figures),
        "",
        "Losses are unweighted means of the last step that was logged; the whole recipe and log are in `training/`.",
    ])  # fmt: skip


def results_section(results: list[dict]) -> str:
    """Markdown from what `eval ... --json` printed, one row each; says so where nothing was measured."""
    if not results:
        return "## Figures\n\nNothing has been measured of this checkpoint yet."
    rows = []
    for told in results:
        removed = [_number(told.get(key, {}).get("accuracy")) for key in ("without_audio", "without_video")]
        name, right = told.get("benchmark") or told.get("data") or "AV World", told.get("accuracy", told.get("hit_at_1"))
        rows.append([name, "hit@1" if "hit_at_1" in told else "accuracy", _number(right), _chance(told.get("chance")), *removed, str(told.get("n", ""))])
    return "\n".join(["## Figures", "", *_table(["data", "measure", "value", "chance", "without sound", "without picture", "n"], rows)])


def _chance(chance: float | dict | None) -> str:
    return _number(chance.get("hit_at_1") if isinstance(chance, dict) else chance)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _row(name: str, arm: dict) -> str:
    interval = _NOT_MEASURED if arm["interval"] is None else "{:.3f} to {:.3f}".format(*arm["interval"])
    p = _number(arm["p"], ".2g")
    figures = (_number(arm["accuracy"]), _number(arm["drop"]), interval, p, _number(arm["flips"]), _number(arm["margin_change"], ".2f"))
    return f"| {name} | {' | '.join(figures)} | {arm['n']} |"


def _goals(results: dict) -> list[tuple[str, float | None, bool]]:
    """What is wanted, what was measured, and whether it is reached."""
    drop = results["arms"]["other_clip"]["drop"]
    wanted = [
        ("another clip's latents drop accuracy by at least 0.4", drop, 0.4),
        ("answers under another clip's latents are that clip's true ones in at least 0.5", results["follows_donor"], 0.5),
        ("variance of a slot that lies between clips at least 0.5", results["between_clip_variance"], 0.5),
        (f"own true segment found among those of {min(results['clips'], 100)} clips in at least 0.8", results["segment_retrieval_top1"], 0.8),
    ]
    share = results["marker_only_share"]
    return [
        *((goal, value, value is not None and value >= least) for goal, value, least in wanted),
        ("share of the gain that markers alone bring at most 0.3", share, share is not None and share <= 0.3),
    ]


def _remarks(results: dict) -> list[str]:
    moved = results["input_side"]
    lines = [
        f"Effective rank of a block {_number(results['effective_rank'], '.1f')}, raw cosine of one slot between clips "
        f"{_number(results['raw_cosine'])}. Under mean latents {_number(results['follows_donor_control'])} of the answers happened to be "
        "the other clip's true ones."
    ]
    if moved["n"]:
        lines.append(
            f"With its cited window made black and silent, a block's latents moved by {_number(moved['cited'], '.2f')} of their length; with "
            f"another window of that length, by {_number(moved['control'], '.2f')} (more for the cited one in "
            f"{_percent(moved['cited_moves_more'])} of {moved['n']} clips)."
        )
    return lines


def _verdict(value: float | None, met: bool) -> str:
    return _NOT_MEASURED if value is None else "reached" if met else "**missed**"


def _number(value: float | None, form: str = ".3f") -> str:
    return _NOT_MEASURED if value is None else format(value, form)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
