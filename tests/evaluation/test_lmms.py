"""The plug-in for lmms-eval as far as it can be held without lmms-eval: what it names exists, and its tasks ask and score as `eval` does."""

import ast
import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from latentomni.avworld import heldout_questions
from latentomni.avworld.writing import write_split
from latentomni.errors import DataError, RequestError
from latentomni.evaluation.benchmarks import BENCHMARKS, read_benchmark
from latentomni.evaluation.lmms import MODEL_CLASS
from latentomni.evaluation.lmms.documents import FAILED, TASKS, asked, documents, messages, process_results, rows
from tests.evaluation.test_benchmarks import LAYOUTS

ROOT = Path(__file__).parents[2]
FILES = sorted(TASKS.glob("*/*.yaml"))


class Tasks(yaml.SafeLoader):
    """`!function a.b` as the function, as lmms-eval reads it."""


def function(loader, node):
    module, _, name = loader.construct_scalar(node).rpartition(".")
    return getattr(import_module(module), name)


Tasks.add_constructor("!function", function)


def test_the_entry_point_names_the_manifest_and_the_manifest_a_chat_class():
    project = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points."lmms_eval.models"]' in project and '\nlatentomni = "latentomni.evaluation.lmms:manifest"\n' in project
    assert callable(import_module("latentomni.evaluation.lmms").manifest)
    module, _, name = MODEL_CLASS.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    assert [ast.unparse(base) for base in found.bases] == ["lmms"]
    assert "is_simple = False" in [ast.unparse(node) for node in found.body]
    assert {"generate_until", "generate_until_multi_round", "loglikelihood"} <= {node.name for node in found.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_task_folder_names_what_exists(file):
    own = yaml.load(file.read_text(), Tasks)
    task = yaml.load((file.parent / own["include"]).read_text(), Tasks) | own
    assert task["task"] == f"latentomni_{file.parent.name}" and "task" not in yaml.load((file.parent / own["include"]).read_text(), Tasks)
    assert (task["process_docs"], task["doc_to_messages"], task["process_results"]) == (documents, messages, process_results)
    assert task["generation_kwargs"]["until"] == []  # an answer of ours has paragraphs
    said = json.loads((file.parent / task["dataset_kwargs"]["data_files"][task["test_split"]]).read_text())
    (name,) = [row["benchmark"] for row in said]
    assert name.replace("-", "_") == file.parent.name and name in {*BENCHMARKS, "avworld"}
    scores = process_results({"family": "", "options": ["red", "blue"], "answer": "B"}, ["B"])
    assert {metric["metric"] for metric in task["metric_list"]} == set(scores)


def test_what_lmms_eval_lacks_has_a_folder():
    assert [file.stem for file in FILES] == ["avworld", "daily_omni", "lvomnibench", "omnivideobench"]


@pytest.mark.parametrize("name", ["daily-omni", "omnivideobench", "lvomnibench"])
def test_its_questions_are_those_of_our_own_loader(tmp_path, name):
    LAYOUTS[name](tmp_path)
    items, found = read_benchmark(name, tmp_path), rows(name, tmp_path)
    assert [asked(messages(row)) for row in found] == [(str(item.video), item.prompt) for item in items]
    assert [(row["id"], row["answer"], tuple(row["options"])) for row in found] == [(i.id, i.answer, i.options) for i in items]
    assert [json.loads(row["categories"]) for row in found] == [item.categories for item in items]


def test_av_world_is_asked_from_its_files(tmp_path, monkeypatch):
    write_split(tmp_path / "avworld", "test", 4, 20_000)

    class Dataset(list):
        """What `datasets.Dataset` is used for."""

        from_list = classmethod(lambda cls, rows: cls(rows))

    monkeypatch.delenv("LATENTOMNI_DATA", raising=False)
    with pytest.raises(RequestError, match="LATENTOMNI_DATA is not set"):
        documents(Dataset([{"benchmark": "avworld"}]))
    monkeypatch.setenv("LATENTOMNI_DATA", str(tmp_path))
    found = documents(Dataset([{"benchmark": "avworld"}]))
    assert type(found) is Dataset
    assert [(row["prompt"], row["answer"], row["family"]) for row in found] == [(q.text, q.answer, q.family) for _, q in heldout_questions(4)]
    assert all(Path(row["video"]).is_file() for row in found)
    for row, (_, question) in zip(found, heldout_questions(4), strict=True):
        assert process_results(row, [question.closing]) == {"accuracy": 1.0, "failed": 0.0, "unread": 0.0}
    with pytest.raises(DataError, match="write it with `data avworld --split test --seed 20000"):
        rows("avworld", tmp_path / "none")


def test_what_failed_is_wrong_and_counted():
    document = {"family": "", "options": ["red", "blue"], "answer": "A"}
    told = {text: tuple(process_results(document, [text]).values()) for text in ("A", "It is blue.", "I see nothing.", "", FAILED)}
    assert told == {"A": (1, 0, 0), "It is blue.": (0, 0, 0), "I see nothing.": (0, 0, 1), "": (0, 0, 1), FAILED: (0, 1, 0)}
    assert not any(letter.isalnum() for letter in FAILED)


@pytest.mark.parametrize("media", [[], [("image", "a.png")], [("video", "a.mp4"), ("audio", "b.wav")], [("video", {"path": "a.mp4"})]])
def test_questions_about_anything_but_one_file_are_refused(media):
    content = [{"type": kind, "url": url} for kind, url in media] + [{"type": "text", "text": "What?"}]
    with pytest.raises(RequestError, match="asked about one video or sound file"):
        asked([{"role": "user", "content": content}])
