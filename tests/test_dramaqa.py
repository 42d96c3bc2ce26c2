"""DramaQA from small files in the layouts of its release, and from the real questions where they are at hand."""

import doctest
import json

import pytest

from processing.loaders import dramaqa, load_dramaqa

SHOT, OTHER, SCENE = (f"AnotherMissOh14_001_{shot}" for shot in ("0025", "0026", "0000"))


def record(**changes):
    row = {"qid": 7, "vid": SHOT, "videoType": "shot", "shot_contained": [25], "que": "Who knocks?", "correct_idx": 2}
    row |= {"answers": ["a", "b", "c", "d", "e"], "q_level_mem": 2, "q_level_logic": 1}
    return {key: value for key, value in (row | changes).items() if value is not ...}


def said(st, et, utter="Hi.", speaker="Deogi"):
    return {"speaker": speaker, "utter": utter, "st": st, "et": et}


def seen(number, *persons, shot=SHOT):
    about = [{"person_id": "deogi", "person_info": dict(zip(("behavior", "emotion"), p, strict=True))} for p in persons]
    return {"frame_id": f"{shot}_IMAGE_{number:010}", "place": "", "persons": about}


@pytest.fixture
def release(tmp_path):
    """A function that writes a release into its official folders."""

    def write(*records, script=None, visual=None, split="val"):
        folder = tmp_path / "AnotherMissOh" / "AnotherMissOh_QA"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"AnotherMissOhQA_{split}_set.json").write_text(json.dumps(records))
        if script is not None:
            (folder.parent / "AnotherMissOh_script.json").write_text(json.dumps(script))
        if visual is not None:
            (folder.parent / "AnotherMissOh_visual.json").write_text(json.dumps(visual))  # the later, lower case v
        return tmp_path

    return write


def load(root, objects=False, **arguments):
    return load_dramaqa(root, ("validation",), objects=objects, **arguments)


def test_the_examples_in_the_docstrings_run():
    result = doctest.testmod(dramaqa)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_record_becomes_a_row(release):
    data = load(release(record(), record(qid=8, vid=OTHER, q_level_logic=4, correct_idx=...)), subtitles=False)
    assert data.questions["validation"][0] == {
        "qid": "7", "clip_id": SHOT, "question": "Who knocks?", "choices": ["a", "b", "c", "d", "e"], "label": 2,
        "start": None, "end": None, "group": "1",
    }  # fmt: skip
    assert data.questions["validation"]["label"][:] == [2, None]
    assert data.questions["validation"]["group"][:] == ["1", "4"]
    assert list(data.clips)[1] == {"clip_id": OTHER, "duration": None, "subtitles": [], "objects": []}


SCRIPT = {
    OTHER: {
        "st": "106.0",
        "et": "112.5",
        "contained_subs": [said("104.5", "107.0"), said("108.0", "300.0", "Bye.", "None")],
    },
    SHOT: {
        "st": "100.0",
        "et": "106.0",
        "contained_subs": [said("104.5", "107.0"), said("101.25", "102.0", "she(Anna)  ran")],
    },
    "AnotherMissOh14_002_0030": {"st": "200", "et": "210", "contained_subs": [said("201", "202")]},
}


def test_a_shot_has_its_own_sentences_from_its_own_start(release):
    (clip,) = load(release(record(), script=SCRIPT)).clips
    assert clip["duration"] == pytest.approx(6.0)
    assert clip["subtitles"] == [
        {"start": 1.25, "end": 2.0, "speaker": "Deogi", "text": "she(Anna) ran"},
        {"start": 4.5, "end": 7.0, "speaker": "Deogi", "text": "Hi."},
    ]


def test_a_scene_is_all_its_shots_and_a_sentence_over_a_cut_comes_once(release):
    (clip,) = load(release(record(vid=SCENE), script=SCRIPT)).clips
    assert clip["duration"] == pytest.approx(12.5)
    assert [sentence["text"] for sentence in clip["subtitles"]] == ["she(Anna) ran", "Hi.", "Bye."]
    last = clip["subtitles"][-1]
    assert (last["speaker"], last["start"], last["end"]) == ("", 8.0, 11.0)  # 192 seconds are a slip: 3, as upstream


def test_a_shot_without_speech_is_not_in_the_script(release):
    root = release(record(), record(qid=8, vid="AnotherMissOh14_001_0099"), script=SCRIPT)
    assert [len(clip["subtitles"]) for clip in load(root).clips] == [2, 0]


