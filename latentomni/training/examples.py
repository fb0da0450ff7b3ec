"""From a clip and its questions to one packed training row with its targets.

Every question of a row stands behind the same media and is blind to the others, so a clip's media tokens are computed once
for all of them, and all its windows are asked for densely. Dimensions: B rows, T tokens, K latents per block, D hidden.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from latentomni.anchors import pool_anchors
from latentomni.avworld.questions import Question
from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.modeling import Thinker
from latentomni.processing import add_question, new_sequence
from latentomni.sequence import ClipFeatures, Sequence

__all__ = ["Example", "build_example", "choose"]


@dataclass
class Example:
    """A packed row. text_targets: (predictor index, token id, group) where group is "text", "window" or "answer".
    latent_targets: (predictor index, token index of the latent) in order. anchors, exists: (S * K, D) and (S * K,).
    asked: (token index, window) of the echoed word that is looked or listened for.
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

    def reason(self, window_ids: list[int], asked_id: int, clip: ClipFeatures, question: Question) -> None:
        """Append a latent block: supervised trigger and window, then latents whose targets are the window's anchors."""
        row = self.sequence
        self.text_targets.append((len(row) - 1, row.ids.trigger, "text"))
        row.open_block()
        start = len(row)
        echoed = len(row.question_ids)
        self.asked += [(start - echoed + i, question.window) for i, token in enumerate(row.question_ids) if token == asked_id]
        self.text_targets += [(start - 1 + i, token, "window") for i, token in enumerate(window_ids)]
        row.add_window_tokens(window_ids)
        first = len(row)
        row.add_latents(question.window)
        self.latent_targets += [(first - 1 + k, first + k) for k in range(row.spec.n_latents)]
        anchors, exists = pool_anchors(clip, question.window, row.spec)
        self.anchors.append(anchors)
        self.exists.append(exists)
        row.close_block()


def build_example(thinker: Thinker, clip: ClipFeatures, latent: list[Question], direct: list[Question], narration: str | None) -> Example:
    """One packed row: questions answered through a latent block, questions answered directly, and the narration."""
    text = thinker.cached_text
    example = Example(new_sequence(clip, thinker.spec, thinker.ids, text))
    row, end = example.sequence, [thinker.ids.end_of_turn]
    for question in latent:
        add_question(row, question.text, Mode.LATENT, text, isolated=True)
        example.say(text(question.lead), "text")
        example.reason(text(str(question.window)), text(" " + question.asked)[-1], clip, question)
        example.say(text(question.closing) + end, "answer")
    for question in direct:
        add_question(row, question.text, Mode.DIRECT, text, isolated=True)
        example.say(text(question.closing) + end, "answer")
    if narration is not None:
        add_question(row, "Describe the clip.", Mode.DIRECT, text, isolated=True)
        example.say(thinker.encode_text(narration) + end, "narration")
    return example


def choose(rng: np.random.Generator, questions: tuple[Question, ...], count: int) -> list[Question]:
    """`count` different questions. Half of them (as far as there are) look for an object, the others listen for a sound:
    "sound" is one family of five, but finding an object by two words is the harder search."""
    order = [questions[i] for i in rng.permutation(len(questions))]
    looking = [q for q in order if q.family == "sound"][: count // 2]
    listening = [q for q in order if q.family != "sound"][: count - len(looking)]
    chosen = looking + listening
    return [chosen[i] for i in rng.permutation(len(chosen))]
