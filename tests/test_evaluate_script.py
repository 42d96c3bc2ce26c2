"""`examples/evaluate.py` and `examples/compare.py` as they are called, on a tiny corpus and a tiny model."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import BertConfig, BertModel

from modeling_videoqa import VideoQAForMultipleChoice
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.submissions import read_predictions, write_predictions
from processing import VideoQAProcessor, load_videoqa
from processing.mini_corpus import write_mini_corpus

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))  # behind: examples/evaluate.py has the name of a library


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_mini_corpus(tmp_path_factory.mktemp("corpus") / "mini", 1, 3, progress=False)


@pytest.fixture(scope="module")
def questions(corpus):
    return load_videoqa("mini", corpus, splits=("validation",)).questions["validation"]


@pytest.fixture(scope="module")
def model_dir(tiny_encoder_dir, tmp_path_factory):
    """A model as train.py leaves it, of text alone."""
    folder = tmp_path_factory.mktemp("model")
    model = VideoQAForMultipleChoice.from_text_encoder(
        str(tiny_encoder_dir), video_feature_size=None, max_text_length=48
    )
    model.save_pretrained(folder)
    VideoQAProcessor.from_config(model.config, tiny_encoder_dir).save_pretrained(folder)
    inputs = {"full": {"subtitles": True, "objects": False, "video": False}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": "mini", "inputs": inputs}))
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(script, *arguments)`: run a script in this process and give what it prints."""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_model_of_train_knows_its_data_and_leaves_everything(call, corpus, questions, model_dir, tmp_path):
    printed = call(
        "evaluate.py", "--model", model_dir, "--data_dir", corpus, "--output_dir", tmp_path / "out",
        "--submission", "tvqa_plus", "--videos", corpus / "videos",
    )  # fmt: skip
    predictions = read_predictions(tmp_path / "out" / "predictions.jsonl", questions)
    assert all(answer["evidence"] for answer in predictions.values())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics == evaluate_predictions(predictions, questions)
    assert f"{100 * metrics['accuracy']:.1f}" in printed
    assert f"{len(questions)} questions, {len(questions)} with a span, 0 missing" in printed
    submission = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert {qid: answer for qid, (_, answer) in submission["ts_answer"].items()} == {
        qid: prediction["label"] for qid, prediction in predictions.items()
    }
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "data:image/jpeg" in page  # the clips' own pictures


def test_a_file_of_predictions_is_evaluated_as_it_is(call, corpus, questions, tmp_path):
    right = {row["qid"]: {"label": row["label"], "start": row["start"], "end": row["end"]} for row in questions}
    missing = sorted(right)[0]
    del right[missing]
    write_predictions(tmp_path / "right.jsonl", right)
    given = ("--predictions", tmp_path / "right.jsonl", "--data", "mini", "--data_dir", corpus)
    call("evaluate.py", *given, "--output_dir", tmp_path / "ours")
    call("evaluate.py", *given, "--output_dir", tmp_path / "theirs", "--counting", "tvqa_plus")
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("ours", "theirs"))
    share = (len(questions) - 1) / len(questions)
    assert ours["accuracy"] == ours["miou"] == ours["asa"] == pytest.approx(share)
    assert ours["missing"] == 1
    assert theirs["accuracy"] == theirs["miou"] == theirs["asa"] == 1.0
    assert not (tmp_path / "ours" / "report.html").exists()  # without probabilities
    with pytest.raises(ValueError, match=missing):  # a submission has to be whole
        call("evaluate.py", *given, "--output_dir", tmp_path / "not", "--submission", "tvqa_plus")
    assert not (tmp_path / "not" / "submission.json").exists()


