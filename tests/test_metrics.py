"""Values worked out by hand, and the laws of an IoU."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_videoqa import metrics
from modeling_videoqa.metrics import (
    accuracy,
    accuracy_by_group,
    answer_span_accuracy,
    evaluate_predictions,
    temporal_iou,
)

seconds = st.floats(0, 300, allow_subnormal=False)
spans = st.tuples(seconds, seconds).map(sorted)


def question(qid, label=0, start=None, end=None, group="house"):
    choices = ["a", "b", "c", "d", "e"]
    return {"qid": qid, "choices": choices, "label": label, "start": start, "end": end, "group": group}


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(metrics).failed == 0


def test_accuracy_overall_and_by_group():
    predictions, labels = [0, 1, 2, -1], [0, 1, 0, 3]
    assert accuracy(predictions, labels) == 0.5
    assert accuracy_by_group(predictions, labels, ["b", "a", "b", "a"]) == {"a": 0.5, "b": 0.5}
    assert accuracy_by_group(predictions, labels, ["x"] * 4) == {"x": 0.5}


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 4), (2, 6), 2 / 6),
        ((2, 3), (0, 10), 0.1),  # inside
        ((0, 10), (2, 3), 0.1),
        ((0, 2), (2, 4), 0.0),  # touching
        ((0, 1), (5, 9), 0.0),  # apart
        ((6, 2), (2, 6), 0.0),  # reversed prediction
        ((9, 1), (8, 2), 0.0),  # both reversed: a negative hull
        ((3, 3), (3, 3), 0.0),  # hull 0
        ((math.nan, math.nan), (2, 6), 0.0),
        ((2, math.inf), (2, 6), 0.0),
    ],
)
def test_temporal_iou_by_hand(predicted, truth, expected):
    assert temporal_iou([predicted], [truth]).tolist() == [pytest.approx(expected)]


@given(spans, spans)
def test_temporal_iou_is_symmetric_and_between_0_and_1(first, second):
    iou = temporal_iou([first], [second])[0]
    assert 0 <= iou <= 1
    assert iou == temporal_iou([second], [first])[0]


@given(spans, st.floats(0, 100))
def test_temporal_iou_of_a_span_with_itself_is_1_unless_it_is_empty(span, shift):
    assert temporal_iou([span], [span])[0] == (1.0 if span[0] < span[1] else 0.0)
    later = (span[1] + shift, span[1] + shift + 1)
    assert temporal_iou([later], [span])[0] == 0


def test_a_perfect_submission_gets_the_number_of_the_official_readme():
    # TVQA+ val: 3,017 spans, two of them of zero length
    truth = np.array([[1.0, 5.0]] * 3015 + [[4.0, 4.0]] * 2)
    labels = np.arange(3017) % 5
    iou = temporal_iou(truth, truth)
    assert round(float(iou.mean()), 5) == 0.99934
    assert round(answer_span_accuracy(labels, labels, iou), 5) == 0.99934


def test_answer_span_accuracy_takes_both_and_includes_the_threshold():
    assert answer_span_accuracy([0, 1, 2, 3], [0, 1, 2, 0], [0.5, 0.49, 0.8, 0.9]) == 0.5
    assert answer_span_accuracy([0, 1], [0, 1], [0.5, 0.8], threshold=0.7) == 0.5


def test_evaluate_predictions_by_hand():
    rows = [
        question("1", 0, 0.0, 10.0),  # right, IoU 0.5
        question("2", 1, 0.0, 10.0, "castle"),  # wrong, IoU 1
        question("3", 2, 0.0, 10.0),  # right, no span predicted
        question("4", 3, 0.0, 10.0),  # no prediction
        question("5", 4),  # right, no true span
        question("6", None, 0.0, 10.0),  # label not known
    ]
    predictions = {
        "1": {"label": 0, "start": 0.0, "end": 5.0},
        "2": {"label": 0, "start": 0.0, "end": 10.0},
        "3": {"label": np.int64(2), "start": None, "end": None},
        "5": {"label": 4, "start": 1.0, "end": 2.0},
        "6": {"label": 4, "start": 1.0, "end": 2.0},
    }
    assert evaluate_predictions(predictions, rows) == {
        "accuracy": 0.6,
        "accuracy_by_group": {"castle": 0.0, "house": 0.75},
        "miou": 0.375,
        "asa": 0.25,
        "questions": 5,
        "questions_with_span": 4,
        "missing": 1,
    }


def test_without_any_true_span_there_is_no_miou():
    result = evaluate_predictions({"1": {"label": 0}}, iter([question("1")]))
    assert (result["miou"], result["asa"], result["questions_with_span"]) == (None, None, 0)


def test_no_prediction_at_all_is_all_wrong():
    result = evaluate_predictions({}, [question("1", 0, 1.0, 2.0)])
    assert (result["accuracy"], result["miou"], result["asa"], result["missing"]) == (0.0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: accuracy([], []), "at least one question"),
        (lambda: accuracy([[0.1, 0.9]], [1]), "argmax"),
        (lambda: accuracy(["1"], [1]), "integers"),
        (lambda: accuracy([1], [-100]), "not known"),
        (lambda: accuracy_by_group([1], [1], ["a", "b"]), "groups have shape"),
        (lambda: answer_span_accuracy([1], [1], [0.5, 0.5]), "temporal_iou"),
        (lambda: temporal_iou([[0, 1]], [[0, 1], [1, 2]]), "num_questions, 2"),
        (lambda: temporal_iou([0, 1], [0, 1]), "num_questions, 2"),
        (lambda: temporal_iou([[0, 1]], [[0, math.nan]]), "not finite"),
        (lambda: evaluate_predictions({"2": {"label": 0}}, [question("1")]), "unknown questions.*'2'"),
        (lambda: evaluate_predictions({1: {"label": 0}}, [question("1")]), "as str"),
        (lambda: evaluate_predictions({"1": {"label": "0"}}, [question("1")]), "qid '1': label is '0'"),
        (lambda: evaluate_predictions({"1": {"label": 5}}, [question("1")]), "0 to 4"),
        (lambda: evaluate_predictions({"1": {"start": 0.0, "end": 1.0}}, [question("1")]), "label is None"),
        (lambda: evaluate_predictions({"1": 3}, [question("1")]), "{'label': 3}"),
        (lambda: evaluate_predictions({"1": {"label": 0, "start": 1.0}}, [question("1")]), "both or neither"),
        (lambda: evaluate_predictions({}, [question("1", None)]), "not one question has a label"),
        (lambda: evaluate_predictions({}, []), "not one question has a label"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
