"""What a run will need before it begins: frames, tokens, memory and, once this process has answered before, seconds.

Nothing is decoded and no weight is touched. Frames and tokens are counted by the rules that reading and processing follow,
so for a clip in memory they are exact; for a file they are as exact as its header. Memory is an estimate; docs/LOG.md 53 holds it against measurements.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.config import LatentSpec, MediaLimits, Mode, QuantizationSpec, ReadingSpec, SamplingSpec, VideoSpec
from latentomni.errors import CheckpointError, RequestError
from latentomni.events import Finished
from latentomni.generation import PREFILL_CHUNK
from latentomni.media import Clip, MediaInfo
from latentomni.memory import available_bytes, give_back
from latentomni.modeling import MIN_SAMPLES, Thinker, times_at_once
from latentomni.processing import add_question, new_sequence, resized_size
from latentomni.sequence import no_clip
from latentomni.tracks import frame_grid, scaled_size

if TYPE_CHECKING:
    from latentomni.runtime import Runtime

__all__ = ["Pace", "RunPlan", "check_room", "parameter_counts", "plan_run", "weight_bytes"]

_READ_PIXELS = 448 * 448  # what `read_clip` scales frames to where no more is asked for
# Work in bytes, as measured: of the mel spectrum per sample, of the attention mask per pair of tokens.
_MEL_BYTES, _MASK_BYTES = 32, 9
# What work takes, over its largest tensors: more tensors, as int8's on the way to its sums and back, and what glibc keeps of freed blocks.
_OVER = {QuantizationSpec.NONE: 1.3, QuantizationSpec.INT8: 3.0, QuantizationSpec.NF4: 1.3}
_VISION_OVER = 1.75
_MEL_HOP = 160
# Bytes a weight and a row of a layer: a byte and a float32 scale; four bits, a byte for 64 of them, and a float32 for 256 of those.
_STORED = {QuantizationSpec.NONE: (0.0, 0), QuantizationSpec.INT8: (1.0, 4), QuantizationSpec.NF4: (0.5 + 1 / 64 + 4 / (64 * 256), 0)}
_GIB = 2**30
_GPU_SHARE = 0.85  # of free memory for weights; runs need the rest
_IN_TRAINING = "in training: a recipe whose method is qlora"
_NO_WAY = "choose a smaller model or a machine with more memory"


@dataclass(frozen=True)
class RunPlan:
    """frames: after sampling. tokens: of the prompt, "visual", "audio" and "text" (the question's and the chat's); at most,
    "latent" and "answer" (words, with the echoes and windows of blocks). peak_bytes: with the weights. seconds: None before
    this process has answered once. fits: into the memory at hand, None where that is not known. advice: one sentence where
    it does not fit, else "".
    """

    frames: int
    tokens: dict[str, int]
    kv_bytes: int
    peak_bytes: int
    seconds: float | None
    fits: bool | None
    advice: str = ""


class Pace:
    """How fast a runtime was, from its last run: what `RunPlan.seconds` is made of."""

    def __init__(self) -> None:
        self._encode_s = self._prompt_s = self._step_s = 0.0  # per media token, per prompt token, per later token
        self._steps: dict[Mode, int] = {}

    def note_encoding(self, tokens: int, seconds: float) -> None:
        self._encode_s = seconds / max(tokens, 1)

    def note_answer(self, mode: Mode, prompt_tokens: int | None, steps: int, finished: Finished) -> None:
        """prompt_tokens: None where most of the prompt had been read before."""
        if finished.reason != "cancelled" and steps:
            if prompt_tokens is not None:
                self._prompt_s = finished.ttft_s / prompt_tokens
            self._step_s = (finished.elapsed_s - finished.ttft_s) / steps
            self._steps[mode] = steps

    def seconds(self, mode: Mode, media_tokens: int, prompt_tokens: int, at_most: int) -> float | None:
        """Encoding, reading the prompt, and as many tokens as the last answer of this mode had; None before any answer."""
        if not self._steps:
            return None
        steps = min(self._steps.get(mode, at_most), at_most)
        return media_tokens * self._encode_s + prompt_tokens * self._prompt_s + steps * self._step_s


def plan_run(
    model: "Thinker | Runtime", clip: MediaInfo | Clip | None, reading: ReadingSpec | None = None, latent: dict[str, Any] | None = None,
    mode: Mode | str = Mode.LATENT, max_new_tokens: int = SamplingSpec.max_new_tokens, *, max_blocks: int = SamplingSpec.max_blocks,
    question: str = "", free_bytes: int | None = None, quantization: QuantizationSpec | str | None = None,
) -> RunPlan:  # fmt: skip
    """Plan an answer about a clip that `probe` described, one in memory (its own reading counts), or none.

    A thinker on the meta device counts as not loaded: its weights, quantised so, must fit too. free_bytes: of memory; this machine's own unless
    given. Raises RequestError for bad settings.
    """
    thinker: Thinker = getattr(model, "thinker", model)
    spec, mode, reading = thinker.spec.changed(latent), Mode(mode), reading or ReadingSpec()
    media = _media(clip, reading, thinker.video, getattr(model, "limits", MediaLimits()))
    run = _Run(thinker, spec, mode, max_new_tokens, max_blocks, question, quantization)
    tokens = run.tokens(media)
    device = thinker.device if run.is_loaded else "cuda" if torch.cuda.is_available() else "cpu"
    free, needed = available_bytes(device) if free_bytes is None else free_bytes, run.needed_bytes(media)
    fits = None if free is None else needed <= free
    seen, pace = tokens["visual"] + tokens["audio"], getattr(model, "pace", None)
    return RunPlan(
        media.frames,
        tokens,
        run.kv_bytes(media),
        needed + (weight_bytes(thinker) if run.is_loaded else 0),
        pace and pace.seconds(mode, seen, seen + tokens["text"], tokens["latent"] + tokens["answer"]),
        fits,
        _advice(run, media, needed, free) if fits is False else "",
    )


def check_room(sizes: Thinker, device: str, quantization: QuantizationSpec | str | None = None) -> dict[int | str, int] | None:
    """Raise CheckpointError where the weights of a model that has none yet, quantised so, would not fit into a device's free memory.

    Where a GPU has no room for all of them as they are, and main memory has room for the rest: how many bytes each may take, as accelerate
    has it."""
    needed = {q: weight_bytes(sizes, q) for q in QuantizationSpec}
    own = QuantizationSpec(quantization or "none")
    free = available_bytes(torch.device(device))
    if free is not None and needed[own] > free:  # unless it is what a model that was let go of leaves behind
        give_back()
        free = available_bytes(torch.device(device))
    if free is None or needed[own] <= free:
        return None
    beside = available_bytes("cpu") if torch.device(device).type == "cuda" and own is QuantizationSpec.NONE else None
    if beside and needed[own] <= _GPU_SHARE * (free + beside):
        return {torch.device(device).index or 0: int(_GPU_SHARE * free), "cpu": int(beside)}
    smaller = [f"load it with --quantization {q} ({_IN_TRAINING})" for q in (QuantizationSpec.INT8, QuantizationSpec.NF4) if needed[q] <= free]
    raise CheckpointError(f"'{sizes.name}' takes {needed[own] / _GIB:.1f} GiB and {free / _GIB:.1f} GiB are free: {smaller[0] if smaller else _NO_WAY}.")


def parameter_counts(thinker: Thinker) -> dict[str, int]:
    """Parameters of the towers, the language model, the output layer and the latent head."""
    parts = {"vision": thinker.towers.visual, "audio": thinker.towers.audio_tower, "language": thinker.text_model,
             "output": thinker.model.lm_head}  # fmt: skip
    parts |= {} if thinker.head is None else {"latent_head": thinker.head}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def weight_bytes(thinker: Thinker, quantization: QuantizationSpec | str | None = None) -> int:
    """What its parameters take, as they are stored; or, of a model without weights, as they would be under a quantisation."""
    parts = (thinker.model, *([] if thinker.head is None else [thinker.head]))
    stored = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    per_weight, per_row = _STORED[QuantizationSpec(quantization or "none")]
    if not per_weight:
        return stored
    inner = [m.weight for m in thinker.text_model.layers.modules() if isinstance(m, torch.nn.Linear)]
    return stored + round(sum(w.numel() * (per_weight - w.element_size()) + len(w) * per_row for w in inner))


@dataclass(frozen=True)
class _Media:
    """What is read. size_px: height and width of a frame in memory. video: how frames become patches. samples: of sound."""

    frames: int
    size_px: tuple[int, int]
    video: VideoSpec
    samples: int
    duration_s: float

    @property
    def grid(self) -> tuple[int, int, int]:
        """Times, rows and columns of visual tokens."""
        if not self.frames:
            return 0, 1, 1
        height, width = resized_size(*self.size_px, self.video)
        return math.ceil(self.frames / self.video.temporal_patch), height // self.video.factor_px, width // self.video.factor_px

    @property
    def audio_tokens(self) -> int:
        """The mel extractor makes 100 frames a second, the tower halves them twice."""
        return (((self.samples // _MEL_HOP - 1) // 2 + 1) - 2) // 2 + 1 if self.samples >= MIN_SAMPLES else 0

    def less(self, times: float, pixels: float, seconds: float) -> "_Media":
        """With fewer frames a second, pixels a frame, seconds: each by a factor up to 1."""
        most = max(round(self.video.max_pixels * pixels), self.video.factor_px**2)
        video = replace(self.video, fps=self.video.fps * times, max_pixels=most, min_pixels=min(self.video.min_pixels, most))
        frames = math.ceil(self.frames * times * seconds)
        return _Media(frames, self.size_px, video, round(self.samples * seconds), self.duration_s * seconds)


def _media(clip: MediaInfo | Clip | None, reading: ReadingSpec, trained: VideoSpec, limits: MediaLimits) -> _Media:
    if clip is None:
        return _Media(0, (1, 1), trained, 0, 0.0)
    if isinstance(clip, Clip):
        samples = 0 if clip.waveform is None else len(clip.waveform)
        return _Media(len(clip.frames), clip.frames.shape[1:3], clip.reading.video(trained), samples, clip.duration_s)
    has_picture, has_sound = (codec is not None for codec in (clip.video_codec, clip.audio_codec))
    has_picture, has_sound = has_picture and reading.picture, has_sound and reading.sound
    end_s = min(clip.duration_s, math.inf if reading.end_s is None else reading.end_s)
    if end_s <= reading.start_s or not (has_picture or has_sound):
        raise RequestError(f"Nothing of {clip.name} is left to read, which lasts {clip.duration_s:.1f} s; cut less, switch more on.")
    video = reading.video(trained)
    picture_s = (min(clip.picture_end_s, end_s) - reading.start_s) * has_picture
    fps, frames = frame_grid(picture_s, video.fps, video.limits(limits).max_frames)
    width, height = scaled_size(max(clip.width_px, 1) * clip.pixel_aspect, max(clip.height_px, 1), max(_READ_PIXELS, reading.max_pixels or 0))
    samples = round((end_s - reading.start_s) * SAMPLE_RATE_HZ) * has_sound
    return _Media(frames, (height, width), replace(video, fps=fps), samples, end_s - reading.start_s)


class _Run:
    """One answer by one model, before its clip is known."""

    def __init__(self, thinker: Thinker, spec: LatentSpec, mode: Mode, max_new_tokens: int, max_blocks: int, question: str,
                 quantization: QuantizationSpec | str | None) -> None:  # fmt: skip
        self.thinker, self.spec, self.max_new_tokens = thinker, spec, max_new_tokens
        self.quantization = QuantizationSpec(quantization or thinker.quantization)
        self.blocks = max_blocks if mode is Mode.LATENT else 0
        row = new_sequence(no_clip(thinker.hidden_size), spec, thinker.ids, thinker.encode_text)
        add_question(row, question or "?", mode, thinker.encode_text)
        self.prompt_tokens, self.echo_tokens = len(row), len(row.question_ids) * spec.echoes
        self.is_loaded = thinker.device.type != "meta"

    def tokens(self, media: _Media) -> dict[str, int]:
        visual, audio = math.prod(media.grid), media.audio_tokens
        brackets = 2 * (visual > 0) + 2 * (audio > 0)
        around = self.echo_tokens + self.spec.max_window_tokens * self.spec.writes_window + 1  # of a block, its close among it
        return {"visual": visual, "audio": audio, "text": self.prompt_tokens + brackets,
                "latent": self.blocks * self.spec.n_latents, "answer": self.max_new_tokens + self.blocks * around}  # fmt: skip

    def kv_bytes(self, media: _Media) -> int:
        """Keys and values of every token there may be."""
        return self._token_bytes() * sum(self.tokens(media).values())

    def _token_bytes(self) -> int:
        """Keys and values of one token."""
        return 2 * self.thinker.model.config.text_config.num_hidden_layers * math.prod(self.thinker.key_shape) * self.thinker.dtype.itemsize

    def needed_bytes(self, media: _Media, quantization: QuantizationSpec | None = None) -> int:
        """Beside weights that are loaded: what is held, and the largest of the steps; quantised otherwise than the model would be."""
        quantization = quantization or self.quantization
        height, width = media.size_px
        raw = media.frames * height * width * 3
        held = raw + 12 * media.samples  # sound as it is, as the record keeps it, and between the two
        if self.thinker.device.type == "cuda":  # these stay in main memory
            held = 0
        return held + round(max(self._step_bytes(media, _OVER[quantization]))) + (0 if self.is_loaded else weight_bytes(self.thinker, quantization))

    def _step_bytes(self, media: _Media, over: float) -> tuple[float, ...]:
        """Patches and vision tower of some frames, sound spectra, audio tower, and language model with all it holds, one after the other."""
        config, size, tokens = self.thinker.model.config, self.thinker.dtype.itemsize, self.tokens(media)
        vision, audio, text = config.vision_config, config.audio_config, config.text_config
        times, rows, columns = media.grid
        at_once = min(times, times_at_once(patches := rows * columns * media.video.merge**2))
        patches, patch_bytes = at_once * patches, 4 * 3 * media.video.temporal_patch * media.video.patch_px**2
        pixels = at_once * media.video.temporal_patch * media.size_px[0] * media.size_px[1] * 3
        is_scaled = media.frames > 0 and resized_size(*media.size_px, media.video) != media.size_px
        clip, prompt = tokens["visual"] + tokens["audio"], tokens["visual"] + tokens["audio"] + tokens["text"]
        chunk = min(prompt, PREFILL_CHUNK)
        features = clip * size * text.hidden_size
        kept = self.kv_bytes(media) + self._token_bytes() * clip + 2 * features  # those of the clip stay for the next question
        return (
            features + 4 * pixels * is_scaled + 2 * patches * patch_bytes,
            features + _VISION_OVER * patches * (patch_bytes + size * (3 * vision.intermediate_size + 5 * vision.hidden_size)),
            features + _MEL_BYTES * media.samples,
            features + 2 * tokens["audio"] * size * (2 * audio.encoder_ffn_dim + 8 * audio.d_model),
            kept + max(_MASK_BYTES * chunk * prompt, over * chunk * size * (3 * text.intermediate_size + 8 * text.hidden_size)),
        )


def _advice(run: _Run, media: _Media, needed: int, free: int) -> str:
    """What to change so that it fits: the least of a few changes."""
    fps, pixels, seconds = media.video.fps, media.video.max_pixels, media.duration_s
    tries = [(share, 1.0, 1.0, f"read {fps * share:.2g} instead of {fps:.2g} frames per second") for share in (1 / 2, 1 / 4)]
    tries += [(1.0, share, 1.0, f"read at most {pixels * share:.0f} instead of {pixels} pixels a frame") for share in (1 / 2, 1 / 4)]
    tries += [(1.0, 1.0, share, f"trim the clip to {seconds * share:.1f} of its {seconds:.1f} seconds") for share in (1 / 2, 1 / 4, 1 / 10)]
    fitting = [what for *shares, what in tries if media.duration_s and run.needed_bytes(media.less(*shares)) <= free]
    if not run.is_loaded and not fitting:
        smaller = {q: run.needed_bytes(media, q) for q in (QuantizationSpec.INT8, QuantizationSpec.NF4)}
        fitting = [f"load the model with --quantization {q}" for q, bytes_then in smaller.items() if bytes_then <= free]
    return f"This run needs about {needed / _GIB:.1f} GiB and {free / _GIB:.1f} GiB are free: {fitting[0] if fitting else _NO_WAY}."
