"""One new token of every row over keys and values that keep their places: the same kernels each time, which a GPU replays as one graph.

A decoder that is told what to do kernel by kernel waits for the telling; a graph is told once. Dimensions: B rows, K keys, D hidden.
"""

import logging
import threading
from functools import cache
from typing import TYPE_CHECKING

import torch

from latentomni.memory import is_out_of_memory
from latentomni.modeling import Thinker

if TYPE_CHECKING:
    from transformers import DynamicCache

__all__ = ["FixedStep"]

_AHEAD = 512  # tokens that keys and values are given room for at once: a graph holds as long as they stay where they are
_STEPS_BEFORE_CAPTURE = 4  # a short answer does not earn one
_CAPTURING = threading.Lock()  # a process can take one graph at a time
_log = logging.getLogger(__name__)


class FixedStep:
    """Steps of one decoding over its cache, as long as that goes on one token at a time.

    The keys behind the last one are masked, so that a step reads all the room there is. On a GPU the step is captured and checked against
    the step it was made from; where that fails, it goes on uncaptured and says so in the log, and so do later answers of this model.
    """

    def __init__(self, thinker: Thinker, cache: "DynamicCache") -> None:
        self.thinker, self.cache = thinker, cache
        self._inputs: tuple[torch.Tensor, ...] | None = None
        self._places: list[tuple[int, int]] = []
        self._graph: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None
        self._may_capture, self._steps = thinker.device.type == "cuda", 0

    def run(self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, 1, D) hidden states, and the token's keys and values in the cache. embeds: (B, 1, D). positions: (3, B, 1). mask:
        (B, 1, K) bool over all keys with the new one, None where all are seen."""
        end = self.cache.get_seq_length() + 1
        for layer in self.cache.layers:
            layer.reserve(end, _AHEAD)
        places = [(layer.keys.data_ptr(), layer.room) for layer in self.cache.layers]
        if places != self._places:  # here, or in a feed of several tokens between two steps
            self._graph, self._inputs, self._places = None, self._new_inputs(embeds, positions), places
        held_embeds, held_positions, held_mask, slot = self._inputs
        held_embeds.copy_(embeds)
        held_positions.copy_(positions)
        slot.fill_(end - 1)
        seen = held_mask[..., :end]
        if mask is None:
            seen.zero_()
        else:
            seen.copy_(torch.where(mask[:, None], 0.0, -torch.inf))
        hidden = self._play()
        for layer in self.cache.layers:
            layer.extend(end)
        return hidden

    def _new_inputs(self, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mask = embeds.new_full((len(embeds), 1, 1, self.cache.layers[0].room), -torch.inf)
        return torch.empty_like(embeds), torch.empty_like(positions), mask, torch.zeros(1, dtype=torch.long, device=embeds.device)

    def _play(self) -> torch.Tensor:
        if self._graph is None:
            hidden = self._step()
            self._steps += 1
            if self._may_capture and self._steps > _STEPS_BEFORE_CAPTURE:
                self._capture(hidden)
            return hidden
        graph, hidden = self._graph
        graph.replay()
        return hidden.clone()

    def _step(self) -> torch.Tensor:
        embeds, positions, mask, slot = self._inputs
        for layer in self.cache.layers:
            layer.slot = slot
        try:
            return self.thinker.text_model(
                inputs_embeds=embeds, position_ids=positions, attention_mask={"full_attention": mask}, past_key_values=self.cache, use_cache=True
            ).last_hidden_state
        finally:
            for layer in self.cache.layers:
                layer.slot = None

    def _capture(self, expected: torch.Tensor) -> None:
        """Take the step that was just made as a graph: made again, it writes the same keys and values to the same place."""
        is_lasting = True
        try:
            graph, hidden = self._recorded()
            graph.replay()
            is_same = torch.allclose(hidden, expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))
        except RuntimeError as error:
            is_same, told = False, str(error).partition("\n")[0]
            is_lasting = not is_out_of_memory(error)
        else:
            told = "its replay gives other values"
        if is_same:
            self._graph = (graph, hidden)
            return
        self._may_capture = False
        if is_lasting:  # it would fail for every answer, as where a layer's kernels wait for the host
            self.thinker.fixes_steps = False
        _log.warning("The decoder's step could not be captured as a graph (%s); answers go on without, and slower.", told)

    def _recorded(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """The step as a graph of the device that holds its inputs, and where its replay will write the hidden states."""
        device = self._inputs[0].device
        before, aside = torch.cuda.current_stream(device), _aside(device)
        with _CAPTURING, torch.cuda.device(device), torch.cuda.stream(before):  # a capture that fails would leave its own stream the current one
            aside.wait_stream(before)
            with torch.cuda.stream(aside):
                self._step()
            before.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
                hidden = self._step()
        return graph, hidden


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: libraries hold room for every stream that they were used on."""
    return torch.cuda.Stream(device)
