"""Ask a model about a clip: `Runtime.stream` yields events, `Runtime.answer` folds them into a Trace."""

import io
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentomni import checkpoints
from latentomni.checkpoint_files import read_collapse
from latentomni.clip_evidence import Evidence
from latentomni.config import LatentSpec, MediaLimits, Mode, ReadingSpec, SamplingSpec
from latentomni.errors import RequestError, require
from latentomni.events import ClipRecord, Event, Finished, Started
from latentomni.evidence import DonorBank
from latentomni.generation import generate, read_prefix
from latentomni.isolation import read_isolated
from latentomni.media import Clip, read_clip
from latentomni.memory import is_out_of_memory
from latentomni.modeling import Thinker
from latentomni.plan import Pace, plan_run
from latentomni.prefix import Prefix
from latentomni.processing import add_question, check_question, new_sequence
from latentomni.sequence import ClipFeatures, Sequence
from latentomni.trace import Trace

__all__ = ["DONORS_FILE", "Runtime", "ask", "clip_record"]

DONORS_FILE = "donors.safetensors"
_THUMBNAIL_PX = 160
_THUMBNAIL_STEP_S = 0.5
_MAX_THUMBNAILS = 120
_KEPT_CLIPS = 4
_KEPT_BYTES = 2 * 2**30  # of keys and values, beside those of the last clip


@dataclass(eq=False)
class _Known:
    """What is kept of a clip. opening: its keys and values, once a question about it was asked."""

    features: ClipFeatures
    evidence: Evidence
    opening: Prefix | None = None


