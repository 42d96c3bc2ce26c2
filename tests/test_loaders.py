"""The schema's checks, the loader of TVQA+ on files made here, and on the real files where they are."""

import doctest
import json
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processing import loaders
from processing.loaders import VideoQAData, files, load_videoqa, make_tables, schema, tables, tvqa, tvqa_plus
from processing.loaders import load_tvqa_plus as load_with_objects
from processing.loaders.schema import CLIP_FEATURES, QUESTION_FEATURES, Coverage
from processing.mini_corpus import KINDS, write_mini_corpus

CLIP = "s01e01_seg01_clip_00"


def question(**changes):
    row = {"qid": "1", "clip_id": "c", "question": "Who ?", "choices": ["x", "y"], "label": 1}
    return row | {"start": 1.0, "end": 2.5, "group": "bbt"} | changes


def clip(**changes):
    sentence = {"start": 1.0, "end": 2.0, "speaker": "Amy", "text": "Hello."}
    return {"clip_id": "c", "duration": 60.0, "subtitles": [sentence], "objects": []} | changes


def said(start=0.0, end=1.0, text="Hi.", speaker=""):
    return {"start": start, "end": end, "speaker": speaker, "text": text}


def record(**changes):
    row = {"qid": 7, "vid_name": CLIP, "q": "Who ?", "answer_idx": "2", "ts": [0.0, 5]}
    row |= {f"a{place}": f" answer {place} " for place in range(5)}
    row["bbox"] = {"1": [{"img_id": 1, "top": 0, "left": 0, "width": 9, "height": 9, "label": "Leak"}]}
    return {key: value for key, value in (row | changes).items() if value is not ...}


def load_tvqa_plus(root, splits=("train", "validation"), objects=False, **options):
    return load_with_objects(root, splits, objects=objects, **options)


