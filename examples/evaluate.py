"""Evaluate a model, or a file of predictions, on one split; write predictions, a report and the official submissions.

    python examples/evaluate.py --model runs/tvqa_plus/full/seed_0 --data_dir tvqa_plus --split validation \
        --output_dir runs/evaluation --submission tvqa_plus

Prints accuracy by group, mIoU, R@IoU and ASA with 95% intervals. The output folder gets `metrics.json`,
`predictions.jsonl` (a line for each question: probabilities, span in seconds, the sentences in it) and `report.html`.
Without labels there are only predictions and submissions. A folder of train.py knows its data set and inputs; for any
other model give `--data`. On several GPUs: `accelerate launch examples/evaluate.py ...`.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from common import frames_of, model_name, read_yaml, subtitles_of
from transformers import AutoConfig

from modeling_videoqa import VideoQAForMultipleChoice
from modeling_videoqa.files import write_whole
from modeling_videoqa.hub import load_processor
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.quantization import quantize_int8
from modeling_videoqa.report import write_report
from modeling_videoqa.submissions import (
    TVQA_META_FLAGS,
    TVQA_META_KEYS,
    read_predictions,
    write_dramaqa_submission,
    write_predictions,
    write_tvqa_plus_submission,
    write_tvqa_submission,
)
from modeling_videoqa.training import native_bf16, predict
from processing import VideoQADataset, load_videoqa, open_features

PARTS = ("subtitles", "objects", "video")
WITHOUT = ("subtitles", "objects", "labels", "spans", "video")


def trained_on(model_dir: str | None) -> tuple[str | None, dict[str, bool]]:
    """Name of the data set and the inputs of a model that train.py made; for any other no name and all inputs."""
    path = Path(model_dir or ".") / "recipe.yaml"
    if model_dir is None:
        return None, {"subtitles": True, "objects": False, "video": False}  # the sentences are for the report
    if not path.exists():
        return None, dict.fromkeys(PARTS, True)
    recipe = read_yaml(path, "a recipe")
    return recipe["data"], next(iter(recipe["inputs"].values()))


def load_model(folder: str, features, video: bool, device):
    """Model and processor, checked against what they are to be used on; `video`: whether frames are to be seen."""
    try:
        config = AutoConfig.from_pretrained(folder)
    except OSError as error:  # no such model, or none that this token may see
        raise SystemExit(f"{error}") from error
    if config.model_type != "videoqa":
        raise SystemExit(
            f"{folder} holds a model of type {config.model_type!r}. Allowed: 'videoqa'. Name a folder or repository "
            "that examples/train.py or save_pretrained wrote."
        )
    if features is not None and config.video_feature_size is None:
        raise SystemExit(
            f"Features came, but {folder} is a model of text alone. Allowed: a model with video, or no features. "
            "Leave --features out."
        )
    if features is None and video and config.video_feature_size is not None:
        raise SystemExit(
            f"{folder} is a model that sees frames, but no features came. Allowed: --features with those that it was "
            "trained on, or --without video, to evaluate it on the text alone. Give one of the two."
        )
    try:
        processor = load_processor(folder)  # AutoProcessor makes up one of default settings where there is none
    except ValueError as error:
        raise SystemExit(f"{error}") from error
    return VideoQAForMultipleChoice.from_pretrained(folder).to(device), processor


def tell(metrics: Mapping) -> str:
    """The metrics as a table for the terminal."""

    def line(name: str, value: float, interval=None) -> str:
        bounds = f"   [{100 * interval[0]:5.1f}, {100 * interval[1]:5.1f}]" if interval else ""
        return f"{name:<28}{100 * value:6.1f}{bounds}"

    lines = [f"{'%':<28}{'':6}    95% interval by clips"]
    for name in ("accuracy", "miou", "asa"):
        if metrics[name] is not None:
            lines.append(line(name, metrics[name], metrics["intervals"][name]))
    for group, value in metrics["accuracy_by_group"].items():
        lines.append(line(f"accuracy, {group}", value, metrics["intervals_by_group"][group]))
    lines += [line(f"R@{threshold}", value) for threshold, value in (metrics["recall_at_iou"] or {}).items()]
    told = (
        f"{metrics['questions']} questions, {metrics['questions_with_span']} with a span, {metrics['missing']} missing"
    )
    return "\n".join([*lines, told])


def read_meta(entries: list[str]) -> dict:
    """`KEY=VALUE` by key; true and false where the official file has them."""
    meta: dict = {}
    for entry in entries:
        key, _, value = entry.partition("=")
        flag = {"true": True, "false": False}.get(value.lower(), value)
        meta[key] = flag if key in TVQA_META_FLAGS else value
    return meta


def submit(name: str, predictions: dict, data, split: str, folder: Path, meta: dict) -> Path:
    """The official file of a data set, checked against its questions."""
    questions = data.questions[split]
    if name == "tvqa":
        part = {"validation": "val", "test": "test_public"}.get(split, split)
        return write_tvqa_submission(folder / "submission.zip", {part: predictions}, {part: questions}, meta)
    write = {"tvqa_plus": write_tvqa_plus_submission, "dramaqa": write_dramaqa_submission}[name]
    return write(folder / "submission.json", predictions, questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=model_name, help="folder or Hub name of a model and its processor")
    source.add_argument("--predictions", help="a predictions.jsonl instead of a model")
    parser.add_argument("--data", help="name of the data set, where the model does not say it")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--features", help="feature store or file")
    parser.add_argument("--frame_rate", type=float, help="rows a second of a feature file; a store says it itself")
    parser.add_argument("--videos", help="folder of the clips, for pictures in the report")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--int8", action="store_true", help="on the CPU, with the encoder's weights in int8")
    parser.add_argument("--without", nargs="+", default=[], choices=WITHOUT, help="parts that are not at hand")
    parser.add_argument("--counting", default="questions", help="questions, or the official tvqa, tvqa_plus, dramaqa")
    parser.add_argument("--submission", choices=("tvqa", "tvqa_plus", "dramaqa"))
    parser.add_argument(
        "--meta", nargs="*", default=[], metavar="KEY=VALUE", help=f"of TVQA's zip: {', '.join(TVQA_META_KEYS)}"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    PartialState(cpu=not torch.cuda.is_available())  # without a GPU it would not see the other processes
    name, inputs = trained_on(args.model)
    name = args.data or name
    if name is None:
        raise SystemExit(f"{args.model or args.predictions} does not say its data set. Allowed: --data NAME. Give it.")
    inputs = {part: used and part not in args.without for part, used in inputs.items()}
    unused = {part for part in ("subtitles", "objects") if not inputs[part]} | set(args.without) - {"video"}
    data = load_videoqa(name, args.data_dir, splits=(args.split,), **dict.fromkeys(unused, False))
    questions = data.questions[args.split]
    if args.predictions:
        predictions = read_predictions(args.predictions, questions, allow_missing=True)
    else:
        features = open_features(args.features, args.frame_rate) if args.features else None
        device = "cpu" if args.int8 else PartialState().device
        model, processor = load_model(args.model, features, inputs["video"], device)
        inputs["video"] &= features is not None
        parts = {part: inputs[part] for part in ("subtitles", "objects")}
        dataset = VideoQADataset(processor, questions, data.clips, features if inputs["video"] else None, **parts)
        if args.int8:  # its ranges from the first questions: no label of theirs is looked at
            first = [dataset[place] for place in range(min(args.batch_size, len(dataset)))]
            model = quantize_int8(model, processor.pad(first))
        predictions = predict(
            model,
            processor,
            dataset,
            args.batch_size,
            subtitles=dataset.subtitles,
            bf16=native_bf16() and not args.int8,
        )
    if not PartialState().is_main_process:
        return
    folder = Path(args.output_dir)
    write_predictions(folder / "predictions.jsonl", predictions)
    if args.submission:
        meta = read_meta(args.meta)
        print(f"Submission: {submit(args.submission, predictions, data, args.split, folder, meta)}")
    if all(label is None for label in questions["label"]):
        print(f"{len(predictions)} answers, no labels to compare them with: {folder / 'predictions.jsonl'}")
        return
    metrics = evaluate_predictions(predictions, questions, counting=args.counting)
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))
    print(tell(metrics))
    if not all(prediction.get("probabilities") for prediction in predictions.values()):
        print("No report: it needs the probabilities of each answer, and these predictions have none.")
        return
    page = write_report(
        folder / "report.html",
        predictions,
        questions,
        subtitles=subtitles_of(data),
        frames=frames_of(args.videos) if args.videos else None,
        title=f"{name}, {args.split}",
        facts={
            "model": args.model or args.predictions,
            "data": args.data_dir,
            "inputs": ", ".join(filter(inputs.get, PARTS)),
        },
    )
    print(f"Report: {page}")


if __name__ == "__main__":
    main()
