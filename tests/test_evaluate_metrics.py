"""The modules for the `evaluate` package give the numbers of `metrics.py`, batch by batch."""

import doctest
import math

import evaluate
import numpy as np
import pytest
import torch

from modeling_videoqa import evaluate_metrics
from modeling_videoqa.evaluate_metrics import AnswerAccuracy, AnswerSpanAccuracy, TemporalIoU
from modeling_videoqa.metrics import accuracy, answer_span_accuracy, recall_at_iou, temporal_iou


@pytest.fixture(params=["in memory", "on disk"])
def storage(request, tmp_path):
    return {"keep_in_memory": True} if request.param == "in memory" else {"cache_dir": str(tmp_path)}


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(evaluate_metrics).failed == 0


def test_accuracy_batch_by_batch(storage):
    metric = AnswerAccuracy(**storage)
    metric.add_batch(predictions=[0, 1], references=np.array([0, 1]))
    metric.add_batch(predictions=torch.tensor([2]), references=torch.tensor([0]))
    metric.add(prediction=-1, reference=3)
    assert metric.compute() == {"accuracy": 0.5}
    assert metric.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}  # nothing is left of the first time


def test_accuracy_by_group(storage):
    metric = AnswerAccuracy("by_group", **storage)
    metric.add_batch(predictions=[0, 1, 2], references=[0, 1, 0], groups=["house", "castle", "house"])
    metric.add_batch(predictions=[4], references=[4], groups=["house"])
    assert metric.compute() == {"accuracy": 0.75, "accuracy_by_group": {"castle": 1.0, "house": pytest.approx(2 / 3)}}


def test_temporal_iou_with_spans_that_were_not_predicted(storage):
    metric = TemporalIoU(**storage)
    metric.add_batch(predictions=[[0, 5], None], references=[[0, 10], [0, 10]])
    metric.add_batch(
        predictions=np.array([[math.nan, math.nan], [1.0, 3.0]]), references=np.array([[0, 4], [1.0, 3.0]])
    )
    figures = metric.compute()
    assert figures["miou"] == 0.375
    assert figures["recall_at_iou"] == {f"0.{tenth}": 0.5 if tenth < 6 else 0.25 for tenth in range(1, 10)}


def test_answer_span_accuracy_with_its_threshold(storage):
    columns = {
        "predictions": [0, 1, 2, 3],
        "references": [0, 1, 2, 0],
        "predicted_spans": [[0, 5], None, [0, 10], [0, 10]],
        "true_spans": [[0, 10]] * 4,
    }
    metric = AnswerSpanAccuracy(**storage)
    metric.add_batch(**columns)
    assert metric.compute() == {"asa": 0.5}
    assert metric.compute(**columns, threshold=0.6) == {"asa": 0.25}


def test_the_numbers_are_those_of_the_functions():
    rng = np.random.default_rng(0)
    chosen, labels = rng.integers(5, size=(2, 200))
    predicted, truth = rng.uniform(0, 60, (200, 2)), np.sort(rng.uniform(0, 60, (200, 2)), axis=1)
    iou = temporal_iou(predicted, truth)
    joint = AnswerSpanAccuracy(keep_in_memory=True)
    spans = TemporalIoU(keep_in_memory=True)
    for part in np.array_split(np.arange(200), 7):
        spans.add_batch(predictions=predicted[part], references=truth[part])
        joint.add_batch(
            predictions=chosen[part],
            references=labels[part],
            predicted_spans=predicted[part],
            true_spans=truth[part],
        )
    assert joint.compute() == {"asa": answer_span_accuracy(chosen, labels, iou)}
    figures = spans.compute()
    assert figures["miou"] == iou.mean()
    assert figures["recall_at_iou"] == {str(key): share for key, share in recall_at_iou(iou).items()}
    combined = evaluate.combine([AnswerAccuracy(keep_in_memory=True)])
    assert combined.compute(predictions=chosen, references=labels) == {"accuracy": accuracy(chosen, labels)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: AnswerAccuracy("by_show"), "'default' and 'by_group'"),
        (lambda: AnswerAccuracy(keep_in_memory=True).compute(predictions=[0, 1], references=[0]), "Mismatch"),
        (lambda: AnswerAccuracy(keep_in_memory=True).compute(predictions=[0], references=[-100]), "not known"),
        (lambda: TemporalIoU(keep_in_memory=True).compute(predictions=[[0, 1, 2]], references=[[0, 1]]), "length=2"),
        (
            lambda: TemporalIoU(keep_in_memory=True).compute(predictions=[[0, 1]], references=[[0, math.nan]]),
            "not finite",
        ),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
