"""Two processes do what one does at the same global batch; activation checkpointing, bf16 and torch.compile train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import TinyTraining, call, log_of, metrics_of, train, without_dropout
from transformers.models.bert.modeling_bert import BertLayer

from modeling_videoqa.training import native_bf16

# Settings of the runs in two processes. 36 questions: batches of 8 leave 4 over, which two processes cannot share.
CASES = {
    "even": (),
    "accumulation": ("--gradient_accumulation_steps", "2"),
    "uneven": ("--per_device_train_batch_size", "4"),
    "checkpointing": ("--gradient_checkpointing", "True", "--max_steps", "2"),
}
ALONE = {"even": (), "uneven": ("--per_device_train_batch_size", "8"), "checkpointing": ("--max_steps", "2")}
# Does not depend on how the questions are shared out: all but the mean over evaluation batches, and speed.
ALIKE = (
    "loss", "qa_loss", "span_loss", "contrastive_loss", "euclidean_distance", "cosine_distance", "grad_norm",
    "learning_rate", "eval_accuracy",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder_dir):
    """36 questions to train on, and 27 to evaluate on, which two processes cannot share."""
    return TinyTraining(tmp_path_factory.mktemp("tiny"), tiny_encoder_dir, clips=(4, 3))


@pytest.fixture(scope="module")
def arguments(tiny):
    """
    `arguments(folder, *options)`: a command line for both stages without dropout, and with plain gradient descent. Its
    steps are as large as the gradients; AdamW makes large ones of rounding errors, and does not see a wrong scale.
    """
    plain = ("--optim", "sgd", "--learning_rate", "0.05")
    return lambda folder, *options: tiny.arguments(folder, *plain, *options, recipe=without_dropout(tiny.recipe))


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """`alone(case)`: folder of the run in one process."""
    folder, done = tmp_path_factory.mktemp("alone"), set()

    def run(case):
        if case not in done:
            call(train, arguments(folder / case, *ALONE[case]))
            done.add(case)
        return folder / case / "full" / "seed_0"

    return run


@pytest.fixture(scope="module")
def together(tiny, arguments, alone, tmp_path_factory):
    """Folder of all runs in two processes, which do one after the other."""
    folder = tmp_path_factory.mktemp("together")
    rows = tiny.written({"rows": {"one": {}, "two": {"against": "one", "stages": {"pretrain": None}}}}, "rows")
    plan = {
        "runs": [arguments(folder / case, *options) for case, options in CASES.items()],
        "ablation": arguments(folder / "rows", "--rows", rows, "--max_steps", "2"),
        "folder": str(folder), "corpus": str(tiny.corpus), "features": str(tiny.features),
        "model": str(alone("even")), "numbers": [27, 26, 3, 1],
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    worker = Path(__file__).with_name("scale_out_worker.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, worker, folder / "plan.json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "datasets")},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def curve(run, stage="main"):
    """What is logged at each step that does not depend on how the questions were shared out."""
    entries = [entry for entry in log_of(run, stage) if "loss" in entry or "eval_loss" in entry]
    return [{"step": entry["step"]} | {name: entry[name] for name in ALIKE if name in entry} for entry in entries]


def assert_same_curve(found, expected):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)


def assert_same_answers(run, other):
    found, expected = (
        [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for folder in (run, other)
    )
    assert len(found) == 27
    for one, two in zip(found, expected, strict=True):
        assert one.pop("probabilities") == pytest.approx(two.pop("probabilities"), abs=1e-5)
        assert one == two
    assert metrics_of(run) == metrics_of(other)


# --- two processes against one


@pytest.mark.parametrize("case", ["even", "accumulation"])
def test_two_processes_train_as_one_does_at_the_same_global_batch(alone, together, case):
    """Accumulation in two processes too: four shares of one question each."""
    one, two = alone("even"), together / case / "full" / "seed_0"
    for stage in ("pretrain", "main"):
        assert_same_curve(curve(two, stage), curve(one, stage))
    assert len(curve(one)) == 2 * 9 + 2
    weights, expected = (load_file(run / "model.safetensors") for run in (two, one))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5, msg=name)
    assert_same_answers(two, one)


def test_only_the_questions_left_over_at_the_end_of_an_epoch_count_otherwise(alone, together):
    """
    A last batch that cannot be shared is filled up with questions from the epoch's start: that step is another one.
    Until then all is the same. (`--dataloader_drop_last True` would leave validation questions out as well.)
    """
    one, two = alone("uneven"), together / "uneven" / "full" / "seed_0"
    assert_same_curve(curve(two, "pretrain"), curve(one, "pretrain"))
    assert_same_curve(curve(two)[:4], curve(one)[:4])
    last, expected = curve(two)[4], curve(one)[4]
    assert last["step"] == expected["step"] == 5
    assert last["learning_rate"] == expected["learning_rate"]
    assert last["loss"] != pytest.approx(expected["loss"], rel=2e-4)


def test_checkpointing_activations_trains_in_two_processes(alone, together):
    one, two = alone("checkpointing"), together / "checkpointing" / "full" / "seed_0"
    assert_same_curve(curve(two), curve(one))


def test_two_processes_leave_one_folder(together):
    for case in CASES:
        names = {path.name for path in (together / case / "full" / "seed_0").iterdir()}
        assert {"model.safetensors", "metrics.json", "predictions.jsonl", "recipe.yaml"} <= names
        assert not any(name.endswith(".part") for name in names)
        assert list(json.loads((together / case / "results.json").read_text())) == ["full"]


def test_an_ablation_in_two_processes_does_each_row_in_both(together):
    entries = json.loads((together / "rows" / "table.json").read_text())
    assert [entry["row"] for entry in entries] == ["one", "two"]
    for row in ("one", "two"):
        run = together / "rows" / row / "seed_0"
        assert log_of(run)[0]["epoch"] == pytest.approx(4 / 36)  # a batch of 4, not of 4 in each
        assert not run.with_suffix(".lock").exists()
    assert (together / "rows" / "table.md").exists()


def test_every_process_gets_every_answer_once_and_in_order(tiny, together):
    first, second = (json.loads((together / f"answers_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    qids = tiny.data.questions["validation"]["qid"][:]
    whole = {qid: (label, probabilities) for qid, label, probabilities in first["27"]}
    for number, answers in first.items():
        assert [qid for qid, *_ in answers] == qids[: int(number)]
        for qid, label, probabilities in answers:
            assert (label, probabilities) == (whole[qid][0], pytest.approx(whole[qid][1], abs=1e-6))


def test_a_model_in_shards_becomes_whole_again(together):
    """accelerate has no FSDP on CPUs and trains in plain data parallel there; torch itself can shard a model."""
    assert all((together / f"unsharded_{rank}").exists() for rank in (0, 1))


# --- other ways to train


def two_steps(arguments, folder, *options):
    """Logged steps of a run of two steps, and how often a layer of the encoder computed in training."""
    calls = []

    def counted(layer, *args):
        calls.append(layer.training)
        return inside(layer, *args)

    inside = BertLayer.feed_forward_chunk
    with pytest.MonkeyPatch.context() as patch:
        if "--torch_compile" not in options:
            patch.setattr(BertLayer, "feed_forward_chunk", counted)
        call(train, arguments(folder, "--max_steps", "2", *options))
    return curve(folder / "full" / "seed_0"), sum(calls)


@pytest.fixture(scope="module")
def plain(arguments, tmp_path_factory):
    return two_steps(arguments, tmp_path_factory.mktemp("plain"))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # its new name is too new
def test_checkpointing_activations_computes_them_twice_and_changes_nothing(arguments, plain, tmp_path):
    found, calls = two_steps(arguments, tmp_path, "--gradient_checkpointing", "True")
    assert_same_curve(found, plain[0])
    assert calls == 2 * plain[1] > 0


@pytest.mark.skipif(not native_bf16(), reason="no bf16 instructions: a hundred times slower")
def test_bf16_trains(arguments, plain, tmp_path):
    found, _ = two_steps(arguments, tmp_path, "--bf16", "True")
    for entry, expected in zip(found, plain[0], strict=True):
        for name in ("loss", "qa_loss", "span_loss", "contrastive_loss"):
            if name in expected:
                assert entry[name] == pytest.approx(expected[name], rel=0.05)
                assert entry[name] != expected[name]


def test_a_compiled_model_trains(arguments, plain, tmp_path):
    """With the graphs of torch.compile, as they are; inductor's compiler takes a minute for this model on a CPU."""
    compiled = ("--torch_compile", "True", "--torch_compile_backend", "eager")
    found, _ = two_steps(arguments, tmp_path, *compiled)
    assert_same_curve(found, plain[0])
