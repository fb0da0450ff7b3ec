"""`app.py` in a process of its own, as whoever runs a server has it. Every wait is bounded, and the process ends with the measurement."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latentomni.errors import RequestError

__all__ = ["Served", "served"]

_ROOT = Path(__file__).parents[2]
_START_S = 180


@dataclass(frozen=True)
class Served:
    """address ends with a slash. log: what the app wrote to stdout and stderr. cache: its folder of uploads and answers."""

    address: str
    process: subprocess.Popen
    log: Path
    cache: Path


@contextmanager
def served(model: str, folder: str | Path, **environment: str) -> Iterator[Served]:
    """The app, serving a model on a free port of this machine, with cache and log in a folder that exists; its process group is killed at
    the end. environment: more of it. Raises RequestError where it ends before it serves, or does not serve in time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    cache, log = Path(folder, "cache"), Path(folder, "app.log")  # whatever lies in the cache can be fetched by its path
    cache.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "LATENTOMNI_CACHE": str(cache), **environment}
    with log.open("ab") as words:  # a file, for a pipe that nobody reads stops the app once it is full
        server = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=words, stderr=words, start_new_session=True)
    try:
        _await_port(server, port, log)
        yield Served(f"http://127.0.0.1:{port}/", server, log, cache)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _await_port(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RequestError(f"The app ended before it served: {log.read_text(errors='replace').strip()[-300:]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RequestError(f"The app did not serve within {_START_S} s; try again on a machine with less to do.")
