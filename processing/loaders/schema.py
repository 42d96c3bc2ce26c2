"""The one form every data set is read into: a table of questions for each split, and one table of clips.

A clip's text is stored once and not once for each of its questions. A loader makes plain dictionaries and hands them
to `make_tables`, which refuses what cannot be right, empties the spans that cannot be used, and says how much of every
part was found: a part that is missing without anybody noticing costs more accuracy than any setting of the model.
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, NamedTuple

from datasets import Dataset, DatasetDict, Features, List, Value

logger = logging.getLogger(__name__)

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
        with_label: questions whose answer is known.
        with_span: questions with a usable span, in seconds.
        with_subtitles: questions whose clip has at least one sentence.
        clips: clips that the questions are about.
        clips_with_subtitles: of those, clips with at least one sentence.
        clips_with_objects: of those, clips with at least one object label.
        clips_with_duration: of those, clips whose length is known.

    Example:
        >>> print(Coverage(4, 4, 3, 2, 2, 1, 0, 2))  # doctest: +ELLIPSIS
        4 questions, 4 with label, 3 with span, 2 with subtitles, 2 clips, 1 clips with subtitles, ...
    """

    questions: int
    with_label: int
    with_span: int
    with_subtitles: int
    clips: int
    clips_with_subtitles: int
    clips_with_objects: int
    clips_with_duration: int

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in asdict(self).items())


class VideoQAData(NamedTuple):
    """A data set in the common form.

    Args:
        questions: a `DatasetDict` with one table of `QUESTION_FEATURES` for each split.
        clips: one table of `CLIP_FEATURES` for all splits together.
    """

    questions: DatasetDict
    clips: Dataset

    def coverage(self) -> dict[str, Coverage]:
        """Count what the tables hold, as they are now: after a filter the counts are those of the filtered tables.

        Returns:
            One `Coverage` for each split, by the split's name.
        """
        clip_ids = self.clips["clip_id"]
        sentences = dict(zip(clip_ids, _list_lengths(self.clips, "subtitles"), strict=True))
        objects = dict(zip(clip_ids, _list_lengths(self.clips, "objects"), strict=True))
        durations = dict(zip(clip_ids, self.clips["duration"], strict=True))
        report = {}
        for split, table in self.questions.items():
            asked = list(table["clip_id"])
            used = set(asked)
            report[split] = Coverage(
                questions=len(asked),
                with_label=sum(label is not None for label in table["label"]),
                with_span=sum(start is not None for start in table["start"]),
                with_subtitles=sum(sentences[clip_id] > 0 for clip_id in asked),
                clips=len(used),
                clips_with_subtitles=sum(sentences[clip_id] > 0 for clip_id in used),
                clips_with_objects=sum(objects[clip_id] > 0 for clip_id in used),
                clips_with_duration=sum(durations[clip_id] is not None for clip_id in used),
            )
        return report


def make_tables(
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    clips: Iterable[Mapping[str, Any]],
    subtitles: bool = True,
    labels: bool = True,
) -> VideoQAData:
    """Check the rows of a data set and make its two tables.

    A span that is not finite, reversed or of zero length becomes `start = end = None`. Sentences are put in the order
    of their starts; a sentence without any text and a frame without any label are left out, for there is nothing in
    them to read. Everything else that is wrong is an error. The coverage of each split is logged, one line a split at
    the level INFO; `VideoQAData.coverage` gives the same numbers.

    Args:
        questions: for each split its rows, each with exactly the keys of `QUESTION_FEATURES`; `label` may be None, and
            `start` and `end`, in seconds, may both be None. A qid occurs once in all the splits together.
        clips: rows with exactly the keys of `CLIP_FEATURES`, times in seconds; `duration` may be None.
        subtitles: whether the absence of every sentence is an error.
        labels: whether a split "train" without a single label is an error.

    Returns:
        The two tables. The rows that came in are not changed.

    Raises:
        ValueError: a row is not what the tables hold, or a part is missing altogether. The message names the split
            and the question, or the clip.

    Example:
        >>> question = {
        ...     "qid": "7", "clip_id": "c1", "question": "Who knocks ?", "choices": ["Penny", "Amy"],
        ...     "label": 0, "start": 1.5, "end": 4.0, "group": "bbt",
        ... }
        >>> sentence = {"start": 1.0, "end": 3.0, "speaker": "Penny", "text": "Are you there?"}
        >>> clip = {"clip_id": "c1", "duration": 9.0, "subtitles": [sentence], "objects": []}
        >>> data = make_tables({"train": [question]}, [clip])
        >>> data.questions["train"][0]["choices"], data.clips[0]["duration"]
        (['Penny', 'Amy'], 9.0)
    """
    clip_rows: dict[str, dict] = {}
    for number, clip in enumerate(clips, start=1):
        row = check_clip(clip, number)
        if row["clip_id"] in clip_rows:
            raise ValueError(
                f"clip {row['clip_id']!r} came twice. The table of clips holds each clip once: join the two rows."
            )
        clip_rows[row["clip_id"]] = row

    tables, seen, unusable = {}, {}, {}
    for split, rows in questions.items():
        tables[split], unusable[split] = _checked_split(split, rows, clip_rows.keys(), seen)
    _refuse_missing_parts(tables, clip_rows.values(), subtitles, labels)

    data = VideoQAData(
        DatasetDict({split: Dataset.from_list(rows, QUESTION_FEATURES) for split, rows in tables.items()}),
        Dataset.from_list(list(clip_rows.values()), CLIP_FEATURES),
    )
    for split, coverage in data.coverage().items():
        note = f"; {unusable[split]} spans not usable, left out" if unusable[split] else ""
        logger.info("%s: %s%s", split, coverage, note)
    return data


