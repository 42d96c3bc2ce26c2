"""Regions as frames, shots as scenes: the times must be those of the tables."""

import copy
import doctest
import json

import h5py
import numpy as np
import pytest

from processing import feature_views, open_features
from processing.loaders import load_dramaqa

SHOT, OTHER, SCENE = (f"AnotherMissOh14_001_{shot}" for shot in ("0025", "0026", "0000"))


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(feature_views)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.fixture
def stage(tmp_path):
    """A function that writes STAGE's two files for one clip of four frames, whose third has no region."""

    def write(counts=(2, 1, 0, 3), rows=6):
        with h5py.File(tmp_path / "regions.h5", "w") as file:
            file["a"] = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
            file["other"] = np.zeros((1, 2), np.float32)
        (tmp_path / "regions.json").write_text(json.dumps({"a": {"counts": list(counts)}}))
        return open_features(tmp_path / "regions.h5", frame_rate=3, regions=tmp_path / "regions.json")

    return write


def test_a_frame_is_the_mean_of_its_regions(stage):
    features = stage()
    vectors, times = features["a"]
    assert vectors.tolist() == [[1, 2], [4, 5], [8, 9]]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(times, [0, 1 / 3, 1])
    assert (list(features), features.feature_size) == (["a"], 2)
    again = copy.deepcopy(features)  # as it goes to a worker: without its handle
    np.testing.assert_array_equal(again["a"][0], vectors)


@pytest.mark.parametrize("counts", [(2, 1, 0, 4), (2, 1), ()])
def test_counts_of_other_regions_are_an_error(stage, counts):
    with pytest.raises(ValueError, match=r"'a' has 6 regions .*belong together"):
        stage(counts)["a"]


@pytest.mark.parametrize("counts", [(2, -1), ("2",), (1.5,)])
def test_counts_that_are_no_numbers_are_named(stage, counts):
    with pytest.raises(ValueError, match=r"regions.json, clip 'a': counts are"):
        stage(counts)


def test_clips_without_counts_are_not_there(stage, tmp_path):
    with pytest.raises(KeyError, match="'other' has no regions, or no counts"):
        stage()["other"]
    (tmp_path / "regions.json").write_text(json.dumps({"b": {"counts": [1]}}))
    with pytest.raises(ValueError, match="None of the 2 clips"):
        open_features(tmp_path / "regions.h5", frame_rate=3, regions=tmp_path / "regions.json")


@pytest.fixture
def drama(tmp_path):
    """A folder with a shot and a scene of two shots, and a file of features; the second shot's images begin late."""
    rows = {"videoType": "x", "que": "Who?", "answers": list("abcde"), "correct_idx": 0, "q_level_logic": 1}
    questions = [{**rows, "qid": number, "vid": vid} for number, vid in enumerate((SHOT, SCENE))]
    (tmp_path / "AnotherMissOhQA_val_set.json").write_text(json.dumps(questions))
    script = {SHOT: {"st": "100.0", "et": "106.0", "contained_subs": []}}
    (tmp_path / "AnotherMissOh_script.json").write_text(json.dumps(script))
    person = {"person_info": {"behavior": "walk", "emotion": ""}}
    visual = {
        shot: [{"frame_id": f"{shot}_IMAGE_{number:010}", "persons": [person]} for number in numbers]
        for shot, numbers in {SHOT: (2504, 2512), OTHER: (2650, 2658)}.items()
    }
    (tmp_path / "AnotherMissOh_Visual.json").write_text(json.dumps(visual))
    third = "AnotherMissOh14_001_0027"  # of which neither file knows
    arrays = {
        SHOT: np.zeros((3, 2), np.float32),
        OTHER: np.ones((2, 2), np.float32),
        third: np.ones((1, 2), np.float32),
    }
    np.savez(tmp_path / "clip.npz", **arrays)
    return tmp_path


def test_a_scene_is_all_its_shots_on_the_clock_of_the_table(drama):
    features = open_features(drama / "clip.npz", frame_rate=3.125, shots=drama)
    vectors, times = features[SCENE]
    assert vectors[:, 0].tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(times, [0, 0.32, 0.64, 6, 6.32])  # image 2650 is at 106 s, and the scene starts at 100
    shot, scene = load_dramaqa(drama, ("validation",), subtitles=False).clips
    np.testing.assert_allclose([frame["time"] for frame in scene["objects"]][2:], times[3:])
    assert shot["objects"][0]["time"] == pytest.approx(0.16)
    np.testing.assert_allclose(features[SHOT][1], [0, 0.32, 0.64])
    np.testing.assert_allclose(features["AnotherMissOh14_001_0027"][1], [0])
    assert len(features) == 4
    with pytest.raises(KeyError, match="no features of clip 'x'"):
        features["x"]


def test_features_that_are_not_of_shots_are_refused(drama):
    np.savez(drama / "other.npz", a=np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="is named as AnotherMissOh14_001_0025"):
        open_features(drama / "other.npz", frame_rate=3, shots=drama)
    for name in ("script", "Visual"):
        (drama / f"AnotherMissOh_{name}.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"AnotherMissOh_script.json nor"):
        open_features(drama / "clip.npz", frame_rate=3, shots=drama)
