"""Files of predictions and submissions: what is written, what is read back, and that bad input leaves nothing."""

import doctest
import json
import zipfile

import numpy as np
import pytest

from modeling_videoqa import submissions
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.submissions import (
    TVQA_META_FLAGS,
    TVQA_META_KEYS,
    read_dramaqa_submission,
    read_predictions,
    read_tvqa_plus_submission,
    read_tvqa_submission,
    write_dramaqa_submission,
    write_predictions,
    write_tvqa_plus_submission,
    write_tvqa_submission,
)

META = {key: key not in TVQA_META_FLAGS and f"our {key}" for key in TVQA_META_KEYS}


def question(qid, label=0, start=None, end=None):
    choices = ["a", "b", "c", "d", "e"]
    return {
        "qid": qid, "clip_id": f"clip {qid}", "choices": choices, "label": label, "start": start, "end": end,
        "group": "1",
    }  # fmt: skip


ROWS = [question("20", 4, 1.0, 5.0), question("3", 0, 2.0, 3.0), question("100", 2, 0.0, 9.5)]
FULL = {
    "3": {
        "label": 0,
        "probabilities": [0.6, 0.1, 0.1, 0.1, 0.1],
        "start": 0.1,
        "end": 1 / 3,
        "evidence": ['"Hé"\n\u2028', "\U0001f600 and half of one: \ud83d"],
    },
    "20": {"label": 4, "probabilities": [0, 0, 0, 0, 1.0], "start": None, "end": None, "evidence": []},
    "100": {"label": 1, "start": 2, "end": 1.5},
}
LABELS = {"20": {"label": 4}, "3": {"label": 0}, "100": {"label": 1}}
SPANS = {
    "20": {"label": 4, "start": 1.0, "end": 5.0},
    "3": {"label": 0, "start": 2, "end": 4.5},
    "100": {"label": np.int64(1), "start": np.float32(0.5), "end": 8.0},
}


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(submissions).failed == 0


# --- our own files


def test_predictions_come_back_as_they_were(tmp_path):
    path = write_predictions(tmp_path / "new" / "predictions.jsonl", FULL)
    read = read_predictions(path, iter(ROWS))
    assert read == FULL
    assert list(read) == list(FULL)
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3
    assert list(json.loads(lines[0])) == ["qid", "label", "probabilities", "start", "end", "evidence"]
    assert [file.name for file in path.parent.iterdir()] == ["predictions.jsonl"]


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    given = {"3": {"label": np.int64(1), "probabilities": np.array([0, 0.5, 0.5, 0, 0]), "start": np.float64(0.5)}}
    path = write_predictions(tmp_path / "a.jsonl", {"3": {**given["3"], "end": np.float32(2)}})
    expected = {"label": 1, "probabilities": [0.0, 0.5, 0.5, 0.0, 0.0], "start": 0.5, "end": 2.0}
    assert read_predictions(path, ROWS, allow_missing=True) == {"3": expected}


def test_questions_may_be_without_a_prediction_if_that_is_said(tmp_path):
    path = write_predictions(tmp_path / "a.jsonl", {"3": {"label": 1}})
    assert read_predictions(path, ROWS, allow_missing=True) == {"3": {"label": 1}}
    with pytest.raises(ValueError, match=r"a\.jsonl: 2 of 3 questions have no line.*'20'.*allow_missing"):
        read_predictions(path, ROWS)
    assert read_predictions(write_predictions(path, {}), ROWS, allow_missing=True) == {}


