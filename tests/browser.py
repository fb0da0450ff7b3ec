"""The one place that starts a browser for tests. No test with a browser outlives its limit, and no browser outlives the tests.

pytest-timeout ends the whole run from a thread when a test exceeds its limit, so nothing after that can clean up. What a run
starts here therefore carries a token in its environment, and a watcher process, told by a pipe that closes however this
process ends, kills whatever still carries it.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from latentomni.bench.browser import FLAGS, find_browser

__all__ = ["LIMIT_S", "browser"]

LIMIT_S = 120
_TOKEN = "LATENTOMNI_TEST_BROWSER"
_WATCHER = """
import os, signal, sys
sys.stdin.buffer.read()  # until the other end is closed
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if sys.argv[1].encode() in file.read().split(b"\\0"):
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass  # gone already, or not ours
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium; the test is skipped where none is installed. A browser is no Python package, so the test extra
    cannot bring it; continuous integration installs one."""
    playwright = pytest.importorskip("playwright.sync_api")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a test made this process real-time; Chromium would inherit it and block the machine"
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium is installed")
    token = uuid.uuid4().hex
    watcher = _watcher(token)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(_TOKEN, token)  # for the driver and, through it, for Chromium and its children
            driver = playwright.sync_playwright().start()
        chromium = driver.chromium.launch(executable_path=path, args=list(FLAGS), timeout=LIMIT_S * 1000 / 2)
        yield chromium
        chromium.close()
        driver.stop()
    finally:
        watcher.stdin.close()
        watcher.wait(30)


def _watcher(token: str) -> subprocess.Popen:
    """In a session of its own, so that what ends the tests by their process group does not end it."""
    command = [sys.executable, "-c", _WATCHER if os.path.isdir("/proc/self") else "", f"{_TOKEN}={token}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
