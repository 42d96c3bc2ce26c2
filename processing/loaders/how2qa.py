"""How2QA: questions about 60-second clips of instructional videos, with a moment each (Li et al., EMNLP 2020)."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from .files import Release, ReleaseFolder, read_csv
from .schema import VideoQAData
from .tables import Source, load_tables
from .tvqa import read_subtitle_lines

HOW2QA = Release(
    "How2QA",
    {
        "train": "how2QA_train_release.csv",
        "validation": "how2QA_val_release.csv",
        "test": "how2QA_test_public_release.csv",
    },
    {"train": 35_405, "validation": 2_852, "test": 2_937},
)
SUBTITLE_FILE = "how2r_qa_sub.jsonl"
CLIP_SECONDS = 60
SPAN = re.compile(r"\[(\d{1,9}(?:\.\d+)?):(\d{1,9}(?:\.\d+)?)\]")


def load_how2qa(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    labels: bool = True,
    spans: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Read How2QA from its release files.

    The files are found by their official names in `data_dir` or up to two folders below it: the questions
    `how2QA_{train,val,test_public}_release.csv`, and the subtitles `how2r_qa_sub.jsonl`.

    The right answer stands last in the files. Here the four choices are shuffled, by the qid alone, so that every
    reading gives the same order. The files have no qid: it is made of the split and the number of the row, from 0.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test" (which has its answers too).
        subtitles: False leaves the subtitles out; True needs them to be there.
        labels: False leaves the answers out.
        spans: False leaves the moments out.
        loading: `streaming` and `cache_dir`, see `load_tables`.

    Returns:
        The table of questions of each split, and the table of the clips, `{video}_{from}_{to}` in seconds of the
        video. Spans are relative to the clip; `group` is "how2qa".

    Raises:
        FileNotFoundError: a file that was asked for is not there.
        ValueError: a file is broken or holds something else; the message names the file and the place.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "how2QA_val_release.csv"
        ...     _ = path.write_text("piYcgGdO8_w,[134.15:171.52],White,Grey,Red,Which colour?,Brown")
        ...     row = load_how2qa(folder, ("validation",), subtitles=False).questions["validation"][0]
        >>> row["clip_id"], round(row["start"], 2), row["choices"][row["label"]]
        ('piYcgGdO8_w_120_180', 14.15, 'Brown')
    """
    folder = ReleaseFolder(data_dir)
    questions = folder.questions(HOW2QA, splits)
    spoken = folder.need(SUBTITLE_FILE, otherwise="pass subtitles=False to do without") if subtitles else None
    source = Source(
        HOW2QA.name,
        [*questions.values(), *([spoken] if spoken else [])],
        {split: partial(_read_questions, path, split, labels, spans) for split, path in questions.items()},
        partial(_read_clips, spoken),
        HOW2QA.counts,
    )
    return load_tables(source, subtitles=subtitles, labels=labels, spans=spans, **loading)


def _read_clips(spoken: Path | None, clip_ids: Sequence[str]) -> Iterator[dict]:
    sentences = read_subtitle_lines(spoken, clip_ids) if spoken else {}
    for clip_id in clip_ids:
        said = sentences.get(clip_id, [])
        yield {"clip_id": clip_id, "duration": float(CLIP_SECONDS), "subtitles": said, "objects": []}


def _read_questions(path: Path, split: str, labels: bool, spans: bool) -> Iterator[dict]:
    for number, (where, cells) in enumerate(read_csv(path)):  # no header: the first row is a question
        span = SPAN.fullmatch(cells[1].strip()) if len(cells) == 7 else None
        if span is None:
            raise ValueError(
                f"{where}: {cells!r:.120} came. Seven cells are allowed: video, [start:end], three wrong answers, "
                f"question, right answer. Correct the file."
            )
        start, end = float(span[1]), float(span[2])
        first = int(start // CLIP_SECONDS) * CLIP_SECONDS
        qid = f"how2qa_{split}_{number}"
        choices = [cells[place].strip() for place in (2, 3, 4, 6)]
        order = np.random.default_rng(crc32(qid.encode())).permutation(4).tolist()
        yield {
            "qid": qid,
            "clip_id": f"{cells[0].strip()}_{first}_{first + CLIP_SECONDS}",
            "question": cells[5].strip(),
            "choices": [choices[place] for place in order],
            "label": order.index(3) if labels else None,
            "start": start - first if spans else None,
            "end": end - first if spans else None,
            "group": "how2qa",
        }
