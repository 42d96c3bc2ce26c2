"""Two tables and features joined into examples: lazily, each text once, with nothing that tells the answer."""

import weakref
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from processing import VideoQACollator, VideoQADataset, VideoQAProcessor, load_videoqa
from processing.loaders import make_tables
from processing.mini_corpus import write_mini_corpus

TEXT_KEYS = {
    "qid", "clip_id", "question_ids", "choice_ids", "subtitle_ids", "object_ids", "segment_times",
    "sentence_times", "labels", "start_positions", "end_positions",
}  # fmt: skip


def question(qid, clip_id, text, label=0, start=None, end=None):
    return {
        "qid": qid, "clip_id": clip_id, "question": text, "choices": ["the man", f"a {text.split()[-1]}"],
        "label": label, "start": start, "end": end, "group": "house",
    }  # fmt: skip


QUESTIONS = [
    question("1", "x", "who opens the door", label=1, start=4.5, end=7.0),
    question("2", "y", "where is the phone", label=None),
    question("3", "x", "what is on the table", start=1.0, end=2.0),
    question("4", "z", "why is it red"),
]
CLIPS = [
    {
        "clip_id": "x",
        "duration": 8.0,
        "subtitles": [
            {"start": 1.0, "end": 3.0, "speaker": "penny", "text": "the red cup"},
            {"start": 4.0, "end": 5.0, "speaker": "", "text": "who closes it"},
            {"start": 6.0, "end": 7.5, "speaker": "leonard", "text": "he says where"},
        ],
        "objects": [{"time": 0.5, "labels": ["chair", "book"]}, {"time": 4.5, "labels": ["coat"]}],
    },
    {"clip_id": "y", "duration": None, "subtitles": [], "objects": [{"time": 1.0, "labels": ["woman"]}]},
    {"clip_id": "z", "duration": 3.0, "subtitles": [{"start": 0.0, "end": 1.0, "speaker": "", "text": "she looks"}],
     "objects": []},
]  # fmt: skip


class CountingFeatures(Mapping):
    """Features of some clips; counts what is read. Frame k of a clip, at k / 2 seconds, has the features (k, k, k)."""

    def __init__(self, **num_frames):
        self.num_frames, self.reads = num_frames, Counter()

    def __getitem__(self, clip_id):
        self.reads[clip_id] += 1
        numbers = np.arange(self.num_frames[clip_id])
        return np.repeat(numbers, 3).reshape(-1, 3).astype(np.float32), numbers / 2

    def __contains__(self, clip_id):
        return clip_id in self.num_frames

    def __iter__(self):
        return iter(self.num_frames)

    def __len__(self):
        return len(self.num_frames)


