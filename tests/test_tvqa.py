"""TVQA from small files in the layouts of its release, and from the real test file where it is at hand."""

import doctest
import json
import pickle

import pytest

from processing.loaders import load_tvqa, load_tvqa_plus, pickles, tvqa
from processing.loaders.pickles import read_text_pickle
from processing.loaders.tvqa import frame_row_times

CLIP = "castle_s01e02_seg02_clip_09"
SPOKEN = {"text": " Beckett : That's it?", "start": 0.5, "end": 1}


def record(**changes):
    row = {"qid": 5, "vid_name": CLIP, "q": "Who ?", "answer_idx": 2, "ts": "1.5-4", "show_name": "Castle"}
    row |= {f"a{place}": f" answer {place} " for place in range(5)}
    return {key: value for key, value in (row | changes).items() if value is not ...}


@pytest.fixture
def release(tmp_path):
    """A function that writes a release; what it is given replaces the file's content, None leaves the file out."""

    def write(*records, subtitles=((CLIP, [SPOKEN]),), **files):
        folder = tmp_path / "tvqa_qa_release"
        folder.mkdir()
        (folder / "tvqa_val.jsonl").write_text("\n".join(map(json.dumps, records)))
        if subtitles is not None:
            lines = [json.dumps({"vid_name": vid, "sub": sub}) for vid, sub in subtitles]
            (tmp_path / "tvqa_preprocessed_subtitles.jsonl").write_text("\n".join(lines))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def load(root, objects=False, **arguments):
    return load_tvqa(root, ("validation",), objects=objects, **arguments)


@pytest.mark.parametrize("module", [tvqa, pickles])
def test_the_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_record_becomes_a_row(release):
    data = load(release(record()))
    assert data.questions["validation"][0] == {
        "qid": "5", "clip_id": CLIP, "question": "Who ?", "choices": [f"answer {place}" for place in range(5)],
        "label": 2, "start": 1.5, "end": 4.0, "group": "castle",
    }  # fmt: skip
    said = {"start": 0.5, "end": 1.0, "speaker": "Beckett", "text": "That's it?"}
    assert list(data.clips) == [{"clip_id": CLIP, "duration": None, "subtitles": [said], "objects": []}]


@pytest.mark.parametrize(
    ("clip_id", "show_name", "group"),
    [
        ("s03e21_seg02_clip_08", "The Big Bang Theory", "bbt"),
        ("s03e21_seg02_clip_08", ..., "bbt"),
        ("met_s03e21_seg02_clip_08", "How I Met You Mother", "met"),
        ("friends_s02e12-13_seg02_clip_31", ..., "friends"),
        ("elsewhere", "Castle", "Castle"),
        ("elsewhere", ..., "unknown"),
    ],
)
def test_the_show_is_read_from_the_name_of_the_clip(release, clip_id, show_name, group):
    root = release(record(vid_name=clip_id, show_name=show_name))
    assert load(root, subtitles=False).questions["validation"][0]["group"] == group


@pytest.mark.parametrize("ts", ["NaN-NaN", "0-0", "19.18-19.18", ...])
def test_a_moment_that_is_none(release, ts):
    row = load(release(record(ts=ts), record(qid=8))).questions["validation"][0]
    assert (row["start"], row["end"]) == (None, None)


@pytest.mark.parametrize(("answer", "label"), [(2, 2), ("2", 2), ("a2", 2), (..., None)])
def test_every_way_to_write_an_answer(release, answer, label):
    assert load(release(record(answer_idx=answer), record(qid=8))).questions["validation"][0]["label"] == label


def test_two_answers_may_be_equal(release):
    row = load(release(record(a0="Yes.", a4=" Yes. "))).questions["validation"][0]
    assert (row["choices"][0], row["choices"][4], row["label"]) == ("Yes.", "Yes.", 2)


def test_long_tvqa_names_two_keys_differently(release):
    row = load(release(record(vid_name=..., answer_idx=..., occur_clip=CLIP, answer="a3"))).questions["validation"][0]
    assert (row["clip_id"], row["label"]) == (CLIP, 3)


@pytest.mark.parametrize("changes", [{"ts": "1-2-3"}, {"ts": [1, 10**400]}, {"answer_idx": "b2"}, {"answer_idx": "a9"}])
def test_what_is_no_moment_or_answer_is_refused(release, changes):
    with pytest.raises(ValueError, match=r"(line 2, key|label is 9).*llowed"):
        load(release(record(qid=1), record(**changes)))


def test_stage_subtitles_have_starts_only(release):
    stage = {CLIP: {"sub_text": "Amy : Hi . <eos> <eos> Bye .", "sub_time": [1, 2.5, 4]}}
    root = release(record(), subtitles=None, tvqa_plus_subtitles=stage, durations={CLIP: 9.0})
    assert load(root).clips[0]["subtitles"] == [
        {"start": 1.0, "end": 2.5, "speaker": "Amy", "text": "Hi ."},
        {"start": 4.0, "end": 9.0, "speaker": "", "text": "Bye ."},
    ]
    stage[CLIP]["sub_time"].pop()
    (root / "tvqa_plus_subtitles.json").write_text(json.dumps(stage))
    with pytest.raises(ValueError, match=f"{CLIP}.*3 sentences with 2 starts.*allowed"):
        load(root)


