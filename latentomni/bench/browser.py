"""The headless browser that measurements and tests drive, started where it can do no harm to what runs beside it."""

import os
import shlex
import shutil
from pathlib import Path

__all__ = ["BROWSERS", "FLAGS", "browser_command"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-zygote", "--disable-quic", "--no-first-run", "--disable-background-networking")


def browser_command(folder: Path) -> str | None:
    """What to start: a program or, where we are root, a script in `folder` that takes from it the right to raise its own priority.
    None without a browser.

    Chromium as root gives some of its threads real-time priority. On two busy cores those then spin for a lock that a thread
    of ordinary priority holds and never gets the time to release, and nothing else on the machine runs either.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    setpriv = shutil.which("setpriv")
    if path is None or setpriv is None or os.geteuid():
        return path
    script = folder / "browser"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(setpriv)} --bounding-set -sys_nice {shlex.quote(path)} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)
