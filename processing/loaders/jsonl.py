"""Own data: one question a line, in `train.jsonl`, `validation.jsonl` and `test.jsonl` of one folder.

```
{"video": "a.mp4", "subtitles": "a.srt", "question": "Who knocks?", "choices": ["Amy", "Raj"], "answer": "Raj"}
{"video": "a.mp4", "question": "Why?", "choices": ["rain", "fun"], "answer": 0, "start": 2, "end": 5.5}
```

| key | | |
|---|---|---|
| `question` | text | |
| `choices` | two or more texts, as many in all lines of a file | |
| `answer` | place from 0, or the text of a choice | not in a test file |
| `video` | path of the clip, for feature extraction; its name without suffix is the clip's name | or `clip` |
| `clip` | name of the clip, under which its features are stored | or `video` |
| `subtitles` | path of an `.srt` or `.vtt`, or a list of `{"start", "end", "speaker", "text"}` | optional |
| `start`, `end` | the moment that answers, seconds of the clip | optional |
| `objects` | list of `{"time", "labels"}` | optional |
| `duration` | seconds of the clip | optional |
| `qid` | name of the question; default: file and line | optional |
| `group` | what accuracy is split by | optional |

Paths are relative to the folder. What belongs to the clip (`subtitles`, `objects`, `duration`) may stand in one of its
lines or in all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..subtitles_videoqa import read_subtitles, tidy_sentences
from .files import ReleaseFolder, parse_json, read_json_lines
from .schema import VideoQAData, check_clip, check_question
from .tables import make_tables

SPLITS = ("train", "validation", "test")
QUESTION_KEYS = {"question", "choices", "answer", "start", "end", "qid", "group"}
CLIP_KEYS = {"subtitles", "objects", "duration"}
MAX_TOLD = 50  # problems in one message


def load_jsonl(
    data_dir: str | Path,
    splits: Sequence[str] | None = None,
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
    spans: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Read own data in the layout above.

    Args:
        data_dir: folder with the files.
        splits: some of "train", "validation" and "test"; None: those whose files are there.
        subtitles: False leaves the subtitles out; True needs them, in each split.
        objects: False leaves the object labels out; True takes those that there are.
        labels: False leaves the answers out; True needs them, but in the test split.
        spans: False leaves the moments out; True takes those that there are.
        loading: `streaming` and `cache_dir`, see `load_tables`. The files are read on every load, to be checked.

    Returns:
        The table of questions of each split, and the table of the clips.

    Raises:
        FileNotFoundError: there is no such folder, or none of the files.
        ValueError: something is wrong; the message lists every problem with its file and line.

    Example:
        >>> import tempfile
        >>> line = '{"clip": "a", "question": "Who knocks?", "choices": ["Amy", "Raj"], "answer": "Raj"}'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "validation.jsonl").write_text(line)
        ...     row = load_jsonl(folder, subtitles=False).questions["validation"][0]
        >>> row["label"], row["qid"]
        (1, 'validation_1')
    """
    questions, clips, problems = _read(ReleaseFolder(data_dir).root, splits, labels)
    if problems:
        told = "\n".join(problems[:MAX_TOLD])
        more = f"\nand {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        raise ValueError(
            f"{data_dir} has {len(problems)} problems. The layout in the docstring of processing.loaders.jsonl is "
            f"allowed: correct these lines.\n{told}{more}"
        )
    for clip in clips.values():
        clip["subtitles"] = clip["subtitles"] if subtitles else []
        clip["objects"] = clip["objects"] if objects else []
    for row in (row for rows in questions.values() for row in rows if not spans):
        row["start"] = row["end"] = None
    return make_tables(questions, list(clips.values()), subtitles=subtitles, labels=labels, **loading)


def check_jsonl(data_dir: str | Path, splits: Sequence[str] | None = None) -> list[str]:
    """Every problem of own data at once, each with file and line; an empty list where there is none.

    Args:
        data_dir, splits: as in `load_jsonl`.

    Raises:
        FileNotFoundError: there is no such folder, or none of the files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "train.jsonl").write_text('{"clip": "a", "question": "Who?", "choices": ["Amy"]}')
        ...     [problem.removeprefix(folder) for problem in check_jsonl(folder)]  # doctest: +ELLIPSIS
        ["/train.jsonl, line 1: split 'train', qid 'train_1': choices are ['Amy']. Two or more texts ...]
    """
    return _read(ReleaseFolder(data_dir).root, splits, labels=True)[2]


def find_videos(data_dir: str | Path, splits: Sequence[str] | None = None) -> dict[str, Path]:
    """The video file of each clip, for `extract_features`; clips without one are left out.

    Args:
        data_dir, splits: as in `load_jsonl`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "test.jsonl").write_text('{"video": "b/a.mp4", "question": "Who?"}')
        ...     {clip_id: path.name for clip_id, path in find_videos(folder).items()}
        {'a': 'a.mp4'}
    """
    root = ReleaseFolder(data_dir).root
    records = (record for split in _splits(root, splits) for _, record in read_json_lines(root / f"{split}.jsonl"))
    named = (record["video"] for record in records if isinstance(record, dict) and isinstance(record.get("video"), str))
    return {Path(video).stem: root / video for video in named}


