import doctest
import math
import re
import time
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing import subtitles_videoqa
from processing.subtitles_videoqa import (
    Segment,
    Sentence,
    make_segments,
    parse_cue_text,
    read_subtitles,
    segments_of_span,
    split_speaker,
    tidy_sentences,
    to_sentences,
)

SRT = """1
00:00:01,500 --> 00:00:03,000
(Sheldon:)So if a photon
is <i>directed</i>

2
01:00:00.250 --> 01:00:02.000 X1:10 X2:20
Ann: hello &amp; welcome

3
00:00:09,000 --> 00:00:10,000
<b></b>
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE written by hand
over two lines

intro
00:01.500 --> 00:03.000 align:start position:0%
<v Ann>Hi <c.yellow>there</c></v>

STYLE
::cue { color: red }

01:02:03.004 --> 01:02:04.000
<00:01.000>NAR: the telescope
"""


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="clip.srt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(subtitles_videoqa).failed == 0


class TestRead:
    expected_srt = (
        Sentence(1.5, 3.0, "Sheldon", "So if a photon is directed"),
        Sentence(3600.25, 3602.0, "Ann", "hello & welcome"),
    )

    def test_srt(self, write):
        assert read_subtitles(write(SRT)) == list(self.expected_srt)
        assert read_subtitles(str(write(SRT, "CLIP.SRT"))) == list(self.expected_srt)

    @pytest.mark.parametrize(
        "content",
        [
            SRT.replace("\n", "\r\n").encode("utf-8-sig"),
            SRT.replace("\n", "\r").encode(),
            SRT.encode("utf-16"),
            re.sub(r"(?m)^\d\n", "", SRT).encode(),  # no index lines
            SRT.replace("\n\n", "\n").encode(),  # no blank lines
            b"\n\n" + SRT.encode(),
        ],
    )
    def test_srt_as_found_in_the_wild(self, write, content):
        assert read_subtitles(write(content)) == list(self.expected_srt)

    def test_vtt(self, write):
        assert read_subtitles(write(VTT, "clip.vtt")) == [
            Sentence(1.5, 3.0, "Ann", "Hi there"),
            Sentence(3723.004, 3724.0, "NAR", "the telescope"),
        ]

    def test_latin_1_and_curious_characters(self, write):
        (sentence,) = read_subtitles(write("1\n00:00:00,000 --> 00:00:01,000\nCaf\u00e9\x85a\n".encode("latin-1")))
        assert sentence.text == "Caf\u00e9 a"

    def test_a_blank_line_inside_an_srt_text_loses_nothing(self, write):
        (sentence,) = read_subtitles(write("1\n00:00:00,000 --> 00:00:01,000\none\n\n42\n\ntwo\n"))
        assert sentence.text == "one 42 two"

    @pytest.mark.parametrize(
        ("content", "name"), [("", "a.srt"), (" \r\n\n", "a.srt"), ("\ufeff", "a.vtt"), ("WEBVTT\n", "a.vtt")]
    )
    def test_legal_files_without_sentences(self, write, content, name):
        assert read_subtitles(write(content, name)) == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("just prose\n", "no subtitle cue"),
            (bytes(range(256)), "no subtitle cue"),
            (b"\xff\xfe\x00\xd8\x00", "utf-16"),
            ("1\n00:00:01,000 --> 00:00:xx\nHi\n", "line 2"),
            ("1\n00:00:01,000 -> 00:00:02,000\nHi\n", "line 2"),
            ("1\n00:75:01,000 --> 00:76:02,000\nHi\n", "line 2"),
            ("\n1\n00:00:03,000 --> 00:00:02,000\nHi\n", "line 3: the cue ends at 2 s"),
        ],
    )
    def test_unreadable_content_is_told_with_file_and_line(self, write, content, said):
        path = write(content)
        with pytest.raises(ValueError, match=re.escape(said)) as caught:
            read_subtitles(path)
        assert str(path) in str(caught.value)
        assert "Allowed" in str(caught.value)

    def test_what_is_no_subtitle_file(self, write, tmp_path, monkeypatch):
        with pytest.raises(FileNotFoundError, match="Allowed"):
            read_subtitles(tmp_path / "none.srt")
        with pytest.raises(IsADirectoryError, match="folder"):
            read_subtitles(tmp_path)
        with pytest.raises(ValueError, match=r"'\.txt'"):
            read_subtitles(write(SRT, "clip.txt"))
        monkeypatch.setattr(subtitles_videoqa, "MAX_SUBTITLE_BYTES", 10)
        with pytest.raises(ValueError, match="at most 10 bytes"):
            read_subtitles(write(SRT))

    @given(st.binary(max_size=200), st.sampled_from(["a.srt", "a.vtt"]))
    @settings(max_examples=60, deadline=None)
    def test_any_bytes_give_sentences_or_a_value_error(self, tmp_path_factory, content, name):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        try:
            read_subtitles(path)
        except ValueError as error:
            if "Allowed" not in str(error):  # one that escaped from the parser itself
                raise

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 10**8),
                st.integers(0, 10**5),
                st.from_regex(r"[a-z]{1,8}( [a-z]{1,8}){0,3}", fullmatch=True),
            ),
            max_size=5,
        )
    )
    @settings(max_examples=40, deadline=None)
    def test_what_is_written_is_read_back_to_the_millisecond(self, tmp_path_factory, cues):
        def stamp(ms):
            return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

        path = tmp_path_factory.getbasetemp() / "round.srt"
        path.write_text("".join(f"{i}\n{stamp(s)} --> {stamp(s + d)}\n{t}\n\n" for i, (s, d, t) in enumerate(cues, 1)))
        assert read_subtitles(path) == [Sentence(s / 1000, (s + d) / 1000, "", t) for s, d, t in cues]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(Sheldon:)Hello", ("Sheldon", "Hello")),
        ("(Mrs. Wolowitz:) Howard!", ("Mrs. Wolowitz", "Howard!")),
        ("(Sheldon:)", ("Sheldon", "")),
        ("(whispering) Hello", ("", "(whispering) Hello")),
        ("Ann: hello", ("Ann", "hello")),
        ("Man 2: run", ("Man 2", "run")),
        ("O\u2019Hara: so", ("O\u2019Hara", "so")),
        ("\u00c9mile Jean-Paul Roux: oui", ("\u00c9mile Jean-Paul Roux", "oui")),
        ("One Two Three Four: no", ("", "One Two Three Four: no")),
        ("then she said: no", ("", "then she said: no")),
        ("Look at this: no", ("", "Look at this: no")),
        ("Http://a.b", ("", "Http://a.b")),
        ("12:30 is late", ("", "12:30 is late")),
        ("Ann:", ("", "Ann:")),
        ("Sheldon : hello", ("", "Sheldon : hello")),
        ("", ("", "")),
    ],
)
def test_split_speaker(text, expected):
    assert split_speaker(text) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("I <3 you &lt;b&gt;", ("", "I <3 you <b>")),
        (r"{\an8}Up {here}", ("", "Up {here}")),
        ("<v.loud Ann Lee>Hi\nyou</v>", ("Ann Lee", "Hi you")),
        ("<v Ann>Note: hi", ("Ann", "Note: hi")),
        ("Hush <v Bob>Hi", ("", "Hush Bob : Hi")),
        ("<v Ann></v><v Bob>Hi", ("Bob", "Hi")),
        ("<font color='red'>Ann: hi</font>", ("Ann", "hi")),
        ("<v Ann></v>", ("", "")),
    ],
)
def test_parse_cue_text(raw, expected):
    assert parse_cue_text(raw) == expected


