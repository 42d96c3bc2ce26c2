"""Features that others released: every format gives the same, and nothing outside a file is read or run."""

import copy
import doctest
import multiprocessing

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from processing import feature_files
from processing.feature_files import FORMATS, FeatureFile, open_features

CLIPS = {
    "s01e01_seg01_clip_00": np.arange(12, dtype=np.float32).reshape(4, 3),
    "b": np.full((1, 3), 0.5, np.float32),
    "long": np.tile(np.arange(300, dtype=np.float32)[:, None], 3),
}


def save(path, arrays):
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            for clip_id, array in arrays.items():
                file[clip_id] = array
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        tensors = {clip_id: torch.from_numpy(np.array(array)) for clip_id, array in arrays.items()}
        (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)
    return path


@pytest.fixture(params=sorted(FORMATS))
def path(request, tmp_path):
    return tmp_path / f"clips{request.param}"


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(feature_files)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_format_gives_the_same(path):
    features = open_features(save(path, CLIPS), frame_rate=3)
    assert isinstance(features, FeatureFile)
    assert set(features) == set(CLIPS)
    assert (len(features), features.feature_size) == (3, 3)
    for clip_id, array in CLIPS.items():
        vectors, times = features[clip_id]
        np.testing.assert_array_equal(vectors, array)
        assert (vectors.dtype, times.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(times, np.arange(len(array)) / 3)
    with pytest.raises(KeyError, match="no features of clip 'c'"):
        features["c"]


def test_half_precision_is_read_as_float32(path):
    half = {"a": np.array([[0.5, 1.5]], np.float16)}
    vectors, _ = open_features(save(path, half), frame_rate=1)["a"]
    assert (vectors.dtype, vectors.tolist()) == (np.float32, [[0.5, 1.5]])


def test_a_long_clip_of_tvqa_has_its_300_rows_spread_over_it(tmp_path):
    features = open_features(save(tmp_path / "a.h5", CLIPS), 3, {"long": 200.0, "b": 0.3})
    assert features["long"][1][150] == pytest.approx(100.0)
    assert features["b"][1].tolist() == [0.0]
    assert features["s01e01_seg01_clip_00"][1].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    short = open_features(tmp_path / "a.h5", 3, {"long": 100.2})  # 300 frames and no more: none was left out
    assert short["long"][1][150] == pytest.approx(50.0)


def _read_in_a_worker(features, clip_id, queue):
    queue.put(features[clip_id][0].sum())


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_open_the_file_for_themselves(path, start):
    features = open_features(save(path, CLIPS), frame_rate=3)
    features["b"]
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    worker = context.Process(target=_read_in_a_worker, args=(features, "s01e01_seg01_clip_00", queue))
    worker.start()
    assert queue.get(timeout=60) == 66
    worker.join()
    assert copy.deepcopy(features)["b"][0].tolist() == [[0.5] * 3]  # as it travels to a worker: without its handle


@pytest.mark.parametrize("bad", [np.zeros(3, np.float32), np.zeros((0, 3), np.float32), np.zeros((2, 3), np.int64)])
def test_an_array_of_another_kind_is_named(path, bad):
    if bad.dtype == np.int64 and path.suffix in (".safetensors", ".pt", ".pth"):
        pytest.skip("tensors of numbers are read as floats")
    features = open_features(save(path, {"a": bad}), frame_rate=3)
    with pytest.raises(ValueError, match=r"clip 'a' has shape .*Allowed"):
        features["a"]


def test_nan_is_named(path):
    features = open_features(save(path, {"a": np.array([[np.nan]], np.float32)}), frame_rate=3)
    with pytest.raises(ValueError, match=r"clip 'a' .* NaN"):
        features["a"]


@pytest.mark.parametrize(
    "content", [b"", b"no features at all", b"PK\x03\x04" + b"\x00" * 60, b"\x89HDF\r\n\x1a\n" + b"\xff" * 90]
)
def test_other_bytes_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be opened .*Allowed"):
        open_features(path, frame_rate=3)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_a_file_that_was_cut_short_is_an_error_by_its_name(path, share):
    raw = save(path, CLIPS).read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ValueError, match=f"{path.name}.*Allowed"):
        dict(open_features(path, frame_rate=3))


def test_a_compressed_array_that_is_broken_is_an_error_by_its_name(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).random((50, 3), np.float32))
    raw = bytearray(path.read_bytes())
    raw[60:90] = b"\xff" * 30  # inside of the deflated data
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.npz: clip 'a' cannot be read .*Allowed"):
        open_features(path, frame_rate=3)["a"]


class Run:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz"])
def test_code_in_a_file_is_not_run(tmp_path, suffix, capsys):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, a=np.array([[Run()]], dtype=object))
    else:
        torch.save({"a": Run()}, path)
    with pytest.raises(ValueError, match=r"Allowed"):
        open_features(path, frame_rate=3)["a"]
    assert capsys.readouterr().out == ""


def test_what_is_outside_an_h5_is_not_read(tmp_path):
    secret = save(tmp_path / "secret.h5", {"a": np.ones((2, 3), np.float32)})
    raw = tmp_path / "raw.bin"
    raw.write_bytes(np.ones(6, np.float32).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["external"] = h5py.ExternalLink(str(secret), "a")
        file["soft"] = h5py.SoftLink("/own")
        file["own"] = np.ones((2, 3), np.float32)
        file.create_group("group")
        file.create_dataset("raw", (2, 3), np.float32, external=[(str(raw), 0, 24)])
        layout = h5py.VirtualLayout((2, 3), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "a", (2, 3))
        file.create_virtual_dataset("virtual", layout)
    features = open_features(tmp_path / "a.h5", frame_rate=3)
    assert features["own"][0].shape == (2, 3)
    for clip_id in ("external", "soft", "group", "raw", "virtual"):
        with pytest.raises(ValueError, match=rf"clip '{clip_id}' is .*Allowed"):
            features[clip_id]


def test_a_shape_that_promises_too_much_is_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (1 << 20, 1 << 20), np.float32, chunks=(64, 64))  # takes no room until it is filled
    with pytest.raises(ValueError, match=r"clip 'a' has shape \(1048576, 1048576\), more than"):
        open_features(tmp_path / "a.h5", frame_rate=3)["a"]
    monkeypatch.setattr(feature_files, "MAX_VALUES", 5)
    for suffix in (".npz", ".pt"):
        path = save(tmp_path / f"b{suffix}", {"a": np.zeros((30, 3), np.float32)})
        with pytest.raises(ValueError, match="more than 5 values"):
            open_features(path, frame_rate=3)["a"]


@pytest.mark.parametrize("rate", [None, 0, -3, 1001, True, "3", float("nan")])
def test_the_rate_of_a_file_must_be_told(tmp_path, rate):
    path = save(tmp_path / "a.h5", CLIPS)
    with pytest.raises(ValueError, match=r"frame_rate is .*rows a second, above 0 and up to 1000"):
        open_features(path, rate)


def test_mistakes_with_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature file"):
        open_features(tmp_path / "a.h5", 3)
    (tmp_path / "a.pickle").write_bytes(b"")
    with pytest.raises(ValueError, match=r"suffix '.pickle'.*\.h5"):
        open_features(tmp_path / "a.pickle", 3)
    with pytest.raises(ValueError, match="which says it itself"):
        open_features(tmp_path, 3)
