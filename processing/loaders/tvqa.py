"""TVQA: questions about clips of six shows, with the moment that answers each (Lei et al., EMNLP 2018), and what TVQA+
shares with it.

Official site: https://tvqa.cs.unc.edu. Nothing but the text of question and choices, the subtitles and the object
labels goes into the tables as input; the moment (`ts`) is a target.
"""

import html
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..subtitles_videoqa import read_subtitles, tidy_sentences
from .files import Release, ReleaseFolder, get_key, read_json, read_json_lines
from .pickles import read_text_pickle
from .schema import VideoQAData, check_seconds
from .tables import Source, load_tables

SUBTITLE_LINES, SUBTITLE_FOLDER = "tvqa_preprocessed_subtitles.jsonl", "tvqa_subtitles"
SUBTITLE_STARTS = "tvqa_plus_subtitles.json"
DURATIONS, TVR_DURATIONS, FRAME_COUNTS = "durations.json", "tvr_video2dur_idx.json", "frm_cnt_cache.json"
REGIONS, CONCEPTS = "tvqa_bbt_frcn_vg_hq_20_100.json", "det_visual_concepts_hq.pickle"
FRAMES_PER_SECOND = 3
MAX_ROWS = 300  # of a clip in TVQA's own frame files: a longer clip is resampled to so many
# A double episode is "e12-13"; The Big Bang Theory alone has no prefix.
CLIP_NAME = re.compile(r"(?:(friends|met|castle|house|grey)_)?s\d\de\d\d(?:-\d\d)?_seg\d\d_clip_\d\d")


TVQA = Release(
    "TVQA",
    {"train": "tvqa_train.jsonl", "validation": "tvqa_val.jsonl", "test": "tvqa_test_public.jsonl"},
    {"train": 122_039, "validation": 15_253, "test": 7_623},
)


