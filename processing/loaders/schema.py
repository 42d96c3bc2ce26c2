"""The one form every data set is read into: a table of questions for each split, and one table of clips.

A clip's text is stored once and not once for each of its questions. Here is what a row may hold, and how much of every
part the tables hold; `tables.py` makes them.
"""

import math
import re
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, NamedTuple

from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, List, Value

HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can hold one, UTF-8 and so the tables cannot
QUESTION_FEATURES = Features(
    {
        "qid": Value("string"),
        "clip_id": Value("string"),
        "question": Value("string"),
        "choices": List(Value("string")),
        "label": Value("int64"),  # None: not known
        "start": Value("float64"),  # seconds from the start of the clip; None: not known
        "end": Value("float64"),
        "group": Value("string"),  # the show, or the difficulty: what accuracy is split by
    }
)

CLIP_FEATURES = Features(
    {
        "clip_id": Value("string"),
        "duration": Value("float64"),  # seconds; None: not known
        "subtitles": List(
            {"start": Value("float64"), "end": Value("float64"), "speaker": Value("string"), "text": Value("string")}
        ),  # speaker "": not known
        "objects": List({"time": Value("float64"), "labels": List(Value("string"))}),
    }
)


@dataclass(frozen=True)
class Coverage:
    """How much of each part was found for one split; `str()` of it is a readable line.

    Args:
        questions: questions of the split.
        clips: clips that they are about.
        with_label: questions whose answer is known.
        with_span: questions with a usable span, in seconds.
        with_subtitles: questions whose clip has at least one sentence.
        with_objects: questions whose clip has at least one object label.
        with_duration: questions whose clip's length is known.
        with_features: questions whose clip has frame features; None where no features were asked about.

    Example:
        >>> print(Coverage(4, 2, 4, 3, 2, 0, 4))
        4 questions about 2 clips: 4 with label, 3 with span, 2 with subtitles, 0 with objects, 4 with duration
    """

    questions: int
    clips: int
    with_label: int
    with_span: int
    with_subtitles: int
    with_objects: int
    with_duration: int
    with_features: int | None = None

    def __str__(self) -> str:
        parts = {name: count for name, count in asdict(self).items() if name.startswith("with_") and count is not None}
        told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in parts.items())
        return f"{self.questions:,} questions about {self.clips:,} clips: {told}"


class VideoQAData(NamedTuple):
    """A data set in the common form.

    Args:
        questions: one table of `QUESTION_FEATURES` for each split.
        clips: one table of `CLIP_FEATURES` for all splits together.

    With `streaming=True` both are iterable: their rows are read from the files each time that they are gone through.
    """

    questions: DatasetDict | IterableDatasetDict
    clips: Dataset | IterableDataset

    def coverage(self, features: Container[str] | None = None) -> dict[str, Coverage]:
        """Count what the tables hold, as they are now: after a filter the counts are those of the filtered tables.

        Args:
            features: what `open_features` gave, to count the questions whose clip is in it.

        Returns:
            One `Coverage` for each split, by the split's name. Streams are gone through once for it.
        """
        parts = _clip_parts(self.clips)
        report = {}
        for split, table in self.questions.items():
            rows = columns(table, "clip_id", "label", "start")
            asked = rows["clip_id"]
            of_clips = [parts.get(clip_id, (False, False, False)) for clip_id in asked]
            subtitles, objects, durations = map(sum, zip(*of_clips, strict=True)) if of_clips else (0, 0, 0)
            report[split] = Coverage(
                questions=len(asked),
                clips=len(set(asked)),
                with_label=sum(label is not None for label in rows["label"]),
                with_span=sum(start is not None for start in rows["start"]),
                with_subtitles=subtitles,
                with_objects=objects,
                with_duration=durations,
                with_features=None if features is None else sum(clip_id in features for clip_id in asked),
            )
        return report


def columns(table: Dataset | IterableDataset, *names: str) -> dict[str, list]:
    """Some columns of a table as lists, read at once: going through a `datasets` column row by row takes long.

    Args:
        table: either kind of table.
        names: columns of plain values.

    Example:
        >>> columns(Dataset.from_dict({"qid": ["1", "2"], "label": [0, 1]}), "qid")
        {'qid': ['1', '2']}
    """
    table = table.select_columns(list(names))
    if isinstance(table, IterableDataset):
        rows = list(table)
        return {name: [row[name] for row in rows] for name in names}
    return table[:]


def _clip_parts(clips: Dataset | IterableDataset) -> dict[str, tuple[bool, bool, bool]]:
    """Clip -> whether it has sentences, object labels, a known length."""
    if isinstance(clips, IterableDataset):
        return {
            row["clip_id"]: (bool(row["subtitles"]), bool(row["objects"]), row["duration"] is not None) for row in clips
        }
    lists = [[length > 0 for length in _list_lengths(clips, name)] for name in ("subtitles", "objects")]
    rows = columns(clips, "clip_id", "duration")
    durations = [duration is not None for duration in rows["duration"]]
    return dict(zip(rows["clip_id"], zip(*lists, durations, strict=True), strict=True))


