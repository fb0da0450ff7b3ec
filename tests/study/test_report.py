"""The report: statistics against what was planted, tables and charts that are the same for the same logs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentomni.cli import main
from latentomni.errors import DataError
from latentomni.study.arms import ARMS
from latentomni.study.report import holm, read_study, summarise, tables
from visualizers.charts import draw_chart, plot_chart
from visualizers.study import compute_charts

N = 100
EXPLAINED = {"easy": {"visual": 0.8, "audio": 0.3}, "hard": {"visual": 0.7, "audio": None}}
START = {"latent": {"easy": 0.7, "hard": 0.5}, "direct": {"easy": 0.4, "hard": 0.5}}


def run(arm, seed, share, kind="latent"):
    """A log whose first `share` of the questions are right, and on the hard set half as many."""
    def scores(right):
        told = {"clips": [f"clip {k // 2}" for k in range(N)], "families": ["colour"] * (N // 2) + ["sound"] * (N // 2),
                "differences": [k / N for k in range(N)], "right": "1" * right + "0" * (N - right),
                "accuracy": right / N, "decoder_steps": 10.0 + right, "seconds_per_answer": 0.1,
                "unparsed": 0.25,
                "attention": {"direct": [0.0, 0.2], "via_latents": [0.4, 0.2], "even": [0.5]}}  # fmt: skip
        causal = {"arms": {"intact": {"n": 64, "accuracy": 0.75}, "other_clip": {"drop": 0.5}},
                  "follows_donor": 0.6, "follows_donor_control": None, "marker_only_share": 0.2,
                  "between_clip_variance": 0.7, "effective_rank": 3.0}  # fmt: skip
        return told | ({"window_iou": 0.9, "evidence": {"visual": 1.0, "audio": None}, "explained": {"visual": 0.9, "audio": None},
                        "causal": causal} if kind == "latent" else {})

    right = round(share * N)
    curve = [{"stage": "run", "step": k, "ce_answer": 1.0 / k} for k in (1, 2)]
    return {"arm": arm, "seed": seed, "study": "a", "train_seconds": 60.0, "score_seconds": 30.0, "device": "cpu", "threads": 1,
            "sets": {"easy": scores(right), "hard": scores(right // 2)}, "curve": curve}  # fmt: skip


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    for seed in (1, 2, 3):
        for made in (run("latentomni", seed, 0.8), run("direct", seed, 0.5, "words"), run("no-sync", seed, 0.8)):
            (folder / f"{made['arm']}-{seed}.json").write_text(json.dumps(made))
    seconds = (10.0, 50.0, 100.0, 300.0, 900.0)  # towers, then the language model, whose clock begins anew
    curve = [{"stage": "narrate", "step": 1, "seconds": s} for s in (*seconds[:2], 40.0, *seconds[2:])]
    told = {"study": "a", "accuracy": START, "explained": EXPLAINED, "curve": [*curve, {"stage": "widen", "validation": {}}]}
    (folder / "start.json").write_text(json.dumps(told))
    return folder


def test_means_intervals_and_comparisons_are_those_planted(logs):
    summary = summarise(read_study(logs))
    assert list(summary["recipes"]) == ["latentomni", "direct", "no-sync"]  # in the order of the arms
    ours, direct, same = (summary["recipes"][name] for name in ("latentomni", "direct", "no-sync"))
    assert (ours["easy"]["accuracy"], ours["easy"]["mean"], ours["hard"]["mean"], ours["mean"]) == ([0.8] * 3, 0.8, 0.4, 0.6)
    half = 1.96 * np.sqrt(0.8 * 0.2 / (N / 2))  # the two questions of a clip are right or wrong together
    assert ours["easy"]["interval"] == pytest.approx([0.8 - half, 0.8 + half], abs=0.02)
    against = direct["easy"]["against_reference"]
    half = 1.96 * np.sqrt(0.3 * 0.7 / (N / 2))
    assert against["difference"] == -0.3 and against["p_holm"] < 0.01
    assert against["interval"] == pytest.approx([-0.3 - half, -0.3 + half], abs=0.02)
    assert same["easy"]["against_reference"] == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0, "p_holm": 1.0}
    assert ours["easy"]["against_reference"] is None and "causal" not in direct["easy"]
    assert ours["easy"]["causal"]["other_clip_drop"] == 0.5 and ours["easy"]["causal"]["follows_donor_control"] is None
    assert direct["easy"]["unparsed"] == 0.25 and summary["words_less_latents"] is None
    assert ours["easy"]["attention"] == {"direct": 0.1, "via_latents": 0.3, "even": 0.5}
    assert ours["easy"]["by_family"] == {"colour": 1.0, "sound": 0.6} and ours["hard"]["by_family"] == {"colour": 0.8, "sound": 0.0}
    assert ours["curve"] == {"steps": [1, 2], "ce_answer": [1.0, 0.5]}
    assert [part["accuracy"] for part in ours["hard"]["by_difference"]] == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_the_budget_adds_up_what_the_logs_say(logs):
    summary = summarise(read_study(logs))
    assert summary["budget"] == {"runs": 9, "devices": ["cpu, 1 thread"], "start_s": 950.0, "train_s": 540.0, "score_s": 270.0}
    assert "9 minutes of training and 4 of scoring in all, 1.5 a run; 16 minutes of training for the start." in tables(summary)
    assert summary["start"] == {"accuracy": START, "explained": EXPLAINED} and "| direct | 0.400 | 0.500 |" in tables(summary)
    assert "| visual anchors explained | 0.800 | 0.700 |\n| audio anchors explained | 0.300 | - |" in tables(summary)


def test_seeds_that_disagree_widen_the_interval(logs):
    narrow = summarise(read_study(logs))["recipes"]["direct"]["easy"]["interval"]
    (logs / "direct-2.json").write_text(json.dumps(run("direct", 2, 0.9, "words")))
    low, high = summarise(read_study(logs))["recipes"]["direct"]["easy"]["interval"]
    assert high - low > 1.3 * (narrow[1] - narrow[0])


def test_words_are_compared_with_latents_family_by_family(logs):
    for seed in (1, 2, 3):
        (logs / f"explicit-text-cot-{seed}.json").write_text(json.dumps(run("explicit-text-cot", seed, 0.7, "words")))
    summary = summarise(read_study(logs))
    easy, hard = (summary["words_less_latents"][name] for name in ("easy", "hard"))  # 50 colours, then 50 sounds
    assert easy["colour"] == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0, "p_holm": 1.0}
    half = 1.96 * np.sqrt(0.2 * 0.8 / (N / 4))
    assert easy["sound"]["difference"] == -0.2 and easy["sound"]["interval"] == pytest.approx([-0.2 - half, -0.2 + half], abs=0.05)
    assert hard["colour"]["difference"] == -0.1 and hard["sound"]["difference"] == 0.0
    more = summary["words_less_latents"]["lost_more_on_hard"]  # 0.10 of the easy ones and 0.05 of the hard
    assert more["difference"] == -0.05 and -0.25 < more["interval"][0] < -0.05 < more["interval"][1] < 0.15
    assert "| hard | colour | -0.100 | " in tables(summary) and "words lose\n-0.050 (" in tables(summary)


def test_holm_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [0.03, 0.06, 0.06, 0.02]
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_the_report_is_the_same_to_the_byte_and_keeps_the_text_around_it(logs, capsys):
    report = logs.parent / "STUDY.md"
    report.write_text("# Study\n\nWhy.\n\n<!-- results: begin -->\nold\n<!-- results: end -->\n\nWhat it does not show.\n")
    written = []
    for _ in range(2):
        assert main(["study", "--from-logs", str(logs), "--json"]) == 0
        written.append({path.name: path.read_bytes() for path in (report, *sorted((logs / "charts").iterdir()))})
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert written[0] == written[1] and len(written[0]) == 11
    text = report.read_text()
    assert text.startswith("# Study\n\nWhy.") and text.endswith("What it does not show.\n") and "old" not in text
    assert tables(summarise(read_study(logs))) in text
    assert all((report.parent / name).is_file() for name in (f"study/charts/{n}.svg" for n in ("accuracy", "cost", "nuance", "attention", "curves")))
    assert set(printed["recipes"]["direct"]) >= {"accuracy", "mean", "interval"} and len(printed["recipes"]["direct"]["accuracy"]) == 3


def test_what_is_published_is_what_the_logs_say(tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    shutil.copytree(docs / "study", tmp_path / "study", ignore=shutil.ignore_patterns("charts"))
    shutil.copy(docs / "STUDY.md", tmp_path)
    assert main(["study", "--from-logs", str(tmp_path / "study")]) == 0
    assert (tmp_path / "STUDY.md").read_bytes() == (docs / "STUDY.md").read_bytes()
    for folder, other in ((docs, tmp_path), (tmp_path, docs)):
        assert all(p.read_bytes() == (other / "study" / "charts" / p.name).read_bytes() for p in (folder / "study" / "charts").iterdir())
    recipes = summarise(read_study(docs / "study"))["recipes"]
    assert set(recipes) == set(ARMS) and all(len(recipe["accuracy"]) >= 3 for recipe in recipes.values())


def test_charts_hold_the_figures_and_are_drawn_in_their_places(logs):
    charts = {chart.name: chart for chart in compute_charts(summarise(read_study(logs)))}
    easy = charts["accuracy"].panels[0]
    assert (easy.labels, easy.series[0].x) == (("latentomni", "direct", "no-sync"), (0.8, 0.5, 0.8))
    assert [s.name for s in charts["cost"].panels[0].series] == ["latentomni", "direct", "variants"]
    figure = plot_chart(charts["accuracy"])
    assert list(figure.data[0].x) == [0.8, 0.5, 0.8] and list(figure.data[0].y) == ["latentomni", "direct", "no-sync"]
    drawn = draw_chart(charts["accuracy"])
    assert drawn.count("<circle") == 6 and "no-sync" in drawn and "nan" not in drawn
    for chart in charts.values():
        assert draw_chart(chart).startswith("<svg") and chart.title in draw_chart(chart)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "direct-2.json").unlink(), r"lacks 1 runs \(direct seed 2\)"),
        (lambda f: (f / "direct-2.json").write_text("{"), "direct-2.json is no run of a study"),
        (lambda f: (f / "direct-2.json").write_text('{"arm": "direct", "seed": 2}'), "direct-2.json is no run of a study .KeyError: 'study'"),
        (lambda f: (f / "no-sync-1.json").write_text(json.dumps(run("no-sync", 1, 0.5) | {"study": "b"})), "no-sync-1.json is of another study"),
        (lambda f: [p.unlink() for p in f.glob("latentomni-*")], "holds no run of the arm latentomni"),
        (lambda f: (f / "start.json").write_text("[]"), r"start\.json is no start of a study .TypeError"),
        (lambda f: (f / "start.json").unlink(), r"start\.json is no start of a study .FileNotFoundError"),
        (lambda f: (f / "start.json").write_text('{"study": "b", "accuracy": {}, "explained": {}, "curve": []}'), r"start\.json is of another study"),
    ],
)
def test_logs_that_are_missing_or_damaged_are_named(logs, damage, said):
    damage(logs)
    with pytest.raises(DataError, match=said):
        read_study(logs)
