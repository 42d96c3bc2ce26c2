"""The whole way on a machine without data, weights or network: `make demo`.

Writes the mini corpus, extracts frame features, trains both stages, evaluates on held-out clips, loads the model from
its saved folder, and answers a question about an .mp4 and an .srt. Report: OUTPUT_DIR/report.json.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from common import read_recipe
from train import run
from transformers import AutoModelForMultipleChoice, AutoProcessor, ConvNextImageProcessorPil, ResNetConfig, ResNetModel

from modeling_videoqa.files import write_whole
from processing import FeatureStore, extract_features, load_videoqa
from processing.mini_corpus import NUM_CHOICES, write_mini_corpus
from processing.mini_drawing import BACKGROUND

RECIPE = Path(__file__).parent / "recipes" / "mini.yaml"


def make_backbone() -> tuple[ResNetModel, ConvNextImageProcessorPil]:
    """A small residual network with random weights, since none can be fetched here: enough to tell colours apart."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=32, hidden_sizes=[64], depths=[1], layer_type="basic")
    # Pictures with their usual grey taken off: without biases, what is left of the empty scene is next to nothing.
    grey = {"image_mean": [BACKGROUND / 255] * 3, "image_std": [0.25] * 3}
    return ResNetModel(config).eval(), ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=1.0, **grey)


def ask(folder: Path, corpus: Path, question: dict) -> dict:
    """Load the saved model and answer one question from the clip's two files."""
    model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    video = corpus / "videos" / f"{question['clip_id']}.mp4"
    subtitles = corpus / "tvqa_subtitles" / f"{question['clip_id']}.srt"
    batch = processor(question["question"], question["choices"], subtitles=subtitles, video=video)
    with torch.inference_mode():
        outputs = model(**batch)
    (answer,) = processor.post_process_multiple_choice(outputs, batch, question["choices"], subtitles)
    return {
        "video": str(video),
        "subtitles": str(subtitles),
        "question": question["question"],
        "choices": question["choices"],
        "truth": question["choices"][question["label"]],
        **asdict(answer),
        "evidence": [sentence.line for sentence in answer.evidence],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="runs/demo")
    parser.add_argument("--train_clips", type=int, default=400)
    parser.add_argument("--val_clips", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    output_dir = Path(args.output_dir)
    corpus = write_mini_corpus(output_dir / "corpus", args.train_clips, args.val_clips, seed=args.seed)
    videos = {path.stem: path for path in sorted((corpus / "videos").glob("*.mp4"))}
    backbone, image_processor = make_backbone()
    features = FeatureStore(extract_features(videos, backbone, image_processor, output_dir / "features").directory)
    data = load_videoqa("mini", corpus)
    recipe = read_recipe(RECIPE)
    model_dir = output_dir / "model"
    if (model_dir / "metrics.json").exists():
        print(f"{model_dir} is trained already and is kept: the seconds are of this call. Remove it to train again.")
    metrics = run(recipe, data, features, recipe["inputs"]["full"], args.seed, model_dir, (backbone, image_processor))
    asked = next(row for row in data.questions["validation"] if row["group"] == "frames")
    answered = ask(model_dir, corpus, asked)
    report = {
        "accuracy": metrics["accuracy"],
        "accuracy_by_kind": metrics["accuracy_by_group"],
        "chance": 1 / NUM_CHOICES,
        "miou": metrics["miou"],
        "asa": metrics["asa"],
        "seconds": round(time.perf_counter() - began, 1),
        "answered": answered,
    }
    write_whole(output_dir / "report.json", json.dumps(report, indent=2))
    kinds = "   ".join(f"{kind} {value:.2f}" for kind, value in sorted(report["accuracy_by_kind"].items()))
    print(
        f"\n{len(data.questions['validation'])} questions about {args.val_clips} clips that the model has never seen:"
        f"\n  accuracy {report['accuracy']:.3f} (chance {report['chance']:.2f}):   {kinds}"
        f"\n  where:   mIoU {report['miou']:.3f}, right answer and right place {report['asa']:.3f}"
        f"\n\n{answered['video']}\n  {answered['question']}"
    )
    for choice, probability in zip(answered["choices"], answered["probabilities"], strict=True):
        chosen = "  <- answer" if choice == answered["answer"] else ""
        print(f"    {probability:6.1%}  {choice}{chosen}")
    print(f"  from {answered['start']:.2f} s to {answered['end']:.2f} s: {' / '.join(answered['evidence'])}")
    print(f"\n{report['seconds']:.0f} seconds. Report: {output_dir / 'report.json'}; model: {model_dir}")


if __name__ == "__main__":
    main()
