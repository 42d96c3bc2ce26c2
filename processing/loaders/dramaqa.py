"""DramaQA: questions about the shots and scenes of one drama, in four levels of difficulty (Choi et al., AAAI 2021).

Official site: https://dramaqa.snu.ac.kr. There are no annotated moments: the shot or scene itself is the located part.
The words for behaviour and emotion of the persons stand in for object labels, as in Kim et al.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .files import Release, find_file, get_key, need_file, read_json, read_questions
from .schema import VideoQAData, make_tables

logger = logging.getLogger(__name__)

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
IMAGE_NAME = re.compile(r"(?:.*_)?IMAGE_(\d+)")


def load_dramaqa(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
) -> VideoQAData:
    """Read DramaQA from its release files.

    The files are found by their official names, whatever the case, in `data_dir` or up to two folders below it: the
    questions `AnotherMissOhQA_{train,val,test}_set.json`, the subtitles `AnotherMissOh_script.json`, and where it is
    there `AnotherMissOh_Visual.json` with the persons of each frame.

    All released times are those of the episode. In the tables a clip begins at 0: at the earliest moment that script
    or images know of it.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test".
        subtitles: False leaves the subtitles out; True needs them to be there.
        objects: False leaves the persons' words out; True takes them where they are there.
        labels: False leaves the answers out; True needs them in the training split.

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
        ...     data = load_dramaqa(folder, splits=("validation",), subtitles=False)
        >>> data.questions["validation"][0]["label"], data.questions["validation"][0]["group"]
        (2, '1')
    """
    root, questions, clip_ids = read_questions(DRAMAQA, data_dir, splits, lambda path, _: _read_questions(path, labels))
    script = _read_by_shot(root, SCRIPT_FILE, dict, needed=True) if subtitles else {}
    visual = _read_by_shot(root, VISUAL_FILE, list, needed=False) if objects else {}
    clips = [_clip(clip_id, script, visual, root) for clip_id in clip_ids]
    return make_tables(questions, clips, subtitles=subtitles, labels=labels)


def _read_questions(path: Path, labels: bool) -> list[dict]:
    rows = []
    for number, record in enumerate(read_json(path, list), start=1):
        where = f"{path}, record {number}"
        clip_id = get_key(record, "vid", where, str)
        if not CLIP_NAME.fullmatch(clip_id):
            raise ValueError(
                f"{where}, key 'vid': {clip_id!r:.80} came. A name as AnotherMissOh14_001_0025 (episode, scene, shot) "
                f"is allowed: correct the file."
            )
        label = get_key(record, "correct_idx", where, int) if labels and record.get("correct_idx") is not None else None
        rows.append(
            {
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
        )
    return rows


def _read_by_shot(root: Path, name: str, kind: type, needed: bool) -> dict[str, dict]:
    """The entries of a file keyed by shot, as scene -> shot -> entry: a scene is all its shots."""
    path = need_file(root, name, "pass subtitles=False to do without") if needed else find_file(root, name)
    if path is None:
        logger.info("%s is not in %s: the clips have no words for persons", name, root)
        return {}
    entries, scenes = read_json(path, dict), {}
    for shot in sorted(entries):
        if match := CLIP_NAME.fullmatch(shot):
            scenes.setdefault(match[1], {})[shot] = get_key(entries, shot, str(path), kind)
    return scenes


def _clip(clip_id: str, script: Mapping[str, dict], visual: Mapping[str, dict], root: Path) -> dict:
    scene, shot = CLIP_NAME.fullmatch(clip_id).groups()
    shots = None if shot == "0000" else {clip_id}  # None: the whole scene
    said = {key: entry for key, entry in script.get(scene, {}).items() if shots is None or key in shots}
    seen = {key: entry for key, entry in visual.get(scene, {}).items() if shots is None or key in shots}
    where = f"{root}, {SCRIPT_FILE}"
    bounds = [_seconds(entry, key, f"{where}, shot {name!r}") for name, entry in said.items() for key in ("st", "et")]
    sentences = _sentences(said, where)
    frames = _persons(seen, f"{root}, {VISUAL_FILE}")
    times = bounds + [sentence["start"] for sentence in sentences] + [frame["time"] for frame in frames]
    origin = min(times, default=0.0)
    for sentence in sentences:
        sentence["start"], sentence["end"] = sentence["start"] - origin, sentence["end"] - origin
    for frame in frames:
        frame["time"] -= origin
    # A shot without speech is not in the script; the last image then tells no length, only a time within.
    duration = max(bounds) - origin if bounds and max(bounds) > origin else None
    return {"clip_id": clip_id, "duration": duration, "subtitles": sentences, "objects": frames}


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
        return float(value)
    except ValueError as error:
        raise ValueError(
            f"{where}, key {key!r}: {value!r:.80} came. Seconds as a number or its text are allowed: correct the file."
        ) from error


def _persons(shots: Mapping[str, Iterable], where: str) -> list[dict]:
    """Words for what persons do and feel, frame by frame; '' stands for unknown."""
    rows = []
    for name, frames in shots.items():
        for place, frame in enumerate(frames, start=1):
            spot = f"{where}, shot {name!r}, frame {place}"
            image = IMAGE_NAME.fullmatch(get_key(frame, "frame_id", spot, str))
            if image is None:
                raise ValueError(
                    f"{spot}, key 'frame_id': {frame['frame_id']!r:.80} came. A name that ends in IMAGE_ and the "
                    f"number of the frame is allowed: correct the file."
                )
            words = []
            for person in get_key(frame, "persons", spot, list):
                about = get_key(person, "person_info", f"{spot}, a person", dict)
                words += [get_key(about, key, f"{spot}, a person", str).strip() for key in ("behavior", "emotion")]
            rows.append({"time": int(image[1]) / IMAGE_FPS, "labels": [word for word in words if word]})
    return sorted(rows, key=lambda row: row["time"])