def _splits(root: Path, splits: Sequence[str] | None) -> list[str]:
    wanted = SPLITS if splits is None else splits
    if isinstance(wanted, str) or not set(wanted) <= set(SPLITS):
        raise ValueError(f"splits is {splits!r}. A sequence of some of {list(SPLITS)} is allowed: pass such a one.")
    found = [split for split in wanted if (root / f"{split}.jsonl").is_file()]
    if not found or (splits is not None and len(found) < len(wanted)):
        missing = " and ".join(f"{split}.jsonl" for split in wanted if split not in found)
        raise FileNotFoundError(
            f"{missing} are not in {root}. At least one of them is needed, and each that was asked for: put them there."
        )
    return found


def _read(root: Path, splits: Sequence[str] | None, labels: bool) -> tuple[dict[str, list], dict[str, dict], list[str]]:
    """Rows of questions and of clips, and what is wrong with the lines that gave none."""
    questions, clips, problems = {}, {}, []
    seen: dict[str, str] = {}  # qid -> where it was
    sources: dict[str, dict] = {}  # clip -> what lines said of it, as it stands there
    for split in _splits(root, splits):
        path = root / f"{split}.jsonl"
        rows = questions[split] = []
        for number, record in _lines(path, problems):
            where = f"{path}, line {number}"
            try:
                row = _question(record, split, number, labels)
                _take_clip(record, row["clip_id"], clips, sources, root)
                if rows and len(rows[0]["choices"]) != len(row["choices"]):
                    raise ValueError(f"{len(row['choices'])} choices, but {len(rows[0]['choices'])} in the first line.")
                if row["qid"] in seen:
                    raise ValueError(f"the qid {row['qid']!r} was there before, in {seen[row['qid']]}.")
            except (ValueError, OSError) as error:
                problems.append(f"{where}: {error}")
                continue
            seen[row["qid"]] = where
            rows.append(row)
    return questions, clips, problems


def _lines(path: Path, problems: list[str]) -> list[tuple[int, Any]]:
    """Numbers and values of the lines that are JSON; the others are problems."""
    found = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: {error}. UTF-8 text is allowed.")
        return found
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append((number, parse_json(line, f"{path}, line {number}")))
            except ValueError as error:
                problems.append(str(error))
    return found


def _question(record: Any, split: str, number: int, labels: bool) -> dict:
    """A row of the table of questions."""
    if not isinstance(record, dict):
        raise ValueError(f"{record!r:.80} came. A JSON object is allowed.")
    unknown = sorted(record.keys() - QUESTION_KEYS - CLIP_KEYS - {"video", "clip"})
    if unknown:
        known = sorted(QUESTION_KEYS | CLIP_KEYS | {"video", "clip"})
        raise ValueError(f"unknown keys {unknown}. Allowed: {known}.")
    clip_id = record.get("clip")
    if clip_id is None and isinstance(record.get("video"), str):
        clip_id = Path(record["video"]).stem
    if not isinstance(clip_id, str) or not clip_id:
        raise ValueError(f"clip is {clip_id!r} and video is {record.get('video')!r}. One of them as a text is needed.")
    row = {
        "qid": str(record.get("qid", f"{split}_{number}")),
        "clip_id": clip_id,
        "question": record.get("question"),
        "choices": record.get("choices"),
        "label": None,
        "start": record.get("start"),
        "end": record.get("end"),
        "group": record.get("group", "own"),
    }
    answer = record.get("answer") if labels else None
    if isinstance(answer, str) and isinstance(row["choices"], list):
        if row["choices"].count(answer) != 1:
            raise ValueError(f"answer is {answer!r}. Exactly one of the choices {row['choices']!r}, or its place.")
        answer = row["choices"].index(answer)
    return check_question(row | {"label": answer}, split, number)[0]


def _take_clip(record: dict, clip_id: str, clips: dict[str, dict], sources: dict[str, dict], root: Path) -> None:
    """Add what a line says of its clip; lines of one clip may not say different things."""
    before = sources.setdefault(clip_id, {})
    said = {key: record[key] for key in CLIP_KEYS & record.keys() if record[key] is not None}
    known = clips.get(clip_id, {"clip_id": clip_id, "duration": None, "subtitles": [], "objects": []})
    new = {}
    for key, value in said.items():
        if key in before and before[key] != value:
            raise ValueError(f"{key} of clip {clip_id!r} is not what a line before this one said. Say it once.")
        if key not in before:
            new[key] = value
    if isinstance(new.get("subtitles"), str):
        new["subtitles"] = read_subtitles(root / new["subtitles"])
    if "subtitles" in new:
        new["subtitles"] = [sentence._asdict() for sentence in tidy_sentences(new["subtitles"])]
    clips[clip_id] = check_clip(known | new, 1)
    before.update(said)
