"""Train and evaluate by a recipe, every seed and every variant of the input; prints one table.

    python examples/train.py --recipe examples/recipes/tvqa_plus_text.yaml --data_dir ../shared/real/tvqa_plus \
        --output_dir runs/tvqa_plus --seeds 0 1 2

Leaves a folder for each run, with model, processor, metrics and log, and `results.json` over all of them. A run that
was interrupted goes on from its last checkpoint; one that is finished is not done again.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from common import check_recipe, load_backbone, read_recipe, resolve_text_encoder, summary
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from modeling_videoqa import VideoQAForMultipleChoice
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.training import answer_accuracy, log_loss_parts, native_bf16, parameter_groups, predict
from processing import EpochCallback, VideoQACollator, VideoQADataset, VideoQAProcessor, load_videoqa, open_features


def train_stage(model, processor, datasets, stage: dict, folder: Path, seed: int) -> Trainer:
    """One stage with the stock Trainer; goes on from the last checkpoint where there is one."""
    collator = VideoQACollator(
        processor,
        contrastive=model.config.contrastive_loss_weight > 0,
        question_pool=datasets["train"].question_pool() if stage.get("swap_questions") else None,
        seed=seed,
    )
    settings = {
        "logging_steps": 20, "save_strategy": "epoch", "save_total_limit": 1, "report_to": "none",
        "bf16": native_bf16(), "use_cpu": not torch.cuda.is_available(),
        "lr_scheduler_type": "linear", "warmup_steps": 0.1, "remove_unused_columns": False, "label_names": ["labels"],
        "seed": seed, "data_seed": seed, **stage["training"],
    }  # fmt: skip
    args = TrainingArguments(output_dir=str(folder), **settings)
    optimizer = None  # Trainer's own, unless what is new in the model has a learning rate of its own
    if "head_learning_rate" in stage:
        groups = parameter_groups(model, args.learning_rate, stage["head_learning_rate"])
        optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    trainer = Trainer(
        model=model,
        args=args,
        optimizers=(optimizer, None),
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        data_collator=collator,
        compute_metrics=answer_accuracy,
        callbacks=[EpochCallback(collator)],
    )
    log_loss_parts(trainer)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.exists() else None)
    return trainer


def run(recipe: dict, data, features, inputs: dict, seed: int, folder: Path, vision=(None, None)) -> dict:
    """Both stages and the evaluation of one seed."""
    if (folder / "metrics.json").exists():
        return json.loads((folder / "metrics.json").read_text())
    began = time.perf_counter()
    set_seed(seed)
    encoder = resolve_text_encoder(recipe["text_encoder"])
    if inputs["video"]:
        fields = {**recipe["model"], "vision_model": vision[0]}
    else:  # a model without the visual half, rather than one that is never used
        fields, vision = {**recipe["model"], "video_feature_size": None}, (None, None)
    model = VideoQAForMultipleChoice.from_text_encoder(encoder, text_config=recipe.get("text_config"), **fields)
    processor = VideoQAProcessor.from_config(model.config, encoder, frame_preprocessing=vision[1])
    parts = {name: inputs[name] for name in ("subtitles", "objects")}
    datasets = {
        split: VideoQADataset(processor, rows, data.clips, features if inputs["video"] else None, **parts)
        for split, rows in data.questions.items()
    }
    for name, stage in recipe["stages"].items():
        trainer = train_stage(model, processor, datasets, stage, folder / name, seed)
        (folder / f"log_{name}.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    minutes = (time.perf_counter() - began) / 60
    predictions = predict(model, processor, datasets["validation"])
    metrics = evaluate_predictions(predictions, data.questions["validation"]) | {"minutes": round(minutes, 2)}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "predictions.json").write_text(json.dumps(predictions))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--features", help="feature store or file; without it the model sees no frames")
    parser.add_argument("--frame_rate", type=float, help="rows a second of a feature file; a store says it itself")
    parser.add_argument("--backbone", help="keep this vision backbone in the models, so that they take video too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the loaders tell what they found
    recipe = read_recipe(args.recipe)
    # What no input of the recipe reads need not be there.
    unused = {part: False for part in ("subtitles", "objects") if not any(i[part] for i in recipe["inputs"].values())}
    data = load_videoqa(recipe["data"], args.data_dir, **unused)
    features = open_features(args.features, args.frame_rate) if args.features else None
    check_recipe(recipe, data, features)
    vision = load_backbone(args.backbone, features) if args.backbone else (None, None)
    output_dir = Path(args.output_dir)
    results = {
        name: [
            run(recipe, data, features, inputs, seed, output_dir / name / f"seed_{seed}", vision) for seed in args.seeds
        ]
        for name, inputs in recipe["inputs"].items()
    }
    (output_dir / "results.json").write_text(json.dumps(results, indent=1))
    print(summary(results))


if __name__ == "__main__":
    main()
