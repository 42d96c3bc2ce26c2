"""Subtitle files to sentences, sentences to segments, annotated spans to segment numbers.

All times are seconds on the clip's own clock. A clip's sentences cut it into the segments the model reads; the
functions here are pure but for `read_subtitles`, which reads one file.
"""

import heapq
import html
import math
import numbers
import re
import stat
import warnings
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_SUBTITLE_BYTES = 16 * 1024 * 1024  # a day of dense dialogue is under 4 MiB
SUBTITLE_SUFFIXES = (".srt", ".vtt")
SEGMENT_SPANS = ("partition", "subtitle")
NO_SEGMENT = -100  # what a cross-entropy ignores

_STAMP = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIME_LINE = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?")
# A line that was meant as a time line, however broken its arrow is.
_LIKE_TIME_LINE = re.compile(r"-->|^\s*\d+:\d+:\d+[.,]\d+\s*-?>?\s*\d+:\d+")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>", re.IGNORECASE)
# Only what can be a tag: "I <3 you" stays. The second form is a vtt karaoke stamp, the third an srt "{\an8}".
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|\{\\[^}]*\}")
_TVQA_SPEAKER = re.compile(r"\(([^():]{1,40}):\)\s*(.*)", re.DOTALL)
_NAME_WORD = r"[\w'\u2019.\-]+"  # with the straight and the curly apostrophe
_NAMED_SPEAKER = re.compile(rf"({_NAME_WORD}(?: {_NAME_WORD}){{0,2}}):\s+(\S.*)", re.DOTALL)


class Sentence(NamedTuple):
    """One subtitle sentence.

    Args:
        start: when it appears, in seconds.
        end: when it goes, in seconds; None where the source gave starts only.
        speaker: who says it; "" where that is not known.
        text: what is said, on one line.
    """

    start: float
    end: float | None
    speaker: str
    text: str

    @property
    def line(self) -> str:
        """What the model reads: `"Ann : hello"` with a speaker (spaced as TVQA's own subtitles), else the text."""
        return f"{self.speaker} : {self.text}" if self.speaker and self.text else self.text


class Segment(NamedTuple):
    """A stretch of a clip, [start, end] in seconds, and the lines spoken in it."""

    start: float
    end: float
    text: str


def split_speaker(text: str) -> tuple[str, str]:
    """Separates the speaker's name from what is said, where the text begins with one.

    Known are `"(Sheldon:)Hello"`, the form of TVQA's own srt files, and `"Ann: hello"`: at most three capitalised
    words (numbers count, as in "Man 2") right before a colon that a space follows.

    Args:
        text: one sentence without markup.

    Returns:
        The speaker, "" where none is recognised, and the rest of the text.

    Example:
        >>> split_speaker("NAR: This is the telescope.")
        ('NAR', 'This is the telescope.')
        >>> split_speaker("at 10: 30 we leave")
        ('', 'at 10: 30 we leave')
    """
    text = text.strip()
    match = _TVQA_SPEAKER.fullmatch(text)
    if match:
        return match[1].strip(), match[2].strip()
    match = _NAMED_SPEAKER.fullmatch(text)
    if match:
        first, *others = match[1].split(" ")
        if first[0].isupper() and all(word[0].isupper() or word.isdigit() for word in others):
            return match[1], match[2].strip()
    return "", text


def parse_cue_text(raw: str) -> tuple[str, str]:
    """Turns the text of an srt or vtt cue into a speaker and plain text on one line.

    Tags go, entities become characters, white space is joined. A vtt voice (`<v Ann>`) at the start names the
    speaker; a voice later in the same cue is written out as `Bob : ...`, so that nothing said is lost.

    Args:
        raw: the cue's lines, joined by line breaks or spaces.

    Returns:
        The speaker, "" where unknown, and the text, "" where nothing but markup was there.

    Example:
        >>> parse_cue_text("<v Ann>Hi &amp; <i>welcome</i></v> <v Bob>Thanks")
        ('Ann', 'Hi & welcome Bob : Thanks')
    """
    parts = _VOICE.split(raw)  # text before the first voice, then (name, text) of each
    before = _plain(parts[0])
    voices = [(_plain(name), _plain(said)) for name, said in zip(parts[1::2], parts[2::2], strict=True)]
    voices = [(name, said) for name, said in voices if said]
    if not voices:
        return split_speaker(before)
    speaker = ""
    if not before:
        speaker, before = voices.pop(0)
    return speaker, " ".join([before, *(f"{name} : {said}" if name else said for name, said in voices)])


