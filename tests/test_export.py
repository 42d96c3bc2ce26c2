"""The scoring network as a graph: the model's own scores on batches of other shapes, or an error and no file."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig

from modeling_videoqa import export
from modeling_videoqa.export import OUTPUTS, ScoringNetwork, export_onnx, export_program
from processing import VideoQAProcessor

ROOT = Path(__file__).parents[1]
ROBERTA = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 1,
}
ONE_LAYER = {"text_config": {"num_hidden_layers": 1}}  # tracing takes its time by layers
MODELS = {
    "text only": ONE_LAYER | {"video_feature_size": None},
    "local attention": {"token_types": "binary"},
    "global attention": ONE_LAYER | {"visual_attention": "global", "normalize_features": False},
    "no table of token types": {"text_config": RobertaConfig(**ROBERTA)},
}
SHAPES = {
    "one of everything": {"segments": (1,), "num_choices": 1},
    "one question": {"segments": (4,)},
    "more of everything": {"segments": (7, 1, 2, 6, 3), "num_choices": 6},
    "long clip, short rows": {"segments": (2, 9), "num_choices": 2, "length": 6},
}


@pytest.fixture
def inputs(make_batch):
    """`inputs(model, ...)`: a batch for inference; a text-only model leaves the frames of its batch alone."""

    def make(model, **fields):
        batch = make_batch(**fields)
        names = [name for name in export.DYNAMIC if model.config.video_feature_size or name not in export.FRAMES]
        return {name: batch[name] for name in names}

    return make


def scores(model, batch):
    with torch.inference_mode():
        output = model(**batch)
    return [output[name] for name in OUTPUTS]


def assert_equal_scores(found, expected):
    for name, left, right in zip(OUTPUTS, found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(left), right, rtol=1e-5, atol=1e-5, msg=name)


def run(path, batch):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(list(OUTPUTS), {name: value.numpy() for name, value in batch.items()})


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(export) == 0


@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
def test_the_graphs_score_as_the_model_does(make_model, inputs, tmp_path, fields):
    model = make_model(**fields)
    if fields.get("normalize_features") is False:
        model.set_attn_implementation("eager")
    batch = inputs(model)
    program = export_program(model, batch).module()
    assert export_onnx(model, tmp_path / "model.onnx", batch) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    for shape in SHAPES.values():
        batch = inputs(model, seed=1, **shape)
        expected = scores(model, batch)
        with torch.inference_mode():
            assert_equal_scores(program(**batch), expected)
        assert_equal_scores(run(tmp_path / "model.onnx", batch), expected)


def test_padding_takes_part_in_nothing(make_model, inputs):
    model = make_model(**ONE_LAYER, visual_attention="global")
    network = export_program(model, inputs(model)).module()
    batch = inputs(model, seed=2, segments=(5, 2, 4))
    batch["frame_mask"][0, 1] = False  # a segment without frames, and a clip without any
    batch["frame_mask"][2] = False
    batch["attention_mask"][1, 0, 0] = 0  # a row without tokens, which the model does not encode
    batch["attention_mask"][2, 1, 0, 2:] = 0  # beside rows of 12
    expected = scores(model, batch)
    with torch.inference_mode():
        assert_equal_scores(network(**batch), expected)
    padding = ~batch["attention_mask"].bool()
    batch["input_ids"][padding], batch["token_type_ids"][padding] = 7, 3
    batch["video_features"][~batch["frame_mask"]] = torch.nan
    with torch.inference_mode():
        assert_equal_scores(network(**batch), expected)
        assert_equal_scores(ScoringNetwork(model)(**batch), expected)


def test_a_saved_program_is_loaded(make_model, inputs, tmp_path):
    model = make_model(**ONE_LAYER)
    batch = inputs(model)
    torch.export.save(export_program(model, batch), tmp_path / "model.pt2")
    with torch.inference_mode():
        found = torch.export.load(tmp_path / "model.pt2").module()(**batch)
    assert_equal_scores(found, scores(model, batch))


def test_a_model_with_a_visual_half_is_exported_without_frames(make_model, make_batch):
    model = make_model(**ONE_LAYER)
    batch = {name: value for name, value in make_batch().items() if name not in export.FRAMES}
    network = export_program(model, batch).module()
    batch = {name: batch[name] for name in (*export.ROWS, "segment_mask")}
    with torch.inference_mode():
        assert_equal_scores(network(**batch), scores(model, batch))


def test_scores_that_differ_leave_an_older_file_alone(make_model, inputs, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    model = make_model(**ONE_LAYER, video_feature_size=None)
    translation = export._onnx_recurrent_states

    def wrong(op):
        return lambda rows, mask, weights: translation(op)(rows, mask, weights[4:] + weights[:4])  # directions swapped

    monkeypatch.setattr(export, "_onnx_recurrent_states", wrong)
    with pytest.raises(ValueError, match=r"differs by .* Allowed: at most 0\.0001\. Nothing was written; try"):
        export_onnx(model, path, inputs(model))
    assert path.read_bytes() == b"older"
    assert [part.name for part in tmp_path.iterdir()] == ["model.onnx"]


def test_scores_that_are_no_numbers_are_refused(make_model, inputs, tmp_path):
    model = make_model(**ONE_LAYER, video_feature_size=None)
    model.text_classifier.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="differs by nan"):
        export_onnx(model, tmp_path / "model.onnx", inputs(model))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(make_model, inputs, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    model = make_model()
    with pytest.raises(ImportError, match=rf"{package} is not installed\. Allowed: .*\. Run: pip install .*\[export\]"):
        export_onnx(model, tmp_path / "model.onnx", inputs(model))
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_looks_at_values_is_refused(make_model, inputs, tmp_path):
    model = make_model()
    encoder = model.model.text_encoder
    encoder.embeddings.register_forward_hook(lambda module, args, output: output * float(output.sum() > 0))
    with pytest.raises(ValueError, match=r"cannot make a graph .*\(bert\).* Allowed: .* See the error above"):
        export_onnx(model, tmp_path / "model.onnx", inputs(model))
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused(make_model, inputs):
    model = make_model()
    batch = inputs(model)
    for name in ("segment_mask", "frame_mask"):
        with pytest.raises(ValueError, match=r"The batch has .* Allowed: .*frame_mask.* Take a batch"):
            export_program(model, {key: value for key, value in batch.items() if key != name})
    with pytest.raises(ValueError, match="in the place of pixel_values"):
        export_program(model, batch | {"pixel_values": torch.zeros(3, 3, 2, 3, 4, 4)})
    with pytest.raises(ValueError, match=r"torch\.bfloat16\. Allowed: torch\.float32\. Load it with"):
        export_program(model.bfloat16(), batch)


def test_more_than_one_file_can_hold_is_refused(make_model, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    model = make_model(**ONE_LAYER, video_feature_size=None)
    with pytest.raises(ValueError, match=r"bytes\. Allowed: less than 1,000, .*\. Export a smaller encoder"):
        export_onnx(model, tmp_path / "model.onnx", inputs(model))
    assert not list(tmp_path.iterdir())


def test_the_script_exports_checks_and_times(make_model, tiny_encoder_dir, tmp_path):
    model = make_model(**ONE_LAYER, max_text_length=32)
    model.save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_dir)
    VideoQAProcessor.from_config(model.config, tokenizer).save_pretrained(tmp_path / "model")
    sizes = ["--questions", "2", "--segments", "3", "--seconds", "0"]
    files = ["--model", tmp_path / "model", "--output", tmp_path / "model.onnx"]
    found = subprocess.run(
        [sys.executable, ROOT / "examples" / "export_onnx.py", *files, *sizes],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "model.onnx").stat().st_size > 10_000
    rows = {line[:22].strip(): line[22:].strip() for line in found.stdout.splitlines()[-2:]}
    assert float(rows["model, without padding"]) > 0
    assert float(rows["onnxruntime"]) > 0
