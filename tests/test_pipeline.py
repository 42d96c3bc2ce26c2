"""The pipeline: every way to ask, against processor and model called by hand."""

import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from test_video import encode
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel, pipeline

from modeling_videoqa import VideoQAForMultipleChoice, VideoQAPipeline, pipeline_videoqa
from processing import VideoQAProcessor
from processing.decoder_videoqa import Decoder
from processing.video_videoqa import decode_frames

TASK = "video-question-answering"
ROOT = Path(__file__).parents[1]
WIDTH = 8
SENTENCES = [
    {"start": 0.1, "end": 0.5, "speaker": "penny", "text": "the red cup"},
    {"start": 0.5, "end": 0.9, "speaker": "", "text": "who closes the door"},
]
SRT = "1\n00:00:00,100 --> 00:00:00,500\n(penny:)the red cup\n\n2\n00:00:00,500 --> 00:00:00,900\nwho closes the door\n"
QUESTIONS = [
    {"question": "who opens the door", "choices": ["the man", "penny", "his phone"]},
    {"question": "what is red", "choices": ["a cup", "the coat", "sheldon"]},
    {"question": "where is the phone", "choices": ["in the house", "on the table"]},
    {"question": "what is on the table", "choices": ["a book", "the cup", "her coat"]},
]


def make_model(encoder, backbone=None, **fields):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoQAForMultipleChoice.from_text_encoder(
            str(encoder), vision_model=backbone,
            **{"video_feature_size": WIDTH, "max_text_length": 24, "num_frames": 2, "frame_rate": 5.0} | fields,
        ).eval()  # fmt: skip
        for name, parameter in model.named_parameters():
            if "vision_model" not in name:
                parameter.data += 0.3 * torch.randn_like(parameter)  # every input shows in the output
    return model


