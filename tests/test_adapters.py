"""LoRA on the text encoder: what is trained, that merging changes no answer, and runs of a recipe that asks for it."""

import copy
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_common_checks import ENCODERS, assert_same_outputs, assert_same_weights, gradients, load
from tiny_training import EXAMPLES, TinyTraining, assert_the_same_run, call, common, kill, log_of, train
from transformers import AutoModel

from modeling_videoqa import VideoQAForMultipleChoice, adapters, training
from modeling_videoqa.adapters import LORA_FIELDS, add_adapters, lora_config, merge_adapters, save_adapters

sys.path.append(str(EXAMPLES))
import push_to_hub

TARGETS = {
    "bert": ["query", "value"], "roberta": ["query", "key", "value", "dense"], "electra": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"], "modernbert": ["Wqkv", "Wo"],
}  # fmt: skip
ROOT = Path(__file__).parents[1]
THREE_PARTS = r"(?s).+ Allowed.*: .+\. \S.+"
HEADS = ("classifier", "visual_attention", "pooling", "token_type_embeddings")


def learned(model):
    """As if the adapters had been trained: they begin at nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    return model


@pytest.fixture(params=ENCODERS)
def family(request):
    return request.param


@pytest.fixture
def model(family, make_model):
    return make_model(text_config=ENCODERS[family](), num_tuned_text_layers=1)


@pytest.fixture
def adapted(family, model):
    """That model with adapters that learned something."""
    model = copy.deepcopy(model)
    add_adapters(model, {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[family]})
    return learned(model)


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(adapters) == 0


# --- in a model


def test_adapters_begin_at_nothing_and_are_all_that_is_trained_in_the_encoder(family, model, make_batch):
    expected = model(**make_batch())
    add_adapters(model, {"r": 4, "target_modules": TARGETS[family]})
    assert type(model) is VideoQAForMultipleChoice
    assert_same_outputs(model(**make_batch()), expected)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inside = {name for name in trained if ".text_encoder." in name}
    assert len(inside) == 2 * 2 * len(TARGETS[family]) or family in ("roberta", "modernbert")  # more than one of a name
    assert all(".lora_A." in name or ".lora_B." in name for name in inside)
    outside = {name for name, _ in model.named_parameters() if ".text_encoder." not in name}
    assert trained - inside == outside
    assert all(any(head in name for head in HEADS) for name in outside)


def test_every_adapter_gets_a_gradient_in_the_group_of_the_encoder(adapted, make_batch):
    found = gradients(adapted.train(), make_batch())
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert found.keys() == trained
    assert all(found[name].abs().max() > 0 for name in trained if ".lora_" in name)
    encoder, heads = training.parameter_groups(adapted, 1e-4, 1e-3)
    inside = [parameter for name, parameter in adapted.named_parameters() if ".lora_" in name]
    assert [id(parameter) for parameter in encoder["params"]] == [id(parameter) for parameter in inside]
    assert len(heads["params"]) == len(trained) - len(inside)


def test_a_merged_model_is_an_ordinary_one_that_answers_the_same(model, adapted, make_batch, tmp_path):
    batch, names = make_batch(), list(model.state_dict())
    expected = adapted(**batch)
    assert (expected.logits - model(**batch).logits).abs().max() > 0.1
    merge_adapters(adapted)
    assert list(adapted.state_dict()) == names
    assert [type(part) for part in adapted.modules()] == [type(part) for part in model.modules()]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in adapted.named_parameters() if parameter.requires_grad} == trained
    assert_same_outputs(adapted(**batch), expected, 2e-5)
    adapted.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = load(tmp_path)
    assert_same_weights(loaded, adapted)
    add_adapters(loaded, {"target_modules": ["query"]} if "query" in str(names) else {"target_modules": "all-linear"})
    assert_same_outputs(loaded(**batch), expected, 2e-5)


def test_a_model_with_adapters_apart_is_refused(adapted, tmp_path):
    adapted.save_pretrained(tmp_path)  # as a trainer does on its way
    with pytest.raises(ValueError, match=THREE_PARTS):
        VideoQAForMultipleChoice.from_pretrained(tmp_path)


def test_peft_loads_the_adapters_onto_the_encoder(family, model, adapted, make_batch, tmp_path):
    plain = model.model.text_encoder
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a search on the Hub
        save_adapters(adapted, tmp_path, base_model="nobody/nothing")
    noted = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (noted["base_model_name_or_path"], noted["r"], noted["lora_alpha"]) == ("nobody/nothing", 4, 8)
    assert sorted(noted["target_modules"]) == sorted(TARGETS[family])
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert all(".lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    merged = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path).merge_and_unload()
    plain.load_adapter(tmp_path)  # the way of transformers
    assert_same_outputs(model(**make_batch()), adapted(**make_batch()))
    merge_adapters(adapted)
    for name, value in adapted.model.text_encoder.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True, "r": 2},
        {"use_rslora": True, "lora_dropout": 0.5},
        {"layers_to_transform": [1], "layers_pattern": "layer"},
        {"target_modules": "all-linear", "exclude_modules": ["intermediate.dense"]},
        {"rank_pattern": {"query": 3}, "alpha_pattern": {"value": 2}},
        {},  # peft knows what it adapts in a BERT
    ],
    ids=lambda fields: "-".join(fields),
)
def test_whatever_is_allowed_merges(fields, make_model, make_batch):
    model = make_model()
    add_adapters(model, fields)
    expected = learned(model).eval()(**make_batch())
    assert (expected.logits - make_model()(**make_batch()).logits).abs().max() > 0.1
    merge_adapters(model)
    assert model.state_dict().keys() == make_model().state_dict().keys()
    assert_same_outputs(model(**make_batch()), expected, 2e-5)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the name that Trainer's users know
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_checkpointed_gradients_are_the_same(reentrant, adapted, make_batch):
    expected = gradients(adapted.train(), make_batch())
    adapted.gradient_checkpointing_enable({"use_reentrant": reentrant})
    found = gradients(adapted, make_batch())
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("fields", "came"),
    [
        ({"rank": 8}, "rank"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save"),  # all that is no encoder is trained anyway
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),  # which changes the weights of the encoder
        (["query"], "query"),
        ({"r": 0}, "positive"),
        ({"r": "many"}, "many"),
        ({"lora_dropout": 3}, "3"),
        ({"target_modules": ["q_proj"]}, "q_proj"),
        ({"target_modules": ["query", "valeu"]}, "valeu"),
        ({"layers_to_transform": [7], "target_modules": ["query"]}, "7"),
        ({"layers_pattern": "layer"}, "layers_pattern"),
    ],
)
def test_what_does_not_fit_stops(fields, came, make_model):
    with pytest.raises(ValueError, match=THREE_PARTS) as stopped:
        add_adapters(make_model(), fields)
    assert came in str(stopped.value)


def test_without_peft_the_message_tells_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install modeling-videoqa\[peft\]") as stopped:
        lora_config({"r": 4})
    assert "Allowed: " in str(stopped.value)


# --- by a recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder_dir):
    made = TinyTraining(tmp_path_factory.mktemp("tiny"), tiny_encoder_dir, clips=(5, 1))
    lora = {"r": 4, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ["query", "value"]}
    made.recipe = {**made.recipe, "lora": lora}
    return made


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    options = ("--save_total_limit", "4")
    call(train, tiny.arguments(folder, *options))
    return folder / "full" / "seed_0", options


def test_a_run_leaves_an_ordinary_model_and_the_adapters_beside_it(tiny, unbroken):
    run, _ = unbroken
    assert {path.name for path in (run / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert (run / "adapter" / "adapter_model.safetensors").stat().st_size < 10_000
    noted = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert noted["base_model_name_or_path"] == tiny.recipe["text_encoder"]
    assert "peft" in json.loads((run / "versions.json").read_text())
    model = load(run)
    # The encoder as it was, with the adapters of the file: nothing else of it moved, in either stage.
    encoder = AutoModel.from_pretrained(tiny.recipe["text_encoder"])
    merged = PeftModel.from_pretrained(copy.deepcopy(encoder), run / "adapter").merge_and_unload().state_dict()
    moved = set()
    for name, value in model.model.text_encoder.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-6, msg=name)
        if not torch.equal(value, encoder.state_dict()[name]):
            moved.add(name.split(".", 3)[-1])
    assert moved == {"attention.self.query.weight", "attention.self.value.weight"}
    for stage in ("pretrain", "main"):
        assert all(entry["qa_loss"] > 0 for entry in log_of(run, stage) if "loss" in entry)


def test_both_stages_train_the_same_adapters_and_the_heads(unbroken):
    run, _ = unbroken
    first, last = (
        load_file(max((run / stage).glob("checkpoint-*"), key=lambda path: int(path.name[11:])) / "model.safetensors")
        for stage in ("pretrain", "main")
    )
    assert first.keys() == last.keys()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    inside = {name for name in moved if ".text_encoder." in name}
    assert inside == {name for name in first if ".lora_" in name}
    assert moved - inside == {name for name in first if ".text_encoder." not in name}
    learned_first = [value for name, value in first.items() if ".lora_B." in name]
    assert all(value.ne(0).any() for value in learned_first)  # they began at zero


def test_the_number_of_trained_parameters_is_logged(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    recipe = {**tiny.recipe, "stages": {"main": tiny.recipe["stages"]["main"]}}
    call(train, tiny.arguments(tmp_path, "--max_steps", 1, recipe=recipe, name="logged"))
    model = load(tmp_path / "full" / "seed_0")
    heads = sum(p.numel() for name, p in model.named_parameters() if ".text_encoder." not in name)
    adapter = load_file(tmp_path / "full" / "seed_0" / "adapter" / "adapter_model.safetensors")
    inside = sum(value.numel() for value in adapter.values())
    (told,) = [record.getMessage() for record in caplog.records if "parameters are trained" in record.getMessage()]
    assert f": {heads + inside:,} of {model.num_parameters() + inside:,} parameters" in told


@pytest.mark.parametrize("step", [5, 17, None], ids=["no checkpoint yet", "second epoch", "after its last step"])
def test_a_killed_run_ends_as_an_unbroken_one(tiny, unbroken, tmp_path, step):
    folder, options = unbroken
    arguments = tiny.arguments(tmp_path, *options)
    kill(arguments, step)
    call(train, arguments)
    run = tmp_path / "full" / "seed_0"
    assert_the_same_run(run, folder)
    name = "adapter/adapter_model.safetensors"
    assert (run / name).read_bytes() == (folder / name).read_bytes()


def test_a_release_of_a_run_holds_nothing_of_the_adapters(unbroken, tmp_path):
    run, _ = unbroken
    release = tmp_path / "release"
    options = ["--model", str(run), "--repo_id", "me/lora", "--dry_run", "--output_dir", str(release)]
    assert "Loaded without this package, it answers as the model does." in call(push_to_hub, options)
    found = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    assert found == {
        *(path.name for path in run.glob("*") if path.name.startswith(("config", "model", "processor", "tokenizer"))),
        *(path.name for part in ("modeling_videoqa", "processing") for path in (ROOT / part).glob("*_videoqa.py")),
        "README.md", "LICENSE", ".eval_results/videoqa.yaml",
    }  # fmt: skip
    assert not any(".lora_" in name for name in load_file(release / "model.safetensors"))
    assert "lora_alpha: 16" in (release / "README.md").read_text(encoding="utf-8")  # the recipe


@pytest.mark.parametrize(
    ("lora", "came"),
    [({"rank": 8}, "rank"), (8, "8"), ({"r": -1}, "-1"), ({"target_modules": ["query", "q_proj"]}, "q_proj")],
)
def test_a_recipe_whose_lora_cannot_be_stops_before_anything_is_written(tiny, tmp_path, lora, came):
    with pytest.raises(SystemExit, match=THREE_PARTS) as stopped:
        call(train, tiny.arguments(tmp_path / "run", recipe={**tiny.recipe, "lora": lora}, name="wrong"))
    assert came in str(stopped.value)
    assert "lora" in str(stopped.value)
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_peft_stops(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit, match=THREE_PARTS) as stopped:
        common.read_recipe(tiny.written(tiny.recipe, "no_peft"))
    assert "pip install modeling-videoqa[peft]" in str(stopped.value)


def test_the_recipe_for_tvqa_plus_says_what_differs():
    recipes = EXAMPLES / "recipes"
    base, found = (common.read_recipe(recipes / f"tvqa_plus_text{end}.yaml") for end in ("", "_lora"))
    lora = found.pop("lora")
    assert set(lora) <= set(LORA_FIELDS)
    assert lora_config(lora).r == 8
    for stage in found["stages"].values():
        assert stage["training"].pop("learning_rate") > 0
    for stage in base["stages"].values():
        stage["training"].pop("learning_rate")
    assert found == base
