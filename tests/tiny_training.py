"""What the training scripts need, all of it tiny: corpus, features, encoder, recipe; and the scripts to be called."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import NO_DROPOUT
from transformers import AutoTokenizer, BertModel, TrainerCallback

from processing import load_videoqa
from processing.mini_corpus import write_mini_corpus

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))  # behind: examples/evaluate.py has the name of a library

import ablation  # noqa: E402 (the examples are scripts, not a package)
import common  # noqa: E402
import tables  # noqa: E402
import train  # noqa: E402

__all__ = [
    "EXAMPLES", "TinyTraining", "ablation", "assert_the_same_run", "call", "common", "kill", "log_of", "metrics_of",
    "tables", "train", "without_dropout",
]  # fmt: skip

WIDTH = 8
RECIPE = {
    "data": "mini",
    "text_config": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "model": {"video_feature_size": WIDTH, "max_text_length": 32, "num_tuned_text_layers": 1},
    "inputs": {"full": {"subtitles": True, "objects": True, "video": True}},
    "stages": {
        # Ends in the middle of an epoch.
        "pretrain": {"swap_questions": True, "batch_size": 4, "training": {"max_steps": 3, "learning_rate": 1e-3}},
        "main": {
            "batch_size": 4,
            "head_learning_rate": 5e-3,
            "training": {"num_train_epochs": 2, "learning_rate": 1e-3},
        },
    },
}


class TinyTraining:
    """
    The files that a recipe needs, in one folder.

    Args:
        folder: an empty folder.
        tiny_encoder_dir: folder of the tests' encoder; the one here has weights large enough to tell rows apart.
        clips: numbers of clips to train on and to evaluate on, with 9 questions each.
    """

    def __init__(self, folder: Path, tiny_encoder_dir: Path, clips: tuple[int, int]):
        self.folder, self.corpus = folder, write_mini_corpus(folder / "corpus", *clips, progress=False)
        self.data = load_videoqa("mini", self.corpus)
        random = np.random.default_rng(0)
        self.features = folder / "features.npz"  # two rows a second, told to the scripts by --frame_rate
        shapes = {row["clip_id"]: (int(2 * row["duration"]) + 1, WIDTH) for row in self.data.clips}
        np.savez(self.features, **{clip: random.standard_normal(shape, np.float32) for clip, shape in shapes.items()})
        encoder = BertModel.from_pretrained(tiny_encoder_dir)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for parameter in encoder.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
        encoder.save_pretrained(folder / "encoder")
        AutoTokenizer.from_pretrained(tiny_encoder_dir).save_pretrained(folder / "encoder")
        self.recipe = {**RECIPE, "text_encoder": str(folder / "encoder")}

    def written(self, recipe: dict, name: str = "recipe") -> Path:
        """A file of a recipe, or of rows."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return path

    def arguments(self, output_dir: Path, *options, recipe: dict | None = None, name: str = "recipe") -> list[str]:
        """The command line after the script's name."""
        fixed = ["--recipe", self.written(recipe or self.recipe, name), "--data_dir", self.corpus]
        fixed += ["--features", self.features, "--frame_rate", 2, "--output_dir", output_dir]
        fixed += ["--bf16", False, "--logging_steps", 1, "--disable_tqdm", True]
        return [str(argument) for argument in (*fixed, *options)]


def without_dropout(recipe: dict) -> dict:
    """The same recipe for comparisons in which the random numbers of dropout would differ."""
    return {**recipe, "text_config": NO_DROPOUT}


def call(script, arguments: list[str]) -> str:
    """What a script prints when its `main` is called with this command line."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [script.__file__, *arguments])
        script.main()
    return printed.getvalue()


def log_of(folder: Path, stage: str = "main") -> list[dict]:
    """The training log of a run, without what no two runs have in common: times and how fast it was."""
    entries = json.loads((folder / f"log_{stage}.json").read_text())
    return [
        {key: value for key, value in entry.items() if not key.endswith(("runtime", "second"))} for entry in entries
    ]


def metrics_of(folder: Path) -> dict:
    """The metrics of a run without its minutes."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("minutes") >= 0
    return metrics


# --- killed runs


class Killed(Exception):
    """In the place of a signal."""


class KillAt(TrainerCallback):
    """Kills a run before a step of its second stage."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step and Path(args.output_dir).name == "main":
            raise Killed


def kill(arguments: list[str], step: int | None) -> None:
    """Call the training script, and kill it before that step of its second stage; `None`: after its last one."""

    def killed(*args, **kwargs):
        raise Killed

    add = train.log_loss_parts
    with pytest.MonkeyPatch.context() as patch:
        if step is None:
            patch.setattr(train, "predict", killed)
        else:
            patch.setattr(train, "log_loss_parts", lambda trainer: (add(trainer), trainer.add_callback(KillAt(step))))
        with pytest.raises(Killed):
            call(train, arguments)


def assert_the_same_run(run: Path, unbroken: Path) -> None:
    """To the byte, and to the last entry of the logs."""
    assert (run / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    assert (run / "predictions.jsonl").read_bytes() == (unbroken / "predictions.jsonl").read_bytes()
    assert metrics_of(run) == metrics_of(unbroken)
    for stage in ("pretrain", "main"):
        found, expected = (
            [entry for entry in log_of(folder, stage) if "loss" in entry or "eval_loss" in entry]
            for folder in (run, unbroken)
        )
        assert found == expected
