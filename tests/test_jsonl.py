"""Own data: what a line may hold, and every problem told at once."""

import doctest
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.loaders import check_jsonl, load_jsonl, load_videoqa
from processing.loaders import jsonl as jsonl_module
from processing.loaders.jsonl import find_videos

SRT = "1\n00:00:01,000 --> 00:00:02,500\n(Ann:)Hello there\n"


def line(**changes):
    row = {"clip": "a", "question": "Who?", "choices": ["Ann", "Bob"], "answer": 1}
    return {key: value for key, value in (row | changes).items() if value is not ...}


@pytest.fixture
def write(tmp_path):
    def write(*records, split="train"):
        text = "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)
        (tmp_path / f"{split}.jsonl").write_text(text)
        (tmp_path / "a.srt").write_text(SRT)
        return tmp_path

    return write


def test_the_examples_in_the_docstrings_run():
    result = doctest.testmod(jsonl_module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_line_becomes_a_row(write):
    frames = [{"time": 0.5, "labels": ["lamp"]}]
    full = line(
        clip=..., video="clips/a.mp4", subtitles="a.srt", answer="Ann", start=1, end=2.5, objects=frames, duration=9,
        qid=12, group="easy",
    )  # fmt: skip
    data = load_videoqa("jsonl", write(full, "", line(clip="b")))
    assert list(data.questions["train"]) == [
        {"qid": "12", "clip_id": "a", "question": "Who?", "choices": ["Ann", "Bob"], "label": 0, "start": 1.0,
         "end": 2.5, "group": "easy"},
        {"qid": "train_3", "clip_id": "b", "question": "Who?", "choices": ["Ann", "Bob"], "label": 1, "start": None,
         "end": None, "group": "own"},
    ]  # fmt: skip
    said = {"start": 1.0, "end": 2.5, "speaker": "Ann", "text": "Hello there"}
    assert list(data.clips) == [
        {"clip_id": "a", "duration": 9.0, "subtitles": [said], "objects": frames},
        {"clip_id": "b", "duration": None, "subtitles": [], "objects": []},
    ]


def test_what_belongs_to_the_clip_may_stand_in_any_of_its_lines(write):
    spoken = [{"start": 3, "text": "Bye."}, {"start": 1, "end": 2, "text": "Hi.", "speaker": "Ann"}]
    with pytest.warns(UserWarning, match="sorted"):
        data = load_jsonl(write(line(), line(subtitles=spoken), line(subtitles=spoken, duration=8)))
    (clip,) = data.clips
    assert [(said["start"], said["text"]) for said in clip["subtitles"]] == [(1.0, "Hi."), (3.0, "Bye.")]
    assert clip["duration"] == 8.0


def test_splits_are_the_files_that_are_there(write):
    write(line(subtitles="a.srt"))
    root = write(line(qid="x", answer=..., clip="c", subtitles="a.srt"), split="test")
    data = load_jsonl(root)
    assert list(data.questions) == ["train", "test"]
    assert data.questions["test"][0]["label"] is None
    assert list(load_jsonl(root, ("test",), subtitles=False).questions) == ["test"]
    with pytest.raises(FileNotFoundError, match=r"validation.jsonl are not in"):
        load_jsonl(root, ("train", "validation"))
    with pytest.raises(ValueError, match="splits is"):
        load_jsonl(root, "train")


def test_parts_can_be_left_out(write):
    root = write(line(subtitles="a.srt"))
    data = load_jsonl(root, subtitles=False, labels=False)
    assert (data.clips[0]["subtitles"], data.questions["train"][0]["label"]) == ([], None)
    write(line(subtitles="a.srt", objects=[{"time": 0, "labels": ["cup"]}], start=0, end=1))
    data = load_jsonl(root, objects=False, spans=False)
    assert (data.clips[0]["objects"], data.questions["train"][0]["end"]) == ([], None)
    data = load_jsonl(root)
    assert (data.clips[0]["objects"], data.questions["train"][0]["end"]) == ([{"time": 0.0, "labels": ["cup"]}], 1.0)
    with pytest.raises(ValueError, match="'train': not one of its 1 questions has a sentence"):
        load_jsonl(write(line()))


PROBLEMS = [
    ("{", "no JSON"),
    ([1], "A JSON object is allowed"),
    (line(answr=1), r"unknown keys \['answr'\]"),
    (line(clip=...), "clip is None and video is None"),
    (line(clip=5), "clip is 5"),
    (line(question=...), "question is None"),
    (line(choices=["Ann"]), "Two or more texts"),
    (line(choices=["Ann", ""]), "choice 1 is ''"),
    (line(choices=["Ann", "Bob", "Cy"]), "3 choices, but 2 in the first line"),
    (line(answer=2), "label is 2"),
    (line(answer=True), "label is True"),
    (line(answer="Cy"), "answer is 'Cy'"),
    (line(choices=["Ann", "Ann"], answer="Ann"), "answer is 'Ann'"),
    (line(start=1), "end is None"),
    (line(start="1", end=2), "start is '1'"),
    (line(qid="train_1"), "the qid 'train_1' was there before, in .*line 1"),
    (line(subtitles="none.srt"), "no subtitle file .*none.srt"),
    (line(clip="d", subtitles="train.jsonl"), "suffix '.jsonl'"),
    (line(subtitles=[{"start": 2, "end": 1, "text": "Hi."}]), "ends"),
    (line(subtitles=[{"text": "Hi."}]), "start"),
    (line(clip="c", objects=[{"time": 1}]), "missing keys"),
    (line(clip="c", duration=-1), "duration is -1"),
    (line(duration=7), "duration of clip 'a' is not what a line before"),
]


def test_every_problem_is_told_with_its_line(write):
    root = write(line(duration=9), *(record for record, _ in PROBLEMS))
    problems = check_jsonl(root)
    assert len(problems) == len(PROBLEMS)
    told = {int(problem.split("line ")[1].split(":")[0]): problem for problem in problems}
    for number, (_, words) in enumerate(PROBLEMS, start=2):
        assert str(root / "train.jsonl") in told[number]
        assert re.search(words, told[number]), (words, told[number])
    with pytest.raises(ValueError, match=f"has {len(PROBLEMS)} problems") as caught:
        load_jsonl(root)
    assert all(problem in str(caught.value) for problem in problems)


def test_a_long_list_of_problems_is_cut(write, monkeypatch):
    monkeypatch.setattr(jsonl_module, "MAX_TOLD", 3)
    with pytest.raises(ValueError, match=r"line 3: .*\nand 7 more"):
        load_jsonl(write(*["{"] * 10))


def test_sound_data_has_no_problems(write):
    assert check_jsonl(write(line(), line(clip="b", subtitles="a.srt"))) == []


def test_videos_of_the_clips(write):
    root = write(line(clip=..., video="clips/a.mp4"), line(), line(clip=..., video="b.mkv"))
    assert find_videos(root) == {"a": root / "clips" / "a.mp4", "b": root / "b.mkv"}


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["clip", "video", "question", "choices", "answer", "start", "end", "subtitles", "objects", "qid"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_whatever_a_line_holds_is_a_row_or_a_told_problem(tmp_path_factory, record):
    root = tmp_path_factory.mktemp("own")
    (root / "train.jsonl").write_text(json.dumps(record))
    problems = check_jsonl(root)
    assert len(problems) <= 1
    if not problems:
        assert len(load_jsonl(root, subtitles=False, labels=False).questions["train"]) == 1
