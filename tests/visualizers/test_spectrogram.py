"""Tones come out in their band and at their time; the size is bounded; silence is dark."""

import numpy as np
import pytest

from visualizers.spectrogram import compute_spectrogram

RATE_HZ = 16_000


def tone(hz, start_s, end_s, seconds=4.0):
    times_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (9_000 * np.sin(2 * np.pi * hz * times_s) * ((times_s >= start_s) & (times_s < end_s))).astype(np.int16)


@pytest.mark.parametrize("hz", [200, 440, 1_000, 3_000, 6_500])
def test_a_tone_is_loudest_in_its_own_band(hz):
    shown = compute_spectrogram(tone(hz, 0, 4), RATE_HZ)
    loudest = shown.levels[50:150].mean(axis=0).argmax()
    width_hz = max(RATE_HZ / 512, shown.edges_hz[loudest + 1] - shown.edges_hz[loudest])
    assert shown.edges_hz[loudest] - width_hz <= hz <= shown.edges_hz[loudest + 1] + width_hz


def test_a_tone_is_loud_while_it_sounds():
    shown = compute_spectrogram(tone(1_000, 1.0, 2.5), RATE_HZ)
    loud_s = np.flatnonzero(shown.levels.max(axis=1) > 200) / shown.hz
    assert (loud_s.min(), loud_s.max()) == pytest.approx((1.0, 2.48), abs=1.1 / shown.hz)
    assert shown.levels[: int(0.9 * shown.hz)].max() == 0


def test_long_sound_gets_fewer_windows_and_short_sound_one():
    long = compute_spectrogram(np.zeros(600 * RATE_HZ, np.int16), RATE_HZ)
    assert long.levels.nbytes <= 256 * 1024
    assert len(long.levels) == int(600 * long.hz)
    assert compute_spectrogram(np.ones(3, np.int16), RATE_HZ).levels.shape == (1, 64)
    assert compute_spectrogram(tone(400, 0, 4)[::4], RATE_HZ // 4).edges_hz[-1] == pytest.approx(2_000)


def test_silence_and_the_noise_of_a_silent_track_are_dark():
    assert compute_spectrogram(np.zeros(RATE_HZ, np.int16), RATE_HZ).levels.max() == 0
    noise = np.random.default_rng(0).integers(-1, 2, RATE_HZ).astype(np.int16)
    assert compute_spectrogram(noise, RATE_HZ).levels.max() < 128
