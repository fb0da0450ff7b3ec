"""Synthesises the sound of a world: six kinds of event over a faint background.

An event is one to three bursts. What goes on inside a burst (strokes, ticks, whistles, the siren's sweep) is much faster
than the bursts follow each other, so that a person hears which of the two to count.
"""

from collections.abc import Callable

import numpy as np

from latentomni.avworld.world import SPLITS, Scene, World
from latentomni.clock import SAMPLE_RATE_HZ

__all__ = ["render_sound"]

_PEAK, _POWER = 0.8, 0.16  # the louder a voice's power, the lower its peak: all kinds seem about equally loud
_RELEASE_S = 0.05


def render_sound(world: World) -> np.ndarray:
    """(N,) float32, 16 kHz mono, N = 16000 * duration; peak at most 0.9."""
    rng = np.random.default_rng([SPLITS.index(world.split), world.seed, 1])  # apart from the draws of sample_world
    count = round(world.duration_s * SAMPLE_RATE_HZ)
    wave = world.noise * _soft_noise(rng, count)
    for scene in world.scenes:
        for burst in scene.bursts:
            played = _render_burst(scene, burst.duration_s, rng)
            first = round(burst.start_s * SAMPLE_RATE_HZ)
            wave[first : first + len(played)] += played
    return np.clip(wave, -0.9, 0.9).astype(np.float32)


def _render_burst(scene: Scene, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """(N,) samples of the scene's sound played once, faded in and out; loudness 1 is full level."""
    time_s = np.arange(round(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    burst = _VOICES[scene.sound](time_s, scene.pitch, rng)
    attack_s = 0.002 if scene.sound in ("bell", "clicks", "drum") else 0.02
    burst *= np.clip(time_s / attack_s, 0, 1) * np.clip(time_s[::-1] / _RELEASE_S, 0, 1)
    return burst * scene.loudness * min(_PEAK / np.abs(burst).max(), _POWER / np.sqrt(np.mean(burst**2)))


def _soft_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) noise of about unit power, its high frequencies damped as in a quiet room."""
    white = rng.standard_normal(count + 7)
    return np.convolve(white, np.ones(8) / np.sqrt(8), mode="valid")


def _bell(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    partials = ((0.5, 0.3, 2), (1, 1, 2.4), (1.2, 0.5, 3), (2, 0.6, 4), (2.76, 0.35, 6), (5.4, 0.15, 11))
    tones = [a * np.exp(-d * time_s) * np.sin(2 * np.pi * 900 * pitch * r * time_s) for r, a, d in partials]
    return np.sum(tones, axis=0)


def _buzz(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * 115 * pitch * time_s
    saw = np.sum([np.sin(k * phase) / k**0.8 for k in range(1, 16)], axis=0)
    return saw * (0.75 + 0.25 * np.sin(2 * np.pi * 27 * time_s))


def _chirp(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A bird's call: short rising whistles, nine a second."""
    beat = (time_s * 9) % 1
    voiced = np.clip(beat / 0.7, 0, 1)
    frequency_hz = pitch * (2300 + 1500 * voiced**1.5)
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ
    return np.sin(phase) * np.sin(np.pi * voiced) ** 0.7


def _clicks(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Wooden ticks, sixteen a second."""
    since_s = (time_s * 16 % 1) / 16
    tick = np.sin(2 * np.pi * 1700 * pitch * since_s) + 0.6 * np.sin(2 * np.pi * 2900 * pitch * since_s)
    return (tick + 0.5 * rng.standard_normal(len(time_s))) * np.exp(-since_s / 0.01)


def _siren(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    frequency_hz = pitch * (850 - 300 * np.cos(2 * np.pi * 5 * time_s))
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ
    return np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)


def _drum(time_s: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A roll on a hand drum, twelve strokes a second."""
    since_s = (time_s * 12 % 1) / 12
    sweep_s = since_s + 0.03 * (1 - np.exp(-since_s / 0.03))  # the pitch falls after each stroke
    skin = np.sin(2 * np.pi * 110 * pitch * sweep_s) + 0.4 * np.sin(2 * np.pi * 175 * pitch * sweep_s)
    slap = 0.5 * _soft_noise(rng, len(time_s)) * np.exp(-since_s / 0.012)
    return skin * np.exp(-since_s / 0.06) + slap


_VOICES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "bell": _bell,
    "buzz": _buzz,
    "chirp": _chirp,
    "clicks": _clicks,
    "siren": _siren,
    "drum": _drum,
}
