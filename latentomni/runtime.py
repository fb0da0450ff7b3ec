"""Ask a model about a clip: `Runtime.stream` yields events, `Runtime.answer` folds them into a Trace."""

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from latentomni import checkpoints
from latentomni.config import LatentSpec, MediaLimits, Mode, SamplingSpec
from latentomni.events import ClipRecord, Event, Finished, LatentClosed, LatentStep, Moments, Started
from latentomni.evidence import DonorBank, EvidenceBank, Null, benjamini_hochberg
from latentomni.generation import generate
from latentomni.media import Clip, read_clip
from latentomni.modeling import Thinker
from latentomni.processing import add_question, check_question, new_sequence
from latentomni.sequence import ClipFeatures, Sequence
from latentomni.trace import Trace

__all__ = ["DONORS_FILE", "Evidence", "Runtime", "audio_moments", "visual_moments"]

DONORS_FILE = "donors.safetensors"
_AUDIO_MOMENT_S = 0.5
_THUMBNAIL_PX = 160
_THUMBNAIL_STEP_S = 0.5
_MAX_THUMBNAILS = 120
_KEPT_CLIPS = 4


def visual_moments(features: ClipFeatures) -> Moments:
    """One moment per temporal patch and grid cell."""
    rows, columns = features.grid
    times, n = len(features.visual_times_s), rows * columns
    r, c = np.divmod(np.arange(n), columns)
    cells = np.stack([r / rows, c / columns, (r + 1) / rows, (c + 1) / columns], axis=1)
    return Moments(np.repeat(features.visual_times_s, n), np.repeat(features.visual_end_s, n), np.tile(cells, (times, 1)), _array(features.visual))


def audio_moments(features: ClipFeatures) -> Moments:
    """One moment per half second, tokens averaged with squared-norm weights, as anchors are."""
    tokens, times = _array(features.audio), features.audio_times_s
    edges = np.arange(0, len(tokens) / 25, _AUDIO_MOMENT_S)
    vectors = [_energy_mean(tokens[(times >= s - 1e-6) & (times < s + _AUDIO_MOMENT_S - 1e-6)]) for s in edges]
    stacked = np.stack(vectors) if vectors else np.zeros((0, tokens.shape[1]), np.float32)
    ends = np.minimum(edges + _AUDIO_MOMENT_S, len(tokens) / 25)
    return Moments(edges, ends, np.tile([0.0, 0.0, 1.0, 1.0], (len(edges), 1)), stacked)


