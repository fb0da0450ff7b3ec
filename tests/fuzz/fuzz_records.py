"""Coverage-guided fuzzing of the reader and the validator of training data; see fuzz_trace.py for what it needs.

    python tests/fuzz/fuzz_records.py build/fuzz/records -max_total_time=600

Each input is a JSONL file beside one sound file. Reading must give records or a DataError, validating a list of sentences; a file
without problems must be read.
"""

import json
import os
import sys
import wave
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(
    include=["latentomni.training.records", "latentomni.processing", "latentomni.clock", "json"]
):
    from latentomni.errors import DataError
    from latentomni.training.records import Style, read_records, turns, validate

from latentomni.avworld.questions import draw_questions
from latentomni.avworld.truth import training_row
from tests.fuzz.findings import Findings, mutated


def main() -> None:
    corpus = Path(sys.argv[1]).absolute()
    findings = Findings(corpus)
    os.chdir(findings.scratch)  # paths that a user typed may be repeated
    path = Path("fuzzed.jsonl")
    with wave.open(str(findings.scratch / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 12 * 8000))
    rows = [json.dumps(training_row(question, "a.wav")) for _, question in draw_questions("train", 6, 0)]
    for number, row in enumerate([*rows, "\n".join(rows[:2])]):
        (corpus / f"seed-{number}").write_text(row)

    def test(data: bytes) -> None:
        path.write_bytes(data)
        with findings.noted(data, DataError):
            _, problems = validate(path)
            for problem in problems:
                findings.check(data, problem)
            if not problems:
                for record in read_records(path):
                    turns(record, Style.LATENTOMNI), turns(record, Style.DIRECT), turns(record, Style.VANILLA_SFT)

    sys.argv[1] = str(corpus)
    atheris.Setup(sys.argv, test, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
