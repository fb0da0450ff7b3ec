"""Whole runs: killed and started again, on both engines, held against the truth."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from latentomni.bench.endpoint import Faults, ScriptedEndpoint
from latentomni.cli import main
from latentomni.errors import DataError
from latentomni.synthesis import Role, Settings, avworld_sources, synthesize
from latentomni.synthesis.endpoint import EndpointError
from latentomni.training.records import validate

ROOT = Path(__file__).parents[2]
FAULTS = Faults(transient=0.1, unusable=0.03, stall_s=3.0)


class Deadly(ScriptedEndpoint):
    """Kills the process that asks, in turn at each of these numbers of replies."""

    def __init__(self, faults, at):
        super().__init__(faults)
        self.at, self.victim = list(at), None

    def reply(self, request, key):
        text = super().reply(request, key)
        if self.at and sum(self.answered.values()) >= self.at[0]:
            self.at.pop(0)
            self.victim.send_signal(signal.SIGKILL)
        return text


def settings_of(endpoint):
    """Impatient, so that a stalled request is given up and asked again."""
    return Settings.of_one(Role(endpoint.url, "scripted", timeout_s=1.5), min_total=12)


def files_of(out):
    """All that a run left but for half-written files of those that were killed."""
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file() and ".partial" not in f.name}


def killed_and_restarted(endpoint, tmp_path, n):
    """The command, started again until it ends by itself; how often it was killed."""
    config = tmp_path / "roles.json"
    plain = settings_of(endpoint)
    config.write_text(json.dumps({"roles": {name: vars(role) for name, role in plain.roles.items()}, "min_total": 12}))
    command = [sys.executable, "-m", "latentomni", "data", "synthesize", "--source", "avworld", "--n", str(n)]
    command += ["--config", str(config), "--out", str(tmp_path / "b")]
    for kills in range(10):
        endpoint.victim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, told = endpoint.victim.communicate(timeout=600)
        if endpoint.victim.returncode != -signal.SIGKILL:
            assert endpoint.victim.returncode == 0, told.decode()
            return kills
    raise AssertionError("never ended")


@pytest.mark.parametrize("n, at", [(3, (7, 22, 41)), pytest.param(200, (311, 1402, 2905), marks=pytest.mark.slow)])
def test_killed_three_times_and_restarted_is_uninterrupted(tmp_path, n, at):
    with ScriptedEndpoint(FAULTS) as endpoint:
        report = synthesize(avworld_sources(n), settings_of(endpoint), tmp_path / "a")
        asked = len(endpoint.answered)
        assert endpoint.failed and report["rows"] >= 1
    with Deadly(FAULTS, at) as endpoint:
        assert killed_and_restarted(endpoint, tmp_path, n) == 3
        requests = sum(endpoint.answered.values())
    first, again = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first.keys() == again.keys()
    assert {name for name in first if first[name] != again[name]} == set()
    assert requests <= asked + 3 * 64  # only what was on its way when it was killed is asked again


_KILLED = """
import os, signal, sys
def hook(event, args, seen=[0]):
    if event == "os.rename" and sys.argv[1] in str(args[1]):
        seen[0] += 1
        if seen[0] == 3 or "jsonl" in sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from latentomni.cli import main
main(sys.argv[2:])
"""


def test_killed_within_its_writes_it_goes_on_as_if_it_had_not_been(tmp_path):
    """SIGKILL right before what was written takes its place: the third reply, a stage's file, the rows."""
    with ScriptedEndpoint() as endpoint:
        settings = Settings.of_one(Role(endpoint.url, "scripted"), min_total=3)
        report = synthesize(avworld_sources(2), settings, tmp_path / "a")
        config = tmp_path / "roles.json"
        config.write_text(json.dumps({"roles": {name: vars(role) for name, role in settings.roles.items()}, "min_total": 3}))
        command = ["data", "synthesize", "--source", "avworld", "--n", "2", "--config", str(config), "--out", str(tmp_path / "b")]
        for place in ("replies", "scores.jsonl", "train.jsonl"):
            done = subprocess.run([sys.executable, "-c", _KILLED, place, *command], cwd=ROOT, capture_output=True, timeout=300)
            assert done.returncode == -signal.SIGKILL, done.stderr
        assert synthesize(avworld_sources(2), settings, tmp_path / "b") == report
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") and report["rows"]
    assert not list((tmp_path / "b").rglob("*.partial*"))


def test_a_finished_run_asks_nothing_when_it_is_started_again(tmp_path):
    with ScriptedEndpoint() as endpoint:
        settings = settings_of(endpoint)
        report = synthesize(avworld_sources(4), settings, tmp_path)
        asked = sum(endpoint.answered.values())
        assert synthesize(avworld_sources(4), settings, tmp_path) == report
        assert sum(endpoint.answered.values()) == asked == sum(row["requests"] for row in report["usage"].values())
        card = tmp_path / "README.md"
        card.write_text(card.read_text().partition("To be filled in")[0] + "CC0, asked.\n")
        priced = replace(settings, roles={name: replace(role, price=(1.0, 4.0)) for name, role in settings.roles.items()})
        judge = synthesize(avworld_sources(4), priced, tmp_path)["usage"]["judge"]
        assert card.read_text().endswith("**Licences and consent.** CC0, asked.\n")
        assert judge["dollars"] == pytest.approx((judge["tokens_in"] + 4 * judge["tokens_out"]) / 1e6, abs=1e-6)


