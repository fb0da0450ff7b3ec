"""One row being assembled: token ids, kinds, blocks, turns and positions, appended part by part.

Training appends whole answers at once, generation appends as it decodes; both get the same layout, the same positions and
therefore the same mask. Dimensions: B batch, T tokens, S blocks, K latents per block, D hidden.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from latentomni.attention_flow import FLOW_CODES, Kind, Layout
from latentomni.clock import Window
from latentomni.config import AttentionFlow, LatentSpec
from latentomni.positions import LatentPlace, PositionBuilder, latent_places

__all__ = ["ClipFeatures", "Sequence", "SpecialIds", "collate", "no_clip"]


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that have a meaning for the layout."""

    trigger: int
    close: int
    latent_pad: int
    video: int
    audio: int
    vision_bos: int
    vision_eos: int
    audio_bos: int
    audio_eos: int
    end_of_turn: int
    padding: int


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """What the towers made of a clip, in the language model's input space.

    visual: (V, D), row-major over (time, row, column) of `grid`. visual_times_s: (T,) start of each temporal patch.
    audio: (A, D), one per 40 ms. audio_times_s: (A,). Either may be empty.
    """

    visual: torch.Tensor
    visual_times_s: np.ndarray
    visual_end_s: np.ndarray
    grid: tuple[int, int]
    audio: torch.Tensor
    audio_times_s: np.ndarray
    duration_s: float

    @property
    def vectors(self) -> torch.Tensor:
        """(V + A, D): visual, then audio."""
        return torch.cat([self.visual, self.audio])

    def only(self, modality: str) -> "ClipFeatures":
        """What is left with "visual" or "audio" alone."""
        if modality == "visual":
            return replace(self, audio=self.audio[:0], audio_times_s=self.audio_times_s[:0])
        never = np.zeros(0)
        return replace(self, visual=self.visual[:0], visual_times_s=never, visual_end_s=never, grid=(1, 1))


def no_clip(hidden: int) -> ClipFeatures:
    """Features of nothing, for rows of text alone."""
    empty, never = torch.zeros(0, hidden), np.zeros(0)
    return ClipFeatures(empty, never, never, (1, 1), empty, never, 0.0)


