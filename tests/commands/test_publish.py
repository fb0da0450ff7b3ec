"""`publish`: the card says what the run's files say, nothing of this machine is sent, and the hub gets the folder that was shown."""

import json
import os
import shutil
import subprocess
import sys
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from latentomni import checkpoints
from latentomni.cli import main
from latentomni.evaluation.card import causal_section
from latentomni.training.recipes import read_recipe
from latentomni.training.run_folder import write_recipe

ROOT = Path(__file__).parents[2]
LOG = [
    {"stage": "anchors", "step": 1, "seconds": 1.5, "ce_answer": 3.25, "sync": 1.125},
    {"stage": "anchors", "step": 2, "seconds": 2.5, "ce_answer": 2.25, "sync": 1.0},
    {"stage": "rollout", "step": 1, "seconds": 3.0, "ce_answer": 0.0625},
    {"stage": "rollout", "validation": {"latent": 0.5}},
]


@pytest.fixture
def run(tiny, tmp_path):
    """The folder of a finished run from a model that lies on this machine."""
    recipe = read_recipe("latentomni", {"model": str(tmp_path / "start"), "data": str(tmp_path / "private" / "train.jsonl"), "fit": {"seed": 31}})
    write_recipe(tmp_path / "run", recipe.to_dict())
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    checkpoints.save(tiny, tmp_path / "run" / "checkpoint")
    return tmp_path / "run"


def publish(capsys, run, *options):
    assert main(["publish", str(run), "--to", "me/omni", *map(str, options), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def card(run):
    _, head, body = (run / "checkpoint" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_dry_run_writes_the_card_and_says_what_would_be_sent(run, tmp_path, capsys):
    told = publish(capsys, run, "--dry-run")
    folder = run / "checkpoint"
    assert told["files"] == {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
    assert {"README.md", "model.safetensors", "latentomni.json", "training/recipe.json", "training/log.jsonl"} <= set(told["files"])
    assert (told["address"], told["dry_run"], told["to"]) == (None, True, "me/omni")
    head, body = card(run)
    assert head["library_name"] == "latentomni" and "base_model" not in head
    assert "# omni\n" in body and "ask CLIP QUESTION --model me/omni" in body and "random weights" in body
    assert "| seed | 31 |" in body and "| stage | steps | ce_answer | sync |" in body
    assert "| anchors | 2 | 2.25 | 1 |" in body and "| rollout | 1 | 0.0625 | not measured |" in body
    assert "Nothing has been measured of this checkpoint yet." in body
    assert [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text().splitlines()] == LOG
    sent = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    assert not any(str(tmp_path).encode() in data for data in sent)
    recipe = json.loads((folder / "training" / "recipe.json").read_text())
    assert (recipe["model"], recipe["data"]) == ("start", "train.jsonl")
    checkpoints.load(str(folder))


def test_a_card_is_renewed_with_what_was_measured_and_keeps_the_rest(run, tmp_path, capsys):
    shutil.copy(ROOT / "latentomni" / "nano" / "README.md", run / "checkpoint")  # with a causal section, as `--write-card` leaves it
    before = (run / "checkpoint" / "README.md").read_text()
    assert main(["eval", "avworld", "--n", "3", "--mode", "direct", "--json"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "avworld.json").write_text(printed)
    measured = json.loads(printed.splitlines()[-1])
    publish(capsys, run, "--dry-run", "--results", tmp_path / "avworld.json")
    first = card(run)
    publish(capsys, run, "--dry-run", "--results", tmp_path / "avworld.json")
    assert card(run) == first
    without = measured["without_audio"]["accuracy"], measured["without_video"]["accuracy"]
    figures = [f"{value:.3f}" for value in (measured["accuracy"], measured["chance"], *without)]
    assert f"| AV World | accuracy | {' | '.join(figures)} | 3 |" in first[1]
    begin, end = "<!-- causal arms: begin -->", "<!-- causal arms: end -->"
    assert before[before.index(begin) : before.index(end)] in first[1]
    assert main(["eval", "causal", "--data", "avworld", "--n", "2", "--json"]) == 0
    (tmp_path / "causal.json").write_text(capsys.readouterr().out)
    publish(capsys, run, "--dry-run", "--results", tmp_path / "causal.json")
    assert causal_section(json.loads((tmp_path / "causal.json").read_text().splitlines()[-1])) in card(run)[1]
    assert "Nothing has been measured" in card(run)[1] and before[before.index(begin) : before.index(end)] not in card(run)[1]


def test_base_models_are_named_and_folders_of_this_machine_refused(run, tmp_path, capsys):
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | {"model": "Qwen/Qwen2.5-Omni-3B"}))
    publish(capsys, run, "--dry-run")
    assert card(run)[0]["base_model"] == "Qwen/Qwen2.5-Omni-3B"
    settings = run / "checkpoint" / "latentomni.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"adapter": {"base": str(tmp_path / "start"), "quantization": "none"}}))
    assert main(["publish", str(run), "--to", "me/omni", "--dry-run"]) == 2
    assert "which nobody else has" in capsys.readouterr().err
    assert main(["publish", str(tmp_path), "--to", "me/omni", "--dry-run"]) == 2
    assert f"There is no {tmp_path / 'recipe.json'}; give the folder of a finished run" in capsys.readouterr().err


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files asks for; what it was asked is kept by the server."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        address = f"http://127.0.0.1:{self.server.server_port}/me/omni"
        if self.path == "/api/repos/create":
            self.answer({"url": address, "name": "me/omni"})
        elif self.path == "/api/models/me/omni/preupload/main":
            wanted = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer({"files": wanted})
        elif self.path == "/api/models/me/omni/commit/main":
            self.answer({"commitUrl": f"{address}/commit/1", "commitOid": "1", "success": True})
        else:
            self.answer({"errors": [], "warnings": []})

    def answer(self, values):
        data = json.dumps(values).encode()
        self.send_response(401 if self.server.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("refuses", [False, True])
def test_the_hub_gets_what_was_shown_and_nobody_sees_the_token(run, refuses):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        hub.asked, hub.refuses = [], refuses
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        env |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "hf_notforyoureyes"}
        command = [sys.executable, "-m", "latentomni", "publish", str(run), "--to", "me/omni", "--private", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=120)
        hub.shutdown()
    assert "notforyoureyes" not in done.stdout + done.stderr
    assert {token for _, token, _ in hub.asked} == {"Bearer hf_notforyoureyes"}
    path, _, body = hub.asked[0]
    assert path == "/api/repos/create" and json.loads(body)["visibility"] == "private"
    if refuses:
        assert done.returncode == 2 and "cannot be published" in done.stderr and "Traceback" not in done.stderr
        return
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    commit = next(body for path, _, body in hub.asked if "/commit/" in path)
    files = [entry["value"] for entry in map(json.loads, commit.splitlines()) if entry["key"] == "file"]
    assert {file["path"]: len(b64decode(file["content"])) for file in files} == told["files"]
    assert told["address"].endswith("/me/omni")
