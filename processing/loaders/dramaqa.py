"""DramaQA: questions about the shots and scenes of one drama, in four levels of difficulty (Choi et al., AAAI 2021).

Official site: https://dramaqa.snu.ac.kr. There are no annotated moments: the shot or scene itself is the located part.
The words for behaviour and emotion of the persons stand in for object labels, as in Kim et al.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .files import Release, ReleaseFolder, get_key, read_json
from .schema import VideoQAData
from .tables import Source, load_tables

# The counts are those of the 2020 challenge, on which the paper reports; later releases differ.
DRAMAQA = Release(
    "DramaQA",
    {
        "train": "AnotherMissOhQA_train_set.json",
        "validation": "AnotherMissOhQA_val_set.json",
        "test": "AnotherMissOhQA_test_set.json",
    },
    {"train": 10_098, "validation": 3_071, "test": 3_022},
)
SCRIPT_FILE, VISUAL_FILE = "AnotherMissOh_script.json", "AnotherMissOh_Visual.json"
IMAGE_FPS = 25  # the number in an image's name counts the frames of the episode
MAX_SENTENCE = 90.0  # seconds; a longer one is a slip in the script's times,
SHORT_SENTENCE = 3.0  # and the authors' own code gives it so many
CLIP_NAME = re.compile(r"(AnotherMissOh\d\d_\d{3})_(\d{4})")
IMAGE_NAME = re.compile(r"(?:.*_)?IMAGE_(\d{1,12})")


def load_dramaqa(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Read DramaQA from its release files.

    The files are found by their official names, whatever the case, in `data_dir` or up to two folders below it: the
    questions `AnotherMissOhQA_{train,val,test}_set.json`, the subtitles `AnotherMissOh_script.json`, and
    `AnotherMissOh_Visual.json` with the persons of each frame.

    All released times are those of the episode. In the tables a clip begins at 0: where its first shot starts, as
    script and images say. A sentence that began in the shot before is there from 0 on.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test".
        subtitles: False leaves the subtitles out; True needs them to be there.
        objects: False leaves the persons' words out; True needs them to be there.
        labels: False leaves the answers out; True needs them, but in the test split.
        loading: `streaming` and `cache_dir`, see `load_tables`.

    Returns:
        The table of questions of each split, and the table of the clips, shots and scenes alike. `group` is the
        difficulty, "1" to "4".

    Raises:
        FileNotFoundError: a file that was asked for is not there.
        ValueError: a file is broken or holds something else; the message names the file and the place.

    Example:
        >>> import json, tempfile
        >>> record = {"qid": 1, "vid": "AnotherMissOh14_001_0025", "videoType": "shot", "que": "Who knocks?",
        ...           "answers": ["Deogi", "Hun", "Jiya", "Anna", "Taejin"], "correct_idx": 2, "q_level_logic": 1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "AnotherMissOhQA_val_set.json").write_text(json.dumps([record]))
        ...     data = load_dramaqa(folder, splits=("validation",), subtitles=False, objects=False)
        >>> data.questions["validation"][0]["label"], data.questions["validation"][0]["group"]
        (2, '1')
    """
    folder = ReleaseFolder(data_dir)
    questions = folder.questions(DRAMAQA, splits)
    if subtitles:
        folder.need(SCRIPT_FILE, otherwise="pass subtitles=False to do without")
    if objects:
        folder.need(VISUAL_FILE, otherwise="pass objects=False to do without")
    # Both are read where they are there, whatever is switched off: when a clip begins does not depend on a switch.
    script, visual = folder.find(SCRIPT_FILE), folder.find(VISUAL_FILE)
    source = Source(
        DRAMAQA.name,
        [*questions.values(), *(path for path in (script, visual) if path)],
        {split: partial(_read_questions, path, labels) for split, path in questions.items()},
        partial(_read_clips, script, visual, subtitles, objects),
        DRAMAQA.counts,
    )
    return load_tables(source, subtitles=subtitles, objects=objects, labels=labels, **loading)


