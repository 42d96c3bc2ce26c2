"""Train and evaluate by a recipe, every seed and every variant of the input; prints one table.

    python examples/train.py --recipe examples/recipes/tvqa_plus_text.yaml --data_dir ../shared/real/tvqa_plus \
        --output_dir runs/tvqa_plus --seeds 0 1 2

Any field of `TrainingArguments` may follow and holds for every stage, such as `--learning_rate 1e-4 --report_to
tensorboard`. On several GPUs: `accelerate launch examples/train.py ...`; a recipe's `batch_size` is that of all of them
together. Each run leaves a folder with model, processor, metrics, predictions, logs, its exact recipe and the versions,
and there is `results.json` over all of them. A run that was interrupted goes on from its last checkpoint; one that is
finished is not done again. With `lora` in the recipe the text encoder is trained by adapters, which stand in `adapter/`
and are merged into the model of the run.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from accelerate import PartialState
from common import (
    begin_run,
    check_recipe,
    load_backbone,
    read_recipe,
    resolve_text_encoder,
    summary,
    training_overrides,
    with_overrides,
)
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

from modeling_videoqa import VideoQAForMultipleChoice
from modeling_videoqa.adapters import add_adapters, merge_adapters, save_adapters
from modeling_videoqa.files import write_whole
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.submissions import write_predictions
from modeling_videoqa.training import (
    answer_accuracy,
    log_hypothesis_distances,
    log_loss_parts,
    native_bf16,
    parameter_groups,
    predict,
    unsharded,
)
from processing import EpochCallback, VideoQACollator, VideoQADataset, VideoQAProcessor, load_videoqa, open_features

logger = logging.getLogger(__name__)


def training_arguments(stage: dict, folder: Path, seed: int) -> TrainingArguments:
    """The stage's own settings over our defaults; `batch_size` is shared out over processes and accumulation steps."""
    main_stage = not stage.get("swap_questions")
    settings = {
        "logging_steps": 20, "save_strategy": "epoch", "report_to": "none", "bf16": native_bf16(),
        "use_cpu": not torch.cuda.is_available(), "lr_scheduler_type": "linear", "warmup_steps": 0.1,
        "remove_unused_columns": False, "label_names": ["labels"], "seed": seed, "data_seed": seed,
        "save_total_limit": 1, "eval_strategy": "epoch" if main_stage else "no",
        # The checkpoint with the best accuracy is kept, not the last one; stage 1 has no accuracy that matters.
        "load_best_model_at_end": main_stage, "metric_for_best_model": "accuracy",
        **stage["training"],
    }  # fmt: skip
    if "batch_size" in stage and "per_device_train_batch_size" not in settings:
        shares = PartialState().num_processes * settings.get("gradient_accumulation_steps", 1)
        if stage["batch_size"] % shares:
            raise SystemExit(
                f"batch_size {stage['batch_size']} cannot be shared by {shares} processes and accumulation steps. "
                f"Allowed: a multiple of {shares}. Change batch_size in the recipe or the number of processes."
            )
        settings["per_device_train_batch_size"] = stage["batch_size"] // shares
    return TrainingArguments(output_dir=str(folder), **settings)


