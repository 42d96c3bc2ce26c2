"""Rows that a loader reads, checked and built into the two tables: once, and again when a source file has changed.

`datasets` keeps the built tables as memory-mapped Arrow files in its cache, so that a second load reads no source file
and takes no memory. They are found again by a fingerprint of the source files and of what was asked for.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from .schema import CLIP_FEATURES, QUESTION_FEATURES, Coverage, VideoQAData, check_clip, check_question, columns

logger = logging.getLogger(__name__)

CLIPS = "clips"  # the one split of the table of clips
# Part that can be switched off -> what a question, or its clip, has of it; its count in `Coverage` is `with_...`.
PARTS = {"subtitles": "a sentence", "objects": "an object label", "labels": "a label", "spans": "a usable span"}
COUNTS = {"subtitles": "with_subtitles", "objects": "with_objects", "labels": "with_label", "spans": "with_span"}
HIDDEN_IN_TEST = {"labels", "spans"}
FEW = 0.5  # of the questions: a part that fewer of them have is worth a warning


class Source(NamedTuple):
    """A release whose files were found, and how to read them. The functions are of a module, or partials of such.

    Args:
        name: of the data set, for messages.
        files: files and folders that the rows are read from.
        questions: split -> gives its rows, with the keys of `QUESTION_FEATURES`.
        clips: gives the rows, with the keys of `CLIP_FEATURES`, of the clips whose ids it is handed.
        counts: split -> questions in the official release; without a split that has no such number.
    """

    name: str
    files: Sequence[Path]
    questions: Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]]
    clips: Callable[[Sequence[str]], Iterable[Mapping[str, Any]]]
    counts: Mapping[str, int]


def load_tables(
    source: Source,
    subtitles: bool = False,
    objects: bool = False,
    labels: bool = True,
    spans: bool = False,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> VideoQAData:
    """Check the rows of a data set and make its two tables, or find them in the cache.

    A span that is not finite, reversed or of zero length becomes `start = end = None`. Sentences are put in the order
    of their starts; a sentence without any text and a frame without any label are left out, for there is nothing in
    them to read. Everything else that is wrong is an error. The coverage of each split is logged at the level INFO,
    and `VideoQAData.coverage` gives the same numbers; a part that less than half of the questions have is a warning,
    and so is another number of questions than the official release has.

    Args:
        source: the files and how to read them.
        subtitles: whether it is an error when not one question of a split has any.
        objects, labels, spans: likewise; a split "test" has no labels and no spans to miss.
        streaming: True gives iterable tables, which read the files anew each time that they are gone through. What
            concerns all rows together is then told at their end, and no qid is compared between splits.
        cache_dir: where the built tables are kept; None: in the cache of `datasets`.

    Returns:
        The two tables.

    Raises:
        ValueError: a row is not what the tables hold, or a part is missing altogether. The message names the split
            and the question, or the clip.

    Example:
        >>> rows = {"qid": "7", "clip_id": "c", "question": "Who?", "choices": ["Amy", "Raj"], "label": 0,
        ...         "start": 1.5, "end": 4.0, "group": "bbt"}
        >>> clip = {"clip_id": "c", "duration": 9.0, "subtitles": [], "objects": []}
        >>> source = Source("own", [], {"test": partial(iter, [rows])}, partial(_given, [clip]), {})
        >>> load_tables(source, streaming=True).questions["test"].take(1)
        IterableDataset({
            features: ['qid', 'clip_id', 'question', 'choices', 'label', 'start', 'end', 'group'],
            num_shards: 1
        })
    """
    if not source.questions:
        raise ValueError("no split came. At least one is needed: name one, for instance 'train'.")
    switches = {"subtitles": subtitles, "objects": objects, "labels": labels, "spans": spans}
    needed = [part for part, is_needed in switches.items() if is_needed]
    if streaming:
        questions = {
            split: IterableDataset.from_generator(partial(_stream_questions, source, split, needed), QUESTION_FEATURES)
            for split in source.questions
        }
        clips = IterableDataset.from_generator(partial(_stream_clips, source, needed), CLIP_FEATURES)
        return VideoQAData(IterableDatasetDict(questions), clips)
    stamp = _fingerprint(source)
    questions = DatasetDict(
        {
            split: _build(partial(_checked_questions, split, read), QUESTION_FEATURES, split, stamp, cache_dir)
            for split, read in source.questions.items()
        }
    )
    clip_ids = list(dict.fromkeys(clip_id for table in questions.values() for clip_id in table["clip_id"][:]))
    clips = _build(partial(_checked_clips, source.clips, clip_ids), CLIP_FEATURES, CLIPS, stamp, cache_dir)
    data = VideoQAData(questions, clips)
    check_tables(data)
    if idle := sorted(set(clips["clip_id"][:]) - set(clip_ids)):
        raise ValueError(
            f"clip {idle[0]!r} came without a question, as {len(idle)} clips did. Only clips that are asked about are "
            f"allowed: leave it out, or add its questions."
        )
    for split, coverage in data.coverage().items():
        logger.info("%s %s: %s", source.name, split, coverage)
        _tell_count(source, split, coverage.questions)
        _judge(split, coverage, needed)
    return data


def make_tables(
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    clips: Sequence[Mapping[str, Any]],
    subtitles: bool = True,
    labels: bool = True,
    **loading: Any,
) -> VideoQAData:
    """Make the two tables out of rows that are at hand.

    Args:
        questions: for each split its rows, each with exactly the keys of `QUESTION_FEATURES`; `label` may be None, and
            `start` and `end`, in seconds, may both be None. A qid occurs once in all the splits together.
        clips: rows with exactly the keys of `CLIP_FEATURES`, times in seconds; `duration` may be None.
        subtitles, labels: whether it is an error when a split has none at all.
        loading: further arguments of `load_tables`, which also tells what is checked.

    Returns:
        The two tables. The rows that came in are not changed.

    Raises:
        ValueError: as in `load_tables`.

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
    reads = {split: partial(iter, rows) for split, rows in questions.items()}
    source = Source("own rows", [], reads, partial(_given, clips), {})
    return load_tables(source, subtitles=subtitles, labels=labels, **loading)