def test_a_clip_may_have_an_empty_list_of_sentences(release):
    root = release(record(), record(qid=6, vid_name="other"), subtitles=[(CLIP, [SPOKEN]), ("other", [])])
    assert [len(clip["subtitles"]) for clip in load(root).clips] == [1, 0]


@pytest.mark.parametrize(
    "files",
    [
        {"durations": {CLIP: 61.5}},
        {"tvr_video2dur_idx": {"train": {}, "val": {CLIP: [61.5, 7]}}},
        {"frm_cnt_cache": {CLIP: 184}},
    ],
    ids=lambda files: next(iter(files)),
)
def test_three_files_say_how_long_a_clip_is(release, files):
    assert load(release(record(), **files)).clips[0]["duration"] == pytest.approx(61.5, abs=0.2)


def write_concepts(root, value):
    (root / "det_visual_concepts_hq.pickle").write_bytes(pickle.dumps(value, protocol=2))
    return root


def test_visual_concepts(release):
    root = write_concepts(release(record()), {CLIP: ["gray pants , black shirt", "", "lamp"]})
    assert load(root, objects=True).clips[0]["objects"] == [
        {"time": 0.0, "labels": ["gray pants", "black shirt"]},
        {"time": 2 / 3, "labels": ["lamp"]},
    ]
    assert load(root).clips[0]["objects"] == []


def test_visual_concepts_of_a_long_clip_are_spread_over_it(release):
    root = write_concepts(release(record(), durations={CLIP: 200.0}), {CLIP: ["a lamp"] * 300})
    times = [frame["time"] for frame in load(root, objects=True).clips[0]["objects"]]
    assert (times[0], times[150], len(times)) == (0.0, pytest.approx(100.0), 300)


def test_times_of_rows():
    assert frame_row_times(4, None) == [0, 1 / 3, 2 / 3, 1]
    assert frame_row_times(300, 100.0)[-1] == pytest.approx(299 / 3)  # 300 frames, none left out
    assert frame_row_times(300, None)[-1] == pytest.approx(299 / 3)
    assert frame_row_times(299, 200.0)[-1] == pytest.approx(298 / 3)
    assert all(b > a for a, b in zip(frame_row_times(300, 272.0), frame_row_times(300, 272.0)[1:], strict=False))


class Run:
    """What a hostile pickle is made of."""

    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (pickle.dumps({"c": [Run()]}), "asks for"),
        (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
        (pickle.dumps({"c": ["a"]})[:-4], "cannot be read"),
        (b"", "cannot be read"),
        (b"\x80\x02]q\x00Ph\n.", "cannot be read"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot be read"),
        (pickle.dumps(["a"]), "holds a list"),
        (pickle.dumps({"c": "a"}), "holds a str under 'c'"),
        (pickle.dumps({"c": ["a", 1]}), "holds a int under 'c', place 1"),
        (pickle.dumps({1: ["a"]}), "under 1"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_and_not_run(tmp_path, capsys, content, came):
    path = tmp_path / "concepts.pickle"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{came}.*allowed"):
        read_text_pickle(path)
    assert capsys.readouterr().out == ""


def test_a_pickle_that_says_one_list_many_times_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_TEXTS", 100)
    path = tmp_path / "concepts.pickle"
    texts = ["a"] * 10
    path.write_bytes(pickle.dumps({str(number): texts for number in range(11)}))
    with pytest.raises(ValueError, match="more than 100 texts"):
        read_text_pickle(path)


def test_a_pickle_of_python_2(tmp_path):
    path = tmp_path / "concepts.pickle"
    path.write_bytes(b"(dp0\nS'clip'\np1\n(lp2\nS'caf\\xe9 , lamp'\np3\nas.")  # protocol 0, latin-1
    assert read_text_pickle(path) == {"clip": ["caf\xe9 , lamp"]}


def test_stage_questions(tmp_path):
    rows = [record(answer_idx="1", ts=[0, 5.5], q_len=3)]
    (tmp_path / "tvqa_plus_valid_preprocessed.json").write_text(json.dumps(rows))
    (tmp_path / "tvqa_plus_test_preprocessed_no_anno.json").write_text(
        json.dumps([record(qid=6, answer_idx=..., ts=..., bbox={"1": []})])
    )
    data = load_tvqa_plus(tmp_path, ("validation", "test"), subtitles=False, objects=False, stage=True)
    assert data.questions["validation"][0]["label"] == 1
    assert (data.questions["test"][0]["label"], data.questions["test"][0]["start"]) == (None, None)


def test_files_are_found_whatever_the_case_and_counts_are_told(release, caplog):
    root = release(record())
    (root / "tvqa_qa_release" / "tvqa_val.jsonl").rename(root / "tvqa_qa_release" / "TVQA_val.jsonl")
    assert len(load(root).questions["validation"]) == 1
    assert "1 questions came, the official release has 15253" in caplog.text


def test_real_test_file(real):
    data = load_tvqa(real / "tvqa", ("test",), subtitles=False, objects=False)
    table = data.questions["test"]
    assert len(table) == 7_623
    assert len(data.clips) == 1_089
    assert sum(start is None for start in table["start"]) == 5  # 3 NaN and 2 of no length
    unusable = {row["qid"] for row in table if row["start"] is None}
    assert unusable == {"137648", "142453", "142977", "139509", "145670"}
    assert set(table["group"]) == {"bbt", "friends", "met", "castle", "house", "grey"}
    assert set(table["label"]) == {None}
    assert sum("-" in clip_id for clip_id in table["clip_id"]) == 168  # double episodes
