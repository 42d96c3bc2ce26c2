"""The paper's values are the defaults, a config survives saving, and no wrong value or misspelt name gets through."""

import inspect
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, BertConfig, DistilBertConfig, ModernBertConfig, ResNetConfig, RobertaConfig

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice, configuration_videoqa

FIELDS = [name for name in inspect.signature(VideoQAConfig.__init__).parameters if name not in ("self", "kwargs")]
WRONG = [
    *[("visual_attention", value) for value in ("LOCAL", "both", None, 1)],
    *[("token_types", value) for value in ("fraction", "", None)],
    *[("segment_span", value) for value in ("sentence", None)],
    *[("num_frames", value) for value in (0, -1, 4.0, "4", None, True)],
    *[("max_segments", value) for value in (0, 2.5, None, False)],
    *[("max_text_length", value) for value in (6, 0, 80.0, None)],
    *[("frame_rate", value) for value in (0, 0.0, -3, float("inf"), float("nan"), "3")],
    *[("video_feature_size", value) for value in (0, -1, 2048.0)],
    *[("normalize_features", value) for value in (None, 1, "true")],
    *[("mask_probability", value) for value in (-0.1, 1.01, 20, None, float("nan"))],
    *[("qa_loss_weight", value) for value in (-1, None, float("inf"))],
    *[("span_loss_weight", value) for value in (-0.2, "0.2")],
    *[("contrastive_loss_weight", value) for value in (-0.1, True)],
    *[("num_tuned_text_layers", value) for value in (-1, 6.0, "all")],
    *[("initializer_range", value) for value in (-0.02, None)],
    *[("text_config", value) for value in (3, "bert", ["bert"])],
    *[("vision_config", value) for value in (2048, "resnet")],
]


def tiny_bert(**fields):
    return BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, **fields)


def tiny_resnet():
    return ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(configuration_videoqa) == 0


def test_the_defaults_are_the_values_of_the_paper():
    config = VideoQAConfig()
    text = config.text_config
    assert (text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size) == ("bert", 768, 12, 30522)
    found = {name: getattr(config, name) for name in FIELDS if name != "text_config"}
    assert found == {
        "vision_config": None,
        "visual_attention": "local",
        "token_types": "fractional",
        "segment_span": "partition",
        "num_frames": 4,
        "max_segments": 40,
        "max_text_length": 80,
        "frame_rate": 3.0,
        "video_feature_size": 2048,
        "normalize_features": True,
        "mask_probability": 0.2,
        "qa_loss_weight": 1.0,
        "span_loss_weight": 0.2,
        "contrastive_loss_weight": 0.1,
        "num_tuned_text_layers": 6,
        "initializer_range": 0.02,
    }


# --- round trips


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text_config": tiny_bert(type_vocab_size=4, hidden_act="relu"), "num_frames": 3},
        {"text_config": RobertaConfig(hidden_size=32, type_vocab_size=1), "vision_config": tiny_resnet()},
        {"text_config": ModernBertConfig(hidden_size=32, num_attention_heads=2), "max_text_length": 170},
        {"video_feature_size": None, "num_tuned_text_layers": None, "frame_rate": None, "normalize_features": False},
        {"visual_attention": "global", "token_types": "binary", "segment_span": "subtitle", "span_loss_weight": 0},
    ],
)
@pytest.mark.parametrize("auto", [VideoQAConfig, AutoConfig])
def test_a_config_comes_back_from_its_folder(fields, auto, tmp_path):
    config = VideoQAConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is VideoQAConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
    for name in [name for name in fields if not name.endswith("_config")]:
        assert getattr(loaded, name) == fields[name]
    assert type(loaded.text_config) is type(config.text_config)
    assert type(loaded.vision_config) is type(config.vision_config)
    assert VideoQAConfig(**config.to_dict()).to_dict() == config.to_dict()


@given(
    num_frames=st.integers(1, 64),
    max_text_length=st.integers(7, 512),
    mask_probability=st.floats(0, 1),
    frame_rate=st.none() | st.floats(0, 240, exclude_min=True),
    span_loss_weight=st.floats(0, 1e6),
    num_tuned_text_layers=st.none() | st.integers(0, 99),
    visual_attention=st.sampled_from(["local", "global"]),
)
def test_every_allowed_value_is_taken_and_survives_json(**fields):
    config = VideoQAConfig(text_config=tiny_bert(), **fields)
    loaded = VideoQAConfig.from_dict(json.loads(config.to_json_string()))
    assert {name: getattr(loaded, name) for name in fields} == fields


def test_an_override_of_the_text_encoder_reaches_it(tmp_path):
    VideoQAConfig(text_config=DistilBertConfig(n_layers=3)).save_pretrained(tmp_path)
    loaded = VideoQAConfig.from_pretrained(tmp_path, visual_attention="global", text_config={"n_layers": 1})
    assert loaded.visual_attention == "global"
    assert isinstance(loaded.text_config, DistilBertConfig)
    assert loaded.text_config.num_hidden_layers == 1


# --- nested configs


