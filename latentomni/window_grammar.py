"""The small grammar under which a model writes its window: `[2.0-4.0 s]`, in steps of half a second."""

import re

from transformers import PreTrainedTokenizerFast

from latentomni.clock import Window

__all__ = ["WindowGrammar"]

# Every optional group is one more character, so a full match means "a prefix of a window".
_PREFIX = re.compile(r"\[(\d{1,3}(\.([05](-(\d{1,3}(\.([05]( (s(\])?)?)?)?)?)?)?)?)?)?")
_ALPHABET = frozenset("[]0123456789.- s")


class WindowGrammar:
    """Which tokens may come next while a window is written."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        texts = ((i, tokenizer.decode([i])) for i in range(len(tokenizer)))
        self._pieces = {i: text for i, text in texts if text and set(text) <= _ALPHABET}
        self._allowed: dict[str, list[int]] = {}

    def allowed(self, text: str) -> list[int]:
        """Token ids that keep `text` the beginning of a window; empty once it is complete."""
        if text not in self._allowed:
            self._allowed[text] = [i for i, piece in self._pieces.items() if _PREFIX.fullmatch(text + piece)]
        return self._allowed[text]

    def text(self, token_id: int) -> str:
        return self._pieces[token_id]

    @staticmethod
    def complete(text: str) -> bool:
        return text.endswith("]")

    @staticmethod
    def resolve(text: str, duration_s: float) -> tuple[Window, str]:
        """The window to use and where it is from: "model", "clamped" (moved into the clip) or "nominal" (none was
        written: the whole clip)."""
        window = Window.parse(text)
        if window is None:
            return Window(0.0, max(duration_s, 0.5)), "nominal"
        inside = window.clamped(duration_s)
        return inside, "model" if inside == window else "clamped"
