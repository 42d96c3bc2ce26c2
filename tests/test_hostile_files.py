"""Whatever is in the files of a release: rows come out, or the one documented error; and the moment never gets in.

Each case is a whole release of one data set with everything in it that gives an answer away. A file of it is then
mutated byte by byte, or in what its JSON holds.
"""

import io
import json
import pickle
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from processing import VideoQACollator, VideoQADataset, VideoQAProcessor, load_videoqa, open_features
from processing.loaders import check_jsonl
from processing.loaders.nextqa import COLUMNS

LEAK = "zebra"  # stands wherever a file gives away the answer or its moment
CLIP = "s01e01_seg01_clip_00"
SHOT = "AnotherMissOh14_001_0025"
ANSWERS = {f"a{place}": word for place, word in enumerate(["cup", "door", "coat", "table", "chair"])}


def _lines(*records):
    return "\n".join(map(json.dumps, records)).encode()


def _json(value):
    return json.dumps(value).encode()


def _box(frame):
    return {"img_id": int(frame), "top": 0, "left": 0, "width": 9, "height": 9, "label": LEAK}


QUESTION = {"qid": 7, "vid_name": CLIP, "q": "who opens the door ?", "answer_idx": 1, "ts": "1.5-4", **ANSWERS}
PLUS = QUESTION | {"answer_idx": "1", "ts": [1.5, 4], "bbox": {"7": [_box(7)], "13": [_box(13)]}, "desc": LEAK}
SUBTITLES = {"vid_name": CLIP, "sub": [{"text": " Penny : the cup", "start": 0.5, "end": 2}], "note": LEAK}
STARTS = {CLIP: {"sub_text": "Penny : the cup <eos> a chair", "sub_time": [0.5, 3]}}
REGIONS = {CLIP: {"boxes": [[[0, 0, 9, 9]]], "object": [["red cup"]], "counts": [1], "note": LEAK}}
DRAMA = {
    "qid": 7, "vid": SHOT, "videoType": "shot", "shot_contained": [25], "que": "who opens the door ?",
    "answers": list(ANSWERS.values()), "correct_idx": 1, "q_level_mem": 2, "q_level_logic": 1, "description": LEAK,
}  # fmt: skip
SCRIPT = {SHOT: {"st": "100.0", "et": "106.0", "contained_subs": [
    {"speaker": "None", "utter": "the cup", "st": "101", "et": "102.5", "note": LEAK}]}}  # fmt: skip
PERSON = {"person_id": LEAK, "person_info": {
    "full_rect": {"min_x": "", "max_x": ""}, "behavior": "opens", "emotion": "red", "predicate": LEAK}}  # fmt: skip
VISUAL = {SHOT: [{"frame_id": f"{SHOT}_IMAGE_0000002525", "place": LEAK, "persons": [PERSON]}]}
OWN = {
    "clip": "a", "question": "who opens the door ?", "choices": list(ANSWERS.values()), "answer": 1, "start": 1,
    "end": 4, "subtitles": [{"start": 0.5, "end": 2, "speaker": "", "text": "the cup"}], "duration": 9,
    "objects": [{"time": 1, "labels": ["red cup"]}],
}  # fmt: skip
SRT = b"1\n00:00:00,500 --> 00:00:02,000\n(Penny:)the cup\n"
DURATIONS = {"val": {CLIP: [9.0, 1]}}
CONCEPTS = pickle.dumps({CLIP: ["red cup , lamp"] * 300}, 2)
NEXT = f"{','.join(COLUMNS)}\n40100,369,640,480,who opens the door,1,6,CH,{','.join(ANSWERS.values())}".encode()
HOW2 = b"yt,[61.5:64.0],cup,coat,None,who opens the door,door"
HOW2_SUBTITLES = {"vid_name": "yt_60_120", "sub": [{"text": "the cup", "start": 0.5, "end": 2}]}

# Name of a case -> data set, its files, options.
RELEASES = {
    "tvqa": ("tvqa", {
        "tvqa_val.jsonl": _lines(QUESTION | {"show_name": LEAK}),
        "tvqa_preprocessed_subtitles.jsonl": _lines(SUBTITLES),
        "det_visual_concepts_hq.pickle": CONCEPTS, "tvr_video2dur_idx.json": _json(DURATIONS)}, {}),
    "tvqa_srt": ("tvqa", {
        "tvqa_val.jsonl": _lines(QUESTION), f"tvqa_subtitles/{CLIP}.srt": SRT,
        "frm_cnt_cache.json": _json({CLIP: 27})}, {"objects": False}),
    "tvqa_plus": ("tvqa_plus", {
        "tvqa_plus_val.json": _json([PLUS]), "tvqa_preprocessed_subtitles.jsonl": _lines(SUBTITLES),
        "tvqa_bbt_frcn_vg_hq_20_100.json": _json(REGIONS), "durations.json": _json({CLIP: 9.0})}, {}),
    "stage": ("tvqa_plus", {
        "tvqa_plus_valid_preprocessed.json": _json([PLUS]), "tvqa_plus_subtitles.json": _json(STARTS),
        "tvqa_bbt_frcn_vg_hq_20_100.json": _json(REGIONS), "durations.json": _json({CLIP: 9.0})}, {"stage": True}),
    "dramaqa": ("dramaqa", {
        "AnotherMissOhQA_val_set.json": _json([DRAMA]), "AnotherMissOh_script.json": _json(SCRIPT),
        "AnotherMissOh_Visual.json": _json(VISUAL)}, {}),
    "how2qa": ("how2qa", {
        "how2QA_val_release.csv": HOW2, "how2r_qa_sub.jsonl": _lines(HOW2_SUBTITLES)}, {}),
    "nextqa": ("nextqa", {"val.csv": NEXT}, {}),
    "jsonl": ("jsonl", {"validation.jsonl": _lines(OWN)}, {}),
    "jsonl_srt": ("jsonl", {"validation.jsonl": _lines(OWN | {"subtitles": "a.srt"}), "a.srt": SRT}, {}),
}  # fmt: skip
FILES = [(case, name) for case, (_, files, _) in RELEASES.items() for name in files]