def read_subtitles(path: str | Path) -> list[Sentence]:
    """Reads a `.srt` or `.vtt` file.

    Forgiving where files differ in practice (byte order mark, Windows line ends, "," or "." before the milliseconds,
    hours left out, index lines missing, blank lines in an srt text, latin-1), strict where guessing would move a
    sentence in time. Cues without text are dropped.

    Args:
        path: the file; its suffix, in any case, says the format.

    Returns:
        The sentences in the file's order. An empty srt, and a vtt with nothing but its header, have none.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        ValueError: an unknown suffix, more than `MAX_SUBTITLE_BYTES`, no cue at all in a file that holds something,
            a time line that cannot be read or a cue that ends before it starts (with file and line).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "clip.srt")
        ...     _ = file.write_text("1\\n00:00:01,500 --> 00:00:03,000\\n(Sheldon:)Knock knock.\\n")
        ...     read_subtitles(file)
        [Sentence(start=1.5, end=3.0, speaker='Sheldon', text='Knock knock.')]
    """
    path = Path(path)
    text = _read_text(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # splitlines() also cuts at odd characters
    cues = _cues(lines, path, is_vtt=path.suffix.lower() == ".vtt")
    if not cues and text.strip() and not (path.suffix.lower() == ".vtt" and text.lstrip().startswith("WEBVTT")):
        raise ValueError(
            f"{path} holds no subtitle cue. Allowed: lines such as '00:00:01,000 --> 00:00:02,500', each followed by "
            "its text, or an empty file for a clip without speech. Check that this is the subtitle file."
        )
    sentences = []
    for start, end, raw in cues:
        speaker, said = parse_cue_text(raw)
        if said:
            sentences.append(Sentence(start, end, speaker, said))
    return sentences


def to_sentences(items: Iterable[Mapping | Sentence]) -> list[Sentence]:
    """Checks sentences that come from elsewhere, such as a data set's JSON, and gives them one form.

    Args:
        items: mappings with `start` and `text`, and, where known, `end` and `speaker`; or `Sentence` tuples. Times in
            seconds. Other keys are ignored.

    Returns:
        The sentences, in the order given.

    Raises:
        ValueError: a start or end that is no finite, non-negative number, an end before its start, a missing text,
            an item of another kind. The message names the sentence's index.

    Example:
        >>> to_sentences([{"start": 1, "text": "Hello"}])
        [Sentence(start=1.0, end=None, speaker='', text='Hello')]
    """
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise ValueError(
            f"The sentences are a {type(items).__name__}. Allowed: a list of mappings with start, end, speaker and "
            "text, or of Sentence tuples. Put a single sentence into a list."
        )
    return [_to_sentence(item, index) for index, item in enumerate(items)]


def tidy_sentences(sentences: Iterable[Mapping | Sentence], duration: float | None = None) -> list[Sentence]:
    """Puts sentences into time order, keeps them inside the clip and fills the ends that are missing.

    A missing end becomes the start of the next sentence, the last one the clip's end (its own start where that is not
    known). A sentence that starts after the clip has ended keeps its text and has zero length at the clip's end.
    Sorting (stable) and cutting are each told by one warning a call.

    Args:
        sentences: anything that `to_sentences` takes.
        duration: the clip's length in seconds; None where it is not known, and nothing is cut.

    Returns:
        Sentences with ascending starts, every end set.

    Raises:
        ValueError: a sentence or a duration that is not sound.

    Example:
        >>> [s[:2] for s in tidy_sentences([{"start": 1, "text": "a"}, {"start": 4, "text": "b"}], duration=9)]
        [(1.0, 4.0), (4.0, 9.0)]
    """
    sentences = to_sentences(sentences)
    duration = _checked_duration(duration)
    in_order = sorted(sentences, key=lambda sentence: sentence.start)
    moved = sum(1 for before, after in pairwise(sentences) if after.start < before.start)
    if moved:
        warnings.warn(
            f"{moved} of {len(sentences)} subtitle sentences start before the one in front of them; they were sorted "
            "by start. Check the source where the order was meant.",
            stacklevel=2,
        )
    limit = math.inf if duration is None else duration
    late = sum(1 for sentence in in_order if max(sentence.start, sentence.end or 0.0) > limit)
    if late:
        warnings.warn(
            f"{late} of {len(sentences)} subtitle sentences reach past the clip's end at {duration:g} s; they were "
            "cut there. Check that the subtitles belong to this clip, and that both use seconds.",
            stacklevel=2,
        )
    starts = [min(sentence.start, limit) for sentence in in_order]
    next_starts = [*starts[1:], duration if duration is not None else starts[-1]] if starts else []
    return [
        sentence._replace(start=start, end=following if sentence.end is None else min(sentence.end, limit))
        for sentence, start, following in zip(in_order, starts, next_starts, strict=True)
    ]


def make_segments(
    sentences: Iterable[Mapping | Sentence],
    duration: float | None = None,
    span: str = "partition",
    max_segments: int = 40,
) -> list[Segment]:
    """Cuts a clip into segments along its subtitle sentences.

    With `span="partition"` segment t runs from the start of sentence t to the start of sentence t + 1; the first
    begins at 0, the last ends with the clip. With `span="subtitle"` it is the sentence's own [start, end]. Where there
    are more than `max_segments`, the neighbours with the shortest text together are merged, again and again (the
    earliest where two pairs are equally short), until that many are left. No text is lost.

    Args:
        sentences: anything that `to_sentences` takes; they are tidied first.
        duration: the clip's length in seconds. None: the clip ends with the last end of any sentence.
        span: "partition" or "subtitle".
        max_segments: the most segments wanted, at least 1.

    Returns:
        At least one segment; without sentences a single one over the whole clip with empty text.

    Raises:
        ValueError: an unknown span, a `max_segments` below 1, or what `tidy_sentences` raises.

    Example:
        >>> make_segments([{"start": 2, "speaker": "Ann", "text": "Hi"}, {"start": 5, "text": "Bye"}], duration=8)
        [Segment(start=0.0, end=5.0, text='Ann : Hi'), Segment(start=5.0, end=8.0, text='Bye')]
    """
    check_span(span)
    if isinstance(max_segments, bool) or not isinstance(max_segments, numbers.Integral) or max_segments < 1:
        raise ValueError(
            f"max_segments is {max_segments!r}. Allowed: a whole number from 1. Pass max_segments=40, the paper's."
        )
    sentences = tidy_sentences(sentences, duration)
    duration = _checked_duration(duration)
    if not sentences:
        return [Segment(0.0, duration or 0.0, "")]
    if span == "partition":
        clip_end = max(sentence.end for sentence in sentences) if duration is None else duration
        bounds = [0.0, *(sentence.start for sentence in sentences[1:]), clip_end]
        times = list(pairwise(bounds))
    else:
        times = [(sentence.start, sentence.end) for sentence in sentences]
    segments = [Segment(*time, sentence.line) for time, sentence in zip(times, sentences, strict=True)]
    return _merge_shortest(segments, max_segments)


def segments_of_span(segments_times: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """Finds the segments that an annotated span covers, the targets of temporal localization.

    Args:
        segments_times: starts and ends of the segments in seconds, (num_segments, 2).
        start: where the span begins, in seconds; None or NaN where it is not annotated.
        end: where it ends.

    Returns:
        Index of the first and of the last segment that share more than a single instant with the span. Where none
        does, the nearest one twice (the earliest of equally near ones). (-100, -100) where the span is not valid:
        unknown, not finite, or without length.

    Raises:
        ValueError: the times are not (num_segments, 2) with at least one segment.

    Example:
        >>> segments_of_span([[0, 5], [5, 8], [8, 9]], 6.0, 20.0)
        (1, 2)
    """
    times = np.asarray(segments_times, dtype=np.float64)
    if times.ndim != 2 or times.shape[1] != 2 or not len(times):
        raise ValueError(
            f"The segment times have shape {times.shape}. Allowed: (num_segments, 2) with at least one segment, "
            "start and end in seconds. Build them from make_segments."
        )
    if start is None or end is None or not (math.isfinite(start) and math.isfinite(end)) or end <= start:
        return NO_SEGMENT, NO_SEGMENT
    starts, ends = times.T
    (shared,) = np.nonzero(np.minimum(ends, end) > np.maximum(starts, start))
    if len(shared):
        return int(shared[0]), int(shared[-1])
    gaps = np.maximum(np.maximum(starts - end, start - ends), 0.0)
    nearest = int(np.argmin(gaps))  # the first of equal ones
    return nearest, nearest


def check_span(span: str) -> None:
    """Refuses a `segment_span` that is neither "partition" nor "subtitle".

    Args:
        span: the value to check.

    Raises:
        ValueError: it is another one.

    Example:
        >>> check_span("partition")
    """
    if span not in SEGMENT_SPANS:
        raise ValueError(
            f"The segment span is {span!r}. Allowed: {', '.join(map(repr, SEGMENT_SPANS))}. Use 'partition' for "
            "segments that cover the clip, 'subtitle' for the sentences' own times."
        )


def _plain(raw: str) -> str:
    # Entities last: a "&lt;b&gt;" is text about a tag, not a tag.
    return " ".join(html.unescape(_TAG.sub("", raw)).split())


def _read_text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(
            f"There is no subtitle file {path}. Allowed: an existing .srt or .vtt file. Check the path, or leave the "
            "subtitles out where the clip has none."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Allowed: one .srt or .vtt file. Name the file inside it.")
    if path.suffix.lower() not in SUBTITLE_SUFFIXES:
        raise ValueError(
            f"{path} has the suffix {path.suffix!r}. Allowed: {' and '.join(SUBTITLE_SUFFIXES)}. Convert the file, or "
            "pass sentences as a list of mappings."
        )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SUBTITLE_BYTES:
        raise ValueError(
            f"{path} is no ordinary file of subtitles: {status.st_size} bytes. Allowed: a regular file of at most "
            f"{MAX_SUBTITLE_BYTES} bytes. Check that the suffix is true, or split the file."
        )
    raw = path.read_bytes()
    encodings = ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(
        f"{path} begins as utf-16 text and does not go on as such. Allowed: utf-8, utf-16 with its mark, latin-1. "
        "Save the file as utf-8."
    )


def _cues(lines: list[str], path: Path, is_vtt: bool) -> list[tuple[float, float, str]]:
    """(start, end, raw text) of each cue: its text reaches to the next time line (srt) or blank line (vtt)."""
    time_lines = [number for number, line in enumerate(lines) if _LIKE_TIME_LINE.search(line)]
    cues = []
    for number, following in pairwise([*time_lines, len(lines)]):
        start, end = _cue_times(lines[number], f"{path}, line {number + 1}")
        body = lines[number + 1 : following]
        if is_vtt:
            blank = next((place for place, line in enumerate(body) if not line.strip()), None)
            body = body[:blank]
        elif following < len(lines) and body and body[-1].strip().isdecimal():
            body = body[:-1]  # the index line of the next cue
        cues.append((start, end, " ".join(body)))
    return cues


def _cue_times(line: str, place: str) -> tuple[float, float]:
    match = _TIME_LINE.fullmatch(line)
    if not match:
        raise ValueError(
            f"{place}: the time line {line.strip()[:80]!r} cannot be read. Allowed: '00:01:02,500 --> 00:01:04,000', "
            "hours and milliseconds may be missing, minutes and seconds stay below 60. Correct that line."
        )
    start, end = _milliseconds(*match.groups()[:4]), _milliseconds(*match.groups()[4:])
    if end < start:
        raise ValueError(
            f"{place}: the cue ends at {end / 1000:g} s, before its start at {start / 1000:g} s. Allowed: an end at "
            "or after the start. Correct that line."
        )
    return start / 1000, end / 1000


def _milliseconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> int:
    # Whole milliseconds, divided once: adding up float parts would miss the nearest float to the time written.
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * 1000 + int((fraction or "").ljust(3, "0"))


def _to_sentence(item: Mapping | Sentence, index: int) -> Sentence:
    if isinstance(item, Sentence):
        item = item._asdict()
    if not isinstance(item, Mapping):
        raise ValueError(
            f"Sentence {index} is a {type(item).__name__}. Allowed: a mapping with start, end, speaker and text, or a "
            "Sentence. Convert it."
        )
    start = _checked_time(item.get("start"), "start", index)
    end = None if item.get("end") is None else _checked_time(item["end"], "end", index)
    if end is not None and end < start:
        raise ValueError(
            f"Sentence {index} ends at {end:g} s, before its start at {start:g} s. Allowed: an end at or after the "
            "start, or None. Correct its times."
        )
    text, speaker = item.get("text"), item.get("speaker")
    if not isinstance(text, str) or not isinstance(speaker, (str, type(None))):
        raise ValueError(
            f"Sentence {index} has text {text!r} and speaker {speaker!r}. Allowed: a string as text, a string or "
            "nothing as speaker. Correct it, or leave the sentence out."
        )
    return Sentence(start, end, speaker or "", text)


def _number(value: object) -> float:
    """The value as a float, NaN for what is none: text, a bool, an int of hundreds of digits."""
    try:
        return math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    except OverflowError:
        return math.nan


def _checked_time(value: object, name: str, index: int) -> float:
    number = _number(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(
            f"Sentence {index} has the {name} {value!r:.80}. Allowed: seconds as a finite number from 0 (an end may be "
            "None). Convert the value, or leave the sentence out."
        )
    return number


def _checked_duration(duration: float | None) -> float | None:
    if duration is None:
        return None
    number = _number(duration)
    if not math.isfinite(number) or number < 0:
        raise ValueError(
            f"The clip's duration is {duration!r:.80}. Allowed: seconds as a finite number from 0, or None where it is "
            "not known. Read it from the video, or pass None."
        )
    return number


def _merge_shortest(segments: list[Segment], max_segments: int) -> list[Segment]:
    # A heap of pairs over a linked list: n log n. A pair whose length no longer fits what stands there is stale: one
    # of its two has been merged since, and merging only makes texts longer or (with empty ones) leaves them the same.
    merged: list[Segment | None] = list(segments)
    after = list(range(1, len(segments) + 1))
    before = list(range(-1, len(segments) - 1))

    def pair(left: int) -> tuple[int, int, int]:
        right = after[left]
        return len(merged[left].text) + len(merged[right].text), left, right

    heap = [pair(left) for left in range(len(segments) - 1)]
    heapq.heapify(heap)
    surplus = len(segments) - max_segments
    while surplus > 0:
        entry = heapq.heappop(heap)
        _, left, right = entry
        if merged[left] is None or merged[right] is None or entry != pair(left):
            continue
        first, second = merged[left], merged[right]
        text = " ".join(text for text in (first.text, second.text) if text)
        merged[left], merged[right] = Segment(first.start, max(first.end, second.end), text), None
        after[left] = after[right]
        if after[left] < len(merged):
            before[after[left]] = left
            heapq.heappush(heap, pair(left))
        if before[left] >= 0:
            heapq.heappush(heap, pair(before[left]))
        surplus -= 1
    return [segment for segment in merged if segment is not None]
