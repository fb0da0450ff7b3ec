"""Rows of a training file as micro-batches: which rows a step takes, how they share rows of tokens, and their clips' features.

Which rows a step holds depends on (seed, stage, step) alone, and is known on every process without reading a clip; where clips lie
in shards, it depends on the number of processes, too, for each reads shards of its own. Dimensions: B rows, T tokens.
"""

import math
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Listing
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from latentomni.clock import POSITIONS_PER_SECOND
from latentomni.config import VideoSpec
from latentomni.errors import require
from latentomni.media import Clip, MediaInfo, probe, read_clip
from latentomni.modeling import Thinker
from latentomni.processing import resized_size
from latentomni.sequence import ClipFeatures
from latentomni.training.batches import Batch, make_batch, pack
from latentomni.training.examples import Example, build_example
from latentomni.training.features import FeatureCache
from latentomni.training.recipes import TrainRecipe
from latentomni.training.records import Record, turns

__all__ = ["MicroBatches", "Size", "Source", "split_batches"]

_READ_PX = 448 * 448  # frames come smaller than that from `read_clip`


@dataclass(frozen=True)
class Size:
    """Tokens of a record: all, those of text that are predicted, latents, and the clip's."""

    tokens: int
    targets: int
    latents: int
    visual: int
    audio: int


class MicroBatches(Listing):
    """A step's micro-batches, each built when it is asked for: other processes' clips are never read."""

    def __init__(self, chosen: list[tuple[int, ...]], build: Callable[[tuple[int, ...]], Batch]) -> None:
        self.chosen, self._build = chosen, build

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Batch:
        return self._build(self.chosen[number])