def write(root, case, **changed):
    for name, content in RELEASES[case][1].items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(changed.get(name, content))
    return root


def load(root, case, **options):
    return load_videoqa(RELEASES[case][0], root, splits=("validation",), **RELEASES[case][2] | options)


# Sentences may come out of order or end after their clip, which is told.
pytestmark = pytest.mark.filterwarnings("ignore:.*subtitle sentences")


# --- no leak


@pytest.fixture(scope="module")
def processor(tiny_tokenizer_of_module):
    return VideoQAProcessor(tiny_tokenizer_of_module, max_text_length=40)


@pytest.fixture(scope="module")
def tiny_tokenizer_of_module(tiny_encoder_dir):
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(tiny_encoder_dir)


def inputs(data, processor):
    """What the model is given to see, without the targets; and all its text."""
    dataset = VideoQADataset(processor, data.questions["validation"], data.clips)
    batch = VideoQACollator(processor)([dataset[0]])
    for target in ("labels", "start_positions", "end_positions", "anchor_input_ids"):
        batch.pop(target, None)
    return batch, processor.tokenizer.decode(batch["input_ids"].flatten())


@pytest.mark.parametrize("case", RELEASES)
def test_neither_boxes_nor_moment_nor_answer_reach_the_model(tmp_path, case, processor):
    data = load(write(tmp_path, case), case)
    assert LEAK not in json.dumps([list(data.questions["validation"]), list(data.clips)])
    batch, text = inputs(data, processor)
    assert "door" in text  # the choices are there, so that the words of a leak would be
    assert LEAK not in text.replace(" ", "")
    without = load(tmp_path, case, labels=False, **({} if case in ("dramaqa", "nextqa") else {"spans": False}))
    assert without.questions["validation"][0]["label"] is None
    assert without.questions["validation"][0]["start"] is None
    other, _ = inputs(without, processor)
    assert batch.keys() == other.keys()
    for key in batch:  # what the model sees is the same when neither answer nor moment is read at all
        torch.testing.assert_close(batch[key], other[key], rtol=0, atol=0)


# --- hostile files

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
MANY = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def mutated(draw, content):
    """The bytes of a file with some of them changed, cut off or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "end"]))
        if kind == "end":
            content = content[:place]
        else:
            new = draw(st.binary(min_size=1, max_size=3)) if kind != "cut" else b""
            content[place : place + (0 if kind == "insert" else draw(st.integers(1, 8)))] = new
    return bytes(content)


def _places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


def _replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


@contextmanager
def documented_error_at_most(*names):
    """Lets through what is sound, and an error of our own that names one of the places."""
    try:
        yield
    except ValueError as error:
        of_a_library = isinstance(error, UnicodeError | json.JSONDecodeError)
        if of_a_library or not any(name in str(error) for name in names):
            raise


def read_whole(root, case, name):
    """Load and go through everything."""
    with documented_error_at_most(Path(name).name, "split 'validation'", "clip ", "clips"):
        data = load(root, case, streaming=True)
        return [*data.questions["validation"]], [*data.clips]


@pytest.mark.parametrize(("case", "name"), FILES)
def test_mutated_bytes_are_rows_or_the_documented_error(tmp_path, case, name):
    write(tmp_path, case)
    content = RELEASES[case][1][name]

    @MANY
    @given(mutated(content) | st.binary(max_size=40))
    def check(changed):
        (tmp_path / name).write_bytes(changed)
        read_whole(tmp_path, case, name)
        if case.startswith("jsonl"):
            assert all(isinstance(problem, str) for problem in check_jsonl(tmp_path))

    check()


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, name in FILES if Path(name).suffix[:5] == ".json"])
def test_json_with_other_values_is_rows_or_the_documented_error(tmp_path, case, name):
    write(tmp_path, case)
    value = json.loads(RELEASES[case][1][name])
    places = list(_places(value))

    @MANY
    @given(st.sampled_from(places), JSON_VALUES)
    def check(place, new):
        (tmp_path / name).write_text(json.dumps(_replaced(value, place, new)))
        read_whole(tmp_path, case, name)

    check()


def _h5():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["a"] = np.ones((3, 2), np.float32)
    return buffer.getvalue()


def _saved(save, *arguments):
    buffer = io.BytesIO()
    save(*(argument if argument is not ... else buffer for argument in arguments))
    return buffer.getvalue()


ARRAY = np.ones((3, 2), np.float32)
FEATURE_FILES = {
    "a.h5": _h5(),
    "a.npz": _saved(lambda file: np.savez(file, a=ARRAY), ...),
    "a.safetensors": save_tensors({"a": ARRAY}),
    "a.pt": _saved(torch.save, {"a": torch.from_numpy(ARRAY)}, ...),
}


@pytest.mark.parametrize("name", FEATURE_FILES)
def test_mutated_feature_files_give_features_or_the_documented_error(tmp_path, name):
    path = tmp_path / name

    @MANY
    @given(mutated(FEATURE_FILES[name]) | st.binary(max_size=40))
    def check(changed):
        path.write_bytes(changed)
        with documented_error_at_most(name):
            for features, times in open_features(path, frame_rate=3).values():
                assert len(features) == len(times)
                assert np.isfinite(features).all()

    check()