GOOD = '{"qid": "20", "label": 4}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no valid JSON"),
        ('{"qid": "3", "label": 1', "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ('{"qid": "3", "label": 0, "start": NaN, "end": 2}', "NaN is no number"),
        (b'{"qid": "\xff", "label": 0}', "no valid JSON"),
        ("[3, 1]", "JSON object is allowed"),
        ('{"label": 1}', "qid is None"),
        ('{"qid": 3, "label": 1}', "qid is 3.*as str"),
        ('{"qid": "4", "label": 1}', "qid is '4'"),
        ('{"qid": "20", "label": 1}', "'20' was there before, in line 1"),
        ('{"qid": "3"}', "key 'label'"),
        ('{"qid": "3", "label": 1, "strat": 1.0}', r"unknown keys \['strat'\]"),
        ('{"qid": "3", "label": 5}', "0 to 4"),
        ('{"qid": "3", "label": "1"}', "label is '1'"),
        ('{"qid": "3", "label": 1, "start": 2.0}', "both or neither"),
        ('{"qid": "3", "label": 1, "start": 1, "end": 1' + "0" * 400 + "}", "Two numbers of seconds"),
        ('{"qid": "3", "label": 1, "probabilities": [1.0]}', "5 numbers from 0 to 1"),
        ('{"qid": "3", "label": 1, "probabilities": [0, 2, 0, 0, 0]}', "5 numbers from 0 to 1"),
        ('{"qid": "3", "label": 1, "probabilities": ["0", 1, 0, 0, 0]}', "5 numbers from 0 to 1"),
        ('{"qid": "3", "label": 1, "evidence": "Amy"}', "list of texts"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(ValueError, match=rf"(?s)a\.jsonl, line 2: .*{words}"):
        read_predictions(path, ROWS, allow_missing=True)


# --- official files


def test_the_zip_for_tvqa(tmp_path):
    val = [question("20"), question("3")]
    predictions = {"val": {"3": {"label": np.int64(0)}, "20": {"label": 4}}, "test_public": LABELS}
    path = write_tvqa_submission(tmp_path / "a.zip", predictions, {"val": val, "test_public": ROWS}, META)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["meta.json", "prediction_test_public.json", "prediction_val.json"]
        read = {name: json.loads(archive.read(name)) for name in archive.namelist()}
    assert read["prediction_val.json"] == {"3": 0, "20": 4}
    assert read["prediction_test_public.json"] == {"3": 0, "20": 4, "100": 1}
    assert read["meta.json"] == {
        "model_name": "our model_name",
        "is_ensemble": False,
        "with_ts": False,
        "show_on_leaderboard": False,
        "author": "our author",
        "institution": "our institution",
        "description": "our description",
        "paper_link": "our paper_link",
        "code_link": "our code_link",
    }
    assert read_tvqa_submission(path) == {"val": {"3": {"label": 0}, "20": {"label": 4}}, "test_public": LABELS}
    again = write_tvqa_submission(tmp_path / "b.zip", predictions, {"val": val, "test_public": ROWS}, META)
    assert again.read_bytes() == path.read_bytes()
    assert evaluate_predictions(read_tvqa_submission(path)["val"], ROWS, counting="tvqa")["accuracy"] == 1.0


def test_the_file_for_tvqa_plus(tmp_path):
    path = write_tvqa_plus_submission(tmp_path / "a.json", SPANS, ROWS)
    assert json.loads(path.read_text()) == {
        "ts_answer": {"3": [[2.0, 4.5], 0], "20": [[1.0, 5.0], 4], "100": [[0.5, 8.0], 1]},
        "raw_bbox": [],
    }
    assert read_tvqa_plus_submission(path) == SPANS
    figures = evaluate_predictions(read_tvqa_plus_submission(path), ROWS, counting="tvqa_plus")
    assert figures == evaluate_predictions(SPANS, ROWS, counting="tvqa_plus")


def test_the_file_for_dramaqa(tmp_path):
    path = write_dramaqa_submission(tmp_path / "a.json", LABELS, ROWS)
    assert json.loads(path.read_text()) == [
        {"correct_idx": 0, "qid": 3},
        {"correct_idx": 4, "qid": 20},
        {"correct_idx": 1, "qid": 100},
    ]
    assert read_dramaqa_submission(path) == LABELS
    path.write_text('[{"correct_idx": 1, "qid": 3, "more": 0}, {"correct_idx": 2, "qid": 3}]')
    assert read_dramaqa_submission(path) == {"3": {"label": 2}}  # the last one holds


def test_an_older_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("x" * 10_000)
    write_dramaqa_submission(path, LABELS, ROWS)
    assert read_dramaqa_submission(path) == LABELS
    with pytest.raises(ValueError, match="label is 7"):
        write_dramaqa_submission(path, {**LABELS, "3": {"label": 7}}, ROWS)
    assert read_dramaqa_submission(path) == LABELS
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_predictions(tmp_path / "a.jsonl", LABELS)

    def full(self, content):
        self.touch()
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        write_predictions(path, {})
    assert list(tmp_path.iterdir()) == [path]
    assert read_predictions(path, ROWS) == LABELS


def tvqa(path, predictions=None, questions=None, meta=None):
    split = {"test_public": LABELS} if predictions is None else predictions
    return write_tvqa_submission(path, split, {"test_public": ROWS} if questions is None else questions, meta or META)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: write_predictions(path, {3: {"label": 1}}), "type int.*str"),
        (lambda path: write_predictions(path, {"3": {"label": 1, "start": float("nan")}}), "'3'.*None for an unknown"),
        (lambda path: write_predictions(path, {"3": {"label": {1}}}), "type set came"),
        (lambda path: write_predictions(path, {"3": 1}), "key 'label'"),
        (lambda path: write_predictions(path, {"3": {"start": 1.0}}), "key 'label'"),
        (lambda path: write_predictions(path, {"3": {"label": 1, "score": 2}}), "unknown keys"),
        (lambda path: write_dramaqa_submission(path, {"3": {"label": 0}}, ROWS), "2 of 3 .*no prediction.*'20'"),
        (lambda path: write_dramaqa_submission(path, LABELS, ROWS[:2]), "1 predictions are for unknown.*'100'"),
        (lambda path: write_dramaqa_submission(path, {}, []), "0 of 0"),
        (lambda path: write_dramaqa_submission(path, {**LABELS, "3": {"label": "0"}}, ROWS), "label is '0'"),
        (lambda path: write_dramaqa_submission(path, {"q7": {"label": 0}}, [question("q7")]), "qid 'q7'"),
        (lambda path: write_dramaqa_submission(path, {"07": {"label": 0}}, [question("07")]), "qid '07'"),
        (lambda path: write_tvqa_plus_submission(path, LABELS, ROWS), "span head"),
        (lambda path: write_tvqa_plus_submission(path, {"3": SPANS["3"]}, ROWS), "no prediction"),
        (lambda path: tvqa(path, {}, {}), "'val', 'test_public'"),
        (lambda path: tvqa(path, {"validation": LABELS}, {"validation": ROWS}), "pass {'val'"),
        (lambda path: tvqa(path, {"val": LABELS}), "the same in both"),
        (lambda path: tvqa(path, {"test_public": {}}), "split 'test_public': 3 of 3"),
        (lambda path: tvqa(path, meta={"model_name": "ours"}), "missing keys .*'author'"),
        (lambda path: tvqa(path, meta={**META, "team": ""}), r"unknown keys \['team'\]"),
        (lambda path: tvqa(path, meta={**META, "with_ts": "false"}), "'with_ts': 'false' came. A bool"),
        (lambda path: tvqa(path, meta={**META, "author": None}), "'author': None came. A str"),
    ],
)
def test_bad_input_leaves_no_file(tmp_path, write, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / "new" / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (read_tvqa_plus_submission, "[]", "JSON object"),
        (read_tvqa_plus_submission, "{", "no valid JSON"),
        (read_tvqa_plus_submission, "{}", "'ts_answer': None"),
        (read_tvqa_plus_submission, '{"ts_answer": {"7": 1}}', "qid '7': 1 came"),
        (read_tvqa_plus_submission, '{"ts_answer": {"7": [[0, 1, 2], 1]}}', "qid '7'"),
        (read_tvqa_plus_submission, '{"ts_answer": {"7": [["0", 1], 1]}}', "qid '7'"),
        (read_tvqa_plus_submission, '{"ts_answer": {"7": [[0, NaN], 1]}}', "NaN is no number"),
        (read_tvqa_plus_submission, '{"ts_answer": {"7": [[0, 1], "1"]}}', "qid '7': '1' came"),
        (read_dramaqa_submission, '{"7": 1}', "JSON list"),
        (read_dramaqa_submission, "[7]", "entry 1: 7 came"),
        (read_dramaqa_submission, '[{"qid": 7}]', "entry 1"),
        (read_dramaqa_submission, '[{"qid": "7", "correct_idx": 1}]', "entry 1: '7' came"),
        (read_dramaqa_submission, '[{"qid": 7, "correct_idx": true}]', "entry 1: True came"),
        (read_tvqa_submission, "PK and no more", "readable zip"),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path, read, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json.*{words}"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"folder/prediction_val.json": "{}"}, "in no folder"),
        ({"prediction_val.json": "[]"}, "prediction_val.json: .*JSON object"),
        ({"prediction_val.json": '{"7": "1"}'}, "prediction_val.json, qid '7': '1' came"),
        ({"prediction_val.json": " " * (64 * 2**20 + 1)}, "At most 67108864"),
    ],
)
def test_a_zip_of_something_else_is_refused(tmp_path, members, words):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=words):
        read_tvqa_submission(tmp_path / "a.zip")


