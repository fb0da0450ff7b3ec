"""The server for who runs it: /health and /metrics beside the page, and an end that lets answers finish."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import latentomni
from app.journal import SECONDS
from app.shared import journal, line, runs, runtime
from latentomni.memory import give_back, resident_bytes, trim

__all__ = ["health", "metrics", "routes", "until_stopped"]

_BEGUN_S = time.monotonic()
_TRIM_S = 10.0
_SWEEP_S = 600.0
_DELIVERY_S = 5.0  # what clients have to fetch their last words


def routes() -> list[Route]:
    """For the app that gradio makes; they come before gradio's own."""
    return [Route("/health", _health), Route("/metrics", _metrics)]


async def _health(request: Request) -> JSONResponse:
    told = health()
    return JSONResponse(told, 503 if told["status"] in ("stopping", "stuck") else 200, {"Cache-Control": "no-store"})


async def _metrics(request: Request) -> PlainTextResponse:
    return PlainTextResponse(metrics(), media_type="text/plain; version=0.0.4")


def health() -> dict[str, Any]:
    """status: "ok", "stopping", or "stuck" where a run goes on long after its limit, which only a new start ends. weights and device are
    None before the model is loaded."""
    status = "stopping" if line.is_closed else "stuck" if line.is_stuck else "ok"
    return {
        "status": status, "model": Path(runtime.name).name, **runtime.facts(), "queue": line.waiting, "running": line.running,
        "uptime_s": round(time.monotonic() - _BEGUN_S, 1), "version": latentomni.__version__,
    }  # fmt: skip


def metrics() -> str:
    """In Prometheus' text format."""
    runs = [(f'{{kind="{kind}",state="{state}"}}', count) for (kind, state), count in sorted(journal.runs.items())]
    first, below = journal.first, 0
    classes = []
    for bound, count in zip((*SECONDS, "+Inf"), first, strict=True):
        below += count
        classes.append((f'_bucket{{le="{bound}"}}', below))
    return "".join([
        _family("runs_total", "counter", "Runs by kind and by the state they came to.", runs),
        _family("first_token_seconds", "histogram", "From the question to the first word or latent, waiting included.",
                [*classes, ("_sum", round(journal.first_sum_s, 6)), ("_count", below)]),
        _family("waiting", "gauge", "Runs in line.", [("", line.waiting)]),
        _family("running", "gauge", "Runs that use the model.", [("", line.running)]),
        _family("resident_bytes", "gauge", "Main memory of this process.", [("", resident_bytes())]),
        _family("uptime_seconds", "gauge", "Since the start.", [("", round(time.monotonic() - _BEGUN_S, 1))]),
    ])  # fmt: skip


def _family(name: str, kind: str, about: str, samples: list[tuple[str, float]]) -> str:
    full = f"latentomni_{name}"
    return f"# HELP {full} {about}\n# TYPE {full} {kind}\n" + "".join(f"{full}{label} {value}\n" for label, value in samples)


def until_stopped(demo: gr.Blocks) -> None:
    """Serve until SIGTERM: then nothing new is taken, and what runs has its grace to end before it is cut. Ctrl-C ends at once."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    journal.event("server started", version=latentomni.__version__, model=Path(runtime.name).name)
    swept_s = time.monotonic()
    try:
        while not told.wait(_TRIM_S):
            trim()
            if time.monotonic() - swept_s > _SWEEP_S:
                runs.sweep()
                give_back()
                swept_s = time.monotonic()
    except KeyboardInterrupt:
        demo.close()
        return
    journal.event("server stopping", waiting=line.waiting, running=line.running)
    is_empty = line.close(line.limits.grace_s)
    _await_delivery(demo)
    demo.close()
    journal.event("server stopped", was_stuck=not is_empty)
    if not is_empty:  # its thread would keep the process alive
        os._exit(1)


def _await_delivery(demo: gr.Blocks) -> None:
    """Until gradio has sent what its events came to."""
    deadline_s = time.monotonic() + _DELIVERY_S
    while any(demo._queue.pending_event_ids_session.values()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
