"""`examples/train.py` as it is called: what a run leaves, which settings reach it, that a killed one ends the same."""

import json
import math
import shutil
from importlib.metadata import version

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_training import TinyTraining, assert_the_same_run, call, common, kill, log_of, metrics_of, train
from transformers import AutoModelForMultipleChoice, AutoProcessor

from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.submissions import read_predictions
from modeling_videoqa.training import predict
from processing import VideoQADataset, open_features

QUESTION_ONLY = {"subtitles": False, "objects": False, "video": False}
THREE_PARTS = r"(?s).+ Allowed.*: .+\. \S.+"  # what came, what is allowed, what to do


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder_dir):
    """45 questions to train on, 12 steps an epoch of which the last has a single question; 9 to evaluate on."""
    return TinyTraining(tmp_path_factory.mktemp("tiny"), tiny_encoder_dir, clips=(5, 1))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Folder, command line and output of a run with two inputs and a few settings from the command line."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = {**tiny.recipe, "inputs": {**tiny.recipe["inputs"], "question_only": QUESTION_ONLY}}
    settings = ["--learning_rate", "2e-3", "--lr_scheduler_type", "constant", "--optim", "sgd"]
    arguments = tiny.arguments(folder, *settings, recipe=recipe, name="finished")
    return folder, arguments, call(train, arguments)


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    """A run that nothing interrupts, with the options that the interrupted ones get too."""
    folder = tmp_path_factory.mktemp("unbroken")
    options = ("--save_total_limit", "4")
    call(train, tiny.arguments(folder, *options))
    return folder / "full" / "seed_0", options


# --- what a run leaves


def test_a_run_leaves_all_that_the_docstring_says(finished, tiny):
    folder, _, printed = finished
    assert {path.name for path in folder.iterdir()} == {"full", "question_only", "results.json"}
    for name in ("full", "question_only"):
        run = folder / name / "seed_0"
        assert {path.name for path in run.iterdir()} == {
            "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
            "metrics.json", "predictions.jsonl", "log_pretrain.json", "log_main.json", "recipe.yaml", "versions.json",
            "pretrain", "main",
        }  # fmt: skip
    results = json.loads((folder / "results.json").read_text())
    found = {name: [json.loads((folder / name / "seed_0" / "metrics.json").read_text())] for name in results}
    assert results == found
    assert list(results) == ["full", "question_only"]
    assert printed.endswith("\n" + common.summary(results) + "\n")  # behind the log
    versions = json.loads((folder / "full" / "seed_0" / "versions.json").read_text())
    assert versions["torch"] == version("torch")
    assert set(common.PACKAGES) < set(versions)


def test_the_recipe_of_a_run_is_the_one_that_it_ran_with(finished, tiny):
    folder, _, _ = finished
    overrides = {
        "bf16": False, "logging_steps": 1, "disable_tqdm": True, "learning_rate": 2e-3, "lr_scheduler_type": "constant",
        "optim": "sgd",
    }  # fmt: skip
    for name, inputs in (("full", tiny.recipe["inputs"]["full"]), ("question_only", QUESTION_ONLY)):
        stages = {
            stage: {**settings, "training": {**settings["training"], **overrides}}
            for stage, settings in tiny.recipe["stages"].items()
        }
        expected = {**tiny.recipe, "inputs": {"input": inputs}, "stages": stages}
        path = folder / name / "seed_0" / "recipe.yaml"
        assert yaml.safe_load(path.read_text()) == expected
        assert common.read_recipe(path) == expected  # it can be run again


def test_model_and_processor_of_a_run_give_its_predictions_and_metrics(finished, tiny):
    folder, _, _ = finished
    questions, features = tiny.data.questions["validation"], open_features(tiny.features, 2)
    for name, seen in (("full", features), ("question_only", None)):
        run = folder / name / "seed_0"
        model, processor = AutoModelForMultipleChoice.from_pretrained(run), AutoProcessor.from_pretrained(run)
        assert (model.config.video_feature_size is None) == (seen is None)
        parts = dict.fromkeys(("subtitles", "objects"), name == "full")
        dataset = VideoQADataset(processor, questions, tiny.data.clips, seen, **parts)
        saved = read_predictions(run / "predictions.jsonl", questions)
        assert list(saved) == questions["qid"]
        again = predict(model, processor, dataset, progress=False, subtitles=dataset.subtitles)
        for qid, prediction in saved.items():
            assert again[qid].pop("probabilities") == pytest.approx(prediction.pop("probabilities"), abs=1e-6)
            assert again[qid] == prediction
        assert evaluate_predictions(saved, questions) == metrics_of(run)


