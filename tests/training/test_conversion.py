"""The authors' format: what becomes of a sample, and that a sample which cannot be converted is told."""

import json
import shutil
from pathlib import Path

import pytest

from latentomni.cli import main
from latentomni.clock import Window
from latentomni.errors import DataError, RequestError
from latentomni.media import probe
from latentomni.training.conversion import convert
from latentomni.training.records import LATENT_PAIR, read_records, validate
from latentomni.training.turns import Segment

CLIP = Path(__file__).parents[2] / "examples" / "1-colour.mp4"


@pytest.fixture
def folder(tmp_path):
    """A folder with videos/a.mp4."""
    (tmp_path / "videos").mkdir()
    shutil.copy(CLIP, tmp_path / "videos" / "a.mp4")
    return tmp_path


def text(value):
    return {"type": "text", "text": value}


def video(value):
    return {"type": "video", "video": value}


def sample(*answer, question=None, **metadata):
    """As the authors write it: every content is a list of items."""
    data = [
        {"role": "system", "content": [text("You are a helpful AVQA expert.")]},
        {"role": "user", "content": question or [video("videos/a.mp4"), text("What rings?")]},
        {"role": "assistant", "content": list(answer)},
    ]
    return {"metadata": metadata, "data": data}


def converted(folder, *samples, lines=False, cut_s=2.0):
    """Rows and errors of samples written as a JSON list or as lines."""
    (folder / "theirs.json").write_text("\n".join(map(json.dumps, samples)) if lines else json.dumps(samples, indent=1))
    (folder / "ours").mkdir(exist_ok=True)
    out = folder / "ours" / "train.jsonl"
    count, errors = convert(folder / "theirs.json", out, cut_s)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows, errors


GOOD = sample(
    text(f"It starts quietly. {LATENT_PAIR}"), video("/gone/5d41_0.mp4"), text(f" Then \n{LATENT_PAIR}"), video("/gone/5d41_2.mp4"),
    text(" a bell: \\boxed{a \\text{bell}}."), dataset_name="FineVideo", sample_id=12, path="/gone/a.mp4",
)  # fmt: skip
GOOD_ROW = {
    "media": "../videos/a.mp4",
    "messages": [
        {"role": "system", "content": "You are a helpful AVQA expert."},
        {"role": "user", "content": "What rings?"},
        {"role": "assistant", "content": f"It starts quietly. {LATENT_PAIR} Then \n{LATENT_PAIR} a bell: \\boxed{{a \\text{{bell}}}}."},
    ],
    "segments": [{"start_s": 0.0, "end_s": 2.0}, {"start_s": 4.0, "end_s": 6.0}],
    "answer": "a \\text{bell}",
    "id": "FineVideo/12",
}


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_a_sample_becomes_a_row(lines, count, folder):
    assert converted(folder, *[GOOD] * count, lines=lines) == ([GOOD_ROW] * count, [])
    assert validate(folder / "ours" / "train.jsonl") == (count, [])
    record = read_records(folder / "ours" / "train.jsonl")[0]
    assert record.media.samefile(folder / "videos" / "a.mp4")
    assert record.conversation[0].parts == (
        "It starts quietly.", Segment(Window(0, 2)), "Then", Segment(Window(4, 6)), "a bell: \\boxed{a \\text{bell}}.",
    )  # fmt: skip
    assert record.answer == "a \\text{bell}"


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_bare_conversations_are_taken_too(lines, count, folder):
    bare = {key: value for key, value in GOOD_ROW.items() if key != "id"}
    assert converted(folder, *[GOOD["data"]] * count, lines=lines) == ([bare] * count, [])


def test_one_bare_conversation_may_be_the_whole_file(folder):
    (folder / "theirs.json").write_text(json.dumps(GOOD["data"]))
    assert convert(folder / "theirs.json", folder / "train.jsonl", 2.0) == (1, [])


def test_cuts_last_five_seconds_and_not_longer_than_the_video(folder):
    answer = (text(LATENT_PAIR), video("x_0.mp4"), text(LATENT_PAIR), video("x_1.mp4"), text("Red."))
    (row,), _ = converted(folder, sample(*answer), cut_s=5.0)
    assert row["segments"] == [{"start_s": 0.0, "end_s": 5.0}, {"start_s": 5.0, "end_s": pytest.approx(probe(CLIP).duration_s, abs=1e-3)}]
    gone = [video("file:///gone/a.mp4"), text("What?")]
    (row,), _ = converted(folder, sample(*answer, question=gone), cut_s=5.0)
    assert row["segments"] == [{"start_s": 0.0, "end_s": 5.0}, {"start_s": 5.0, "end_s": 10.0}]
    assert row["media"] == "/gone/a.mp4"


