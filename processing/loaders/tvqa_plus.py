"""TVQA+: questions about clips of The Big Bang Theory, with the moment that answers each (Lei et al., ACL 2020).

Official site: https://tvqa.cs.unc.edu. The boxes of the annotation files (`bbox`) are never read: their frame numbers
and words give the span and the answer away.
"""

import html
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..subtitles_videoqa import read_subtitles
from .files import find_file, get_key, read_json, read_json_lines
from .schema import VideoQAData, make_tables

logger = logging.getLogger(__name__)

QUESTION_FILES = {
    "train": "tvqa_plus_train.json",
    "validation": "tvqa_plus_val.json",
    "test": "tvqa_plus_test.json",
}
SUBTITLE_FILE, SUBTITLE_FOLDER = "tvqa_preprocessed_subtitles.jsonl", "tvqa_subtitles"
DURATION_FILE = "durations.json"
OBJECT_FILE = "tvqa_bbt_frcn_vg_hq_20_100.json"
FRAMES_PER_SECOND = 3


def load_tvqa_plus(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
) -> VideoQAData:
    """Read TVQA+, or any data set written in its layout, from its release files.

    The files are found by their official names in `data_dir` or one folder below it: the questions
    `tvqa_plus_{train,val,test}.json`; `tvqa_preprocessed_subtitles.jsonl` or else the folder `tvqa_subtitles/` of srt
    files; and, where they are there, `durations.json` (clip -> seconds) and the objects of the STAGE bundle,
    `tvqa_bbt_frcn_vg_hq_20_100.json`.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test".
        subtitles: False leaves the subtitles out; True needs them to be there.
        objects: False leaves the object labels out; True takes them where they are there.
        labels: False leaves the answers out; True needs them in the training split.

    Returns:
        The table of questions of each split, and the table of the clips they are about. `group` is a record's "kind",
        or else its "show_name", or else "bbt".

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
        ...     data = load_tvqa_plus(folder, splits=("validation",))
        >>> data.questions["validation"][0]["label"], data.clips[0]["subtitles"][0]["speaker"]
        (2, 'Penny')
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"data_dir is {str(root)!r}. An existing folder is allowed: pass that of the release.")
    if isinstance(splits, str) or not splits or not set(splits) <= QUESTION_FILES.keys():
        raise ValueError(
            f"splits is {splits!r}. A sequence of some of {list(QUESTION_FILES)} is allowed: pass for instance "
            f"splits=('train',)."
        )
    questions = {split: _read_questions(root, QUESTION_FILES[split], labels) for split in splits}
    clip_ids = list(dict.fromkeys(row["clip_id"] for rows in questions.values() for row in rows))
    sentences = _read_subtitles(root, clip_ids) if subtitles else {}
    found = _read_objects(root, clip_ids) if objects else {}
    duration_file = find_file(root, DURATION_FILE)
    durations = read_json(duration_file, dict) if duration_file else {}
    clips = [
        {
            "clip_id": clip_id,
            "duration": durations.get(clip_id),
            "subtitles": sentences.get(clip_id, []),
            "objects": found.get(clip_id, []),
        }
        for clip_id in clip_ids
    ]
    return make_tables(questions, clips, subtitles=subtitles, labels=labels)


def _read_questions(root: Path, name: str, labels: bool) -> list[dict]:
    path = find_file(root, name)
    if path is None:
        raise FileNotFoundError(
            f"{name} is not in {root}. It is looked for there and one folder below: put it there, or leave its split "
            f"out of splits."
        )
    rows = []
    for number, record in enumerate(read_json(path, list), start=1):
        where = f"{path}, record {number}"
        qid = get_key(record, "qid", where, int, str)
        start, end = _span(record.get("ts"), where)
        rows.append(
            {
                "qid": str(qid),
                "clip_id": get_key(record, "vid_name", where, str),
                "question": get_key(record, "q", where, str).strip(),
                "choices": [get_key(record, f"a{place}", where, str).strip() for place in range(5)],
                "label": _label(record.get("answer_idx"), where) if labels else None,
                "start": start,
                "end": end,
                "group": record.get("kind") or record.get("show_name") or "bbt",
            }
        )
    return rows


def _label(value: Any, where: str) -> int | None:
    """TVQA+ writes the answer as "2", TVQA as 2, a test file not at all. The range is checked with the choices."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f"{where}, key 'answer_idx': {value!r} came. An int, its digits as a str, or no such key is allowed: correct "
        f"the file."
    )