@pytest.fixture
def release(tmp_path):
    """A function that writes a release; what it is given replaces the file's content, None leaves the file out."""

    def write(train=(), val=(), subtitles=((CLIP, [{"text": " Chase : That's it?", "start": 0.5, "end": 1}]),)):
        for name, records in (("train", train), ("val", val)):
            if records:
                (tmp_path / f"tvqa_plus_{name}.json").write_text(json.dumps(list(records)))
        if subtitles is not None:
            lines = [json.dumps({"vid_name": vid, "sub": sub}) for vid, sub in subtitles]
            (tmp_path / "tvqa_preprocessed_subtitles.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write


# --- the schema


@pytest.mark.parametrize("module", [loaders, schema, tables, files, tvqa_plus])
def test_the_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_rows_come_back_as_they_went_in():
    frame = {"time": 1 / 3, "labels": ["red couch", "lamp"]}
    rows = [question(), question(qid="2", clip_id="d", label=None, start=None, end=None)]
    data = make_tables({"train": rows}, [clip(objects=[frame]), clip(clip_id="d", duration=None, subtitles=[])])
    assert isinstance(data, VideoQAData)
    assert list(data.questions["train"]) == rows
    assert data.clips[0] == clip(objects=[frame])
    assert data.clips[1] == {"clip_id": "d", "duration": None, "subtitles": [], "objects": []}
    assert data.questions["train"].features == QUESTION_FEATURES
    assert data.clips.features == CLIP_FEATURES


@pytest.mark.parametrize(("start", "end"), [(math.nan, math.nan), (5.0, 2.0), (3.0, 3.0), (0, math.inf), (1, math.nan)])
def test_a_span_that_cannot_be_used_is_emptied_and_counted(start, end, caplog):
    rows = [question(start=start, end=end), question(qid="2")]
    with caplog.at_level(logging.INFO, logger="processing.loaders.tables"):
        data = make_tables({"train": rows}, [clip()])
    assert (data.questions["train"][0]["start"], data.questions["train"][0]["end"]) == (None, None)
    told = f"own rows train: {data.coverage()['train']}"
    assert caplog.messages == ["train: 1 spans not usable, left out", told]
    assert data.coverage()["train"].with_span == 1
    assert rows[0]["end"] is end  # what came in is not changed


@given(st.floats(), st.floats())
def test_every_span_comes_out_usable_or_empty(start, end):
    row, dropped = schema.check_question(question(start=start, end=end), "train", 1)
    if dropped:
        assert (row["start"], row["end"]) == (None, None)
    else:
        assert -math.inf < row["start"] < row["end"] < math.inf


def test_sentences_are_sorted_and_those_without_text_left_out():
    sentences = [said(5.0, 6.0, "b"), said(0.0, 1.0, " "), said(2.0, 2.0, "a")]
    data = make_tables({"train": [question()]}, [clip(subtitles=sentences)])
    assert [sentence["text"] for sentence in data.clips[0]["subtitles"]] == ["a", "b"]


def test_coverage_counts_each_split_and_follows_a_filter():
    questions = {
        "train": [question(), question(qid="2", clip_id="d", start=None, end=None)],
        "test": [question(qid="3", label=None)],
    }
    frame = {"time": 0.0, "labels": ["lamp"]}
    data = make_tables(questions, [clip(objects=[frame]), clip(clip_id="d", duration=None, subtitles=[])])
    assert data.coverage() == {
        "train": Coverage(2, 2, 2, 1, with_subtitles=1, with_objects=1, with_duration=1),
        "test": Coverage(1, 1, 0, 1, with_subtitles=1, with_objects=1, with_duration=1),
    }
    assert data.coverage(features={"d": None})["train"].with_features == 1
    fewer = data._replace(clips=data.clips.select([1, 0]))
    fewer.questions["train"] = fewer.questions["train"].filter(lambda row: row["clip_id"] == "d")
    assert fewer.coverage()["train"] == Coverage(1, 1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("questions", "clips", "words"),
    [
        ([question(choices=["x"])], [clip()], r"split 'train', qid '1': choices .* Two or more"),
        ([question(choices="xy")], [clip()], "Two or more"),
        ([question(choices=["x", " "])], [clip()], "qid '1': choice 1 is ' '"),
        ([question(), question(qid="2", choices=["x", "y", "z"])], [clip()], "qid '2': 3 choices.* have 2"),
        ([question(label=2)], [clip()], "qid '1': label is 2.* 0 to 1"),
        ([question(label=-1)], [clip()], "label is -1"),
        ([question(label=True)], [clip()], "label is True"),
        ([question(label="1")], [clip()], "label is '1'"),
        ([question(), question()], [clip()], "qid '1': this qid was there before, in split 'train'"),
        ([question(clip_id="d")], [clip()], "qid '1': its clip 'd' is not among"),
        ([question(start="1.0")], [clip()], "qid '1': start is '1.0'"),
        ([question(start=None)], [clip()], "qid '1': start is None"),
        ([question(qid=1)], [clip()], "qid is 1"),
        ([question(group=None)], [clip()], "group is None"),
        ([question(bbox={})], [clip()], r"question number 1: missing keys \[\], unknown keys \['bbox'\]"),
        ([{"qid": "1"}], [clip()], r"missing keys \['choices', 'clip_id'"),
        (["text"], [clip()], "a str came"),
        ([], [clip()], "split 'train' came without a question"),
        ([question()], [clip(), clip()], "clip 'c' came twice"),
        ([question()], [clip(), clip(clip_id="d")], "clip 'd' came without a question.* leave it out"),
        ([question()], [clip(duration=0)], "clip 'c': duration is 0"),
        ([question()], [clip(duration="60")], "clip 'c': duration is '60'"),
        ([question()], [clip(duration=math.nan)], "duration is nan"),
        ([question()], [clip(subtitles=[said(3.0, 2.0)])], "clip 'c', sentence 0: it ends at 2.0 s, before"),
        ([question()], [clip(subtitles=[said(end=None)])], "sentence 0: end is None"),
        ([question()], [clip(subtitles=[said(start=math.nan)])], "start is nan"),
        ([question()], [clip(subtitles=[said(text=None)])], "text is None"),
        ([question()], [clip(subtitles=[said(speaker=None)])], "speaker is None"),
        ([question()], [clip(objects=[{"time": "0", "labels": []}])], "frame 0: time is '0'"),
        ([question()], [clip(objects=[{"time": 0.0, "labels": "lamp"}])], "labels are 'lamp'"),
        ([question()], [clip(objects=[{"time": 0.0, "labels": ["lamp", ""]}])], "label is ''"),
        ([question()], [clip(objects=5)], "clip 'c': objects is 5.* A list"),
        ([question(question="\ud800")], [clip()], "qid '1': question is .*half a character"),
        ([question(end=10**400)], [clip(duration=10**400)], "clip 'c': duration is 1000"),
        ([question()], [clip(subtitles=[])], "'train': not one of its 1 questions has a sentence.* subtitles=False"),
        ([question(label=None)], [clip()], "'train': not one of its 1 questions has a label.*labels=False"),
    ],
)
def test_wrong_rows_are_refused_by_name(questions, clips, words):
    with pytest.raises(ValueError, match=words):
        make_tables({"train": questions}, clips)


def test_a_qid_may_not_come_back_in_another_split():
    with pytest.raises(ValueError, match="split 'test', qid '1': this qid was there before, in split 'train'"):
        make_tables({"train": [question()], "test": [question()]}, [clip()])


def test_missing_parts_can_be_switched_off():
    data = make_tables({"train": [question(label=None)]}, [clip(subtitles=[])], subtitles=False, labels=False)
    assert str(data.coverage()["train"]).startswith("1 questions about 1 clips: 0 with label, 1 with span, 0 with s")
    assert make_tables({"test": [question(label=None)]}, [clip()])  # a test split has no labels to miss
    with pytest.raises(ValueError, match="no split came"):
        make_tables({}, [clip()])


# --- TVQA+


def test_a_record_becomes_a_row_without_its_boxes(release):
    own = record(qid="8", vid_name="own", show_name="Castle")
    data = load_tvqa_plus(release(train=[record()], val=[record(qid=9), own]))
    assert data.questions["train"][0] == {
        "qid": "7",
        "clip_id": CLIP,
        "question": "Who ?",
        "choices": [f"answer {place}" for place in range(5)],
        "label": 2,
        "start": 0.0,
        "end": 5.0,
        "group": "bbt",
    }
    assert data.questions["validation"][1]["group"] == "Castle"
    assert list(data.clips) == [
        {"clip_id": CLIP, "duration": None, "subtitles": [said(0.5, 1.0, "That's it?", "Chase")], "objects": []},
        {"clip_id": "own", "duration": None, "subtitles": [], "objects": []},
    ]


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ([1, 2.5], (1.0, 2.5)),
        ("48.62-60.02", (48.62, 60.02)),
        ("NaN-NaN", (None, None)),
        (math.nan, (None, None)),
        ([math.nan, math.nan], (None, None)),
        ("0-0", (None, None)),
        (None, (None, None)),
        (..., (None, None)),
    ],
)
def test_every_way_to_write_a_span(release, ts, expected):
    data = load_tvqa_plus(release(val=[record(ts=ts), record(qid=8)]), ["validation"])
    row = data.questions["validation"][0]
    assert (row["start"], row["end"]) == expected


