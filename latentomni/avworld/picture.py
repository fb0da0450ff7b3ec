"""Draws a world: one coloured shape with an outline and a soft shadow on a soft background.

Shapes are signed distance functions, so that every size shows the same picture with smooth edges.
"""

import colorsys
import math
from functools import lru_cache

import numpy as np

from latentomni.avworld.world import SCENE_S, Scene, World

__all__ = ["render_frames"]

_RGB = {
    "red": (222, 45, 58),
    "orange": (250, 130, 22),
    "yellow": (252, 212, 32),
    "green": (40, 168, 84),
    "blue": (38, 104, 226),
    "purple": (142, 68, 190),
}
# points, outer radius, inner radius over outer, corner rounding, turn (radians) and drop that make it stand upright in
# the middle of its box; radii, rounding and drop in units of half the object's diameter
_FORMS = {
    "square": (4, 1.28, math.cos(math.pi / 4), 0.14, math.pi / 4, 0.0),
    "triangle": (3, 1.3, math.cos(math.pi / 3), 0.14, 0.0, 0.25),
    "star": (5, 1.22, 0.5, 0.08, 0.0, 0.08),
}
_OUTLINE = 0.09
_SHADOW_SHIFT, _SHADOW_BLUR, _SHADOW_DEPTH = 0.12, 0.3, 0.34


def render_frames(world: World, times_s: np.ndarray, size_px: int) -> np.ndarray:
    """(F, size_px, size_px, 3) uint8: the picture at each of `times_s`, (F,) seconds from clip start."""
    frames = np.empty((len(times_s), size_px, size_px, 3), np.uint8)
    for frame, time_s in zip(frames, times_s, strict=True):
        scene = world.scenes[min(int(time_s / SCENE_S), len(world.scenes) - 1)]
        frame[:] = _background(scene, size_px)
        _draw_object(frame, scene, float(time_s) - scene.window.start_s)
    return frames


@lru_cache(maxsize=8)
def _background(scene: Scene, size_px: int) -> np.ndarray:
    """(size_px, size_px, 3) uint8: a diagonal gradient of two muted colours with a soft light in the middle."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    x, y = axis[None, :, None], axis[:, None, None]
    blend = np.clip(x * math.cos(scene.phase) / 2 + y * math.sin(scene.phase) / 2 + 0.5, 0, 1)
    saturation = 0.16 + 0.16 * scene.warmth
    first = np.array(colorsys.hsv_to_rgb(scene.hue, saturation, 0.88), np.float32)
    second = np.array(colorsys.hsv_to_rgb((scene.hue + 0.12) % 1, saturation + 0.06, 0.74), np.float32)
    light = 0.06 * np.exp(-((x - 0.5) ** 2 + (y - 0.45) ** 2) / 0.18)
    return np.clip((first + (second - first) * blend + light) * 255 + 0.5, 0, 255).astype(np.uint8)


def _pose(scene: Scene, elapsed_s: float) -> tuple[float, float, float, float]:
    """Centre x and y, radius (shares of the frame) and turn (radians) of the object, `elapsed_s` into its scene."""
    x, y, radius, turn = *scene.centre, scene.diameter / 2, 0.0
    swing = math.sin(2 * math.pi * elapsed_s / SCENE_S + scene.phase)
    if scene.motion == "drift":
        way = 0.04 * (elapsed_s / SCENE_S - 0.5)
        x, y = x + way * math.cos(scene.heading), y + way * math.sin(scene.heading)
    elif scene.motion == "bob":
        y += 0.02 * swing
    elif scene.motion == "spin":
        turn = 0.3 * swing
    else:
        radius *= 1 + 0.05 * swing
    return x, y, radius, turn


def _draw_object(frame: np.ndarray, scene: Scene, elapsed_s: float) -> None:
    """Paint the object of `scene` into `frame`, (H, W, 3) uint8, in place; only the box around it is touched."""
    size_px = len(frame)
    x, y, radius, turn = _pose(scene, elapsed_s)
    reach = 1.7 * radius
    left, right = max(int((x - reach) * size_px), 0), min(math.ceil((x + reach) * size_px), size_px)
    top, bottom = max(int((y - reach) * size_px), 0), min(math.ceil((y + reach) * size_px), size_px)
    u = ((np.arange(left, right, dtype=np.float32) + 0.5) / size_px - x)[None, :] / radius
    v = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / size_px - y)[:, None] / radius
    pixel = 1 / (size_px * radius)
    distance = _signed_distance(scene.shape, u, v, turn)
    shadow = _signed_distance(scene.shape, u, v - _SHADOW_SHIFT, turn) - _OUTLINE
    shade = np.clip(0.5 - shadow / (2 * _SHADOW_BLUR), 0, 1)
    shade = shade * shade * (3 - 2 * shade) * _SHADOW_DEPTH
    rim = np.clip(0.5 - (distance - _OUTLINE) / pixel, 0, 1)[..., None]
    fill = np.clip(0.5 - distance / pixel, 0, 1)[..., None]
    colour = np.array(_RGB[scene.colour], np.float32) * (1 - 0.1 * v)[..., None] + 8
    patch = frame[top:bottom, left:right] * (1 - shade)[..., None]
    patch += (250 - patch) * rim
    patch += (colour - patch) * fill
    frame[top:bottom, left:right] = np.clip(patch + 0.5, 0, 255).astype(np.uint8)


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray, turn: float) -> np.ndarray:
    """Distance to the edge, negative inside. u: (1, W), v: (H, 1), right and down from the centre, in radii."""
    if shape == "circle":
        return np.hypot(u, v) - 1
    points, outer, inner, rounding, upright, drop = _FORMS[shape]
    v = v - drop
    half_angle = math.pi / points
    # fold the plane onto half of one point of the shape: its edge is then a single segment from a to b
    angle = np.arctan2(u, -v) + (turn + upright)
    angle = np.abs((angle + half_angle) % (2 * half_angle) - half_angle)
    length = np.hypot(u, v)
    px, py = length * np.cos(angle), length * np.sin(angle)
    shrunk = outer - rounding / math.sin(math.atan2(inner * math.sin(half_angle), 1 - inner * math.cos(half_angle)))
    bx, by = shrunk * inner * math.cos(half_angle), shrunk * inner * math.sin(half_angle)
    ex, ey = bx - shrunk, by
    along = np.clip(((px - shrunk) * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
    distance = np.hypot(px - shrunk - along * ex, py - along * ey)
    outside = ex * py - ey * (px - shrunk) < 0
    return np.where(outside, distance, -distance) - rounding