def _read_questions(path: Path, labels: bool) -> Iterator[dict]:
    for number, record in enumerate(read_json(path, list), start=1):
        where = f"{path}, record {number}"
        clip_id = get_key(record, "vid", where, str)
        if not CLIP_NAME.fullmatch(clip_id):
            raise ValueError(
                f"{where}, key 'vid': {clip_id!r:.80} came. A name as AnotherMissOh14_001_0025 (episode, scene, shot) "
                f"is allowed: correct the file."
            )
        label = get_key(record, "correct_idx", where, int) if labels and record.get("correct_idx") is not None else None
        yield {
            "qid": str(get_key(record, "qid", where, int, str)),
            "clip_id": clip_id,
            "question": get_key(record, "que", where, str).strip(),
            "choices": [
                choice.strip() if isinstance(choice, str) else choice
                for choice in get_key(record, "answers", where, list)
            ],
            "label": label,
            "start": None,
            "end": None,
            "group": str(get_key(record, "q_level_logic", where, int)),
        }


def _read_clips(
    script: Path | None, visual: Path | None, subtitles: bool, objects: bool, clip_ids: Sequence[str]
) -> Iterator[dict]:
    timeline = Timeline(script, visual)
    for clip_id in clip_ids:
        start, end = timeline.bounds(clip_id)
        # A shot without speech is not in the script; the last image then tells no length, only a time within.
        duration = end - start if end is not None and end > start else None
        yield {
            "clip_id": clip_id,
            "duration": duration,
            "subtitles": [
                {**row, "start": max(0.0, row["start"] - start), "end": max(0.0, row["end"] - start)}
                for row in (_sentences(timeline.said(clip_id), str(script)) if subtitles else [])
            ],
            "objects": [
                {**row, "time": row["time"] - start}
                for row in (_persons(timeline.seen(clip_id), str(visual)) if objects else [])
            ],
        }


class Timeline:
    """When the shots of the episodes are on, from the script and the file of persons, each where it is there.

    Args:
        script: `AnotherMissOh_script.json` or None.
        visual: `AnotherMissOh_Visual.json` or None.

    Raises:
        ValueError: a file is broken; the message names the file and the place.

    Example:
        >>> Timeline(None, None).bounds("AnotherMissOh14_001_0025")
        (0.0, None)
    """

    def __init__(self, script: Path | None, visual: Path | None):
        self._script, self._visual = script, visual
        self._said = _read_by_scene(script, dict)
        self._seen = _read_by_scene(visual, list)

    def said(self, clip_id: str) -> dict[str, dict]:
        """Shot -> its entry in the script, of a shot or of all shots of a scene."""
        return _of_clip(self._said, clip_id)

    def seen(self, clip_id: str) -> dict[str, list]:
        """Shot -> its frames in the file of persons, likewise."""
        return _of_clip(self._seen, clip_id)

    def starts(self) -> dict[str, float]:
        """Shot -> where it starts, of all shots that one of the files knows."""
        shots = {shot for scenes in (self._said, self._seen) for entries in scenes.values() for shot in entries}
        return {shot: self.bounds(shot)[0] for shot in sorted(shots)}

    def bounds(self, clip_id: str) -> tuple[float, float | None]:
        """Where a clip starts and ends, in seconds of the episode; 0 and None where nothing is known of it.

        Args:
            clip_id: name of a shot, or of a scene, whose shot is 0000.
        """
        said, seen = self.said(clip_id).items(), self.seen(clip_id).items()
        starts = [_seconds(entry, "st", f"{self._script}, shot {shot!r}") for shot, entry in said]
        ends = [_seconds(entry, "et", f"{self._script}, shot {shot!r}") for shot, entry in said]
        for shot, frames in seen:
            where = f"{self._visual}, shot {shot!r}, frame "
            starts += [_frame_time(frame, f"{where}{place}") for place, frame in enumerate(frames, start=1)]
        return min(starts, default=0.0), max(ends, default=None)