class Source:
    """Micro-batches of a recipe's records, in their order for the loop. processes: their number is a multiple of it."""

    def __init__(self, thinker: Thinker, records: list[Record], recipe: TrainRecipe, processes: int = 1) -> None:
        require(recipe.samples % processes == 0, f"{recipe.samples} samples a step cannot be shared by {processes} processes; take a multiple")
        self.thinker, self.records, self.recipe, self.processes = thinker, records, recipe, processes
        self.turns = [turns(record, recipe.style) for record in records]
        self.cache = FeatureCache(recipe.features, thinker) if recipe.features else None
        self.members = {record.media: record.member for record in records if record.member}
        self.lanes = self._dealt()
        self._sizes: dict[int, Size] = {}
        self._outlines: dict[Path, ClipFeatures] = {}

    def draw(self, stage: int, step: int) -> MicroBatches:
        """Micro-batches of a step, of which process r of w takes r, r + w, ...: with shards, rows of its own."""
        lanes = self._rows(stage, step)
        parts = [self._split(rows, self.processes // len(lanes)) for rows in lanes]
        most = max(map(len, parts))
        parts = [self._split(rows, most) for rows in lanes]
        return MicroBatches([part for turn in zip(*parts, strict=True) for part in turn], self._build)

    def rows(self, stage: int, step: int) -> list[int]:
        """Numbers of a step's records: epoch after epoch in an order of its own, each record once (with shards: of every process)."""
        return [number for lane in self._rows(stage, step) for number in lane]

    def _rows(self, stage: int, step: int) -> list[list[int]]:
        """The same by lane: a process that reads shards has a lane of its own, else there is one for all."""
        done, share = sum(s.steps for s in self.recipe.stages[:stage]) + step, self.recipe.samples // len(self.lanes)
        first, drawn = done * share, []
        for number, lane in enumerate(self.lanes):
            n = sum(map(len, lane))
            epochs = range(first // n, (first + share - 1) // n + 1)
            drawn.append(np.concatenate([self._order(number, epoch) for epoch in epochs])[first % n :][:share].tolist())
        return drawn

    def _order(self, lane: int, epoch: int) -> np.ndarray:
        """Shard after shard, each in an order of its own."""
        random = np.random.default_rng([self.recipe.fit.seed, epoch, *[lane] * (lane > 0)])
        shards = self.lanes[lane]
        return np.concatenate([random.permutation(shards[k]) for k in random.permutation(len(shards))])

    def _dealt(self) -> list[list[list[int]]]:
        """Records of each shard of each lane."""
        shards: dict[str, list[int]] = {}
        for number, record in enumerate(self.records):
            shards.setdefault(record.member.shard if record.member else "", []).append(number)
        if "" in shards:
            return [[list(range(len(self.records)))]]
        n = len(shards)
        require(n % self.processes == 0, f"{n} shards cannot be shared by {self.processes} processes; pack the data into a multiple of them")
        ordered = [shards[name] for name in sorted(shards)]
        return [ordered[lane :: self.processes] for lane in range(self.processes)]

    def _split(self, rows: list[int], multiple: int) -> list[tuple[int, ...]]:
        lengths = [self.size(i).tokens for i in rows]
        parts = split_batches(lengths, self.recipe.tokens, packing=self.recipe.packing, multiple=multiple)
        return [tuple(rows[k] for k in part) for part in parts]

    def size(self, number: int) -> Size:
        """Of a record, from its file's header: a turned or damaged clip may have another in the end."""
        if number not in self._sizes:
            media = self.records[number].media
            if media not in self._outlines:
                member = self.members.get(media)
                self._outlines[media] = _outline(member.info if member else probe(media), self.thinker.video)
            clip, example = self._outlines[media], self._example(number, self._outlines[media])
            counted = len(example.sequence), len(example.text_targets), len(example.latent_targets)
            self._sizes[number] = Size(*counted, len(clip.visual), len(clip.audio))
        return self._sizes[number]

    def fill_cache(self, process: int, show: Callable[[list[Path]], Iterable[Path]] = iter) -> int:
        """Encode this process's share of all clips, so that no step waits for one; returns how many it has."""
        media = sorted({record.media for record in self.records})[process :: self.processes]
        if self.members:
            media = sorted({self.records[number].media for shard in self.lanes[process] for number in shard})
        for path in show(media):
            self._features(path)
        return len(media)

    def _build(self, numbers: tuple[int, ...]) -> Batch:
        packs = [len(numbers)] if self.recipe.packing else None
        if not self.recipe.train_towers:
            return make_batch(self.thinker, [self._example(n, self._features(self.records[n].media)) for n in numbers], packs)
        clips = []
        for number in numbers:
            with self._at_hand(self.records[number].media) as file:
                clips.append(self._read(file))
        examples = [self._example(n, self._encoded(clip)) for n, clip in zip(numbers, clips, strict=True)]
        return make_batch(self.thinker, examples, packs, lambda k: self.thinker.encode_clip(clips[k], grad=True))

    def _features(self, path: Path) -> ClipFeatures:
        member = self.members.get(path)
        if self.cache and member and (kept := self.cache.find(member.sha256, member.info.name)) is not None:
            return kept
        with self._at_hand(path) as file:
            return self.cache.features(file) if self.cache else self._encoded(self._read(file))

    def _at_hand(self, path: Path) -> AbstractContextManager[Path]:
        return self.members[path].at_hand() if path in self.members else nullcontext(path)

    def _encoded(self, clip: Clip) -> ClipFeatures:
        """On the CPU, where all of a step's features wait for their turn."""
        found = self.thinker.encode_clip(clip)
        return replace(found, visual=found.visual.cpu(), audio=found.audio.cpu())

    def _read(self, path: Path) -> Clip:
        video = self.thinker.video
        return read_clip(path, fps=video.fps, limits=video.limits())

    def _example(self, number: int, clip: ClipFeatures) -> Example:
        return build_example(self.thinker, clip, self.turns[number], isolated=self.thinker.spec.single_turn)


def split_batches(lengths: Listing[int], tokens: int, *, packing: bool, multiple: int = 1) -> list[list[int]]:
    """Micro-batches of samples with these lengths, of at most `tokens` tokens (padding counted) where no sample is longer: packed
    into one row each, or rows of like length. Their number is made a multiple by splitting the fullest; the largest come first,
    so that processes, which take them in turn, have alike ones."""
    if packing:
        order, packs = pack(lengths, tokens)
        ends = np.cumsum(packs).tolist()
        parts = [order[end - n : end] for n, end in zip(packs, ends, strict=True)]
    else:
        parts = []
        for i in np.argsort([-n for n in lengths], kind="stable").tolist():
            if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= tokens:
                parts[-1].append(i)
            else:
                parts.append([i])
    while len(parts) % multiple:
        fullest = max(range(len(parts)), key=lambda p: len(parts[p]))
        part = parts.pop(fullest)
        assert len(part) > 1
        parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return sorted(parts, key=lambda part: -sum(lengths[i] for i in part))


def _outline(info: MediaInfo, video: VideoSpec) -> ClipFeatures:
    """As many features of width 1 as the file's header promises."""
    times, rows, columns, fps = 0, 1, 1, video.fps
    if info.video_codec:
        frames = min(max(math.ceil(info.duration_s * fps - 1e-3), 1), video.max_frames)
        fps = fps if frames < video.max_frames else min(frames / info.duration_s, fps)
        times = math.ceil(frames / video.temporal_patch)
        scale = min(1.0, math.sqrt(_READ_PX / (info.width_px * info.height_px)))
        height_px, width_px = (max(2, int(side * scale) // 2 * 2) for side in (info.height_px, info.width_px))
        rows, columns = (side // video.factor_px for side in resized_size(height_px, width_px, video))
    starts = np.arange(times) * video.temporal_patch / fps
    sounds = int(info.duration_s * POSITIONS_PER_SECOND + 1e-3) if info.audio_codec else 0
    ends = np.append(starts[1:], max(info.duration_s, *starts, 0.0)) if times else starts
    return ClipFeatures(torch.zeros(times * rows * columns, 1), starts, ends, (rows, columns), torch.zeros(sounds, 1),
                        np.arange(sounds) / POSITIONS_PER_SECOND, info.duration_s)  # fmt: skip