class Stopwatch(TrainerCallback):
    """
    Minutes of a run, with those of killed processes before it up to the checkpoint from which it goes on.

    Args:
        path: where they are noted with each checkpoint.
    """

    def __init__(self, path: Path):
        self.path, self.began = path, time.perf_counter()
        self.before = json.loads(path.read_text()) if path.exists() else 0.0

    def minutes(self) -> float:
        return self.before + (time.perf_counter() - self.began) / 60

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            write_whole(self.path, json.dumps(self.minutes()))


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: a killed run may leave half of one."""
    whole = []
    for path in folder.glob("checkpoint-*/trainer_state.json"):  # the last file of a checkpoint
        try:
            whole.append((json.loads(path.read_text())["global_step"], str(path.parent)))
        except ValueError:
            continue
    return max(whole)[1] if whole else None


def train_stage(model, processor, datasets, stage: dict, folder: Path, seed: int, watch: Stopwatch) -> Trainer:
    """One stage with the stock Trainer; goes on from the last checkpoint where there is one."""
    collator = VideoQACollator(
        processor,
        contrastive=model.config.contrastive_loss_weight > 0,
        question_pool=datasets["train"].question_pool() if stage.get("swap_questions") else None,
        seed=seed,
    )
    args = training_arguments(stage, folder, seed)
    optimizer = None  # Trainer's own, unless what is new in the model has a learning rate of its own
    if "head_learning_rate" in stage:
        groups = parameter_groups(model, args.learning_rate, stage["head_learning_rate"])
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
        optimizer = kind, {**settings, "params": groups, "weight_decay": args.weight_decay}
    trainer = Trainer(
        model=model,
        args=args,
        optimizer_cls_and_kwargs=optimizer,
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        data_collator=collator,
        compute_metrics=answer_accuracy,
        callbacks=[EpochCallback(collator), watch],
    )
    log_loss_parts(trainer)
    log_hypothesis_distances(trainer)
    checkpoint = last_checkpoint(folder)
    state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json") if checkpoint else None
    if state and state.global_step >= state.max_steps:  # Trainer would take one more step
        kept = state.best_model_checkpoint if args.load_best_model_at_end else None
        model.load_state_dict(load_file(folder / Path(kept or checkpoint).name / "model.safetensors"))
        trainer.state = state
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def run(recipe: dict, data, features, inputs: dict, seed: int, folder: Path, vision=(None, None)) -> dict:
    """All stages and the evaluation of one seed."""
    state = PartialState()
    with state.main_process_first():  # the others read what it wrote
        if state.is_main_process:
            begin_run(folder, {**recipe, "inputs": {"input": inputs}}, features if inputs["video"] else None)
    if (folder / "metrics.json").exists():
        return json.loads((folder / "metrics.json").read_text())
    watch = Stopwatch(folder / "minutes.json")
    set_seed(seed)
    encoder = resolve_text_encoder(recipe["text_encoder"])
    if inputs["video"]:
        fields = {**recipe["model"], "vision_model": vision[0]}
    else:  # a model without the visual half, rather than one that is never used
        fields, vision = {**recipe["model"], "video_feature_size": None}, (None, None)
    model = VideoQAForMultipleChoice.from_text_encoder(encoder, text_config=recipe.get("text_config"), **fields)
    if "lora" in recipe:
        add_adapters(model, recipe["lora"])
    logger.info(
        "%s: %s of %s parameters are trained",
        folder, f"{model.num_parameters(only_trainable=True):,}", f"{model.num_parameters():,}",
    )  # fmt: skip
    processor = VideoQAProcessor.from_config(model.config, encoder, frame_preprocessing=vision[1])
    parts = {name: inputs[name] for name in ("subtitles", "objects")}
    datasets = {
        split: VideoQADataset(
            processor, data.questions[split], data.clips, features if inputs["video"] else None, **parts
        )
        for split in ("train", "validation")
    }
    for name, stage in recipe["stages"].items():
        trainer = train_stage(model, processor, datasets, stage, folder / name, seed, watch)
        if state.is_main_process:
            (folder / f"log_{name}.json").write_text(json.dumps(trainer.state.log_history, indent=1))
        model = unsharded(model).to(trainer.args.device)
    if "lora" in recipe:
        if state.is_main_process:
            save_adapters(model, folder / "adapter", base_model=recipe["text_encoder"])
        merge_adapters(model)
    minutes = watch.minutes()
    validation = datasets["validation"]
    predictions = predict(model, processor, validation, subtitles=validation.subtitles, bf16=trainer.args.bf16)
    metrics = evaluate_predictions(predictions, data.questions["validation"]) | {"minutes": round(minutes, 2)}
    if state.is_main_process:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_predictions(folder / "predictions.jsonl", predictions)
        write_whole(folder / "metrics.json", json.dumps(metrics, indent=1))  # the last file: the run is finished
        watch.path.unlink(missing_ok=True)
    state.wait_for_everyone()
    return metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every script that trains by a recipe asks for."""
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--features", help="feature store or file; without it the model sees no frames")
    parser.add_argument("--frame_rate", type=float, help="rows a second of a feature file; a store says it itself")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])


def load_inputs(recipes: list[dict], args: argparse.Namespace):
    """The data set and the features that recipes for one data set need, checked against each of them."""
    inputs = [inputs for recipe in recipes for inputs in recipe["inputs"].values()]
    # What no input reads need not be there.
    unused = {part: False for part in ("subtitles", "objects") if not any(used[part] for used in inputs)}
    data = load_videoqa(recipes[0]["data"], args.data_dir, **unused)
    features = open_features(args.features, args.frame_rate) if args.features else None
    for recipe in recipes:
        check_recipe(recipe, data, features)
    return data, features


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    parser.add_argument("--backbone", help="keep this vision backbone in the models, so that they take video too")
    args, rest = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the loaders tell what they found
    PartialState(cpu=not torch.cuda.is_available())  # without a GPU it would not see the other processes
    recipe = with_overrides(read_recipe(args.recipe), training_overrides(rest))
    data, features = load_inputs([recipe], args)
    vision = load_backbone(args.backbone, features) if args.backbone else (None, None)
    output_dir = Path(args.output_dir)
    results = {
        name: [
            run(recipe, data, features, inputs, seed, output_dir / name / f"seed_{seed}", vision) for seed in args.seeds
        ]
        for name, inputs in recipe["inputs"].items()
    }
    if PartialState().is_main_process:
        (output_dir / "results.json").write_text(json.dumps(results, indent=1))
        print(summary(results))


if __name__ == "__main__":
    main()
