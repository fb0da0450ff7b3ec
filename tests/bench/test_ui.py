"""The page's benchmark: what it tells, and that it says what is missing."""

import pytest

from latentomni.bench import ui
from latentomni.bench.browser import find_browser
from latentomni.errors import RequestError


def test_a_missing_browser_is_said(monkeypatch):
    pytest.importorskip("playwright")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="install chromium"):
        ui.bench_ui()


def test_long_tasks_are_summed_over_forty_latents():
    assert ui.first_latents([(10, 1.0), (20, 2.0), (10, 3.0), (10, 4.0)]) == [(10, 1.0), (20, 2.0), (10, 3.0)]
    assert ui.first_latents([(10, 1.0)]) == [(10, 1.0)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_every_figure_is_measured():
    pytest.importorskip("playwright")  # not the fixture `browser`: the benchmark starts its own, and a thread has one at a time
    report = ui.bench_ui(repeats=1)
    assert report["latents"] >= 40
    for name in ("first_cell_s", "first_visit_s", "seek_ms", "stop_s", "long_task_ms", "layout_shift", "example_open_s"):
        assert report[name] >= 0
