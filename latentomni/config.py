"""Frozen settings. `LatentSpec` is saved in a checkpoint's config and is the only source of the block's shape."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any, get_args

from latentomni.errors import RequestError, plain, require

__all__ = [
    "AttentionFlow",
    "LatentSpec",
    "MediaLimits",
    "Mode",
    "PositionVariant",
    "QuantizationSpec",
    "ReadingSpec",
    "SamplingSpec",
    "VideoSpec",
]


_CHANGEABLE = ("instants", "positions", "flow")
_MAX_INSTANTS = 64
_READ_PIXELS = (28 * 28, 768 * 28 * 28)
_MIN_CUT_S = 0.1


class _Name(str, Enum):  # enum.StrEnum needs Python 3.11; 3.10 is supported
    __str__ = str.__str__

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise RequestError(f"unknown {cls.__name__} '{plain(value, 40)}'; choose one of {', '.join(cls)}.")


class Mode(_Name):
    """How an answer is reasoned: through latent blocks, in words about what is seen and heard, or not at all."""

    LATENT = "latent"
    TEXT_COT = "text-cot"
    DIRECT = "direct"


class AttentionFlow(_Name):
    """Who may see the media (attention_flow.py)."""

    OPEN = "open"
    PAPER = "paper"
    STRICT = "strict"


class PositionVariant(_Name):
    """Where latents stand on the clip's clock (positions.py)."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"
    SEQUENTIAL = "sequential"
    UPSTREAM = "upstream"


class QuantizationSpec(_Name):
    """How the language model's linear layers are stored; towers, embeddings, output layer and latent head never are."""

    NONE = "none"
    INT8 = "int8"
    NF4 = "nf4"