class TestToSentences:
    def test_forms(self):
        given_ = [
            {"start": 1, "end": np.float32(2.5), "speaker": "Ann", "text": "hello", "else": 1},
            {"start": np.int64(3), "speaker": None, "text": "you"},
            Sentence(4.0, None, "", "!"),
        ]
        sentences = to_sentences(item for item in given_)
        assert sentences == [(1.0, 2.5, "Ann", "hello"), (3.0, None, "", "you"), (4.0, None, "", "!")]
        assert [sentence.line for sentence in sentences] == ["Ann : hello", "you", "!"]
        assert Sentence(0.0, 1.0, "Ann", "").line == ""

    @pytest.mark.parametrize("value", [math.nan, math.inf, -1, -0.1, True, "1", None, [1]])
    @pytest.mark.parametrize("key", ["start", "end"])
    def test_times_that_are_none(self, key, value):
        if key == "end" and value is None:
            return
        with pytest.raises(ValueError, match=f"Sentence 1 has the {key}.*Allowed"):
            to_sentences([{"start": 0, "text": ""}, {"start": 0, "end": 1, "text": "", key: value}])

    @pytest.mark.parametrize(
        ("items", "said"),
        [
            ([{"text": "no start"}], "Sentence 0 has the start"),
            ([{"start": 2, "end": 1, "text": ""}], "Sentence 0 ends at 1 s"),
            ([{"start": 2}], "Sentence 0 has text None"),
            ([{"start": 2, "text": "a", "speaker": 3}], "speaker 3"),
            ([(1, 2, "a")], "Sentence 0 is a tuple"),
            ({"start": 1, "text": "a"}, "are a dict"),
            ("abc", "are a str"),
            (None, "are a NoneType"),
        ],
    )
    def test_other_mistakes(self, items, said):
        with pytest.raises(ValueError, match=said):
            to_sentences(items)


