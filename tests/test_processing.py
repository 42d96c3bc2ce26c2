"""Rows, alignment, bad input, saving and answers of the processor, on texts in which every word is one token."""

import inspect
import json
import math
import re
import warnings
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, BertTokenizer, ConvNextImageProcessorPil, ResNetConfig

from modeling_videoqa import VideoQAForMultipleChoice, VideoQAOutput
from processing import Sentence, VideoQACollator, VideoQAProcessor, processing_videoqa
from processing.processing_videoqa import INPUT_FIELDS, best_spans
from processing.rows_videoqa import truncate
from processing.video_videoqa import probe_video, read_subtitle_track

NASA = Path(__file__).parents[1].parent / "shared/real/video/nasa_13013.mp4"
QUESTION, CHOICES = "who opens the door", ["the man", "penny", "his phone"]
# Cuts a clip of six seconds into [0, 4] and [4, 6].
SENTENCES = [
    {"start": 1.0, "end": 2.0, "speaker": "penny", "text": "the red cup"},
    {"start": 4.0, "end": 5.0, "speaker": "", "text": "who closes it"},
]


@pytest.fixture(scope="module")
def make_processor(tiny_tokenizer):
    def make(**fields):
        return VideoQAProcessor(
            tiny_tokenizer,
            **{"num_frames": 2, "max_segments": 4, "max_text_length": 24, "video_feature_size": 3} | fields,
        )

    return make


@pytest.fixture(scope="module")
def processor(make_processor):
    return make_processor()


@pytest.fixture(scope="module")
def as_they_are():
    """An image processor that leaves pictures as they are, but for the order of the axes."""
    return ConvNextImageProcessorPil(do_resize=False, do_rescale=False, do_normalize=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds, ten frames a second; frame k is one flat grey of level 8 k."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, (32, 48)), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def picture(number, size=(4, 4)):
    return np.full((*size, 3), 8 * number, np.uint8)


def shown(pixels):
    """The frame numbers that `pixel_values` (..., 3, H, W) of such pictures show; 0 for a frame that is not there."""
    return torch.round(pixels.double().mean(dim=(-3, -2, -1)) / 8).int().tolist()


def frames_of(features):
    """Frame numbers where frame k has the features (k, k, k)."""
    return features[..., 0].int().tolist()


def numbered(times):
    """Features that say which frame they are of, and their times."""
    return {"video_features": np.repeat(np.arange(len(times)), 3).reshape(-1, 3), "frame_times": np.array(times)}


def row(processor, batch, question=0, choice=0, segment=0):
    """One text row without its padding, as words, and the token types as digits."""
    place = question, choice, segment
    real = batch["attention_mask"][place].bool()
    tokens = processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][place][real].tolist())
    return " ".join(tokens), "".join(map(str, batch["token_type_ids"][place][real].tolist()))


def texts(processor, batch):
    """The rows of the first choice of the first question."""
    return [row(processor, batch, segment=t)[0] for t in range(batch["input_ids"].shape[2])]


@contextmanager
def refused(came, error=ValueError):
    """An error in three parts: what came (a regular expression), what is allowed, what to do."""
    with pytest.raises(error) as caught:
        yield
    said, allowed, rest = str(caught.value).partition("Allowed")
    assert re.search(came, said), said
    assert re.search(r"\S{2}.*\. [A-Z].*\.$", allowed and rest, re.DOTALL), str(caught.value)


def test_the_examples_in_the_docstrings_hold(failed_examples):
    assert failed_examples(processing_videoqa) == 0


class TestRowLayout:
    def test_four_texts(self, processor):
        batch = processor(
            QUESTION, CHOICES, SENTENCES[:1], objects=[{"time": 0.5, "labels": ["cup", "table"]}], duration=3.0
        )
        assert row(processor, batch) == (
            "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP] cup table [SEP]",
            "000000" + "111" + "222222" + "333",
        )
        assert row(processor, batch, choice=1) == (
            "[CLS] who opens the door [SEP] penny [SEP] penny : the red cup [SEP] cup table [SEP]",
            "000000" + "11" + "222222" + "333",
        )

    def test_padding_is_empty(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES[:1])
        assert batch["attention_mask"][0, :, 0].sum(1).tolist() == [15, 14, 15]
        for name, filling in (("input_ids", processor.tokenizer.pad_token_id), ("token_type_ids", 0)):
            assert batch[name][0, 1, 0, 14:].tolist() == [filling]

    def test_without_objects_the_fourth_text_and_its_sep_are_left_out(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES[1:])
        assert row(processor, batch) == (
            "[CLS] who opens the door [SEP] the man [SEP] who closes it [SEP]",
            "0" * 6 + "1" * 3 + "2" * 4,
        )

    def test_an_empty_subtitle_keeps_its_sep(self, processor):
        batch = processor(QUESTION, CHOICES, duration=3.0)
        assert row(processor, batch) == ("[CLS] who opens the door [SEP] the man [SEP] [SEP]", "0" * 6 + "1" * 3 + "2")
        batch = processor(QUESTION, CHOICES, duration=3.0, objects=[{"time": 0.0, "labels": ["cup"]}])
        assert row(processor, batch) == (
            "[CLS] who opens the door [SEP] the man [SEP] [SEP] cup [SEP]",
            "0" * 6 + "1" * 3 + "2" + "3" * 2,
        )

    def test_a_speaker_is_part_of_the_sentence_and_none_leaves_no_trace(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES)
        assert [text.split(" [SEP] ")[2] for text in texts(processor, batch)] == [
            "penny : the red cup [SEP]", "who closes it [SEP]",
        ]  # fmt: skip

    def test_the_names_of_special_tokens_in_a_text_are_letters(self, make_processor):
        said = "[SEP] [MASK] [CLS]"
        processor = make_processor(max_text_length=100)
        tokenizer = processor.tokenizer
        batch = processor(
            f"who {said}", [f"the {said}", "his"], [{"start": 0, "end": 2, "text": said}],
            objects=[{"time": 0.0, "labels": [said]}],
        )  # fmt: skip
        for choice in range(2):
            ids = batch["input_ids"][0, choice, 0].tolist()
            types = batch["token_type_ids"][0, choice, 0].tolist()
            assert [types[place] for place, token in enumerate(ids) if token == tokenizer.sep_token_id] == [0, 1, 2, 3]
            assert ids.count(tokenizer.cls_token_id) == 1
            assert tokenizer.mask_token_id not in ids

    def test_several_questions_of_different_sizes(self, processor):
        batch = processor(
            [QUESTION, "who says it"], [CHOICES, ["he", "she", "bernard"]], [SENTENCES, None], duration=[6.0, 9.0]
        )
        assert batch["segment_mask"].tolist() == [[True, True], [True, False]]
        assert row(processor, batch, 1, 2)[0] == "[CLS] who says it [SEP] bernard [SEP] [SEP]"
        assert row(processor, batch, 0, 2, 1)[0] == "[CLS] who opens the door [SEP] his phone [SEP] who closes it [SEP]"
        assert batch["attention_mask"][1, :, 1].sum() == 0
        assert batch["segment_times"].tolist() == [[[1, 2], [4, 5]], [[0, 9], [0, 0]]]


