"""Values worked out by hand, the laws of an IoU and of intervals, and the same numbers by loops without numpy."""

import doctest
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_videoqa import metrics
from modeling_videoqa.metrics import (
    accuracy,
    accuracy_by_group,
    answer_span_accuracy,
    clip_bootstrap,
    evaluate_predictions,
    paired_clip_test,
    recall_at_iou,
    temporal_iou,
)
from processing.loaders.tvqa_plus import load_tvqa_plus

seconds = st.floats(0, 300, allow_subnormal=False)
spans = st.tuples(seconds, seconds).map(sorted)


def question(qid, label=0, start=None, end=None, group="house", clip_id=None):
    choices = ["a", "b", "c", "d", "e"]
    return {
        "qid": qid, "clip_id": clip_id or f"clip {qid}", "choices": choices, "label": label, "start": start, "end": end,
        "group": group,
    }  # fmt: skip


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
    result = evaluate_predictions(predictions, rows)
    for name, (low, high) in result.pop("intervals").items():
        assert 0 <= low < result[name] < high <= 1
    by_group = result.pop("intervals_by_group")
    assert by_group["castle"] == [0.0, 0.0]  # a single question
    assert 0 <= by_group["house"][0] < 0.75 < by_group["house"][1] <= 1
    assert by_group.keys() == {"castle", "house"}
    assert result == {
        "accuracy": 0.6,
        "accuracy_by_group": {"castle": 0.0, "house": 0.75},
        "miou": 0.375,
        "asa": 0.25,
        "recall_at_iou": {f"0.{tenth}": 0.5 if tenth <= 5 else 0.25 for tenth in range(1, 10)},
        "questions": 5,
        "questions_with_span": 4,
        "missing": 1,
    }


def test_without_any_true_span_there_is_no_miou():
    result = evaluate_predictions({"1": {"label": 0}}, iter([question("1")]))
    assert (result["miou"], result["asa"], result["questions_with_span"]) == (None, None, 0)
    assert result["recall_at_iou"] is None
    assert result["intervals"] == {"accuracy": [1.0, 1.0], "miou": None, "asa": None}


def test_no_prediction_at_all_is_all_wrong():
    result = evaluate_predictions({}, [question("1", 0, 1.0, 2.0)])
    assert (result["accuracy"], result["miou"], result["asa"], result["missing"]) == (0.0, 0.0, 0.0, 1)


def test_recall_counts_what_reaches_the_threshold_exactly():
    assert recall_at_iou([0.3, 0.7, 0.0, 1.0]) == {
        0.1: 0.75, 0.2: 0.75, 0.3: 0.75, 0.4: 0.5, 0.5: 0.5, 0.6: 0.5, 0.7: 0.5, 0.8: 0.25, 0.9: 0.25
    }  # fmt: skip
    assert recall_at_iou([0.2, 0.6], thresholds=[0.6, 0]) == {0.6: 0.5, 0.0: 1.0}


# --- the official countings


def test_the_counting_of_tvqa_plus_runs_over_the_predictions():
    rows = [
        question("1", 0, 0.0, 10.0, clip_id="x"),  # right, IoU 0.3: short of numpy's third threshold
        question("2", 1, 0.0, 10.0, clip_id="x"),  # wrong, IoU 1
        question("3", 2, None, None, clip_id="y"),  # right; a span of zero length, which the loader empties
        question("4", 3, 0.0, 10.0, clip_id="z"),  # left out
    ]
    predictions = {
        "1": {"label": 0, "start": 0.0, "end": 3.0},
        "2": {"label": 0, "start": 0.0, "end": 10.0},
        "3": {"label": 2, "start": 5.0, "end": 5.0},
    }
    result = evaluate_predictions(predictions, rows, counting="tvqa_plus")
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["miou"] == pytest.approx(1.3 / 3)
    assert result["asa"] == 0.0
    assert (result["questions"], result["questions_with_span"], result["missing"]) == (3, 3, 1)
    assert result["recall_at_iou"]["0.2"] == pytest.approx(2 / 3)
    assert result["recall_at_iou"]["0.3"] == result["recall_at_iou"]["0.9"] == pytest.approx(1 / 3)
    assert result["intervals"]["accuracy"] == [0.5, 1.0]  # of x alone, and of y alone
    ours = evaluate_predictions(predictions, rows)
    assert (ours["accuracy"], ours["miou"]) == (0.5, pytest.approx(1.3 / 3))
    assert ours["recall_at_iou"]["0.3"] == pytest.approx(2 / 3)
    without = [row | {"start": None, "end": None} for row in rows]
    assert evaluate_predictions(predictions, without, counting="tvqa_plus")["miou"] is None


