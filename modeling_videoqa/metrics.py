"""How good answers and spans are, in numpy alone: accuracy, temporal IoU, answer-span accuracy.

The formulas are those of TVQA+'s evaluation script, with one difference on purpose: the means here run over the
questions and not over the predictions, so that a question left out counts as a wrong one.
"""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of the questions whose predicted choice is the right one.

    Args:
        predictions: int (num_questions,), the predicted choices; -1 for none, which is never right.
        labels: int (num_questions,), the right choices.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: no question, shapes that differ, values that are no whole numbers, or an unknown label (-100).

    Example:
        >>> accuracy([0, 4, 2, -1], [0, 4, 1, 3])
        0.5
    """
    return float(_correct(predictions, labels).mean())


def accuracy_by_group(predictions: ArrayLike, labels: ArrayLike, groups: Iterable[str]) -> dict[str, float]:
    """The accuracy of each group of questions: a show, a difficulty.

    Args:
        predictions: int (num_questions,), the predicted choices; -1 for none, which is never right.
        labels: int (num_questions,), the right choices.
        groups: the group of each question.

    Returns:
        Accuracy by group, sorted by the group's name.

    Raises:
        ValueError: as in `accuracy`, or another number of groups than of questions.

    Example:
        >>> accuracy_by_group([0, 4, 2], [0, 4, 1], ["house", "castle", "house"])
        {'castle': 1.0, 'house': 0.5}
    """
    correct, groups = _correct(predictions, labels), np.asarray(list(groups))
    if groups.shape != correct.shape:
        raise ValueError(
            f"groups have shape {groups.shape}. One for each of the {len(correct)} questions is allowed: pass the "
            f"column 'group' of the same questions."
        )
    return {str(group): float(correct[groups == group].mean()) for group in np.unique(groups)}


def temporal_iou(predicted: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Intersection over union of time spans.

    As in TVQA+'s evaluation the denominator is the hull, from the earlier start to the later end. It is the union
    whenever the spans overlap; where they do not, the intersection is 0 anyway. A hull of 0 gives 0, so a true span of
    zero length cannot be found; a reversed prediction gives 0 as well.

    Args:
        predicted: (num_questions, 2), start and end in seconds; NaN where no span was predicted, which gives 0.
        truth: (num_questions, 2), start and end in seconds.

    Returns:
        (num_questions,) float64, from 0 to 1.

    Raises:
        ValueError: the shapes are not those above, or a true span is not finite.

    Example:
        >>> temporal_iou([[2.0, 6.0], [0.0, 1.0], [6.0, 2.0]], [[4.0, 8.0], [4.0, 8.0], [2.0, 6.0]]).round(3).tolist()
        [0.333, 0.0, 0.0]
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 2:
        raise ValueError(
            f"predicted has shape {predicted.shape}, truth {truth.shape}. Both have to be (num_questions, 2): one row "
            f"of start and end for each question, in the same order."
        )
    if not np.isfinite(truth).all():
        raise ValueError(
            f"{(~np.isfinite(truth).all(axis=1)).sum()} true spans are not finite. Every one has to be: leave the "
            f"questions without a span out."
        )
    found = np.isfinite(predicted).all(axis=1)
    predicted = np.where(found[:, None], predicted, truth)  # any finite numbers will do, for these rows become 0
    overlap = np.minimum(predicted[:, 1], truth[:, 1]) - np.maximum(predicted[:, 0], truth[:, 0])
    hull = np.maximum(predicted[:, 1], truth[:, 1]) - np.minimum(predicted[:, 0], truth[:, 0])
    valid = found & (overlap > 0) & (hull > 0)
    return np.divide(overlap, hull, out=np.zeros(len(truth)), where=valid)


def answer_span_accuracy(predictions: ArrayLike, labels: ArrayLike, iou: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the questions with the right choice and a span that overlaps the true one well enough (ASA).

    Args:
        predictions: int (num_questions,), the predicted choices; -1 for none, which is never right.
        labels: int (num_questions,), the right choices.
        iou: (num_questions,), what `temporal_iou` gave.
        threshold: the smallest IoU that is good enough; it is so itself.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: as in `accuracy`, or another number of IoUs than of questions.

    Example:
        >>> answer_span_accuracy([0, 4, 2, 1], [0, 4, 1, 1], [0.5, 0.4, 0.9, 0.6])
        0.5
    """
    correct, iou = _correct(predictions, labels), np.asarray(iou, dtype=np.float64)
    if iou.shape != correct.shape:
        raise ValueError(
            f"iou has shape {iou.shape}. ({len(correct)},) is allowed, one for each question: pass what temporal_iou "
            f"gives for the same questions."
        )
    return float((correct & (iou >= threshold)).mean())