def test_words_for_persons_on_the_clock_of_the_script(release):
    visual = {
        SHOT: [seen(2550, ("walk", "angry"), ("", "sad")), seen(2525, ("stand up", "")), seen(2600)],
        OTHER: [seen(2700, ("sit", "happy"), shot=OTHER)],
    }
    root = release(record(), record(qid=8, vid=SCENE), script=SCRIPT, visual=visual)
    shot, scene = load(root, objects=True).clips
    assert shot["objects"] == [  # frame 2525 of 25 a second is at 101 s, and the shot starts at 100 s
        {"time": 1.0, "labels": ["stand up"]},
        {"time": 2.0, "labels": ["walk", "angry", "sad"]},
    ]
    assert [frame["time"] for frame in scene["objects"]] == [1.0, 2.0, 8.0]
    assert load(root).clips[0]["objects"] == []


def test_a_clip_known_by_its_images_alone_begins_with_the_first(release):
    visual = {SHOT: [seen(2550, ("walk", "")), seen(2575, ("sit", ""))]}
    (clip,) = load(release(record(), visual=visual), subtitles=False, objects=True).clips
    assert [frame["time"] for frame in clip["objects"]] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vid": "AnotherMissOh14"}, "record 2, key 'vid'.*allowed"),
        ({"answers": "abcde"}, "record 2, key 'answers'.*allowed"),
        ({"answers": ["a", 1]}, "choice 1 is 1.*allowed"),
        ({"correct_idx": "2"}, "record 2, key 'correct_idx'.*allowed"),
        ({"correct_idx": 5}, "label is 5"),
        ({"q_level_logic": "1"}, "key 'q_level_logic'"),
        ({"que": ...}, "no key 'que'"),
    ],
)
def test_a_wrong_record_is_named(release, changes, words):
    with pytest.raises(ValueError, match=words):
        load(release(record(qid=1), record(**changes)), subtitles=False)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({SHOT: []}, "key 'AnotherMissOh14_001_0025'"),
        ({SHOT: {"st": "1", "contained_subs": []}}, "shot 'AnotherMissOh14_001_0025': no key 'et'"),
        ({SHOT: {"st": "soon", "et": "2", "contained_subs": []}}, "key 'st': 'soon' came"),
        ({SHOT: {"st": "1", "et": "2"}}, "no key 'contained_subs'"),
        ({SHOT: {"st": "1", "et": "2", "contained_subs": [said("nan", "2")]}}, "key 'st': 'nan' came"),
        ({SHOT: {"st": "1", "et": "2", "contained_subs": [{"st": "1", "et": "2"}]}}, "sentence 1: no key"),
    ],
)
def test_a_broken_script_is_named(release, script, words):
    with pytest.raises(ValueError, match=words):
        load(release(record(), script=script))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"frame_id": "x", "persons": []}, "frame 1, key 'frame_id': 'x'.*allowed"),
        ({"frame_id": "IMAGE_0000000001"}, "frame 1: no key 'persons'"),
        ({"frame_id": "IMAGE_0000000001", "persons": [{}]}, "a person: no key 'person_info'"),
    ],
)
def test_a_broken_visual_file_is_named(release, frame, words):
    with pytest.raises(ValueError, match=words):
        load(release(record(), visual={SHOT: [frame]}), subtitles=False, objects=True)


def test_a_part_that_is_missing_stops(release):
    with pytest.raises(FileNotFoundError, match=r"AnotherMissOh_script.json.*subtitles=False"):
        load(release(record()))
    with pytest.raises(FileNotFoundError, match=r"AnotherMissOh_Visual.json.*objects=False"):
        load(release(record()), subtitles=False, objects=True)
    with pytest.raises(FileNotFoundError, match=r"AnotherMissOhQA_train_set\.json"):
        load_dramaqa(release(record()), subtitles=False)


def test_real_questions(real):
    data = load_dramaqa(real / "dramaqa", subtitles=False, objects=False)
    assert {split: len(table) for split, table in data.questions.items()} == {"train": 8_021, "validation": 1_232}
    for table in data.questions.values():
        assert set(table["group"]) <= {"1", "2", "3", "4"}
        assert None not in table["label"]
        scenes = {
            clip_id.endswith("_0000")
            for clip_id, group in zip(table["clip_id"], table["group"], strict=True)
            if group in "34"
        }
        assert scenes == {True}