def load_tvqa(
    data_dir: str | Path,
    splits: Sequence[str] = ("train", "validation"),
    subtitles: bool = True,
    objects: bool = True,
    labels: bool = True,
    spans: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Read TVQA from its release files.

    The files are found by their official names in `data_dir` or up to two folders below it: the questions
    `tvqa_{train,val,test_public}.jsonl`; the subtitles `tvqa_preprocessed_subtitles.jsonl`, or else the folder
    `tvqa_subtitles/` of srt files, or else STAGE's `tvqa_plus_subtitles.json` (starts only); the objects, of The Big
    Bang Theory `tvqa_bbt_frcn_vg_hq_20_100.json`, or else `det_visual_concepts_hq.pickle`; and where they are there the
    lengths of the clips: `durations.json`, `tvr_video2dur_idx.json` or `frm_cnt_cache.json`.

    Args:
        data_dir: folder with the release files.
        splits: some of "train", "validation" and "test" (test_public, which has no answers).
        subtitles: False leaves the subtitles out; True needs them to be there.
        objects: False leaves the object labels out; True needs them to be there.
        labels: False leaves the answers out; True needs them, but in the test split.
        spans: False leaves the moments out; True needs them, but in the test split.
        loading: `streaming` and `cache_dir`, see `load_tables`.

    Returns:
        The table of questions of each split, and the table of the clips they are about. `group` is the show: "bbt",
        "friends", "met", "castle", "house" or "grey".

    Raises:
        FileNotFoundError: a file that was asked for is not there.
        ValueError: a file is broken or holds something else; the message names the file and the place.

    Example:
        >>> import json, tempfile
        >>> record = {"qid": 1, "vid_name": "castle_s01e01_seg01_clip_00", "q": "Who knocks?", "answer_idx": 2,
        ...           "ts": "1-4.5"} | {f"a{n}": name for n, name in enumerate(["Amy", "Raj", "Penny", "Bob", "Stu"])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "tvqa_val.jsonl").write_text(json.dumps(record))
        ...     data = load_tvqa(folder, splits=("validation",), subtitles=False, objects=False)
        >>> data.questions["validation"][0]["end"], data.questions["validation"][0]["group"]
        (4.5, 'castle')
    """
    return load_release(TVQA, data_dir, splits, subtitles, objects, labels, spans, **loading)


def load_release(
    release: Release,
    data_dir: str | Path,
    splits: Sequence[str],
    subtitles: bool,
    objects: bool,
    labels: bool,
    spans: bool,
    **loading: Any,
) -> VideoQAData:
    """Read a data set of the family; arguments and errors as in `load_tvqa`.

    Example:
        >>> load_release(TVQA, "nowhere", ("train",), True, True, True, True)
        Traceback (most recent call last):
            ...
        FileNotFoundError: data_dir is 'nowhere'. An existing folder is allowed: pass that of the release.
    """
    folder = ReleaseFolder(data_dir)
    questions = folder.questions(release, splits)
    durations = folder.find(DURATIONS, TVR_DURATIONS, FRAME_COUNTS)
    spoken = seen = None
    if subtitles:
        names = SUBTITLE_LINES, SUBTITLE_FOLDER, SUBTITLE_STARTS
        spoken = folder.need(*names, otherwise="pass subtitles=False to do without")
    if objects:
        seen = folder.need(REGIONS, CONCEPTS, otherwise="pass objects=False to do without")
    source = Source(
        release.name,
        [*questions.values(), *(path for path in (durations, spoken, seen) if path)],
        {split: partial(_read_questions, path, labels, spans) for split, path in questions.items()},
        partial(_read_clips, durations, spoken, seen),
        release.counts,
    )
    return load_tables(source, subtitles=subtitles, objects=objects, labels=labels, spans=spans, **loading)


def _read_questions(path: Path, labels: bool, spans: bool) -> Iterator[dict]:
    for where, record in _records(path):
        qid = get_key(record, "qid", where, int, str)
        start, end = read_span(record.get("ts"), where) if spans else (None, None)
        is_long = "occur_clip" in record  # LongTVQA names two keys differently
        clip_id = get_key(record, "occur_clip" if is_long else "vid_name", where, str)
        yield {
            "qid": str(qid),
            "clip_id": clip_id,
            "question": get_key(record, "q", where, str).strip(),
            "choices": [get_key(record, f"a{place}", where, str).strip() for place in range(5)],
            "label": read_label(record.get("answer" if is_long else "answer_idx"), where) if labels else None,
            "start": start,
            "end": end,
            "group": record.get("kind") or _show(clip_id) or record.get("show_name") or "unknown",
        }


def _read_clips(
    durations: Path | None, spoken: Path | None, seen: Path | None, clip_ids: Sequence[str]
) -> Iterator[dict]:
    seconds = _read_durations(durations)
    sentences = _read_subtitles(spoken, clip_ids, seconds)
    labels = _read_objects(seen)
    for clip_id in clip_ids:
        yield {
            "clip_id": clip_id,
            "duration": seconds.get(clip_id),
            "subtitles": sentences.get(clip_id, []),
            "objects": labels(clip_id, seconds.get(clip_id)),
        }


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        return read_json_lines(path)
    return ((f"{path}, record {number}", record) for number, record in enumerate(read_json(path, list), start=1))


def _show(clip_id: str) -> str | None:
    """The name of the file says it; `show_name` may be absent, and is misspelt in the release."""
    name = CLIP_NAME.fullmatch(clip_id)
    return name and (name[1] or "bbt")


def read_label(value: Any, where: str) -> int | None:
    """The place of the answer: TVQA+ writes it as "2", TVQA as 2, LongTVQA as "a2", a test file not at all.

    Args:
        value: what the record holds. The range is checked with the choices.
        where: file and place, for the error message.

    Raises:
        ValueError: it is something else.

    Example:
        >>> read_label("2", "a.json"), read_label("a2", "a.json"), read_label(None, "a.json")
        (2, 2, None)
    """
    digits = value.strip().removeprefix("a") if isinstance(value, str) else ""
    if digits.isdecimal() and len(digits) < 4:
        return int(digits)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f"{where}, key 'answer_idx': {value!r} came. An int, its digits as a str (with an a before them, or not), or "
        f"no such key is allowed: correct the file."
    )


def read_span(value: Any, where: str) -> tuple[float | None, float | None]:
    """The moment in seconds: [0.0, 5], "48.62-60.02", NaN, or nothing; `make_tables` says whether it can be used.

    Args:
        value: what the record holds.
        where: file and place, for the error message.

    Raises:
        ValueError: it is something else.

    Example:
        >>> read_span("48.62-60.02", "a.json"), read_span([0, 5.5], "a.json"), read_span(None, "a.json")
        ((48.62, 60.02), (0.0, 5.5), (None, None))
    """
    if value is None:
        return None, None
    if isinstance(value, float) and math.isnan(value):
        return math.nan, math.nan  # so that it counts among the spans that could not be used
    parts = value.split("-") if isinstance(value, str) else value
    try:
        if isinstance(parts, list) and len(parts) == 2 and not any(isinstance(part, bool) for part in parts):
            return float(parts[0]), float(parts[1])
    except (TypeError, ValueError, OverflowError):
        pass  # a list of letters gets the same message as a list of three
    raise ValueError(
        f"{where}, key 'ts': {value!r:.80} came. Two numbers of seconds as [0.0, 5.4] or '0.0-5.4', NaN, or no such "
        f"key is allowed: correct the file."
    )


def _read_durations(path: Path | None) -> dict[str, float]:
    """Clip -> seconds, where they are known."""
    if path is None:
        return {}
    entries, rate = read_json(path, dict), 1
    if path.name.casefold() == TVR_DURATIONS:
        splits = [get_key(entries, split, str(path), dict) for split in entries]
        clips = [(clip_id, entry) for split in splits for clip_id, entry in split.items()]
        entries = {clip_id: entry[0] if isinstance(entry, list) and entry else entry for clip_id, entry in clips}
    elif path.name.casefold() == FRAME_COUNTS:
        rate = FRAMES_PER_SECOND
    return {
        clip_id: check_seconds(entry, "duration", f"{path}, clip {clip_id!r}", finite=True) / rate
        for clip_id, entry in entries.items()
        if entry is not None
    }


def _read_subtitles(
    path: Path | None, clip_ids: Sequence[str], durations: Mapping[str, Any]
) -> Mapping[str, list[dict]]:
    if path is None:
        return {}
    if path.is_dir():
        files = {clip_id: path / f"{clip_id}.srt" for clip_id in clip_ids}
        return {
            clip_id: [sentence._asdict() for sentence in read_subtitles(file)]
            for clip_id, file in files.items()
            if file.is_file()
        }
    if path.name.casefold() == SUBTITLE_LINES:
        return read_subtitle_lines(path, clip_ids)
    return _read_subtitle_starts(path, clip_ids, durations)


def read_subtitle_lines(path: Path, clip_ids: Sequence[str]) -> dict[str, list[dict]]:
    """Sentences of each clip from a file in TVR's layout: `{"vid_name", "sub": [{"text", "start", "end"}]}` a line.

    Args:
        path: the file.
        clip_ids: clips whose sentences are wanted; the others' are passed over.

    Returns:
        Clip -> its sentences, as the table of clips holds them.

    Raises:
        ValueError: a line is no such record.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "subtitles.jsonl"
        ...     _ = path.write_text('{"vid_name": "c", "sub": [{"text": " Amy : Hi", "start": 1, "end": 2}]}')
        ...     read_subtitle_lines(path, ["c"])
        {'c': [{'start': 1, 'end': 2, 'speaker': 'Amy', 'text': 'Hi'}]}
    """
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


def _read_subtitle_starts(path: Path, clip_ids: Sequence[str], durations: Mapping[str, Any]) -> dict[str, list[dict]]:
    """STAGE's file has starts only: a sentence ends where the next begins, the last with the clip if that is known."""
    clips, sentences = read_json(path, dict), {}
    for clip_id in clip_ids:
        if clip_id not in clips:
            continue
        where = f"{path}, clip {clip_id!r}"
        record = get_key(clips, clip_id, where, dict)
        texts = get_key(record, "sub_text", where, str).split("<eos>")
        starts = get_key(record, "sub_time", where, list)
        if len(starts) != len(texts) and not (texts == [""] and not starts):
            raise ValueError(
                f"{where}: {len(texts)} sentences with {len(starts)} starts. One start for each sentence is allowed: "
                f"fetch the file again."
            )
        times = [get_key({"start": start}, "start", where, int, float) for start in starts]
        rows = []
        for start, text in zip(times, texts, strict=False):  # a clip without sentences has one empty text
            speaker, spoken = _split_speaker(text)
            rows.append({"start": start, "speaker": speaker, "text": spoken})
        try:
            tidy = tidy_sentences(rows, durations.get(clip_id))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        sentences[clip_id] = [sentence._asdict() for sentence in tidy]
    return sentences


def _split_speaker(text: str) -> tuple[str, str]:
    """Take "Chase" off " Chase : That's all this is?". More than three words before the colon are no name."""
    text = " ".join(html.unescape(text).split())
    before, colon, after = f"{text} ".partition(" : ")  # the space added: a speaker may have said nothing
    time_of_day = before[-1:].isdigit() and after[:1].isdigit()  # "9 : 00"
    if not colon or time_of_day or not 1 <= len(before.split()) <= 3:
        return "", text
    return ("" if before == "<UNKNAME>" else before), after.strip()


def _read_objects(path: Path | None) -> Callable[[str, float | None], list[dict]]:
    """What gives the objects of a clip, given its length. Of one clip at a time: all of TVQA's fill the memory."""
    if path is None:
        return lambda clip_id, duration: []
    if path.name.casefold() == REGIONS:
        return partial(_regions, path, read_json(path, dict))
    return partial(_concepts, read_text_pickle(path))


def _regions(path: Path, detections: Mapping[str, Any], clip_id: str, duration: float | None) -> list[dict]:
    """STAGE's regions: one list of labels a frame, all frames."""
    if clip_id not in detections:
        return []
    frames = get_key(detections[clip_id], "object", f"{path}, clip {clip_id!r}", list)
    # Frames are counted from 1, and frame 1 is shown at 0 s: the list's index is right as it stands.
    return [{"time": i / FRAMES_PER_SECOND, "labels": found} for i, found in enumerate(frames)]


def read_region_counts(path: str | Path) -> dict[str, list[int]]:
    """How many regions each frame of a clip has, from STAGE's `tvqa_bbt_frcn_vg_hq_20_100.json`.

    Args:
        path: the file.

    Raises:
        ValueError: the file is broken; the message names the file and the place.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "regions.json"
        ...     _ = path.write_text('{"s01e01_seg01_clip_00": {"counts": [2, 1], "object": [["cup", "man"], ["cup"]]}}')
        ...     read_region_counts(path)
        {'s01e01_seg01_clip_00': [2, 1]}
    """
    clips, counts = read_json(Path(path), dict), {}
    for clip_id in clips:
        where = f"{path}, clip {clip_id!r}"
        counts[clip_id] = get_key(clips[clip_id], "counts", where, list)
        if not all(isinstance(count, int) and count >= 0 for count in counts[clip_id]):
            raise ValueError(f"{where}: counts are {counts[clip_id]!r:.80}. Whole numbers from 0 are allowed.")
    return counts


def _concepts(concepts: Mapping[str, list[str]], clip_id: str, duration: float | None) -> list[dict]:
    """TVQA's visual concepts: one text a frame, "gray pants , black shirt"; at most 300 frames, over the whole clip."""
    frames = concepts.get(clip_id, [])
    times = frame_row_times(len(frames), duration)
    labels = [[word for part in text.split(",") if (word := part.strip())] for text in frames]
    return [{"time": time, "labels": found} for time, found in zip(times, labels, strict=True)]


def frame_row_times(num_rows: int, duration: float | None) -> list[float]:
    """Seconds of the rows of a clip in TVQA's frame files: 3 a second, but a longer clip has 300 rows over its length.

    Args:
        num_rows: rows of the clip.
        duration: seconds of the clip; None where it is not known, and the rows are taken for 3 a second.

    Returns:
        One time for each row; row n of a clip that was not resampled is at n / 3.

    Example:
        >>> frame_row_times(3, 1.0)
        [0.0, 0.3333333333333333, 0.6666666666666666]
        >>> frame_row_times(300, 200.0)[150]
        100.0
    """
    resampled = num_rows == MAX_ROWS and duration is not None and duration * FRAMES_PER_SECOND > MAX_ROWS + 1
    rows_per_second = MAX_ROWS / duration if resampled else FRAMES_PER_SECOND
    return [row / rows_per_second for row in range(num_rows)]
