"""The clock: windows as text, clamped into a clip, cut into instants; seconds to position ids."""

from itertools import pairwise

import pytest

from latentomni.clock import POSITIONS_PER_SECOND, WINDOW_STEP_S, Window, position_offset

STEPS = [k * WINDOW_STEP_S for k in range(25)]


def test_every_written_window_reads_back():
    for start_s in STEPS:
        for end_s in STEPS:
            if start_s < end_s:
                window = Window(start_s, end_s)
                assert Window.parse(str(window)) == window
    assert str(Window(2, 4)) == "[2.0-4.0 s]"
    assert Window.parse(" [2.0-4.0 s]\n") == Window(2.0, 4.0)


@pytest.mark.parametrize(
    "text", ["", "[2.0-4.0 s", "2.0-4.0 s", "[4.0-2.0 s]", "[2.0-2.0 s]", "[2-4 s]", "[2.0-4.0]", "[-2.0-4.0 s]"]
)
def test_what_is_no_window_is_none(text):
    assert Window.parse(text) is None


@pytest.mark.parametrize("start_s, end_s", [(2, 2), (4, 2), (-1, 2), (float("nan"), 2), (0, float("inf"))])
def test_empty_and_endless_windows_are_refused(start_s, end_s):
    with pytest.raises(ValueError, match="0 <= start < end"):
        Window(start_s, end_s)


def test_clamping_keeps_what_is_inside_and_never_leaves_the_clip():
    for duration_s in (0.5, 3.0, 3.7, 6.0):
        for start_s in STEPS:
            for end_s in (s for s in STEPS if s > start_s):
                inside = Window(start_s, end_s).clamped(duration_s)
                assert 0 <= inside.start_s < inside.end_s <= duration_s
                if end_s <= duration_s:
                    assert inside == Window(start_s, end_s)
    assert Window(2.0, 9.0).clamped(6.0) == Window(2.0, 6.0)
    assert Window(8.0, 9.0).clamped(6.0) == Window(5.5, 6.0)
    assert Window(8.0, 9.0).clamped(0.04) == Window(0.0, 0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_instants_tile_the_window(count):
    instants = Window(1.5, 4.0).instants(count)
    assert len(instants) == count
    assert instants[0].start_s == 1.5
    assert instants[-1].end_s == pytest.approx(4.0)
    assert all(a.end_s == b.start_s for a, b in pairwise(instants))
    assert [i.duration_s for i in instants] == pytest.approx([2.5 / count] * count)


def test_overlap_of_windows():
    window = Window(2.0, 4.0)
    assert (window.iou(window), window.iou(Window(3.0, 5.0)), window.iou(Window(4.0, 5.0))) == (
        1.0,
        pytest.approx(1 / 3),
        0.0,
    )
    assert [window.contains(s) for s in (1.9, 2.0, 3.9, 4.0)] == [False, True, True, False]
    assert window.midpoint_s == 3.0


def test_positions_advance_25_a_second_and_halves_round_up():
    assert POSITIONS_PER_SECOND == 25
    assert [position_offset(s) for s in (0, 0.01, 0.02, 0.04, 0.1, 0.5, 1.0, 4.0)] == [0, 0, 1, 1, 3, 13, 25, 100]
    assert [position_offset(k / 25) for k in range(5000)] == list(range(5000))