def test_the_counting_of_tvqa_divides_by_the_predictions():
    rows = [question("1", 0, 0.0, 4.0), question("2", 1), question("3", 2, 0.0, 4.0)]
    result = evaluate_predictions({"1": {"label": 0, "start": 0, "end": 2}, "2": {"label": 0}}, rows, counting="tvqa")
    assert (result["accuracy"], result["miou"], result["questions"], result["missing"]) == (0.5, 0.5, 2, 1)


def test_the_counting_of_dramaqa_needs_every_question_and_passes_over_others():
    rows = [question("1", 0, group="1"), question("2", 1, group="3"), question("3", 1, group="3")]
    predictions = {"1": {"label": 4}, "2": {"label": 1}, "3": {"label": 1}, "9": {"label": "no place"}}
    result = evaluate_predictions(predictions, rows, counting="dramaqa")
    assert result["accuracy_by_group"] == {"1": 0.0, "3": 1.0}
    assert result["accuracy"] == pytest.approx(2 / 3)  # the micro average
    assert result["missing"] == 0


@pytest.mark.parametrize("emptied", [True, False])
def test_perfect_predictions_for_all_of_tvqa_plus_get_the_number_of_the_official_readme(emptied):
    truth = {str(qid): (qid % 5, 1.0, 5.0 + qid % 3) for qid in range(3015)}
    truth |= dict.fromkeys(("136018", "130879"), (2, 4.0, 4.0))
    rows = [question(qid, *known, clip_id=str(place % 431)) for place, (qid, known) in enumerate(truth.items())]
    if emptied:
        rows = [row | {"start": None, "end": None} if row["start"] == row["end"] else row for row in rows]
    predictions = {qid: dict(zip(("label", "start", "end"), known, strict=True)) for qid, known in truth.items()}
    result = evaluate_predictions(predictions, rows, counting="tvqa_plus")
    assert result["accuracy"] == 1.0
    assert result["miou"] == result["asa"] == 3015 / 3017
    low, high = result["intervals"]["asa"]
    assert low < 3015 / 3017 <= high == 1.0
    assert evaluate_predictions(predictions, rows)["miou"] == (1.0 if emptied else 3015 / 3017)


def test_the_released_files_as_the_official_script_counts_them(real):
    folder = real / "tvqa_plus"
    tables = load_tvqa_plus(folder, subtitles=False, objects=False).questions
    rows = [row for table in tables.values() for row in table]
    records = [
        record
        for split in ("train", "val")
        for record in json.loads((folder / f"tvqa_plus_{split}.json").read_text(encoding="utf-8"))
    ]
    truth = {record["qid"]: [record["ts"], int(record["answer_idx"])] for record in records}
    empty = [qid for qid, ((start, end), _) in truth.items() if start == end]
    assert len(truth) == len(rows) == 2464
    assert empty == [136018]  # the other span of zero length, of 130879, is not among these clips
    perfect = {str(qid): {"label": label, "start": start, "end": end} for qid, ((start, end), label) in truth.items()}
    result = evaluate_predictions(perfect, rows, counting="tvqa_plus")
    assert result["accuracy"] == 1.0
    assert result["miou"] == result["asa"] == 2463 / 2464
    rng = random.Random(0)
    some = {}
    for qid in rng.sample(sorted(truth), 2000):
        (start, end), label = truth[qid]
        start, end = round(start + rng.uniform(-3, 3), 1), round(end + rng.uniform(-3, 3), 1)
        some[str(qid)] = {"label": rng.choice([label, 0]), "start": start, "end": end}
    result = evaluate_predictions(some, rows, counting="tvqa_plus")
    expected = official_tvqa_plus(some, truth)
    assert {key: result[key] for key in ("accuracy", "miou", "asa", "recall_at_iou")} == expected