def test_the_logs_of_both_stages(finished):
    run = finished[0] / "full" / "seed_0"
    for stage, steps in (("pretrain", 3), ("main", 24)):
        entries = [entry for entry in log_of(run, stage) if "loss" in entry]
        assert [entry["step"] for entry in entries] == list(range(1, steps + 1))
        for entry in entries:
            weighted = entry["qa_loss"] + 0.2 * entry["span_loss"] + 0.1 * entry["contrastive_loss"]
            assert entry["loss"] == pytest.approx(weighted, rel=1e-4)
            assert entry["euclidean_distance"] > 0
            assert 0 < entry["cosine_distance"] < 2
    evaluated = [entry["step"] for entry in log_of(run) if "eval_accuracy" in entry]
    assert evaluated == [12, 24]
    assert not any("eval_accuracy" in entry for entry in log_of(run, "pretrain"))


def test_a_finished_run_is_not_done_again(finished, monkeypatch):
    folder, arguments, printed = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    for name in ("train_stage", "predict"):
        monkeypatch.setattr(train, name, lambda *args, **kwargs: pytest.fail("it is done again"))
    table = call(train, arguments)
    assert printed.endswith(table)
    assert table.startswith("input")
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in after if before.get(path) != after[path]} == {"results.json"}


def test_the_folder_of_another_recipe_is_refused(finished, tiny):
    _, arguments, _ = finished
    for other in (["--learning_rate", "3e-3"], ["--max_steps", "5"]):
        with pytest.raises(SystemExit, match=THREE_PARTS) as stopped:
            call(train, [*arguments, *other])
        assert "holds a run of another recipe" in str(stopped.value)


# --- settings from the command line


def test_the_optimizer_of_the_command_line_keeps_the_learning_rate_of_the_head(finished):
    checkpoint = next((finished[0] / "full" / "seed_0" / "main").glob("checkpoint-*"))
    groups = torch.load(checkpoint / "optimizer.pt")["param_groups"]
    assert [group["lr"] for group in groups] == [2e-3, 5e-3]
    assert all("momentum" in group and "betas" not in group for group in groups)  # sgd, not AdamW
    (first, *_) = [entry for entry in log_of(finished[0] / "full" / "seed_0", "pretrain") if "loss" in entry]
    assert first["learning_rate"] == 2e-3  # constant, and not the recipe's


def test_any_field_of_training_arguments_reaches_every_stage(tiny, tmp_path):
    given = {
        "learning_rate": 3e-4, "max_steps": 7, "weight_decay": 0.3, "save_strategy": "steps", "save_steps": 5,
        "eval_strategy": "steps", "eval_steps": 5, "warmup_steps": 2, "optim": "adafactor", "bf16": False,
        "logging_steps": 3, "dataloader_num_workers": 2, "max_grad_norm": 0.5, "lr_scheduler_type": "cosine",
        "dataloader_drop_last": True, "save_total_limit": 3, "run_name": "mine",
    }  # fmt: skip
    line = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    assert common.training_overrides(line) == given
    overrides = common.training_overrides([*line, "--lr_scheduler_kwargs", '{"num_cycles": 2}'])
    recipe = common.with_overrides(common.read_recipe(tiny.written(tiny.recipe, "any")), overrides)
    for stage in recipe["stages"].values():
        args = train.training_arguments(stage, tmp_path, seed=4)
        assert {name: getattr(args, name) for name in given} == given
        assert args.lr_scheduler_kwargs == {"num_cycles": 2}
        assert (args.seed, args.data_seed, args.per_device_train_batch_size) == (4, 4, 4)
    assert common.training_overrides([]) == {}
    assert common.training_overrides(["--bf16"]) == {"bf16": True}