def check_tables(data: VideoQAData) -> None:
    """Check what concerns the tables together: a qid stands for one question, and every question has its clip.

    Args:
        data: tables whose rows are sound each for itself.

    Raises:
        ValueError: a qid is in two splits, or a question's clip is not in the table of clips.

    Example:
        >>> row = {"qid": "7", "clip_id": "c"}
        >>> check_tables(VideoQAData({"test": Dataset.from_list([row])}, Dataset.from_dict({"clip_id": ["d"]})))
        Traceback (most recent call last):
            ...
        ValueError: split 'test', qid '7': its clip 'c' is not among the 1 clips. Every question needs a row in the \
table of clips: add one (duration None and empty lists will do) or drop the question.
    """
    clip_ids, seen = set(data.clips["clip_id"][:]), {}
    for split, table in data.questions.items():
        for qid, clip_id in zip(*columns(table, "qid", "clip_id").values(), strict=True):
            where = f"split {split!r}, qid {qid!r}"
            if seen.setdefault(qid, split) != split:
                raise _repeated(where, seen[qid])
            if clip_id not in clip_ids:
                raise ValueError(
                    f"{where}: its clip {clip_id!r} is not among the {len(clip_ids)} clips. Every question needs a "
                    f"row in the table of clips: add one (duration None and empty lists will do) or drop the question."
                )


def _build(rows: Callable, features: Features, split: str, stamp: str, cache_dir: str | Path | None) -> Dataset:
    """A table from the cache, or into it; what the rows raise comes out as it is."""
    fingerprint = Hasher.hash((stamp, split))
    cache_dir = None if cache_dir is None else str(cache_dir)
    try:
        return Dataset.from_generator(rows, features, cache_dir, split=split, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from error.__cause__.__cause__
        raise


def _fingerprint(source: Source) -> str:
    """Of the source files, of how they are read, and of the code that reads them."""
    files = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        for path in source.files
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        for stat in [file.stat()]
    ]
    return Hasher.hash((files, dict(source.questions), source.clips, _code_hash()))