def plain_row(question, choice, subtitle, object_, limit):
    """One row and its token types, cut one token at a time: `c` is [CLS], `s` is [SEP]."""
    question, choice, subtitle, object_ = map(list, (question, choice, subtitle, object_))
    while True:
        kinds = [(["c", *question, "s"], 0), ([*choice, "s"], 1), ([*subtitle, "s"], 2)]
        kinds += [([*object_, "s"], 3)] if object_ else []
        tokens = [token for part, _ in kinds for token in part]
        if len(tokens) <= limit:
            return tokens, [kind for part, kind in kinds for _ in part]
        next(part for part in (object_, subtitle, question, choice) if part).pop()


class TestTruncation:
    # Question 4, answer 2, sentence 5, objects 3: whole, the row has 1 + 5 + 3 + 6 + 4 = 19 tokens.
    @pytest.mark.parametrize(
        ("limit", "expected"),
        [
            (19, "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP] cup table book [SEP]"),
            (18, "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP] cup table [SEP]"),
            (17, "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP] cup [SEP]"),
            (16, "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP]"),
            (15, "[CLS] who opens the door [SEP] the man [SEP] penny : the red cup [SEP]"),
            (14, "[CLS] who opens the door [SEP] the man [SEP] penny : the red [SEP]"),
            (10, "[CLS] who opens the door [SEP] the man [SEP] [SEP]"),
            (9, "[CLS] who opens the [SEP] the man [SEP] [SEP]"),
            (7, "[CLS] who [SEP] the man [SEP] [SEP]"),
        ],
    )
    def test_objects_then_subtitle_then_question(self, make_processor, limit, expected):
        processor = make_processor(max_text_length=limit)
        objects = [{"time": 0.5, "labels": ["cup", "table", "book"]}]
        batch = processor(QUESTION, ["the man", "he"], SENTENCES[:1], objects)
        assert row(processor, batch)[0] == expected

    def test_the_answer_only_where_it_alone_exceeds_the_row(self, make_processor):
        processor = make_processor(max_text_length=10)
        batch = processor(QUESTION, ["he puts the cup on the table", "he puts it on the table"], SENTENCES[:1])
        assert row(processor, batch)[0] == "[CLS] [SEP] he puts the cup on the [SEP] [SEP]"
        assert row(processor, batch, choice=1)[0] == "[CLS] [SEP] he puts it on the table [SEP] [SEP]"

    @given(lengths=st.lists(st.integers(0, 20), min_size=4, max_size=4), limit=st.integers(7, 60))
    @settings(max_examples=200, deadline=None)
    def test_agrees_with_cutting_one_token_at_a_time(self, lengths, limit):
        kept = [int(part[0]) for part in truncate(*np.array(lengths)[:, None], max_text_length=limit)]
        tokens, types = plain_row(*([kind] * length for kind, length in enumerate(lengths)), limit)
        assert kept == [tokens.count(kind) for kind in range(4)]
        assert 4 + sum(kept) + (kept[3] > 0) == len(types) <= limit

    @given(drawn=st.data(), limit=st.integers(7, 24))
    @settings(max_examples=60, deadline=None)
    def test_whole_batches_agree_with_a_plain_loop(self, make_processor, drawn, limit):
        processor = make_processor(max_text_length=limit)
        examples = drawn.draw(tokenized_examples())
        batch = processor.pad(examples)
        ids = {"c": processor.tokenizer.cls_token_id, "s": processor.tokenizer.sep_token_id}
        expected = {}
        for b, example in enumerate(examples):
            for n, choice in enumerate(example["choice_ids"]):
                question = example["question_ids"][n % len(example["question_ids"])]
                for t, pieces in enumerate(zip(example["subtitle_ids"], example["object_ids"], strict=True)):
                    tokens, types = plain_row(question, choice, *pieces, limit)
                    expected[b, n, t] = [ids.get(token, token) for token in tokens], types
        longest = max(len(types) for _, types in expected.values())
        assert batch["input_ids"].shape[3] == longest <= limit
        for place in np.ndindex(*batch["input_ids"].shape[:3]):
            tokens, types = expected.get(place, ([], []))
            padding = [0] * (longest - len(types))
            assert batch["input_ids"][place].tolist() == tokens + [processor.tokenizer.pad_token_id] * len(padding)
            assert batch["token_type_ids"][place].tolist() == types + padding
            assert batch["attention_mask"][place].tolist() == [1] * len(types) + padding
            assert bool(batch["segment_mask"][place[0], place[2]]) == (place in expected)


