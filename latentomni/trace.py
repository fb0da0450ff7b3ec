"""The record of a run: events fold into a Trace, and everything shown is a pure function of it. Needs no torch.

A prefix of a stream folds into a valid Trace too (reason "running"). What is stored is rounded while folding, so a
saved trace equals the loaded one exactly: latents and features are float16, times float32. Long clips are thinned to
keep the file under 25 MB: sound is averaged down to a lower rate, thumbnails are dropped evenly, and features wider
than their budget are multiplied by a fixed random matrix, which keeps cosines to about 1 / sqrt(width) (`project`).

Dimensions: N moments, T distinct times of a modality's moments, F thumbnails, D latent width.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.bundle import load_bundle, save_bundle
from latentomni.clock import SAMPLE_RATE_HZ, Window
from latentomni.errors import RequestError, TraceError, plain
from latentomni.events import (
    ClipRecord,
    Event,
    Finished,
    LatentClosed,
    LatentOpened,
    LatentStep,
    Match,
    Moments,
    Started,
    TextDelta,
)
from latentomni.truth import Truth

__all__ = ["SCHEMA", "SIGNIFICANT_P", "Block", "Latent", "Plane", "Trace", "project"]

SCHEMA = "latentomni.trace/1"
SIGNIFICANT_P = 0.05
_SOUND_BYTES = 10 * 2**20
_THUMBNAIL_BYTES = 4 * 2**20
_FEATURE_BYTES = 4 * 2**20
_MIN_WIDTH = 32
_MAX_PLANES = 8
_MAX_MOMENTS, _MAX_BLOCKS, _MAX_LATENTS = 250_000, 64, 64 * 320  # of a modality; of an answer; of all its blocks
_FLOAT16_MAX = float(np.finfo(np.float16).max)


class _ByValue:
    """Equality that compares arrays by type, shape and content."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return _same(self, other)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


@dataclass(frozen=True, eq=False)
class Latent(_ByValue):
    """One latent of a block; its place in `Block.latents` is its slot.

    modality: "visual" or "audio". time_s: its place on the clip's clock. cell: row and column of the block's grid,
    None for audio. vector: (D,) float16. matches: best first. p, p_corrected: against the donor null, the second over
    the block once it has closed; None without a null. scores: (T,) float16 over its modality's times, or None.
    cell_scores: (G,) float16 of the moments that share the best one's time; null_level: a score above it has p <= 0.05.
    Both are None in older files.
    """

    modality: str
    instant: int
    cell: tuple[int, int] | None
    time_s: float
    vector: np.ndarray
    matches: tuple[Match, ...]
    p: float | None
    p_corrected: float | None
    scores: np.ndarray | None
    elapsed_s: float
    cell_scores: np.ndarray | None = None
    null_level: float | None = None

    @property
    def is_evidence(self) -> bool | None:
        """Whether the best match stands out from the null; None without a null. Provisional until the block closes."""
        p = self.p if self.p_corrected is None else self.p_corrected
        return None if p is None else p <= SIGNIFICANT_P


@dataclass(frozen=True, eq=False)
class Block(_ByValue):
    """A latent block. text_offset: characters of the answer text written before it. closed_s: None while it is open."""

    window: Window
    window_source: str
    text_offset: int
    opened_s: float
    closed_s: float | None = None
    latents: tuple[Latent, ...] = ()


