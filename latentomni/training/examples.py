"""From a clip and what is asked and answered about it to one training row with its targets.

Dimensions: T tokens, S blocks, K latents per block, D hidden.
"""

from dataclasses import dataclass, field

import torch

from latentomni.anchors import pool_anchors
from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import ClipFeatures, Sequence
from latentomni.training.turns import Segment, Turn

__all__ = ["Example", "build_example"]


@dataclass
class Example:
    """A row with its targets. text_targets: (predictor index, token id, group) where group is "text", "window", "caption" or
    that of a turn. latent_targets: (predictor index, token index of the latent) in order. anchors, exists: one (K, D) and (K,) a
    block. asked: (token index, window) of the words that the segments are found by.
    """

    sequence: Sequence
    text_targets: list[tuple[int, int, str]] = field(default_factory=list)
    latent_targets: list[tuple[int, int]] = field(default_factory=list)
    anchors: list[torch.Tensor] = field(default_factory=list)
    exists: list[torch.Tensor] = field(default_factory=list)
    asked: list[tuple[int, Window]] = field(default_factory=list)

    def say(self, token_ids: list[int], group: str) -> None:
        """Append supervised text; its first token is predicted by whatever stands last."""
        start = len(self.sequence)
        self.text_targets += [(start - 1 + i, token, group) for i, token in enumerate(token_ids)]
        self.sequence.add_text(token_ids)

    def reason(self, window_ids: list[int], clip: ClipFeatures, window: Window, *, given: bool = False) -> None:
        """Append a latent block: supervised trigger and window, then latents whose targets are the window's anchors. given: the block is
        read, and nothing of it learned."""
        row = self.sequence
        targets = [(len(row) - 1, row.ids.trigger, "text")]
        row.open_block()
        start = len(row)
        targets += [(start - 1 + i, token, "window") for i, token in enumerate(window_ids)]
        self.text_targets += [] if given else targets
        row.add_window_tokens(window_ids)
        first = len(row)
        row.add_latents(window)
        self.latent_targets += [(first - 1 + k, first + k) for k in range(row.spec.n_latents)]
        anchors, exists = pool_anchors(clip, window, row.spec)
        self.anchors.append(anchors)
        self.exists.append(exists & (not given))
        row.close_block()

    def find(self, asked_id: int, start: int, stop: int, window: Window) -> None:
        """Note where in tokens `start` to `stop` the word is named that the window is found by."""
        self.asked += [(i, window) for i in range(start, stop) if self.sequence.token_ids[i] == asked_id]


def build_example(thinker: Thinker, clip: ClipFeatures, turns: list[Turn] | tuple[Turn, ...], *, isolated: bool = False, shown: bool = True) -> Example:
    """A row of turns behind one clip: a conversation, or (isolated) questions that are blind to one another, so that a clip's
    media tokens are computed once for all of them. shown: without it the row has no media, and knows of the clip what is given alone;
    all else stands where it stands behind them."""
    text = thinker.cached_text
    example = Example(new_sequence(clip, thinker.spec, thinker.ids, text))
    if not shown:
        example.sequence.hide_media()
    for turn in turns:
        asked_from = len(example.sequence)
        add_question(example.sequence, turn.question, turn.mode, text, isolated=isolated)
        for place, part in enumerate(turn.parts):
            if isinstance(part, Segment):
                asked_from = _add_segment(example, thinker, clip, turn, part, asked_from)
                continue
            spaced = turn.mode is Mode.TEXT_COT and place and isinstance(turn.parts[place - 1], Segment)
            words = text(" " + part if spaced else part)
            is_last = place == len(turn.parts) - 1
            if turn.given and not is_last:
                example.sequence.add_text(words)
                continue
            example.say([*words, thinker.ids.end_of_turn] if is_last else words, turn.group if is_last else "text")
    return example


def _add_segment(example: Example, thinker: Thinker, clip: ClipFeatures, turn: Turn, segment: Segment, asked_from: int) -> int:
    """Append a segment as its turn's mode has it; returns from where on the next segment's words are looked for."""
    row, text, mode = example.sequence, thinker.cached_text, turn.mode
    start, window_ids = len(row), text(str(segment.window))
    stop = start
    if mode is Mode.LATENT:
        example.reason(window_ids, clip, segment.window, given=turn.given)
        stop = start + 1 + len(row.question_ids) * row.spec.echoes
        asked_from = start + 1 if row.spec.echoes else asked_from
    elif mode is Mode.TEXT_COT:
        window_ids, caption_ids = text(f" {segment.window}"), text(f" {segment.caption}")
        if turn.given:
            row.add_text([*window_ids, *caption_ids])
        else:
            example.say(window_ids, "window")
            example.say(caption_ids, "caption")
    if segment.asked and not turn.given:
        example.find(text(" " + segment.asked)[-1], asked_from, stop, segment.window)
    return asked_from if mode is Mode.DIRECT else len(row)
