"""Public benchmarks in their publishers' layouts, with clips of ours: what is read, what counts, what a kill leaves."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from latentomni import ask, open_trace
from latentomni.avworld import heldout_questions
from latentomni.cli import main
from latentomni.clock import Window
from latentomni.config import Mode, ReadingSpec, SamplingSpec
from latentomni.errors import DataError
from latentomni.evaluation.avworld import evaluate_avworld
from latentomni.evaluation.benchmarks import BENCHMARKS, Item, TimedStep, option_of, read_benchmark
from latentomni.evaluation.evidence import Ranking
from latentomni.evaluation.harness import (
    compare_predictions,
    evaluate_benchmark,
    read_predictions,
    score_benchmark,
    score_steps,
)
from latentomni.runtime import Runtime
from latentomni.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = ["A. red", "B. blue", "C. green", "D. yellow"]
ASKED = {"question": "What colour is the object when the chirp plays?", "options": OPTIONS, "answer": "B"}


def place(folder, name, clip="1-colour.mp4"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / clip, folder / name)


def daily_omni(folder):
    rows = [{"Question": ASKED["question"], "Choice": OPTIONS, "Answer": "B", "video_id": video, "Type": kind, "content_parent_category": "x",
             "content_fine_category": "y", "video_category": "Pets", "video_duration": "30s"}
            for video, kind in (("aa", "Inference"), ("bb", "Comparative"), ("gone", "Inference"))]  # fmt: skip
    (folder / "qa.json").write_text(json.dumps(rows))
    place(folder, "Videos/aa/aa_video.mp4")
    place(folder, "Videos/bb/bb_video.mp4")


def worldsense(folder):
    row = {"index": 7, "video_path": "videos/x.mp4", "subtitle_path": "subtitles/x.srt", "question": ASKED["question"], "candidates": json.dumps(OPTIONS),
           "answer": "B", "task_type": "Audio Change", "task_domain": "Music", "duration": "<1min", "audio_class": "Event", "domain": "Music",
           "sub_category": "Jazz"}  # fmt: skip
    with (folder / "worldsense.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row, delimiter="\t")
        writer.writeheader()
        writer.writerow(row)
    place(folder, "videos/x.mp4")


def omnivideobench(folder):
    steps = [{"modality": "vision", "evidence": "A star at 1:02, until 01:05.", "inference": "So."},
             {"nmodality": "aduio", "evidece": "The woman says so.", "inference": "Yes."},
             {"modality": "audio", "evidence": "At 1:00:03 it rings.", "inference": "Yes."}]  # fmt: skip
    asked = {"question": ASKED["question"], "question_type": "counting", "audio_type": "Sound", "reasoning_steps": steps, "answer": "blue",
             "options": ["A.red", "B.blue", "C.green", "D.yellow"], "correct_option": "B"}  # fmt: skip
    rows = [{"video": "video_1", "video_type": "Vlog", "duration": "00:08", "questions": [asked, asked | {"correct_option": "D"}]}]
    (folder / "data.json").write_text(json.dumps(rows))
    place(folder, "videos/video_1.mp4")


def lvomnibench(folder):
    row = {"video_id": "video_0", "question": ASKED["question"], "options": OPTIONS, "correct_option": "B", "difficulty": "easy"}
    (folder / "data.json").write_text(json.dumps([row]))
    place(folder, "videos/video_0.mp4")


def videomme(folder):
    row = {"video_id": "001", "videoID": "f_1", "duration": "short", "domain": "Knowledge", "sub_category": "Law", "task_type": "Counting Problem",
           "question_id": "001-1", "question": ASKED["question"], "options": OPTIONS, "answer": "B"}  # fmt: skip
    (folder / "videomme.jsonl").write_text(json.dumps(row) + "\n")
    place(folder, "data/f_1.mp4")


def test_a_published_parquet_file_is_read(tmp_path):
    videomme(tmp_path)
    lines = read_benchmark("videomme", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "videomme.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    (tmp_path / "videomme.jsonl").unlink()
    assert read_benchmark("videomme", tmp_path) == lines
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read"):
        read_benchmark("videomme", tmp_path)


LAYOUTS = {"daily-omni": daily_omni, "worldsense": worldsense, "omnivideobench": omnivideobench, "lvomnibench": lvomnibench, "videomme": videomme}


@pytest.fixture(scope="module")
def nano():
    return Runtime.load("nano")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_read_as_it_is_published(tmp_path, name):
    LAYOUTS[name](tmp_path)
    first = read_benchmark(name, tmp_path)[0]
    assert (first.question, first.options, first.answer) == (ASKED["question"], ("red", "blue", "green", "yellow"), "B")
    assert first.video.is_file() and all(first.categories.values())
    assert first.prompt.splitlines()[1:3] == ["A. red", "B. blue"]


def test_what_is_grouped_and_timed_keeps_its_publishers_names(tmp_path):
    omnivideobench(tmp_path)
    item, other = read_benchmark("omnivideobench", tmp_path)
    assert item.categories == {"type": "counting", "audio": "Sound", "video type": "Vlog"} and (item.id, other.answer) == ("video_1-0", "D")
    assert [(s.modality, s.window) for s in item.steps] == [("visual", Window(62.0, 66.0)), ("audio", None), ("audio", Window(3603.0, 3604.0))]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("(C)", "C"), ("b is what I see. The answer is C.", "C"), ("Answer: d", "D"), ("A or B? The correct option is B", "B"),
        ("D. yellow", "D"), ("It is blue.", "B"), ("It is blue, not green.", None), ("I see a bell.", None), ("", None),
        ("A bell rings and it is green", "C"), ("D yellow", "D"),
        ("Dogs bark; it is green", "C"), ("E", None), ("bluebell", None),
    ],
)  # fmt: skip
def test_the_option_is_the_one_that_an_answer_chooses(text, letter):
    assert option_of(text, ("red", "blue", "green", "yellow")) == letter


def hand_made(tmp_path):
    """Items whose right answers are known from what nano says, without the parser: a word of its answer, and words it does not say."""
    place(tmp_path, "a.mp4")
    place(tmp_path, "b.mp4", "2-shape.mp4")
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    items = []
    for number, clip in enumerate(("a.mp4", "b.mp4", "a.mp4")):
        item = Item(str(number), tmp_path / clip, ASKED["question"], ("zebra", "yak"), "A", {"kind": "own", "clip": clip})
        said = ask(item.video, item.prompt, "nano", max_new_tokens=48).answer.rstrip(".").split()[-1]
        items.append(Item(item.id, item.video, item.question, (said, "yak"), "AAB"[number], item.categories))
    items[2] = replace(items[2], id="../2")
    items.append(Item("3", tmp_path / "gone.mp4", "What?", ("red", "blue"), "A", {"kind": "gone"}))
    items.append(Item("4", tmp_path / "damaged.mp4", "What?", ("red", "blue"), "A", {"kind": "gone"}))
    return items


def test_the_score_is_a_hand_count_failures_are_wrong_and_a_kill_loses_nothing(nano, tmp_path):
    items, file, sampling = hand_made(tmp_path), tmp_path / "runs" / "p.jsonl", SamplingSpec(max_new_tokens=48)
    given = ("daily-omni", items, Mode.LATENT, sampling, ReadingSpec())

    def killed(items, _what):
        yield from items[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(nano, *given, file, progress=killed)
    with file.open("a") as half:
        half.write('{"id": "2", "chos')
    before = read_predictions(file)[1]
    lines = evaluate_benchmark(nano, *given, file, tmp_path / "traces")
    assert [lines[name] for name in before] == list(before.values()) and list(lines) == ["0", "1", "../2", "3", "4"]
    assert read_predictions(file)[1] == lines
    scores = score_benchmark(items, lines)
    told = {line["id"]: (line["chosen"], line["right"]) for line in lines.values()}
    assert {told["3"], told["4"]} == {(None, False)} and [f["id"] for f in scores["failed"]] == ["3", "4"]
    assert "There is no file" in scores["failed"][0]["why"] and "not a video or sound file" in scores["failed"][1]["why"]
    right = sum(lines[name]["text"].rstrip(".").endswith(items[int(name)].options[0]) for name in "01")  # the options changed the question
    assert right > 0 and scores["accuracy"] == pytest.approx(right / 5) and scores["n"] == 5 and scores["chance"] == 0.5
    assert scores["categories"]["kind"]["gone"] == {"accuracy": 0.0, "n": 2}
    assert sorted(p.name for p in (tmp_path / "traces").iterdir()) == ["___2.zip"]
    truth = open_trace(tmp_path / "traces" / "___2.zip").truth
    assert (truth.answer, truth.is_right, truth.windows) == ("B. yak", told["../2"][1], ())
    with pytest.raises(DataError, match="predictions of another model or with other settings"):
        evaluate_benchmark(nano, "daily-omni", items, Mode.DIRECT, sampling, ReadingSpec(), file)


def test_video_mme_is_asked_without_sound(nano, tmp_path):
    videomme(tmp_path)
    items = read_benchmark("videomme", tmp_path)
    lines = evaluate_benchmark(nano, "videomme", items, Mode.LATENT, SamplingSpec(max_new_tokens=24), ReadingSpec(), traces=tmp_path / "traces")
    assert not lines["001-1"]["failed"]
    assert open_trace(tmp_path / "traces" / "001-1.zip").reading["sound"] is False


def test_timed_steps_are_held_against_the_runs_latents(nano, tmp_path):
    """Nano asked as it was trained: its blocks find the scene, so a step timed there is a hit, and one timed elsewhere is none."""
    place(tmp_path, "a.mp4")
    asked = "Where is the object when the chirp plays?"
    clip = nano.read(tmp_path / "a.mp4")
    row = nano.conversation(clip)
    trace = Trace.from_events(nano.stream(clip, asked, "latent", SamplingSpec(), row))
    true = trace.blocks[0].window
    far = Window(6.5, 7.0) if true.start_s < 3 else Window(0.1, 0.4)
    steps = (TimedStep("visual", true), TimedStep("audio", true), TimedStep("audio", far), TimedStep("visual", None))
    item = Item("0", tmp_path / "a.mp4", asked, ("x", "y"), "A", {}, steps)
    lines = {"0": {"id": "0", "right": False, "chosen": None, "failed": "", "steps": score_steps(item, trace, nano, row)}}
    told = score_benchmark([item], lines)["evidence"]
    assert told["steps"] == 3 and told["hit_at_1"] == pytest.approx(2 / 3, abs=1e-3) and told["mrr"] > told["hit_at_1"]
    assert 0 < told["chance"]["hit_at_1"] < 1 and told["baselines"]["uniform"] == told["chance"]["hit_at_1"]
    assert told["window_iou"] == pytest.approx(2 / 3, abs=1e-3)  # it is the true window of two, and apart from the third
    assert told["baselines"]["attention"] == pytest.approx(2 / 3, abs=1e-3)  # as docs/READING.md says of nano
    assert set(told["baselines"]) == {"uniform", "centre", "question", "attention"}
    assert score_benchmark([item], {"0": lines["0"] | {"steps": []}})["evidence"] is None
    assert Ranking.of_trace(ask(tmp_path / "a.mp4", asked, "nano", mode="direct"), "visual", true) is None


def test_a_kept_run_carries_the_true_windows(nano, tmp_path, capsys):
    place(tmp_path, "a.mp4")
    steps = (TimedStep("visual", Window(2.0, 4.0)), TimedStep("audio", None), TimedStep("audio", Window(3.0, 99.0)), TimedStep("visual", Window(90.0, 91.0)))
    item = Item("0", tmp_path / "a.mp4", ASKED["question"], ("zebra", "yak"), "A", {}, steps)
    evaluate_benchmark(nano, "omnivideobench", [item], Mode.LATENT, SamplingSpec(max_new_tokens=48), ReadingSpec(), traces=tmp_path)
    trace = open_trace(tmp_path / "0.zip")  # what was timed behind the clip's end is no place in it
    assert (trace.truth.windows, trace.truth.modalities) == ((Window(2.0, 4.0), Window(3.0, 99.0)), ("visual", "audio"))
    assert trace.truth.answer == "A. zebra" and not trace.truth.is_right
    assert main(["inspect", str(tmp_path / "0.zip")]) == 0
    assert "truth     A. zebra, the answer is wrong; [2.0-4.0 s] visual, [3.0-99.0 s] audio\n" in capsys.readouterr().out


def test_a_held_out_question_is_kept_with_its_truth(nano, tmp_path):
    scores = evaluate_avworld(nano, 4, traces=tmp_path)
    traces = [open_trace(file) for file in sorted(tmp_path.iterdir())]
    assert [(t.question, t.truth.answer, t.truth.windows) for t in traces] == [(q.text, q.answer, q.windows) for _, q in heldout_questions(4)]
    assert scores["accuracy"] == sum(trace.truth.is_right for trace in traces) / 4
    assert scores["blocks_per_answer"] == sum(len(trace.blocks) for trace in traces) / 4


def test_the_difference_of_two_models_is_paired_over_videos():
    lines = {str(k): {"video": f"v{k // 4}", "right": k % 2 == 0} for k in range(400)}
    same = compare_predictions(lines, lines)
    assert same == {"n": 400, "difference": 0.0, "interval": [0.0, 0.0]}
    worse = {name: line | {"right": line["right"] and int(name) % 8 == 0} for name, line in lines.items() if int(name) < 200}
    told = compare_predictions(lines, worse)  # of four about a video two are right; of every second video one, of the others none
    assert told["n"] == 200 and told["difference"] == 0.375
    half = 1.96 * 0.125 / 50**0.5
    assert told["interval"] == pytest.approx([0.375 - half, 0.375 + half], abs=0.01)
    with pytest.raises(DataError, match="share no question"):
        compare_predictions(lines, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no questions of Daily-Omni: expected qa"), ("{", "cannot be read"), ("[]", "holds no question"),
        ('[{"Question": "What?"}]', "is not as Daily-Omni was published .KeyError: 'video_id'"),
        ('[{"Question": "What?", "Choice": ["A. x"], "Answer": "B", "video_id": "v"}]', "has the answer 'B' and 1 options"),
        ('[{"Question": "What?", "Choice": ["A. x"], "Answer": "", "video_id": "v"}]', "has the answer '' and 1 options"),
    ],
)  # fmt: skip
def test_files_that_are_missing_or_damaged_are_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "qa.json").write_text(content)
    with pytest.raises(DataError, match=said):
        read_benchmark("daily-omni", tmp_path)


def test_the_command_prints_scores_and_compares(tmp_path, capsys):
    daily_omni(tmp_path)
    first = tmp_path / "first.jsonl"
    arguments = ["eval", "daily-omni", "--data", str(tmp_path), "--max-new-tokens", "24", "--json"]
    assert main([*arguments, "--predictions", str(first)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["benchmark"], told["n"], [f["id"] for f in told["failed"]]) == ("daily-omni", 3, ["2"])
    assert set(told["categories"]) == {"type", "duration", "video category"} and told["categories"]["type"]["Inference"]["n"] == 2
    assert main([*arguments, "--mode", "direct", "--against", str(first)]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["against"]["n"] == 3 and again["against"]["difference"] == pytest.approx(again["accuracy"] - told["accuracy"], abs=1e-3)
    assert main(["eval", "daily-omni", "--data", str(tmp_path / "none")]) == 2
    assert "holds no questions of Daily-Omni" in capsys.readouterr().err
