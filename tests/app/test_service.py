"""A served app as whoever runs it has it: a process of its own, asked over the network, told to stop, starved of memory, killed."""

import json
import os
import re
import resource
import signal
import urllib.error
import urllib.request
import wave
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from latentomni.bench.load import first_output
from latentomni.bench.served import served
from latentomni.memory import resident_bytes
from latentomni.trace import Trace

pytestmark = pytest.mark.timeout(180)
QUESTION = "What is whispered?"


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    """One for the tests that leave it running."""
    with app(model_folder, tmp_path_factory.mktemp("server")) as process:
        yield process


@contextmanager
def app(model, folder, **environment):
    with served(str(model), folder, OMP_NUM_THREADS="1", LATENTOMNI_LOG="json", **environment) as process:
        yield process


def visitor(app):
    return Client(app.address, verbose=False, download_files=str(app.cache))


def fetched(app, path):
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(app.address + path, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(client, clip, **settings):
    return client.submit(handle_file(clip), QUESTION, **{"max_new_tokens": 24, **settings}, api_name="/ask_video")


def running(client, clip):
    """A long answer that has begun."""
    job = asked(client, clip, max_new_tokens=8192, mode="direct")
    for told in job:
        if told.get("text"):
            return job
    raise AssertionError(job.result())


def metric(app, name):
    return float(re.search(rf"^latentomni_{re.escape(name)} (\S+)$", fetched(app, "metrics")[1], re.MULTILINE)[1])


def states(app):
    """How many questions came to each state so far."""
    found = re.findall(r'^latentomni_runs_total\{kind="question",state="(\w+)"\} (\d+)$', fetched(app, "metrics")[1], re.MULTILINE)
    return Counter({state: int(count) for state, count in found})


def events(app, skip=0):
    return [json.loads(line) for line in app.log.read_text()[skip:].splitlines() if line.startswith("{")]


def test_health_metrics_and_a_log_without_private_words(server, model_folder, clip, tmp_path):
    secret = Path(clip).rename(tmp_path / "holiday-in-private.wav")
    client, before, skip, counted = visitor(server), states(server), len(server.log.read_text()), metric(server, "first_token_seconds_sum")
    answer = asked(client, secret).result()
    with pytest.raises(AppError, match="unknown Mode"):
        asked(client, secret, mode="aloud").result()
    broken = tmp_path / "also-private.wav"
    broken.write_bytes(b"nonsense of a visitor" * 9)
    with pytest.raises(AppError, match=r"also-private\.wav"):
        asked(client, broken).result()
    status, text = fetched(server, "health")
    told = json.loads(text)
    assert (status, told["status"], told["model"], told["queue"], told["running"]) == (200, "ok", model_folder.name, 0, 0)
    assert (told["weights"], told["device"]) == ("random", "cpu") and told["uptime_s"] > 0 and told["version"]
    assert states(server) - before == {"asked": 3, "finished": 1, "failed": 2}
    assert metric(server, "first_token_seconds_count") == metric(server, 'first_token_seconds_bucket{le="+Inf"}') >= 1
    assert metric(server, "first_token_seconds_sum") - counted == pytest.approx(answer["first_s"], abs=1e-4)
    assert metric(server, "resident_bytes") > resident_bytes() / 10
    assert metric(server, "waiting") == metric(server, "running") == 0
    ours = [e for e in events(server, skip) if "request" in e]
    assert [e["event"] for e in ours] == ["question asked", "question finished", *["question asked", "question failed"] * 2]
    assert ours[0]["request"] == ours[1]["request"] and len({e["request"] for e in ours}) == 3
    for private in (QUESTION, "whisper", "private", "holiday", "nonsense", "aloud", answer["run"], str(tmp_path)):
        assert private not in server.log.read_text()


def test_told_to_stop_it_lets_an_answer_finish(model_folder, clip, tmp_path):
    with app(model_folder, tmp_path, LATENTOMNI_GRACE_S="120") as server:
        first, second = visitor(server), visitor(server)
        job = asked(first, clip, max_new_tokens=1000, mode="direct")
        assert next(told for told in job if told["state"] == "running")
        server.process.send_signal(signal.SIGTERM)
        while fetched(server, "health")[0] != 503:  # until the signal has come there
            pass
        with pytest.raises(AppError, match=r"This server is stopping and takes no more questions"):
            asked(second, clip).result()
        assert fetched(server, "health")[0] == 503
        assert job.result()["state"] == "finished"
        assert server.process.wait(60) == 0
        assert [e["event"] for e in events(server)][-1] == "server stopped"


def test_told_to_stop_it_cuts_what_takes_longer_and_keeps_what_there_is(model_folder, clip, tmp_path):
    with app(model_folder, tmp_path, LATENTOMNI_GRACE_S="0.01") as server:
        job = running(visitor(server), clip)
        server.process.send_signal(signal.SIGTERM)
        cut = job.result()
        assert cut["state"] == "cut" and cut["tokens"] > 0
        assert server.process.wait(60) == 0
        assert "question cut" in [e["event"] for e in events(server)]
    with app(model_folder, tmp_path) as again:
        assert Trace.load(visitor(again).predict(cut["run"], api_name="/get_trace")).reason == "cancelled"


def test_a_job_that_fails_before_its_first_words_is_not_waited_for(server, clip):
    with pytest.raises(AppError, match="temperature"):
        first_output(asked(visitor(server), clip, temperature=-1.0), 60)


def test_a_run_that_takes_too_long_ends_and_the_next_one_works(model_folder, clip, tmp_path):
    with app(model_folder, tmp_path, LATENTOMNI_RUN_S="1") as server:
        client = visitor(server)
        assert asked(client, clip, max_new_tokens=8192, mode="direct").result()["state"] == "limit"
        assert asked(client, clip).result()["state"] == "finished"


def test_a_visitor_who_leaves_costs_nothing_more(server, clip):
    before, first, second = states(server), visitor(server), visitor(server)
    job = running(first, clip)
    waiting = asked(second, clip)
    assert first_output(waiting, 60)["ahead"] == 1
    waiting.cancel()
    job.cancel()
    assert asked(visitor(server), clip).result()["state"] == "finished"
    assert states(server) - before == {"asked": 3, "stopped": 2, "finished": 1}


def test_memory_that_runs_out_ends_one_run_only(server, clip, tmp_path):
    client, failed, pid = visitor(server), states(server)["failed"], server.process.pid
    before = asked(client, clip).result()
    size = int(re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16000 * 240))
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 2**24, hard))
    try:
        with pytest.raises(AppError, match=r"Memory ran out in this run"):
            asked(client, tmp_path / "long.wav").result()
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    assert asked(client, clip).result()["answer"] == before["answer"]
    assert states(server)["failed"] == failed + 1


