"""One clock for everything: seconds, samples, position ids, and the windows that are written as text.

Times are seconds from the start of the clip. Qwen2.5-Omni counts 25 position ids per second (TMRoPE); audio tokens are
40 ms long, so they advance by exactly one id.
"""

import math
import re
from dataclasses import dataclass

__all__ = ["POSITIONS_PER_SECOND", "SAMPLE_RATE_HZ", "WINDOW_STEP_S", "Window", "position_offset"]

SAMPLE_RATE_HZ = 16_000
POSITIONS_PER_SECOND = 25
WINDOW_STEP_S = 0.5
_WINDOW_TEXT = re.compile(r"\[(\d+\.\d)-(\d+\.\d) s\]")


def position_offset(time_s: float) -> int:
    """Position ids between the start of the media and `time_s` (seconds): 25 per second, halves round up."""
    return math.floor(time_s * POSITIONS_PER_SECOND + 0.5)


@dataclass(frozen=True)
class Window:
    """A span of the clip, in seconds from its start; never empty."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise ValueError(f"a window needs 0 <= start < end, got {self.start_s}-{self.end_s} s")

    @classmethod
    def parse(cls, text: str) -> "Window | None":
        """Read `[2.0-4.0 s]`; None where the text is no window or an empty one."""
        found = _WINDOW_TEXT.fullmatch(text.strip())
        if not found or float(found[1]) >= float(found[2]):
            return None
        return cls(float(found[1]), float(found[2]))

    def __str__(self) -> str:
        return f"[{self.start_s:.1f}-{self.end_s:.1f} s]"

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def contains(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s

    def iou(self, other: "Window") -> float:
        """Intersection over union of two windows, 0 to 1."""
        shared = min(self.end_s, other.end_s) - max(self.start_s, other.start_s)
        return max(shared, 0.0) / (self.duration_s + other.duration_s - max(shared, 0.0))

    def clamped(self, duration_s: float) -> "Window":
        """The part inside a clip of `duration_s`; its last step where nothing is left."""
        end_s = min(self.end_s, max(duration_s, WINDOW_STEP_S))
        return Window(max(min(self.start_s, end_s - WINDOW_STEP_S), 0.0), end_s)

    def instants(self, count: int) -> tuple["Window", ...]:
        """Cut into `count` equal instants."""
        edges = [self.start_s + self.duration_s * k / count for k in range(count + 1)]
        return tuple(Window(a, b) for a, b in zip(edges, edges[1:], strict=False))

    @property
    def midpoint_s(self) -> float:
        return (self.start_s + self.end_s) / 2
