"""What transformers checks of each of its own models and processors, for this one and the families of text encoders."""

import copy
import inspect
import json

import pytest
import torch
from accelerate import infer_auto_device_map
from conftest import NO_DROPOUT, TINY_TEXT, VOCABULARY
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoProcessor,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    ResNetConfig,
    RobertaConfig,
)

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice, VideoQAModel
from modeling_videoqa.modeling_videoqa import RecurrentPooling
from processing import VideoQAProcessor

SIZES = {**TINY_TEXT, "pad_token_id": 0}
ENCODERS = {
    "bert": lambda: BertConfig(**SIZES, **NO_DROPOUT),
    "roberta": lambda: RobertaConfig(**SIZES, **NO_DROPOUT, type_vocab_size=1),
    "electra": lambda: ElectraConfig(**SIZES, **NO_DROPOUT, embedding_size=16),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=2, hidden_dim=48, dropout=0.0, attention_dropout=0.0
    ),
    "modernbert": lambda: ModernBertConfig(
        **SIZES, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, local_attention=8
    ),
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(params=ENCODERS)
def family(request):
    """Name of a family of text encoders."""
    return request.param


@pytest.fixture
def model(family, make_model):
    """A tiny model of the family; all of it is trained, and every input shows in the output."""
    return make_model(text_config=ENCODERS[family]())


@pytest.fixture
def folder(model, tmp_path):
    """Where that model is saved."""
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def load(folder, **options):
    """A model that lacks nothing in its folder and finds nothing else there."""
    loaded, report = AutoModelForMultipleChoice.from_pretrained(folder, output_loading_info=True, **options)
    assert set(report) >= {"missing_keys", "unexpected_keys", "mismatched_keys"}
    assert not any(report.values()), report
    return loaded


def assert_same_weights(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    assert not [name for name in found if not torch.equal(found[name], expected[name])]


def assert_same_outputs(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    assert len(found) > 3
    for name in expected:
        torch.testing.assert_close(
            found[name].float(), expected[name].float(), rtol=tolerance, atol=tolerance, msg=name
        )


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance, msg=name)


# --- the signature and what is returned


def test_the_signature_begins_with_the_batch():
    inputs = [name for name in inspect.signature(VideoQAForMultipleChoice.forward).parameters if name != "self"]
    assert inputs[0] == VideoQAForMultipleChoice.main_input_name == "input_ids"
    # All names of the batch, then the three that only say what to return.
    names = VideoQAProcessor.model_input_names.fget(None)
    assert inputs[:-3] == names
    assert inputs[-3:] == ["output_hypotheses", "output_attentions", "return_dict"]
    kinds = {parameter.kind for parameter in inspect.signature(VideoQAForMultipleChoice.forward).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}  # a misspelt name is an error
    base = [name for name in inspect.signature(VideoQAModel.forward).parameters if name != "self"]
    assert base == [name for name in inputs if name in base]
    assert set(names) - set(base) == {"segment_times", "start_positions", "end_positions"}


@pytest.mark.parametrize("asked", ["argument", "config"])
def test_a_tuple_holds_what_the_output_holds_in_its_order(asked, make_model, make_batch):
    batch, options = make_batch(), {"output_attentions": True, "return_dict": False}
    expected = make_model()(**batch, output_attentions=True, output_hypotheses=True)
    if asked == "argument":
        found = make_model()(**batch, **options, output_hypotheses=True)
    else:
        found = make_model(**options)(**batch, output_hypotheses=True)
    assert type(found) is tuple
    assert len(found) == len(expected) == 13
    assert all(torch.equal(one, other) for one, other in zip(found, expected.values(), strict=True))


def test_an_argument_outweighs_the_config(make_model, make_batch):
    model = make_model(output_attentions=True, return_dict=False)
    output = model(**make_batch(), output_attentions=False, return_dict=True)
    assert output.logits is not None
    assert output.frame_attentions is None


def test_the_same_input_gives_the_same_output(model, make_batch):
    batch = make_batch()
    first, second = model(**batch), model(**batch)
    assert all(torch.equal(first[name], second[name]) for name in first)
    twin = copy.deepcopy(model)
    assert_same_outputs(twin(**batch), first)
    assert twin.get_input_embeddings() is not model.get_input_embeddings()


def test_a_feed_forward_in_chunks(make_model, make_batch):
    whole, chunked = make_model(), make_model(text_config={"chunk_size_feed_forward": 1})
    assert_same_outputs(chunked(**make_batch()), whole(**make_batch()))


# --- saving and loading


def test_a_model_saved_in_shards_comes_back(model, make_batch, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}  # no pickle
    loaded = load(tmp_path)
    assert_same_weights(loaded, model)
    assert_same_outputs(loaded(**make_batch()), model(**make_batch()))


def test_the_file_holds_each_weight_once(model, folder):
    names = {name for name, _ in model.named_parameters()}
    with safe_open(folder / "model.safetensors", "pt") as saved:
        assert set(saved.keys()) == set(model.state_dict())
        assert names <= set(saved.keys())
        assert saved.metadata() == {"format": "pt"}
        size = sum(saved.get_tensor(name).numel() for name in names)
    assert size == model.num_parameters() == sum(parameter.numel() for parameter in model.parameters())


def test_a_state_dict_of_one_part_leaves_the_rest_as_new(model, folder):
    """What is missing is named, drawn anew and trained; what is there is loaded."""
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("span_classifier.")}
    found, report = VideoQAForMultipleChoice.from_pretrained(
        None, config=folder, state_dict=weights, output_loading_info=True
    )
    assert report["missing_keys"] == {"span_classifier.weight", "span_classifier.bias"}
    assert not report["unexpected_keys"] | report["mismatched_keys"]
    assert found.span_classifier.bias.eq(0).all()
    assert found.span_classifier.weight.abs().max() < 0.2 < model.span_classifier.weight.abs().max()
    kept = found.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in weights.items())


