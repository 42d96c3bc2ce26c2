"""Pages that show where a model is right and where it fails: a report of one model, a comparison of several.

Each page is one HTML file without scripts and without anything from outside. What it says is computed by pure functions
(`by_group`, `by_first_word`, `calibration`, `span_errors`, `mistakes`); how it looks stands in `report_template.py`.
"""

import base64
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from PIL import Image

from .files import write_whole
from .metrics import check_prediction, evaluate_predictions, temporal_iou
from .report_template import TEMPLATES

FIRST_WORDS = ("what", "who", "where", "why", "how", "when", "which")
THUMBNAIL = (208, 156)  # pixels at most
# Seconds that a start or an end is off: the borders of the bars.
ERROR_BORDERS = (-30, -10, -3, -1, 1, 3, 10, 30)

Predictions = Mapping[str, Mapping[str, Any]]
Questions = Iterable[Mapping[str, Any]]
Subtitles = Callable[[str], Sequence[Mapping[str, Any]] | None]
Frames = Callable[[str, list[float]], Sequence[Image.Image | None] | None]


@dataclass(frozen=True)
class Slice:
    """How well the questions of one kind are answered.

    Args:
        name: of the kind.
        questions: how many there are, one or more.
        correct: how many are answered right.
        chance: mean over the questions of one over the number of choices.

    Example:
        >>> row = Slice("why", questions=10, correct=5, chance=0.2)
        >>> row.accuracy, [round(end, 3) for end in row.interval]
        (0.5, [0.237, 0.763])
    """

    name: str
    questions: int
    correct: int
    chance: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the accuracy by Wilson's formula, which holds for few questions and for 0 and 1 as well."""
        z, n, share = 1.959964, self.questions, self.accuracy
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Bin:
    """The questions whose highest probability is over `low` and at most `high`; means are None where there are none."""

    low: float
    high: float
    questions: int
    confidence: float | None  # mean of the highest probability
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """What `calibration` found; `error`, `confidence` and `accuracy` are None where no question has a prediction."""

    error: float | None  # expected calibration error
    confidence: float | None
    accuracy: float | None
    questions: int
    bins: list[Bin]


@dataclass(frozen=True)
class SpanErrors:
    """What `span_errors` found.

    Args:
        iou: (num_questions,), of every question with a label and a true span; 0 where no span was predicted.
        start: (num_predicted_spans,), predicted minus true start in seconds.
        end: (num_predicted_spans,), predicted minus true end in seconds.
    """

    iou: np.ndarray
    start: np.ndarray
    end: np.ndarray


def by_group(predictions: Predictions, questions: Questions) -> list[Slice]:
    """Accuracy for each group of questions.

    Args:
        predictions: by qid, as `write_report` takes them; a question without one counts as wrong.
        questions: rows of the table of questions; those without a label are left out.

    Returns:
        One `Slice` for each group, sorted by name.

    Raises:
        ValueError: no question has a label.

    Example:
        >>> rows = [{"qid": str(n), "choices": ["a", "b"], "label": 0, "group": "house"} for n in range(4)]
        >>> by_group({"0": {"label": 0}, "1": {"label": 1}}, rows)
        [Slice(name='house', questions=4, correct=1, chance=0.5)]
    """
    return sorted(_slices(predictions, questions, lambda row: row["group"]), key=lambda row: row.name)


def by_first_word(predictions: Predictions, questions: Questions) -> list[Slice]:
    """Accuracy for each first word: what, who, where, why, how, when, which, and other for all else.

    "What's", "WHAT" and "What," are "what".

    Args:
        predictions: by qid, as `write_report` takes them; a question without one counts as wrong.
        questions: rows of the table of questions; those without a label are left out.

    Returns:
        One `Slice` for each first word there is, the most frequent first; other is the last.

    Raises:
        ValueError: no question has a label.

    Example:
        >>> texts = ["Who knocks?", "Who's there?", "Is it Amy?"]
        >>> rows = [{"qid": t, "question": t, "choices": ["a", "b"], "label": 0} for t in texts]
        >>> [(row.name, row.questions, row.correct) for row in by_first_word({"Who knocks?": {"label": 0}}, rows)]
        [('who', 2, 1), ('other', 1, 0)]
    """
    slices = _slices(predictions, questions, lambda row: _first_word(row["question"]))
    return sorted(slices, key=lambda row: (row.name == "other", -row.questions, row.name))