@pytest.mark.parametrize("change", ["unknown", "repeated"])
def test_a_wrong_file_of_predictions_stops(call, corpus, questions, tmp_path, change):
    qid = questions[0]["qid"] if change == "repeated" else "no such question"
    lines = [json.dumps({"qid": qid, "label": 0})] * 2
    (tmp_path / "wrong.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=qid):
        call(
            "evaluate.py", "--predictions", tmp_path / "wrong.jsonl", "--data", "mini", "--data_dir", corpus,
            "--output_dir", tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_stops(call, corpus, model_dir, tmp_path):
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    (tmp_path / "features.npz").write_bytes(b"")
    where = ("--data_dir", corpus, "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit, match="type 'bert'"):
        call("evaluate.py", "--model", tmp_path / "bert", "--data", "mini", *where)
    with pytest.raises(SystemExit, match="does not say its data set"):
        call("evaluate.py", "--model", tmp_path / "bert", *where)
    with pytest.raises(SystemExit):
        call("evaluate.py", *where)
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_processor_stops(call, corpus, model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    (folder / "processor_config.json").unlink()
    with pytest.raises(SystemExit, match=r"holds a model and no processor: processor_config.json is missing\. Allowed"):
        call("evaluate.py", "--model", folder, "--data_dir", corpus, "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_frames_is_not_evaluated_on_text_unasked(call, corpus, tiny_encoder_dir, tmp_path):
    model = VideoQAForMultipleChoice.from_text_encoder(str(tiny_encoder_dir), video_feature_size=4, max_text_length=48)
    model.save_pretrained(tmp_path / "model")
    VideoQAProcessor.from_config(model.config, tiny_encoder_dir).save_pretrained(tmp_path / "model")
    where = ("--data_dir", corpus, "--output_dir", tmp_path / "out")
    arguments = ("--model", tmp_path / "model", "--data", "mini", *where)
    with pytest.raises(SystemExit, match=r"no features came\. Allowed: --features .*, or --without video"):
        call("evaluate.py", *arguments)
    assert "accuracy" in call("evaluate.py", *arguments, "--without", "video")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "subtitles, objects" in page
    assert "objects, video" not in page


def test_features_for_a_model_of_text_stop(call, corpus, model_dir, tmp_path):
    np.savez(tmp_path / "features.npz", clip=np.ones((2, 4), np.float32))
    with pytest.raises(SystemExit, match="a model of text alone"):
        call(
            "evaluate.py", "--model", model_dir, "--data_dir", corpus, "--output_dir", tmp_path / "out",
            "--features", tmp_path / "features.npz", "--frame_rate", 3,
        )  # fmt: skip


def test_two_models_on_one_page(call, corpus, questions, tmp_path):
    rows = list(questions)
    for name, right in (("first", 0), ("last", 3)):
        chosen = [row["label"] if place < right else (row["label"] + 1) % 5 for place, row in enumerate(rows)]
        answers = [{"label": n, "probabilities": [0.6 if i == n else 0.1 for i in range(5)]} for n in chosen]
        write_predictions(tmp_path / f"{name}.jsonl", dict(zip([row["qid"] for row in rows], answers, strict=True)))
    files = [f"{name}={tmp_path / name}.jsonl" for name in ("first", "last")]
    where = ("--data", "mini", "--data_dir", corpus, "--output", tmp_path / "page.html")
    call("compare.py", "--predictions", *files, *where, "--count", 2)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [row["qid"] in page for row in rows[:4]] == [True, True, False, False]
    with pytest.raises(SystemExit, match="no question that the last model answers"):
        call("compare.py", "--predictions", *reversed(files), *where)
    with pytest.raises(SystemExit):
        call("compare.py", "--predictions", tmp_path / "first.jsonl", *where)


def test_int8_answers_on_the_cpu(call, corpus, questions, model_dir, tmp_path):
    arguments = ("--model", model_dir, "--data_dir", corpus, "--without", "objects")
    for name, more in (("exact", ()), ("int8", ("--int8",))):
        call("evaluate.py", *arguments, "--output_dir", tmp_path / name, *more)
    exact, fast = (read_predictions(tmp_path / name / "predictions.jsonl", questions) for name in ("exact", "int8"))
    pairs = [(exact[qid]["probabilities"], fast[qid]["probabilities"]) for qid in exact]
    np.testing.assert_allclose(*map(np.array, zip(*pairs, strict=True)), atol=0.05)
    assert any(a != b for a, b in pairs)
