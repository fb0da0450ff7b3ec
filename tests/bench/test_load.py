"""Many users against a served app: what the figures are made of, and one small crowd for real."""

import pytest

from latentomni.bench.load import Asked, bench_load, summary
from latentomni.bench.soak import bench_soak
from latentomni.cli import main


def test_a_crowd_is_summed_up():
    done = [
        *(Asked("answered", "a", "right", waited_s=n, first_s=n + 0.5) for n in range(20)), Asked("answered", "b", "wrong", 0.0, 0.1),
        Asked("cancelled", "a"), Asked("cancelled", "b"), Asked("failed", "a"),
    ]  # fmt: skip
    assert summary(done, 10.0, {"a": "right", "b": "right"}) == {
        "throughput": 2.1, "ttft_p50_s": 9.5, "ttft_p95_s": 18.5, "queue_wait_p50_s": 9.0, "errors": 1, "answered": 21, "cancelled": 2, "differing": 1,
    }  # fmt: skip
    nobody = summary([Asked("failed", "a")], 1.0, {})
    assert (nobody["throughput"], nobody["ttft_p50_s"], nobody["errors"]) == (0.0, None, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["load", "--users", "4,none"], "expected a whole number from 1 on, got 'none'"),
        (["decode", "--users", "4"], "--users is of load"),
        (["decode", "--minutes", "4"], "--minutes is of soak"),
    ],
)
def test_bad_use_is_said(arguments, said, capsys):
    try:
        code = main(["bench", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_answers_in_a_crowd_are_those_of_one_user():
    report = bench_load(users=(1, 4), repeats=1)
    one, four = report["1"], report["4"]
    assert (one["answered"], one["errors"], one["differing"]) == (1, 0, 0)
    assert four["answered"] + four["cancelled"] == 4 and four["cancelled"] <= 1
    assert (four["errors"], four["differing"]) == (0, 0)
    assert four["ttft_p95_s"] >= four["ttft_p50_s"] > 0 and four["throughput"] > 0 and four["memory"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mixed_use_leaves_nothing_open():
    report = bench_soak(minutes=0.5)
    assert report["errors"] == 0 and sum(report["actions"].values()) > 5
    assert report["end"]["open_files"] <= report["warm"]["open_files"] + 20