def calibration(predictions: Predictions, questions: Questions, bins: int = 10) -> Calibration:
    """How far the highest probability is from the share of right answers (expected calibration error).

    The bins are equally wide, open below and closed above. The error is the mean over the questions of the distance
    between the mean probability and the accuracy of their bin (Guo et al., 2017).

    Args:
        predictions: by qid, as `write_report` takes them.
        questions: rows of the table of questions; those without a label or without a prediction are left out.
        bins: how many, at least 1.

    Returns:
        A `Calibration` with one `Bin` for each bin, the empty ones too.

    Raises:
        ValueError: no question has a label, or probabilities are malformed.

    Example:
        >>> rows = [{"qid": "1", "choices": ["a", "b"], "label": 0}, {"qid": "2", "choices": ["a", "b"], "label": 0}]
        >>> result = calibration({q: {"label": 0, "probabilities": [0.75, 0.25]} for q in "12"}, rows, bins=2)
        >>> result.error, [bin.questions for bin in result.bins]
        (0.25, [0, 2])
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}. At least 1 is allowed: 10 are usual.")
    answered = [(predictions[row["qid"]], row) for row in _labelled(questions) if row["qid"] in predictions]
    highest = np.array([_probabilities(prediction, row).max() for prediction, row in answered])
    correct = np.array([prediction["label"] == row["label"] for prediction, row in answered], dtype=np.float64)
    borders = np.arange(bins + 1) / bins  # not a product: 7 * 0.1 is over 0.7
    place = np.searchsorted(borders[1:-1], highest, side="left")
    found, error = [], 0.0
    for index in range(bins):
        inside = place == index
        means = (float(highest[inside].mean()), float(correct[inside].mean())) if inside.any() else (None, None)
        found.append(Bin(float(borders[index]), float(borders[index + 1]), int(inside.sum()), *means))
        error += abs(highest[inside].sum() - correct[inside].sum())
    if not answered:
        return Calibration(None, None, None, 0, found)
    return Calibration(float(error / len(answered)), float(highest.mean()), float(correct.mean()), len(answered), found)


def span_errors(predictions: Predictions, questions: Questions) -> SpanErrors | None:
    """How far the predicted spans are from the true ones.

    Args:
        predictions: by qid, as `write_report` takes them.
        questions: rows of the table of questions; those without a label or without a span are left out.

    Returns:
        The IoU of every question, and the errors of start and end of every predicted span. None where no question has
        a span.

    Raises:
        ValueError: no question has a label, or a predicted span is malformed.

    Example:
        >>> rows = [{"qid": "1", "choices": ["a", "b"], "label": 0, "start": 2.0, "end": 6.0}]
        >>> errors = span_errors({"1": {"label": 0, "start": 3.0, "end": 6.0}}, rows)
        >>> errors.iou.tolist(), errors.start.tolist(), errors.end.tolist()
        ([0.75], [1.0], [0.0])
    """
    rows = [row for row in _labelled(questions) if _true_span(row)]
    if not rows:
        return None
    truth = np.array([_true_span(row) for row in rows])
    spans = [_predicted_span(predictions.get(row["qid"]), row) for row in rows]
    predicted = np.array([span or (math.nan, math.nan) for span in spans])
    located = ~np.isnan(predicted[:, 0])
    start, end = (predicted - truth)[located].T
    return SpanErrors(temporal_iou(predicted, truth), start, end)


def mistakes(predictions: Predictions, questions: Questions, count: int = 10) -> tuple[list[str], list[str]]:
    """The qids of the questions to look at first.

    Args:
        predictions: by qid, as `write_report` takes them.
        questions: rows of the table of questions; those without a label or without a prediction are left out.
        count: of each kind, at most.

    Returns:
        The wrong answers with the lowest probability of the right one, and, among the others, the wrong answers with
        the highest probability of their own. No qid is in both; equal ones keep the order of the questions.

    Raises:
        ValueError: no question has a label, or probabilities are malformed.

    Example:
        >>> rows = [{"qid": qid, "choices": ["a", "b", "c"], "label": 0} for qid in "123"]
        >>> shares = {"1": [0.9, 0.1, 0.0], "2": [0.3, 0.7, 0.0], "3": [0.1, 0.5, 0.4]}
        >>> mistakes({q: {"label": int(np.argmax(p)), "probabilities": p} for q, p in shares.items()}, rows, count=1)
        (['3'], ['2'])
    """
    if count < 1:
        raise ValueError(f"{count} mistakes of each kind are asked for. At least 1 is allowed: 10 are easily read.")
    wrong = []
    for row in _labelled(questions):
        prediction = predictions.get(row["qid"])
        if prediction is not None:
            probabilities = _probabilities(prediction, row)
            if prediction["label"] != row["label"]:
                wrong.append((row["qid"], probabilities[row["label"]], probabilities[prediction["label"]]))
    worst = [qid for qid, _, _ in sorted(wrong, key=lambda entry: entry[1])[:count]]
    others = [entry for entry in wrong if entry[0] not in set(worst)]
    return worst, [qid for qid, _, _ in sorted(others, key=lambda entry: -entry[2])[:count]]


def write_report(
    path: str | os.PathLike,
    predictions: Predictions,
    questions: Questions,
    subtitles: Subtitles | None = None,
    frames: Frames | None = None,
    title: str = "Multiple-choice video QA",
    facts: Mapping[str, str] | None = None,
    num_mistakes: int = 10,
) -> Path:
    """Write what a model gets right and wrong as one HTML page.

    Args:
        path: of the page; the folder is made, and an older page is replaced as a whole.
        predictions: by qid, `{"label": int, "probabilities": [float], "start": float, "end": float, "evidence":
            [str]}`, times in seconds; both may be None or left out, and so may the evidence, which is shown where there
            are no subtitles. A question without a prediction counts as wrong.
        questions: rows of the table of questions, or the table itself. Those without a label are left out and told.
        subtitles: from a clip_id to its sentences, `{"start", "end", "speaker", "text"}`, or None.
        frames: from a clip_id and a list of seconds to one picture for each (None where there is none), or to None
            where there is no video. Small copies of them go into the page.
        title: of the page.
        facts: names and values to stand on top: model, data, split, date.
        num_mistakes: how many of the worst mistakes, and of the most confident other ones, are shown.

    Returns:
        The path.

    Raises:
        ValueError: no question has a label, or a prediction is malformed or for an unknown qid. No file is written.

    Example:
        >>> rows = [
        ...     {"qid": "1", "clip_id": "c", "question": "Who knocks?", "choices": ["Amy", "Raj"], "label": 0,
        ...      "start": 2.0, "end": 6.0, "group": "house"},
        ... ]
        >>> answer = {"label": 1, "probabilities": [0.2, 0.8], "start": 3.0, "end": 6.0}
        >>> said = [{"start": 2.0, "end": 6.0, "speaker": "Amy", "text": "It is me."}]
        >>> page = write_report("report.html", {"1": answer}, rows, lambda clip_id: said)  # doctest: +SKIP
    """
    rows = {row["qid"]: row for row in questions}
    results = evaluate_predictions(predictions, rows.values())  # checks labels, spans and qids
    calibrated = calibration(predictions, rows.values())
    errors = span_errors(predictions, rows.values())
    lists = mistakes(predictions, rows.values(), num_mistakes)
    groups = by_group(predictions, rows.values())

    def card(qid: str) -> dict[str, Any]:
        return _card(rows[qid], [("P", "predicted", predictions[qid])], subtitles, frames)

    counts = {
        "questions": results["questions"],
        "spans": results["questions_with_span"],
        "unlabelled": len(rows) - results["questions"],
        "missing": results["missing"],
    }
    html = (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            facts={name: str(value) for name, value in (facts or {}).items()},
            figures=_figures(results, sum(row.chance * row.questions for row in groups) / results["questions"]),
            counts=counts,
            groups=groups,
            words=by_first_word(predictions, rows.values()),
            calibration=calibrated,
            spans=None if errors is None else _span_tables(errors),
            worst=[card(qid) for qid in lists[0]],
            confident=[card(qid) for qid in lists[1]],
        )
    )
    return write_whole(path, _encoded(html))


def write_comparison(
    path: str | os.PathLike,
    models: Mapping[str, Predictions],
    questions: Questions,
    qids: Iterable[str],
    subtitles: Subtitles | None = None,
    frames: Frames | None = None,
    title: str = "Answers and spans of several models",
) -> Path:
    """Write what several models answer to the same questions, and where they look, as one HTML page (Figure 4).

    Args:
        path: of the page; the folder is made, and an older page is replaced as a whole.
        models: from the name of each model to its predictions, as `write_report` takes them.
        questions: rows of the table of questions, or the table itself; a label or a span may be unknown.
        qids: of the questions to show, in this order.
        subtitles: from a clip_id to its sentences, as in `write_report`.
        frames: from a clip_id and a list of seconds to pictures, as in `write_report`.
        title: of the page.

    Returns:
        The path.

    Raises:
        ValueError: there is no model or no qid, a qid is not one of the questions', or a prediction is malformed. No
            file is written.

    Example:
        >>> models = {"text only": text_predictions, "with video": video_predictions}  # doctest: +SKIP
        >>> write_comparison("figure4.html", models, data.questions["validation"], ["127437"])  # doctest: +SKIP
    """
    rows, qids = {row["qid"]: row for row in questions}, list(dict.fromkeys(qids))
    if not models or not qids:
        raise ValueError(
            f"{len(models)} models and {len(qids)} qids came. At least one of each is needed: give the predictions by "
            f"the name of the model, and the questions to show."
        )
    unknown = [qid for qid in qids if qid not in rows]
    if unknown:
        raise ValueError(
            f"{len(unknown)} qids are unknown, the first is {unknown[0]!r}. Only those of the {len(rows)} questions "
            f"are allowed, as str: pass the questions that they belong to, or drop them."
        )
    cards = []
    for qid in qids:
        answers = [(str(key), name, models[name].get(qid)) for key, name in enumerate(models, start=1)]
        cards.append(_card(rows[qid], answers, subtitles, frames))
    html = (
        _environment().get_template("comparison.html").render(title=title, facts=None, names=list(models), cards=cards)
    )
    return write_whole(path, _encoded(html))


# --- computing


def _labelled(questions: Questions) -> list[Mapping[str, Any]]:
    rows = [row for row in questions if row["label"] is not None]
    if not rows:
        raise ValueError(
            "not one question has a label. At least one is needed: report on a split whose answers are known."
        )
    return rows


def _slices(predictions: Predictions, questions: Questions, kind: Callable[[Mapping], str]) -> list[Slice]:
    kinds: dict[str, list[tuple[bool, float]]] = {}
    for row in _labelled(questions):
        correct = row["qid"] in predictions and predictions[row["qid"]]["label"] == row["label"]
        kinds.setdefault(kind(row), []).append((correct, 1 / len(row["choices"])))
    return [
        Slice(name, len(found), sum(correct for correct, _ in found), sum(chance for _, chance in found) / len(found))
        for name, found in kinds.items()
    ]


def _first_word(question: str) -> str:
    letters = re.search(r"[^\W\d_]+", question.lower())
    word = letters[0] if letters else ""
    return word if word in FIRST_WORDS else "other"


def _probabilities(prediction: Mapping[str, Any], row: Mapping[str, Any]) -> np.ndarray:
    """(num_choices,) float64."""
    where, choices = f"prediction for qid {row['qid']!r}", len(row["choices"])
    given = prediction.get("probabilities")
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(math.nan)
    # Rounded ones do not add up to exactly 1; logits do not come near it.
    if values.shape != (choices,) or not ((values >= 0) & (values <= 1)).all() or abs(values.sum() - 1) > 0.02:
        raise ValueError(
            f"{where}: probabilities are {given!r}. {choices} numbers from 0 to 1 that add up to 1 are allowed, one "
            f"for each choice: take the softmax of the logits."
        )
    label, _, _ = check_prediction(prediction, row)
    if values[label] < values.max() - 1e-6:
        raise ValueError(
            f"{where}: label is {label!r}, but the highest probability is that of {int(values.argmax())}. The label "
            f"has to be the place of the highest probability: take both from the same answer."
        )
    return values


def _true_span(row: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if row["start"] is None or row["end"] is None else (row["start"], row["end"])


def _predicted_span(prediction: Mapping[str, Any] | None, row: Mapping[str, Any]) -> tuple[float, float] | None:
    """None where there is no prediction, no span in it, or one that is not finite."""
    _, start, end = check_prediction(prediction, row) if prediction is not None else (None, math.nan, math.nan)
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None


# --- what the templates are given


def _figures(results: Mapping[str, Any], chance: float) -> list[dict[str, Any]]:
    wanted = [
        ("accuracy", "Accuracy", f"chance: {100 * chance:.1f} %"),
        ("miou", "mIoU", "mean overlap of predicted and true span"),
        ("asa", "ASA", "right answer and IoU of at least 0.5"),
    ]
    return [
        {"name": name, "value": results[key], "interval": results["intervals"][key], "note": note}
        for key, name, note in wanted
        if results[key] is not None
    ]


def _span_tables(errors: SpanErrors) -> dict[str, Any]:
    total, located = len(errors.iou), len(errors.start)
    # 0 has a bar of its own: it means that nothing overlaps, not that little does. Lower borders belong to their bar,
    # for ASA counts an IoU of 0.5 as well.
    borders = np.arange(11) / 10
    place = np.where(errors.iou > 0, np.searchsorted(borders[1:-1], errors.iou, side="right") + 1, 0)
    names = ["no overlap", *(f"{low:.1f} to {low + 0.1:.1f}" for low in borders[:-1])]
    iou = [(name, int(number)) for name, number in zip(names, np.bincount(place, minlength=11), strict=True)]
    tables = {
        "good": float((errors.iou >= 0.5).mean()),
        "none": float((errors.iou == 0).mean()),
        "without": total - located,
        "located": located,
        "iou": [{"name": name, "questions": number, "share": number / total} for name, number in iou],
        "errors": [],
    }
    if located:
        low, high = ERROR_BORDERS[0], ERROR_BORDERS[-1]
        names = [f"under {low}", *(f"{first} to {last}" for first, last in pairwise(ERROR_BORDERS)), f"over {high}"]
        shares = [
            np.bincount(np.searchsorted(ERROR_BORDERS, values, side="left"), minlength=len(names)) / located
            for values in (errors.start, errors.end)
        ]
        tables["errors"] = [
            {"name": name, "start": float(start), "end": float(end)}
            for name, start, end in zip(names, *shares, strict=True)
        ]
        for name, values in (("start", errors.start), ("end", errors.end)):
            tables[name] = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return tables


def _card(
    row: Mapping[str, Any],
    answers: list[tuple[str, str, Mapping[str, Any] | None]],
    subtitles: Subtitles | None,
    frames: Frames | None,
) -> dict[str, Any]:
    """One question, and what each model, given by (key, name, prediction), says to it."""
    truth = _true_span(row)
    lanes = [{"key": "T", "name": "true", "span": truth, "is_truth": True, "iou": None}]
    for key, name, prediction in answers:
        span = _predicted_span(prediction, row)
        iou = float(temporal_iou([span], [truth])[0]) if truth and span else None
        lanes.append({"key": key, "name": name, "span": span, "is_truth": False, "iou": iou})
    sentences = _sentences((subtitles(row["clip_id"]) if subtitles else None) or [], lanes)
    length = max([time for entry in [*sentences, *lanes] for time in entry["span"] or ()], default=0.0)
    for entry in (*sentences, *lanes):
        if entry["span"]:
            entry["left"], entry["width"] = _place(entry["span"], length)
    return {
        **{key: row[key] for key in ("qid", "clip_id", "group", "question", "choices", "label")},
        "answers": [_answer(key, name, prediction, row, not sentences) for key, name, prediction in answers],
        "lanes": lanes,
        "has_span": any(lane["span"] for lane in lanes),
        "length": length,
        "sentences": sentences,
        "passages": _passages(sentences),
        "frames": _thumbnails(row["clip_id"], lanes, frames) if frames else [],
    }


def _answer(key: str, name: str, prediction: Mapping | None, row: Mapping, show_evidence: bool) -> dict[str, Any]:
    answer = {"key": key, "name": name, "label": None, "probabilities": None, "evidence": []}
    if prediction is not None:
        answer["probabilities"] = _probabilities(prediction, row).tolist()
        answer["label"] = prediction["label"]
        answer["evidence"] = list(prediction.get("evidence") or []) if show_evidence else []
    return answer


def _sentences(subtitles: Sequence[Mapping[str, Any]], lanes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sentences with the marks of the spans that they overlap."""
    found = []
    for sentence in sorted(subtitles, key=lambda sentence: sentence["start"]):
        start, end = sentence["start"], sentence["end"]
        end = start if end is None else end
        marks = [lane["key"] for lane in lanes if lane["span"] and lane["span"][0] < end and start < lane["span"][1]]
        speaker, text = sentence.get("speaker") or "", sentence["text"]
        found.append({"start": start, "span": (start, end), "speaker": speaker, "text": text, "marks": marks})
    return found


