"""What many users at once wait for: `app.py` in a process of its own, asked over the network by as many clients."""

import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file
from gradio_client.client import Job

from latentomni.bench.served import Served, served
from latentomni.errors import RequestError

__all__ = ["Asked", "bench_load", "first_output", "gauge", "settled", "summary"]

_EXAMPLES = Path(__file__).parents[2] / "examples"
_ONE_IN = 4  # of this many users one changes his mind
_WAIT_S = 300
_QUESTIONS = 8


@dataclass(frozen=True)
class Asked:
    """One question to the app. fate: "answered", "cancelled", or "failed". what: the answer with its latents' evidence, which the same question
    must always get. waited_s, first_s: on the server, from the question to its turn and to the first word or latent."""

    fate: str
    question: str
    what: str = ""
    waited_s: float = 0.0
    first_s: float = 0.0


def bench_load(model: str = "nano", users: Iterable[int] = (1, 4, 16, 32), repeats: int = 2) -> dict[str, Any]:
    """For each number of users, who ask `repeats` questions each, all at once: "throughput", answers a second; "ttft_p50_s" and "ttft_p95_s", from the
    question to the first word or latent; "queue_wait_p50_s"; "errors"; "memory", bytes of main memory that the app holds then; and how many were
    "answered", "cancelled" and "differing" from the answer that one user alone got. Of four users one leaves as soon as he is in line.
    "cancelled_runs" counts what the app computed of those to the end. RequestError where the app does not serve."""
    users = tuple(users)
    places = {"LATENTOMNI_QUEUE": str(2 * max(users)), "LATENTOMNI_RUNS_MIB": "512"}
    with tempfile.TemporaryDirectory() as folder, served(model, folder, **places) as app:
        asks = _questions()
        alone = {}
        for clip, question in asks:
            first = _ask(Client(app.address, verbose=False, download_files=folder), clip, question)
            if first.fate != "answered":
                raise RequestError(f"The app did not answer {question!r} about {clip.name}; look at what it says with `python app.py --model {model}`.")
            alone[question] = first.what
        report: dict[str, Any] = {str(number): _crowd(app, folder, number, repeats, asks, alone) for number in users}
    return {**report, "repeats": repeats, "shape": f"{model}, {', '.join(map(str, users))} users over loopback, {repeats} questions each"}


def _questions() -> list[tuple[Path, str]]:
    """Examples, each with a question of its own."""
    known = json.loads((_EXAMPLES / "index.json").read_text(encoding="utf-8"))
    return [(_EXAMPLES / clip, about["questions"][0]) for clip, about in list(known.items())[:_QUESTIONS]]


def _crowd(app: Served, folder: str, users: int, repeats: int, asks: list[tuple[Path, str]], alone: dict[str, str]) -> dict[str, Any]:
    clients = [Client(app.address, verbose=False, download_files=folder) for _ in range(users)]
    finished, begun_s = gauge(app, 'runs_total{kind="question",state="finished"}'), time.monotonic()

    def visit(number: int) -> list[Asked]:
        leaves = number % _ONE_IN == _ONE_IN - 1
        return [_ask(clients[number], *asks[(number + n) % len(asks)], leaves=leaves) for n in range(repeats)]

    with ThreadPoolExecutor(users) as threads:
        done = [asked for visited in threads.map(visit, range(users)) for asked in visited]
    seconds = time.monotonic() - begun_s
    settled(app)
    finished = gauge(app, 'runs_total{kind="question",state="finished"}') - finished
    return summary(done, seconds, alone) | {
        "cancelled_runs": int(finished) - sum(asked.fate == "answered" for asked in done), "memory": int(gauge(app, "resident_bytes")),
    }  # fmt: skip


def _ask(client: Client, clip: Path, question: str, *, leaves: bool = False) -> Asked:
    try:
        job = client.submit(handle_file(str(clip)), question, api_name="/ask_video")
        if leaves:
            first_output(job, _WAIT_S)  # in line, or running
            if not job.done():
                job.cancel()
                return Asked("cancelled", question)
        told = job.result(_WAIT_S)
        return Asked("answered", question, json.dumps([told["text"], told["blocks"]]), told["waited_s"], told["first_s"] or 0.0)
    except CancelledError:
        return Asked("cancelled", question)
    except Exception:  # whatever went wrong, to a user it is one error
        return Asked("failed", question)


def summary(done: list[Asked], seconds: float, alone: dict[str, str]) -> dict[str, Any]:
    """The figures of a crowd; alone: what each question gets when one user asks it."""
    answered = [asked for asked in done if asked.fate == "answered"]
    first, waited = sorted(asked.first_s for asked in answered), sorted(asked.waited_s for asked in answered)
    return {
        "throughput": len(answered) / seconds, "ttft_p50_s": _quantile(first, 0.5), "ttft_p95_s": _quantile(first, 0.95),
        "queue_wait_p50_s": _quantile(waited, 0.5), "errors": sum(asked.fate == "failed" for asked in done), "answered": len(answered),
        "cancelled": sum(asked.fate == "cancelled" for asked in done), "differing": sum(asked.what != alone[asked.question] for asked in answered),
    }  # fmt: skip


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def gauge(app: Served, name: str) -> float:
    """A figure of the app's own /metrics; 0 where it was never counted."""
    with urllib.request.urlopen(f"{app.address}metrics", timeout=30) as page:
        found = re.search(rf"^latentomni_{re.escape(name)} (\S+)$", page.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def first_output(job: Job, timeout_s: float) -> Any:
    """What an endpoint tells first; iterating over a job would wait for ever where it failed before that. Raises what it failed with, and TimeoutError."""
    deadline_s = time.monotonic() + timeout_s
    while not (told := job.outputs()):
        if job.done():
            return job.result()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"nothing was told within {timeout_s:g} s")
        time.sleep(0.01)
    return told[0]


def settled(app: Served) -> None:
    """Wait until nothing runs or waits there. RequestError where that does not end."""
    deadline_s = time.monotonic() + _WAIT_S
    while gauge(app, "running") + gauge(app, "waiting"):
        if time.monotonic() > deadline_s:
            raise RequestError(f"The app still computes {_WAIT_S} s after the last question; its log may say why.")
        time.sleep(0.05)
