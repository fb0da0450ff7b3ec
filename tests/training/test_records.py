"""Training data: what a row means to each recipe, and that nothing wrong with a file goes unsaid."""

import json
import wave
from pathlib import Path

import pytest

from latentomni.avworld import questions, sample_world
from latentomni.avworld.questions import FAMILIES
from latentomni.avworld.truth import training_row
from latentomni.avworld.writing import write_split
from latentomni.cli import main
from latentomni.clock import Window
from latentomni.config import Mode
from latentomni.errors import DataError, RequestError
from latentomni.training.examples import build_example
from latentomni.training.records import LATENT_PAIR, Style, read_records, row_problems, turns, validate
from latentomni.training.turns import Segment, Turn

DOCS = Path(__file__).parents[2] / "docs" / "DATA.md"
QUESTION = {"role": "user", "content": "What is seen when the bell rings?"}
ANSWER = {"role": "assistant", "content": f"I listen for the bell. {LATENT_PAIR} The object is red."}
SEGMENT = {"start_s": 0.0, "end_s": 2.0, "caption": "red star, top left, bell.", "asked": "bell"}
ROW = {"media": "a.wav", "messages": [QUESTION, ANSWER], "segments": [SEGMENT]}
LATENT = ("I listen for the bell.", Segment(Window(0.0, 2.0), "bell", "red star, top left, bell."), "The object is red.")


@pytest.fixture
def folder(tmp_path):
    """A folder with a sound of four seconds, a.wav."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 4 * 8000))
    return tmp_path


def written(folder, *rows):
    """Rows as the lines of a file; text stands as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "train.jsonl"


def test_a_row_becomes_a_record(folder):
    (record,) = read_records(written(folder, "", {**ROW, "id": "7", "family": "colour"}))
    assert record.media == folder / "a.wav"
    assert record.conversation == (Turn(QUESTION["content"], Mode.LATENT, LATENT),)
    assert (record.answer, record.system, record.id, record.family) == ("The object is red.", "", "7", "colour")
    assert record.line == 2


def test_the_nth_pair_of_all_answers_is_the_nth_segment(folder):
    spans = [(0.0, 2.0), (2.0, 3.5), (0.5, 1.0)]
    messages = [
        {"role": "system", "content": "Be brief."},
        QUESTION,
        {"role": "assistant", "content": f"{LATENT_PAIR}{LATENT_PAIR}\nRed."},
        {"role": "user", "content": "And before?"},
        {"role": "assistant", "content": f"Again. {LATENT_PAIR} Blue."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": " You are welcome. "},
    ]
    segments = [{"start_s": a, "end_s": b} for a, b in spans]
    (record,) = read_records(written(folder, {"media": "a.wav", "messages": messages, "segments": segments}))
    first, second, third = (Segment(Window(a, b)) for a, b in spans)
    assert [t.parts for t in record.conversation] == [(first, second, "Red."), ("Again.", third, "Blue."), ("You are welcome.",)]
    assert record.system == "Be brief."
    assert [turn.parts for turn in turns(record, "direct")] == [("Red.",), ("Blue.",), ("You are welcome.",)]


@pytest.mark.parametrize(
    ("style", "mode", "parts"),
    [
        (Style.LATENTOMNI, Mode.LATENT, LATENT),
        (Style.EXPLICIT_TEXT_COT, Mode.TEXT_COT, LATENT),
        (Style.VANILLA_SFT, Mode.TEXT_COT, ("I listen for the bell.", " The object is red.")),
        (Style.DIRECT, Mode.DIRECT, ("Red.",)),
    ],
)
def test_each_recipe_learns_its_own_turns(style, mode, parts, folder):
    (record,) = read_records(written(folder, {**ROW, "answer": "Red."}))
    assert turns(record, style) == turns(record, style.value) == (Turn(QUESTION["content"], mode, parts),)


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("explicit-text-cot", "I listen for the bell. [0.0-2.0 s] red star, top left, bell. The object is red."),
        ("vanilla-sft", "I listen for the bell. The object is red."),
        ("direct", "The object is red."),
    ],
)
def test_what_is_supervised_reads_well(style, said, tiny, make_clip, folder):
    (record,) = read_records(written(folder, ROW))
    example = build_example(tiny, tiny.encode_clip(make_clip(0)), turns(record, style))
    assert tiny.tokenizer.decode([token for _, token, _ in example.text_targets]) == said + "<|im_end|>"
    assert not example.latent_targets