def _span(value: Any, where: str) -> tuple[float | None, float | None]:
    """[0.0, 5], "48.62-60.02", NaN, or nothing at all; whether it can be used is for `make_tables` to say."""
    if value is None:
        return None, None
    if isinstance(value, float) and math.isnan(value):
        return math.nan, math.nan  # so that it counts among the spans that could not be used
    parts = value.split("-") if isinstance(value, str) else value
    try:
        if isinstance(parts, list) and len(parts) == 2 and not any(isinstance(part, bool) for part in parts):
            return float(parts[0]), float(parts[1])
    except (TypeError, ValueError):
        pass  # a list of letters gets the same message as a list of three
    raise ValueError(
        f"{where}, key 'ts': {value!r} came. Two numbers of seconds as [0.0, 5.4] or '0.0-5.4', NaN, or no such key "
        f"is allowed: correct the file."
    )


def _read_subtitles(root: Path, clip_ids: Sequence[str]) -> dict[str, list[dict]]:
    path, folder = find_file(root, SUBTITLE_FILE), find_file(root, SUBTITLE_FOLDER)
    if path is not None:
        return _read_subtitle_lines(path, clip_ids)
    if folder is None:
        raise FileNotFoundError(
            f"neither {SUBTITLE_FILE} nor the folder {SUBTITLE_FOLDER} is in {root} or one folder below. One of the "
            f"two is needed: put it there, or pass subtitles=False to do without."
        )
    files = {clip_id: folder / f"{clip_id}.srt" for clip_id in clip_ids}
    return {
        clip_id: [
            {"start": said.start, "end": said.end, "speaker": said.speaker, "text": said.text}
            for said in read_subtitles(file)
        ]
        for clip_id, file in files.items()
        if file.is_file()
    }


def _read_subtitle_lines(path: Path, clip_ids: Sequence[str]) -> dict[str, list[dict]]:
    wanted, sentences = set(clip_ids), {}
    for where, record in read_json_lines(path):
        clip_id = get_key(record, "vid_name", where, str)
        if clip_id not in wanted:
            continue
        rows = sentences[clip_id] = []
        for place, sentence in enumerate(get_key(record, "sub", where, list), start=1):
            spot = f"{where}, sentence {place}"
            start, end = (get_key(sentence, key, spot, int, float) for key in ("start", "end"))
            speaker, text = _split_speaker(get_key(sentence, "text", spot, str))
            rows.append({"start": start, "end": end, "speaker": speaker, "text": text})
    return sentences


def _split_speaker(text: str) -> tuple[str, str]:
    """Take "Chase" off " Chase : That's all this is?". More than three words before the colon are no name."""
    text = " ".join(html.unescape(text).split())
    before, colon, after = f"{text} ".partition(" : ")  # the space added: a speaker may have said nothing
    time_of_day = before[-1:].isdigit() and after[:1].isdigit()  # "9 : 00"
    if not colon or time_of_day or not 1 <= len(before.split()) <= 3:
        return "", text
    return before, after.strip()


def _read_objects(root: Path, clip_ids: Sequence[str]) -> dict[str, list[dict]]:
    path = find_file(root, OBJECT_FILE)
    if path is None:
        logger.info("%s is not in %s: the clips have no object labels", OBJECT_FILE, root)
        return {}
    detections, objects = read_json(path, dict), {}
    for clip_id in clip_ids:
        if clip_id in detections:
            frames = get_key(detections[clip_id], "object", f"{path}, clip {clip_id!r}", list)
            # Frames are counted from 1, and frame 1 is shown at 0 s: the list's index is right as it stands.
            objects[clip_id] = [{"time": i / FRAMES_PER_SECOND, "labels": found} for i, found in enumerate(frames)]
    return objects
