"""What synthesis starts from: captioned clips, from a JSONL file or drawn from AV World; and their pictures and sound as a model is sent them."""

import base64
import io
import json
import math
import uuid
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentomni.clock import SAMPLE_RATE_HZ
from latentomni.config import ReadingSpec
from latentomni.errors import DataError

__all__ = ["Source", "avworld_sources", "media_path", "pictures", "read_sources", "sound"]

_CUT_S = 5.0  # what the authors' code cuts clips into
_SHORTEST_S = 0.5
_MOST_PICTURES = 32
_SENT_PIXELS = 448 * 448


@dataclass(frozen=True)
class Source:
    """A captioned clip.

    media: its file; relative to the folder of the output. caption: what is seen and heard, in order. duration_s: of the clip. cut_s: how
    long a segment is. notes: (start_s, end_s, seen, heard) of spans, what a model without eyes or ears is given in place of media.
    questions: (question, answer) that it comes with; the writer is asked for none then. seed: of the AV World that it is, whose truth
    is known.
    """

    id: str
    media: str
    caption: str
    duration_s: float
    cut_s: float = _CUT_S
    notes: tuple[tuple[float, float, str, str], ...] = ()
    questions: tuple[tuple[str, str], ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(tuple(pair) for pair in self.questions))
        object.__setattr__(self, "notes", tuple(tuple(note) for note in self.notes))

    @property
    def spans_s(self) -> list[tuple[float, float]]:
        """Cuts of `cut_s`; what is left at the end and shorter than half a second belongs to the last."""
        starts = np.arange(0.0, max(self.duration_s - _SHORTEST_S, self.cut_s / 2), self.cut_s)
        ends = [*starts[1:], self.duration_s]
        return [(float(a), float(b)) for a, b in zip(starts, ends, strict=True)]

    def noted(self, sense: str, start_s: float = 0.0, end_s: float = float("inf")) -> str:
        """What the notes say is "seen" or "heard" in a span, a line a note. DataError where there are none."""
        if not self.notes:
            raise DataError(f"{self.id} has no notes, which a model without media needs; set the role's 'media' to true, or add notes to the source.")
        column = 2 if sense == "seen" else 3
        lines = [f"[{n[0]:.1f}-{n[1]:.1f} s] {n[column]}" for n in self.notes if n[0] < end_s and n[1] > start_s]
        return "\n".join(lines) or "Nothing."

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_sources(path: Path | str, n: int | None = None) -> list[Source]:
    """The first `n` rows of a JSONL file of sources; media are relative to it. DataError names the line that is wrong."""
    from latentomni.media import probe

    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # no other sign ends a line: captions may hold them
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); give a JSONL file of sources (docs/SYNTHESIS.md).") from None
    found: dict[str, Source] = {}
    for number, line in [(number, line) for number, line in enumerate(lines, 1) if line.strip()][:n]:
        try:
            row = json.loads(line)
            media = (path.parent / row["media"]).resolve()
            source = Source(**{**row, "media": str(media), "id": str(row["id"]), "duration_s": probe(media).duration_s})
            json.dumps(row, ensure_ascii=False).encode()  # not so with half a surrogate pair
            assert "seed" not in row and _SHORTEST_S <= source.cut_s < math.inf
            assert all(isinstance(text, str) and text.strip() for text in (row["caption"], source.id))
            assert all(isinstance(text, str) and text.strip() for question, answer in source.questions for text in (question, answer))
            assert all(0 <= a < b and isinstance(seen, str) and isinstance(heard, str) for a, b, seen, heard in source.notes)
        except (ValueError, KeyError, TypeError, AssertionError):
            keys = "id, media and caption, and may have cut_s (0.5 and more), notes [start_s, end_s, seen, heard] and questions [question, answer]"
            raise DataError(f"{path}, line {number}: a source is an object with {keys} (docs/SYNTHESIS.md).") from None
        if source.id in found:
            raise DataError(f"{path}, line {number}: the id {source.id!r} was there before; give every source its own.")
        found[source.id] = source
    return list(found.values())


def avworld_sources(n: int, seed: int = 0, with_questions: bool = False) -> list[Source]:
    """`n` clips of AV World's training split, captioned by its own narration; a segment lasts as long as a scene.

    with_questions: each comes with three of its own, two that need both modalities and one that does not, to try out what follows them.
    """
    from latentomni.avworld.truth import narration
    from latentomni.avworld.world import SCENE_S, sample_world

    sources = []
    for number in range(seed, seed + n):
        world = sample_world(number, "train")
        notes = tuple((s.window.start_s, s.window.end_s, f"{s.object}, {s.place}.", f"{s.sound}, {s.count}.") for s in world.scenes)
        own = _own_questions(world) if with_questions else ()
        sources.append(Source(world.name, f"clips/{world.name}.mp4", narration(world), world.duration_s, SCENE_S, notes, own, number))
    return sources


def _own_questions(world: Any) -> tuple[tuple[str, str], ...]:
    from latentomni.avworld.questions import questions

    two = [(q.text, q.answer) for q in questions(world) if q.family in ("colour", "shape", "place", "sound", "count")]
    scene = world.scenes[world.seed % len(world.scenes)]
    one = (f"Where is the {scene.object}?", scene.place) if world.seed % 2 else (f"How often is the {scene.sound} heard?", scene.count)
    return (two[world.seed % len(two)], two[(7 * world.seed + 3) % len(two)], one)


def media_path(source: Source, out: Path) -> Path:
    """The clip's file; one of AV World is written when it is first needed, in one move."""
    path = out / source.media
    if source.seed is not None and not path.is_file():
        from latentomni.avworld.world import sample_world
        from latentomni.avworld.writing import write_clip

        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.partial.mp4")  # other processes may need the same clip
        write_clip(sample_world(source.seed, "train"), partial)
        partial.rename(path)
    return path


def pictures(source: Source, out: Path, start_s: float, end_s: float) -> list[dict[str, Any]]:
    """Frames of a span as content parts: two a second, at most 32, JPEG; none where there are none."""
    from PIL import Image

    clip = _cut(media_path(source, out), start_s, end_s, "video_codec", fps=min(2.0, _MOST_PICTURES / (end_s - start_s)), sound=False)
    parts = []
    for frame in clip.frames[:_MOST_PICTURES] if clip else ():
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=85)
        url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def sound(source: Source, out: Path, start_s: float, end_s: float) -> list[dict[str, Any]]:
    """The sound of a span as a content part: WAV, mono, 16 kHz; none where there is none."""
    clip = _cut(media_path(source, out), start_s, end_s, "audio_codec", picture=False)
    if clip is None or clip.waveform is None or not len(clip.waveform):
        return []
    file = io.BytesIO()
    with wave.open(file, "wb") as out_file:
        out_file.setnchannels(1)
        out_file.setsampwidth(2)
        out_file.setframerate(SAMPLE_RATE_HZ)
        out_file.writeframes((clip.waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return [{"type": "input_audio", "input_audio": {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"}}]


def _cut(path: Path, start_s: float, end_s: float, needed: str, **reading: Any) -> Any:
    """A span of a clip, read from its file; None where the stream that is needed is missing."""
    from latentomni.media import probe, read_clip

    info = probe(path)
    if getattr(info, needed) is None:
        return None
    return read_clip(path, max_pixels=_SENT_PIXELS, reading=ReadingSpec(start_s=start_s, end_s=min(end_s, info.duration_s), **reading))