@pytest.mark.parametrize(("answer", "expected"), [("0", 0), (4, 4), (None, None), (..., None)])
def test_every_way_to_write_an_answer(release, answer, expected):
    data = load_tvqa_plus(release(val=[record(answer_idx=answer), record(qid=8)]), ["validation"])
    assert data.questions["validation"][0]["label"] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Chase : That's all this is?", ("Chase", "That's all this is?")),
        ("The old man : Stop : now", ("The old man", "Stop : now")),
        ("He said to them : Stop", ("", "He said to them : Stop")),
        ("at 9 : 00", ("", "at 9 : 00")),
        (" : Stop", ("", ": Stop")),
        ("No &amp;  yes", ("", "No & yes")),
        ("Chase :", ("Chase", "")),
        ("", ("", "")),
    ],
)
def test_a_speaker_is_split_off(text, expected):
    assert tvqa._split_speaker(text) == expected


def test_subtitles_from_srt_files(release):
    root = release(val=[record(), record(qid=8, vid_name="without")], subtitles=None)
    (root / "tvqa_subtitles").mkdir()
    srt = "1\n00:00:01,000 --> 00:00:02,500\n(Sheldon:)Hello there\n"
    (root / "tvqa_subtitles" / f"{CLIP}.srt").write_text(srt)
    data = load_tvqa_plus(root, ["validation"])
    assert data.clips[0]["subtitles"] == [said(1.0, 2.5, "Hello there", "Sheldon")]
    assert data.clips[1]["subtitles"] == []
    assert data.coverage()["validation"].with_subtitles == 1


