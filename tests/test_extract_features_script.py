"""`examples/extract_features.py` as it is called: in one process and in several, with a clip that cannot be decoded."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_video import encode
from transformers import (
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)

from processing import FeatureStore, ObjectStore, open_features

SCRIPT = Path(__file__).parents[1] / "examples" / "extract_features.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five clips, one of them in a folder of its own, and two models."""
    folder = tmp_path_factory.mktemp("extract")
    (folder / "videos" / "more").mkdir(parents=True)
    for number in range(4):
        encode(folder / "videos" / f"clip_{number}.mp4", ticks=range(5 * number + 10))
    encode(folder / "videos" / "more" / "clip_4.mkv", ticks=range(25))
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).save_pretrained(
        folder / "backbone"
    )
    ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder / "backbone")
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 48],
        patch_size=16, num_detection_tokens=6,
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folder / "detector")
    YolosImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(folder / "detector")
    return folder


def run(folder, name, *options, launch=()):
    command = [sys.executable, *launch, SCRIPT, folder / "videos", "--output_dir", folder / name]
    command += ["--backbone", folder / "backbone", "--dtype", "float32", "--frame_rate", "5", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_features_objects_and_h5_of_a_folder(folder):
    (folder / "videos" / "text.mp4").write_text("no video")
    objects = ["--detector", folder / "detector", "--objects_dir", folder / "objects", "--threshold", "0.1"]
    done = run(folder, "one", *objects, "--h5", folder / "features.h5", "--frame_rate", "3")
    assert done.returncode == 1  # one clip cannot be decoded
    assert "5 clips of 6 are in" in done.stdout
    assert "text: " in done.stderr
    clips = [f"clip_{number}" for number in range(5)]
    store = FeatureStore(folder / "one")
    assert list(store) == list(ObjectStore(folder / "objects")) == clips
    with h5py.File(folder / "features.h5") as file:
        assert sorted(file) == clips
    read = open_features(folder / "features.h5", 3)
    for clip_id in clips:
        np.testing.assert_array_equal(read[clip_id][0], store[clip_id][0])
        np.testing.assert_allclose(read[clip_id][1], np.arange(len(store[clip_id][1])) / 3)
    (folder / "videos" / "text.mp4").unlink()
    again = run(folder, "one", *objects, "--frame_rate", "3")
    assert again.returncode == 0, again.stderr
    assert "0 clips to do, 5 done before" in again.stderr


def test_several_processes_take_their_shares(folder):
    done = run(folder, "two", launch=["-m", "torch.distributed.run", "--nproc_per_node", "2"])
    assert done.returncode == 0, done.stderr
    # Two processes write to one stream: their lines may run into one another.
    assert sorted(re.findall(r"(\d) clips of (\d)", done.stdout)) == [("2", "2"), ("3", "3")]
    one = run(folder, "alone")
    assert one.returncode == 0, one.stderr
    alone, shared = FeatureStore(folder / "alone"), FeatureStore(folder / "two")
    assert list(alone) == list(shared)
    for clip_id in alone:
        np.testing.assert_allclose(shared[clip_id][0], alone[clip_id][0], rtol=1e-4, atol=1e-6)


def test_options_that_do_not_go_together(folder):
    done = run(folder, "none", "--detector", "x")
    assert done.returncode == 2
    assert "belong together" in done.stderr
