"""Write a model's scoring network as one ONNX file, check it, and time it beside the model itself.

    python examples/export_onnx.py --model runs/demo/model --output model.onnx

The file takes batches of any shape: the processor's tensors by their names, less `segment_times`. A model with a visual
half gets frames, here of random numbers. Needs: pip install modeling-videoqa[export]
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModelForMultipleChoice

import processing  # noqa: F401 (registers the processor)
from modeling_videoqa.export import export_onnx
from modeling_videoqa.hub import load_processor

QUESTION = "Where does the woman put the letter after she reads it ?"
CHOICES = ["In a drawer", "On the kitchen table", "Into her coat", "In the fire", "Under the blue lamp by the window"]
SENTENCES = (
    "Who is there ?", "It is only me .", "A letter came for you this morning , I left it by the door .", "Thanks .",
    "Do you want some coffee before you read it ?", "No , I have waited for this for a whole year .", "And ?",
    "They want me to start in March .", "Then put it where you will find it again , not in your coat as usual .",
)  # fmt: skip


def example_batch(processor, config, questions: int, segments: int) -> dict:
    """One question asked several times, with and without a part of the dialogue: rows and clips of unequal length."""
    lengths = [max(segments - segments * number // (2 * questions), 1) for number in range(questions)]
    subtitles = [
        [
            {"start": 3.0 * place, "end": 3.0 * place + 2.5, "speaker": "", "text": SENTENCES[place % len(SENTENCES)]}
            for place in range(length)
        ]
        for length in lengths
    ]
    frames = {}
    if config.video_feature_size is not None:
        times = [np.arange(0.5, 3.0 * length, 0.5) for length in lengths]
        draw = np.random.default_rng(0)
        features = [draw.standard_normal((len(part), config.video_feature_size), np.float32) for part in times]
        frames = {"video_features": features, "frame_times": times}
    return processor([QUESTION] * questions, [CHOICES] * questions, subtitles=subtitles, **frames)


def questions_per_second(score: Callable, questions: int, seconds: float) -> float:
    """The best of the passes that fit into so many seconds, after one that is not counted."""
    score()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        score()
        best = min(best, time.perf_counter() - start)
    return questions / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model with its processor")
    parser.add_argument("--output", required=True, help="the .onnx file")
    parser.add_argument("--questions", type=int, default=4, help="in the batch that is timed")
    parser.add_argument("--segments", type=int, default=16, help="subtitle sentences of its longest clip")
    parser.add_argument("--seconds", type=float, default=10.0, help="for timing each of the two")
    args = parser.parse_args()
    try:
        model = AutoModelForMultipleChoice.from_pretrained(args.model, dtype=torch.float32, local_files_only=True)
        processor = load_processor(args.model)
        batch = example_batch(processor, model.config, args.questions, args.segments)
        difference = export_onnx(model, args.output, batch)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"{error}") from error
    print(f"{args.output}: {os.path.getsize(args.output):,} bytes; largest difference of a score {difference:.1e}")

    import onnxruntime  # export_onnx has said what to do where it is missing

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(args.output, options, providers=["CPUExecutionProvider"])
    inputs = {part.name: batch[part.name].numpy() for part in session.get_inputs()}
    with torch.inference_mode():
        eager = questions_per_second(lambda: model(**batch), args.questions, args.seconds)
    graph = questions_per_second(lambda: session.run(None, inputs), args.questions, args.seconds)
    filled = batch["attention_mask"].float().mean().item()
    shape = " x ".join(map(str, batch["input_ids"].shape))
    print(f"questions, choices, segments, tokens: {shape}, {filled:.0%} of which hold a token")
    print(f"{torch.get_num_threads()} threads{'':<13}questions a second")
    for name, rate in (("model, without padding", eager), ("onnxruntime", graph)):
        print(f"{name:<22}{rate:>18.2f}")


if __name__ == "__main__":
    main()
