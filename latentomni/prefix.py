"""Tokens that were read once and are gone on from many times: their keys and values, and the layout that masks are made of.

Dimensions: B rows, H key heads, K keys, n new tokens, E width of a head.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from latentomni.attention_flow import Layout, attention_mask

__all__ = ["Columns", "Prefix", "growing_cache", "make_room"]


class Columns:
    """The key layout of the cache, column by column; rows that have nothing to feed get padding.

    A token of the kind, block, turn and flow of the one before it sees what that one saw, and itself. So a run of words or
    of latents needs no new mask, and none at all where everything is visible.
    """

    def __init__(self) -> None:
        self._fields: list[torch.Tensor] = []
        self._last: list[list[int]] = []
        self._last_mask: torch.Tensor | None = None

    def append(self, new: torch.Tensor, last: list[list[int]]) -> torch.Tensor | None:
        """new: (6, B, n) fields of `Layout`; last: kind, block, turn and flow of each row's last column. Returns the mask
        (B, n, K) of the new tokens, None where a single new token of every row sees all."""
        self._fields.append(new)
        if new.shape[2] == 1 and last == self._last:
            if self._last_mask is not None:
                self._last_mask = F.pad(self._last_mask, (0, 1), value=True)
            return self._last_mask
        self._fields = [torch.cat(self._fields, dim=2)]
        mask = attention_mask(Layout(*new), Layout(*self._fields[0]))
        self._last, self._last_mask = last, None if mask[:, -1].all() else mask[:, -1:]
        return self._last_mask if new.shape[2] == 1 else mask

    def fork(self, rows: int) -> "Columns":
        """To go on with, `rows` times where this is one row."""
        other = Columns()
        other._fields = [values.expand(-1, rows, -1) for values in self._fields]
        return other


class _GrowingLayer(DynamicLayer):
    """Keys and values (B, H, K, E) with room behind them, so that a new token is written in place instead of all being copied.

    slot: where the next token goes, as a tensor; the whole room is handed out then, in which the caller masks what is not written.
    """

    slot: torch.Tensor | None = None
    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args, **_kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        new = (key_states, value_states)
        if self.slot is not None:
            for room, states in zip(self._room, new, strict=True):
                room.index_copy_(2, self.slot, states)
            return self._room
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._room is None or self.room < end:
            self._widen(new, start, end + max(end // 8, 128))
        for room, states in zip(self._room, new, strict=True):
            room[..., start:end, :] = states
        self.extend(end)
        return self.keys, self.values

    @property
    def room(self) -> int:
        """How many keys there is room for."""
        return 0 if self._room is None else self._room[0].shape[-2]

    def begin(self, like: torch.Tensor) -> None:
        """With no key. like: (B, H, 0, E)."""
        self.lazy_initialization(like, like)
        self.keys = self.values = like

    def reserve(self, end: int, ahead: int) -> None:
        """Make room for `end` keys and `ahead` more where there is none for `end`."""
        if self.room < end:
            self._widen((self.keys, self.values), self.get_seq_length(), end + ahead)
            self.extend(self.get_seq_length())

    def extend(self, end: int) -> None:
        """Count the first `end` keys of the room as written."""
        self.keys, self.values = (room[..., :end, :] for room in self._room)

    def _widen(self, like: tuple[torch.Tensor, torch.Tensor], start: int, size: int) -> None:
        """Zeros behind what is there: a value that is masked is still multiplied by nothing. A mask as long as the room is aligned, as kernels
        want it; each would pad its own else."""
        rooms, size = [], -(-size // 64) * 64
        for old, states in zip((self.keys, self.values), like, strict=True):
            room = states.new_empty(*states.shape[:-2], size, states.shape[-1])
            room[..., start:, :] = 0
            if start:
                room[..., :start, :] = old
            rooms.append(room)
        self._room = tuple(rooms)

    def fork(self, rows: int) -> "_GrowingLayer":
        """What is there already is shared until the first new token."""
        other = copy.copy(self)
        other._room, other.keys, other.values = None, self.keys.expand(rows, -1, -1, -1), self.values.expand(rows, -1, -1, -1)
        return other


def growing_cache(config) -> DynamicCache:
    """An empty cache for decoding; it knows no gradient."""
    cache = DynamicCache(config=config)
    cache.layers = [_GrowingLayer() for _ in cache.layers]
    return cache


def make_room(cache: DynamicCache, end: int, like: torch.Tensor) -> None:
    """For `end` keys in every layer before any is read, so that what stays lies together and not among blocks that come and go, which an
    allocator could then not use again. like: (B, H, 0, E) keys, of layers that have none yet."""
    for layer in cache.layers:
        if not layer.is_initialized:
            layer.begin(like)
        layer.reserve(end, 0)


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first tokens of some rows, `fed` of each, in the cache: read once, gone on from any number of times."""

    fed: list[int]
    cache: DynamicCache
    columns: Columns

    @property
    def nbytes(self) -> int:
        """Of keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def repeated(self, rows: int) -> "Prefix":
        """The same for `rows` rows that all begin like this one. Nothing is copied."""
        assert len(self.fed) == 1, self.fed
        return Prefix(self.fed * rows, *self.fork(rows))

    def fork(self, rows: int | None = None) -> tuple[DynamicCache, Columns]:
        """A cache and columns to go on with."""
        rows = rows or len(self.fed)
        cache = copy.copy(self.cache)
        cache.layers = [layer.fork(rows) for layer in self.cache.layers]
        return cache, self.columns.fork(rows)