def test_weights_of_another_shape_are_refused_or_drawn_anew(folder, make_batch):
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForMultipleChoice.from_pretrained(folder, video_feature_size=9)
    found, report = AutoModelForMultipleChoice.from_pretrained(
        folder, video_feature_size=9, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {name for name, *_ in report["mismatched_keys"]} == {"model.visual_attention.projection.weight"}
    assert found.model.visual_attention.projection.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert found(**make_batch(width=9)).loss.isfinite()


# --- initialisation


@pytest.fixture
def _empty_memory_is_nan():
    """What nobody initialises is NaN, instead of what the memory held before."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def assert_initialised_at_zero(model):
    """Drawn with next to no deviation all weights are 0, or 1 in a normalisation; GRUs have a range of their own."""
    recurrent = {id(p) for part in model.modules() if isinstance(part, RecurrentPooling) for p in part.parameters()}
    assert recurrent
    for name, parameter in model.named_parameters():
        if id(parameter) in recurrent:
            assert 0.9 * 32**-0.5 < parameter.abs().max() <= 32**-0.5, name
        else:
            value = 1.0 if name.endswith("weight") and "norm" in name.lower() else 0.0
            torch.testing.assert_close(parameter, torch.full_like(parameter, value), msg=name)
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.usefixtures("_empty_memory_is_nan")
@pytest.mark.parametrize("way", ["built", "loaded from nothing"])
def test_every_weight_is_initialised(way, family, make_config):
    text_config = ENCODERS[family]()
    text_config.initializer_range = 1e-12  # 0 would count as not given
    config = make_config(text_config, initializer_range=1e-12)
    if way == "built":
        model = VideoQAForMultipleChoice(config)
    else:
        model = VideoQAForMultipleChoice.from_pretrained(None, config=config, state_dict={})
    assert_initialised_at_zero(model)


@pytest.mark.parametrize("normalize_features", [True, False])
def test_new_layers_have_the_deviation_of_the_config(normalize_features, make_config):
    """Built and loaded from nothing alike, whichever way the library goes through the modules."""
    config = make_config(initializer_range=0.3, video_feature_size=300, normalize_features=normalize_features)
    for model in (
        VideoQAForMultipleChoice(config),
        VideoQAForMultipleChoice.from_pretrained(None, config=config, state_dict={}),
    ):
        assert model.model.visual_attention.projection.weight.std().item() == pytest.approx(0.3, rel=0.05)
        assert model.model.text_encoder.encoder.layer[0].output.dense.weight.std().item() == pytest.approx(0.02, 0.1)


def test_a_model_can_be_built_without_memory(family, make_config):
    config = make_config(ENCODERS[family]())
    with torch.device("meta"):
        model = VideoQAForMultipleChoice(config)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    trained = {name: parameter.requires_grad for name, parameter in VideoQAForMultipleChoice(config).named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trained


# --- embeddings


def test_embeddings_can_be_taken_and_put(model, make_batch):
    own = model.get_input_embeddings()
    assert isinstance(own, nn.Embedding)
    assert own is model.model.get_input_embeddings() is model.model.text_encoder.get_input_embeddings()
    assert model.get_output_embeddings() is None
    before = model(**make_batch()).logits
    other = nn.Embedding(own.num_embeddings, own.embedding_dim)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is model.model.get_input_embeddings() is other
    assert not torch.allclose(model(**make_batch()).logits, before, atol=1e-4)


def test_more_words_change_no_answer_and_survive_saving(model, make_batch, tmp_path):
    size, expected = model.config.text_config.vocab_size, model(**make_batch())
    resized = model.resize_token_embeddings(size + 10)
    assert resized is model.get_input_embeddings()
    assert resized.weight.shape[0] == model.config.text_config.vocab_size == size + 10
    assert_same_outputs(model(**make_batch()), expected)
    batch = make_batch()
    batch["input_ids"][:, :, 0, 1] = size + 9  # one of the new
    assert model(**batch).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.config.text_config.vocab_size == size + 10
    assert_same_weights(loaded, model)
    assert_same_outputs(loaded(**batch), model(**batch))


def test_fewer_words(model, make_batch):
    batch = make_batch()
    batch |= {name: batch[name].clamp(max=49) for name in ("input_ids", "anchor_input_ids")}
    expected = model(**batch)
    model.resize_token_embeddings(50)
    assert model.config.text_config.vocab_size == 50
    assert_same_outputs(model(**batch), expected)
    with pytest.raises(IndexError):
        model(**make_batch())


def test_resized_embeddings_stay_as_frozen_as_they_were(family, make_config):
    for tuned in (1, None):
        model = VideoQAForMultipleChoice(make_config(ENCODERS[family](), num_tuned_text_layers=tuned))
        model.resize_token_embeddings(len(VOCABULARY) + 3)
        assert model.get_input_embeddings().weight.requires_grad is (tuned is None)


def test_words_that_a_processor_adds(make_model, tiny_encoder_dir, make_config):
    """What the error of `from_config` advises."""
    tokenizer, model = BertTokenizer.from_pretrained(tiny_encoder_dir), make_model()
    tokenizer.add_tokens(["raj", "stuart"])
    with pytest.raises(ValueError, match="resize the model's token embeddings"):
        VideoQAProcessor.from_config(model.config, tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    processor = VideoQAProcessor.from_config(model.config, tokenizer)
    batch = processor("who is raj ?", ["stuart", "penny"])
    assert batch["input_ids"].max() >= len(VOCABULARY)
    assert model(**batch).logits.shape == (1, 2)


# --- ways to compute


def test_the_attention_implementations_agree(folder, make_batch):
    models = {kind: load(folder, attn_implementation=kind) for kind in ("eager", "sdpa")}
    for kind, model in models.items():
        assert model.config._attn_implementation == kind
        # The encoder itself may have a name for sdpa that takes rows end to end as well.
        assert model.model.text_encoder.config._attn_implementation.removesuffix("_or_varlen") == kind
    batch = make_batch()
    assert_same_outputs(models["sdpa"](**batch), models["eager"](**batch))
    assert_same_gradients(*(gradients(models[kind], batch) for kind in ("sdpa", "eager")))


def test_the_attention_implementation_can_be_changed_later(model, make_batch):
    expected = model(**make_batch())
    assert model.model.text_encoder.config._attn_implementation.removesuffix("_or_varlen") == "sdpa"
    model.set_attn_implementation("eager")
    assert model.model.text_encoder.config._attn_implementation == "eager"
    assert_same_outputs(model(**make_batch()), expected)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the name that Trainer's users know
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("tuned", [None, 1])
def test_checkpointed_gradients_are_the_same(tuned, reentrant, family, make_model, make_batch):
    model, batch = make_model(text_config=ENCODERS[family](), num_tuned_text_layers=tuned).train(), make_batch()
    expected = gradients(model, batch)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    assert_same_gradients(gradients(model, batch), expected)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    assert_same_gradients(gradients(model, batch), expected)


# --- dtype and device_map


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_loaded_in_the_dtype_that_is_asked_for(dtype, model, folder, make_batch, tmp_path):
    expected = model(**make_batch())
    loaded = load(folder, dtype=dtype)
    configs = (loaded.config, loaded.config.text_config, loaded.model.text_encoder.config)
    assert {config.dtype for config in configs} == {loaded.dtype} == {DTYPES[dtype]}
    assert {parameter.dtype for parameter in loaded.parameters()} == {DTYPES[dtype]}
    output = loaded(**make_batch())
    assert output.logits.dtype == DTYPES[dtype]
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=0.05)
    loaded.save_pretrained(tmp_path / "half")
    for options in ({}, {"dtype": "auto"}):
        assert {p.dtype for p in load(tmp_path / "half", **options).parameters()} == {DTYPES[dtype]}
    assert {p.dtype for p in load(tmp_path / "half", dtype=torch.float32).parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32


def test_a_model_is_built_and_moved_in_any_dtype(family, make_config, make_batch):
    config = make_config(ENCODERS[family]())
    built = AutoModelForMultipleChoice.from_config(config, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.bfloat16}
    assert built(**make_batch()).loss.isfinite()
    moved = built.to(torch.float64)
    assert moved.dtype == moved(**make_batch()).logits.dtype == torch.float64


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_a_model_is_loaded_onto_devices(device_map, model, folder, make_batch):
    loaded = load(folder, device_map=device_map)
    assert loaded.device.type in ("cpu", "cuda")
    found = loaded(**{name: value.to(loaded.device) for name, value in make_batch().items()})
    assert_same_outputs({name: value.cpu() for name, value in found.items()}, model(**make_batch()), 1e-4)


@pytest.mark.parametrize("part", ["model.text_encoder", "model.text_pooling"])
def test_parts_may_stay_on_the_disk(part, model, folder, make_batch, tmp_path):
    names = [name for name, _ in model.named_children() if name != "model"]
    names += [f"model.{name}" for name, child in model.model.named_children() if child is not None]
    places = {name: "disk" if name == part else "cpu" for name in names}
    loaded = load(folder, device_map=places, offload_folder=tmp_path / "offloaded")
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same_outputs(loaded(**make_batch()), model(**make_batch()))


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"], indirect=True)
def test_no_layer_is_cut_by_a_device_map(model):
    """The last layer of BERT's kind has a class of ours, and adds what its parts gave on one device."""
    layers = [f"{name}.{place}" for name, part in model.named_modules() for place in range(2) if name.endswith("layer")]
    layers = layers or [f"model.text_encoder.layers.{place}" for place in range(2)]
    size = 4 * model.num_parameters()
    for memory in range(size // 8, size, size // 24):
        places = infer_auto_device_map(
            model, {0: memory, 1: size, "cpu": size}, no_split_module_classes=list(model._no_split_modules)
        )
        cut = [name for name in places for layer in layers if name.startswith(f"{layer}.")]
        assert cut == []


# --- config


def test_a_config_is_what_it_was_after_any_round(family, make_config, tmp_path):
    config = make_config(ENCODERS[family](), num_tuned_text_layers=3)
    for use_diff in (True, False):
        again = VideoQAConfig(**json.loads(config.to_json_string(use_diff=use_diff)))
        assert again.to_dict() == config.to_dict()
    config.to_json_file(tmp_path / "config.json")
    assert VideoQAConfig.from_json_file(tmp_path / "config.json").to_dict() == config.to_dict()
    assert copy.deepcopy(config).to_dict() == VideoQAConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    found, unused = VideoQAConfig.from_pretrained(tmp_path, num_frames=9, no_such=1, return_unused_kwargs=True)
    assert (found.num_frames, unused) == (9, {"no_such": 1})


def test_a_config_has_what_every_config_has(family, make_config, tmp_path):
    config = make_config(ENCODERS[family]())
    assert config.get_text_config() is config.text_config
    assert config.get_text_config().hidden_size == 32
    assert config.model_type == "videoqa"
    assert set(VideoQAConfig.sub_configs) == {"text_config", "vision_config"}
    # The text encoder's config alone, from the folder of the whole.
    config.save_pretrained(tmp_path)
    alone = type(config.text_config).from_pretrained(tmp_path)
    assert alone.to_dict() == config.text_config.to_dict() | {"_name_or_path": alone._name_or_path}
    assert VideoQAConfig().text_config is not VideoQAConfig().text_config


@pytest.mark.parametrize("way", ["constructor", "setter", "from_config", "from_pretrained"])
def test_the_attention_implementation_reaches_the_text_encoder(way, make_config, tmp_path):
    config = make_config(vision_config=ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1]))
    if way == "constructor":
        config = VideoQAConfig(**config.to_dict(), attn_implementation="eager")
        model = VideoQAForMultipleChoice(config)
    elif way == "setter":
        config._attn_implementation = "eager"
        model = VideoQAForMultipleChoice(config)
    elif way == "from_config":
        model = AutoModel.from_config(config, attn_implementation="eager")
    else:
        config.save_pretrained(tmp_path)
        model = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path, attn_implementation="eager"))
    assert model.base_model.text_encoder.config._attn_implementation == "eager"
    assert "attn_implementation" not in model.config.to_json_string()  # of this run, and not of the model


