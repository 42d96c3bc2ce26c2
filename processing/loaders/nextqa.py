"""NExT-QA, multiple choice: why, how and when in short videos without speech (Xiao et al., CVPR 2021)."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .files import Release, ReleaseFolder, read_csv
from .schema import VideoQAData
from .tables import Source, load_tables

NEXTQA = Release(
    "NExT-QA",
    {"train": "train.csv", "validation": "val.csv", "test": "test.csv"},
    {"train": 34_132, "validation": 4_996, "test": 8_564},
)
COLUMNS = ["video", "frame_count", "width", "height", "question", "answer", "qid", "type", *(f"a{i}" for i in range(5))]


def load_nextqa(
    data_dir: str | Path, splits: Sequence[str] = ("train", "validation"), labels: bool = True, **loading: Any
) -> VideoQAData:
    """Read NExT-QA from its release files, `{train,val,test}.csv` in `data_dir` or up to two folders below it.

    There are no subtitles and no moments: a clip is one segment with empty text, and what it shows must come from its
    frames.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test" (which has its answers too).
        labels: False leaves the answers out.
        loading: `streaming` and `cache_dir`, see `load_tables`.

    Returns:
        The table of questions of each split, with the official key `{video}_{qid}` as qid and the question's type
        ("CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO") as `group`; and the table of the clips, one for each video.

    Raises:
        FileNotFoundError: a file that was asked for is not there.
        ValueError: a file is broken or holds something else; the message names the file and the place.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     row = "40100,369,640,480,how do the men play,2,6,CH,roll it,tap it,strum it,hit it,pat it"
        ...     _ = (Path(folder) / "val.csv").write_text(",".join(COLUMNS) + "\\n" + row)
        ...     row = load_nextqa(folder, ("validation",)).questions["validation"][0]
        >>> row["qid"], row["choices"][row["label"]], row["group"]
        ('40100_6', 'strum it', 'CH')
    """
    questions = ReleaseFolder(data_dir).questions(NEXTQA, splits)
    reads = {split: partial(_read_questions, path, labels) for split, path in questions.items()}
    source = Source(NEXTQA.name, list(questions.values()), reads, _clips, NEXTQA.counts)
    return load_tables(source, labels=labels, **loading)


def _clips(clip_ids: Sequence[str]) -> Iterator[dict]:
    for clip_id in clip_ids:
        yield {"clip_id": clip_id, "duration": None, "subtitles": [], "objects": []}


def _read_questions(path: Path, labels: bool) -> Iterator[dict]:
    header, *lines = read_csv(path) or [(str(path), [])]
    if header[1] != COLUMNS:
        raise ValueError(
            f"{header[0]}: the columns {header[1]} came. Allowed: {COLUMNS}. Check that this is the file for multiple "
            f"choice, with its header."
        )
    for where, cells in lines:
        record = dict(zip(COLUMNS, cells, strict=False))
        answer = record.get("answer", "")
        if len(cells) != len(COLUMNS) or not (answer.isdecimal() and len(answer) < 4):
            raise ValueError(
                f"{where}: {cells!r:.120} came. {len(COLUMNS)} cells are allowed, the answer a number from 0: correct "
                f"the file."
            )
        yield {
            "qid": f"{record['video']}_{record['qid']}",
            "clip_id": record["video"],
            "question": record["question"].strip(),
            "choices": [record[f"a{place}"].strip() for place in range(5)],
            "label": int(answer) if labels else None,
            "start": None,
            "end": None,
            "group": record["type"],
        }
