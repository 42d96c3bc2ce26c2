"""How good answers and spans are, in numpy alone: accuracy, temporal IoU, answer-span accuracy, and how sure that is.

The formulas are those of TVQA+'s evaluation script, with one difference on purpose: the means here run over the
questions and not over the predictions, so that a question left out counts as a wrong one. What the official scripts
count instead is there by name: `evaluate_predictions(..., counting="tvqa_plus")`.

Questions about one clip are not independent of each other, so intervals and tests draw whole clips.
"""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

IOU_THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))  # not a range of floats, whose third is over 0.3
COUNTINGS = ("questions", "tvqa", "tvqa_plus", "dramaqa")
DRAWS_AT_ONCE = 2**20  # clips; what is drawn at once fits into the cache of a processor


class PairedTest(NamedTuple):
    """What `paired_clip_test` found: mean of the second minus mean of the first, its 95% interval, two-sided p."""

    difference: float
    interval: tuple[float, float]
    p_value: float


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


def recall_at_iou(iou: ArrayLike, thresholds: Iterable[float] = IOU_THRESHOLDS) -> dict[float, float]:
    """Share of the questions whose span overlaps the true one well enough (R@IoU), whatever the answer.

    Args:
        iou: (num_questions,), what `temporal_iou` gave.
        thresholds: the smallest IoUs that are good enough; they are so themselves.

    Returns:
        Share by threshold, in the order of the thresholds.

    Raises:
        ValueError: iou is not of shape (num_questions,), at least one question.

    Example:
        >>> recall_at_iou([0.2, 0.3, 0.6, 1.0], thresholds=(0.3, 0.5))
        {0.3: 0.75, 0.5: 0.5}
    """
    iou = np.asarray(iou, dtype=np.float64)
    if iou.ndim != 1 or not len(iou):
        raise ValueError(
            f"iou has shape {iou.shape}. (num_questions,), at least one question, is allowed: pass what temporal_iou "
            f"gives."
        )
    return {float(threshold): float((iou >= threshold).mean()) for threshold in thresholds}


