"""A page that spins forever ends its test, the run and the browser: nothing that tests start can be left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPINNING = """
import pytest

@pytest.mark.timeout(8)
def test_spins(browser):
    page = browser.new_page()
    print("spinning", flush=True)
    page.evaluate("while (true) {}")
"""


def processes_with(variable):
    """Ids of the processes that were started with this variable in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")
def test_a_spinning_page_ends_the_run_and_leaves_no_process(browser, tmp_path):
    (tmp_path / "test_spinning.py").write_text(SPINNING)
    environment = {**os.environ, "LATENTOMNI_TEST_SPINNING": tmp_path.name, "PYTHONPATH": str(ROOT)}
    options = ["-p", "tests.browser", "-o", "timeout_method=thread", "-s", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_spinning.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90
    )  # fmt: skip
    assert done.returncode != 0
    assert "spinning" in done.stdout and "Timeout" in done.stdout + done.stderr
    # the pipes of the run above are read to their end, so the watcher has ended; what it killed may take a moment to be gone
    deadline_s = time.monotonic() + 20
    while (left := processes_with(f"LATENTOMNI_TEST_SPINNING={tmp_path.name}")) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert left == []