# --- the same numbers by loops, without numpy


def iou_by_hand(prediction, start, end):
    if prediction.get("start") is None:
        return 0.0
    first, last = prediction["start"], prediction["end"]
    both = min(last, end) - max(first, start)
    return both / (max(last, end) - min(first, start)) if both > 0 else 0.0


def official_tvqa_plus(predictions, truth):
    """What the official script computes; `truth` is {int: [[start, end], label]}, as it reads it."""
    right, ious = [], []
    for qid, prediction in predictions.items():
        (start, end), label = truth[int(qid)]
        right.append(prediction["label"] == label)
        ious.append(iou_by_hand(prediction, start, end))
    recalls = {}
    for tenth in range(1, 10):
        threshold = 0.1 + (tenth - 1) * 0.1  # how np.arange makes its numbers
        recalls[f"0.{tenth}"] = sum(iou >= threshold for iou in ious) / len(ious)
    joint = sum(ok and iou >= 0.5 for ok, iou in zip(right, ious, strict=True))
    return {
        "accuracy": sum(right) / len(right),
        "miou": pytest.approx(sum(ious) / len(ious), abs=1e-12),
        "asa": joint / len(right),
        "recall_at_iou": recalls,
    }


def random_case(seed, labelled=0.9):
    """Rows, and predictions for most of them; times on a coarse grid, so that thresholds are met exactly."""
    rng, rows, predictions = random.Random(seed), [], {}
    for number in range(300):
        label = rng.randrange(5) if rng.random() < labelled else None
        start = rng.choice([None, rng.randrange(10)])
        end = None if start is None else start + rng.randrange(1, 11)
        group, clip_id = rng.choice(["house", "castle", "bbt"]), f"clip {rng.randrange(40)}"
        rows.append(question(str(number), label, start, end, group, clip_id))
        if rng.random() < 0.9:
            span = rng.choice([(None, None), (rng.randrange(20), rng.randrange(20)), (start, end)])
            predictions[str(number)] = {"label": rng.randrange(2) or label or 0, "start": span[0], "end": span[1]}
    return rows, predictions


