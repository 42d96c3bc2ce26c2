"""The metrics as modules of the `evaluate` package, for code that adds batches and computes at the end.

They are classes to make instances of, not names for `evaluate.load`, which asks the network. The numbers are those of
`metrics.py`; intervals and official countings need the table of questions, and are in `evaluate_predictions`.
"""

import math
from typing import Any

import evaluate
from datasets import Features, List, Value

from .metrics import (
    IOU_THRESHOLDS,
    accuracy,
    accuracy_by_group,
    answer_span_accuracy,
    recall_at_iou,
    temporal_iou,
)

CHOICE, SPAN = Value("int64"), List(Value("float64"), length=2)
CITATION = """\
@inproceedings{lei-etal-2020-tvqa,
    title = "{TVQA}+: Spatio-Temporal Grounding for Video Question Answering",
    author = "Lei, Jie and Yu, Licheng and Berg, Tamara and Bansal, Mohit",
    booktitle = "Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics",
    year = "2020"
}"""


class AnswerAccuracy(evaluate.Metric):
    """Share of right answers; `AnswerAccuracy("by_group")` takes the column `groups` too, and splits by it.

    Args:
        config_name: "default" or "by_group".
        kwargs: those of `evaluate.Metric`, such as `keep_in_memory`.

    Raises:
        ValueError: another config_name.

    Example:
        >>> metric = AnswerAccuracy("by_group", keep_in_memory=True)
        >>> metric.add_batch(predictions=[0, 4], references=[0, 4], groups=["house", "castle"])
        >>> metric.add_batch(predictions=[2, -1], references=[1, 3], groups=["house", "castle"])
        >>> metric.compute()
        {'accuracy': 0.5, 'accuracy_by_group': {'castle': 0.5, 'house': 0.5}}
    """

    def __init__(self, config_name: str | None = None, **kwargs: Any):
        if config_name not in (None, "default", "by_group"):
            raise ValueError(
                f"config_name is {config_name!r}. 'default' and 'by_group' are allowed: take 'by_group' to add the "
                f"group of each question."
            )
        super().__init__(config_name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": CHOICE, "references": CHOICE}
        if self.config_name == "by_group":
            columns["groups"] = Value("string")
        return _info(
            "Share of the questions whose predicted choice is the right one, overall and by group.",
            "predictions, references: places of the choices from 0; -1 for no prediction. groups: with 'by_group'.",
            columns,
        )

    def _compute(
        self, predictions: list[int], references: list[int], groups: list[str] | None = None
    ) -> dict[str, Any]:
        figures: dict[str, Any] = {"accuracy": accuracy(predictions, references)}
        if groups is not None:
            figures["accuracy_by_group"] = accuracy_by_group(predictions, references, groups)
        return figures


class TemporalIoU(evaluate.Metric):
    """Mean IoU of time spans, and the share of spans that reach an IoU of 0.1 to 0.9.

    Example:
        >>> metric = TemporalIoU(keep_in_memory=True)
        >>> metric.add_batch(predictions=[[2.0, 6.0], None], references=[[3.0, 6.0], [0.0, 4.0]])
        >>> figures = metric.compute()
        >>> figures["miou"], figures["recall_at_iou"]["0.7"], figures["recall_at_iou"]["0.8"]
        (0.375, 0.5, 0.0)
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "Mean intersection over union of time spans (mIoU) and R@IoU.",
            "predictions, references: [start, end] in seconds; None, or NaN twice, for no predicted span.",
            {"predictions": SPAN, "references": SPAN},
        )

    def _compute(self, predictions: list[list[float] | None], references: list[list[float]]) -> dict[str, Any]:
        iou = temporal_iou(_filled(predictions), references)
        recalls = recall_at_iou(iou).values()
        return {
            "miou": float(iou.mean()),
            "recall_at_iou": dict(zip(map(str, IOU_THRESHOLDS), recalls, strict=True)),
        }


class AnswerSpanAccuracy(evaluate.Metric):
    """Share of the questions with the right answer and a span of IoU 0.5 or more (ASA).

    Example:
        >>> metric = AnswerSpanAccuracy(keep_in_memory=True)
        >>> spans = [[2.0, 6.0], [2.0, 6.0]]
        >>> metric.add_batch(predictions=[0, 1], references=[0, 2], predicted_spans=spans, true_spans=spans)
        >>> metric.compute()
        {'asa': 0.5}
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "Share of the questions with the right choice and a span that overlaps the true one well enough.",
            "predictions, references: places of the choices from 0; -1 for no prediction. predicted_spans, true_spans: "
            "[start, end] in seconds; None, or NaN twice, for no predicted span. compute(threshold=0.5) takes another.",
            {"predictions": CHOICE, "references": CHOICE, "predicted_spans": SPAN, "true_spans": SPAN},
        )

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        predicted_spans: list[list[float] | None],
        true_spans: list[list[float]],
        threshold: float = 0.5,
    ) -> dict[str, float]:
        iou = temporal_iou(_filled(predicted_spans), true_spans)
        return {"asa": answer_span_accuracy(predictions, references, iou, threshold)}


def _info(description: str, inputs: str, columns: dict[str, Any]) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation=CITATION,
        inputs_description=inputs,
        features=Features(columns),
        reference_urls=["https://github.com/jayleicn/TVQAplus"],
    )


def _filled(spans: list[list[float] | None]) -> list[list[float]]:
    return [[math.nan, math.nan] if span is None else span for span in spans]