@dataclass(frozen=True)
class LatentSpec:
    """Shape and rules of a latent block: `instants` x `rows` x `columns` visual latents, then `instants` audio latents.

    `visual`, `audio`: whether a block has latents of that modality; one of the two may be missing, for ablation.
    `writes_window`: the model writes `[2.0-4.0 s]` after the trigger; otherwise a nominal window is used and marked.
    `has_head`: a linear map from hidden state to latent (nano); without it the hidden state is the latent (paper eq. 2).
    `single_turn`: trained on single questions only (nano); every question is then asked behind the clip alone.
    `is_trained`: whether the model ever learned latents; one that did not, such as a base model, opens no block by itself.
    """

    instants: int = 8
    rows: int = 2
    columns: int = 2
    flow: AttentionFlow = AttentionFlow.PAPER
    positions: PositionVariant = PositionVariant.ABSOLUTE
    writes_window: bool = False
    has_head: bool = False
    max_window_tokens: int = 16
    single_turn: bool = False
    visual: bool = True
    audio: bool = True
    is_trained: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow", AttentionFlow(self.flow))
        object.__setattr__(self, "positions", PositionVariant(self.positions))
        for name in ("instants", "rows", "columns", "max_window_tokens"):
            require(getattr(self, name) >= 1, f"LatentSpec.{name} must be at least 1, got {getattr(self, name)}.")
        require(self.visual or self.audio, "a latent block needs visual latents, audio latents or both; LatentSpec has neither.")

    @property
    def n_visual(self) -> int:
        return self.instants * self.rows * self.columns * self.visual

    @property
    def n_audio(self) -> int:
        return self.instants * self.audio

    @property
    def n_latents(self) -> int:
        return self.n_visual + self.n_audio

    @property
    def default_mode(self) -> Mode:
        """How the model answers where nothing else is asked for."""
        return Mode.LATENT if self.is_trained else Mode.DIRECT

    @property
    def echoes(self) -> bool:
        """Under the strict flow the question's tokens are repeated inside the block, where they may see the media."""
        return self.flow is AttentionFlow.STRICT

    def to_dict(self) -> dict[str, Any]:
        return {k: str(v) if isinstance(v, Enum) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LatentSpec":
        _require_known(values, [f.name for f in fields(cls)], "latent")
        return cls(**values)

    def changed(self, changes: dict[str, Any] | None) -> "LatentSpec":
        """With other `instants`, `positions` or `flow`, which a model can be asked to try; None leaves one as it is."""
        changes = {name: value for name, value in (changes or {}).items() if value is not None}
        _require_known(changes, _CHANGEABLE, "latent")
        instants = changes.get("instants", self.instants)
        require(type(instants) is int and 1 <= instants <= _MAX_INSTANTS, f"a block has 1 to {_MAX_INSTANTS} instants, got {plain(repr(instants), 40)}.")
        return replace(self, **changes)


@dataclass(frozen=True)
class VideoSpec:
    """How frames become patches: sampling rate (lower where a clip would have more than `max_frames`) and pixels per frame
    (after resizing to multiples of 28)."""

    fps: float = 2.0
    min_pixels: int = 56 * 56
    max_pixels: int = 256 * 28 * 28
    patch_px: int = 14
    temporal_patch: int = 2
    merge: int = 2
    max_frames: int = 768

    def __post_init__(self) -> None:
        require(self.fps > 0, f"fps must be positive, got {self.fps}.")
        require(0 < self.min_pixels <= self.max_pixels, "min_pixels must be positive and at most max_pixels.")
        require(self.max_frames >= 1, f"max_frames must be at least 1, got {self.max_frames}.")

    @property
    def factor_px(self) -> int:
        return self.patch_px * self.merge

    def limits(self, base: "MediaLimits | None" = None) -> "MediaLimits":
        """What a clip may be that is read for this model."""
        base = base or MediaLimits()
        return replace(base, max_frames=min(base.max_frames, self.max_frames))


@dataclass(frozen=True)
class ReadingSpec:
    """What of a file is read, and how finely; None is what the model was trained with.

    fps: frames per second. max_pixels: of a frame as the model sees it. start_s, end_s: the cut, seconds of the file; the
    times of the clip itself always run from 0. picture, sound: whether each is read; one of the two may be off.
    """

    fps: float | None = None
    max_pixels: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    picture: bool = True
    sound: bool = True

    def __post_init__(self) -> None:
        _require_types(self)
        for name in ("fps", "start_s", "end_s"):  # 2 and 2.0 are one reading
            if isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))
        require(self.fps is None or 0.05 <= self.fps <= 30, f"fps must be between 0.05 and 30, got {self.fps}.")
        low, high = _READ_PIXELS
        require(self.max_pixels is None or low <= self.max_pixels <= high, f"max_pixels must be {low} to {high}, got {self.max_pixels}.")
        require(0 <= self.start_s < math.inf, f"a cut starts at 0 s or later, got {self.start_s}.")
        ends_later = self.end_s is None or self.start_s + _MIN_CUT_S <= self.end_s < math.inf
        require(ends_later, f"a cut ends at least {_MIN_CUT_S} s after its start, got {self.start_s} to {self.end_s} s.")
        require(self.picture or self.sound, "picture and sound are both switched off; switch one of them on.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ReadingSpec":
        """Raises RequestError, for wrong types too: traces come from anywhere."""
        _require_known(values, [f.name for f in fields(cls)], "reading")
        return cls(**values)

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the plain reading."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def video(self, trained: VideoSpec) -> VideoSpec:
        """The model's own frames and pixels but for what is changed here."""
        pixels = self.max_pixels or trained.max_pixels
        return replace(trained, fps=self.fps or trained.fps, max_pixels=pixels, min_pixels=min(trained.min_pixels, pixels))


@dataclass(frozen=True)
class MediaLimits:
    """What a file may be before it is refused. max_read_s, max_memory_bytes: what reading it in a process of its own may take."""

    max_duration_s: float = 600.0
    max_bytes: int = 512 * 2**20
    max_frame_pixels: int = 8192 * 8192
    max_frames: int = 768
    max_streams: int = 64
    max_read_s: float = 300.0
    max_memory_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        for f in fields(self):
            require(getattr(self, f.name) > 0, f"MediaLimits.{f.name} must be positive.")


@dataclass(frozen=True)
class SamplingSpec:
    """How tokens are chosen. Temperature 0 is greedy; `max_blocks` bounds latent blocks per answer."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256
    max_blocks: int = 4

    def __post_init__(self) -> None:
        _require_types(self)
        require(0 <= self.temperature <= 5, f"temperature must be between 0 and 5, got {self.temperature}.")
        require(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, got {self.top_p}.")
        require(1 <= self.max_new_tokens <= 8192, f"max_new_tokens must be 1 to 8192, got {self.max_new_tokens}.")
        require(0 <= self.max_blocks <= 64, f"max_blocks must be 0 to 64, got {self.max_blocks}.")


def _require_known(values: dict[str, Any], known: Sequence[str], what: str) -> None:
    unknown = sorted(set(values) - set(known))
    require(not unknown, f"unknown {what} settings {plain(unknown)}; known are {sorted(known)}.")


def _require_types(spec: Any) -> None:
    """Settings come from traces, programs and pages: each must be of its field's type, where True is no number. Raises RequestError."""
    for f in fields(spec):
        value, kinds = getattr(spec, f.name), get_args(f.type) or (f.type,)
        what = "yes or no" if bool in kinds else "a number" if float in kinds else "a whole number"
        require(any(_is_a(value, kind) for kind in kinds), f"{f.name} must be {what}, got {plain(repr(value), 40)}.")


def _is_a(value: Any, kind: type) -> bool:
    if kind not in (int, float) or isinstance(value, bool):
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    is_number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
    return is_number and (isinstance(value, float) or abs(value) < 2**63)
