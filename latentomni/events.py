"""What a run tells, step by step: frozen values with numpy arrays only. `trace.Trace.from_events` folds them.

A stream is: Started, then TextDelta / LatentOpened / LatentStep ... / LatentClosed in the order of decoding, then Finished.
Dimensions: D latent width, N evidence moments, F thumbnails.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from latentomni.clock import Window

__all__ = ["ClipRecord", "Event", "Finished", "LatentClosed", "LatentOpened", "LatentStep", "Match", "Moments",
           "Started", "TextDelta"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Moments:
    """The clip's own features of one modality, one row per moment (for video: per moment and grid cell).

    start_s, end_s: (N,) seconds from clip start. cells: (N, 4) top, left, bottom, right as shares of the frame (0 to 1);
    all 0, 0, 1, 1 for sound. features: (N, D) float32, in the space latents live in.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    cells: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.features)
        if not (self.start_s.shape == self.end_s.shape == (n,) and self.cells.shape == (n, 4)):
            raise ValueError(f"moments disagree: {self.start_s.shape}, {self.end_s.shape}, {self.cells.shape}, {self.features.shape}")


@dataclass(frozen=True, eq=False)
class ClipRecord:
    """What is kept of a clip so that it can be shown without the file.

    thumbnails: F JPEG pictures; thumbnail_times_s: (F,) seconds. sound: (N,) int16 at 16 kHz, or None.
    sha256: names what was read, file_sha256 the file (`media.Clip`).
    notices: sentences about what was missing or cut ("this clip has no sound").
    """

    name: str
    sha256: str
    duration_s: float
    thumbnails: tuple[bytes, ...]
    thumbnail_times_s: np.ndarray
    sound: np.ndarray | None
    notices: tuple[str, ...] = ()
    file_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "file_sha256", self.file_sha256 or self.sha256)


@dataclass(frozen=True)
class Match:
    """One evidence moment that a latent is similar to; `rank` 1 is the most similar of its modality."""

    moment: int
    start_s: float
    end_s: float
    cell: tuple[float, float, float, float]
    score: float
    rank: int


@dataclass(frozen=True, eq=False)
class Started:
    """The run begins; features are computed. `model` and `weights` ("nano", "random", "pretrained") say who answers, `spec`,
    `sampling` and `reading` (of LatentSpec, SamplingSpec and ReadingSpec) with which settings. collapse: of the model's latents over many
    clips, the measures of `evidence.Collapse` by name; empty where nobody has measured them. quantization: of QuantizationSpec."""

    question: str
    mode: str
    flow: str
    model: str
    weights: str
    spec: dict[str, Any]
    sampling: dict[str, Any]
    clip: ClipRecord
    visual: Moments
    audio: Moments
    prompt_tokens: int
    has_null: bool
    reading: dict[str, Any] = field(default_factory=dict)
    collapse: dict[str, float | None] = field(default_factory=dict)
    quantization: str = "none"


@dataclass(frozen=True)
class TextDelta:
    """New answer text; `token_ids` are the tokens it came from. `elapsed_s` since the run began."""

    text: str
    token_ids: tuple[int, ...]
    elapsed_s: float


@dataclass(frozen=True)
class LatentOpened:
    """A latent block begins. `window_source`: "model", "clamped" (was outside the clip) or "nominal" (none written)."""

    block: int
    window: Window
    window_source: str
    elapsed_s: float


@dataclass(frozen=True, eq=False)
class LatentStep:
    """One latent: the vector that is fed back, (D,) float32, and the moments of its modality it is most similar to.

    modality: "visual" or "audio". time_s: its place on the clip's clock (OSPE), seconds. cell: row and column of the
    block's grid, None for audio. matches: best first. p: against the donor null, uncorrected; None without a null.
    scores: (T,) the best score at each distinct time of its modality (`EvidenceBank.by_time`), or None. cell_scores:
    (G,) of all moments that share the best one's time (`EvidenceBank.beside`), or None. null_level: a score above it
    has p <= 0.05, or None.
    """

    block: int
    index: int
    modality: str
    instant: int
    cell: tuple[int, int] | None
    time_s: float
    vector: np.ndarray
    matches: tuple[Match, ...] = ()
    p: float | None = None
    elapsed_s: float = 0.0
    scores: np.ndarray | None = None
    cell_scores: np.ndarray | None = None
    null_level: float | None = None


@dataclass(frozen=True)
class LatentClosed:
    """The block is complete. `p`: one corrected p-value per latent (Benjamini-Hochberg in the block), None without a null."""

    block: int
    p: tuple[float, ...] | None
    elapsed_s: float


@dataclass(frozen=True)
class Finished:
    """The run ends. `reason`: "stop", or a key of `ENDINGS`, which says it in a sentence. Times in seconds. kv_tokens: whose keys and values
    are held at the end. memory_bytes: most that the device's memory held for this process so far."""

    ENDINGS: ClassVar[dict[str, str]] = {"length": "The answer was cut at the token limit.", "cancelled": "The answer was stopped."}

    reason: str
    answer: str
    tokens: int
    ttft_s: float
    elapsed_s: float
    notices: tuple[str, ...] = field(default=())
    kv_tokens: int = 0
    memory_bytes: int = 0


Event = Started | TextDelta | LatentOpened | LatentStep | LatentClosed | Finished