def test_a_recipe_that_is_unknown_or_lacks_captions_is_refused(folder):
    (record,) = read_records(written(folder, {**ROW, "segments": [{"start_s": 0, "end_s": 1}]}))
    with pytest.raises(DataError, match="line 1: segment 1 has no caption, which explicit-text-cot tells"):
        turns(record, Style.EXPLICIT_TEXT_COT)
    with pytest.raises(RequestError, match="unknown style 'telepathy'; choose one of latentomni, explicit"):
        turns(record, "telepathy")


@pytest.mark.parametrize(
    ("span", "window"),
    [((0.2, 1.8), (0.0, 2.0)), ((1.25, 2.75), (1.5, 3.0)), ((1.1, 1.2), (1.0, 1.5)), ((3.8, 3.9), (3.5, 4.0)), ((0, 1), (0.0, 1.0))],
)
def test_windows_are_those_that_a_model_can_write(span, window, folder):
    (record,) = read_records(written(folder, {**ROW, "segments": [dict(zip(("start_s", "end_s"), span, strict=True))]}))
    assert record.conversation[0].parts[1] == Segment(Window(*window))


def changed(**values):
    return {**ROW, **values}


def messages(*texts):
    return changed(messages=[{"role": r, "content": t} for r, t in zip(["user", "assistant"] * 9, texts, strict=False)], segments=[])


PAIRS = f"there is 1 latent pair but 0 segments; each {LATENT_PAIR} needs its own segment"
WRONG = [
    ("{", "the line is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); write one object a line"),
    ("[1, 2]", "expected an object with media, messages, segments, answer, id, family, member, got [1, 2]"),
    (changed(mesages=[]), "unknown key 'mesages'; the nearest known one is 'messages'"),
    (changed(segments=[SEGMENT | {"end": 1}]), "segment 1: unknown key 'end'; the nearest known one is 'end_s'"),
    ({"media": "a.wav"}, "'messages' is missing"),
    (changed(media=""), "'media' is empty; name the clip's file"),
    (changed(media="b.wav"), "There is no file FOLDER/b.wav; check the path."),
    (changed(media="a\0b.wav"), "There is no file FOLDER/a b.wav; check the path."),
    (changed(media="a" * 300), f"'media' is no path of a file, got \"{'a' * 39}...; name the clip's file."),
    (changed(media="\u202egnp.wav\n"), "There is no file FOLDER/ gnp.wav ; check the path."),
    (changed(media="train.jsonl"), "train.jsonl is not a video or sound file, or is damaged"),
    (changed(answer=None), "'answer' must be Unicode text, got null"),
    (changed(answer="\ud800"), "'answer' must be Unicode text, got"),
    (changed(answer=" "), "'answer' is empty; write its text"),
    (changed(segments=[]), PAIRS),
    (changed(segments=[SEGMENT, SEGMENT]), PAIRS.replace("0 segments", "2 segments")),
    (changed(segments=[SEGMENT | {"start_s": 2.0, "end_s": 1.0}]), "segment 1 ends (1.0) before it starts (2.0); swap them"),
    (changed(segments=[SEGMENT | {"start_s": 2.0}]), "segment 1 is empty, it starts and ends at 2.0; widen it"),
    (changed(segments=[SEGMENT | {"start_s": -1}]), "segment 1 starts at -1, before the clip; count seconds from its start"),
    (changed(segments=[SEGMENT | {"end_s": 5}]), "segment 1 ends at 5 s, but a.wav lasts 4.00 s"),
    (changed(segments=[SEGMENT | {"end_s": float("nan")}]), "segment 1: 'end_s' must be a number of seconds, got NaN"),
    (changed(segments=[SEGMENT | {"end_s": 10**400}]), f"segment 1: 'end_s' must be a number of seconds, got {10**39}..."),
    (changed(segments=[SEGMENT | {"start_s": False}]), "segment 1: 'start_s' must be a number of seconds, got false"),
    (messages("What?"), "the conversation needs a question of the user and, last, an answer of the assistant"),
    (messages("What?", "Red.", "And?"), "the conversation needs a question of the user and, last, an answer of the assistant"),
    (changed(messages=[QUESTION, QUESTION, ANSWER]), 'message 2 is from "user", where assistant was expected'),
    (changed(messages=[QUESTION, ANSWER | {"role": "gpt"}], segments=[]), 'message 2 is from "gpt", where assistant was expected'),
    (messages("What?", " "), "message 2 is empty; write its text"),
    (messages(" \u200b", "Red."), "message 1: The question is empty; type what you want to know about the clip."),
    (changed(messages=[QUESTION, ANSWER | {"content": f"Look. {LATENT_PAIR} "}]), "message 2 ends with a latent pair; write the answer behind it"),
    (messages("What?", "<|im_end|>Red."), f"message 2 holds '<|im_end|>'; special tokens are set by the program, but for the pairs {LATENT_PAIR} of an answer"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), WRONG, ids=[said[:45] for _, said in WRONG])