class CountingTokenizer:
    """A tokenizer that counts the texts that reach it."""

    def __init__(self, tokenizer):
        self._tokenizer, self.texts = tokenizer, Counter()

    def __call__(self, texts, **options):
        self.texts.update(text for text in texts if text)
        return self._tokenizer(texts, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


@pytest.fixture(scope="module")
def tables():
    return make_tables({"train": QUESTIONS}, CLIPS)


@pytest.fixture
def processor(tiny_tokenizer):
    return VideoQAProcessor(tiny_tokenizer, num_frames=2, max_text_length=24, video_feature_size=3)


@pytest.fixture
def make_dataset(processor, tables):
    def make(**options):
        return VideoQADataset(processor, tables.questions["train"], tables.clips, **options)

    return make


class TestExamples:
    def test_equal_those_of_the_processor(self, make_dataset, processor):
        features = CountingFeatures(x=16)
        batch = processor.pad([make_dataset(features=features)[0]])
        vectors, times = features["x"]
        expected = processor(
            QUESTIONS[0]["question"], QUESTIONS[0]["choices"], CLIPS[0]["subtitles"], CLIPS[0]["objects"],
            video_features=vectors, frame_times=times, duration=8.0,
        )  # fmt: skip
        assert set(batch) - set(expected) == {"labels", "start_positions", "end_positions"}
        assert all(torch.equal(batch[name], expected[name]) for name in expected)

    def test_targets(self, make_dataset):
        # The segments of clip x are [0, 4], [4, 6] and [6, 8].
        targets = [
            tuple(example[name] for name in ("labels", "start_positions", "end_positions"))
            for example in make_dataset()
        ]
        assert targets == [(1, 1, 2), (-100, -100, -100), (0, 0, 0), (0, -100, -100)]

    def test_hold_these_keys_and_no_others(self, make_dataset):
        assert {*make_dataset()[0]} == TEXT_KEYS
        with_features = make_dataset(features=CountingFeatures(x=16))
        assert {*with_features[0]} == TEXT_KEYS | {"video_features", "frame_mask"}
        assert {*with_features[1]} == TEXT_KEYS  # a clip without features

    def test_the_annotated_span_and_boxes_reach_the_targets_alone(self, tiny_tokenizer, tmp_path):
        data = load_videoqa("mini", write_mini_corpus(tmp_path / "mini", 1, 1, progress=False))
        processor = VideoQAProcessor(tiny_tokenizer)
        rows = list(data.questions["train"])
        told = VideoQADataset(processor, rows, data.clips)
        untold = VideoQADataset(processor, [row | {"start": None, "end": None} for row in rows], data.clips)
        batches = [processor.pad([dataset[i] for i in range(len(rows))]) for dataset in (told, untold)]
        assert {*told[0]} == TEXT_KEYS
        for name in set(batches[0]) - {"start_positions", "end_positions"}:
            assert torch.equal(batches[0][name], batches[1][name])
        assert (batches[0]["start_positions"] >= 0).all()

    def test_a_batch_of_clips_with_and_without_features(self, make_dataset, make_model):
        dataset = make_dataset(features=CountingFeatures(x=16))
        batch = VideoQACollator(dataset.processor)([dataset[i] for i in range(len(dataset))])
        assert batch["frame_mask"].any(dim=(1, 2)).tolist() == [True, False, True, False]
        outputs = make_model(video_feature_size=3, max_text_length=24)(**batch)
        assert outputs.logits.shape == (4, 2)
        assert torch.isfinite(outputs.loss)

    def test_length(self, make_dataset):
        assert len(make_dataset()) == 4


class TestLaziness:
    def test_features_are_read_when_an_example_is_asked_for(self, make_dataset):
        features = CountingFeatures(x=16, z=6)
        dataset = make_dataset(features=features)
        assert not features.reads
        for index in (0, 1, 2):
            dataset[index]
        assert features.reads == {"x": 2}
        dataset[3]
        assert features.reads == {"x": 2, "z": 1}

    def test_features_are_not_kept(self, make_dataset):
        dataset = make_dataset(features=CountingFeatures(x=16))
        example = dataset[0]
        features = weakref.ref(example["video_features"])
        del example
        assert features() is None

    def test_texts_are_tokenized_once(self, make_dataset, processor):
        processor.tokenizer = counting = CountingTokenizer(processor.tokenizer)
        dataset = make_dataset(features=CountingFeatures(x=16))
        for _ in range(3):
            for index in range(len(dataset)):
                dataset[index]
        asked = Counter(text for row in QUESTIONS for text in (row["question"], *row["choices"]))
        said = ["penny : the red cup", "who closes it", "leonard : he says where", "she looks"]
        seen = ["chair book", "coat", "woman"]
        assert counting.texts == asked + Counter(said + seen)

    def test_a_clip_is_prepared_when_it_is_first_asked_for(self, make_dataset, processor):
        processor.tokenizer = counting = CountingTokenizer(processor.tokenizer)
        dataset = make_dataset()
        assert "she looks" not in counting.texts
        dataset[3]
        assert counting.texts["she looks"] == 1
        assert "who closes it" not in counting.texts

    def test_asking_for_an_example_changes_none(self, make_dataset):
        dataset = make_dataset(features=CountingFeatures(x=16))
        before = dataset[0]
        before["labels"] = -7
        before.pop("video_features")
        assert dataset[0]["labels"] == 1
        assert "video_features" in dataset[0]
        dataset[2]
        assert dataset[0]["labels"] == 1


class TestWithoutText:
    def words(self, dataset, index=0):
        batch = dataset.processor.pad([dataset[index]])
        ids = batch["input_ids"][0, 0][batch["attention_mask"][0, 0].bool()].tolist()
        return " ".join(dataset.processor.tokenizer.convert_ids_to_tokens(ids))

    def test_question_and_choices_alone(self, make_dataset):
        dataset = make_dataset(subtitles=False, objects=False)
        assert self.words(dataset) == "[CLS] who opens the door [SEP] the man [SEP] [SEP]"
        assert dataset[0]["segment_times"].tolist() == [[0.0, 8.0]]
        assert dataset.subtitles("x") is None

    def test_no_word_of_a_clip_matters_then(self, processor, tables, make_dataset):
        other = [clip | {"subtitles": CLIPS[2]["subtitles"] * 2, "objects": CLIPS[1]["objects"]} for clip in CLIPS]
        changed = VideoQADataset(processor, tables.questions["train"], other, subtitles=False, objects=False)
        plain = make_dataset(subtitles=False, objects=False)
        batches = [processor.pad([dataset[index] for index in range(4)]) for dataset in (plain, changed)]
        assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])

    def test_objects_alone(self, make_dataset):
        assert self.words(make_dataset(subtitles=False)).endswith("[SEP] [SEP] chair book coat [SEP]")

    def test_subtitles_alone(self, make_dataset):
        words = self.words(make_dataset(objects=False))
        assert words.count("[SEP]") == 9  # three segments
        assert "chair" not in words
        assert "penny : the red cup" in words

    def test_frames_go_over_the_whole_clip_then(self, make_dataset):
        example = make_dataset(features=CountingFeatures(x=16), subtitles=False, objects=False)[0]
        assert example["video_features"][..., 0].tolist() == [[4.0, 12.0]]  # at 2 and 6 of 8 seconds

    @pytest.mark.parametrize(("clips", "count", "level"), [({"y": 16}, 1, "WARNING"), ({"x": 16, "y": 16}, 3, "INFO")])
    def test_tells_how_many_questions_have_features(self, make_dataset, caplog, clips, count, level):
        with caplog.at_level("INFO", logger="processing.dataset"):
            make_dataset(features=CountingFeatures(**clips))
        assert [(record.levelname, record.message) for record in caplog.records] == [
            (level, f"{count} of 4 questions have features")
        ]

    def test_rows_may_come_from_a_stream(self, make_dataset, processor, tables):
        streams = tables.questions["train"].to_iterable_dataset(), tables.clips.to_iterable_dataset()
        for one, other in zip(VideoQADataset(processor, *streams), make_dataset(), strict=True):
            assert str(one) == str(other)

    def test_sentences_as_the_model_sees_them(self, make_dataset):
        assert make_dataset().subtitles("x") == CLIPS[0]["subtitles"]