@cache
def _code_hash() -> str:
    here = Path(__file__).parent
    code = [path.read_bytes() for path in (*sorted(here.glob("*.py")), here.parent / "subtitles_videoqa.py")]
    return hashlib.sha256(b"\0".join(code)).hexdigest()


def _checked_questions(split: str, read: Callable[[], Iterable[Mapping]]) -> Iterator[dict]:
    """The checked rows of a split. Tells how many spans were emptied when they have all been given."""
    seen, num_choices, unusable = set(), None, 0
    for number, question in enumerate(read(), start=1):
        row, dropped = check_question(question, split, number)
        unusable += dropped
        where = f"split {split!r}, qid {row['qid']!r}"
        if row["qid"] in seen:
            raise _repeated(where, split)
        if num_choices not in (None, len(row["choices"])):
            raise ValueError(
                f"{where}: {len(row['choices'])} choices, but the questions before it have {num_choices}. All "
                f"questions of a split have the same number, as they share a batch: put the others into a split of "
                f"their own."
            )
        seen.add(row["qid"])
        num_choices = len(row["choices"])
        yield row
    if not seen:
        raise ValueError(
            f"split {split!r} came without a question. A split holds at least one: leave the split out of the call."
        )
    if unusable:
        logger.info("%s: %d spans not usable, left out", split, unusable)


def _checked_clips(read: Callable[[Sequence[str]], Iterable[Mapping]], clip_ids: Sequence[str]) -> Iterator[dict]:
    seen = set()
    for number, clip in enumerate(read(clip_ids), start=1):
        row = check_clip(clip, number)
        if row["clip_id"] in seen:
            raise ValueError(
                f"clip {row['clip_id']!r} came twice. The table of clips holds each clip once: join the two rows."
            )
        seen.add(row["clip_id"])
        yield row


def _given(rows: Sequence[Mapping], clip_ids: Sequence[str]) -> Iterator[Mapping]:
    """Rows that are at hand, whatever is asked for."""
    return iter(rows)


def _stream_questions(source: Source, split: str, needed: Sequence[str]) -> Iterator[dict]:
    count, found = 0, {"labels": False, "spans": False}
    for row in _checked_questions(split, source.questions[split]):
        count += 1
        found["labels"] |= row["label"] is not None
        found["spans"] |= row["start"] is not None
        yield row
    _tell_count(source, split, count)
    for part in set(found) & set(needed):
        if not found[part] and split != "test":
            raise _absent(f"split {split!r}: not one of its {count} questions", part)


def _stream_clips(source: Source, needed: Sequence[str]) -> Iterator[dict]:
    clip_ids = list(dict.fromkeys(row["clip_id"] for read in source.questions.values() for row in read()))
    found = {"subtitles": False, "objects": False}
    for row in _checked_clips(source.clips, clip_ids):
        for part in found:
            found[part] |= bool(row[part])
        yield row
    for part in set(found) & set(needed):
        if not found[part]:
            raise _absent(f"not one of the {len(clip_ids)} clips", part)


def _tell_count(source: Source, split: str, count: int) -> None:
    if count != source.counts.get(split, count):
        logger.warning(
            "%s %s: %d questions came, the official release has %d. It is another release, or a part.",
            source.name, split, count, source.counts[split],
        )  # fmt: skip


def _judge(split: str, coverage: Coverage, needed: Sequence[str]) -> None:
    """A part that nobody has is an error, one that few have a warning."""
    for part in needed:
        count = getattr(coverage, COUNTS[part])
        if split == "test" and part in HIDDEN_IN_TEST:
            continue
        if not count:
            raise _absent(f"split {split!r}: not one of its {coverage.questions} questions", part)
        if count < FEW * coverage.questions:
            logger.warning("%s: only %d of %d questions have %s", split, count, coverage.questions, PARTS[part])


def _absent(subject: str, part: str) -> ValueError:
    return ValueError(
        f"{subject} has {PARTS[part]}. At least one is expected: check that the files belong together, or pass "
        f"{part}=False to do without."
    )


def _repeated(where: str, split: str) -> ValueError:
    return ValueError(
        f"{where}: this qid was there before, in split {split!r}. A qid stands for one question in all splits: rename "
        f"or remove one of the two."
    )