def check_question(question: Mapping, split: str, number: int) -> tuple[dict, bool]:
    """A row of the table of questions, and whether its span had to be emptied."""
    row = _with_exact_keys(question, QUESTION_FEATURES, f"split {split!r}, question number {number}")
    where = f"split {split!r}, qid {row['qid']!r}"
    for key in ("qid", "clip_id", "question", "group"):
        _require_text(row[key], key, where, may_be_empty=key == "question")
    choices = row["choices"]
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise ValueError(
            f"{where}: choices are {choices!r}. Two or more texts in a list are allowed: give the wrong answers too."
        )
    for place, choice in enumerate(choices):
        _require_text(choice, f"choice {place}", where)
    label = row["label"]
    is_place = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(choices)
    if label is not None and not is_place:
        raise ValueError(
            f"{where}: label is {label!r}. Allowed are the int places 0 to {len(choices) - 1} and None for an answer "
            f"that is not known: count the choices from 0."
        )
    if row["start"] is None and row["end"] is None:
        return row, False
    start, end = (check_seconds(row[key], key, where) for key in ("start", "end"))
    usable = math.isfinite(start) and math.isfinite(end) and start < end
    row["start"], row["end"] = (start, end) if usable else (None, None)
    return row, not usable


def check_clip(clip: Mapping, number: int) -> dict:
    """A row of the table of clips, its sentences in order."""
    row = _with_exact_keys(clip, CLIP_FEATURES, f"clip number {number}")
    _require_text(row["clip_id"], "clip_id", f"clip number {number}")
    where = f"clip {row['clip_id']!r}"
    if row["duration"] is not None:
        row["duration"] = check_seconds(row["duration"], "duration", where, finite=True)
        if row["duration"] <= 0:
            raise ValueError(
                f"{where}: duration is {row['duration']}. A clip lasts more than 0 seconds: give None where the "
                f"length is not known."
            )
    for key in ("subtitles", "objects"):
        if not isinstance(row[key], list | tuple):
            raise ValueError(f"{where}: {key} is {row[key]!r:.80}. A list is allowed: pass an empty one for none.")
    sentences = [
        _checked_sentence(sentence, f"{where}, sentence {place}") for place, sentence in enumerate(row["subtitles"])
    ]
    row["subtitles"] = sorted((s for s in sentences if s["text"].strip()), key=lambda sentence: sentence["start"])
    frames = [_checked_frame(frame, f"{where}, frame {place}") for place, frame in enumerate(row["objects"])]
    row["objects"] = [frame for frame in frames if frame["labels"]]
    return row


def _checked_frame(frame: Mapping, where: str) -> dict:
    """The object labels of one frame."""
    row = _with_exact_keys(frame, CLIP_FEATURES["objects"].feature, where)
    row["time"] = check_seconds(row["time"], "time", where, finite=True)
    if not isinstance(row["labels"], list | tuple):
        raise ValueError(f"{where}: labels are {row['labels']!r}. A list of texts is allowed: make it one.")
    for label in row["labels"]:
        _require_text(label, "label", where)
    return row


def _checked_sentence(sentence: Mapping, where: str) -> dict:
    """A sentence with its times as floats."""
    row = _with_exact_keys(sentence, CLIP_FEATURES["subtitles"].feature, where)
    for key in ("speaker", "text"):
        _require_text(row[key], key, where, may_be_empty=True)
    row["start"], row["end"] = (check_seconds(row[key], key, where, finite=True) for key in ("start", "end"))
    if row["end"] < row["start"]:
        raise ValueError(
            f"{where}: it ends at {row['end']} s, before it starts at {row['start']} s. A sentence ends at its start "
            f"or later: correct the subtitle file."
        )
    return row


def _with_exact_keys(row: Mapping, features: Mapping, where: str) -> dict:
    """A copy of the row. A key too many is refused like one too few: it may be one that gives the answer away."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a {type(row).__name__} came. A dictionary is allowed: pass the row as one.")
    if row.keys() != features.keys():
        missing, unknown = sorted(features.keys() - row.keys()), sorted(map(str, row.keys() - features.keys()))
        raise ValueError(
            f"{where}: missing keys {missing}, unknown keys {unknown}. Exactly {sorted(features)} are allowed: add "
            f"the missing ones and leave the others out."
        )
    return dict(row)


def _require_text(value: Any, name: str, where: str, may_be_empty: bool = False) -> None:
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        kind = "Any str" if may_be_empty else "A str that is not empty"
        raise ValueError(f"{where}: {name} is {value!r:.80}. {kind} is allowed: correct this value.")
    if HALF_CHARACTER.search(value):
        raise ValueError(
            f"{where}: {name} is {value!r:.80}, with half a character. Whole ones are allowed: correct it."
        )


def check_seconds(value: Any, name: str, where: str, finite: bool = False) -> float:
    """The value as a float; bool and text are no numbers, and neither is NaN where `finite` is asked for.

    Args:
        value: what should be a number.
        name: its name, for the error message.
        where: file and place, or row, for the error message.
        finite: whether NaN and infinity are refused.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_seconds(9, "duration", "clip 'c'")
        9.0
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:  # an int of hundreds of digits
        number = math.inf
    if not is_number or (finite and not math.isfinite(number)):
        kind = "A finite number" if finite else "A number"
        raise ValueError(f"{where}: {name} is {value!r:.80}. {kind} of seconds is allowed: convert or correct it.")
    return number


def _list_lengths(table: Dataset, column: str) -> list[int]:
    """The length of each row's list, from the Arrow buffers: making Python objects of all labels takes minutes."""
    arrow = table.select_columns([column]).with_format("arrow")[:]
    return [length or 0 for chunk in arrow[column].chunks for length in chunk.value_lengths().to_pylist()]
