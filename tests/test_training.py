"""The stock Trainer on a tiny model: what it logs, that accumulation changes nothing, what it predicts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from modeling_videoqa import training
from modeling_videoqa.quantization import cast_bf16
from modeling_videoqa.training import (
    LOSS_PARTS,
    answer_accuracy,
    hypothesis_distances,
    log_hypothesis_distances,
    log_loss_parts,
    native_bf16,
    parameter_groups,
    predict,
    unsharded,
)

WEIGHTS = {"qa_loss": 1.0, "span_loss": 0.2, "contrastive_loss": 0.1}


def stack(examples):
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


@pytest.fixture
def make_questions(make_batch):
    """`make_questions(n)`: n questions as dicts of tensors, as different as random numbers make them."""

    def make(number, seed=0, **fields):
        lengths = [1 + i % 3 for i in range(number)]
        batch = make_batch(seed=seed, segments=lengths, **fields)
        return [{name: value[i] for name, value in batch.items()} for i in range(number)]

    return make


@pytest.fixture
def make_trainer(tmp_path):
    """A stock trainer with plain gradient descent, whose steps are as large as its gradients."""

    def make(model, questions, metrics=None, evaluated=None, callbacks=None, **arguments):
        settings = {
            "output_dir": str(tmp_path), "use_cpu": True, "report_to": [], "save_strategy": "no", "optim": "sgd",
            "learning_rate": 0.05, "lr_scheduler_type": "constant", "num_train_epochs": 1, "logging_steps": 1,
            "disable_tqdm": True, "seed": 0, "per_device_eval_batch_size": 4,
        }  # fmt: skip
        return Trainer(
            model=model,
            args=TrainingArguments(**settings | arguments),
            train_dataset=questions,
            eval_dataset=evaluated,
            data_collator=stack,
            compute_metrics=metrics,
            callbacks=callbacks,
        )

    return make


def training_logs(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


# --- the parts of the loss in the log


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "logging_steps"),
    [(2, 1, 1), (2, 1, 4), (2, 4, 1), (2, 4, 2), (4, 3, 1)],
)
def test_logged_parts_sum_to_the_logged_loss(
    batch_size, accumulation, logging_steps, make_model, make_questions, make_trainer
):
    # 22 questions: the last micro-batch is short, and the last step has fewer micro-batches than the others.
    questions = make_questions(22)
    for question in questions[::3]:  # some without a span
        question["start_positions"] = question["end_positions"] = torch.tensor(-100)
    trainer = make_trainer(
        make_model(), questions, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        logging_steps=logging_steps, num_train_epochs=2,
    )  # fmt: skip
    log_loss_parts(trainer)
    trainer.train()
    logs = training_logs(trainer)
    assert len(logs) >= 2
    for entry in logs:
        total = sum(WEIGHTS[name] * entry[name] for name in LOSS_PARTS)
        assert total == pytest.approx(entry["loss"], rel=1e-4)
        assert entry["qa_loss"] > 0
    assert len({entry["loss"] for entry in logs}) == len(logs)


def test_logged_parts_are_the_means_over_the_micro_batches(make_model, make_questions, make_trainer):
    model, questions = make_model(), make_questions(8)
    expected = [model(**stack(questions[i : i + 2])) for i in range(0, 8, 2)]
    trainer = make_trainer(
        model, questions, per_device_train_batch_size=2, gradient_accumulation_steps=4, learning_rate=0.0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    log_loss_parts(trainer)
    trainer.train()
    (entry,) = training_logs(trainer)
    for name in LOSS_PARTS:
        assert entry[name] == pytest.approx(torch.stack([output[name] for output in expected]).mean().item(), rel=1e-5)


def test_only_parts_that_are_trained_are_logged(make_model, make_questions, make_trainer):
    trainer = make_trainer(make_model(span_loss_weight=0), make_questions(4), per_device_train_batch_size=2)
    log_loss_parts(trainer)
    trainer.train()
    for entry in training_logs(trainer):
        assert set(LOSS_PARTS) & set(entry) == {"qa_loss", "contrastive_loss"}


def test_evaluation_in_between_does_not_enter_the_log(make_model, make_questions, make_trainer):
    questions = make_questions(8)
    trainer = make_trainer(
        make_model(), questions, evaluated=make_questions(5, seed=9), per_device_train_batch_size=2, logging_steps=4,
        eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    log_loss_parts(trainer)
    trainer.train()
    (entry,) = training_logs(trainer)
    assert sum(WEIGHTS[name] * entry[name] for name in LOSS_PARTS) == pytest.approx(entry["loss"], rel=1e-4)
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 4
    assert not any(set(LOSS_PARTS) & set(entry) for entry in evaluations)


def test_whoever_reports_the_log_sees_the_parts(make_model, make_questions, make_trainer):
    seen = []

    class Report(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    trainer = make_trainer(make_model(), make_questions(4), callbacks=[Report()], per_device_train_batch_size=2)
    log_loss_parts(trainer)
    trainer.train()
    assert [set(LOSS_PARTS) <= set(logs) for logs in seen] == [True, True, False]  # the last is the summary


def test_a_second_run_of_the_same_trainer_starts_afresh(make_model, make_questions, make_trainer):
    trainer = make_trainer(make_model(), make_questions(6), per_device_train_batch_size=2, logging_steps=2)
    log_loss_parts(trainer)
    for _ in range(2):
        trainer.train()  # three steps: the third is in no entry
        (entry,) = training_logs(trainer)
        assert sum(WEIGHTS[name] * entry[name] for name in LOSS_PARTS) == pytest.approx(entry["loss"], rel=1e-4)


# --- distances between the hypotheses, Figure 3


def test_hypothesis_distances_by_hand():
    hypotheses = torch.tensor(
        [
            [[3.0, 0.0], [3.0, 4.0], [8.0, 0.0]],
            [[1.0, 1.0], [4.0, 5.0], [1.0, 2.0]],
            [[9.0, 9.0], [9.0, 9.0], [9.0, 9.0]],  # without a label
        ]
    )
    found = hypothesis_distances(hypotheses, torch.tensor([0, 2, -100]))
    # The nearest is another one in each of the two distances.
    # First, from (3, 0): (3, 4) lies 4 away, cosine 3/5; (8, 0) lies 5 away in the same direction.
    # Second, from (1, 2): (1, 1) lies 1 away, cosine 3/sqrt(10); (4, 5) lies sqrt(18) away, cosine 14/sqrt(205).
    assert found["euclidean_distance"].tolist() == pytest.approx([4.0, 1.0])
    assert found["cosine_distance"].tolist() == pytest.approx([0.0, 1 - 14 / 205**0.5], abs=1e-6)
    assert 14 / 205**0.5 > 3 / 10**0.5
    nothing = hypothesis_distances(hypotheses[2:], torch.tensor([-100]))
    assert [len(values) for values in nothing.values()] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hypothesis_distances_are_float32_and_leave_their_input_as_it_is(dtype):
    hypotheses = torch.randn(4, 5, 6).to(dtype)
    before = hypotheses.clone()
    for values in hypothesis_distances(hypotheses, torch.tensor([0, 1, 2, 3])).values():
        assert values.dtype == torch.float32
        assert (values > 0).all()
        assert torch.isfinite(values).all()
    assert torch.equal(hypotheses, before)


def distances_of(model, questions):
    """Distances of the questions under a model as it is."""
    batch, seen = stack(questions), []
    hook = model.base_model.register_forward_hook(lambda module, args, output: seen.append(output.hypotheses))
    with torch.no_grad():
        model(**batch)
    hook.remove()
    return hypothesis_distances(*seen, batch["labels"])


def test_distances_are_logged_as_means_over_the_questions(make_model, make_questions, make_trainer):
    model, questions = make_model(), make_questions(8)
    expected = distances_of(model, questions)
    trainer = make_trainer(
        model, questions, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=2,
        learning_rate=0.0, train_sampling_strategy="sequential", evaluated=make_questions(5, seed=9),
        eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    log_loss_parts(trainer)
    log_hypothesis_distances(trainer)
    trainer.train()
    (entry,) = training_logs(trainer)
    for name, values in expected.items():
        assert entry[name] == pytest.approx(values.mean().item(), rel=1e-4)
    assert sum(WEIGHTS[name] * entry[name] for name in LOSS_PARTS) == pytest.approx(entry["loss"], rel=1e-4)
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluations
    assert not any(set(expected) & set(entry) for entry in evaluations)


def test_whoever_reports_the_log_sees_the_distances_and_the_hooks_go_with_the_training(
    make_model, make_questions, make_trainer
):
    seen, model = [], make_model(contrastive_loss_weight=0)  # the row of Figure 3 without it has them too

    class Report(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(set(logs))

    trainer = make_trainer(model, make_questions(4), callbacks=[Report()], per_device_train_batch_size=2)
    log_hypothesis_distances(trainer)
    trainer.train()
    names = {"euclidean_distance", "cosine_distance"}
    assert [names <= logs for logs in seen] == [True, True, False]  # the last is the summary
    assert not model.base_model._forward_hooks


def test_a_batch_without_labels_adds_no_distance(make_model, make_questions, make_trainer):
    questions = make_questions(4)
    for question in questions[2:]:
        question["labels"] = torch.tensor(-100)
    expected = distances_of(make_model(), questions[:2])["euclidean_distance"].mean()
    trainer = make_trainer(
        make_model(), questions, per_device_train_batch_size=2, logging_steps=2, learning_rate=0.0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    log_hypothesis_distances(trainer)
    trainer.train()
    (entry,) = training_logs(trainer)
    assert entry["euclidean_distance"] == pytest.approx(expected.item(), rel=1e-4)


# --- groups of parameters; models that FSDP did not touch


def test_every_trained_parameter_is_in_one_group(make_model):
    model = make_model(num_tuned_text_layers=1)
    encoder, head = parameter_groups(model, 1e-4, 1e-3)
    assert (encoder["lr"], head["lr"]) == (1e-4, 1e-3)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    places = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [{places[id(parameter)] for parameter in group["params"]} for group in (encoder, head)]
    assert found[0] | found[1] == trained
    assert found[0] == {name for name in trained if "text_encoder" in name}
    assert found[0]
    assert found[1]


def test_a_model_that_is_whole_stays_itself(make_model):
    model = make_model()
    assert unsharded(model) is model


# --- accumulation


def test_accumulation_changes_no_weight(make_model, make_questions, make_trainer):
    """A forward that ignored `num_items_in_batch` behind `**kwargs` would take steps four times as large."""
    questions = make_questions(16)
    weights = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        trainer = make_trainer(
            make_model(), questions, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation
        )
        assert trainer.model_accepts_loss_kwargs is False
        trainer.train()
        assert trainer.state.global_step == 2
        weights.append(trainer.model.state_dict())
    start = make_model().state_dict()
    assert any(not torch.allclose(weights[0][name], start[name], atol=1e-3) for name in start)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_a_step_of_the_trainer_is_a_step_by_hand(make_model, make_questions, make_trainer):
    questions = make_questions(4)
    trainer = make_trainer(
        make_model(), questions, per_device_train_batch_size=1, gradient_accumulation_steps=4, max_grad_norm=0,
    )  # fmt: skip
    trainer.train()
    model = make_model()
    model(**stack(questions)).loss.backward()
    for name, parameter in model.named_parameters():
        expected = parameter - 0.05 * parameter.grad
        torch.testing.assert_close(trainer.model.get_parameter(name), expected, rtol=1e-5, atol=1e-5, msg=name)


# --- evaluation


def test_evaluation_has_a_loss_and_an_accuracy(make_model, make_questions, make_trainer):
    model, questions = make_model(), make_questions(10)
    trainer = make_trainer(model, [], metrics=answer_accuracy, evaluated=questions)
    found = trainer.evaluate()
    with torch.inference_mode():
        output = model.eval()(**stack(questions))
    labels = stack(questions)["labels"]
    assert found["eval_accuracy"] == pytest.approx((output.logits.argmax(dim=1) == labels).float().mean().item())
    assert found["eval_loss"] > 0


def test_predictions_are_the_logits_of_the_answer_and_of_the_span(make_model, make_questions, make_trainer):
    model, questions = make_model(), make_questions(6)
    for with_targets in (True, False):
        if not with_targets:
            for question in questions:
                for name in ("labels", "start_positions", "end_positions", "anchor_input_ids"):
                    del question[name]
        predictions = make_trainer(model, []).predict(questions).predictions
        with torch.inference_mode():
            output = model.eval()(**stack(questions))
        assert len(predictions) == 3
        for found, expected in zip(predictions, (output.logits, output.start_logits, output.end_logits), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[0, 1, 2], [5, 1, 2], [0, 9, 2], [0, 0, 1]], [2, 0, 1, 0], {"accuracy": 0.75}),
        ([[0, 1, 2], [5, 1, 2], [0, 9, 2]], [2, -100, 0], {"accuracy": 0.5}),  # a question without a label
        ([[0, 1, 2]], [-100], {}),
    ],
)
def test_answer_accuracy_by_hand(logits, labels, expected):
    logits, labels = np.array(logits), np.array(labels)
    assert answer_accuracy(EvalPrediction(predictions=logits, label_ids=labels)) == expected
    spans = (np.zeros((len(labels), 3)),) * 2
    assert answer_accuracy(EvalPrediction(predictions=(logits, *spans), label_ids=labels)) == expected


# --- small things


def test_native_bf16_is_yes_or_no(monkeypatch, tmp_path):
    assert isinstance(native_bf16(), bool)
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: False)
    for flags, expected in (("fpu avx512f avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx2 avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"model name : x\nflags : {flags}\n", encoding="utf-8")
        monkeypatch.setattr(training, "Path", lambda _: tmp_path / "cpuinfo")
        assert native_bf16() is expected
    monkeypatch.setattr(training, "Path", lambda _: tmp_path / "nothing")  # not Linux
    assert native_bf16() is False


class Batch(dict):
    def to(self, device):
        return self


class Answers:
    """The two methods of a processor that `predict` calls."""

    def pad(self, examples):
        return Batch(stack([{name: value for name, value in row.items() if name != "qid"} for row in examples]))

    def post_process_multiple_choice(self, outputs, batch, choices, subtitles=None):
        assert [len(places) for places in choices] == [outputs.logits.shape[1]] * len(outputs.logits)
        for logits in outputs.logits:
            probabilities = logits.softmax(dim=0).tolist()
            yield SimpleNamespace(index=int(logits.argmax()), probabilities=probabilities, start=1.0, end=2.5)


@pytest.mark.parametrize("training_mode", [True, False])
def test_predict_answers_every_question_without_looking_at_its_targets(training_mode, make_model, make_questions):
    model, questions = make_model().train(training_mode), make_questions(7)
    expected = model(**stack(questions)).logits.argmax(dim=1).tolist()
    rows = [question | {"qid": f"q{i}"} for i, question in enumerate(questions)]
    seen = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(set(kwargs)), with_kwargs=True)
    found = predict(model, Answers(), rows, batch_size=3, progress=False)
    assert model.training is training_mode
    assert list(found) == [f"q{i}" for i in range(7)]
    assert [answer["label"] for answer in found.values()] == expected
    assert all(answer.keys() == {"label", "probabilities", "start", "end"} for answer in found.values())
    assert all(sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5) for answer in found.values())
    assert len(seen) == 3
    assert not set().union(*seen) & {"labels", "start_positions", "end_positions", "anchor_input_ids"}


def test_predict_in_bf16_on_a_cpu_answers_with_a_cast_copy(make_model, make_questions):
    model, questions = make_model(), make_questions(7)
    rows = [question | {"qid": f"q{i}"} for i, question in enumerate(questions)]
    found, exact = (predict(model, Answers(), rows, progress=False, bf16=bf16) for bf16 in (True, False))
    assert found == predict(cast_bf16(model), Answers(), rows, progress=False)
    assert found != exact
    assert model.dtype is torch.float32
