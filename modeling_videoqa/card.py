"""The model card: what was measured, put into a template, and the evaluation results in the Hub's two forms.

What is not known is None, and the template leaves it out. A name that is not in `CARD_FIELDS` is an error, both in the
template and among the values.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from .fresh_process import CHOICES, QUESTIONS, TASK

# What only the author can say.
GIVEN_FIELDS = {
    "model_name": "title of the card",
    "repo_id": "name on the Hub, for the lines that load the model",
    "dataset_id": "id of the data set on the Hub",
    "dataset_name": "name of the data set as people write it",
    "task_id": "name of the task in the data set's benchmark on the Hub",
    "split": "which questions were answered for the results",
    "data_notes": "what was different about the data",
    "language": "code of the language, such as en",
    "license": "licence of the weights, as the Hub names it",
    "base_model": "the text encoder's name on the Hub",
    "features": "where the frame features are from: a text, or the index of a feature store",
    "speed": "what was measured, with the machine",
    "memory": "what was measured, with the machine",
    "intended_use": "more on what the model is for",
    "limits": "more on what it cannot do",
    "bias": "more on what the data teach",
    "example": "question and choices of the widget",
}
# What is read from the run's folder and from the model.
MEASURED_FIELDS = {
    "metadata": "the header in YAML",
    "data": "the recipe's name of the data set",
    "results": "list of name, value, interval and twin, as text",
    "has_twin": "whether there is a question-only twin",
    "has_intervals": "whether there are intervals",
    "questions": "number of questions answered",
    "questions_with_span": "number of those with a span",
    "missing": "number of questions without a prediction",
    "minutes": "minutes of training and evaluation",
    "device": "what it ran on",
    "versions": "package -> version",
    "recipe": "the recipe in YAML",
    "inputs": "what the model saw, as text",
    "parameters": "number of parameters",
    "config": "fields of the model's config",
    "takes": "text, features or pictures",
}
CARD_FIELDS = GIVEN_FIELDS | MEASURED_FIELDS
DATASETS = {
    "tvqa": "TVQA", "tvqa_plus": "TVQA+", "dramaqa": "DramaQA", "how2qa": "How2QA", "nextqa": "NExT-QA",
    "mini": "the mini corpus of modeling-videoqa",
}  # fmt: skip
FIGURES = {"accuracy": "accuracy", "miou": "temporal mIoU", "asa": "answer-span accuracy"}
SHOWN_OF_CONFIG = (
    "visual_attention", "token_types", "segment_span", "num_frames", "max_segments", "max_text_length", "frame_rate",
    "video_feature_size",
)  # fmt: skip


def card_values(model_dir: str | PathLike, model=None, twin: str | PathLike | None = None, given=None) -> dict:
    """
    What a card can say of a run: what the author gives, and what its folder holds.

    Args:
        model_dir (`str` or `Path`): Folder of the run, as `examples/train.py` leaves it: `metrics.json`, and where they
            are there `recipe.yaml`, `versions.json` and `features.json`, the index of the feature store.
        model ([`VideoQAForMultipleChoice`], *optional*): The model, for its size and settings.
        twin (`str` or `Path`, *optional*): Folder of the question-only twin, or its `metrics.json`.
        given (`dict`, *optional*): Values for `GIVEN_FIELDS`.

    Returns:
        `dict` with all of `CARD_FIELDS`; what is not known is `None`.

    Raises:
        ValueError: a given field is unknown, a file is not readable, or the twin saw the clip or other questions.

    Example:

    ```python
    >>> values = card_values("runs/demo/model", given={"split": "validation"})  # doctest: +SKIP
    >>> values["results"][0]["name"], values["speed"]  # doctest: +SKIP
    ('accuracy', None)
    ```
    """
    given = {name: value for name, value in dict(given or {}).items() if value is not None}
    _refuse_unknown("given values", given, GIVEN_FIELDS)
    folder = Path(model_dir)
    metrics, recipe = _read(folder / "metrics.json"), _read(folder / "recipe.yaml")
    versions = dict(_read(folder / "versions.json") or {})
    twin_metrics = None if twin is None else _read_twin(Path(twin), metrics, recipe)
    values: dict[str, Any] = dict.fromkeys(CARD_FIELDS)
    data = (recipe or {}).get("data")
    values |= {
        "data": data,
        "dataset_name": DATASETS.get(data, data),
        "dataset_id": data,  # the data set's own name, where it has no other on the Hub
        "license": "apache-2.0",
        "language": "en" if data in DATASETS else None,
        "recipe": None if recipe is None else yaml.safe_dump(recipe, sort_keys=False, width=110).rstrip(),
        "inputs": _inputs_text(recipe),
        "device": versions.pop("device", None),
        "versions": versions or None,
        "example": {"question": QUESTIONS[0], "choices": CHOICES[0]},
        "features": _read(folder / "features.json"),
        **_of_model(model),
        **_of_metrics(metrics, twin_metrics),
        **given,
    }
    if isinstance(values["features"], Mapping):
        values["features"] = _features_text(values["features"])
    name = str(values["repo_id"] or "").rpartition("/")[2]
    values["model_name"] = values["model_name"] or name or "-".join(filter(None, ["videoqa", data]))
    values["metadata"] = _metadata(values, metrics)
    return values


def render_card(template_path: str | PathLike, values: Mapping[str, Any]) -> str:
    r"""
    A card from a jinja2 template, such as the `model_card.md` of this project's repository.

    An installed package holds no template: pass the path of your own, or of one taken from the repository.

    Args:
        template_path (`str` or `Path`): The template; all of `CARD_FIELDS` can be used in it.
        values (`dict`): What `card_values` gives, or any of `CARD_FIELDS`; what is left out is `None`.

    Returns:
        `str`: The card.

    Raises:
        ValueError: there is no such template, it cannot be read as one, or a field is not in `CARD_FIELDS`.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     template = pathlib.Path(folder, "card.md")
    ...     _ = template.write_text("# {{ model_name }}{% if speed %}, {{ speed }}{% endif %}")
    ...     render_card(template, {"model_name": "mine"})
    '# mine\n'
    ```
    """
    path = Path(template_path)
    _refuse_unknown("values of the card", values, CARD_FIELDS)
    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        text = path.read_text(encoding="utf-8")
        # All names in the text, those of a branch that is not taken too.
        names = meta.find_undeclared_variables(environment.parse(text))
        _refuse_unknown(f"template {path}", sorted(names), CARD_FIELDS)
        card = environment.from_string(text).render(dict.fromkeys(CARD_FIELDS) | dict(values))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The template {path} cannot be read ({error}). Allowed: a jinja2 template in UTF-8. Take model_card.md of "
            "the repository of modeling-videoqa, or write your own."
        ) from error
    except TemplateError as error:
        raise ValueError(
            f"The template {path} cannot be filled: {error}. Allowed: jinja2 with the fields "
            f"{', '.join(CARD_FIELDS)}. Correct the template."
        ) from error
    lines = [line.rstrip() for line in card.strip().split("\n")]
    kept = [line for line, before in zip(lines, ["-", *lines], strict=False) if line or before]
    return "\n".join(kept) + "\n"


def evaluation_results(values: Mapping[str, Any]) -> list[dict] | None:
    """
    The accuracy in the form of the Hub's `.eval_results/*.yaml`.

    Args:
        values (`dict`): What `card_values` gives.

    Returns:
        `list[dict]` with one entry, or `None` where nothing was measured or the data set is not known.

    Example:

    ```python
    >>> row = {"name": "accuracy", "share": 0.75, "value": "75.0", "interval": "70.1 to 79.2", "twin": "40.0"}
    >>> values = {"results": [row], "dataset_id": "me/clips", "questions": 300}
    >>> (entry,) = evaluation_results(values)
    >>> entry["dataset"], entry["value"]
    ({'id': 'me/clips', 'task_id': 'default'}, 0.75)
    >>> entry["notes"]
    '300 questions; 95% interval 70.1 to 79.2 %; question-only twin 40.0 %'
    ```
    """
    if not values.get("results") or not values.get("dataset_id"):
        return None
    row = values["results"][0]
    notes = [
        f"{values['questions']} questions" if values.get("questions") else None,
        values.get("split"),
        f"95% interval {row['interval']} %" if row["interval"] else None,
        f"question-only twin {row['twin']} %" if row["twin"] else None,
    ]
    dataset = {"id": values["dataset_id"], "task_id": values.get("task_id") or "default"}
    return [{"dataset": dataset, "value": row["share"], "notes": "; ".join(filter(None, notes))}]


def _refuse_unknown(where: str, names, known: Mapping) -> None:
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"Unknown fields in the {where}: {', '.join(unknown)}. Allowed: {', '.join(known)}. Remove them or correct "
            "their names."
        )


def _read(path: Path) -> dict | None:
    """A file of JSON or YAML that holds a mapping; None where there is no such file."""
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        found = error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} cannot be read as a mapping ({str(found)[:200]}). Allowed: the file as examples/train.py wrote "
            "it. Restore it, or remove it to leave its values out of the card."
        )
    return found


def _read_twin(path: Path, metrics: dict | None, recipe: dict | None) -> dict:
    file = path / "metrics.json" if path.is_dir() else path
    twin, twin_recipe = _read(file), _read(file.parent / "recipe.yaml")
    allowed = (
        "Allowed: metrics.json, or the folder of a run, of the same questions without subtitles, objects and video"
    )
    if twin is None or "accuracy" not in twin:
        raise ValueError(f"{file} holds no metrics of a twin. {allowed}. Name its folder, or leave the twin out.")
    seen = [name for inputs in (twin_recipe or {}).get("inputs", {}).values() for name, on in inputs.items() if on]
    if seen:
        raise ValueError(f"The twin {path} saw {', '.join(seen)}. {allowed}. Name the run of the question-only twin.")
    for what, own, other in (
        ("questions", (metrics or {}).get("questions"), twin.get("questions")),
        ("data", (recipe or {}).get("data"), (twin_recipe or {}).get("data")),
    ):
        if own is not None and other is not None and own != other:
            raise ValueError(
                f"The twin {path} has {what} {other!r}, the model {own!r}. {allowed}. Evaluate both on the same ones."
            )
    return twin


def _of_metrics(metrics: dict | None, twin: dict | None) -> dict[str, Any]:
    if metrics is None:
        return {}
    found = {name: metrics.get(name) for name in ("questions", "questions_with_span", "missing", "minutes")}
    rows = []
    for name, title in FIGURES.items():
        interval = (metrics.get("intervals") or {}).get(name)
        rows.append(_row(title, metrics.get(name), interval, (twin or {}).get(name)))
        if name == "accuracy":
            twins, intervals = (twin or {}).get("accuracy_by_group", {}), metrics.get("intervals_by_group") or {}
            for group, share in (metrics.get("accuracy_by_group") or {}).items():
                rows.append(_row(f"accuracy, {group}", share, intervals.get(group), twins.get(group)))
    rows = [row for row in rows if row["share"] is not None]
    return found | {
        "results": rows or None,
        "has_twin": twin is not None,
        "has_intervals": any(row["interval"] for row in rows),
    }


def _row(name: str, share: float | None, interval, twin: float | None) -> dict[str, Any]:
    return {
        "name": name.replace("|", "\\|").replace("\n", " "),
        "share": share,
        "value": _percent(share),
        "interval": None if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}",
        "twin": _percent(twin),
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _of_model(model) -> dict[str, Any]:
    if model is None:
        return {}
    config = model.config
    takes = "text" if config.video_feature_size is None else "features" if config.vision_config is None else "pictures"
    base = getattr(config.text_config, "_name_or_path", "") or ""
    shown = {name: getattr(config, name) for name in SHOWN_OF_CONFIG}
    return {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "config": {name: value for name, value in shown.items() if value is not None},
        "takes": takes,
        "base_model": base if is_hub_name(base) else None,
    }


def is_hub_name(name: str) -> bool:
    """
    Whether a name can be one on the Hub, `user/name`, and is no folder of this machine.

    Args:
        name (`str`): What a config has as `_name_or_path`.

    Returns:
        `bool`.

    Example:

    ```python
    >>> is_hub_name("google-bert/bert-base-uncased"), is_hub_name("folder/of/bert")
    (True, False)
    ```
    """
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~") and not Path(name).exists()


def _inputs_text(recipe: dict | None) -> str | None:
    """ "question, choices and subtitles" of the one variant that a run's recipe has."""
    variants = list((recipe or {}).get("inputs", {}).values())
    if len(variants) != 1:
        return None
    seen = ["question", "choices", *(name for name, on in variants[0].items() if on)]
    return f"{', '.join(seen[:-1])} and {seen[-1]}"


def _features_text(index: Mapping[str, Any]) -> str:
    """One line of what the index of a feature store says."""
    names = {
        "model": "{}", "name_or_path": "`{}`", "revision": "revision {}", "weights_sha256": "weights SHA-256 `{}`",
        "frame_rate": "{} frames a second", "feature_size": "{} wide", "autocast": "computed in {}",
    }  # fmt: skip
    if not is_hub_name(index.get("name_or_path") or ""):
        names.pop("name_or_path")  # a folder of this machine; the hash says which weights they were
    found = [text.format(index[name]) for name, text in names.items() if index.get(name)]
    versions = ", ".join(f"{name} {version}" for name, version in (index.get("versions") or {}).items())
    return "; ".join([*found, versions] if versions else found)


def _metadata(values: Mapping[str, Any], metrics: dict | None) -> str:
    """The header in YAML, with the results in the older form, `model-index`."""
    results = None
    if metrics and values["dataset_id"] and values["results"]:
        results = [
            EvalResult(
                task_type=TASK,
                task_name="Video question answering",
                dataset_type=values["dataset_id"],
                dataset_name=values["dataset_name"] or values["dataset_id"],
                dataset_split=values["split"],
                metric_type=name,
                metric_name=title,
                metric_value=metrics[name],
            )
            for name, title in FIGURES.items()
            if metrics.get(name) is not None
        ]
    example = values["example"]
    widget = [
        {
            "example_title": example["question"],
            "text": f"{example['question']} {' | '.join(example['choices'])}",
        }
    ]
    card = ModelCardData(
        language=values["language"],
        license=values["license"],
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        base_model=values["base_model"],
        datasets=[values["dataset_id"]] if is_hub_name(values["dataset_id"] or "") else None,
        tags=[TASK, "multiple-choice", "temporal-localization", values["data"] or TASK],
        model_name=values["model_name"],
        eval_results=results,
        widget=widget,
    )
    return card.to_yaml()