@dataclass
class Sequence:
    """One row. Lists grow together. `sources`: which media feature (visual first, then audio) or which of `latents`, the
    (D,) vectors of the latent tokens in order, is this token's input; -1 where the token's own embedding is."""

    spec: LatentSpec
    ids: SpecialIds
    flow: AttentionFlow
    token_ids: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    flows: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    positions: tuple[list[int], list[int], list[int]] = field(default_factory=lambda: ([], [], []))
    latents: list[torch.Tensor] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    question_ids: list[int] = field(default_factory=list)
    clip: ClipFeatures | None = None
    turn: int = 0
    builder: PositionBuilder = field(default_factory=PositionBuilder)
    _branch_point: PositionBuilder | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    def _extend(self, token_ids: list[int], kind: Kind, ids: np.ndarray, block: int = -1, sources: list[int] | None = None) -> None:
        n = len(token_ids)
        self.token_ids += token_ids
        self.kinds += [int(kind)] * n
        self.blocks += [block] * n
        self.turns += [self.turn] * n
        self.flows += [FLOW_CODES[self.flow]] * n
        self.sources += sources or [-1] * n
        for axis, values in zip(self.positions, ids.tolist(), strict=True):
            axis += values

    def add_text(self, token_ids: list[int], kind: Kind = Kind.TEXT, block: int = -1) -> None:
        """Append tokens of the running text (or trigger, echo, window of `block`)."""
        ids, self.builder = self.builder.text(len(token_ids))
        self._extend(list(token_ids), kind, ids, block)

    def add_media(self, clip: ClipFeatures, chunk_s: float = 2.0) -> None:
        """Append a clip as Qwen2.5-Omni lays it out: both opening brackets on one id, chunks of `chunk_s` seconds
        (video, then audio of the same span), both closing brackets on one id."""
        self.clip = clip
        n_times, n_audio = len(clip.visual_times_s), len(clip.audio_times_s)
        cells = np.array([(r, c) for r in range(clip.grid[0]) for c in range(clip.grid[1])], dtype=np.int64)
        times = np.concatenate([np.repeat(clip.visual_times_s, len(cells)), clip.audio_times_s])
        places = np.concatenate([np.tile(cells, (n_times, 1)), np.full((n_audio, 2), -1)]) if len(times) else np.zeros((0, 2), np.int64)
        is_audio = np.arange(len(times)) >= n_times * len(cells)
        order = np.lexsort((np.arange(len(times)), is_audio, np.floor(times / chunk_s + 1e-6)))
        brackets = [(self.ids.vision_bos, self.ids.vision_eos)] * bool(n_times) + [(self.ids.audio_bos, self.ids.audio_eos)] * bool(n_audio)
        if not brackets:
            return
        opening, self.builder = self.builder.text(1)
        self._extend([b for b, _ in brackets], Kind.MEDIA, np.repeat(opening, len(brackets), axis=1))
        ids, self.builder = self.builder.media(times[order], places[order], clip.grid)
        self._extend([self.ids.audio if a else self.ids.video for a in is_audio[order]], Kind.MEDIA, ids,
                     sources=order.tolist())  # fmt: skip
        closing, self.builder = self.builder.text(1)
        self._extend([e for _, e in reversed(brackets)], Kind.MEDIA, np.repeat(closing, len(brackets), axis=1))

    def hide_media(self) -> None:
        """Take the tokens of the clip out; all that comes later still stands on its clock."""
        kept = [i for i, kind in enumerate(self.kinds) if kind != Kind.MEDIA]
        for values in (self.token_ids, self.kinds, self.blocks, self.turns, self.flows, self.sources, *self.positions):
            values[:] = [values[i] for i in kept]

    def begin_turn(self, flow: AttentionFlow, *, isolated: bool = False) -> None:
        """Start the next question. `isolated` (packing): it stands right behind the shared prefix, blind to other turns."""
        self.turn = -abs(self.turn) - 1 if isolated else self.turn + 1
        self.flow = flow
        if self._branch_point is None:
            self._branch_point = self.builder
        if isolated:
            self.builder = self._branch_point

    def open_block(self) -> None:
        """Append the trigger and, under the strict flow, the echo of the question."""
        block = len(self.windows)
        self.add_text([self.ids.trigger], Kind.TRIGGER, block)
        if self.spec.echoes and self.flow is AttentionFlow.STRICT:
            self.add_text(self.question_ids, Kind.ECHO, block)

    def add_window_tokens(self, token_ids: list[int]) -> None:
        self.add_text(token_ids, Kind.WINDOW, len(self.windows))

    def add_latents(self, window: Window) -> tuple[LatentPlace, ...]:
        """Append the K latent slots of the open block; their vectors are given in `latents` as they are known."""
        ids, self.builder = self.builder.latents(window, self.spec)
        k, done = self.spec.n_latents, len(self.windows) * self.spec.n_latents
        self._extend([self.ids.latent_pad] * k, Kind.LATENT, ids, len(self.windows), sources=list(range(done, done + k)))
        self.windows.append(window)
        return latent_places(window, self.spec)

    def close_block(self) -> None:
        self.add_text([self.ids.close])

    def up_to(self, end: int) -> "Sequence":
        """A new row of the first `end` tokens, with the blocks that are complete among them; its last token is no latent."""
        names = ("token_ids", "kinds", "blocks", "turns", "flows", "sources")
        latents = self.kinds[:end].count(Kind.LATENT)
        return replace(
            self,
            **{name: getattr(self, name)[:end] for name in names},
            positions=tuple(axis[:end] for axis in self.positions),
            latents=self.latents[:latents],
            windows=self.windows[: latents // self.spec.n_latents],
            builder=replace(self.builder, next_id=self.positions[0][end - 1] + 1),
        )

    def drop_open_block(self) -> None:
        """Take back a block whose latents are not all known, as when an answer is stopped inside it."""
        complete = len(self.latents) // self.spec.n_latents
        if complete in self.blocks:
            start = self.blocks.index(complete)
            self.builder = replace(self.builder, next_id=self.positions[0][start])
            for values in (self.token_ids, self.kinds, self.blocks, self.turns, self.flows, self.sources, *self.positions):
                del values[start:]
            del self.windows[complete:], self.latents[complete * self.spec.n_latents :]


def collate(rows: list[Sequence], packs: list[int] | None = None) -> tuple[torch.Tensor, torch.Tensor, Layout]:
    """Right-padded batch: token ids (B, T), position ids (3, B, T), layout of (B, T) fields.

    packs: how many sequences share each row of the batch, one behind the other and blind to one another; one each unless given.
    """
    packs = packs or [1] * len(rows)
    ends = np.cumsum(packs).tolist()
    packed = [rows[end - n : end] for n, end in zip(packs, ends, strict=True)]
    length = max(sum(map(len, group)) for group in packed)
    ids = torch.full((len(packed), length), rows[0].ids.padding, dtype=torch.long)
    positions = torch.zeros(3, len(packed), length, dtype=torch.long)
    fills = {"kind": int(Kind.PAD), "block": -1, "turn": 0, "flow": 0, "sample": 0}
    parts = {name: torch.full((len(packed), length), fill, dtype=torch.long) for name, fill in fills.items()}
    for b, group in enumerate(packed):
        start = 0
        for sample, row in enumerate(group):
            span = slice(start, start + len(row))
            ids[b, span] = torch.tensor(row.token_ids)
            positions[:, b, span] = torch.tensor(row.positions)
            for name, values in (("kind", row.kinds), ("block", row.blocks), ("turn", row.turns), ("flow", row.flows)):
                parts[name][b, span] = torch.tensor(values)
            parts["sample"][b, span] = sample
            start += len(row)
    order = torch.arange(length).expand(len(packed), length)
    return ids, positions, Layout(order=order, **parts)