class TestMistakes:
    def test_features_of_none_of_the_clips(self, make_dataset):
        with pytest.raises(ValueError, match=r"None of the clips of 4 questions has features\. Allowed: .*\. Extract"):
            make_dataset(features=CountingFeatures(elsewhere=3))
        with pytest.raises(ValueError, match="None of the clips"):
            make_dataset(features={})

    def test_features_of_another_width(self, make_dataset):
        dataset = make_dataset(features={"x": (np.zeros((4, 5), np.float32), np.arange(4.0))})
        with pytest.raises(ValueError, match=r"\(4, 5\)\. Allowed: \(num_frames, 3\)\. Use"):
            dataset[0]

    def test_a_label_out_of_range(self, processor, tables):
        dataset = VideoQADataset(processor, [QUESTIONS[0] | {"label": 2}], tables.clips)
        with pytest.raises(ValueError, match=r"label=2 .*Allowed: 0 to 1, or None\. Correct"):
            dataset[0]

    def test_a_question_without_words_or_choices(self, processor, tables):
        with pytest.raises(ValueError, match="question=''"):
            VideoQADataset(processor, [QUESTIONS[0] | {"question": ""}], tables.clips)
        with pytest.raises(ValueError, match="choices="):
            VideoQADataset(processor, [QUESTIONS[0] | {"choices": ["the man"]}], tables.clips)


def test_the_question_pool_is_made_of_all_questions(make_dataset, processor):
    pool = make_dataset().question_pool()
    assert pool.clip_ids == ["x", "y", "x", "z"]
    asked = [" ".join(processor.tokenizer.convert_ids_to_tokens(ids)) for ids in pool.question_ids]
    assert asked == [row["question"] for row in QUESTIONS]