class Runtime:
    """A loaded model with its donors. Holds no state of a request but a small cache of clips as the model read them, and how fast it was."""

    def __init__(self, thinker: Thinker, donors: DonorBank | None = None, limits: MediaLimits | None = None,
                 collapse: dict[str, float | None] | None = None) -> None:  # fmt: skip
        self.thinker, self.donors, self.limits, self.collapse = thinker, donors, limits or MediaLimits(), collapse or {}
        self.pace = Pace()
        self._known: OrderedDict[tuple, _Known] = OrderedDict()

    @classmethod
    def load(cls, model: str = "nano", limits: MediaLimits | None = None, quantization: str | None = None) -> "Runtime":
        """Load a checkpoint and, where it ships them, its donor bank and what was measured of its latents' collapse.
        quantization: as in `checkpoints.load`."""
        thinker = checkpoints.load(model, quantization=quantization)
        folder = checkpoints.find(model)
        if folder is None:
            return cls(thinker, limits=limits)
        donors = folder / DONORS_FILE
        return cls(thinker, DonorBank.from_file(donors) if donors.is_file() else None, limits, read_collapse(folder))

    @property
    def spec(self) -> LatentSpec:
        return self.thinker.spec

    def read(
        self, path: str | Path, cancelled: Callable[[], bool] | None = None, reading: ReadingSpec | None = None, *, isolated: bool = False
    ) -> Clip:
        """Read a media file at the model's sampling rate, or as `reading` asks for; isolated: in a process of its own, as for strangers."""
        video, read = self.thinker.video, read_isolated if isolated else read_clip
        return read(path, fps=video.fps, limits=video.limits(self.limits), cancelled=cancelled, reading=reading or ReadingSpec())

    def encode(self, clip: Clip, cancelled: Callable[[], bool] = lambda: False) -> tuple[ClipFeatures, Evidence]:
        """Features and evidence banks of a clip; the last few clips are kept. Raises MediaError where `cancelled()` turns true."""
        key = (clip.sha256, clip.reading, clip.sample_fps, len(clip.frames), clip.duration_s)
        if key not in self._known:
            begun_s = time.perf_counter()
            features = self.thinker.encode_clip(clip, cancelled)
            self.pace.note_encoding(len(features.visual) + len(features.audio), time.perf_counter() - begun_s)
            self._known[key] = _Known(features, Evidence(features, self.donors))
            while len(self._known) > _KEPT_CLIPS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key].features, self._known[key].evidence

    def opening(self, rows: list[Sequence], cancelled: Callable[[], bool] = lambda: False) -> Prefix | None:
        """The keys and values of the clip that all these rows begin with, read once and kept, so that every further question and
        every change of an answer pays for its own tokens only; None where it is not one of the clips that are kept, or `cancelled()` turned true."""
        known = self._known_of(rows[0])
        if known is None or any(row.clip is not known.features for row in rows):
            return None
        if known.opening is None:
            n = next(i for i, turn in enumerate(rows[0].turns) if turn)
            known.opening = read_prefix(self.thinker, [rows[0].up_to(n)], [n], cancelled)
            self._drop_openings(known)
        return known.opening and known.opening.repeated(len(rows))

    def _drop_openings(self, last: _Known) -> None:
        """The oldest ones, until the others fit."""
        held = [k for k in list(self._known.values()) if k is not last and k.opening is not None]
        while sum(k.opening.nbytes for k in held) > _KEPT_BYTES:
            held.pop(0).opening = None

    def stream(self, clip: Clip, question: str, mode: Mode | str | None = None, sampling: SamplingSpec | None = None,
               conversation: Sequence | None = None, cancelled: Callable[[], bool] = lambda: False,
               latent: dict[str, Any] | None = None) -> Iterator[Event]:  # fmt: skip
        """Answer a question. `mode`: latent, or direct where the model never learned latents; asked for all the same, a block is
        opened for it and said to mean nothing. `conversation`: the sequence of earlier answers about the same clip, which grows
        in place (take a new one from `conversation(clip)`); a model trained on single questions sees none but an empty one, nor
        does a run with other latent settings than it was begun with. `latent`: `instants`, `positions` and `flow` of this run
        where they differ from the model's. Closing the generator, or `cancelled()`, stops between two steps. Raises MediaError where it stops
        before the clip is encoded, RequestError with the plan of the run where it does not fit into the memory at hand, before anything is
        done, and where memory ran out all the same; what was kept of clips is then let go."""
        with self.within_memory(clip):
            yield from self._stream(clip, question, mode, sampling, conversation, cancelled, latent)

    @contextmanager
    def within_memory(self, clip: Clip) -> Iterator[None]:
        """Work about a clip. Memory that runs out in it is told as RequestError, with the plan; what was kept of clips is then let go."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._known.clear()
            plan = plan_run(self, clip)
            raise RequestError("Memory ran out in this run. " + (plan.advice or "Try again when less else runs on this machine, or read less of "
                               f"the clip: it needs about {plan.peak_bytes / 2**30:.1f} GiB with the model.")) from None  # fmt: skip

    def _stream(self, clip: Clip, question: str, mode: Mode | str | None, sampling: SamplingSpec | None, conversation: Sequence | None,
                cancelled: Callable[[], bool], latent: dict[str, Any] | None) -> Iterator[Event]:  # fmt: skip
        mode, sampling, question = Mode(mode or self.spec.default_mode), sampling or SamplingSpec(), check_question(question)
        spec = self.spec.changed(latent)
        plan = plan_run(self, clip, None, latent, mode, sampling.max_new_tokens, max_blocks=sampling.max_blocks, question=question)
        require(plan.fits is not False, plan.advice)
        features, evidence = self.encode(clip, cancelled)
        alone = conversation is None or (self.spec.single_turn and conversation.turn > 0) or conversation.spec != spec
        row = new_sequence(features, spec, self.thinker.ids, self.thinker.encode_text) if alone else conversation
        add_question(row, question, mode, self.thinker.encode_text)
        prompt_tokens, has_null, known = len(row), self._has_null(spec), self._known_of(row)
        is_read = known is not None and known.opening is not None
        if mode is Mode.LATENT and not spec.is_trained and sampling.max_blocks:
            row.open_block()  # it would not do so by itself
        yield Started(
            question, str(mode), str(row.flow), self.thinker.name, self.thinker.weights, spec.to_dict(), asdict(sampling),
            clip_record(clip), evidence.moments["visual"], evidence.moments["audio"], prompt_tokens, has_null, clip.reading.to_dict(), self.collapse,
            str(self.thinker.quantization),
        )  # fmt: skip
        answer = generate(self.thinker, [row], [mode], sampling, cancelled, lambda: self.opening([row], cancelled))
        for event in evidence.found((event for _, event in answer), has_null=has_null):
            if isinstance(event, Finished):
                self.pace.note_answer(mode, None if is_read else prompt_tokens, len(row) - prompt_tokens, event)
                is_parted = alone and conversation is not None and not self.spec.single_turn
                event = replace(event, notices=self._notices(event, spec, mode, is_parted=is_parted))
            yield event

    def _known_of(self, row: Sequence) -> _Known | None:
        """What is kept of the clip that a row begins with."""
        return next((k for k in list(self._known.values()) if k.features is row.clip), None)

    def conversation(self, clip: Clip, latent: dict[str, Any] | None = None, cancelled: Callable[[], bool] = lambda: False) -> Sequence:
        """An empty conversation about a clip, under the model's latent settings or changed ones. Raises like `stream`."""
        with self.within_memory(clip):
            plan = plan_run(self, clip, None, latent, max_new_tokens=1)
            require(plan.fits is not False, plan.advice)
            return new_sequence(self.encode(clip, cancelled)[0], self.spec.changed(latent), self.thinker.ids, self.thinker.encode_text)

    def answer(self, clip: Clip, question: str, mode: Mode | str | None = None, sampling: SamplingSpec | None = None,
               latent: dict[str, Any] | None = None) -> Trace:  # fmt: skip
        """The whole run at once: the fold of `stream`."""
        return Trace.from_events(self.stream(clip, question, mode, sampling, latent=latent))

    def _has_null(self, spec: LatentSpec) -> bool:
        """Donors are latents of the same slot: blocks of another shape have none."""
        return self.donors is not None and (len(self.donors.latents), self.donors.n_visual) == (spec.n_latents, spec.n_visual)

    def _notices(self, finished: Finished, spec: LatentSpec, mode: Mode, *, is_parted: bool) -> tuple[str, ...]:
        """What of the run is unlike the model's own, then how it ended."""
        notices = []
        if self.thinker.is_offloaded:
            notices.append("Parts of this model do not fit beside the rest and are fetched at every step, so it answers slowly; try --quantization nf4.")
        if mode is Mode.LATENT:
            if not spec.is_trained:
                notices.append("This model never learned latents: a block was opened for it, and what the latents hold means nothing.")
            for name in ("instants", "positions", "flow"):
                asked, own = getattr(spec, name), getattr(self.spec, name)
                if asked != own:
                    notices.append(f"This run used {name} {asked}, and the model was trained with {own}.")
            if self.donors is not None and not self._has_null(spec):
                notices.append("There is no null for blocks of this shape, so matches are ranks only.")
        if is_parted:
            notices.append("The conversation was begun with other latent settings, so this question was asked behind the clip alone.")
        return (*notices, *([Finished.ENDINGS[finished.reason]] if finished.reason in Finished.ENDINGS else []))


