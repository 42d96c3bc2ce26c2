"""Object labels by a detector: the labels of its own post-processing, mapped, stored, and joined to the tables."""

import doctest
import json

import numpy as np
import pytest
import torch
from test_video import encode
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

from processing import ObjectStore, extract_objects, objects
from processing.loaders import make_tables
from processing.video_videoqa import decode_frames, probe_video, sample_times

NAMES = {0: "cat", 1: "tv", 2: "couch"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 48],
        patch_size=16, num_detection_tokens=6, id2label=NAMES, label2id={name: n for n, name in NAMES.items()},
    )  # fmt: skip
    model = YolosForObjectDetection(config)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def image_processor():
    return YolosImageProcessorPil(size={"height": 32, "width": 48})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, length in (("a", 25), ("b", 13)):
        encode(folder / f"{name}.mp4", ticks=range(length))
    return {name: folder / f"{name}.mp4" for name in "ab"}


def extract(videos, model, image_processor, folder, **options):
    options = {"threshold": 0.2, "frame_rate": 5, "batch_size": 3, "progress": False} | options
    return extract_objects(videos, model, image_processor, folder, **options)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(objects).failed == 0


def expected_labels(path, model, image_processor, threshold):
    times = sample_times(probe_video(path), 5)
    rows = []
    for picture in decode_frames(path, times):
        with torch.no_grad():
            outputs = model.eval()(**image_processor(images=picture, return_tensors="pt"))
        (found,) = image_processor.post_process_object_detection(outputs, threshold, target_sizes=[picture.shape[:2]])
        order = np.argsort(-found["scores"].numpy(), kind="stable")
        rows.append(list(dict.fromkeys(NAMES[place] for place in found["labels"].numpy()[order] if place in NAMES)))
    return times, rows


def test_labels_are_those_of_the_detector_the_surest_first(videos, model, image_processor, tmp_path):
    done = extract(videos, model, image_processor, tmp_path / "store")
    assert (sorted(done.finished), done.failed) == (["a", "b"], {})
    store = ObjectStore(done.directory)
    for clip_id, path in videos.items():
        times, rows = expected_labels(path, model, image_processor, 0.2)
        kept = [{"time": time, "labels": labels} for time, labels in zip(times.tolist(), rows, strict=True) if labels]
        assert store[clip_id] == kept
    assert any(len(frame["labels"]) > 1 for clip in store.values() for frame in clip)


def test_the_threshold_and_the_map_of_labels(videos, model, image_processor, tmp_path):
    none = ObjectStore(extract(videos, model, image_processor, tmp_path / "none", threshold=1.0).directory)
    assert dict(none) == {"a": [], "b": []}
    label_map = {"tv": "television", "cat": None}
    mapped = ObjectStore(extract(videos, model, image_processor, tmp_path / "map", label_map=label_map).directory)
    plain = ObjectStore(extract(videos, model, image_processor, tmp_path / "plain").directory)
    changed = {"tv": "television", "couch": "couch"}
    for clip_id in videos:
        rows = [[changed[label] for label in frame["labels"] if label in changed] for frame in plain[clip_id]]
        assert [frame["labels"] for frame in mapped[clip_id]] == [row for row in rows if row]
    with pytest.raises(ValueError, match=r"label_map \{'cat': None, 'tv': 'television'\} there, \{\} here"):
        extract(videos, model, image_processor, tmp_path / "map")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"threshold": 1.5}, "threshold is 1.5"), ({"label_map": {"dog": "x"}}, r"label_map has \['dog'\]")],
)
def test_arguments_that_are_wrong(videos, model, image_processor, tmp_path, wrong, said):
    with pytest.raises(ValueError, match=f"{said}.*Allowed"):
        extract(videos, model, image_processor, tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


def test_a_stopped_run_is_taken_up(videos, model, image_processor, tmp_path):
    extract({"a": videos["a"]}, model, image_processor, tmp_path / "s")
    assert extract(videos, model, image_processor, tmp_path / "s").finished == ["b"]


def test_labels_take_the_place_of_those_in_the_tables(videos, model, image_processor, tmp_path):
    store = ObjectStore(extract({"a": videos["a"]}, model, image_processor, tmp_path / "s").directory)
    question = {"question": "?", "choices": ["x", "y"], "label": 0, "start": None, "end": None, "group": "g"}
    frame = {"time": 0.5, "labels": ["lamp"]}
    clips = [{"clip_id": name, "duration": None, "subtitles": [], "objects": [frame]} for name in "ac"]
    rows = [{"qid": name, "clip_id": name, **question} for name in "ac"]
    data = make_tables({"train": rows}, clips, subtitles=False)
    changed = store.add_to(data)
    assert [clip["objects"] for clip in changed.clips] == [store["a"], [frame]]
    assert changed.clips.features == data.clips.features
    assert changed.questions is data.questions


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"objects": 5}', '{"objects": [{"time": "x", "labels": []}]}'])
def test_a_broken_file_is_named(videos, model, image_processor, tmp_path, content):
    store = ObjectStore(extract({"a": videos["a"]}, model, image_processor, tmp_path / "s").directory)
    (tmp_path / "s" / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json of clip 'a' cannot be read.*Allowed"):
        store["a"]
    with pytest.raises(KeyError, match="no objects of clip 'b'"):
        store["b"]
    (tmp_path / "s" / "index.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="no index of the format 'videoqa-objects/1'"):
        ObjectStore(tmp_path / "s")
