"""Decoding ahead of a model: every picture once and in its place, bad clips skipped, and a killed run taken up."""

import doctest
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from test_video import encode

from processing import extraction
from processing.extraction import find_clips, run_extraction
from processing.video_videoqa import decode_frames, probe_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(5):
        encode(folder / f"clip_{number}.mp4", ticks=range(5 * number + 1))
    return find_clips(folder, [".mp4"])


def brightness(pictures):
    return [float(picture.mean()) for picture in pictures]


def run(videos, compute=list, finish=None, frame_rate=None, **options):
    found = {}
    done = run_extraction(
        videos, frame_rate, brightness, compute, finish or (lambda clip: found.__setitem__(clip.clip_id, clip)),
        progress=False, **options,
    )  # fmt: skip
    return found, *done


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(extraction).failed == 0


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 1), (7, 2), (100, 3)])
def test_every_picture_is_computed_once_and_comes_to_its_place(videos, batch_size, num_workers):
    sizes = []
    found, finished, failed = run(
        videos, lambda items: sizes.append(len(items)) or items, batch_size=batch_size, num_workers=num_workers
    )
    assert sorted(finished) == list(videos)
    assert failed == {}
    for clip_id, path in videos.items():
        times = probe_video(path).frame_times
        np.testing.assert_array_equal(found[clip_id].times, times)
        assert found[clip_id].results == brightness(decode_frames(path, times))
        assert found[clip_id].duration == probe_video(path).duration
    assert set(sizes[:-1]) <= {batch_size}  # full batches, across clips
    assert sum(sizes) == 5 * (0 + 1 + 2 + 3 + 4) + 5


def test_bad_clips_are_told_and_skipped(videos, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(videos["clip_4"].read_bytes()[:-400])
    some = {"bad": tmp_path / "bad.mp4", "gone": tmp_path / "gone.mp4", **videos, "cut": cut}
    _, finished, failed = run(some, batch_size=4)
    assert sorted(finished) == list(videos)
    assert sorted(failed) == ["bad", "cut", "gone"]
    assert all("Allowed" in reason for reason in failed.values())


@pytest.mark.parametrize("place", ["prepare", "compute", "finish"])
def test_a_mistake_that_is_not_the_clips_comes_out_and_leaves_no_thread(videos, place):
    def fail(*_):
        raise RuntimeError(place)

    steps = {"prepare": brightness, "compute": list, "finish": print} | {place: fail}
    with pytest.raises(RuntimeError, match=place):
        run_extraction(videos, None, **steps, batch_size=2, num_workers=2, progress=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


def test_names_of_clips(videos, tmp_path):
    assert list(videos) == [f"clip_{number}" for number in range(5)]
    with pytest.raises(FileNotFoundError, match=r"no file with \.mp4"):
        find_clips(tmp_path, [".mp4"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.MP4").touch()
    with pytest.raises(ValueError, match="have one name"):
        find_clips(tmp_path, [".mp4"])


KILLED = """
import sys, time
from pathlib import Path
import numpy as np, torch
from transformers import CLIPImageProcessorPil, ResNetConfig, ResNetModel
from processing import extract_features
from processing.extraction import find_clips
torch.manual_seed(0)
model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
images = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
print("ready", flush=True)
clips = find_clips(sys.argv[1], [".mp4"])
extract_features(clips, model, images, sys.argv[2], frame_rate=None, batch_size=2, progress=False)
print("done", flush=True)
"""


def test_a_run_that_is_killed_loses_no_finished_clip_and_leaves_no_broken_one(videos, tmp_path):
    from processing import FeatureStore

    folder, store = videos["clip_0"].parent, tmp_path / "store"
    arguments = [sys.executable, "-c", KILLED, str(folder), str(store)]
    finished = {}
    for wait in np.random.default_rng(0).uniform(0.0, 0.25, size=2):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            threading.Event().wait(wait)
            os.kill(process.pid, signal.SIGKILL)
        there = {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors") if path.name[0] != "."}
        assert finished.items() <= there.items()
        finished = there
        if there:
            for features, times in FeatureStore(store).values():
                assert len(features) == len(times)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    assert list(FeatureStore(store)) == list(videos)
    assert finished.items() <= {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors")}.items()
