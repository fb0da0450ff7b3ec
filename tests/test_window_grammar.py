"""The window grammar: whatever may be written leads to a window, and what is written resolves to one in the clip."""

import random
import re

import pytest

from latentomni.clock import Window
from latentomni.window_grammar import WindowGrammar

WRITTEN = re.compile(r"\[\d{1,3}\.[05]-\d{1,3}\.[05] s\]")


@pytest.fixture(scope="module")
def grammar(tiny):
    return tiny.grammar


def test_every_allowed_prefix_leads_to_a_window(grammar):
    """Random walks over allowed tokens always go on until a window is complete, and then nothing more is allowed."""
    draw = random.Random(0)
    for _ in range(300):
        text, tokens = "", 0
        while not grammar.complete(text):
            text += grammar.text(draw.choice(grammar.allowed(text)))
            tokens += 1
        assert WRITTEN.fullmatch(text)
        assert grammar.allowed(text) == []
        assert tokens <= len("[100.0-200.0 s]") == 15


def test_only_tokens_that_keep_a_window_possible_are_allowed(grammar):
    def pieces(text):
        return {grammar.text(i) for i in grammar.allowed(text)}

    assert pieces("") == {"["}
    assert pieces("[") == set("0123456789")
    assert pieces("[123") == {"."}
    assert pieces("[2.") == {"0", "5"}
    assert pieces("[2.0") == {"-"}
    assert " " in pieces("[2.0-4.0") and pieces("[2.0-4.0") <= {" ", " s"}
    assert pieces("[2.0-4.0 s") == {"]"}


def test_the_windows_of_training_are_allowed_token_by_token(grammar, tiny):
    for window in (Window(0.0, 2.0), Window(7.5, 10.0), Window(99.5, 100.5)):
        text = ""
        for token in tiny.encode_text(str(window)):
            assert token in grammar.allowed(text)
            text += grammar.text(token)
        assert grammar.complete(text) and Window.parse(text) == window


@pytest.mark.parametrize(
    "text, duration_s, window, source",
    [
        ("[2.0-4.0 s]", 6.0, Window(2.0, 4.0), "model"),
        ("[4.0-6.0 s]", 6.0, Window(4.0, 6.0), "model"),
        ("[4.0-8.0 s]", 6.0, Window(4.0, 6.0), "clamped"),
        ("[8.0-9.0 s]", 6.0, Window(5.5, 6.0), "clamped"),
        ("[4.0-2.0 s]", 6.0, Window(0.0, 6.0), "nominal"),
        ("[2.0-4", 6.0, Window(0.0, 6.0), "nominal"),
        ("", 0.1, Window(0.0, 0.5), "nominal"),
    ],
)
def test_resolution_marks_where_the_window_is_from(text, duration_s, window, source):
    assert WindowGrammar.resolve(text, duration_s) == (window, source)