@pytest.mark.parametrize("option", [["--learning_rat", "1"], ["--seed", "3"], ["--data_seed", "3"], ["--epochs", "2"]])
def test_an_option_that_is_nobodys_stops(tiny, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(train, tiny.arguments(tmp_path / "run", *option))
    assert stopped.value.code == 2 or "--seeds of this script" in str(stopped.value)
    assert not (tmp_path / "run").exists()


def test_the_batch_is_shared_by_the_accumulation_steps(tiny, tmp_path):
    stage = tiny.recipe["stages"]["main"]
    shared = {**stage, "training": {"gradient_accumulation_steps": 2}}
    assert train.training_arguments(shared, tmp_path, 0).per_device_train_batch_size == 2
    shared["training"]["per_device_train_batch_size"] = 3  # who says it by name gets it
    assert train.training_arguments(shared, tmp_path, 0).per_device_train_batch_size == 3
    with pytest.raises(SystemExit, match="batch_size 4 cannot be shared by 3 processes") as stopped:
        train.training_arguments({**stage, "training": {"gradient_accumulation_steps": 3}}, tmp_path, 0)
    assert "a multiple of 3" in str(stopped.value)


# --- the best checkpoint, and the last


def test_the_checkpoint_with_the_best_accuracy_is_kept(tiny, tmp_path, monkeypatch):
    figures = iter([0.25, 0.75, 0.5])  # as if the last epoch had spoilt the model
    monkeypatch.setattr(train, "answer_accuracy", lambda prediction: {"accuracy": next(figures)})
    recipe = {**tiny.recipe, "stages": {"main": tiny.recipe["stages"]["main"]}}
    settings = ("--num_train_epochs", "3", "--save_total_limit", "2")
    call(train, tiny.arguments(tmp_path, *settings, recipe=recipe, name="best"))
    run = tmp_path / "full" / "seed_0"
    kept = load_file(run / "model.safetensors")
    best, last = (load_file(run / "main" / f"checkpoint-{step}" / "model.safetensors") for step in (24, 36))
    assert all(torch.equal(kept[name], best[name]) for name in kept)
    assert not all(torch.equal(kept[name], last[name]) for name in kept)
    assert {path.name for path in (run / "main").iterdir()} == {"checkpoint-24", "checkpoint-36"}

    # The same if it is killed after its last step, before anything is written.
    (run / "metrics.json").unlink()
    (run / "model.safetensors").unlink()
    call(train, tiny.arguments(tmp_path, *settings, recipe=recipe, name="best"))
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path):
    assert train.last_checkpoint(tmp_path) is None
    for step, state in ((8, '{"global_step": 8}'), (20, '{"global_step": 20}'), (100, '{"global_st'), (110, "")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-120").mkdir()
    assert train.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")  # not 8, which sorts behind it as text


# --- killed runs


@pytest.mark.parametrize(
    "step", [4, 17, None], ids=["before its first checkpoint", "in its second epoch", "after its last step"]
)
def test_a_run_killed_in_its_second_stage_ends_as_an_unbroken_one(tiny, unbroken, tmp_path, step):
    folder, options = unbroken
    arguments = tiny.arguments(tmp_path, *options)
    kill(arguments, step)
    run = tmp_path / "full" / "seed_0"
    assert not (run / "metrics.json").exists()
    spent = json.loads((run / "minutes.json").read_text())
    assert 0 < spent < 2
    (run / "minutes.json").write_text(json.dumps(100 + spent))
    call(train, arguments)
    assert 100 < json.loads((run / "metrics.json").read_text())["minutes"] < 103  # of both processes
    assert_the_same_run(run, folder)


@pytest.mark.parametrize("broken", ["missing", "truncated"])
def test_a_run_killed_while_it_saved_goes_on_from_the_checkpoint_before(tiny, unbroken, tmp_path, broken):
    folder, options = unbroken
    run = tmp_path / "full" / "seed_0"
    shutil.copytree(folder, run)
    for name in ("metrics.json", "predictions.jsonl", "model.safetensors", "log_main.json"):
        (run / name).unlink()
    state = run / "main" / "checkpoint-24" / "trainer_state.json"
    if broken == "missing":
        state.unlink()
    else:
        state.write_text(state.read_text()[:200])
    call(train, tiny.arguments(tmp_path, *options))
    assert_the_same_run(run, folder)


# --- recipes


def written(folder, **recipes):
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / f"{next(iter(recipes))}.yaml"


def test_a_recipe_says_what_differs_from_its_base(tiny, tmp_path):
    path = written(
        tmp_path,
        own={"base": "middle.yaml", "model": {"max_text_length": 24}, "stages": {"pretrain": None}},
        middle={"base": "first.yaml", "text_config": None, "stages": {"main": {"head_learning_rate": None}}},
        first=tiny.recipe,
    )
    main = {key: value for key, value in tiny.recipe["stages"]["main"].items() if key != "head_learning_rate"}
    expected = {key: value for key, value in tiny.recipe.items() if key != "text_config"}
    expected |= {"model": {**tiny.recipe["model"], "max_text_length": 24}, "stages": {"main": main}}
    assert common.read_recipe(path) == expected


def test_null_takes_a_key_away_from_the_base_of_a_base_and_a_later_recipe_may_bring_it_back(tiny, tmp_path):
    inputs = {"subtitles": True, "objects": False, "video": False}
    path = written(
        tmp_path,
        own={
            "base": "middle.yaml",
            "inputs": {"full": None, "text": inputs},
            "text_config": {"hidden_dropout_prob": 0.2},
        },
        middle={"base": "first.yaml", "text_config": None},
        first=tiny.recipe,
    )
    found = common.read_recipe(path)
    assert found["inputs"] == {"text": inputs}
    assert found["text_config"] == {"hidden_dropout_prob": 0.2}  # and not the other of the first


@pytest.mark.parametrize("name", ["own.yaml", "../{folder}/own.yaml", "second.yaml"])
def test_a_recipe_that_is_its_own_base_stops(tmp_path, name):
    base = name.format(folder=tmp_path.name)
    path = written(tmp_path, own={"base": base}, second={"base": "own.yaml"})
    with pytest.raises(SystemExit, match="is its own base") as stopped:
        common.read_recipe(path)
    assert "Allowed: a chain of recipes that ends. Correct it." in str(stopped.value)


@pytest.mark.parametrize(
    ("changes", "came"),
    [
        ({"seeds": [1]}, "seeds"),
        ({"text_encoder": None}, "text_encoder"),
        ({"model": {"visual_atention": "local"}}, "visual_atention"),
        ({"model": {"visual_attention": "nearest"}}, "nearest"),
        ({"model": 3}, "3"),
        ({"inputs": {"full": {"audio": True}}}, "audio"),
        ({"inputs": {"full": {"video": None}}}, "video"),
        ({"inputs": {"full": None}}, "nothing is left"),
        ({"stages": {"main": {"batchsize": 3}}}, "batchsize"),
        ({"stages": {"main": {"training": None}}}, "training"),
        ({"stages": {"main": {"training": {"learning_rat": 1e-3}}}}, "learning_rat"),
        ({"stages": {"main": None, "pretrain": None}}, "nothing is left"),
        ({"stages": {"main": 4}}, "4"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_a_recipe_may_not_hold_stops(tiny, tmp_path, changes, came):
    path = written(tmp_path, own={"base": "first.yaml", **changes}, first=tiny.recipe)
    with pytest.raises(SystemExit, match=THREE_PARTS) as stopped:
        common.read_recipe(path)
    assert came in str(stopped.value)


def test_defaults_are_those_of_the_module(tiny, tmp_path):
    """What a recipe leaves out: only the main stage is evaluated and keeps its best checkpoint."""
    first, main = (train.training_arguments(tiny.recipe["stages"][name], tmp_path, 0) for name in ("pretrain", "main"))
    assert (first.eval_strategy, first.load_best_model_at_end) == ("no", False)
    assert (main.eval_strategy, main.load_best_model_at_end) == ("epoch", True)
    assert (main.metric_for_best_model, main.greater_is_better) == ("accuracy", True)
    assert math.isclose(main.warmup_steps, 0.1)
