"""One function for each data set; each returns the same two tables, `VideoQAData`."""

from pathlib import Path
from typing import Any

from .dramaqa import load_dramaqa
from .how2qa import load_how2qa
from .jsonl import check_jsonl, load_jsonl
from .nextqa import load_nextqa
from .parquet import load_parquet, push_to_hub, save_parquet
from .schema import VideoQAData
from .tables import load_tables, make_tables
from .tvqa import load_tvqa
from .tvqa_plus import load_mini, load_tvqa_plus

__all__ = [
    "LOADERS", "VideoQAData", "check_jsonl", "load_dramaqa", "load_how2qa", "load_jsonl", "load_mini", "load_nextqa",
    "load_parquet", "load_tables", "load_tvqa", "load_tvqa_plus", "load_videoqa", "make_tables", "push_to_hub",
    "save_parquet",
]  # fmt: skip

LOADERS = {
    "tvqa": load_tvqa,
    "tvqa_plus": load_tvqa_plus,
    "dramaqa": load_dramaqa,
    "how2qa": load_how2qa,
    "nextqa": load_nextqa,
    "jsonl": load_jsonl,  # own data
    "parquet": load_parquet,  # what save_parquet or push_to_hub wrote
    "mini": load_mini,
}


def load_videoqa(name: str, data_dir: str | Path, **options: Any) -> VideoQAData:
    """Load a data set by its name, for scripts that take the name from a recipe.

    Args:
        name: "tvqa", "tvqa_plus", "dramaqa", "how2qa", "nextqa"; "jsonl" for own data; "parquet" for what
            `save_parquet` wrote; "mini" for the small corpus that the examples generate.
        data_dir: folder with the files.
        options: arguments of the data set's own function, see `load_tvqa` and its like; and `streaming` and
            `cache_dir`, see `load_tables`.

    Returns:
        The tables of the questions and of the clips.

    Raises:
        ValueError: the name is none of those.

    Example:
        >>> load_videoqa("tvr", "data")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: data set 'tvr' came. Allowed are 'tvqa', ... 'mini': pass one of these names.
    """
    if name not in LOADERS:
        allowed = ", ".join(map(repr, LOADERS))
        raise ValueError(f"data set {name!r} came. Allowed are {allowed}: pass one of these names.")
    return LOADERS[name](data_dir, **options)
