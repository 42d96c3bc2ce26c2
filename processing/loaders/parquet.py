"""A loaded data set as a Parquet folder, on disk or on the Hub, that `datasets.load_dataset` reads too.

The folder holds `questions/{split}.parquet`, `clips/clips.parquet` and a `README.md` whose header names the two
configurations: `load_dataset(folder, "questions")` and `load_dataset(folder, "clips")`.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset
from huggingface_hub import metadata_save

from .schema import CLIP_FEATURES, QUESTION_FEATURES, VideoQAData
from .tables import CLIPS, check_tables

logger = logging.getLogger(__name__)


def save_parquet(data: VideoQAData, output_dir: str | Path) -> Path:
    """Write a data set as a Parquet folder. It appears only when it is whole.

    Args:
        data: what `load_videoqa` gave.
        output_dir: a folder that does not exist yet, or is empty.

    Returns:
        `output_dir`.

    Raises:
        FileExistsError: it holds something already.

    Example:
        >>> from processing.loaders import load_videoqa
        >>> data = load_videoqa("tvqa_plus", "tvqa_plus")  # doctest: +SKIP
        >>> data = load_parquet(save_parquet(data, "tvqa_plus_parquet"))  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} holds something already. Allowed: a folder that does not exist or is empty. Give another "
            "one, or move this one away first."
        )
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    # A sibling, so that the last step is a rename within one file system: all or nothing.
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}.", dir=output_dir.parent) as holder:
        partial = Path(holder) / "data"
        tables = {"questions": dict(data.questions), CLIPS: {CLIPS: data.clips}}
        configs = []
        for config, splits in tables.items():
            (partial / config).mkdir(parents=True)
            for split, table in splits.items():
                table.to_parquet(partial / config / f"{split}.parquet")
            files = [{"split": split, "path": f"{config}/{split}.parquet"} for split in splits]
            configs.append({"config_name": config, "data_files": files})
        configs[0]["default"] = True
        counts = "\n".join(f"- {split}: {coverage}" for split, coverage in data.coverage().items())
        readme = partial / "README.md"
        readme.write_text(f"Questions and clips, as modeling-videoqa reads them.\n\n{counts}\n", encoding="utf-8")
        metadata_save(readme, {"configs": configs})
        if output_dir.exists():  # and is empty; not every system renames onto an empty folder
            output_dir.rmdir()
        partial.rename(output_dir)
    return output_dir


def load_parquet(
    data_dir: str | Path,
    splits: Sequence[str] | None = None,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> VideoQAData:
    """Read a Parquet folder back, or a repository on the Hub that `push_to_hub` wrote.

    What a part was missing was told when the data were first loaded, and is not asked again.

    Args:
        data_dir: the folder, or the name of the repository.
        splits: the splits that are wanted; None: all.
        streaming: True gives iterable tables, which read the files each time that they are gone through.
        cache_dir: where the tables are kept; None: in the cache of `datasets`.

    Returns:
        The two tables, as they were saved.

    Raises:
        ValueError: the tables are not those of this project, or a split is not there.

    Example:
        >>> data = load_parquet("tvqa_plus_parquet", splits=["validation"])  # doctest: +SKIP
    """
    options = {"streaming": streaming, "cache_dir": None if cache_dir is None else str(cache_dir)}
    questions = load_dataset(str(data_dir), "questions", **options)
    clips = load_dataset(str(data_dir), CLIPS, split=CLIPS, **options)
    wanted = list(questions) if splits is None else list(splits)
    if isinstance(splits, str) or not wanted or not set(wanted) <= set(questions):
        raise ValueError(f"splits is {splits!r}. A sequence of some of {list(questions)} is allowed: pass such a one.")
    for table, features in [*((questions[split], QUESTION_FEATURES) for split in wanted), (clips, CLIP_FEATURES)]:
        if table.features != features:
            raise ValueError(
                f"{data_dir} holds a table with {table.features}. Allowed: {features}. Write it with save_parquet."
            )
    data = VideoQAData(type(questions)({split: questions[split] for split in wanted}), clips)
    if not streaming:
        check_tables(data)
        for split, coverage in data.coverage().items():
            logger.info("%s %s: %s", data_dir, split, coverage)
    return data


def push_to_hub(data: VideoQAData, repo_id: str, **options: Any) -> None:
    """Push a data set to the Hub, where `load_parquet(repo_id)` and `load_dataset(repo_id, "questions")` find it.

    Args:
        data: what `load_videoqa` gave. Mind the licence: the owners of TVQA and DramaQA ask their users to fetch the
            data from them.
        repo_id: `"user/name"`.
        options: further arguments of `DatasetDict.push_to_hub`, such as `private=True` or `token=...`.

    Example:
        >>> push_to_hub(data, "user/own-clips", private=True)  # doctest: +SKIP
    """
    data.questions.push_to_hub(repo_id, config_name="questions", set_default=True, **options)
    DatasetDict({CLIPS: data.clips}).push_to_hub(repo_id, config_name=CLIPS, **options)
