"""One function for each data set; each returns the same two tables, `VideoQAData`."""

from pathlib import Path
from typing import Any

from .schema import VideoQAData
from .tvqa_plus import load_tvqa_plus

__all__ = ["VideoQAData", "load_tvqa_plus", "load_videoqa"]

# The mini corpus that comes with the project is written in the layout of TVQA+.
LOADERS = {"tvqa_plus": load_tvqa_plus, "mini": load_tvqa_plus}


def load_videoqa(name: str, data_dir: str | Path, **options: Any) -> VideoQAData:
    """Load a data set by its name, for scripts that take the name from a recipe.

    Args:
        name: "tvqa_plus", or "mini" for the small corpus that the examples generate.
        data_dir: folder with the files.
        options: arguments of the data set's own function; see `load_tvqa_plus`.

    Returns:
        The tables of the questions and of the clips.

    Raises:
        ValueError: the name is none of those.

    Example:
        >>> load_videoqa("tvqa", "data")
        Traceback (most recent call last):
            ...
        ValueError: data set 'tvqa' came. Allowed are 'tvqa_plus', 'mini': pass one of these names.
    """
    if name not in LOADERS:
        allowed = ", ".join(map(repr, LOADERS))
        raise ValueError(f"data set {name!r} came. Allowed are {allowed}: pass one of these names.")
    return LOADERS[name](data_dir, **options)