def _checked_split(
    split: str, rows: Sequence[Mapping], clip_ids: Collection[str], seen: dict[str, str]
) -> tuple[list[dict], int]:
    """The checked rows of a split, and how many spans were emptied; `seen` (qid -> split) grows by its qids."""
    if not rows:
        raise ValueError(
            f"split {split!r} came without a question. A split holds at least one: leave the split out of the call."
        )
    checked, unusable = [], 0
    for number, question in enumerate(rows, start=1):
        row, dropped = check_question(question, split, number)
        unusable += dropped
        where = f"split {split!r}, qid {row['qid']!r}"
        if row["qid"] in seen:
            raise ValueError(
                f"{where}: this qid was there before, in split {seen[row['qid']]!r}. A qid stands for one question in "
                f"all splits: rename or remove one of the two."
            )
        if row["clip_id"] not in clip_ids:
            raise ValueError(
                f"{where}: its clip {row['clip_id']!r} is not among the {len(clip_ids)} clips. Every question needs a "
                f"row in the table of clips: add one (duration None and empty lists will do) or drop the question."
            )
        if checked and len(row["choices"]) != len(checked[0]["choices"]):
            raise ValueError(
                f"{where}: {len(row['choices'])} choices, but the questions before it have "
                f"{len(checked[0]['choices'])}. All questions of a split have the same number, as they share a batch: "
                f"put the others into a split of their own."
            )
        seen[row["qid"]] = split
        checked.append(row)
    return checked, unusable


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
    start, end = (_number(row[key], key, where) for key in ("start", "end"))
    usable = math.isfinite(start) and math.isfinite(end) and start < end
    row["start"], row["end"] = (start, end) if usable else (None, None)
    return row, not usable


def check_clip(clip: Mapping, number: int) -> dict:
    """A row of the table of clips, its sentences in order."""
    row = _with_exact_keys(clip, CLIP_FEATURES, f"clip number {number}")
    _require_text(row["clip_id"], "clip_id", f"clip number {number}")
    where = f"clip {row['clip_id']!r}"
    if row["duration"] is not None:
        row["duration"] = _number(row["duration"], "duration", where, finite=True)
        if row["duration"] <= 0:
            raise ValueError(
                f"{where}: duration is {row['duration']}. A clip lasts more than 0 seconds: give None where the "
                f"length is not known."
            )
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
    row["time"] = _number(row["time"], "time", where, finite=True)
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
    row["start"], row["end"] = (_number(row[key], key, where, finite=True) for key in ("start", "end"))
    if row["end"] < row["start"]:
        raise ValueError(
            f"{where}: it ends at {row['end']} s, before it starts at {row['start']} s. A sentence ends at its start "
            f"or later: correct the subtitle file."
        )
    return row


def _refuse_missing_parts(
    tables: Mapping[str, list[dict]], clip_rows: Collection[dict], subtitles: bool, labels: bool
) -> None:
    if not tables:
        raise ValueError("no split came. At least one is needed: name one, for instance 'train'.")
    if subtitles and not any(clip["subtitles"] for clip in clip_rows):
        raise ValueError(
            f"not one of the {len(clip_rows)} clips has a sentence of subtitles. At least one is expected: check that "
            f"the subtitle files belong to these clips, or pass subtitles=False to do without."
        )
    if labels and "train" in tables and all(row["label"] is None for row in tables["train"]):
        raise ValueError(
            f"not one of the {len(tables['train'])} questions of split 'train' has a label. Training needs the "
            f"answers: check the file, or pass labels=False to do without."
        )


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
        raise ValueError(f"{where}: {name} is {value!r}. {kind} is allowed: correct this value.")


def _number(value: Any, name: str, where: str, finite: bool = False) -> float:
    """The value as a float; bool and text are no numbers, and neither is NaN where `finite` is asked for."""
    if isinstance(value, bool) or not isinstance(value, Real) or (finite and not math.isfinite(value)):
        kind = "A finite number" if finite else "A number"
        raise ValueError(f"{where}: {name} is {value!r}. {kind} of seconds is allowed: convert or correct it.")
    return float(value)


def _list_lengths(table: Dataset, column: str) -> list[int]:
    """The length of each row's list, from the Arrow buffers: making Python objects of all labels takes minutes."""
    arrow = table.select_columns([column]).with_format("arrow")[:]
    return [length or 0 for chunk in arrow[column].chunks for length in chunk.value_lengths().to_pylist()]