def shot_starts(data_dir: str | Path) -> dict[str, float]:
    """Shot -> where it starts in the episode, in seconds, by the script and the file of persons in a folder.

    Args:
        data_dir: folder with the release files.

    Raises:
        FileNotFoundError: there is no such folder, or neither of the files.
        ValueError: a file is broken; the message names the file and the place.

    Example:
        >>> shot_starts("nowhere")
        Traceback (most recent call last):
            ...
        FileNotFoundError: data_dir is 'nowhere'. An existing folder is allowed: pass that of the release.
    """
    folder = ReleaseFolder(data_dir)
    folder.need(SCRIPT_FILE, VISUAL_FILE, otherwise="use the questions about shots alone")
    return Timeline(folder.find(SCRIPT_FILE), folder.find(VISUAL_FILE)).starts()


def _read_by_scene(path: Path | None, kind: type) -> dict[str, dict]:
    """The entries of a file keyed by shot, as scene -> shot -> entry: a scene is all its shots."""
    entries, scenes = read_json(path, dict) if path else {}, {}
    for shot in sorted(entries):
        if match := CLIP_NAME.fullmatch(shot):
            scenes.setdefault(match[1], {})[shot] = get_key(entries, shot, str(path), kind)
    return scenes


def _of_clip(scenes: Mapping[str, dict], clip_id: str) -> dict[str, Any]:
    scene, shot = CLIP_NAME.fullmatch(clip_id).groups()
    shots = scenes.get(scene, {})
    if shot == "0000":  # the whole scene
        return shots
    return {clip_id: shots[clip_id]} if clip_id in shots else {}


def _sentences(shots: Mapping[str, dict], where: str) -> list[dict]:
    """What is said in some shots, each sentence once: one that crosses a cut is listed under both shots."""
    rows: dict[str, dict] = {}
    for name, entry in shots.items():
        for place, sentence in enumerate(get_key(entry, "contained_subs", f"{where}, shot {name!r}", list), start=1):
            spot = f"{where}, shot {name!r}, sentence {place}"
            start, end = (_seconds(sentence, key, spot) for key in ("st", "et"))
            speaker = get_key(sentence, "speaker", spot, str)
            row = {
                "start": start,
                "end": max(start, start + SHORT_SENTENCE if end - start > MAX_SENTENCE else end),
                "speaker": "" if speaker == "None" else speaker,
                "text": " ".join(get_key(sentence, "utter", spot, str).split()),
            }
            rows.setdefault(str(sentence["st"]), row)
    return sorted(rows.values(), key=lambda row: row["start"])


def _seconds(record: Mapping, key: str, where: str) -> float:
    """Times stand in the script as texts: "812.4"."""
    value = get_key(record, key, where, str, int, float)
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(
            f"{where}, key {key!r}: {value!r:.80} came. Seconds as a number or its text are allowed: correct the file."
        )
    return seconds


def _frame_time(frame: Any, where: str) -> float:
    """The number in an image's name counts the frames of the episode."""
    name = get_key(frame, "frame_id", where, str)
    image = IMAGE_NAME.fullmatch(name)
    if image is None:
        raise ValueError(
            f"{where}, key 'frame_id': {name!r:.80} came. A name that ends in IMAGE_ and the number of the frame is "
            f"allowed: correct the file."
        )
    return int(image[1]) / IMAGE_FPS


def _persons(shots: Mapping[str, Iterable], where: str) -> list[dict]:
    """Words for what persons do and feel, frame by frame; '' stands for unknown."""
    rows = []
    for name, frames in shots.items():
        for place, frame in enumerate(frames, start=1):
            spot = f"{where}, shot {name!r}, frame {place}"
            time, words = _frame_time(frame, spot), []
            for person in get_key(frame, "persons", spot, list):
                about = get_key(person, "person_info", f"{spot}, a person", dict)
                words += [get_key(about, key, f"{spot}, a person", str).strip() for key in ("behavior", "emotion")]
            rows.append({"time": time, "labels": [word for word in words if word]})
    return sorted(rows, key=lambda row: row["time"])