def test_killed_during_an_answer_it_starts_again_with_everything_whole(model_folder, clip, tmp_path):
    with app(model_folder, tmp_path) as server:
        client = visitor(server)
        kept = asked(client, clip).result()
        running(client, clip)
        server.process.kill()
        server.process.wait()
    runs = server.cache / "latentomni-runs"
    with app(model_folder, tmp_path) as again:
        client = visitor(again)
        traces = list(runs.rglob("*.trace.zip"))
        assert [path.parent.name for path in traces] == [kept["run"]]
        assert Trace.load(client.predict(kept["run"], api_name="/get_trace")).answer == kept["answer"]
        assert client.predict(kept["run"], "shift_sound", api_name="/intervene")["before"] == kept["answer"]
        assert asked(client, clip).result()["answer"] == kept["answer"]
    assert not list(runs.rglob("*.part"))


def test_nobody_sees_what_is_anothers(server, clip, tmp_path):
    mine = Path(clip).rename(tmp_path / "mine.wav")
    outside = tmp_path / "outside.wav"
    outside.write_bytes(mine.read_bytes())
    first, second = visitor(server), visitor(server)
    run = asked(first, mine).result()["run"]
    shown = [fetched(server, path)[1] for path in ("config", "gradio_api/info", "metrics", "health")]
    assert not any(run in text or "mine.wav" in text or QUESTION in text for text in shown)
    for path in ("latentomni-runs", f"latentomni-runs/{run}", "../app.log"):
        status, text = fetched(server, f"gradio_api/file={server.cache / path}")
        assert status == 403 and ".zip" not in text and QUESTION not in text
    with pytest.raises(AppError, match="no run of that name"):
        second.predict(run[:-1] + "-", api_name="/get_trace")
    for path in (outside, f"{server.cache}/{os.path.relpath(outside, server.cache)}"):
        with pytest.raises(AppError, match="did not come here by upload"):
            second.predict({"path": str(path)}, QUESTION, api_name="/ask_video")
