"""What is true of questions about AV World, held against the questions that it asks itself."""

import pytest

from latentomni.avworld.questions import questions
from latentomni.avworld.world import sample_world
from latentomni.synthesis.truth import truth_of


@pytest.mark.parametrize("seed", range(12))
def test_its_own_questions_are_understood_as_they_are_meant(seed):
    world = sample_world(seed, "train")
    understood = [(q, truth_of(world, q.text)) for q in questions(world) if q.family in ("colour", "shape", "place", "sound", "count", "order")]
    judged = [(q, truth) for q, truth in understood if truth]
    assert len(judged) >= 0.9 * len(understood)
    for question, truth in judged:
        assert truth.needs_both, question.text
        assert truth.answer == question.answer, question.text
        assert set(question.windows) <= set(truth.windows), question.text
        assert truth.is_answer(question.closing)


@pytest.mark.parametrize("seed", range(6))
def test_one_modality_is_enough_for_some(seed):
    world = sample_world(seed, "train")
    scene = world.scenes[1]
    for text, answer in ((f"Where is the {scene.object}?", scene.place), (f"How often is the {scene.sound} heard?", scene.count)):
        truth = truth_of(world, text)
        assert (truth.needs_both, truth.answer, truth.windows) == (False, answer, (scene.window,))


def test_what_is_not_understood_is_not_judged():
    world = sample_world(3, "train")
    first, second = world.scenes[:2]
    for text in ("Is this a nice clip?", "What colour is the object?", f"Which colour goes with the {first.sound} and the {second.sound}?", ""):
        assert truth_of(world, text) is None
    assert truth_of(world, f"What colour is the object right before the {world.scenes[0].sound} plays?") is None  # nothing is before the first


def test_an_answer_is_right_where_it_names_nothing_else():
    world = sample_world(4, "train")
    scene = world.scenes[0]
    truth = truth_of(world, f"What colour is shown while the {scene.sound} plays?")
    other = world.scenes[1].colour
    assert truth.is_answer(f"It is {scene.colour.upper()}.")
    assert not truth.is_answer(f"{scene.colour} or {other}")
    assert not truth.is_answer("I cannot tell")
    count = truth_of(world, f"How often does the sound come while the {scene.object} is there?")
    assert count.is_answer({"once": "1 time", "twice": "two times", "three times": "thrice"}[scene.count])