def test_a_run_that_does_not_end_leaves_no_rows_of_another_nor_half_a_file(tmp_path):
    with ScriptedEndpoint() as endpoint:
        settings = settings_of(endpoint)
        synthesize(avworld_sources(2), settings, tmp_path)
        half = (tmp_path / "clips" / "x.0.partial.mp4", next((tmp_path / "replies").iterdir()) / "y.0.partial")
        for file in half:
            file.touch()
    other = replace(settings, seed=8, roles={name: replace(role, retries=0) for name, role in settings.roles.items()})
    with pytest.raises(EndpointError, match="cannot be reached"):
        synthesize(avworld_sources(2), other, tmp_path)
    assert not any(file.exists() for file in (tmp_path / "train.jsonl", tmp_path / "report.json", *half))
    synthesize(avworld_sources(2), settings, tmp_path)
    assert (tmp_path / "train.jsonl").is_file()


def test_notes_that_are_needed_and_missing_are_told_before_anything_is_asked(tmp_path):
    sources = [avworld_sources(1)[0], replace(avworld_sources(1, 1)[0], notes=())]
    with ScriptedEndpoint() as endpoint, pytest.raises(DataError, match="has no notes"):
        synthesize(sources, settings_of(endpoint), tmp_path)
    assert not endpoint.answered and not list(tmp_path.iterdir())


def test_the_funnel_adds_up_and_the_rows_are_training_data(tmp_path):
    with ScriptedEndpoint() as endpoint:
        report = synthesize(avworld_sources(5), settings_of(endpoint), tmp_path)
    funnel = {row["stage"]: row for row in report["funnel"]}
    assert list(funnel) == ["questions", "scores", "balance", "gate", "segments", "trajectories", "audit", "rows"]
    for before, after in (("questions", "scores"), ("scores", "balance"), ("balance", "gate"), ("trajectories", "audit"), ("audit", "rows")):
        assert funnel[after]["in"] == funnel[before]["kept"] == funnel[after]["kept"] + sum(funnel[after]["rejected"].values())
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == sum(sum(row["rejected"].values()) for row in funnel.values()) and all(r["rejected"] for r in rejects)
    assert validate(tmp_path / "train.jsonl") == (report["rows"], [])
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert all(1 <= len(row["segments"]) <= 3 and row["answer"] in row["messages"][1]["content"] for row in rows)
    _, head, card = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["configs"] == [{"config_name": "default", "data_files": "train.jsonl"}]
    assert f"{len(rows)} questions about {len({row['media'] for row in rows})} clips" in card and "scripted" in card
    assert sum(report["histograms"]["citations, kept"].values()) == report["rows"] == len(rows) >= 1


def test_precision_is_a_count_over_what_the_world_says(tmp_path):
    with ScriptedEndpoint() as endpoint:
        report = synthesize(avworld_sources(6, with_questions=True), settings_of(endpoint), tmp_path)
    gate = report["truth"]["gate"]
    entered = [json.loads(line) for line in (tmp_path / "balance.jsonl").read_text().splitlines()]
    passed = [json.loads(line) for line in (tmp_path / "gate.jsonl").read_text().splitlines()]
    needs = [not item["question"].startswith("Where is the") and not item["question"].endswith("heard?") for item in entered]
    kept = [not item["question"].startswith("Where is the") and not item["question"].endswith("heard?") for item in passed]
    assert gate["before"] == {"value": round(sum(needs) / len(needs), 4), "n": len(needs)}
    assert gate["precision"] == {"value": round(sum(kept) / len(kept), 4), "n": len(kept)}
    assert gate["recall"] == {"value": round(sum(kept) / sum(needs), 4), "n": sum(needs)}
    cited = report["truth"]["citations"]["precision"]
    assert cited["n"] == sum(int(count) * n for count, n in report["histograms"]["citations, kept"].items())


@pytest.mark.slow
def test_ray_gives_the_same_records(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[cluster]'")
    with ScriptedEndpoint(FAULTS) as endpoint:
        settings = settings_of(endpoint)
        local = synthesize(avworld_sources(10), settings, tmp_path / "a")
        ray = synthesize(avworld_sources(10), settings, tmp_path / "b", "ray", 2)
    assert ray == local
    first, again = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert first.keys() == again.keys() and all(first[name] == again[name] for name in first)


def test_the_command_prints_the_funnel(tmp_path, capsys):
    with ScriptedEndpoint() as endpoint:
        command = ["data", "synthesize", "--source", "avworld-questions", "--n", "2", "--endpoint", endpoint.url, "--out", str(tmp_path / "out"), "--json"]
        assert main(command) == 0
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed["model"] == "scripted" and printed["funnel"][0] == {"stage": "questions", "in": 2, "kept": 6, "rejected": {}}
        assert set(printed["truth"]) == {"gate", "citations", "answers", "not understood"}
    assert main(command) == 2  # the server is gone, and its model's name with it
    assert "name one with --model" in capsys.readouterr().err
    assert main([*command[:-1], "--model", "scripted"]) == 0  # all that is asked was answered before
    assert main([*command, "--model", "scripted", "--seed", "-1"]) == 2 and "--seed starts at 0" in capsys.readouterr().err