@pytest.mark.parametrize("seed", range(3))
def test_loops_give_the_same_numbers(seed):
    rows, predictions = random_case(seed)
    right, ious, joint, groups = [], [], [], {}
    for row in rows:
        if row["label"] is None:
            continue
        prediction = predictions.get(row["qid"], {})
        ok = prediction.get("label") == row["label"]
        right.append(ok)
        groups.setdefault(row["group"], []).append(ok)
        if row["start"] is not None:
            ious.append(iou_by_hand(prediction, row["start"], row["end"]))
            joint.append(ok and ious[-1] >= 0.5)
    result = evaluate_predictions(predictions, rows)
    assert result["accuracy"] == sum(right) / len(right)
    assert result["accuracy_by_group"] == {group: sum(oks) / len(oks) for group, oks in sorted(groups.items())}
    assert result["miou"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    assert result["asa"] == sum(joint) / len(joint)
    assert (result["questions"], result["questions_with_span"]) == (len(right), len(ious))
    for threshold, share in result["recall_at_iou"].items():
        assert share == sum(iou >= float(threshold) for iou in ious) / len(ious)
    assert json.loads(json.dumps(result)) == result
    assert (
        evaluate_predictions(predictions, random.Random(1).sample(rows, len(rows)))["intervals"]
        == (result["intervals"])
    )


@pytest.mark.parametrize("seed", range(3))
def test_loops_give_the_same_numbers_in_the_official_countings(seed):
    rows, predictions = random_case(seed, labelled=1)
    by_qid = {row["qid"]: row for row in rows}
    right = [by_qid[qid]["label"] == prediction["label"] for qid, prediction in predictions.items()]
    assert evaluate_predictions(predictions, rows, counting="tvqa")["accuracy"] == sum(right) / len(right)
    truth = {int(row["qid"]): [(row["start"] or 0, row["end"] or 0), row["label"]] for row in rows}
    result = evaluate_predictions(predictions, rows, counting="tvqa_plus")
    expected = official_tvqa_plus(predictions, truth)
    assert {key: result[key] for key in ("accuracy", "miou", "asa", "recall_at_iou")} == expected
    answered = [row for row in rows if row["qid"] in predictions]
    levels = {}
    for row in answered:
        levels.setdefault(row["group"], []).append(predictions[row["qid"]]["label"] == row["label"])
    result = evaluate_predictions(predictions, answered, counting="dramaqa")
    assert result["accuracy_by_group"] == {level: sum(oks) / len(oks) for level, oks in levels.items()}
    assert result["accuracy"] == sum(right) / len(right)


# --- intervals and tests over clips


def clustered(num_clips, per_clip, spread, seed=0):
    """Right or wrong, with a probability that differs from clip to clip by `spread`; and the clips."""
    rng = np.random.default_rng(seed)
    probability = np.clip(0.5 + spread * rng.choice([-1, 1], num_clips), 0, 1)
    return probability > rng.random((num_clips, per_clip)).T, np.tile(np.arange(num_clips), (per_clip, 1))


def width(interval):
    return interval[1] - interval[0]


def test_an_interval_depends_on_the_seed_and_not_on_the_order():
    rng = np.random.default_rng(0)
    values, clips = rng.random(500) / 3, rng.integers(60, size=500).astype(str)
    interval = clip_bootstrap(values, clips)
    order = rng.permutation(500)
    assert clip_bootstrap(values, clips) == clip_bootstrap(values[order], clips[order]) == interval
    assert clip_bootstrap(values, clips, seed=1) != interval
    assert interval[0] < values.mean() < interval[1]
    assert width(clip_bootstrap(values, clips, confidence=0.8)) < width(interval)


def test_clips_with_more_questions_weigh_more():
    # Two clips of 1 and 3 questions: a draw is the first twice, the second twice, or all four questions.
    assert clip_bootstrap([1, 0, 0, 0], ["a", "b", "b", "b"], confidence=0.4) == (0.25, 0.25)
    assert clip_bootstrap([1, 0, 0, 0], ["a", "b", "b", "b"], confidence=0.9) == (0.0, 1.0)
    assert clip_bootstrap([True, False], ["a", "a"]) == (0.5, 0.5)  # one clip


def test_more_clips_make_an_interval_narrower_and_clusters_make_it_wider():
    few, many = clustered(50, 7, 0.0), clustered(800, 7, 0.0)
    assert 3 < width(clip_bootstrap(few[0].ravel(), few[1].ravel())) / width(
        clip_bootstrap(many[0].ravel(), many[1].ravel())
    ) < 5  # fmt: skip
    values, clips = clustered(300, 7, 0.4)
    by_clip, by_question = (
        width(clip_bootstrap(values.ravel(), names)) for names in (clips.ravel(), range(values.size))
    )
    # The variance of a mean of 7 answers grows by 1 + 6 * 0.16 / 0.25.
    assert by_clip / by_question == pytest.approx(math.sqrt(1 + 6 * 0.64), rel=0.15)


def test_a_large_example_agrees_with_the_normal_approximation():
    values, clips = clustered(2000, 7, 0.2)
    interval = clip_bootstrap(values.ravel(), clips.ravel())
    error = values.mean(axis=0).std(ddof=1) / math.sqrt(2000)
    assert interval == pytest.approx(
        (values.mean() - 1.959964 * error, values.mean() + 1.959964 * error), abs=0.05 * error
    )


def test_a_paired_test_by_hand():
    # Of 2^3 signs, 2 give a sum as far from 0 as 1 + 1 + 1.
    difference, interval, p_value = paired_clip_test([0, 0, 0], [1, 1, 1], ["a", "b", "c"])
    assert (difference, interval) == (1.0, (1.0, 1.0))
    assert p_value == pytest.approx(0.25, abs=0.02)
    # One clip has both questions: nothing but its own sign can be turned.
    assert paired_clip_test([0, 0], [1, 1], ["a", "a"]).p_value == 1.0
    # 3 against 1: the signs ++, +-, -+ and -- give 4, 2, -2 and -4.
    assert paired_clip_test([0] * 4, [1, 1, 1, -1], ["a", "a", "a", "b"]).p_value == 1.0
    assert paired_clip_test([0, 1, 0], [0, 1, 0], ["a", "b", "c"]) == (0.0, (0.0, 0.0), 1.0)


def test_a_paired_test_of_means_over_seeds_counts_ties():
    # Of the 16 signs of 2, 3, 3 and 1, 12 give a sum as far from 0 as 2 - 3 - 3 + 1, 5 of them but for rounding.
    first, second = [0, 1, 1, 0], [2 / 3, 0, 0, 1 / 3]
    assert paired_clip_test(first, second, "abcd").p_value == pytest.approx(0.75, abs=0.02)
    first, second = [1 / 3, 2 / 3, 0], [2 / 3, 1, 1 / 3]
    assert paired_clip_test(first, second, "abc").p_value == pytest.approx(0.25, abs=0.02)


def test_a_paired_test_finds_a_difference_and_not_chance():
    rng = np.random.default_rng(0)
    clips = np.repeat(np.arange(200), 7)
    first = rng.random(1400) < 0.5
    better = first | (rng.random(1400) < 0.1)
    found = paired_clip_test(first, better, clips)
    assert found.difference == pytest.approx(better.mean() - first.mean())
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    assert found.p_value == 1 / 10_001
    order = rng.permutation(1400)
    assert paired_clip_test(first[order], better[order], clips[order]) == found
    turned = paired_clip_test(better, first, clips)
    assert turned.difference == -found.difference
    assert turned.p_value == found.p_value


def test_without_a_difference_p_is_uniform():
    rng = np.random.default_rng(0)
    clips = np.repeat(np.arange(40), 5)
    shift = rng.normal(size=(200, 40)).repeat(5, axis=1)  # the questions of a clip go the same way
    p_values = [paired_clip_test(np.zeros(200), row, clips, num_samples=400).p_value for row in shift]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(np.array(p_values) <= 0.5) == pytest.approx(0.5, abs=0.1)


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
        (lambda: recall_at_iou([]), "at least one question"),
        (lambda: recall_at_iou([[0.5]]), "temporal_iou"),
        (lambda: clip_bootstrap([], []), "at least one question"),
        (lambda: clip_bootstrap([1, 0], ["a"]), "clip_id"),
        (lambda: clip_bootstrap([1, math.nan], ["a", "b"]), "1 values are not finite"),
        (lambda: clip_bootstrap([1], ["a"], num_samples=0), "num_samples is 0"),
        (lambda: clip_bootstrap([1], ["a"], confidence=95), "0.95 is usual"),
        (lambda: paired_clip_test([1, 0], [1], ["a", "b"]), "same order"),
        (lambda: paired_clip_test([1, 0], [1, 1], ["a"]), "clip_id"),
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
        (lambda: evaluate_predictions({}, [question("1") | {"clip_id": None}]), "no 'clip_id'.*'1'"),
        (lambda: evaluate_predictions({}, [question("1")], counting="official"), "'tvqa_plus', 'dramaqa'"),
        (lambda: evaluate_predictions({}, [question("1")], counting="tvqa"), "not one question has a prediction"),
        (
            lambda: evaluate_predictions({"1": {"label": 0}, "2": {"label": 0}}, [question("1")], counting="tvqa_plus"),
            "unknown questions.*'2'",
        ),
        (
            lambda: evaluate_predictions({"1": {"label": 0}}, [question("1", None), question("2")], counting="tvqa"),
            "1 of 1 questions have no label",
        ),
        (
            lambda: evaluate_predictions({"1": {"label": 0}}, [question("1"), question("2")], counting="dramaqa"),
            "1 of 2 questions have no prediction.*'2'",
        ),
        (
            lambda: evaluate_predictions({"1": {"label": 0}}, [question("1", None)], counting="dramaqa"),
            "no label.*counting='dramaqa'",
        ),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()
