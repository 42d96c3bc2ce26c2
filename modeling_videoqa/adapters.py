"""LoRA on the text encoder through peft: adapters are trained in the encoder's place and merged into it at the end."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

# Fields of peft's LoraConfig with which all that is trained in the encoder are adapters, on weights that stay as they
# were pre-trained, and after which merging leaves an encoder of the same form.
LORA_FIELDS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
)  # fmt: skip


def lora_config(fields: Mapping[str, Any]):
    """
    The config of adapters, with its names checked.

    Args:
        fields (`dict`): Fields of `peft.LoraConfig`, those of `LORA_FIELDS`.

    Returns:
        `peft.LoraConfig`

    Raises:
        ImportError: peft is not installed.
        ValueError: an unknown field, or values that cannot be together.

    Example:

    ```python
    >>> lora_config({"r": 4, "target_modules": ["query", "value"]}).lora_alpha  # peft's default
    8
    ```
    """
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise ImportError(
            "The recipe asks for lora, but peft is not installed. Allowed: the package peft, or no lora. Run: "
            "pip install modeling-videoqa[peft]"
        ) from error
    if not isinstance(fields, Mapping) or set(fields) - set(LORA_FIELDS):
        came = sorted(map(str, set(fields) - set(LORA_FIELDS))) if isinstance(fields, Mapping) else fields
        raise ValueError(f"Unknown: {came!r}. Allowed: a mapping of {', '.join(LORA_FIELDS)}. Correct the names.")
    try:
        return LoraConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{dict(fields)} is no LoraConfig ({error}). Allowed: what peft's documentation says of these fields. "
            "Correct the values."
        ) from error


def add_adapters(model, fields: Mapping[str, Any]) -> None:
    """
    Put LoRA adapters into the text encoder, in place, and freeze all else in it.

    The model stays what it is: attention, GRUs, classifiers and a token-type table beside the encoder are trained as
    before, by any trainer. `num_tuned_text_layers` says nothing now; `layers_to_transform` chooses layers. As in any
    part that is frozen there is no dropout but in the modules that hold adapters. What a trainer saves on its way holds
    weights and adapters apart: it is for resuming, and `from_pretrained` refuses it.

    Args:
        model ([`VideoQAForMultipleChoice`]): Without adapters.
        fields (`dict`): Fields of `peft.LoraConfig`, those of `LORA_FIELDS`.

    Raises:
        ImportError: peft is not installed.
        ValueError: the fields are not known, or do not fit the encoder.

    Example:

    ```python
    >>> add_adapters(model, {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"]})  # doctest: +SKIP
    >>> trainer.train()  # doctest: +SKIP
    >>> save_adapters(model, "adapter")  # doctest: +SKIP
    >>> merge_adapters(model)  # doctest: +SKIP
    >>> model.save_pretrained("model")  # an ordinary model: nobody needs peft to load it  # doctest: +SKIP
    ```
    """
    config, encoder = lora_config(fields), model.base_model.text_encoder
    try:
        encoder.add_adapter(config)
        # peft is content with one that is found, and says nothing of the others.
        there = [f".{name}" for name, _ in encoder.named_modules()]
        named = () if isinstance(config.target_modules, str) else config.target_modules
        if unknown := sorted(name for name in named if not any(found.endswith(f".{name}") for found in there)):
            raise ValueError(f"there is no {', '.join(unknown)}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{dict(fields)} does not fit the text encoder, {model.config.text_config.model_type} ({error}). Allowed: "
            "values that peft takes, and target_modules that the encoder has. Correct them."
        ) from error


def save_adapters(model, folder: str | PathLike, base_model: str | None = None) -> None:
    """
    Write the adapters alone, a few hundred kilobytes: `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        model ([`VideoQAForMultipleChoice`]): With the adapters of [`add_adapters`].
        folder (`str` or `Path`): Where to.
        base_model (`str`, *optional*): Name of the text encoder that they belong to, noted in the config.

    Example:

    ```python
    >>> save_adapters(model, "adapter", base_model="google-bert/bert-base-uncased")  # doctest: +SKIP
    >>> encoder = AutoModel.from_pretrained("google-bert/bert-base-uncased")  # doctest: +SKIP
    >>> encoder = PeftModel.from_pretrained(encoder, "adapter")  # doctest: +SKIP
    ```
    """
    encoder = model.base_model.text_encoder
    encoder.save_pretrained(folder)
    # Afterwards: peft would look for a model of that name on the Hub, to see whether it has as many words.
    config = encoder.peft_config["default"]
    config.base_model_name_or_path = base_model
    config.save_pretrained(folder)


def merge_adapters(model) -> None:
    """
    Add what the adapters learned to the weights that they adapt, and take them out, in place: the model computes the
    same and is an ordinary one again, of which is trained what its config says.

    Args:
        model ([`VideoQAForMultipleChoice`]): With the adapters of [`add_adapters`].

    Raises:
        ValueError: a weight would be NaN or infinite.

    Example:

    ```python
    >>> merge_adapters(model)  # doctest: +SKIP
    ```
    """
    encoder = model.base_model.text_encoder
    for name, layer in _adapted(encoder).items():
        layer.merge(safe_merge=True)
        encoder.set_submodule(name, layer.get_base_layer())
    encoder.delete_adapter("default")
    encoder.requires_grad_(True)
    model.base_model.freeze()


def _adapted(encoder) -> dict[str, Any]:
    """Modules that peft has put in the place of the encoder's own."""
    return {name: part for name, part in encoder.named_modules() if hasattr(part, "lora_A")}