def ask(clip: str | Path | Clip, question: str, model: "str | Runtime" = "nano", mode: Mode | str | None = None, *,
        quantization: str | None = None, reading: ReadingSpec | None = None, latent: dict[str, Any] | None = None,
        **sampling: Any) -> Trace:  # fmt: skip
    """One answer as a Trace. clip: a file, or one that was read. A model named twice is loaded once; the last is kept.
    `sampling`: fields of SamplingSpec, such as seed=1 or max_new_tokens=64."""
    runtime = model if isinstance(model, Runtime) else _loaded(model, quantization)
    read = clip if isinstance(clip, Clip) else runtime.read(clip, reading=reading)
    return runtime.answer(read, question, mode, SamplingSpec(**sampling), latent)


_last: dict[tuple[str, str | None], Runtime] = {}


def _loaded(model: str, quantization: str | None) -> Runtime:
    key = (model, quantization)
    if key not in _last:
        _last.clear()  # before the next one takes its room
        _last[key] = Runtime.load(model, quantization=quantization)
    return _last[key]


def clip_record(clip: Clip) -> ClipRecord:
    """Small pictures every half second (at most 120) and the sound, for showing a clip without its file."""
    step = max(round(_THUMBNAIL_STEP_S * clip.sample_fps), 1, -(-len(clip.frames) // _MAX_THUMBNAILS))
    chosen = range(0, len(clip.frames), step)
    sound = None
    if clip.waveform is not None:
        sound = (clip.waveform.clip(-1, 1) * 32767).astype(np.int16)
    return ClipRecord(clip.name, clip.sha256, clip.duration_s, tuple(_jpeg(clip.frames[i]) for i in chosen),
                      np.array([i / clip.sample_fps for i in chosen]), sound, clip.notices, clip.file_sha256)  # fmt: skip


def _jpeg(frame: np.ndarray) -> bytes:
    picture = Image.fromarray(frame)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