def test_durations_objects_and_kind_from_a_folder_below(release):
    root = release(train=[record(kind="colour")])
    (root / "extra").mkdir()
    (root / "extra" / "durations.json").write_text(json.dumps({CLIP: 61}))
    stage = {CLIP: {"object": [["lamp", "red couch"], [], ["man"]], "boxes": [], "counts": []}, "other": {}}
    (root / "extra" / "tvqa_bbt_frcn_vg_hq_20_100.json").write_text(json.dumps(stage))
    data = load_videoqa("mini", root, splits=("train",))
    assert data.questions["train"][0]["group"] == "colour"
    assert data.clips[0]["duration"] == 61.0
    assert data.clips[0]["objects"] == [
        {"time": 0.0, "labels": ["lamp", "red couch"]},
        {"time": 2 / 3, "labels": ["man"]},  # frame 3 of 3 a second
    ]
    assert load_tvqa_plus(root, ("train",), subtitles=True).clips[0]["objects"] == []


def test_parts_can_be_left_out(release):
    root = release(train=[record(answer_idx=...)], subtitles=None)
    with pytest.raises(FileNotFoundError, match=r"nor det_visual_concepts_hq.pickle.*objects=False"):
        load_with_objects(root, ("train",), subtitles=False, labels=False)
    data = load_tvqa_plus(root, ("train",), subtitles=False, labels=False)
    assert data.coverage()["train"] == Coverage(1, 1, 0, 1, 0, 0, 0)
    data = load_tvqa_plus(root, ("train",), subtitles=False, labels=False, spans=False)
    assert data.coverage()["train"].with_span == 0


def test_only_clips_that_are_asked_about_become_rows(release):
    sentence = {"text": "Hi", "start": 0, "end": 1}
    root = release(
        train=[record()], val=[record(qid=8, vid_name="other")], subtitles=[(CLIP, [sentence]), ("other", [sentence])]
    )
    assert load_tvqa_plus(root, ("validation",)).clips["clip_id"][:] == ["other"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qid": ...}, r"tvqa_plus_val.json, record 2: no key 'qid'"),
        ({"qid": True}, "record 2, key 'qid': True came. Only int or str"),
        ({"a3": ...}, "record 2: no key 'a3'"),
        ({"a3": 5}, "record 2, key 'a3': 5 came. Only str"),
        ({"vid_name": None}, "key 'vid_name': None"),
        ({"answer_idx": "b3"}, "record 2, key 'answer_idx': 'b3'"),
        ({"answer_idx": "5"}, "split 'validation', qid '7': label is 5"),
        ({"answer_idx": 1.0}, "key 'answer_idx': 1.0"),
        ({"ts": [1, 2, 3]}, "record 2, key 'ts'"),
        ({"ts": "soon"}, "key 'ts': 'soon'"),
        ({"ts": ["a", "b"]}, "key 'ts'"),
        ({"ts": 5}, "key 'ts': 5"),
    ],
)
def test_a_wrong_record_is_named(release, changes, words):
    with pytest.raises(ValueError, match=words):
        load_tvqa_plus(release(val=[record(qid=6), record(**changes)]), ("validation",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tvqa_plus_val.json", '[{"qid": 1, "vid_', "tvqa_plus_val.json: no JSON at line 1.*cut short"),
        ("tvqa_plus_val.json", "{}", "a JSON dict came. A list is allowed"),
        ("tvqa_plus_val.json", "[5]", "record 1: 5 came. A JSON object"),
        ("tvqa_plus_val.json", b"[\xff]", "UTF-8"),
        ("tvqa_plus_val.json", "[]", "split 'validation' came without a question"),
        ("durations.json", "[]", "durations.json: a JSON list came"),
        ("durations.json", json.dumps({CLIP: "long"}), "duration is 'long'"),
        ("tvqa_preprocessed_subtitles.jsonl", '\n{"vid_name": "x"', "jsonl, line 2: no JSON"),
        ("tvqa_preprocessed_subtitles.jsonl", json.dumps({"vid_name": CLIP}), "line 1: no key 'sub'"),
        ("tvqa_preprocessed_subtitles.jsonl", json.dumps({"vid_name": CLIP, "sub": {}}), "key 'sub': {}"),
        (
            "tvqa_preprocessed_subtitles.jsonl",
            json.dumps({"vid_name": CLIP, "sub": [{"start": 0.0, "end": "1", "text": "a"}]}),
            "line 1, sentence 1, key 'end': '1'",
        ),
        ("tvqa_preprocessed_subtitles.jsonl", json.dumps({"vid_name": "other", "sub": []}), "subtitles=False"),
        ("tvqa_bbt_frcn_vg_hq_20_100.json", json.dumps({CLIP: {}}), f"clip '{CLIP}': no key 'object'"),
        ("tvqa_bbt_frcn_vg_hq_20_100.json", json.dumps({CLIP: {"object": ["lamp"]}}), "frame 0: labels are 'lamp'"),
        ("tvqa_bbt_frcn_vg_hq_20_100.json", json.dumps({CLIP: {"object": [[]]}}), "an object label.*objects=False"),
    ],
)
def test_a_broken_file_is_named(release, name, content, words):
    root = release(val=[record()])
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words):
        load_tvqa_plus(root, ("validation",), objects=name == tvqa.REGIONS)