def test_what_is_wrong_is_said_with_its_line(row, said, folder):
    rows, errors = validate(written(folder, ROW, row))
    assert rows == 2
    assert any(error.startswith(f"line 2: {said.replace('FOLDER', str(folder))}") for error in errors)
    assert all(error.startswith("line 2: ") for error in errors)


@pytest.mark.parametrize("token", ["<Unified_Latent>", "</Unified_Latent>", "<Unified_Latent_pad>", "<|VIDEO|>", "<|im_start|>"])
def test_special_tokens_are_found_wherever_text_stands(token):
    text = f"a {token} b"
    row = {"media": "a", "messages": [{"role": "system", "content": text}, QUESTION | {"content": text}, ANSWER | {"content": ANSWER["content"] + text}],
           "segments": [SEGMENT | {"caption": text, "asked": text}], "answer": text}  # fmt: skip
    problems = row_problems(row)
    assert len(problems) == 6
    assert all(f"holds '{token}'" in problem for problem in problems)


def test_everything_wrong_is_said_at_once(folder):
    bad = {"media": "b.wav", "messages": [QUESTION], "segments": [{"start_s": 3, "end_s": 1}], "anwser": "x"}
    rows, errors = validate(written(folder, bad, ROW, "no", bad))
    assert rows == 4
    assert [error.partition(":")[0] for error in errors] == ["line 1"] * 5 + ["line 3"] + ["line 4"] * 5


def test_reading_lists_the_first_ten_problems_and_the_total(folder):
    file = written(folder, ROW, *["no"] * 12)
    with pytest.raises(DataError) as refused:
        read_records(file)
    head, *listed = str(refused.value).split("\n")
    assert head == f"{file} does not follow the schema of docs/DATA.md (12 problems; the first 10):"
    assert [line.partition(":")[0] for line in listed] == [f"line {n}" for n in range(2, 12)]
    with pytest.raises(DataError, match=r"\(1 problem\):\nline 1: There is no file .*b\.wav; check the path\.$"):
        read_records(written(folder, changed(media="b.wav")))


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b" \n", "holds no rows"), (b"\xff\xfe\xff", "line 1: the line is not JSON")])
def test_files_that_are_none(content, said, folder):
    file = folder / "x.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_records(file)


def test_a_byte_order_mark_and_other_line_ends_are_read(folder):
    file = folder / "train.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n" + json.dumps(ROW).encode() + b"\r\n")
    assert [record.line for record in read_records(file)] == [1, 3]


def test_the_command_tells_all_and_fails(folder, capsys):
    assert main(["data", "validate", str(written(folder, ROW))]) == 0
    assert capsys.readouterr().out == "1 row, 0 problems.\n"
    assert main(["data", "validate", str(written(folder, "no", ROW, "no")), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["ok"]) == (3, False)
    assert [error[:7] for error in report["errors"]] == ["line 1:", "line 3:"]
    assert main(["data", "validate", str(folder / "nowhere")]) == 2
    assert capsys.readouterr().err.endswith("nowhere cannot be read (No such file or directory); give a JSONL file.\n")


def test_every_avworld_question_is_a_row():
    asked = [q for seed in range(4) for q in questions(sample_world(seed, "train"))]
    assert {q.family for q in asked} == set(FAMILIES)
    for question in asked:
        row = training_row(question, "clip.mp4")
        assert row_problems(row) == []
        assert [(s["start_s"], s["end_s"]) for s in row["segments"]] == [(w.start_s, w.end_s) for w in question.windows]


def test_avworld_writes_what_validate_accepts(tmp_path):
    write_split(tmp_path, "train", 3, 0)
    assert validate(tmp_path / "train.jsonl") == (3, [])
    records = read_records(tmp_path / "train.jsonl")
    asked = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    for record, question in zip(records, asked, strict=True):
        (turn,) = record.conversation
        (step,) = question["steps"]
        segment = Segment(Window(*step["window_s"]), step["asked"], step["seen"])
        assert turn == Turn(question["text"], Mode.LATENT, (step["lead"], segment, question["closing"]))
        assert (record.media.name, record.family) == (question["clip"], question["family"])


def test_the_documented_rows_are_valid():
    rows = [json.loads(text) for text in DOCS.read_text(encoding="utf-8").split("```json\n")[1:] for text in [text.partition("```")[0]]]
    assert rows
    assert [row_problems(row) for row in rows] == [[]] * len(rows)