def sentences_of(*times, texts="abcdefghij"):
    return [Sentence(start, end, "", text) for (start, end), text in zip(times, texts, strict=False)]


class TestTidy:
    def test_missing_ends(self):
        sentences = sentences_of((1, None), (4, None), (4, 5))
        assert [s[:2] for s in tidy_sentences(sentences, 9)] == [(1, 4), (4, 4), (4, 5)]
        assert tidy_sentences(sentences_of((1, None)))[0].end == 1
        assert tidy_sentences(sentences_of((1, None)), 9)[0].end == 9
        assert tidy_sentences([]) == tidy_sentences([], 3.0) == []

    def test_sorting_and_cutting_are_each_told_once(self):
        sentences = sentences_of((8, 12), (1, 2), (11, None), (1, 3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tidied = tidy_sentences(sentences, 10)
        assert tidied == [(1, 2, "", "b"), (1, 3, "", "d"), (8, 10, "", "a"), (10, 10, "", "c")]
        messages = [str(warning.message) for warning in caught]
        assert len(messages) == 2
        assert "2 of 4" in messages[0]
        assert "2 of 4" in messages[1]
        assert caught[0].filename == __file__

    def test_tidy_input_is_left_in_peace(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            once = tidy_sentences(sentences_of((0, 2), (1, 5)), 5)
            assert tidy_sentences(once, 5) == once

    @pytest.mark.parametrize("duration", [math.nan, -1, "9", True, math.inf])
    def test_duration_that_is_none(self, duration):
        with pytest.raises(ValueError, match="duration is"):
            tidy_sentences([], duration)


class TestMakeSegments:
    sentences = (Sentence(2.0, 3.0, "Ann", "Hi"), Sentence(5.0, 6.5, "", "Bye"), Sentence(6.0, 6.2, "", "now"))

    def test_partition(self):
        assert make_segments(self.sentences, 8) == [(0, 5, "Ann : Hi"), (5, 6, "Bye"), (6, 8, "now")]
        assert make_segments(self.sentences)[-1] == Segment(6.0, 6.5, "now")

    def test_subtitle(self):
        segments = make_segments(self.sentences, 8, span="subtitle")
        assert segments == [(2, 3, "Ann : Hi"), (5, 6.5, "Bye"), (6, 6.2, "now")]

    def test_merging_takes_the_shortest_pair_and_of_equal_ones_the_first(self):
        # Lengths 8, 3, 3: the pair (Bye, now) has 6 characters. Then two are left.
        assert make_segments(self.sentences, 8, max_segments=2) == [(0, 5, "Ann : Hi"), (5, 8, "Bye now")]
        merged = make_segments(self.sentences, 8, span="subtitle", max_segments=2)
        assert merged == [(2, 3, "Ann : Hi"), (5, 6.5, "Bye now")]  # the end is the larger one
        assert make_segments(self.sentences, 8, max_segments=1) == [(0, 8, "Ann : Hi Bye now")]
        equal = sentences_of((0, 1), (1, 2), (2, 3), (3, 4))
        assert [s.text for s in make_segments(equal, 4, max_segments=3)] == ["a b", "c", "d"]

    def test_no_sentences(self):
        for span in ("partition", "subtitle"):
            assert make_segments([], 7.5, span) == [(0.0, 7.5, "")]
            assert make_segments([], None, span) == [(0.0, 0.0, "")]

    def test_arguments_that_are_wrong(self):
        with pytest.raises(ValueError, match="span is 'half'"):
            make_segments([], span="half")
        for number in (0, -1, 2.0, True, None):
            with pytest.raises(ValueError, match="max_segments"):
                make_segments([], max_segments=number)

    def test_five_thousand_sentences_are_quick(self):
        many = [Sentence(float(i), i + 1.0, "", "word " * (i * 7919 % 23)) for i in range(5000)]
        began = time.perf_counter()
        assert len(make_segments(many)) == 40
        assert time.perf_counter() - began < 1.0

    texts = st.lists(st.text("ab", max_size=6), min_size=1, max_size=25)

    @given(texts, st.integers(1, 12))
    @settings(max_examples=100, deadline=None)
    def test_merging_is_the_plain_way_made_quick(self, texts, max_segments):
        sentences = [Sentence(float(i), i + 1.0, "", text) for i, text in enumerate(texts)]
        plain = list(texts)
        while len(plain) > max_segments:
            lengths = [len(a) + len(b) for a, b in pairwise(plain)]
            at = lengths.index(min(lengths))
            plain[at : at + 2] = [" ".join(filter(None, plain[at : at + 2]))]
        assert [segment.text for segment in make_segments(sentences, max_segments=max_segments)] == plain

    times = st.lists(st.tuples(st.floats(0, 50), st.one_of(st.none(), st.floats(0, 9))), max_size=12)

    @given(times, st.one_of(st.none(), st.floats(0, 60)), st.integers(1, 6))
    @settings(max_examples=100, deadline=None)
    def test_a_partition_covers_the_clip_without_gap_or_overlap(self, times, duration, max_segments):
        sentences = [Sentence(s, None if d is None else s + d, "", "x") for s, d in times]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segments = make_segments(sentences, duration, max_segments=max_segments)
        assert segments[0].start == 0
        assert all(a.end == b.start for a, b in pairwise(segments))
        assert all(segment.start <= segment.end for segment in segments)
        if duration is not None:
            assert segments[-1].end == duration
        assert sum(segment.text.count("x") for segment in segments) == len(times)
        assert len(segments) <= max_segments


class TestSegmentsOfSpan:
    partition = ((0, 5), (5, 8), (8, 8), (8, 12))

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (0, 12, (0, 3)),
            (5, 8, (1, 1)),  # touching is not overlapping
            (4.9, 5.1, (0, 1)),
            (7, 9, (1, 3)),
            (11, 99, (3, 3)),
            (20, 30, (3, 3)),  # past the clip: the nearest
            (-3, -1, (0, 0)),
            (6, 6, (-100, -100)),
            (6, 5, (-100, -100)),
            (None, 5, (-100, -100)),
            (1, None, (-100, -100)),
            (math.nan, math.nan, (-100, -100)),
        ],
    )
    def test_partition(self, start, end, expected):
        assert segments_of_span(self.partition, start, end) == expected

    def test_nearest_of_subtitles_with_gaps(self):
        times = np.array([[0, 1], [4, 5], [9, 10]], dtype=np.float32)
        assert segments_of_span(times, 1.5, 2) == (0, 0)
        assert segments_of_span(times, 3, 3.5) == (1, 1)
        assert segments_of_span(times, 2, 3) == (0, 0)  # equally near: the earliest
        assert segments_of_span(times, 0.5, 9.5) == (0, 2)
        assert segments_of_span([[3, 3], [7, 7]], 2, 4) == (0, 0)

    @pytest.mark.parametrize("times", [[], [1, 2], [[1, 2, 3]]])
    def test_times_of_another_shape(self, times):
        with pytest.raises(ValueError, match="num_segments, 2"):
            segments_of_span(times, 0, 1)

    @given(st.lists(st.floats(0, 30), min_size=2, max_size=8), st.floats(0, 30), st.floats(0.01, 9))
    @settings(max_examples=100, deadline=None)
    def test_the_segments_found_hold_the_span(self, bounds, start, length):
        bounds = [0.0, *sorted(bounds), 45.0]
        times = np.array(list(pairwise(bounds)))
        first, last = segments_of_span(times, start, start + length)
        assert times[first, 0] <= start
        assert times[last, 1] >= start + length
        assert first <= last