@st.composite
def tokenized_examples(draw):
    """One to three questions with the same number of choices, as `prepare_question` and `prepare_clip` leave them."""

    def pieces(count):
        return draw(st.lists(st.lists(st.integers(5, 100), max_size=9), min_size=count, max_size=count))

    num_choices, examples = draw(st.integers(2, 4)), []
    for _ in range(draw(st.integers(1, 3))):
        num_segments = draw(st.integers(1, 3))
        examples.append(
            {
                # One question for all choices, or, in pre-training, one for each.
                "question_ids": pieces(draw(st.sampled_from([1, num_choices]))),
                "choice_ids": pieces(num_choices),
                "subtitle_ids": pieces(num_segments),
                "object_ids": pieces(num_segments),
                "segment_times": np.zeros((num_segments, 2)),
                "sentence_times": np.zeros((num_segments, 2), np.float32),
            }
        )
    return examples


class CountingTokenizer:
    """A tokenizer that counts the texts that reach it."""

    def __init__(self, tokenizer):
        self._tokenizer, self.texts = tokenizer, Counter()

    def __call__(self, texts, **options):
        self.texts.update([texts] if isinstance(texts, str) else texts)
        return self._tokenizer(texts, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_each_text_is_tokenized_once(make_processor):
    processor = make_processor()
    processor.tokenizer = CountingTokenizer(processor.tokenizer)
    processor(
        QUESTION, CHOICES, SENTENCES, objects=[{"time": 0.5, "labels": ["book"]}, {"time": 4.5, "labels": ["chair"]}]
    )
    seen = processor.tokenizer.texts
    assert {text: count for text, count in seen.items() if text} == dict.fromkeys(
        [QUESTION, *CHOICES, "penny : the red cup", "who closes it", "book", "chair"], 1
    )


class TestAlignment:
    def test_frames_as_features(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES, duration=6.0, **numbered(np.arange(12) / 2))
        # Centres of the halves of [0, 4]: 1 and 3 seconds; of [4, 6]: 4.5 and 5.5.
        assert frames_of(batch["video_features"]) == [[[2, 6], [9, 11]]]
        assert batch["frame_mask"].all()
        assert batch["segment_times"].tolist() == [[[1, 2], [4, 5]]]  # the sentences' own times

    def test_a_segment_without_frames(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES, duration=6.0, **numbered([0.5, 1.5, 3.5]))
        assert frames_of(batch["video_features"]) == [[[0, 2], [0, 0]]]
        assert batch["frame_mask"].tolist() == [[[True, True], [False, False]]]
        assert batch["video_features"][0, 1].abs().sum() == 0

    def test_a_segment_with_fewer_frames(self, processor):
        batch = processor(QUESTION, CHOICES, SENTENCES, duration=6.0, **numbered([0.5, 1.5, 3.5, 4.1]))
        assert frames_of(batch["video_features"])[0][1] == [3, 0]
        assert batch["frame_mask"].tolist()[0][1] == [True, False]

    def test_segments_of_the_sentences_own_times(self, make_processor):
        processor = make_processor(segment_span="subtitle")
        batch = processor(QUESTION, CHOICES, SENTENCES, duration=6.0, **numbered(np.arange(12) / 2))
        assert batch["segment_times"].tolist() == [[[1, 2], [4, 5]]]
        assert frames_of(batch["video_features"]) == [[[2, 3], [8, 9]]]  # centres 1.25 and 1.75: the earlier of two

    def test_no_frames_at_all(self, processor):
        batch = processor(
            QUESTION, CHOICES, SENTENCES, duration=6.0, **numbered([]) | {"video_features": np.zeros((0, 3))}
        )
        assert batch["frame_mask"].tolist() == [[[False, False], [False, False]]]
        assert "video_features" not in processor(QUESTION, CHOICES, SENTENCES)

    def test_objects_stand_in_frame_order_and_repeats_within_a_segment_are_dropped(self, processor):
        objects = [
            {"time": 4.5, "labels": ["cup"]},
            {"time": 0.5, "labels": ["cup", "table", "cup"]},
            {"time": 3.5, "labels": ["table", "book"]},
        ]
        batch = processor(QUESTION, CHOICES, SENTENCES, objects, duration=6.0)
        assert [text.split(" [SEP] ")[3] for text in texts(processor, batch)] == ["cup table book [SEP]", "cup [SEP]"]

    def test_objects_of_the_frames_that_a_segment_has(self, processor):
        objects = [{"time": time / 2, "labels": [str(time)]} for time in range(12)]
        batch = processor(QUESTION, CHOICES, SENTENCES, objects, duration=6.0)
        assert [text.split(" [SEP] ")[3] for text in texts(processor, batch)] == ["2 6 [SEP]", "9 1 ##1 [SEP]"]

    def test_more_sentences_than_segments_are_merged_without_loss(self, make_processor):
        processor = make_processor(max_segments=2, max_text_length=40)
        said = ["the red cup is on the table", "who", "the man", "he closes the blue door to his house"]
        sentences = [{"start": 2 * t, "end": 2 * t + 1, "text": text} for t, text in enumerate(said)]
        batch = processor(QUESTION, CHOICES, sentences, duration=9.0)
        # Shortest pair first: "who" and "the man", then these and the first.
        assert [text.split(" [SEP] ")[2] for text in texts(processor, batch)] == [
            "the red cup is on the table who the man [SEP]", "he closes the blue door to his house [SEP]",
        ]  # fmt: skip
        assert batch["segment_times"].tolist() == [[[0, 5], [6, 7]]]

    def test_no_subtitles(self, processor):
        for subtitles in (None, []):
            batch = processor(QUESTION, CHOICES, subtitles, duration=6.0, **numbered([0.0, 1.0, 5.0]))
            assert batch["segment_times"].tolist() == [[[0, 6]]]
            assert frames_of(batch["video_features"]) == [[[1, 2]]]

    def test_the_duration_is_given_or_follows_from_the_last_sentence(self, processor):
        times = [processor.prepare_clip(SENTENCES, duration=end)["segment_times"][-1].tolist() for end in (9.5, None)]
        assert times == [[4, 9.5], [4, 5]]
        batch = processor(QUESTION, CHOICES, **numbered([0.0, 1.0, 5.0]))  # nothing says how long the clip is
        assert frames_of(batch["video_features"]) == [[[1, 2]]]

    def test_a_sentence_past_the_end_is_told_and_kept(self, processor):
        with pytest.warns(UserWarning, match="reach past the clip's end at 3 s"):
            batch = processor(QUESTION, CHOICES, SENTENCES, duration=3.0)
        assert batch["segment_times"].tolist() == [[[1, 2], [3, 3]]]
        assert "who closes it" in texts(processor, batch)[1]

    def test_subtitles_from_a_file(self, processor, tmp_path):
        (tmp_path / "clip.srt").write_text(
            "1\n00:00:01,000 --> 00:00:02,000\n(penny:)the red cup\n\n2\n00:00:04,000 --> 00:00:05,000\nwho closes it\n"
        )
        from_file, from_list = (
            processor(QUESTION, CHOICES, subtitles, duration=6.0) for subtitles in (tmp_path / "clip.srt", SENTENCES)
        )
        assert equal(from_file, from_list)

    @given(
        times=st.lists(st.integers(0, 100), max_size=12).map(lambda ticks: np.sort(ticks) / 8),
        starts=st.lists(st.integers(0, 80), min_size=1, max_size=6).map(lambda ticks: np.sort(ticks) / 8),
        span=st.sampled_from(["partition", "subtitle"]),
    )
    @settings(max_examples=25, deadline=None)
    def test_features_and_pictures_give_the_same_frames(self, make_processor, as_they_are, times, starts, span):
        processor = make_processor(segment_span=span, frame_preprocessing=as_they_are)
        sentences = [{"start": start, "end": start + 1, "text": "cup"} for start in starts]
        numbers = numbered(times)["video_features"] + 1
        features = processor.prepare_clip(sentences, video_features=numbers, frame_times=times)
        frames = np.array([picture(number[0]) for number in numbers], np.uint8).reshape(-1, 4, 4, 3)
        pictures = processor.prepare_clip(sentences, frames=frames, frame_times=times)
        assert np.array_equal(features["frame_mask"], pictures["frame_mask"])
        assert (
            shown(torch.from_numpy(pictures["pixel_values"])) == features["video_features"][..., 0].astype(int).tolist()
        )


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class TestVideo:
    @pytest.fixture
    def processor(self, make_processor, as_they_are):
        return make_processor(frame_rate=None, frame_preprocessing=as_they_are)

    def sentences(self, *starts, length=0.5):
        return [{"start": start, "end": start + length, "text": "the cup"} for start in starts]

    def test_pixel_values_of_the_right_frames(self, processor, video):
        batch = processor(QUESTION, CHOICES, self.sentences(0.25, 1.0), video=video)
        # Frames every 0.1 s; the centres of the halves of [0, 1] are 0.25 and 0.75, the earlier of two frames is taken.
        assert shown(batch["pixel_values"]) == [[[2, 7], [12, 17]]]
        assert batch["pixel_values"].shape == (1, 2, 2, 3, 32, 48)
        assert batch["segment_times"].tolist() == [[[0.25, 0.75], [1.0, 1.5]]]

    def test_the_clip_lasts_as_long_as_the_video_unless_told(self, processor, video):
        sentences = self.sentences(0.25, 1.0)
        assert processor.prepare_clip(sentences, video=video)["segment_times"].tolist() == [[0, 1], [1, 2]]
        assert processor.prepare_clip(sentences, video=video, duration=3.0)["segment_times"].tolist() == [
            [0, 1],
            [1, 3],
        ]

    def test_candidates_at_the_frame_rate(self, make_processor, as_they_are, video):
        processor = make_processor(frame_rate=3.0, frame_preprocessing=as_they_are)
        # On screen at 0, 1/3, 2/3, ... seconds are the frames 0, 3, 6, 10, 13, 16.
        batch = processor(QUESTION, CHOICES, self.sentences(0.25, 1.0), video=str(video))
        assert shown(batch["pixel_values"]) == [[[3, 6], [13, 16]]]

    def test_the_same_frames_as_from_features(self, processor, video):
        times = probe_video(video).frame_times
        sentences = self.sentences(0.3, 0.45, 1.3)
        of_video = processor(QUESTION, CHOICES, sentences, video=video)
        of_features = processor(QUESTION, CHOICES, sentences, duration=2.0, **numbered(times))
        assert shown(of_video["pixel_values"]) == frames_of(of_features["video_features"])
        assert torch.equal(of_video["frame_mask"], of_features["frame_mask"])

    def test_no_frame_falls_into_a_segment(self, make_processor, as_they_are, video):
        processor = make_processor(frame_rate=None, segment_span="subtitle", frame_preprocessing=as_they_are)
        batch = processor(QUESTION, CHOICES, self.sentences(0.31, length=0.05), video=video)
        assert batch["frame_mask"].tolist() == [[[False, False]]]
        assert batch["pixel_values"].shape == (1, 1, 2, 3, 32, 48)

    def test_a_clip_without_a_video_beside_one_with(self, processor, video):
        batch = processor(
            [QUESTION] * 2, [CHOICES] * 2, [self.sentences(0.25), self.sentences(0.25, 1.0)], video=[None, video]
        )
        assert batch["pixel_values"].shape == (2, 2, 2, 3, 32, 48)
        assert batch["frame_mask"].sum((1, 2)).tolist() == [0, 4]
        assert batch["pixel_values"][0].abs().sum() == 0

    def test_pictures_three_pixels_high_are_not_turned(self, processor):
        frames = np.zeros((2, 3, 8, 3), np.uint8)
        frames[..., 0] = 255  # red
        batch = processor(QUESTION, CHOICES, frames=frames, frame_times=[0.0, 1.0], duration=2.0)
        assert batch["pixel_values"].shape == (1, 1, 2, 3, 3, 8)
        assert batch["pixel_values"].amin(dim=(0, 1, 2, 4, 5)).tolist() == [255, 0, 0]

    def test_the_model_sees_pictures_as_it_sees_their_features(self, make_processor, make_model, video):
        images = ConvNextImageProcessorPil(size={"shortest_edge": 32}, do_normalize=False)
        backbone = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")
        model = make_model(vision_config=backbone.to_dict(), video_feature_size=6, max_text_length=24)
        processor = make_processor(frame_rate=None, video_feature_size=6, frame_preprocessing=images)
        batch = processor(QUESTION, CHOICES, self.sentences(0.25, 1.0), video=video)
        with torch.no_grad():
            of_pictures = model(**batch).logits
            pixels = batch.pop("pixel_values")
            features = model.model.vision_model(pixels.flatten(0, 2)).pooler_output.flatten(1)
            of_features = model(**batch, video_features=features.unflatten(0, pixels.shape[:3])).logits
            of_text = model(**batch).logits
        torch.testing.assert_close(of_pictures, of_features, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(of_pictures, of_text, atol=1e-3)

    @pytest.mark.skipif(not NASA.exists(), reason="needs shared/real/video/nasa_13013.mp4")
    def test_a_question_about_a_real_video_with_a_subtitle_track(self, tiny_tokenizer, make_model):
        model = make_model(max_text_length=64)
        processor = VideoQAProcessor.from_config(model.config, tiny_tokenizer)
        batch = processor("what is this", CHOICES, subtitles=NASA)
        sentences = read_subtitle_track(NASA)
        assert batch["segment_mask"].shape == (1, len(sentences))
        with torch.no_grad():
            (answer,) = processor.post_process_multiple_choice(model(**batch), batch, CHOICES, subtitles=NASA)
        assert answer.answer == CHOICES[answer.index]
        assert answer.index == int(np.argmax(answer.probabilities))
        assert sum(answer.probabilities) == pytest.approx(1)
        assert 0 <= answer.start < answer.end <= 16.58
        assert answer.evidence
        assert set(answer.evidence) <= set(sentences)
        first = VideoQAOutput(logits=torch.zeros(1, 3), start_logits=torch.eye(4)[:1], end_logits=torch.eye(4)[:1])
        (answer,) = processor.post_process_multiple_choice(first, batch, CHOICES, subtitles=NASA)
        assert [sentence.speaker for sentence in answer.evidence] == ["NAR"]


class TestBatchContract:
    @pytest.fixture
    def questions(self):
        """Three questions about clips of two, one and four segments; the second has no frames."""
        long = [{"start": 2 * t, "end": 2 * t + 1, "speaker": "", "text": "the blue cup " * t} for t in range(4)]
        none = {"video_features": None, "frame_times": None}
        waves = [{"video_features": np.sin(np.arange(6 * size).reshape(size, 6)), "frame_times": np.arange(size) / 2}
                 for size in (11, 16)]  # fmt: skip
        return [
            {"question": QUESTION, "choices": CHOICES, "subtitles": SENTENCES, "duration": 6.0, **waves[0],
             "objects": [{"time": 0.5, "labels": ["cup"]}]},
            {"question": "who is it", "choices": ["he", "she", "it"], "subtitles": None, "duration": 3.0, **none,
             "objects": None},
            {"question": "why", "choices": ["the door", "a book", "a phone"], "subtitles": long, "duration": 8.0,
             **waves[1], "objects": None},
        ]  # fmt: skip

    @pytest.fixture
    def processor(self, make_processor):
        return make_processor(video_feature_size=6, max_text_length=20)

    def examples(self, processor, questions):
        for number, question in enumerate(questions):
            clip = {name: value for name, value in question.items() if name not in ("question", "choices")}
            example = {"qid": str(number), "clip_id": str(number), **processor.prepare_clip(**clip)}
            example.update(processor.prepare_question(question["question"], question["choices"]))
            example.update(processor.targets(example["segment_times"], number, 3, start=1.0, end=2.5))
            yield example

    def test_names_shapes_and_dtypes(self, processor, questions):
        batch = VideoQACollator(processor)(list(self.examples(processor, questions)))
        assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
            "input_ids": ((3, 3, 4, 17), torch.int64),
            "attention_mask": ((3, 3, 4, 17), torch.int64),
            "token_type_ids": ((3, 3, 4, 17), torch.int64),
            "segment_mask": ((3, 4), torch.bool),
            "video_features": ((3, 4, 2, 6), torch.float32),
            "frame_mask": ((3, 4, 2), torch.bool),
            "segment_times": ((3, 4, 2), torch.float32),
            "anchor_input_ids": ((3, 4, 17), torch.int64),
            "labels": ((3,), torch.int64),
            "start_positions": ((3,), torch.int64),
            "end_positions": ((3,), torch.int64),
        }
        assert batch["segment_mask"].sum(1).tolist() == [2, 1, 4]
        assert not batch["frame_mask"][1].any()

    def test_every_key_is_a_parameter_of_the_model_and_is_documented(self, processor, questions, make_model):
        batch = VideoQACollator(processor)(list(self.examples(processor, questions)))
        parameters = set(inspect.signature(VideoQAForMultipleChoice.forward).parameters)
        assert {*batch, "pixel_values"} <= parameters
        assert {*batch, "pixel_values"} == set(processor.model_input_names)
        assert all(f"`{name}`" in VideoQAProcessor.__doc__ for name in {*batch, "pixel_values"})
        outputs = make_model(max_text_length=20)(**batch)
        assert outputs.logits.shape == (3, 3)
        assert math.isfinite(outputs.loss.item())
        outputs.loss.backward()

    def test_text_alone_has_no_keys_of_frames(self, processor):
        assert set(processor(QUESTION, CHOICES, SENTENCES)) == {
            "input_ids", "attention_mask", "token_type_ids", "segment_mask", "segment_times",
        }  # fmt: skip

    def test_a_batch_gives_what_each_question_gives_alone(self, processor, questions, make_model):
        model = make_model(max_text_length=20, scale=0.1)
        columns = {name: [question[name] for question in questions] for name in questions[0]}
        with torch.no_grad():
            batch = processor(**columns)
            together = model(**batch)
            for number, question in enumerate(questions):
                single = processor(**question)
                # Beside clips with frames, a clip without has none that are real: the video speaks the same for all.
                single.setdefault("video_features", torch.zeros(1, 1, 2, 6))
                single.setdefault("frame_mask", torch.zeros(1, 1, 2, dtype=torch.bool))
                alone = model(**single)
                torch.testing.assert_close(together.logits[number], alone.logits[0], rtol=0, atol=1e-6)
                size = alone.start_logits.shape[1]
                for name in ("start_logits", "end_logits"):
                    torch.testing.assert_close(together[name][number, :size], alone[name][0], rtol=0, atol=1e-6)
                    assert (together[name][number, size:] == -torch.inf).all()

    def test_without_frames_the_video_prefers_no_choice(self, processor, questions, make_model):
        columns = {name: [question[name] for question in questions] for name in questions[0]}
        with torch.no_grad():
            scores = make_model(max_text_length=20)(**processor(**columns)).video_logits
        assert scores[1].max() == scores[1].min()
        assert scores[0].max() > scores[0].min()


class TestMistakes:
    @pytest.fixture(autouse=True)
    def _nothing_is_written(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        yield
        assert {path.name for path in tmp_path.rglob("*")} <= {"silent.mp4"}  # that one is a test's own

    @pytest.mark.parametrize(
        "choices", [None, [], ["the man"], ["the man", ""], ["the man", "  "], "the man", ["he", None]]
    )
    def test_choices(self, processor, choices):
        with refused("choices="):
            processor(QUESTION, choices)

    def test_unequal_numbers_of_choices(self, processor):
        with refused("2 and 3 choices"):
            processor([QUESTION, QUESTION], [["he", "she"], ["he", "she", "it"]])

    @pytest.mark.parametrize("question", [None, "", " "])
    def test_question(self, processor, question):
        with refused("question="):
            processor(question, CHOICES)

    @pytest.mark.parametrize(
        "columns",
        [
            {"choices": [CHOICES]},
            {"choices": [CHOICES] * 3},
            {"choices": [CHOICES] * 2, "subtitles": [SENTENCES]},
            {"choices": [CHOICES] * 2, "subtitles": "clip.srt"},
            {"choices": [CHOICES] * 2, "duration": [3.0] * 3},
        ],
    )
    def test_lists_of_unequal_length(self, processor, columns):
        with refused("does not fit a batch of 2 questions"):
            processor([QUESTION, QUESTION], **columns)

    @pytest.mark.parametrize("label", [-1, 3, -100, 1.5])
    def test_label(self, processor, label):
        with refused(f"label={label}"):
            processor.targets(np.array([[0.0, 1.0]]), label, num_choices=3)

    @pytest.mark.parametrize(
        ("features", "times", "came"),
        [
            (np.zeros((4, 5)), np.arange(4), r"\(4, 5\)"),
            (np.zeros((4, 3, 1)), np.arange(4), r"\(4, 3, 1\)"),
            (np.zeros(3), np.arange(3), r"\(3,\)"),
            (np.array([[0, 0, 0], [0, np.nan, 0]]), np.arange(2), "NaN or infinity, first in frame 1"),
            (np.array([[0, -np.inf, 0]]), np.arange(1), "NaN or infinity, first in frame 0"),
            (np.zeros((4, 3)), None, "no frame_times"),
            (np.zeros((4, 3)), np.arange(3), "3 frame_times"),
            (np.zeros((2, 3)), [1.0, 0.5], "not ascending"),
            (np.zeros((2, 3)), [1.0, np.nan], "not finite"),
        ],
    )
    def test_features(self, processor, features, times, came):
        with refused(came):
            processor(QUESTION, CHOICES, video_features=features, frame_times=times)

    @pytest.mark.parametrize(
        ("frames", "times", "came"),
        [
            (np.zeros((2, 4, 4, 3), np.uint8), None, "no frame_times"),
            (np.zeros((2, 4, 4, 3), np.uint8), [0.0], "1 frame_times"),
            (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0, 2.0], "3 frame_times"),
            (np.zeros((2, 3, 4, 4), np.uint8), [0.0, 1.0], r"\(2, 3, 4, 4\)"),
            (np.zeros((2, 4, 4, 3)), [0.0, 1.0], "float64"),
            (np.zeros((4, 4, 3), np.uint8), [0.0], r"\(4, 4, 3\)"),
        ],
    )
    def test_frames(self, make_processor, as_they_are, frames, times, came):
        with refused(came):
            make_processor(frame_preprocessing=as_they_are)(QUESTION, CHOICES, frames=frames, frame_times=times)

    def test_more_than_one_kind_of_frames(self, make_processor, as_they_are, video):
        with refused("video and video_features"):
            make_processor(frame_preprocessing=as_they_are)(QUESTION, CHOICES, video=video, **numbered([0.0]))

    @pytest.mark.parametrize("name", ["subtitles", "video"])
    def test_missing_file(self, processor, name):
        with refused("There is no", FileNotFoundError):
            processor(QUESTION, CHOICES, **{name: "clip.mp4"})

    def test_missing_subtitle_file(self, processor):
        with refused("There is no subtitle file", FileNotFoundError):
            processor(QUESTION, CHOICES, "clip.srt")

    @pytest.mark.parametrize(
        "sentence",
        [
            {"start": 2.0, "end": 1.0, "text": "the cup"},
            {"start": math.nan, "end": 1.0, "text": "the cup"},
            {"start": 0.0, "end": math.nan, "text": "the cup"},
            {"start": None, "end": 1.0, "text": "the cup"},
            {"start": "00:01", "end": 2.0, "text": "the cup"},
            {"start": -1.0, "end": 2.0, "text": "the cup"},
            {"end": 2.0, "text": "the cup"},
            {"start": 0.0, "end": 1.0},
            {"start": 0.0, "end": 1.0, "text": None},
        ],
    )
    def test_sentence(self, processor, sentence):
        with refused("Sentence 1 "):
            processor(QUESTION, CHOICES, [SENTENCES[0], sentence])

    @pytest.mark.parametrize("duration", [math.nan, -1.0, "6"])
    def test_duration(self, processor, duration):
        with refused("duration is"):
            processor(QUESTION, CHOICES, SENTENCES, duration=duration)

    def test_a_video_without_subtitles_as_subtitles(self, processor, video, tmp_path):
        (tmp_path / "silent.mp4").write_bytes(video.read_bytes())
        with refused("holds no text subtitles"):
            processor(QUESTION, CHOICES, tmp_path / "silent.mp4")

    def test_pictures_for_a_processor_without_preprocessing(self, processor, video):
        with refused("no frame_preprocessing"):
            processor(QUESTION, CHOICES, video=video)
        with refused("no frame_preprocessing"):
            processor(QUESTION, CHOICES, frames=np.zeros((1, 4, 4, 3), np.uint8), frame_times=[0.0])

    def test_another_kind_of_tensors(self, processor):
        with refused("return_tensors='np'"):
            processor(QUESTION, CHOICES, return_tensors="np")

    def test_no_questions(self, processor):
        with refused("A batch of no questions"):
            processor([], [])


class TestFromConfig:
    def test_takes_what_the_input_depends_on_from_the_model(self, make_config, tiny_encoder_dir):
        config = make_config(
            num_frames=3, max_segments=7, segment_span="subtitle", mask_probability=0.5, frame_rate=None
        )
        processor = VideoQAProcessor.from_config(config, tiny_encoder_dir)
        assert {name: getattr(processor, name) for name in INPUT_FIELDS} == {
            "segment_span": "subtitle", "num_frames": 3, "max_segments": 7, "max_text_length": 12, "frame_rate": None,
            "video_feature_size": 6, "mask_probability": 0.5,
        }  # fmt: skip
        assert processor.image_processor is None

    @pytest.mark.parametrize("missing", ["mask_token", "cls_token", "sep_token", "pad_token"])
    def test_a_tokenizer_that_lacks_a_token(self, tiny_encoder_dir, missing):
        tokenizer = BertTokenizer.from_pretrained(tiny_encoder_dir)
        setattr(tokenizer, missing, None)
        with refused(f"no {missing}_id"):
            VideoQAProcessor(tokenizer)

    def test_a_folder_without_a_tokenizer(self, make_config, make_model, tmp_path):
        for name in ("empty", "missing"):
            with refused("No tokenizer could be loaded"):
                (tmp_path / "empty").mkdir(exist_ok=True)
                VideoQAProcessor.from_config(make_config(), tmp_path / name)

    def test_a_folder_with_an_encoder_and_no_tokenizer(self, make_config, make_model, tmp_path):
        make_model().model.text_encoder.save_pretrained(tmp_path)
        with refused("No tokenizer could be loaded"):
            VideoQAProcessor.from_config(make_config(), tmp_path)

    def test_a_tokenizer_with_more_tokens_than_the_encoder(self, make_config, tiny_tokenizer):
        config = make_config(text_config={"vocab_size": len(tiny_tokenizer) - 1})
        with refused(f"knows {len(tiny_tokenizer)} tokens, the text encoder {len(tiny_tokenizer) - 1}"):
            VideoQAProcessor.from_config(config, tiny_tokenizer)


class TestSaving:
    @pytest.mark.parametrize("has_images", [False, True])
    def test_comes_back_equal_beside_its_model(self, make_model, tiny_tokenizer, tmp_path, video, has_images):
        images = ConvNextImageProcessorPil(size={"shortest_edge": 16}) if has_images else None
        model = make_model(num_frames=3, max_segments=5, segment_span="subtitle", mask_probability=0.4, frame_rate=None)
        processor = VideoQAProcessor.from_config(model.config, tiny_tokenizer, frame_preprocessing=images)
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert isinstance(loaded, VideoQAProcessor)
        for name in (*INPUT_FIELDS, "frame_preprocessing"):
            before, after = getattr(processor, name), getattr(loaded, name)
            assert after == json.loads(json.dumps(before)), name
        assert loaded.tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
        call = {"question": QUESTION, "choices": CHOICES, "subtitles": SENTENCES[:1]}
        call |= (
            {"video": video} if has_images else {"duration": 6.0, "frame_times": [0.0], "video_features": [[1.0] * 6]}
        )
        assert equal(processor(**call), loaded(**call))
        assert ("pixel_values" in loaded(**call)) == has_images
        loaded.save_pretrained(tmp_path / "again")
        assert equal(VideoQAProcessor.from_pretrained(tmp_path / "again")(**call), loaded(**call))

    def test_saving_the_model_last_changes_nothing(self, make_model, tiny_tokenizer, tmp_path):
        model = make_model()
        VideoQAProcessor.from_config(model.config, tiny_tokenizer).save_pretrained(tmp_path)
        model.save_pretrained(tmp_path)
        assert AutoProcessor.from_pretrained(tmp_path).max_text_length == 12


def logarithms(*probabilities):
    return torch.tensor(probabilities).log()  # log 0 = -inf: a padded segment


class TestAnswers:
    # A span runs from the start of its first sentence to the end of its last one.
    SENTENCES = (
        {"start": 1.0, "end": 3.0, "speaker": "penny", "text": "one"},
        {"start": 4.0, "end": 5.0, "speaker": "", "text": "two"},
        {"start": 6.0, "end": 8.0, "speaker": "leonard", "text": "three"},
    )
    # Of the pairs s <= e, (1, 2) has the largest product, 0.6 * 0.3; the largest of each would give (1, 0).
    START, END = (0.1, 0.6, 0.3), (0.5, 0.2, 0.3)

    def outputs(self, *, start, end, logits=((0.0, 2.0, 1.0),)):
        return VideoQAOutput(logits=torch.tensor(logits), start_logits=logarithms(*start), end_logits=logarithms(*end))

    def at(self, place, num_segments=3):
        """Outputs that say: this segment alone."""
        certain = [[float(t == place) for t in range(num_segments)]]
        return self.outputs(start=certain, end=certain)

    def test_a_single_question(self, processor):
        batch = processor(QUESTION, CHOICES, self.SENTENCES)
        outputs = self.outputs(start=[self.START], end=[self.END])
        (answer,) = processor.post_process_multiple_choice(outputs, batch, CHOICES, self.SENTENCES)
        assert (answer.answer, answer.index) == ("penny", 1)
        total = 1 + math.exp(2) + math.exp(1)
        assert answer.probabilities == pytest.approx([1 / total, math.exp(2) / total, math.exp(1) / total])
        assert (answer.start, answer.end) == (4.0, 8.0)
        assert answer.evidence == [Sentence(4.0, 5.0, "", "two"), Sentence(6.0, 8.0, "leonard", "three")]

    def test_a_batch_with_padded_segments(self, processor):
        choices, subtitles = [CHOICES, ["he", "she", "it"]], [self.SENTENCES, self.SENTENCES[:2]]
        batch = processor([QUESTION, "who"], choices, subtitles)
        # The second has two segments: (0, 0) 0.18, (0, 1) 0.02, (1, 1) 0.08.
        outputs = self.outputs(
            start=[self.START, (0.2, 0.8, 0.0)],
            end=[self.END, (0.9, 0.1, 0.0)],
            logits=[[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]],
        )
        first, second = processor.post_process_multiple_choice(outputs, batch, choices, subtitles)
        assert (first.answer, first.start, first.end) == ("penny", 4.0, 8.0)
        assert (second.answer, second.start, second.end) == ("he", 1.0, 3.0)
        assert second.evidence == [Sentence(1.0, 3.0, "penny", "one")]
        assert sum(first.probabilities) == pytest.approx(1)
        assert sum(second.probabilities) == pytest.approx(1)

    def test_without_subtitles_there_is_no_evidence(self, processor):
        batch = processor([QUESTION], [CHOICES], duration=[9.0])
        (answer,) = processor.post_process_multiple_choice(self.at(0, num_segments=1), batch, [CHOICES])
        assert (answer.start, answer.end, answer.evidence) == (0.0, 9.0, [])

    def test_a_sentence_that_ends_past_the_clip(self, processor):
        sentences = [*self.SENTENCES[:2], {"start": 6.0, "end": 12.0, "speaker": "", "text": "late"}]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = processor(QUESTION, CHOICES, sentences, duration=7.0)
            (answer,) = processor.post_process_multiple_choice(self.at(2), batch, CHOICES, sentences)
        assert (answer.start, answer.end, answer.evidence) == (6.0, 7.0, [Sentence(6.0, 7.0, "", "late")])

    @pytest.mark.parametrize("place", range(3))
    def test_times_that_float32_cannot_hold(self, processor, place):
        bounds = [0.0, 2.2, 4.3, 7.7]  # in float32 the second and third are larger, the last is smaller
        sentences = [Sentence(bounds[t], bounds[t + 1], "", "cup") for t in range(3)]
        batch = processor(QUESTION, CHOICES, sentences)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (answer,) = processor.post_process_multiple_choice(self.at(place), batch, CHOICES, sentences)
        assert answer.evidence == [sentences[place]]
        assert (answer.start, answer.end) == pytest.approx((bounds[place], bounds[place + 1]))

    def test_sentences_of_which_only_the_start_is_known(self, processor):
        sentences = [{"start": 1.0, "text": "one"}, {"start": 4.0, "text": "two"}]
        batch = processor(QUESTION, CHOICES, sentences)  # the last lasts no time
        for place, text in enumerate(["one", "two"]):
            outputs = self.at(place, num_segments=2)
            (answer,) = processor.post_process_multiple_choice(outputs, batch, CHOICES, sentences)
            assert text in [sentence.text for sentence in answer.evidence]

    @given(drawn=st.data(), size=st.integers(1, 6))
    @settings(max_examples=60, deadline=None)
    def test_the_best_span_is_that_of_brute_force(self, drawn, size):
        scores = st.lists(st.floats(-8, 8, width=32), min_size=size, max_size=size)
        start, end = torch.tensor(drawn.draw(scores)), torch.tensor(drawn.draw(scores))
        real = drawn.draw(st.integers(1, size))
        start[real:], end[real:] = -torch.inf, -torch.inf
        products = {(s, e): float(start.softmax(0)[s] * end.softmax(0)[e]) for e in range(real) for s in range(e + 1)}
        ((first, last),) = best_spans(start[None], end[None]).tolist()
        assert products[first, last] == pytest.approx(max(products.values()), rel=1e-5)


class TestTargets:
    TIMES = np.array([[0.0, 4.0], [4.0, 6.0], [6.0, 8.0]])

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (1.0, 2.0, (0, 0)),
            (3.9, 6.5, (0, 2)),
            (4.0, 6.0, (1, 1)),  # touching is not overlapping
            (5.0, 100.0, (1, 2)),
            (9.0, 10.0, (2, 2)),  # none overlaps: the nearest
            (None, None, (-100, -100)),
            (math.nan, math.nan, (-100, -100)),
        ],
    )
    def test_first_and_last_segment(self, processor, start, end, expected):
        targets = processor.targets(self.TIMES, 2, 5, start, end)
        assert (targets["start_positions"], targets["end_positions"]) == expected
        assert targets["labels"] == 2

    def test_the_nearest_where_none_overlaps(self, processor):
        times = np.array([[1.0, 2.0], [5.0, 6.0]])
        nearest = [
            processor.targets(times, None, 5, start, start + 0.1)["start_positions"] for start in (2.5, 3.5, 8.0)
        ]
        assert nearest == [0, 1, 1]

    def test_an_unknown_label(self, processor):
        assert processor.targets(self.TIMES, None, 5)["labels"] == -100