@dataclass(frozen=True, eq=False)
class Plane(_ByValue):
    """Points in two dimensions that took long to compute. method: "umap". key: says of which points. points: (n, 2) float32."""

    method: str
    key: str
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace(_ByValue):
    """A run. deltas: text pieces with their token ids and times. reason: "running" until `Finished` says another. reading: how
    the clip was read; empty in traces written before this was recorded, which is the plain reading too.

    visual, audio: moments with features (N, width <= D) float16. clip.sound: int16 at `sound_hz`. ttft_s: None
    while running. planes: kept with the run by whoever drew it. kv_tokens, memory_bytes: 0 where they were not recorded.
    truth: kept with the run by whoever knows it.
    """

    question: str
    mode: str
    flow: str
    model: str
    weights: str
    spec: dict[str, Any]
    sampling: dict[str, Any]
    clip: ClipRecord
    sound_hz: int
    visual: Moments
    audio: Moments
    prompt_tokens: int
    has_null: bool
    reading: dict[str, Any] = field(default_factory=dict)
    collapse: dict[str, float | None] = field(default_factory=dict)
    quantization: str = "none"
    deltas: tuple[TextDelta, ...] = ()
    blocks: tuple[Block, ...] = ()
    reason: str = "running"
    answer: str = ""
    tokens: int = 0
    ttft_s: float | None = None
    elapsed_s: float = 0.0
    notices: tuple[str, ...] = ()
    planes: tuple[Plane, ...] = field(default=(), metadata={"later": True})
    kv_tokens: int = 0
    memory_bytes: int = 0
    truth: Truth | None = None

    @property
    def answerer(self) -> str:
        """The model's name, with how it was quantised."""
        return self.model if self.quantization == "none" else f"{self.model} in {self.quantization}"

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> "Trace":
        """Fold a stream, or the beginning of one; TraceError when it holds no event."""
        events = iter(events)
        first = next(events, None)
        if first is None:
            raise TraceError("The run ended before it began, so there is nothing to record; ask again.")
        assert isinstance(first, Started), "a stream begins with Started"
        return reduce(cls.after, events, cls._begun(first))

    @classmethod
    def _begun(cls, event: Started) -> "Trace":
        kept = {f.name: getattr(event, f.name) for f in fields(event)}
        clip, sound_hz = _kept_clip(event.clip)
        settings = {name: json.loads(json.dumps(kept[name])) for name in ("spec", "sampling", "reading", "collapse")}
        moments = {name: _kept_moments(kept[name]) for name in ("visual", "audio")}
        return cls(**{**kept, **settings, **moments, "clip": clip, "sound_hz": sound_hz})

    def after(self, event: Event) -> "Trace":
        """This trace with one more event."""
        if isinstance(event, TextDelta):
            return replace(self, deltas=(*self.deltas, event), elapsed_s=event.elapsed_s)
        if isinstance(event, LatentOpened):
            window = Window(float(event.window.start_s), float(event.window.end_s))
            block = Block(window, event.window_source, len(self.text), event.elapsed_s)
            return replace(self, blocks=(*self.blocks, block), elapsed_s=event.elapsed_s)
        if isinstance(event, LatentStep):
            assert event.index == len(self.blocks[event.block].latents), "latents of a block come in order"
            grown = (*self.blocks[event.block].latents, _kept_latent(event))
            return self._with_block(event.block, event.elapsed_s, latents=grown)
        if isinstance(event, LatentClosed):
            latents = self.blocks[event.block].latents
            if event.p is not None:
                corrected = (None if p is None else float(p) for p in event.p)
                latents = tuple(replace(z, p_corrected=p) for z, p in zip(latents, corrected, strict=True))
            return self._with_block(event.block, event.elapsed_s, latents=latents, closed_s=event.elapsed_s)
        assert isinstance(event, Finished), f"no event of a stream: {event!r}"
        return replace(self, **{f.name: getattr(event, f.name) for f in fields(event)})

    def _with_block(self, index: int, elapsed_s: float, **changes: Any) -> "Trace":
        assert index == len(self.blocks) - 1, "only the last block grows"
        return replace(self, blocks=(*self.blocks[:index], replace(self.blocks[index], **changes)), elapsed_s=elapsed_s)

    @property
    def text(self) -> str:
        """The answer text so far, with everything the model wrote around its blocks."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def tokens_per_s(self) -> float | None:
        """Words' tokens over the whole run."""
        return self.tokens / self.elapsed_s if self.elapsed_s else None

    @property
    def latents_per_s(self) -> float | None:
        """While blocks were written; None without a whole one."""
        closed = [b for b in self.blocks if b.closed_s is not None and b.closed_s > b.opened_s]
        return sum(len(b.latents) for b in closed) / sum(b.closed_s - b.opened_s for b in closed) if closed else None

    def with_plane(self, plane: Plane) -> "Trace":
        """This trace with a plane in the place of the same one; the oldest of more than 8 goes."""
        others = [p for p in self.planes if (p.method, p.key) != (plane.method, plane.key)]
        return replace(self, planes=(*others, plane)[-_MAX_PLANES:])

    def moments(self, modality: str) -> Moments:
        return self.visual if modality == "visual" else self.audio

    def evidence(self, slot: int, block: int = 0) -> tuple[Match, ...]:
        """What latent `slot` of a block is most similar to, best first; both count from 0. RequestError where there is none."""
        if not 0 <= block < len(self.blocks):
            raise RequestError(f"This answer has {len(self.blocks)} latent blocks, counted from 0, and none is number {block}; choose another.")
        latents = self.blocks[block].latents
        if not 0 <= slot < len(latents):
            raise RequestError(f"Block {block} has {len(latents)} latents, counted from 0, and none is number {slot}; choose another.")
        return latents[slot].matches

    def save(self, path: str | Path) -> None:
        """Write one zip of json, safetensors, JPEG pictures and WAV sound; TraceError above 25 MB."""
        save_bundle(path, self, SCHEMA, self.sound_hz)

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read a trace; TraceError says in one sentence why a file is refused."""
        trace = load_bundle(path, cls, SCHEMA)
        _check(trace)
        return trace


def project(vectors: np.ndarray, width: int) -> np.ndarray:
    """(n, D) to (n, width) by a fixed random matrix, as wide features were; unchanged where D is `width` already."""
    if vectors.shape[-1] == width:
        return vectors
    matrix = np.random.RandomState(width).standard_normal(
        (vectors.shape[-1], width)
    )  # this generator's stream is frozen
    return vectors.astype(np.float32) @ (matrix / np.sqrt(width)).astype(np.float32)


def _float16(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).clip(-_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)


def _kept_moments(moments: Moments) -> Moments:
    features = moments.features
    width = features.shape[-1]
    while len(features) * width * 2 > _FEATURE_BYTES and width > _MIN_WIDTH:
        width = 1 << ((width - 1).bit_length() - 1)  # the next power of two below
    times = (np.asarray(values, np.float32) for values in (moments.start_s, moments.end_s, moments.cells))
    return Moments(*times, _float16(project(features, width)))


def _kept_clip(clip: ClipRecord) -> tuple[ClipRecord, int]:
    """The clip within its share of the file, and the sound's rate."""
    keep = slice(None, None, -(-sum(map(len, clip.thumbnails)) // _THUMBNAIL_BYTES) or None)
    times_s = np.asarray(clip.thumbnail_times_s, np.float32)[keep]
    sound, factor = clip.sound, 1
    if sound is not None:
        sound = np.asarray(sound, np.int16)
        factor = max(1, -(-sound.nbytes // _SOUND_BYTES))
        sound = sound if factor == 1 else _averaged(sound, factor)
    kept = replace(
        clip,
        duration_s=float(clip.duration_s),
        sound=sound,
        thumbnails=clip.thumbnails[keep],
        thumbnail_times_s=times_s,
    )
    return kept, SAMPLE_RATE_HZ // factor


def _averaged(sound: np.ndarray, factor: int) -> np.ndarray:
    whole = len(sound) // factor * factor
    return sound[:whole].reshape(-1, factor).mean(axis=1).astype(np.int16)


def _kept_latent(step: LatentStep) -> Latent:
    kept = {f.name: getattr(step, f.name) for f in fields(Latent) if f.name != "p_corrected"}
    kept["vector"], kept["time_s"] = _float16(step.vector), float(step.time_s)
    for name, kind in (("scores", _float16), ("cell_scores", _float16), ("p", float), ("null_level", float)):
        kept[name] = None if kept[name] is None else kind(kept[name])
    return Latent(**kept, p_corrected=None)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise TraceError(f"This trace does not fit together: {plain(what)}; export the trace again.")


def _check_array(name: str, array: np.ndarray, dtype: type, shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(want in (None, got) for got, want in zip(array.shape, shape, strict=True))
    _require(array.dtype == dtype and fits, f"{name} has type {array.dtype} and shape {array.shape}")
    _require(bool(np.isfinite(array).all()), f"{name} holds values that are not finite")


def _check(trace: Trace) -> None:
    """What the types alone do not say; raises TraceError."""
    clip, seconds = trace.clip, trace.clip.duration_s
    _require(0 < seconds <= 86_400, f"the clip lasts {seconds} seconds")
    _require(1_000 <= trace.sound_hz <= SAMPLE_RATE_HZ, f"the sound has {trace.sound_hz} samples per second")
    _check_array("thumbnail_times_s", clip.thumbnail_times_s, np.float32, (len(clip.thumbnails),))
    _require(bool((np.diff(clip.thumbnail_times_s) >= 0).all()), "its thumbnails are out of order")
    if clip.sound is not None:
        _check_array("sound", clip.sound, np.int16, (None,))
    times: dict[str, int] = {}
    for name in ("visual", "audio"):
        moments = trace.moments(name)
        n = len(moments.features)
        _require(n <= _MAX_MOMENTS, f"it has {n} {name} moments, and at most {_MAX_MOMENTS} are read")
        _check_array(f"{name}.features", moments.features, np.float16, (n, None))
        for edge in ("start_s", "end_s"):
            _check_array(f"{name}.{edge}", getattr(moments, edge), np.float32, (n,))
        _check_array(f"{name}.cells", moments.cells, np.float32, (n, 4))
        times[name] = len(np.unique(np.stack([moments.start_s, moments.end_s], axis=1), axis=0))
    grid = [trace.spec.get(name) for name in ("instants", "rows", "columns")]
    _require(all(type(n) is int and 1 <= n <= 64 for n in grid), f"a block has {grid} instants, rows and columns")
    total = sum(len(block.latents) for block in trace.blocks)
    _require(len(trace.blocks) <= _MAX_BLOCKS and total <= _MAX_LATENTS, f"it has {len(trace.blocks)} blocks with {total} latents")
    slots = grid[0] * (grid[1] * grid[2] + 1)
    _require(all(len(block.latents) <= slots for block in trace.blocks), f"a block has more than {slots} latents")
    widths = {len(z.vector) if z.vector.ndim == 1 else -1 for block in trace.blocks for z in block.latents}
    _require(len(widths) <= 1, "latents differ in width")
    for number, block in enumerate(trace.blocks):
        _require(0 <= block.text_offset <= len(trace.text), f"block {number} lies outside the text")
        for latent in block.latents:
            _require(latent.modality in times, f"block {number} has a latent of modality {latent.modality!r}")
            _check_latent(
                f"block {number}", latent, len(trace.moments(latent.modality).features), times[latent.modality]
            )
    _require(len(trace.planes) <= _MAX_PLANES, f"it has {len(trace.planes)} planes")
    for plane in trace.planes:
        _check_array("a plane", plane.points, np.float32, (None, 2))


def _check_latent(name: str, latent: Latent, n_moments: int, n_times: int) -> None:
    _require(
        (latent.cell is None) == (latent.modality == "audio"),
        f"{name} has a latent whose cell does not fit its modality",
    )
    _check_array(f"a latent of {name}", latent.vector, np.float16, (None,))
    if latent.scores is not None:
        _check_array(f"the scores of {name}", latent.scores, np.float16, (n_times,))
    if latent.cell_scores is not None:
        _check_array(f"the cells' scores of {name}", latent.cell_scores, np.float16, (None,))
    for match in latent.matches:
        _require(0 <= match.moment < n_moments and match.rank >= 1, f"{name} matches moment {match.moment}")
    for p in (latent.p, latent.p_corrected):
        _require(p is None or 0 < p <= 1, f"{name} has a p-value of {p}")
