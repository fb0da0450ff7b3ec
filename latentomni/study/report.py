"""What the logged runs say: means over seeds, intervals, paired comparisons with the first arm, as figures and as Markdown.

Dimensions: S seeds, N questions of a set, R resamples.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.errors import DataError
from latentomni.study.arms import ARMS

__all__ = ["REFERENCE", "START_FILE", "Study", "holm", "read_study", "summarise", "tables"]

REFERENCE, _IN_WORDS = "latentomni", "explicit-text-cot"
START_FILE = "start.json"  # beside the runs
_SETS = ("easy", "hard")
_MODALITIES = ("visual", "audio")
_RESAMPLES = 4000


@dataclass(frozen=True, eq=False)
class Study:
    """runs: by arm, then seed, as `run_study` logs them; every arm has every seed. start: the same of what all began from, whose curve
    is empty where it was a checkpoint at hand."""

    runs: dict[str, dict[int, dict[str, Any]]]
    start: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        return list(self.runs)

    @property
    def seeds(self) -> list[int]:
        return list(next(iter(self.runs.values())))

    def of(self, arm: str, name: str) -> list[dict[str, Any]]:
        """The scores of one arm on one set, a seed after the other."""
        return [self.runs[arm][seed]["sets"][name] for seed in self.seeds]

    def right(self, arm: str, name: str) -> np.ndarray:
        """(S, N) of 0 and 1."""
        return np.array([[int(c) for c in scores["right"]] for scores in self.of(arm, name)])

    @cached_property
    def _seeds(self) -> np.ndarray:
        """(R, S): how often a resample holds each seed; the same for all arms and both sets, which one run answers."""
        s = len(self.seeds)
        return np.random.default_rng(0).multinomial(s, [1 / s] * s, _RESAMPLES)

    def asked(self, name: str, family: str | None) -> np.ndarray:
        """(N,) whether a question of the set is of the family; all are where none is given."""
        return np.array([family in (None, f) for f in self.of(REFERENCE, name)[0]["families"]])

    @cached_property
    def _drawn(self) -> dict[tuple[str, str | None], np.ndarray]:
        return {}

    def _questions(self, name: str, family: str | None) -> np.ndarray:
        """(R, N): how often a resample holds each question: clips are drawn, with all their questions, as those of one clip are alike."""
        if (name, family) not in self._drawn:
            asked, clips = self.asked(name, family), np.array(self.of(REFERENCE, name)[0]["clips"])
            names, place = np.unique(clips[asked], return_inverse=True)
            counts = np.random.default_rng([0, _SETS.index(name)]).multinomial(len(names), [1 / len(names)] * len(names), _RESAMPLES)
            drawn = np.zeros((_RESAMPLES, len(clips)), int)
            drawn[:, asked] = counts[:, place]
            self._drawn[name, family] = drawn
        return self._drawn[name, family]

    def resampled(self, arm: str, name: str, family: str | None = None) -> np.ndarray:
        """(R,) accuracy with seeds and clips drawn again, paired across arms. Whole numbers are added, so that ties are ties on every machine."""
        questions = self._questions(name, family)
        right = (self._seeds * (questions @ self.right(arm, name).T)).sum(1)
        return right / (len(self.seeds) * questions.sum(1))

    def compare(self, arm: str, name: str, family: str | None = None) -> dict[str, Any]:
        """An arm against the reference on the same questions and seeds, of one family or all: the difference, its 95 % interval and two-sided p."""
        differences = self._less_reference(arm, name, family)
        fewer = min((differences <= 0).sum(), (differences >= 0).sum())
        return {
            "difference": self._difference(arm, name, family),
            "interval": _interval(differences),
            "p": _rounded(min(1.0, 2 * (fewer + 1) / (len(differences) + 1))),
        }

    def compare_sets(self, arm: str) -> dict[str, Any]:
        """How much more an arm loses to the reference on hard questions than on easy ones, with its 95 % interval: the paper's claim is that
        words do."""
        easy, hard = (self._less_reference(arm, name) for name in _SETS)
        return {"difference": _rounded(self._difference(arm, "easy") - self._difference(arm, "hard")), "interval": _interval(easy - hard)}

    def _less_reference(self, arm: str, name: str, family: str | None = None) -> np.ndarray:
        """(R,)"""
        return self.resampled(arm, name, family) - self.resampled(REFERENCE, name, family)

    def _difference(self, arm: str, name: str, family: str | None = None) -> float:
        asked = self.asked(name, family)
        return _rounded(self.right(arm, name)[:, asked].mean() - self.right(REFERENCE, name)[:, asked].mean())


def read_study(folder: Path) -> Study:
    """The logs of a study. Raises DataError where there are none, where one cannot be read or is of another study, or where an arm
    lacks a seed."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    first: Any = None
    for path in sorted(folder.glob("*-*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            about = run["study"], {name: (run["sets"][name]["clips"], run["sets"][name]["families"]) for name in _SETS}
            runs.setdefault(run["arm"], {})[run["seed"]] = run
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no run of a study ({type(error).__name__}: {error}); remove it and run `study` again.") from None
        first = first or about
        if about != first:
            raise DataError(f"{path} is of another study than the runs before it in {folder}; keep one study to a folder.")
    if REFERENCE not in runs:
        raise DataError(f"{folder} holds no run of the arm {REFERENCE}; make some with `study --logs {folder}`.")
    runs = {name: dict(sorted(runs[name].items())) for name in sorted(runs, key=_place)}
    seeds = set().union(*runs.values())
    lacking = [f"{name} seed {seed}" for name in runs for seed in sorted(seeds - set(runs[name]))]
    if lacking:
        raise DataError(f"{folder} lacks {len(lacking)} runs ({', '.join(lacking[:5])}); go on with `study --logs {folder}`.")
    return Study(runs, _read_start(folder / START_FILE, first[0]))


def _read_start(path: Path, study: str) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        start = {key: told[key] for key in ("accuracy", "explained", "curve")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no start of a study ({type(error).__name__}: {error}); remove it and run `study` again.") from None
    if told["study"] != study:
        raise DataError(f"{path} is of another study than the runs beside it; keep one study to a folder.")
    return start


def _place(name: str) -> int:
    known = list(ARMS)
    return known.index(name) if name in known else len(known)


def holm(p: Iterable[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    p = list(p)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = _rounded(largest)
    return corrected


def summarise(study: Study) -> dict[str, Any]:
    """Figures as JSON: `recipes` {arm: {accuracy per seed, mean and interval over both sets, and the same for each set with the
    comparison with the reference, cost, families, attention, evidence, causal figures}}."""
    recipes: dict[str, Any] = {arm: _accuracy([study.right(arm, name) for name in _SETS], [study.resampled(arm, name) for name in _SETS]) for arm in study.arms}
    for name in _SETS:
        compared = _corrected({arm: study.compare(arm, name) for arm in study.arms if arm != REFERENCE})
        for arm in study.arms:
            scores = study.of(arm, name)
            recipes[arm][name] = {
                **_accuracy([study.right(arm, name)], [study.resampled(arm, name)]),
                "against_reference": compared.get(arm),
                **{key: _mean(s[key] for s in scores) for key in ("decoder_steps", "seconds_per_answer", "unparsed")},
                "by_family": _by_family(study, arm, name),
                "attention": {key: _rounded(np.mean([s["attention"][key] for s in scores])) for key in ("direct", "via_latents", "even")},
                **_of_latents(scores),
            }
    for arm in study.arms:
        recipes[arm]["train_seconds"] = _mean(run["train_seconds"] for run in study.runs[arm].values())
        recipes[arm]["curve"] = _curve(study, arm)
        recipes[arm]["hard"]["by_difference"] = _by_difference(study, arm)
    return {"reference": REFERENCE, "seeds": study.seeds, "questions": {n: study.right(REFERENCE, n).shape[1] for n in _SETS}, "recipes": recipes,
            "words_less_latents": _compare_words(study) if _IN_WORDS in study.arms else None,
            "start": {key: study.start[key] for key in ("accuracy", "explained")}, "budget": _budget(study)}  # fmt: skip


def _budget(study: Study) -> dict[str, Any]:
    """Seconds, each run's added up as though one had followed the other."""
    runs = [run for seeds in study.runs.values() for run in seeds.values()]
    clocks = [line["seconds"] for line in study.start["curve"] if "seconds" in line]
    ends = [now for now, after in zip(clocks, [*clocks[1:], 0.0], strict=False) if after < now]  # it begins anew with the language model
    return {"runs": len(runs), "devices": sorted({f"{run['device']}, {run['threads']} thread{'s' * (run['threads'] > 1)}" for run in runs}),
            "start_s": _rounded(sum(ends)), "train_s": _rounded(sum(r["train_seconds"] for r in runs)),
            "score_s": _rounded(sum(r["score_seconds"] for r in runs))}  # fmt: skip


def _accuracy(right: list[np.ndarray], resampled: list[np.ndarray]) -> dict[str, Any]:
    """Of several sets: each counts as much as any other."""
    per_seed = np.mean([r.mean(1) for r in right], 0)
    return {"accuracy": [_rounded(a) for a in per_seed], "mean": _rounded(per_seed.mean()), "interval": _interval(np.mean(resampled, 0))}


def _curve(study: Study, arm: str) -> dict[str, list[float]]:
    """Cross-entropy of the answers over the steps, mean over seeds."""
    lines = [[line for line in run["curve"] if "ce_answer" in line] for run in study.runs[arm].values()]
    told = zip(*([line["ce_answer"] for line in run] for run in lines), strict=True)
    return {"steps": [line["step"] for line in lines[0]], "ce_answer": [_rounded(np.mean(values)) for values in told]}


def _by_difference(study: Study, arm: str) -> list[dict[str, float]]:
    """Accuracy on hard questions by how much the two moments differ, in fifths of equally many questions."""
    differences = np.array(study.of(arm, "hard")[0]["differences"])
    right = study.right(arm, "hard").mean(0)
    fifths = np.array_split(np.argsort(differences, kind="stable"), 5)
    return [{"difference": _rounded(differences[part].mean()), "accuracy": _rounded(right[part].mean())} for part in fifths if len(part)]


def _by_family(study: Study, arm: str, name: str) -> dict[str, float]:
    right = study.right(arm, name)
    return {family: _rounded(right[:, study.asked(name, family)].mean()) for family in dict.fromkeys(study.of(arm, name)[0]["families"])}


def _compare_words(study: Study) -> dict[str, Any]:
    """Words against the reference: by set and family, p corrected over the families of a set; and whether the sets differ in it."""
    told: dict[str, Any] = {"lost_more_on_hard": study.compare_sets(_IN_WORDS)}
    for name in _SETS:
        families = dict.fromkeys(study.of(REFERENCE, name)[0]["families"])
        told[name] = _corrected({family: study.compare(_IN_WORDS, name, family) for family in families})
    return told


def _corrected(compared: dict[str, Any]) -> dict[str, Any]:
    """Each with its p corrected for how many there are."""
    return {name: told | {"p_holm": p} for (name, told), p in zip(compared.items(), holm(told["p"] for told in compared.values()), strict=True)}


def _of_latents(scores: list[dict[str, Any]]) -> dict[str, Any]:
    if "causal" not in scores[0]:
        return {}
    causal = [s["causal"] for s in scores]
    return {
        "window_iou": _mean(s["window_iou"] for s in scores),
        **{key: {m: _mean(s[key][m] for s in scores) for m in _MODALITIES} for key in ("evidence", "explained")},
        "causal": {
            "n": causal[0]["arms"]["intact"]["n"],
            "intact": _mean(c["arms"]["intact"]["accuracy"] for c in causal),
            "other_clip_drop": _mean(c["arms"]["other_clip"]["drop"] for c in causal),
            **{key: _mean(c[key] for c in causal) for key in ("follows_donor", "follows_donor_control", "marker_only_share",
                                                              "between_clip_variance", "effective_rank")},
        },
    }  # fmt: skip


def tables(summary: dict[str, Any]) -> str:
    """The results as Markdown."""
    recipes, seeds = summary["recipes"], ", ".join(map(str, summary["seeds"]))
    lines = []
    for name in _SETS:
        lines += [f"### {name.capitalize()} to say", "", f"{summary['questions'][name]} questions, seeds {seeds}.", ""]
        lines += _table("arm | right | 95 % | per seed | difference | 95 % | p (Holm) | no answer | steps | s an answer",
                        (_accuracy_row(arm, r[name]) for arm, r in recipes.items()))  # fmt: skip
        families = recipes[summary["reference"]][name]["by_family"]
        lines += _table(f"arm | {' | '.join(families)}", (_family_row(arm, r[name]["by_family"]) for arm, r in recipes.items()))
        lines += _latents_table(recipes, name)
        lines += _table("arm | attention on the clip | on latents | on the clip, were it even", (_attention_row(arm, r[name]) for arm, r in recipes.items()))
    if summary["words_less_latents"]:
        lines += _words_lines(summary["words_less_latents"])
    lines += ["### The start", "", "What all began from, asked in each mode.", ""]
    start = summary["start"]
    told = {**start["accuracy"], **{f"{m} anchors explained": {n: start["explained"][n][m] for n in _SETS} for m in _MODALITIES}}
    lines += _table(f"mode | {' | '.join(_SETS)}", (f"| {what} | {' | '.join(_figure(by_set[n]) for n in _SETS)} |" for what, by_set in told.items()))
    return "\n".join([*lines, *_budget_lines(summary["budget"])]).rstrip()


def _words_lines(told: dict[str, Any]) -> list[str]:
    more = told["lost_more_on_hard"]
    rows = (f"| {name} | {family} | {c['difference']:+.3f} | {_span(c['interval'], '+.3f')} | {_figure(c['p_holm'])} |"
            for name in _SETS for family, c in told[name].items())  # fmt: skip
    return ["### Words less latents", "",
            f"`{_IN_WORDS}` less `{REFERENCE}`, by family; p is Holm-corrected over the families of a set. On hard questions words lose",
            f"{more['difference']:+.3f} ({_span(more['interval'], '+.3f')}) more to latents than on easy ones.", "",
            *_table("set | family | difference | 95 % | p (Holm)", rows)]  # fmt: skip


def _budget_lines(budget: dict[str, Any]) -> list[str]:
    start, train, score = (budget[key] / 60 for key in ("start_s", "train_s", "score_s"))
    each = f"{(train + score) / budget['runs']:.1f} a run"
    told = f"{train:.0f} minutes of training and {score:.0f} of scoring in all, {each}; {start:.0f} minutes of training for the start."
    return ["### Budget", "", f"{budget['runs']} runs, each on {' or '.join(budget['devices'])}: {told}"]


def _table(header: str, rows: Iterable[str]) -> list[str]:
    return [f"| {header} |", "|---" * (header.count("|") + 1) + "|", *rows, ""]


def _attention_row(arm: str, scores: dict[str, Any]) -> str:
    return f"| {arm} | {' | '.join(_figure(scores['attention'][key]) for key in ('direct', 'via_latents', 'even'))} |"


def _accuracy_row(arm: str, scores: dict[str, Any]) -> str:
    against = scores["against_reference"]
    compared = ("", "", "") if against is None else (f"{against['difference']:+.3f}", _span(against["interval"], "+.3f"), _figure(against["p_holm"]))
    cells = (_figure(scores["mean"]), _span(scores["interval"]), ", ".join(map(_figure, scores["accuracy"])), *compared, _figure(scores["unparsed"]),
             f"{scores['decoder_steps']:.1f}", _figure(scores["seconds_per_answer"]))  # fmt: skip
    return f"| {arm} | {' | '.join(cells)} |"


def _family_row(arm: str, told: dict[str, float]) -> str:
    return f"| {arm} | {' | '.join(map(_figure, told.values()))} |"


def _latents_table(recipes: dict[str, Any], name: str) -> list[str]:
    """What latents point at, explain and do. Of two possible answers, the donor's is whatever is not right, and what markers keep is a coin's."""
    told = {arm: recipe[name] for arm, recipe in recipes.items() if "causal" in recipe[name]}
    columns = {
        "window IoU": lambda s: _figure(s["window_iou"]),
        **{f"{m} {what}": lambda s, key=key, m=m: _figure(s[key][m]) for key, what in (("evidence", "hit"), ("explained", "explained")) for m in _MODALITIES},
        "intact": lambda s: _figure(s["causal"]["intact"]),
        "other clip's latents: drop": lambda s: _figure(s["causal"]["other_clip_drop"]),
        "follows donor (mean latents)": lambda s: f"{_figure(s['causal']['follows_donor'])} ({_figure(s['causal']['follows_donor_control'])})",
        "markers alone": lambda s: _figure(s["causal"]["marker_only_share"]),
        "variance between clips": lambda s: _figure(s["causal"]["between_clip_variance"]),
        "rank": lambda s: _figure(s["causal"]["effective_rank"], ".1f"),
    }  # fmt: skip
    if name == "hard":
        del columns["follows donor (mean latents)"], columns["markers alone"]
    rows = (f"| {arm} | {' | '.join(cell(scores) for cell in columns.values())} |" for arm, scores in told.items())
    n = next(iter(told.values()))["causal"]["n"]
    return [f"From \"intact\" on: {n} questions a seed.", "", *_table(f"arm | {' | '.join(columns)}", rows)]


def _figure(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _span(interval: list[float], form: str = ".3f") -> str:
    return " to ".join(format(end, form) for end in interval)


def _interval(values: np.ndarray) -> list[float]:
    return [_rounded(end) for end in np.percentile(values, [2.5, 97.5])]


def _mean(values: Iterable[float | None]) -> float | None:
    """None where any is undefined."""
    values = list(values)
    return None if None in values else _rounded(np.mean(values))


def _rounded(value: float) -> float:
    return round(float(value), 4)