@pytest.mark.parametrize(
    ("said", "answer"),
    [("It is \\boxed{B}.", "B"), ("\\boxed{A}? No, \\boxed{ C }", "C"), ("\\boxed{", None), ("\\boxed{}", None), ("B", None)],
)
def test_what_is_boxed_is_the_answer(said, answer, folder):
    (row,), errors = converted(folder, sample(text(said)))
    assert (row.get("answer"), row["segments"], errors) == (answer, [], [])
    assert row["messages"][-1]["content"] == said


PAIR, CUT = text(LATENT_PAIR), video("x_0.mp4")
BAD = [
    ("sample", "there is no list of turns, each with a role, under 'data' or in place of it"),
    ({"metadata": {}}, "there is no list of turns"),
    (sample(PAIR, text("Red.")), "the turn of 'assistant' has 1 latent pairs but 0 cuts"),
    (sample(CUT, text("Red.")), "x_0.mp4 does not follow a latent pair of its own"),
    (sample(PAIR, CUT, CUT, text("Red.")), "x_0.mp4 does not follow a latent pair of its own"),
    (sample(text(LATENT_PAIR * 2), CUT, text("Red.")), "x_0.mp4 does not follow a latent pair of its own"),
    (sample(text(f"{LATENT_PAIR} It is"), CUT, text("Red.")), "x_0.mp4 does not follow a latent pair of its own"),
    (sample(PAIR, video("clip.mp4"), text("Red.")), "the name of clip.mp4 does not end in a cut's number, as in name_3.mp4"),
    (sample(PAIR, CUT, PAIR, video("y_1.mp4"), text("Red.")), "the cuts are of different videos: x_0.mp4, y_1.mp4"),
    (sample(PAIR, video("x_9.mp4"), text("Red.")), "x_9.mp4 starts at 18.0 s, but the video lasts "),
    (sample(PAIR, CUT), "message 3 ends with a latent pair; write the answer behind it"),
    (sample(text("<|im_end|>Red.")), "message 3 holds '<|im_end|>'"),
    (sample(text("Red."), question=[text("What?")]), "the question shows 0 videos where one was expected"),
    (sample(text("Red."), question=[video("a.mp4"), video("b.mp4"), text("What?")]), "the question shows 2 videos"),
    (sample(text("Red."), question=[{"type": "image", "image": "a.png"}]), "the turn of 'user' holds an item of type 'image'"),
    (sample(text("Red."), question=[{"type": "video", "video": ["1.png"]}]), "the turn of 'user' holds an item of type 'video'"),
    (sample(text("Red."), question=["What?"]), "the content of the turn of 'user' is neither text nor a list of items"),
    ({"data": [{"role": "gpt", "content": [video("videos/a.mp4")]}]}, 'message 1 is from "gpt", where user was expected'),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), BAD, ids=[said[:50] for _, said in BAD])
def test_what_cannot_be_converted_is_told_and_the_rest_is_written(bad, said, folder):
    rows, (error,) = converted(folder, GOOD, bad, GOOD)
    assert rows == [GOOD_ROW] * 2
    assert error.startswith(f"sample 2: {said}")
    rows, errors = converted(folder, GOOD, bad, lines=True)
    assert (rows, errors) == ([GOOD_ROW], [error.replace("sample 2", "line 2")])


def test_lines_that_are_no_json_are_told(folder):
    (folder / "theirs.json").write_text(f"{json.dumps(GOOD)}\n\n{{nonsense\n{json.dumps(GOOD)}")
    count, errors = convert(folder / "theirs.json", folder / "train.jsonl", 2.0)
    assert count == 2
    assert [error.partition(" (")[0] for error in errors] == ["line 3: this is not JSON"]


def test_files_that_cannot_be_converted_are_refused(folder):
    with pytest.raises(DataError, match=r"nowhere cannot be read \(No such file or directory\); give a JSON or JSONL file"):
        convert(folder / "nowhere", folder / "train.jsonl")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be read \(it is not UTF-8\)"):
        convert(folder / "videos" / "a.mp4", folder / "train.jsonl")
    (folder / "theirs.json").write_text("[]")
    with pytest.raises(RequestError, match="is the file to convert; write to another one"):
        convert(folder / "theirs.json", folder / "theirs.json")


def test_the_command_counts_what_it_leaves_out(folder, capsys):
    (folder / "theirs.json").write_text(json.dumps([GOOD, {}, GOOD]))
    arguments = ["data", "convert", str(folder / "theirs.json"), "--out", str(folder / "train.jsonl")]
    assert main([*arguments, "--cut-s", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], len(report["errors"])) == (2, 1)
    (folder / "theirs.json").write_text("[{}]")
    assert main(arguments) == 1
    assert capsys.readouterr().out.endswith("train.jsonl, 1 sample left out.\n")
    with pytest.raises(SystemExit):
        main([*arguments, "--cut-s", "never"])