def _passages(sentences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of more than eight sentences, three or more in a row that are in no span and beside none are folded away."""
    marked = [place for place, sentence in enumerate(sentences) if sentence["marks"]]
    near = {place + step for place in marked for step in (-1, 0, 1)}
    passages = []
    for is_near, group in groupby(enumerate(sentences), key=lambda entry: entry[0] in near):
        group = [sentence for _, sentence in group]
        passages.append({"is_folded": not is_near and len(group) > 2 and len(sentences) > 8, "sentences": group})
    return passages


def _place(span: tuple[float, float], length: float) -> tuple[float, float]:
    """Left end and width as shares of the time line; no span becomes too narrow to be seen."""
    left, right = (min(max(time / length, 0.0), 1.0) if length > 0 else 0.0 for time in sorted(span))
    width = max(right - left, 0.006)
    return min(left, 1 - width), width


def _thumbnails(clip_id: str, lanes: list[dict[str, Any]], frames: Frames) -> list[dict[str, Any]]:
    """Pictures from the middle of each span, where there is video; spans with the same middle share one."""
    marks: dict[float, list[str]] = {}
    for lane in lanes:
        if lane["span"]:
            marks.setdefault(max(0.0, sum(lane["span"]) / 2), []).append(lane["key"])
    times = sorted(marks)
    pictures = frames(clip_id, times) if times else None
    if pictures is None:
        return []
    if len(pictures) != len(times) or not all(isinstance(picture, Image.Image | None) for picture in pictures):
        kinds = sorted({type(picture).__name__ for picture in pictures})
        raise ValueError(
            f"frames gave {len(pictures)} of {', '.join(kinds) or 'nothing'} for {len(times)} times of clip "
            f"{clip_id!r}. One PIL image or None for each time is allowed, or None for no video: return a list in the "
            f"order of the times."
        )
    found = []
    for time, picture in zip(times, pictures, strict=True):
        if picture is not None:
            small = picture.convert("RGB")
            small.thumbnail(THUMBNAIL)
            data = io.BytesIO()
            small.save(data, "JPEG", quality=75, optimize=True)
            uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
            found.append({"uri": uri, "width": small.width, "height": small.height, "time": time, "marks": marks[time]})
    return found


# --- writing


def _environment() -> Environment:
    # Autoescape, because questions, names and subtitles come from strangers.
    environment = Environment(
        loader=DictLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["place"] = lambda share: f"{100 * share:.2f}%"  # SVG knows no space before the sign
    environment.filters["seconds"] = lambda time: f"{time:.1f}"
    return environment


def _encoded(html: str) -> bytes:
    # A lone half of a character, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return html.encode("utf-8", errors="replace")