@pytest.fixture(scope="module")
def parts(tiny_encoder_dir):
    """A model with a tiny backbone, and its processor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, WIDTH], depths=[1, 1], layer_type="basic")
        model = make_model(tiny_encoder_dir, ResNetModel(config), normalize_features=False)
    pictures = ConvNextImageProcessorPil(size={"shortest_edge": 32})
    return model, VideoQAProcessor.from_config(model.config, tiny_encoder_dir, pictures)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for part in parts:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qa(folder):
    return pipeline(TASK, model=str(folder), device="cpu")


@pytest.fixture
def make_qa(tiny_encoder_dir):
    """`make_qa(**fields)`: a pipeline around a model without a backbone."""

    def make(**fields):
        model = make_model(tiny_encoder_dir, **fields)
        return VideoQAPipeline(model, processor=VideoQAProcessor.from_config(model.config, tiny_encoder_dir))

    return make


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips of one second, and one with a subtitle track."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "a.srt").write_text(SRT)
    track = [(100, 400, b"(penny:)the red cup"), (500, 400, b"who closes the door")]
    return {
        "subtitles": folder / "a.srt",
        "a": encode(folder / "a.mp4"),
        "b": encode(folder / "b.mp4", range(0, 25, 2)),
        "track": encode(folder / "track.mkv", subtitles=("subrip", track)),
    }


@pytest.fixture
def counted(monkeypatch, qa):
    """How often files are opened, frames go through the backbone, sentences are prepared and tokens made."""
    counts = Counter()
    ask, prepare = Decoder._ask, VideoQAProcessor.prepare_clip

    def counting_ask(self, path, request):
        counts[request["do"]] += 1
        return ask(self, path, request)

    def counting_prepare(self, *args, **kwargs):
        counts["prepare_clip"] += 1
        return prepare(self, *args, **kwargs)

    def count_pictures(module, args):
        counts["pictures"] += len(args[0])

    monkeypatch.setattr(Decoder, "_ask", counting_ask)
    monkeypatch.setattr(VideoQAProcessor, "prepare_clip", counting_prepare)
    hook = qa.model.model.vision_model.register_forward_pre_hook(count_pictures)
    yield counts
    hook.remove()


def plain(model, processor, question, choices, **clip):
    """The answer by hand."""
    batch = processor(question, choices, **clip)
    with torch.no_grad():
        outputs = model(**batch)
    (answer,) = processor.post_process_multiple_choice(outputs, batch, choices, clip.get("subtitles"))
    return {
        "answer": answer.answer,
        "index": answer.index,
        "scores": pytest.approx(answer.probabilities, abs=1e-5),
        "span": [answer.start, answer.end],
        "evidence": [sentence._asdict() for sentence in answer.evidence],
    }


def close(answers):
    """The same answers, but for the last digits of the scores."""
    return [{**answer, "scores": pytest.approx(answer["scores"], abs=1e-5)} for answer in answers]


class TestAsking:
    def test_one_question(self, qa, parts, clips):
        assert isinstance(qa, VideoQAPipeline)
        clip = {"video": clips["a"], "subtitles": clips["subtitles"]}
        answer = qa(**clip, **QUESTIONS[0])
        assert answer == plain(*parts, **clip, **QUESTIONS[0])
        assert answer == qa({**clip, **QUESTIONS[0]})
        assert sum(answer["scores"]) == pytest.approx(1)
        assert answer["answer"] == QUESTIONS[0]["choices"][answer["index"]]
        assert answer["evidence"]
        json.dumps(answer)

    def test_each_input_counts(self, qa, clips):
        clip = {"video": clips["a"], "subtitles": clips["subtitles"]}
        whole = qa(**clip, **QUESTIONS[0])["scores"]
        assert qa(**clip | {"video": clips["b"]}, **QUESTIONS[0])["scores"] != pytest.approx(whole, abs=1e-4)
        assert qa(**clip | {"subtitles": []}, **QUESTIONS[0])["scores"] != pytest.approx(whole, abs=1e-4)
        objects = [{"time": 0.2, "labels": ["cup", "table"]}]
        assert qa(**clip, objects=objects, **QUESTIONS[0])["scores"] != pytest.approx(whole, abs=1e-4)

    def test_a_list_of_questions(self, qa, parts, clips):
        asked = [
            {"video": clips["a"], "subtitles": clips["subtitles"], **QUESTIONS[0]},
            {"subtitles": SENTENCES, "objects": [{"time": 0.2, "labels": ["cup"]}], **QUESTIONS[1]},
            {"video": clips["b"], "subtitles": [], **QUESTIONS[2]},
        ]
        answers = qa(asked)
        assert answers == [plain(*parts, **question) for question in asked]
        assert qa(tuple(asked)) == answers
        assert qa(asked[:1]) == close([answers[0]])
        assert qa([]) == []

    def test_many_questions_on_one_clip(self, qa, parts, clips, counted):
        clip = {"video": clips["a"], "subtitles": clips["subtitles"]}
        answers = qa(**clip, questions=QUESTIONS)
        assert counted["probe"] == counted["frames"] == counted["prepare_clip"] == 1
        assert counted["pictures"] == 4  # two segments of two frames
        assert answers == [plain(*parts, **clip, **question) for question in QUESTIONS]
        assert qa(**clip, questions=QUESTIONS[:1]) == close(answers[:1])
        both = qa([{**clip, "questions": QUESTIONS}, {**clip, **QUESTIONS[0]}])
        assert both == [close(answers), *close(answers[:1])]

    def test_questions_one_after_another_share_their_clip(self, qa, clips, counted):
        clip = {"video": str(clips["a"]), "subtitles": SENTENCES}
        again = {"video": clips["a"], "subtitles": [dict(sentence) for sentence in SENTENCES]}
        qa([{**clip, **QUESTIONS[0]}, {**again, **QUESTIONS[1]}, {**clip, **QUESTIONS[2]}], batch_size=1)
        assert counted["frames"] == counted["prepare_clip"] == 1
        qa([{**clip, **QUESTIONS[0]}, {**clip, "subtitles": SENTENCES[:1], **QUESTIONS[0]}])
        assert counted["frames"] == 3

    def test_batches_and_order_change_nothing(self, qa, clips):
        asked = [
            {"video": video, "subtitles": subtitles, **question}
            for video in (clips["a"], clips["b"], None)
            for subtitles in (SENTENCES, SENTENCES[:1])
            for question in QUESTIONS
        ]
        answers = qa(asked, batch_size=1)
        for batch_size in (3, 100):
            assert qa(asked, batch_size=batch_size) == close(answers)
        order = np.random.default_rng(0).permutation(len(asked))
        assert qa([asked[place] for place in order]) == close([answers[place] for place in order])

    def test_a_generator_is_answered_as_it_goes(self, qa):
        taken = []

        def questions():
            for question in QUESTIONS:
                taken.append(question)
                yield {"subtitles": SENTENCES, **question}

        answers = qa(questions(), batch_size=2)
        assert taken == []
        first = next(answers)
        assert len(taken) == 2
        assert [first, *answers] == close(qa(subtitles=SENTENCES, questions=QUESTIONS))

    def test_a_data_set(self, qa):
        class Rows(torch.utils.data.Dataset):
            def __len__(self):
                return len(QUESTIONS)

            def __getitem__(self, place):
                return {"subtitles": SENTENCES, **QUESTIONS[place]}

        assert list(qa(Rows())) == close(qa(subtitles=SENTENCES, questions=QUESTIONS))

    def test_more_and_fewer_choices_than_the_model_was_trained_on(self, qa):
        choices = ["a cup", "the coat", "sheldon", "a book", "the table", "his phone"]
        for count in (2, 4, 6):
            assert len(qa(question="what is red", choices=choices[:count], subtitles=SENTENCES)["scores"]) == count


class TestFrames:
    def test_features_instead_of_a_video(self, make_qa):
        qa = make_qa()
        features, times = np.random.default_rng(0).normal(size=(5, WIDTH)), np.arange(5) / 5
        clip = {"video_features": features, "frame_times": times, "subtitles": SENTENCES}
        answer = plain(qa.model, qa.processor, **clip, **QUESTIONS[0])
        assert qa(**clip, **QUESTIONS[0]) == answer
        assert qa(**clip | {"video_features": torch.tensor(features)}, **QUESTIONS[0]) == answer
        assert qa(**clip | {"video_features": features.tolist()}, **QUESTIONS[0]) == answer
        halved = qa(**clip | {"video_features": torch.tensor(features).bfloat16()}, **QUESTIONS[0])
        assert halved["scores"] == pytest.approx(qa(**clip, **QUESTIONS[0])["scores"], abs=0.05)

    def test_equal_features_are_one_clip(self, make_qa, counted):
        features, times = np.ones((5, WIDTH)), np.arange(5) / 5
        clip = {"video_features": features, "frame_times": times, "subtitles": SENTENCES}
        asked = [clip, clip | {"video_features": features.copy()}, clip | {"video_features": torch.tensor(features)}]
        make_qa()([{**clip, **QUESTIONS[0]} for clip in asked])
        assert counted["prepare_clip"] == 1
        make_qa()([{**clip, **QUESTIONS[0]} for clip in (clip, clip | {"video_features": 2 * features})])
        assert counted["prepare_clip"] == 3

    @pytest.mark.parametrize("span", ["partition", "subtitle"])
    def test_pictures_instead_of_a_video(self, parts, clips, tiny_encoder_dir, span):
        backbone = parts[0].model.vision_model
        model = make_model(tiny_encoder_dir, backbone, segment_span=span)
        processor = VideoQAProcessor.from_config(model.config, tiny_encoder_dir, parts[1].image_processor)
        qa = VideoQAPipeline(model, processor=processor)
        times = np.arange(20) / 20
        clip = {"frames": decode_frames(clips["a"], times), "frame_times": times, "subtitles": SENTENCES}
        answer = qa(**clip, **QUESTIONS[0], return_frames=True)
        shown = answer.pop("frames")
        assert answer == plain(model, processor, **clip, **QUESTIONS[0])
        assert len(shown) == 4
        for frame in shown:
            assert np.array_equal(np.asarray(frame["image"]), clip["frames"][round(frame["time"] * 20)])
        video = {"video": clips["a"], "subtitles": SENTENCES}
        assert qa(**video, **QUESTIONS[0]) == plain(model, processor, **video, **QUESTIONS[0])

    @pytest.mark.parametrize("attention", ["local", "global"])
    def test_the_frames_that_were_looked_at(self, parts, clips, tiny_encoder_dir, attention):
        model = make_model(tiny_encoder_dir, parts[0].model.vision_model, visual_attention=attention)
        processor = VideoQAProcessor.from_config(model.config, tiny_encoder_dir, parts[1].image_processor)
        qa = VideoQAPipeline(model, processor=processor, return_frames=True)
        clip = {"video": clips["a"], "subtitles": SENTENCES}
        # Beside a clip of more segments, whose padding must not show.
        other = {**clip, "subtitles": [{"start": second / 10, "text": "the cup"} for second in range(9)]}
        answer, _ = qa([{**clip, **QUESTIONS[0]}, {**other, **QUESTIONS[1]}])
        frames = answer["frames"]
        times = [frame["time"] for frame in frames]
        assert times == sorted(times)
        segments = [[0, 1], [2, 3]] if attention == "local" else [[0, 1, 2, 3]]
        for places in segments:
            assert sum(frames[place]["weight"] for place in places) == pytest.approx(1, abs=1e-5)
        for frame, picture in zip(frames, decode_frames(clips["a"], times), strict=True):
            assert np.array_equal(np.asarray(frame["image"]), picture)
        assert "frames" not in qa(**clip, **QUESTIONS[0], return_frames=False)

    def test_features_have_no_pictures(self, make_qa):
        features, times = np.ones((5, WIDTH)), np.arange(5) / 5
        clip = {"video_features": features, "frame_times": times, "subtitles": SENTENCES}
        frames = make_qa()(**clip, **QUESTIONS[0], return_frames=True)["frames"]
        assert {frame["image"] for frame in frames} == {None}
        assert make_qa()(subtitles=SENTENCES, **QUESTIONS[0], return_frames=True)["frames"] == []


class TestText:
    def test_the_track_inside_the_video(self, qa, parts, clips, caplog, counted):
        answer = qa(video=clips["track"], **QUESTIONS[0])
        assert counted["subtitles"] == 1
        assert answer == plain(*parts, video=clips["track"], subtitles=clips["track"], **QUESTIONS[0])
        assert answer["evidence"]
        assert caplog.records == []

    def test_a_video_without_text_is_told_once(self, parts, clips, caplog):
        model, processor = parts
        qa = VideoQAPipeline(model, processor=processor)
        with caplog.at_level(logging.WARNING):
            qa(video=clips["a"], subtitles=[], **QUESTIONS[0])
            assert caplog.records == []
            answers = [qa(video=clips[name], **QUESTIONS[0]) for name in ("a", "b")]
        (record,) = caplog.records
        assert "a.mp4 has no subtitle track" in record.message
        assert answers[0] == plain(model, processor, video=clips["a"], **QUESTIONS[0])
        assert answers[0]["evidence"] == []

    def test_text_only(self, qa, parts, make_qa):
        assert qa(subtitles=SENTENCES, **QUESTIONS[0]) == plain(*parts, subtitles=SENTENCES, **QUESTIONS[0])
        reader = make_qa(video_feature_size=None)
        assert reader(subtitles=SENTENCES, **QUESTIONS[0]) == plain(
            reader.model, reader.processor, subtitles=SENTENCES, **QUESTIONS[0]
        )

    def test_nothing_but_the_question_is_told(self, make_qa, caplog):
        with caplog.at_level(logging.WARNING):
            answer = make_qa(video_feature_size=None)(**QUESTIONS[0])
        assert "question and choices alone" in caplog.text
        assert answer["span"] == [0.0, 0.0]


class TestSettings:
    def test_another_dtype(self, folder, qa, clips):
        half = pipeline(TASK, model=str(folder), device=torch.device("cpu"), dtype=torch.bfloat16)
        assert (half.device, half.dtype) == (torch.device("cpu"), torch.bfloat16)
        clip = {"video": clips["a"], "subtitles": SENTENCES}
        assert half(**clip, **QUESTIONS[0])["scores"] == pytest.approx(qa(**clip, **QUESTIONS[0])["scores"], abs=0.1)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
    def test_an_accelerator(self, folder, qa, clips):
        asked = {"video": clips["a"], "subtitles": SENTENCES, "questions": QUESTIONS, "return_frames": True}
        there = pipeline(TASK, model=str(folder), device="cuda:0")(**asked)
        for one, other in zip(there, qa(**asked), strict=True):
            assert one["scores"] == pytest.approx(other["scores"], abs=1e-3)

    def test_a_model_in_training_mode_answers_without_dropout(self, make_qa):
        qa = make_qa(text_config={"hidden_dropout_prob": 0.5})
        qa = VideoQAPipeline(qa.model.train(), processor=qa.processor)
        first, second = (qa(subtitles=SENTENCES, **QUESTIONS[0]) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize(
        ("number", "terminal", "progress", "shown"),
        [(20, True, None, True), (19, True, None, False), (20, False, None, False), (2, False, True, True),
         (20, True, False, False)],
    )  # fmt: skip
    def test_the_bar(self, make_qa, capsys, monkeypatch, number, terminal, progress, shown):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        questions = [QUESTIONS[0]] * number
        make_qa(video_feature_size=None)(subtitles=SENTENCES, questions=questions, progress=progress)
        assert (f"{number}/{number}" in capsys.readouterr().err) is shown

    def test_saved_and_loaded_by_name(self, qa, clips, tmp_path):
        qa.save_pretrained(tmp_path)
        assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
        clip = {"video": clips["a"], "subtitles": SENTENCES}
        again = pipeline(TASK, model=tmp_path)
        assert [again(**clip, **QUESTIONS[0])] == close([qa(**clip, **QUESTIONS[0])])

    def test_its_code_is_saved_beside_the_code_of_the_model(self, make_qa, tmp_path, monkeypatch):
        qa = make_qa()
        monkeypatch.setattr(VideoQAForMultipleChoice, "_auto_class", "AutoModelForMultipleChoice")
        qa.save_pretrained(tmp_path)
        entry = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"][TASK]
        assert entry == {"impl": "pipeline_videoqa.VideoQAPipeline", "pt": ["AutoModelForMultipleChoice"]}
        for name in ("pipeline_videoqa.py", "modeling_videoqa.py", "processor_config.json", "tokenizer.json"):
            assert (tmp_path / name).is_file()

    def test_the_examples_in_the_docstrings_hold(self, failed_examples):
        assert failed_examples(pipeline_videoqa) == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("asked", "came"),
        [
            ({"choices": ["a", "b"]}, "question=None"),
            ({"question": " ", "choices": ["a", "b"]}, "question=' '"),
            ({"question": "who"}, "choices=None"),
            ({"question": "who", "choices": []}, r"choices=\[\]"),
            ({"question": "who", "choices": ["a"]}, r"choices=\['a'\]"),
            ({"question": "who", "choices": ["a", 3]}, "3"),
            ({"question": "who", "choices": "ab"}, "choices='ab'"),
            ({**QUESTIONS[0], "subtitle": SENTENCES}, "'subtitle'"),
            ({**QUESTIONS[0], "video_path": "a.mp4"}, "'video_path'"),
            ({}, "choices=None"),
            ({"questions": QUESTIONS, "question": "who"}, "questions came together"),
            ({"questions": []}, r"questions=\[\]"),
            ({"questions": "who"}, "questions='who'"),
            ({"questions": [{"question": "who", "answers": ["a", "b"]}]}, "'answers'"),
            ({**QUESTIONS[0], "video": 3}, "video is 3"),
            ({**QUESTIONS[0], "video": "a.mp4", "video_features": np.ones((1, WIDTH))}, "video and video_features"),
            ({**QUESTIONS[0], "video": "a.mp4", "frame_times": [0.0]}, "frame_times came without"),
            ({**QUESTIONS[0], "frames": np.zeros((2, 4, 4, 3), np.uint8)}, "2 frames came with no frame_times"),
            ({**QUESTIONS[0], "video_features": np.ones((1, 3)), "frame_times": [0.0]}, r"shape \(1, 3\)"),
            ({**QUESTIONS[0], "subtitles": {"start": 0, "text": "a"}}, "dict"),
            ({**QUESTIONS[0], "subtitles": "a.txt"}, "a.txt"),
            ({**QUESTIONS[0], "video": "nowhere.mp4"}, "nowhere.mp4"),
            ({**QUESTIONS[0], "video": "clip.gif"}, "clip.gif"),
            ({**QUESTIONS[0], "batch_size": 0}, "batch_size=0"),
        ],
    )
    def test_it_is_told_in_three_parts(self, qa, asked, came):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            qa(**asked)
        said, allowed, rest = str(caught.value).partition("Allowed")
        assert re.search(came, said), said
        assert re.search(r"\S{2}.*[.?] [A-Z].*[.?]$", allowed and rest, re.DOTALL), str(caught.value)

    @pytest.mark.parametrize("inputs", ["who opens the door", 3])
    def test_what_is_no_question(self, qa, inputs):
        with pytest.raises(ValueError, match=r"came as a question\. Allowed"):
            qa(inputs)

    def test_a_misspelt_key_is_guessed(self, qa):
        with pytest.raises(ValueError, match="Did you mean 'subtitles'"):
            qa(**QUESTIONS[0], subtitels=SENTENCES)
        with pytest.raises(ValueError, match="Did you mean 'return_frames'"):
            VideoQAPipeline(qa.model, processor=qa.processor, return_frame=True)

    def test_positional_and_keywords(self, qa):
        with pytest.raises(ValueError, match="came together with subtitles"):
            qa(QUESTIONS[0], subtitles=SENTENCES)

    def test_the_input_is_named(self, qa):
        asked = [{"subtitles": SENTENCES, **QUESTIONS[0]}, {"video": "nowhere.mp4", **QUESTIONS[0]}]
        with pytest.raises(FileNotFoundError, match="Input 1, counted from 0: There is no video file"):
            qa(asked)
        with pytest.raises(ValueError, match="Input 1, counted from 0: 'who' came as a question"):
            qa([asked[0], "who"])

    def test_a_video_for_a_model_without_a_backbone(self, make_qa, clips):
        with pytest.raises(ValueError, match=r"without a vision backbone\. Allowed: video_features"):
            make_qa()(video=clips["a"], **QUESTIONS[0])
        with pytest.raises(ValueError, match="reads text only"):
            make_qa(video_feature_size=None)(video=clips["a"], **QUESTIONS[0])
        reader = make_qa(video_feature_size=None)
        assert reader(subtitles=clips["track"], **QUESTIONS[0])["evidence"]

    def test_a_folder_without_its_processor(self, parts, tmp_path, tiny_tokenizer):
        model, _ = parts
        model.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"No processor came .* Allowed: the VideoQAProcessor"):
            pipeline(TASK, model=str(tmp_path))
        # With a tokenizer there, transformers makes up a processor of default settings.
        tiny_tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"num_frames=4 for 2.* Is processor_config.json missing"):
            pipeline(TASK, model=str(tmp_path))
        with pytest.raises(ValueError, match="A BertTokenizer as processor"):
            VideoQAPipeline(model, processor=tiny_tokenizer)

    def test_a_question_is_looked_at_before_its_clip_is_decoded(self, qa, clips, counted):
        with pytest.raises(ValueError, match="choices"):
            qa(video=clips["a"], questions=[QUESTIONS[0], {"question": "who", "choices": ["a"]}])
        assert not counted

    def test_after_an_error_the_next_question_is_answered(self, qa, clips):
        with pytest.raises(ValueError, match="choices"):
            qa(video=clips["a"], question="who", choices=["a"])
        assert qa(video=clips["a"], subtitles=SENTENCES, **QUESTIONS[0])["answer"]


def test_the_script(folder, clips, tmp_path):
    command = [
        sys.executable, ROOT / "examples" / "ask.py", "--model", folder, "--video", clips["track"],
        "--question", QUESTIONS[0]["question"], "--frames_dir", tmp_path / "frames", "--device", "cpu",
        "--choices", *QUESTIONS[0]["choices"],
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r" > .*%  █", done.stdout)
    assert re.search(r"From 00:00\.\d to 00:00\.\d:\n   00:00\.\d  .*(the red cup|who closes the door)", done.stdout)
    assert len(list((tmp_path / "frames").glob("*.png"))) == 4
