"""How loud the sound of a clip is in each band of pitch, small enough to travel with a page. Needs numpy alone.

Dimensions: W windows of sound, B bands.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Spectrogram", "compute_spectrogram"]

_BANDS, _HZ = 64, 50
_WINDOW = 512  # samples; 32 ms at 16 kHz
_LOWEST_HZ = 50.0
_RANGE_DB = 70.0
_BYTES = 256 * 1024  # a longer clip gets fewer windows a second
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Spectrogram:
    """levels: (W, B) uint8, 255 the loudest, 0 70 dB below it or less; lowest band first. hz: windows a second; window i
    is centred on i / hz seconds. edges_hz: (B + 1,) borders of the bands, evenly spaced on the mel scale.
    """

    levels: np.ndarray
    hz: float
    edges_hz: np.ndarray


def compute_spectrogram(sound: np.ndarray, sound_hz: int) -> Spectrogram:
    """Of (N,) int16 samples; mel(f) = 2595 log10(1 + f / 700), triangles without overlap of more than one band."""
    samples = np.asarray(sound, np.float32) / 32_768
    hz = min(float(_HZ), _BYTES / _BANDS / max(len(samples) / sound_hz, 1e-6))
    centres = (np.arange(max(1, int(len(samples) / sound_hz * hz))) * sound_hz / hz).astype(int)
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    bands, edges_hz = _bands(sound_hz)
    power = np.concatenate([
        np.square(np.abs(np.fft.rfft(padded[chunk[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)))) @ bands
        for chunk in np.split(centres, range(_CHUNK, len(centres), _CHUNK))
    ])  # fmt: skip
    decibel = 10 * np.log10(power + 1e-10)
    loudest = max(float(decibel.max()), -20.0)  # so that the noise of a silent track stays dark
    levels = np.round((decibel - loudest + _RANGE_DB) / _RANGE_DB * 255).clip(0, 255).astype(np.uint8)
    return Spectrogram(levels, hz, edges_hz)


def _bands(sound_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """(bins, B) weights that sum to one a band, and the (B + 1,) borders in Hz."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (_LOWEST_HZ, sound_hz / 2))
    marks = np.linspace(low, high, 2 * _BANDS + 1)
    marks_hz = 700 * (10 ** (marks / 2595) - 1)
    edges_hz, middles_hz = marks_hz[::2], marks_hz[1::2]
    bins_hz = np.fft.rfftfreq(_WINDOW, 1 / sound_hz)[:, None]
    reach_hz = np.maximum(np.diff(edges_hz), sound_hz / _WINDOW)  # low bands are narrower than one bin
    weights = np.maximum(0.0, 1 - np.abs(bins_hz - middles_hz) / reach_hz)
    return weights / np.maximum(weights.sum(axis=0), 1e-12), edges_hz