def test_a_dict_without_a_model_type_is_a_bert():
    config = VideoQAConfig(text_config={"hidden_size": 32, "num_attention_heads": 2})
    assert isinstance(config.text_config, BertConfig)
    assert config.text_config.hidden_size == 32


def test_a_dict_with_a_model_type_is_of_that_type():
    given = {"model_type": "roberta", "hidden_size": 32}
    config = VideoQAConfig(text_config=given, vision_config={"model_type": "resnet", "embedding_size": 4})
    assert isinstance(config.text_config, RobertaConfig)
    assert isinstance(config.vision_config, ResNetConfig)
    assert (config.text_config.hidden_size, config.vision_config.embedding_size) == (32, 4)
    assert given == {"model_type": "roberta", "hidden_size": 32}  # the caller's dict is left alone


@pytest.mark.parametrize(
    ("field", "value"),
    [("text_config", {"model_type": "birt"}), ("vision_config", {"hidden_sizes": [8]})],
)
def test_a_dict_of_no_known_model_type_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} has model_type=.*Allowed: .*'bert'.*Add the key 'model_type'"):
        VideoQAConfig(**{field: value})


def test_a_backbone_needs_a_visual_half():
    with pytest.raises(ValueError, match=r"vision_config .*video_feature_size=None.*Allowed"):
        VideoQAConfig(vision_config=tiny_resnet(), video_feature_size=None)


# --- wrong values


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}\b.*Allowed: "):
        VideoQAConfig(**{field: value})


def test_every_field_has_a_wrong_value_above():
    assert {field for field, _ in WRONG} == set(FIELDS)


@pytest.mark.parametrize("field", [name for name in FIELDS if not name.endswith("_config")])
def test_a_wrong_override_is_refused_when_the_model_is_built(field, tmp_path):
    """`from_pretrained(folder, field=value)` sets fields on a finished config; the model has the last word."""
    VideoQAConfig(text_config=tiny_bert()).save_pretrained(tmp_path)
    value = next(value for name, value in WRONG if name == field)
    with pytest.raises(ValueError, match=rf"^{field}\b.*Allowed: "):
        VideoQAForMultipleChoice(VideoQAConfig.from_pretrained(tmp_path, **{field: value}))


def test_a_wrong_override_is_refused_when_weights_are_loaded(tmp_path):
    VideoQAForMultipleChoice(VideoQAConfig(text_config=tiny_bert(vocab_size=8))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^token_types='ternary'\. Allowed: 'fractional', 'binary'\. "):
        VideoQAForMultipleChoice.from_pretrained(tmp_path, token_types="ternary")


def test_an_error_says_what_came_what_is_allowed_and_what_to_do():
    with pytest.raises(ValueError, match="mask_probability") as error:
        VideoQAConfig(mask_probability=1.5)
    assert str(error.value) == (
        "mask_probability=1.5. Allowed: a finite number of at least 0.0 and at most 1.0. "
        "Set mask_probability to such a value."
    )


def test_a_row_must_fit_the_positions_of_the_encoder():
    text_config = tiny_bert(max_position_embeddings=64)
    assert VideoQAConfig(text_config=text_config, max_text_length=64).max_text_length == 64
    with pytest.raises(ValueError, match=r"^max_text_length=65, .* 64 positions\. Allowed: 7 to 64\. "):
        VideoQAConfig(text_config=text_config, max_text_length=65)


def test_roberta_has_two_positions_fewer_than_its_table():
    """Its positions begin behind the padding token's: 512 tokens for the 514 rows of roberta-base."""
    text_config = RobertaConfig(hidden_size=32, max_position_embeddings=514, pad_token_id=1)
    assert VideoQAConfig(text_config=text_config, max_text_length=512).max_text_length == 512
    with pytest.raises(ValueError, match=r"^max_text_length=513, .* 512 positions\. Allowed: 7 to 512\. "):
        VideoQAConfig(text_config=text_config, max_text_length=513)


# --- unknown names


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("visual_attentoin", "visual_attention"),
        ("max_segment", "max_segments"),
        ("contrastive_weight", "contrastive_loss_weight"),
        ("token_type", "token_types"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_right_name(wrong, meant):
    with pytest.raises(ValueError, match=rf"unknown field '{wrong}'.*Did you mean '{meant}'\?"):
        VideoQAConfig(**{wrong: 1})


def test_an_unknown_field_is_refused_with_all_names():
    with pytest.raises(ValueError, match=re.escape(f"'zebra'. Allowed: {', '.join(FIELDS)}. Remove it")):
        VideoQAConfig(zebra=1)


def test_an_unknown_field_in_a_config_file_is_refused(tmp_path):
    config = VideoQAConfig(text_config=tiny_bert()).to_dict() | {"num_frame": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'num_frame'.*Did you mean 'num_frames'"):
        VideoQAConfig.from_pretrained(tmp_path)


def test_fields_of_every_transformers_config_are_taken():
    config = VideoQAConfig(
        architectures=["VideoQAForMultipleChoice"], dtype="float32", output_attentions=False, id2label={0: "answer"},
        auto_map={}, transformers_version="5.3.0", name_or_path="somewhere",
    )  # fmt: skip
    assert config.architectures == ["VideoQAForMultipleChoice"]
