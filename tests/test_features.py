import doctest
import json

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import CLIPImageProcessorPil, ConvNextImageProcessorPil, ResNetConfig, ResNetModel

from processing import features as features_module
from processing.feature_files import open_features
from processing.features import FeatureStore, extract_features, write_tvqa_h5
from processing.video_videoqa import decode_frames, pixel_values, probe_video, sample_times

WIDTH = 16


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, WIDTH], depths=[1, 1], layer_type="basic"))


@pytest.fixture(scope="module")
def image_processor():
    return CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two clips of one and two seconds, frame k a grey of level 8 k."""
    folder = tmp_path_factory.mktemp("videos")
    paths = {}
    for clip_id, num_frames in (("clip_a", 10), ("clip.b", 20)):
        paths[clip_id] = folder / f"{clip_id}.mp4"
        with av.open(str(paths[clip_id]), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for number in range(num_frames):
                picture = np.full((32, 48, 3), 8 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return paths


@pytest.fixture
def store_dir(tmp_path, videos, model, image_processor):
    return extract_features(videos, model, image_processor, tmp_path / "store", frame_rate=5, progress=False).directory


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(features_module).failed == 0


class TestExtract:
    def test_features_are_those_of_the_model(self, store_dir, videos, model, image_processor):
        store = FeatureStore(store_dir)
        for clip_id, path in videos.items():
            times = sample_times(probe_video(path), 5)
            frames = decode_frames(path, times)
            with torch.no_grad():
                expected = model.eval()(torch.from_numpy(pixel_values(frames, image_processor))).pooler_output.flatten(
                    1
                )
            features, stored_times = store[clip_id]
            np.testing.assert_array_equal(stored_times, times)
            np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-6)
            assert features.dtype == np.float32
            assert stored_times.dtype == np.float64
            assert len(features) == len(times) == (5 if clip_id == "clip_a" else 10)

    def test_they_equal_those_of_the_backbone_on_pil_images(self, store_dir, videos, model, image_processor):
        times = sample_times(probe_video(videos["clip.b"]), 5)
        images = [Image.fromarray(frame) for frame in decode_frames(videos["clip.b"], times)]
        with torch.no_grad():
            expected = model.eval()(**image_processor(images=images, return_tensors="pt")).pooler_output.flatten(1)
        np.testing.assert_allclose(FeatureStore(store_dir)["clip.b"][0], expected.numpy(), rtol=1e-4, atol=1e-4)

    def test_what_is_written(self, store_dir, videos):
        assert sorted(path.name for path in store_dir.iterdir()) == [
            "clip.b.safetensors",
            "clip_a.safetensors",
            "index.json",
        ]
        index = json.loads((store_dir / "index.json").read_text())
        assert (index["frame_rate"], index["feature_size"], index["model"]) == (5.0, WIDTH, "ResNetModel")
        assert index["versions"]["torch"] == torch.__version__
        assert index["preprocessing"]["size"] == {"height": 32, "width": 32}
        with safe_open(store_dir / "clip_a.safetensors", framework="numpy") as file:
            assert file.metadata() == {
                "clip_id": "clip_a", "video": "clip_a.mp4", "frame_rate": "5", "duration": "1.0",
            }  # fmt: skip

    def test_the_batch_size_changes_nothing(self, store_dir, videos, model, image_processor, tmp_path):
        other = extract_features(
            videos, model, image_processor, tmp_path / "other", frame_rate=5, batch_size=3, progress=False
        )
        first, second = FeatureStore(store_dir)["clip.b"][0], FeatureStore(other.directory)["clip.b"][0]
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)

    def test_a_stopped_run_is_taken_up(self, store_dir, videos, model, image_processor):
        kept = (store_dir / "clip_a.safetensors").stat().st_mtime_ns
        (store_dir / "clip.b.safetensors").unlink()
        done = extract_features(videos, model, image_processor, store_dir, frame_rate=5, progress=False)
        assert (done.finished, done.failed) == (["clip.b"], {})
        assert (store_dir / "clip_a.safetensors").stat().st_mtime_ns == kept
        assert len(FeatureStore(store_dir)) == 2

    def test_a_bad_clip_is_told_and_leaves_the_others_and_no_half_file(
        self, tmp_path, videos, model, image_processor, caplog
    ):
        bad = tmp_path / "bad.mp4"
        bad.write_text("no video")
        model.train()
        some = {"bad": bad, "clip_a": videos["clip_a"]}
        done = extract_features(some, model, image_processor, tmp_path / "s", frame_rate=5, progress=False)
        assert done.finished == ["clip_a"]
        assert "cannot be read as mp4" in done.failed["bad"]
        assert "Clip 'bad' was skipped" in caplog.text
        assert list(FeatureStore(tmp_path / "s")) == ["clip_a"]
        assert not [path for path in (tmp_path / "s").iterdir() if path.name.startswith(".")]
        assert model.training  # the model is handed back as it came

    def test_autocast_is_part_of_the_way_of_making(self, videos, model, image_processor, store_dir, tmp_path):
        half = extract_features(
            videos, model, image_processor, tmp_path / "half", frame_rate=5, dtype=torch.bfloat16, progress=False
        )
        first, second = FeatureStore(store_dir)["clip.b"][0], FeatureStore(half.directory)["clip.b"][0]
        assert second.dtype == np.float32
        assert 0 < np.abs(first - second).max() < 0.05 * np.abs(first).max()
        with pytest.raises(ValueError, match=r"autocast 'torch\.bfloat16' there, None here"):
            extract_features(videos, model, image_processor, half.directory, frame_rate=5, progress=False)

    def test_stores_are_not_mixed(self, store_dir, videos, model, image_processor, tmp_path):
        def go_on(model=model, processor=image_processor, rate=5, directory=store_dir):
            extract_features(videos, model, processor, directory, frame_rate=rate, progress=False)

        go_on()
        with pytest.raises(ValueError, match=r"frame_rate 5\.0 there, 3\.0 here.*Allowed"):
            go_on(rate=3.0)
        with pytest.raises(ValueError, match=r"frame_rate 5\.0 there, None here"):
            go_on(rate=None)
        torch.manual_seed(1)
        with pytest.raises(ValueError, match="weights_sha256"):
            go_on(model=ResNetModel(model.config))
        with pytest.raises(ValueError, match="image_processor"):
            go_on(processor=ConvNextImageProcessorPil())
        (store_dir / "index.json").unlink()
        with pytest.raises(ValueError, match=r"but no index\.json"):
            go_on()

    def test_other_versions_are_told(self, store_dir, videos, model, image_processor):
        index = json.loads((store_dir / "index.json").read_text())
        index["versions"]["torch"] = "1.0"
        (store_dir / "index.json").write_text(json.dumps(index))
        with pytest.warns(UserWarning, match=r"begun with.*1\.0"):
            extract_features(videos, model, image_processor, store_dir, frame_rate=5, progress=False)

    @pytest.mark.parametrize("clip_id", ["", ".", "..", ".a", "a/b", "a\\b", "/a", "a\0", "a\n", "x" * 201, "C:a", 3])
    def test_clip_ids_that_are_no_file_names(self, clip_id, model, image_processor, tmp_path, videos):
        with pytest.raises(ValueError, match=r"clip id is(.|\n)*Allowed"):
            extract_features({clip_id: videos["clip_a"]}, model, image_processor, tmp_path / "s", progress=False)
        assert not (tmp_path / "s").exists()

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"batch_size": 0}, "batch_size"),
            ({"num_workers": 0}, "num_workers"),
            ({"frame_rate": 0}, "frame rate"),
            ({"frame_rate": "3"}, "frame rate"),
        ],
    )
    def test_arguments_that_are_wrong(self, wrong, said, model, image_processor, tmp_path, videos):
        with pytest.raises(ValueError, match=f"{said}.*Allowed"):
            extract_features(videos, model, image_processor, tmp_path / "s", progress=False, **wrong)

    def test_models_that_do_not_fit(self, image_processor, tmp_path, videos):
        class Bad(torch.nn.Module):
            def __init__(self, output):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.ones(()))
                self.output = output

            def forward(self, pixel_values):
                return self.output and type("Output", (), {"pooler_output": self.output(pixel_values)})

        def extract(output):
            return extract_features(videos, Bad(output), image_processor, tmp_path / "s", 5, progress=False)

        with pytest.raises(ValueError, match="no pooler_output"):
            extract(None)
        with pytest.raises(ValueError, match=r"\(15, 3, 32, 32\)"):
            extract(lambda pixels: pixels)
        with pytest.raises(ValueError, match=r"'clip(_a|.b)'.*NaN"):
            extract(lambda pixels: pixels.mean((2, 3)) * torch.nan)
        with pytest.raises(FileNotFoundError):
            FeatureStore(tmp_path / "s")


class TestStore:
    def test_it_is_a_mapping(self, store_dir):
        store = FeatureStore(str(store_dir))
        assert store.feature_size == WIDTH
        assert list(store.keys()) == ["clip.b", "clip_a"]
        assert len(store) == 2
        assert "clip_a" in store
        for other in ("clip_c", "../store/clip_a", "index", 3):
            assert other not in store
        with pytest.raises(KeyError, match=r"'clip_c'.*Allowed"):
            store["clip_c"]
        assert store.get("clip_c") is None

    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            ({"features": np.full((2, WIDTH), np.nan, np.float32), "times": np.arange(2.0)}, "NaN or infinity"),
            ({"features": np.full((2, WIDTH), np.inf, np.float32), "times": np.arange(2.0)}, "NaN or infinity"),
            ({"features": np.zeros((2, WIDTH + 1), np.float32), "times": np.arange(2.0)}, r"shape \(2, 17\)"),
            ({"features": np.zeros(WIDTH, np.float32), "times": np.arange(2.0)}, r"shape \(16,\)"),
            ({"features": np.zeros((2, WIDTH), np.float32), "times": np.arange(3.0)}, "times do not fit"),
            ({"features": np.zeros((2, WIDTH), np.float32), "times": np.array([1.0, 0.0])}, "do not fit"),
            ({"features": np.zeros((2, WIDTH), np.float32)}, "cannot be read"),
        ],
    )
    def test_unsound_clips_are_named(self, store_dir, tensors, said):
        save_file(tensors, store_dir / "clip_a.safetensors")
        with pytest.raises(ValueError, match=f"(?s){said}.*Allowed") as caught:
            FeatureStore(store_dir)["clip_a"]
        assert "'clip_a'" in str(caught.value)

    def test_a_broken_file_is_named(self, store_dir):
        (store_dir / "clip_a.safetensors").write_bytes(b"\xff" * 20)
        with pytest.raises(ValueError, match="'clip_a' cannot be read"):
            FeatureStore(store_dir)["clip_a"]

    def test_an_index_without_a_width(self, store_dir):
        (store_dir / "index.json").write_text('{"format": "videoqa-features/2", "feature_size": "16"}')
        with pytest.raises(ValueError, match=r"feature_size '16'.*Allowed"):
            FeatureStore(store_dir)

    @pytest.mark.parametrize("index", ["{", "[]", "{}", '{"format": "videoqa-features/1"}'])
    def test_an_index_that_is_none(self, store_dir, index):
        (store_dir / "index.json").write_text(index)
        with pytest.raises(ValueError, match=r"index\.json is no(.|\n)*Allowed"):
            FeatureStore(store_dir)

    def test_tvqa_s_layout(self, videos, model, image_processor, tmp_path):
        done = extract_features(videos, model, image_processor, tmp_path / "s", frame_rate=10, progress=False)
        store = FeatureStore(done.directory)
        assert store.duration("clip.b") == 2.0
        write_tvqa_h5(store, tmp_path / "features.h5", progress=False)
        features, times = open_features(tmp_path / "features.h5", 3)["clip.b"]
        np.testing.assert_allclose(times, np.arange(6) / 3)
        np.testing.assert_array_equal(features, store["clip.b"][0][[0, 3, 6, 10, 13, 16]])  # on screen at each third
        with pytest.raises(FileExistsError, match="Allowed"):
            write_tvqa_h5(store, tmp_path / "features.h5")
        slow = extract_features(videos, model, image_processor, tmp_path / "slow", frame_rate=1, progress=False)
        with pytest.raises(ValueError, match="has 1 frames a second"):
            write_tvqa_h5(FeatureStore(slow.directory), tmp_path / "slow.h5")
        assert not (tmp_path / "slow.h5").exists()

    def test_a_long_clip_has_300_rows_in_tvqa_s_layout(self, store_dir, tmp_path, monkeypatch):
        times = np.arange(600) / 3  # 200 s
        features = np.tile(np.arange(600, dtype=np.float32)[:, None], WIDTH)
        said = {"clip_id": "long", "duration": "200.0"}
        save_file({"features": features, "times": times}, store_dir / "long.safetensors", metadata=said)
        write_tvqa_h5(FeatureStore(store_dir), tmp_path / "long.h5", progress=False)
        rows, read_times = open_features(tmp_path / "long.h5", 3, {"long": 200.0})["long"]
        assert len(rows) == 300
        np.testing.assert_allclose(rows[:, 0] / 3, read_times)

    def test_no_store(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="Allowed"):
            FeatureStore(tmp_path / "none")