def evaluate_predictions(
    predictions: Mapping[str, Mapping[str, Any]], questions: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Evaluate answers and spans against a table of questions.

    Questions whose label is not known are left out. A question without a prediction counts as wrong, with IoU 0; so
    does a prediction without a span for the IoU. `miou` and `asa` are means over the questions that have a span. (The
    script of TVQA+ divides by the predictions instead, and keeps its two spans of zero length, which none can find.)

    Args:
        predictions: by qid, `{"label": int, "start": float, "end": float}`, times in seconds; both times may be None
            or left out.
        questions: rows of the table of questions, or the table itself.

    Returns:
        `accuracy`, `accuracy_by_group` (a dict), `miou`, `asa` (both None where no question has a span), and the
        counts `questions`, `questions_with_span` and `missing` (questions without a prediction).

    Raises:
        ValueError: a prediction is for an unknown qid or is malformed, or no question has a label.

    Example:
        >>> rows = [
        ...     {"qid": "1", "choices": ["a", "b"], "label": 0, "start": 2.0, "end": 6.0, "group": "house"},
        ...     {"qid": "2", "choices": ["a", "b"], "label": 1, "start": None, "end": None, "group": "house"},
        ... ]
        >>> result = evaluate_predictions({"1": {"label": 0, "start": 3.0, "end": 6.0}}, rows)
        >>> result["accuracy"], result["miou"], result["asa"], result["missing"]
        (0.5, 0.75, 1.0, 1)
    """
    rows = {row["qid"]: row for row in questions}
    unknown = sorted(str(qid) for qid in predictions if qid not in rows)
    if unknown:
        raise ValueError(
            f"{len(unknown)} predictions are for unknown questions, the first for qid {unknown[0]!r}. Only the qids "
            f"of the {len(rows)} questions are allowed, as str: pass the questions that were predicted, or drop them."
        )
    checked = {qid: _checked_prediction(prediction, rows[qid]) for qid, prediction in predictions.items()}
    rows = [row for row in rows.values() if row["label"] is not None]
    if not rows:
        raise ValueError(
            "not one question has a label. At least one is needed: evaluate a split whose answers are known."
        )
    nothing = (-1, math.nan, math.nan)
    answers = [checked.get(row["qid"], nothing) for row in rows]
    chosen, labels = np.array([answer[0] for answer in answers]), np.array([row["label"] for row in rows])
    located = [place for place, row in enumerate(rows) if row["start"] is not None and row["end"] is not None]
    miou = asa = None
    if located:
        truth = [(rows[place]["start"], rows[place]["end"]) for place in located]
        iou = temporal_iou([answers[place][1:] for place in located], truth)
        miou, asa = float(iou.mean()), answer_span_accuracy(chosen[located], labels[located], iou)
    return {
        "accuracy": accuracy(chosen, labels),
        "accuracy_by_group": accuracy_by_group(chosen, labels, [row["group"] for row in rows]),
        "miou": miou,
        "asa": asa,
        "questions": len(rows),
        "questions_with_span": len(located),
        "missing": sum(row["qid"] not in checked for row in rows),
    }


def _correct(predictions: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """(num_questions,) bool."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"predictions have shape {predictions.shape}, labels {labels.shape}. Both have to be (num_questions,), at "
            f"least one question: take the argmax of the logits first."
        )
    if not (np.issubdtype(predictions.dtype, np.integer) and np.issubdtype(labels.dtype, np.integer)):
        raise ValueError(
            f"predictions are {predictions.dtype}, labels {labels.dtype}. Only integers are allowed, the places of "
            f"the choices counted from 0: convert them, for text never equals a number."
        )
    if (labels < 0).any():
        raise ValueError(
            f"{(labels < 0).sum()} labels are negative, which means not known. Labels of 0 and more are allowed: "
            f"leave these questions out."
        )
    return predictions == labels


def _checked_prediction(prediction: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, float, float]:
    """Choice, start and end; NaN, NaN for no span."""
    where, choices = f"prediction for qid {row['qid']!r}", len(row["choices"])
    if not isinstance(prediction, Mapping):
        raise ValueError(f"{where}: {prediction!r} came. A dictionary is allowed: give {{'label': {prediction!r}}}.")
    label, start, end = (prediction.get(key) for key in ("label", "start", "end"))
    if isinstance(label, bool) or not isinstance(label, Integral) or not 0 <= label < choices:
        raise ValueError(
            f"{where}: label is {label!r}. An int from 0 to {choices - 1} is allowed: give the place of the choice, "
            f"or no prediction at all."
        )
    if start is None and end is None:
        return int(label), math.nan, math.nan
    if any(isinstance(time, bool) or not isinstance(time, Real) for time in (start, end)):
        raise ValueError(
            f"{where}: the span is ({start!r}, {end!r}). Two numbers of seconds, or None twice, are allowed: give "
            f"both or neither."
        )
    return int(label), float(start), float(end)