# --- processor


@pytest.fixture
def processor(tiny_tokenizer, make_config):
    return VideoQAProcessor.from_config(make_config(), tiny_tokenizer)


def assert_same_processor(found, expected):
    assert type(found) is type(expected)
    assert found.to_dict() == expected.to_dict()
    assert found.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
    call = {"question": "who knocks ?", "choices": ["penny", "leonard"], "subtitles": [{"start": 0, "text": "penny"}]}
    one, other = found(**call), expected(**call)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_processor_is_what_it_was_after_any_round(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for kind in (VideoQAProcessor, AutoProcessor):
        assert_same_processor(kind.from_pretrained(tmp_path), processor)
    assert_same_processor(VideoQAProcessor(processor.tokenizer, **{
        name: getattr(processor, name) for name in inspect.signature(VideoQAProcessor).parameters if name != "tokenizer"
    }), processor)  # fmt: skip
    assert_same_processor(copy.deepcopy(processor), processor)
    saved = json.loads(processor.to_json_string())
    assert saved["processor_class"] == "VideoQAProcessor"
    assert saved == json.loads((tmp_path / "processor_config.json").read_text())


def test_a_processor_has_the_tokenizer_as_its_only_part(processor):
    assert processor.get_attributes() == ["tokenizer"]
    assert processor.tokenizer.model_input_names[0] == processor.model_input_names[0] == "input_ids"


def test_a_setting_of_a_processor_can_be_changed_when_it_is_loaded(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    changed = AutoProcessor.from_pretrained(tmp_path, max_text_length=9, num_frames=3)
    assert (changed.max_text_length, changed.num_frames, changed.max_segments) == (9, 3, processor.max_segments)
    assert changed("who knocks on the door ?", ["penny", "leonard"])["input_ids"].shape[-1] == 9


@pytest.mark.parametrize("name", ["padding", "max_length", "text", "images"])
def test_an_argument_of_other_processors_is_an_error_and_not_ignored(name, processor):
    with pytest.raises(TypeError, match=name):
        processor("who ?", ["penny", "leonard"], **{name: True})