def clip_bootstrap(
    values: ArrayLike, clips: Iterable[str], num_samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of a mean over questions, by drawing clips with replacement (percentile bootstrap).

    Each draw of as many clips as there are gives the sum of the values of their questions over the number of these, so
    that a clip with more questions weighs more. The order of the questions does not matter. With fewer than some 20
    clips such an interval is too narrow; that of a single clip has no width.

    Args:
        values: bool or float (num_questions,): whether the answer is right, the IoU, a mean of one over seeds.
        clips: the clip of each question.
        num_samples: how often the clips are drawn.
        confidence: share of the draws that are in the interval.
        seed: of the draws; the same one gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no question, shapes that differ, values that are not finite, or numbers out of their range.

    Example:
        >>> values, clips = [1, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
        >>> low, high = clip_bootstrap(values, clips)
        >>> bool(low < np.mean(values) < high)
        True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}. A number between 0 and 1 is allowed: 0.95 is usual.")
    sums, counts = _by_clip(values, clips)
    means = [
        sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        for rng, size in _portions(num_samples, len(sums), seed)
        for drawn in [rng.integers(len(sums), size=(size, len(sums)))]
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_clip_test(
    first: ArrayLike, second: ArrayLike, clips: Iterable[str], num_samples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Whether the second of two models is better than the first on the same questions, such as two rows of a table.

    The interval is that of `clip_bootstrap`. The test turns the sign of the differences of whole clips at random, as if
    it were by chance which model is which: p is the share of the draws, with the true signs as one of them, whose
    difference is at least as far from 0.

    Args:
        first: bool or float (num_questions,): whether the answer is right, the IoU, a mean of one over seeds.
        second: the same of the other model, the questions in the same order.
        clips: the clip of each question.
        num_samples: how often clips and signs are drawn.
        seed: of the draws; the same one gives the same numbers.

    Returns:
        Difference of the means, its 95% interval, and the two-sided p; it can be unpacked.

    Raises:
        ValueError: as in `clip_bootstrap`, or another number of values in second than in first.

    Example:
        >>> first, second = [0] * 12, [1] * 8 + [0] * 4
        >>> difference, interval, p_value = paired_clip_test(first, second, "abcdefghijkl")
        >>> round(difference, 3), 0 < interval[0] < interval[1], p_value < 0.05
        (0.667, True, True)
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"first has shape {first.shape}, second {second.shape}. Both have to be (num_questions,): pass the values "
            f"of the same questions in the same order."
        )
    differences, clips = second - first, list(clips)
    sums, _ = _by_clip(differences, clips)
    total = sums.sum()
    # Equal but for rounding is as far from 0: sums of thirds, from means over seeds, are not exact.
    bound = abs(total) - 1e-9 * np.abs(sums).sum()
    as_far = sum(
        int((np.abs(total - 2 * (turned @ sums)) >= bound).sum())
        for rng, size in _portions(num_samples, len(sums), seed)
        for turned in [rng.random((size, len(sums))) < 0.5]
    )
    interval = clip_bootstrap(differences, clips, num_samples, seed=seed)
    return PairedTest(float(total / len(clips)), interval, (as_far + 1) / (num_samples + 1))


def evaluate_predictions(
    predictions: Mapping[str, Mapping[str, Any]],
    questions: Iterable[Mapping[str, Any]],
    counting: str = "questions",
) -> dict[str, Any]:
    """Evaluate answers and spans against a table of questions.

    Questions whose label is not known are left out. A question without a prediction counts as wrong, with IoU 0; so
    does a prediction without a span for the IoU. `miou` and `asa` are means over the questions that have a span. The
    other countings are those of the official scripts, for figures that stand beside others':

    - "tvqa_plus": over the predictions, whatever they leave out. A question without a usable span stays in with IoU 0,
      as TVQA+'s two spans of zero length do: perfect predictions for its validation file get 3015/3017.
    - "tvqa": over the predictions as well. (The script gives no more than the accuracy; `miou` and `asa` are means over
      those predictions whose question has a span.)
    - "dramaqa": over all questions, each of which has to have a prediction; others are passed over.

    These three need the label of every question that they count. A prediction that is no place of a choice is an error
    in all four, also where a script would take it for wrong.

    Args:
        predictions: by qid, `{"label": int, "start": float, "end": float}`, times in seconds; both times may be None
            or left out.
        questions: rows of the table of questions, or the table itself.
        counting: "questions", "tvqa", "tvqa_plus" or "dramaqa".

    Returns:
        `accuracy`, `accuracy_by_group` (a dict), `miou`, `asa`, `recall_at_iou` (share by threshold, "0.1" to "0.9");
        `intervals`, `{"accuracy": [low, high], "miou": ..., "asa": ...}`, 95% by `clip_bootstrap`, and
        `intervals_by_group`, of the accuracy of each group; and the counts
        `questions` and `questions_with_span`, which accuracy and mIoU are means over, and `missing`, questions with a
        label but without a prediction. What needs spans is None where no question has one.

    Raises:
        ValueError: a prediction is for an unknown qid or is malformed, no question has a label or a prediction that
            the counting needs, or the rows do not name their clips.

    Example:
        >>> row = {"choices": ["a", "b"], "start": None, "end": None, "group": "house"}
        >>> rows = [
        ...     row | {"qid": "1", "clip_id": "x", "label": 0, "start": 2.0, "end": 6.0},
        ...     row | {"qid": "2", "clip_id": "y", "label": 1},
        ... ]
        >>> result = evaluate_predictions({"1": {"label": 0, "start": 3.0, "end": 6.0}}, rows)
        >>> result["accuracy"], result["miou"], result["asa"], result["missing"]
        (0.5, 0.75, 1.0, 1)
        >>> result["recall_at_iou"]["0.7"], result["intervals"]["accuracy"]
        (1.0, [0.0, 1.0])
        >>> evaluate_predictions({"1": {"label": 0}}, rows, counting="tvqa")["accuracy"]
        1.0
    """
    if counting not in COUNTINGS:
        raise ValueError(
            f"counting is {counting!r}. {', '.join(map(repr, COUNTINGS))} are allowed: take 'questions' unless the "
            f"figures are to stand beside those of an official script."
        )
    table = {row["qid"]: row for row in questions}
    checked = _checked_predictions(predictions, table, may_be_unknown=counting == "dramaqa")
    rows = _counted_rows(table, checked, counting)
    chosen, labels, iou, located = _scores(rows, checked)
    if counting == "tvqa_plus" and any(_has_span(row) for row in table.values()):
        located[:] = True
    correct, everything = _correct(chosen, labels), np.ones(len(rows), dtype=bool)
    figures = {"accuracy": (correct, everything), "miou": (iou, located), "asa": (correct & (iou >= 0.5), located)}
    clips = np.array([row["clip_id"] for row in rows])
    means, intervals = {}, {}
    for name, (values, known) in figures.items():
        means[name] = float(values[known].mean()) if known.any() else None
        intervals[name] = list(clip_bootstrap(values[known], clips[known])) if known.any() else None
    groups = np.array([row["group"] for row in rows])
    return {
        "accuracy": means["accuracy"],
        "accuracy_by_group": accuracy_by_group(chosen, labels, groups),
        "intervals_by_group": {
            str(group): list(clip_bootstrap(correct[groups == group], clips[groups == group]))
            for group in np.unique(groups)
        },
        "miou": means["miou"],
        "asa": means["asa"],
        "recall_at_iou": _recalls(iou[located], counting) if located.any() else None,
        "intervals": intervals,
        "questions": len(rows),
        "questions_with_span": int(located.sum()),
        "missing": sum(row["label"] is not None and qid not in checked for qid, row in table.items()),
    }


def question_scores(
    predictions: Mapping[str, Mapping[str, Any]], questions: Iterable[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """What `evaluate_predictions` takes its means of, for tests and intervals over several models.

    Args:
        predictions: as in `evaluate_predictions`.
        questions: rows of the table of questions, or the table itself.

    Returns:
        bool (num_labelled,), whether the answer is right, and float64 (num_labelled,), the IoU of the span, NaN where
        the question has none: of the questions with a label, in their order.

    Raises:
        ValueError: as in `evaluate_predictions`.

    Example:
        >>> row = {"qid": "1", "clip_id": "x", "choices": ["a", "b"], "label": 0, "start": 2.0, "end": 6.0}
        >>> correct, iou = question_scores({"1": {"label": 0, "start": 3.0, "end": 6.0}}, [row])
        >>> correct.tolist(), iou.tolist()
        ([True], [0.75])
    """
    table = {row["qid"]: row for row in questions}
    checked = _checked_predictions(predictions, table, may_be_unknown=False)
    chosen, labels, iou, located = _scores(_counted_rows(table, checked, "questions"), checked)
    return _correct(chosen, labels), np.where(located, iou, np.nan)


def check_prediction(prediction: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[int, float, float]:
    """The choice and the span of one prediction.

    Args:
        prediction: `{"label": int, "start": float, "end": float}`, times in seconds; both times may be None or left
            out.
        row: the question's row in the table of questions.

    Returns:
        Choice, start and end in seconds; start and end are NaN where no span was predicted.

    Raises:
        ValueError: it is malformed.

    Example:
        >>> check_prediction({"label": 1, "start": 2, "end": 4.5}, {"qid": "1", "choices": ["a", "b"]})
        (1, 2.0, 4.5)
    """
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
    if not (_is_number(start) and _is_number(end)):
        raise ValueError(
            f"{where}: the span is ({start!r}, {end!r}). Two numbers of seconds, or None twice, are allowed: give "
            f"both or neither."
        )
    return int(label), float(start), float(end)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:  # an int of hundreds of digits
        return False
    return True


def _checked_predictions(
    predictions: Mapping[str, Mapping[str, Any]], table: Mapping[str, Mapping[str, Any]], may_be_unknown: bool
) -> dict[str, tuple[int, float, float]]:
    unknown = sorted(str(qid) for qid in predictions if qid not in table)
    if unknown and not may_be_unknown:
        raise ValueError(
            f"{len(unknown)} predictions are for unknown questions, the first for qid {unknown[0]!r}. Only the qids "
            f"of the {len(table)} questions are allowed, as str: pass the questions that were predicted, or drop them."
        )
    return {qid: check_prediction(entry, table[qid]) for qid, entry in predictions.items() if qid in table}


def _counted_rows(
    table: Mapping[str, Mapping[str, Any]], predicted: Mapping[str, Any], counting: str
) -> list[Mapping[str, Any]]:
    """The rows that the means run over."""
    if counting == "dramaqa" and (missing := [qid for qid in table if qid not in predicted]):
        raise ValueError(
            f"{len(missing)} of {len(table)} questions have no prediction, the first is qid {missing[0]!r}. With "
            f"counting='dramaqa' every one has to have one: predict all, or count in the way 'questions'."
        )
    rows = [row for qid, row in table.items() if counting in ("questions", "dramaqa") or qid in predicted]
    labelled = [row for row in rows if row["label"] is not None]
    if counting != "questions" and len(labelled) < len(rows):
        raise ValueError(
            f"{len(rows) - len(labelled)} of {len(rows)} questions have no label. With counting={counting!r} all that "
            f"are counted need one: evaluate a split whose answers are known, or count in the way 'questions'."
        )
    if not labelled:
        what = "label" if counting in ("questions", "dramaqa") else "prediction"
        raise ValueError(
            f"not one question has a {what}. At least one is needed: evaluate a split whose answers are known, and "
            f"the predictions for it."
        )
    if nameless := [row["qid"] for row in labelled if not isinstance(row.get("clip_id"), str)]:
        raise ValueError(
            f"{len(nameless)} rows have no 'clip_id', the first is that of qid {nameless[0]!r}. Each has to have one, "
            f"as str, for intervals are drawn by clip: pass the table of questions as it was loaded."
        )
    return labelled


def _has_span(row: Mapping[str, Any]) -> bool:
    return row["start"] is not None and row["end"] is not None


def _scores(
    rows: list[Mapping[str, Any]], checked: Mapping[str, tuple[int, float, float]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true choice, IoU (0 without a true span), and whether there is a true span: (num_rows,) each."""
    answers = [checked.get(row["qid"], (-1, math.nan, math.nan)) for row in rows]
    chosen, labels = np.array([answer[0] for answer in answers]), np.array([row["label"] for row in rows])
    located = np.array([_has_span(row) for row in rows])
    truth = np.array([(row["start"], row["end"]) if _has_span(row) else (0.0, 0.0) for row in rows])
    iou = temporal_iou([answer[1:] for answer in answers], truth)  # a true span of zero length gives 0
    return chosen, labels, iou, located


def _recalls(iou: np.ndarray, counting: str) -> dict[str, float]:
    # TVQA+'s own thresholds are inexact, and an IoU of 0.3 falls short of its third one.
    thresholds = np.arange(0.1, 1, 0.1) if counting == "tvqa_plus" else IOU_THRESHOLDS
    recalls = recall_at_iou(iou, thresholds).values()
    return dict(zip(map(str, IOU_THRESHOLDS), recalls, strict=True))


def _by_clip(values: ArrayLike, clips: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each clip, (num_clips,) both, the same in any order of the questions."""
    values, clips = np.asarray(values, dtype=np.float64), np.asarray(list(clips))
    if values.ndim != 1 or not len(values) or clips.shape != values.shape:
        raise ValueError(
            f"values have shape {values.shape}, clips {clips.shape}. Both have to be (num_questions,), at least one "
            f"question: pass one value and the column 'clip_id' of the same questions."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{(~np.isfinite(values)).sum()} values are not finite. Every one has to be: leave these questions out."
        )
    _, places = np.unique(clips, return_inverse=True)
    order = np.lexsort((values, places))  # so that even rounding is the same
    sums = np.bincount(places[order], weights=values[order])
    return sums, np.bincount(places)


def _portions(num_samples: int, num_clips: int, seed: int) -> Iterable[tuple[np.random.Generator, int]]:
    """One generator of random numbers again and again, each time with how many samples to draw next."""
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}. At least 1 is allowed: 10,000 are usual.")
    rng, portion = np.random.default_rng(seed), max(1, DRAWS_AT_ONCE // num_clips)
    for done in range(0, num_samples, portion):
        yield rng, min(portion, num_samples - done)


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
