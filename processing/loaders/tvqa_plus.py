"""TVQA+: questions about clips of The Big Bang Theory, with the moment that answers each (Lei et al., ACL 2020).

Official site: https://tvqa.cs.unc.edu. The boxes of the annotation files (`bbox`) are never read: their frame numbers
and words give the span and the answer away.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import Release
from .schema import VideoQAData
from .tvqa import load_release

TVQA_PLUS = Release(
    "TVQA+",
    {"train": "tvqa_plus_train.json", "validation": "tvqa_plus_val.json", "test": "tvqa_plus_test.json"},
    {"train": 23_545, "validation": 3_017, "test": 2_821},
)
# The same questions as STAGE reads them, tokenised once more; the test file has neither answers nor moments.
STAGE = Release(
    "TVQA+ (STAGE)",
    {
        "train": "tvqa_plus_train_preprocessed.json",
        "validation": "tvqa_plus_valid_preprocessed.json",
        "test": "tvqa_plus_test_preprocessed_no_anno.json",
    },
    TVQA_PLUS.counts,
)
# The project's own corpus, in the same layout and of any size.
MINI = TVQA_PLUS._replace(name="mini corpus", counts={})


def load_mini(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
    spans: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Read what `write_mini_corpus` wrote; arguments, tables and errors as in `load_tvqa_plus`.

    Example:
        >>> import tempfile
        >>> from processing.mini_corpus import write_mini_corpus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_mini(write_mini_corpus(folder, 1, 1, progress=False)).questions["train"].num_rows
        9
    """
    return load_release(MINI, data_dir, splits, subtitles, objects, labels, spans, **loading)


def load_tvqa_plus(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
    spans: bool = True,
    stage: bool = False,
    **loading: Any,
) -> VideoQAData:
    """Read TVQA+, or any data set written in its layout, from its release files.

    The questions are in `tvqa_plus_{train,val,test}.json`, or with `stage=True` in the files of the STAGE bundle; the
    other files are those of TVQA, and are found as `load_tvqa` says.

    Args:
        data_dir, splits, subtitles, objects, labels, spans, loading: as in `load_tvqa`.
        stage: whether the questions are read from STAGE's `tvqa_plus_{train,valid}_preprocessed.json` and
            `tvqa_plus_test_preprocessed_no_anno.json`.

    Returns:
        The table of questions of each split, and the table of the clips they are about. `group` is a record's "kind"
        (in the mini corpus), or else the show.

    Raises:
        FileNotFoundError: a file that was asked for is not there.
        ValueError: a file is broken or holds something else; the message names the file and the place.

    Example:
        >>> import json, tempfile
        >>> record = {"qid": 1, "vid_name": "s01e01_seg01_clip_00", "q": "Who knocks ?", "answer_idx": "2",
        ...           "ts": [1, 4.5]} | {f"a{n}": name for n, name in enumerate(["Amy", "Raj", "Penny", "Bob", "Stu"])}
        >>> sentence = {"text": " Penny : Are you there?", "start": 1.0, "end": 2.5}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "tvqa_plus_val.json").write_text(json.dumps([record]))
        ...     line = json.dumps({"vid_name": "s01e01_seg01_clip_00", "sub": [sentence]})
        ...     _ = (Path(folder) / "tvqa_preprocessed_subtitles.jsonl").write_text(line)
        ...     data = load_tvqa_plus(folder, splits=("validation",), objects=False)
        >>> data.questions["validation"][0]["label"], data.clips[0]["subtitles"][0]["speaker"]
        (2, 'Penny')
    """
    return load_release(STAGE if stage else TVQA_PLUS, data_dir, splits, subtitles, objects, labels, spans, **loading)