def test_missing_files_are_named(release, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tvqa_plus_train.json is not in"):
        load_tvqa_plus(release(val=[record()], subtitles=None))
    with pytest.raises(FileNotFoundError, match=r"nor tvqa_subtitles.*subtitles=False"):
        load_tvqa_plus(tmp_path, ("validation",))
    with pytest.raises(FileNotFoundError, match="An existing folder"):
        load_tvqa_plus(tmp_path / "nowhere")


def test_a_file_in_two_folders_is_not_guessed(release):
    root = release(val=[record()])
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "durations.json").write_text("{}")
    with pytest.raises(ValueError, match=r"durations.json is in 2 folders.*: a, b. One is allowed"):
        load_tvqa_plus(root, ("validation",))


@pytest.mark.parametrize("splits", ["train", (), ("train", "val")])
def test_splits_are_checked(tmp_path, splits):
    with pytest.raises(ValueError, match=r"splits is .* 'validation'"):
        load_tvqa_plus(tmp_path, splits)


def test_the_mini_corpus_reads_the_same_from_either_kind_of_subtitles(tmp_path, caplog):
    root = write_mini_corpus(tmp_path / "mini", num_train_clips=2, num_val_clips=1, progress=False)
    data = load_videoqa("mini", root)
    assert "official release" not in caplog.text  # it has none
    assert data.coverage() == {
        "train": Coverage(18, 2, 18, 18, 18, 18, 18),
        "validation": Coverage(9, 1, 9, 9, 9, 9, 9),
    }
    assert set(data.questions["train"]["group"]) == set(KINDS)
    (root / "tvqa_preprocessed_subtitles.jsonl").unlink()
    from_srt = load_videoqa("mini", root)
    for one, other in zip(data.clips, from_srt.clips, strict=True):
        # The json lines hold spaced tokens as the release does: "the camera ." for "the camera."
        spoken, also = ([s["speaker"] + s["text"].replace(" ", "") for s in row["subtitles"]] for row in (one, other))
        assert spoken == also
        assert all(s["speaker"] for s in one["subtitles"])
        for key in ("start", "end"):
            expected = pytest.approx([s[key] for s in one["subtitles"]], abs=1e-3)  # srt keeps milliseconds
            assert [s[key] for s in other["subtitles"]] == expected


def test_real_tvqa_plus(real):
    data = load_tvqa_plus(real / "tvqa_plus")
    assert data.coverage() == {
        "train": Coverage(1960, 280, 1960, 1959, 1960, 0, 1960),  # one span has zero length
        "validation": Coverage(504, 72, 504, 504, 504, 0, 504),
    }
    assert len(data.clips) == 352
    for table in data.questions.values():
        assert table.features == QUESTION_FEATURES
        assert set(table["group"]) == {"bbt"}
        assert "bbox" not in table.column_names
    assert set(data.clips.column_names) == set(CLIP_FEATURES)
    only_validation = load_tvqa_plus(real / "tvqa_plus", ("validation",), subtitles=False)
    assert len(only_validation.clips) == 72
    assert only_validation.clips[0]["subtitles"] == []