def _array(tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _energy_mean(tokens: np.ndarray) -> np.ndarray:
    weights = np.square(tokens).sum(axis=1, keepdims=True) + 1e-12
    return (tokens * weights).sum(axis=0) / weights.sum()


class Evidence:
    """The clip's two evidence banks and, with donors, the null of every slot (computed once, when a slot is first asked for)."""

    def __init__(self, features: ClipFeatures, donors: DonorBank | None) -> None:
        self.donors, self._nulls = donors, {}
        self.moments = {"visual": visual_moments(features), "audio": audio_moments(features)}
        self.banks = {m: EvidenceBank(v, donors and donors.background(m)) for m, v in self.moments.items()}

    def _null(self, modality: str, slot: int) -> Null | None:
        if self.donors is None:
            return None
        if slot not in self._nulls:
            self._nulls[slot] = self.donors.null(self.banks[modality], slot)
        return self._nulls[slot]

    def of(self, step: LatentStep) -> LatentStep:
        """The step with its nearest moments, its scores over time and its p-value."""
        bank = self.banks[step.modality]
        matches = bank.matches(step.vector)
        null = self._null(step.modality, step.index) if matches else None
        scores = bank.by_time(bank.nearest(step.vector[None]))[0]
        return replace(step, matches=matches, scores=scores, p=null.p(matches[0].score) if null else None)

    def found(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events of an answer, latents with their evidence and blocks with their corrected p-values."""
        block_p: list[float | None] = []
        for event in events:
            if isinstance(event, LatentStep):
                event = self.of(event)
                block_p.append(event.p)
            elif isinstance(event, LatentClosed):
                event, block_p = replace(event, p=_corrected(block_p)), []
            yield event


class Runtime:
    """A loaded model with its donors. Holds no state of a request but a small cache of encoded clips."""

    def __init__(self, thinker: Thinker, donors: DonorBank | None = None, limits: MediaLimits | None = None) -> None:
        self.thinker, self.donors, self.limits = thinker, donors, limits or MediaLimits()
        self._encoded: OrderedDict[str, tuple[ClipFeatures, Evidence]] = OrderedDict()

    @classmethod
    def load(cls, model: str = "nano", limits: MediaLimits | None = None) -> "Runtime":
        """Load a checkpoint and, where it ships one, its donor bank."""
        thinker = checkpoints.load(model)
        donors = (checkpoints.NANO_DIR if model == "nano" else Path(model)) / DONORS_FILE
        return cls(thinker, DonorBank.from_file(donors) if donors.is_file() else None, limits)

    @property
    def spec(self) -> LatentSpec:
        return self.thinker.spec

    def read(self, path: str | Path, cancelled: Callable[[], bool] | None = None) -> Clip:
        """Read a media file at the model's sampling rate."""
        video = self.thinker.video
        return read_clip(path, fps=video.fps, limits=video.limits(self.limits), cancelled=cancelled)

    def encode(self, clip: Clip) -> tuple[ClipFeatures, Evidence]:
        """Features and evidence banks of a clip; the last few clips are kept."""
        key = f"{clip.sha256}@{clip.sample_fps:.6f}"
        if key not in self._encoded:
            features = self.thinker.encode_clip(clip)
            self._encoded[key] = (features, Evidence(features, self.donors))
            while len(self._encoded) > _KEPT_CLIPS:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def stream(self, clip: Clip, question: str, mode: Mode | str = Mode.LATENT, sampling: SamplingSpec | None = None,
               conversation: Sequence | None = None, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Event]:  # fmt: skip
        """Answer a question. `conversation`: the sequence of earlier answers about the same clip, which grows in place
        (take a new one from `conversation(clip)`); a model trained on single questions sees none but an empty one. Closing the
        generator, or `cancelled()`, stops between two steps."""
        mode, sampling, question = Mode(mode), sampling or SamplingSpec(), check_question(question)
        _, evidence = self.encode(clip)
        alone = conversation is None or (self.spec.single_turn and conversation.turn > 0)
        row = self.conversation(clip) if alone else conversation
        add_question(row, question, mode, self.thinker.encode_text)
        yield Started(
            question, str(mode), str(row.flow), self.thinker.name, self.thinker.weights, self.spec.to_dict(), asdict(sampling),
            clip_record(clip), evidence.moments["visual"], evidence.moments["audio"], len(row), self.donors is not None,
        )  # fmt: skip
        for event in evidence.found(event for _, event in generate(self.thinker, [row], [mode], sampling, cancelled)):
            if isinstance(event, Finished):
                event = replace(event, notices=self._notices(event, row))
            yield event

    def conversation(self, clip: Clip) -> Sequence:
        """An empty conversation about a clip."""
        return new_sequence(self.encode(clip)[0], self.spec, self.thinker.ids, self.thinker.encode_text)

    def answer(self, clip: Clip, question: str, mode: Mode | str = Mode.LATENT, sampling: SamplingSpec | None = None) -> Trace:
        """The whole run at once: the fold of `stream`."""
        return Trace.from_events(self.stream(clip, question, mode, sampling))

    def _notices(self, finished: Finished, row: Sequence) -> tuple[str, ...]:
        if finished.reason == "length":
            return ("The answer was cut at the token limit.",)
        if finished.reason == "cancelled":
            return ("The answer was stopped.",)
        return ()


def _corrected(p: list[float | None]) -> tuple[float | None, ...] | None:
    """Benjamini-Hochberg over the latents that have a p-value; None where there is no null at all."""
    known = [v for v in p if v is not None]
    if not known:
        return None
    corrected = iter(benjamini_hochberg(known))
    return tuple(None if v is None else float(next(corrected)) for v in p)


def clip_record(clip: Clip) -> ClipRecord:
    """Small pictures every half second (at most 120) and the sound, for showing a clip without its file."""
    step = max(round(_THUMBNAIL_STEP_S * clip.sample_fps), 1, -(-len(clip.frames) // _MAX_THUMBNAILS))
    chosen = range(0, len(clip.frames), step)
    sound = None
    if clip.waveform is not None:
        sound = (clip.waveform.clip(-1, 1) * 32767).astype(np.int16)
    return ClipRecord(clip.name, clip.sha256, clip.duration_s, tuple(_jpeg(clip.frames[i]) for i in chosen),
                      np.array([i / clip.sample_fps for i in chosen]), sound, clip.notices)  # fmt: skip


def _jpeg(frame: np.ndarray) -> bytes:
    picture = Image.fromarray(frame)
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