def test_a_damaged_zip_is_refused(tmp_path):
    path = tvqa(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[45:75] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(ValueError, match="readable zip"):
        read_tvqa_submission(path)


# --- the released files


def test_submissions_for_the_released_questions(tmp_path, real):
    lines = (real / "tvqa" / "tvqa_test_public.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [question(str(json.loads(line)["qid"]), None) for line in lines]
    predictions = {row["qid"]: {"label": place % 5} for place, row in enumerate(rows)}
    path = write_tvqa_submission(tmp_path / "a.zip", {"test_public": predictions}, {"test_public": rows}, META)
    assert len(rows) == 7_623
    assert read_tvqa_submission(path) == {"test_public": predictions}
    (file,) = real.glob("dramaqa/*/AnotherMissOhQA_val_set.json")
    records = json.loads(file.read_text(encoding="utf-8"))
    rows = [question(str(record["qid"]), record["correct_idx"]) for record in records]
    answers = {row["qid"]: {"label": row["label"]} for row in rows}
    path = write_dramaqa_submission(tmp_path / "a.json", answers, rows)
    theirs = {entry["qid"]: entry["correct_idx"] for entry in json.loads(path.read_text())}
    assert theirs == {record["qid"]: record["correct_idx"] for record in records}
    assert evaluate_predictions(read_dramaqa_submission(path), rows, counting="dramaqa")["accuracy"] == 1.0
