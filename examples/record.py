"""Write the app's example clips and record a model's answers beside them, right or wrong: `python -m examples.record`.

One clip of AV World's validation split per question family, in the order of their seeds; nothing is picked by how well it
is answered. index.json holds the true answers and further questions about each clip.
"""

import argparse
import json
from pathlib import Path

from latentomni.avworld.questions import FAMILIES, questions
from latentomni.avworld.world import sample_world
from latentomni.avworld.writing import write_clip
from latentomni.runtime import Runtime

_FIRST_SEED = 500
_TITLES = {
    "colour": "Colour",
    "shape": "Shape",
    "place": "Place",
    "sound": "Sound",
    "sync": "Same time?",
    "count": "How often?",
    "order": "Before and after",
    "pair": "Two sounds",
}


def record(model: str, folder: Path) -> None:
    """A clip and a trace per family, and index.json, in `folder`."""
    runtime, index = Runtime.load(model), {}
    folder.mkdir(parents=True, exist_ok=True)
    for number, family in enumerate(FAMILIES):
        world = sample_world(_FIRST_SEED + number, "validation")
        first_of = {question.family: question for question in reversed(questions(world))}
        asked = first_of.pop(family)
        clip = folder / f"{number + 1}-{family}.mp4"
        write_clip(world, clip)
        trace = runtime.answer(runtime.read(clip), asked.text)
        trace.save(clip.with_suffix(".trace.zip"))
        others = [question.text for question in first_of.values()]
        index[clip.name] = {"title": _TITLES[family], "true_answer": asked.answer, "questions": others}
        print(f"{clip.name}: {asked.text} {trace.answer} (true: {asked.answer})")
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m examples.record", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    record(given.model, given.out)
