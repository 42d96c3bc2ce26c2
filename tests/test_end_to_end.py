"""The whole way on a tiny corpus with tiny models: files, features, both stages, a resumed run, answers, saving."""

import math

import pytest
import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoProcessor,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

from modeling_videoqa import VideoQAForMultipleChoice
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.training import answer_accuracy, log_loss_parts, predict
from processing import (
    EpochCallback,
    FeatureStore,
    VideoQACollator,
    VideoQADataset,
    VideoQAProcessor,
    extract_features,
    load_videoqa,
)
from processing.mini_corpus import write_mini_corpus

WIDTH = 8
STAGES = pytest.mark.parametrize("swap_questions", [True, False], ids=["stage 1", "stage 2"])


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, WIDTH], depths=[1, 1], layer_type="basic"))


@pytest.fixture(scope="module")
def image_processor():
    return ConvNextImageProcessorPil(size={"shortest_edge": 32})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_mini_corpus(tmp_path_factory.mktemp("corpus") / "mini", 6, 2, progress=False)


@pytest.fixture(scope="module")
def data(corpus):
    return load_videoqa("mini", corpus)


@pytest.fixture(scope="module")
def features(corpus, backbone, image_processor, tmp_path_factory):
    videos = {path.stem: path for path in (corpus / "videos").iterdir()}
    folder = tmp_path_factory.mktemp("features")
    done = extract_features(videos, backbone, image_processor, folder, frame_rate=2.0, progress=False)
    return FeatureStore(done.directory)


@pytest.fixture(scope="module")
def make_model(tiny_encoder_dir):
    """`make_model(seed)`: a model around the tiny BERT, with its dropout."""

    def make(seed=0, **fields):
        set_seed(seed)
        return VideoQAForMultipleChoice.from_text_encoder(
            str(tiny_encoder_dir),
            **{"video_feature_size": WIDTH, "num_tuned_text_layers": 1, "max_text_length": 48, "frame_rate": 2.0}
            | fields,
        )

    return make


@pytest.fixture(scope="module")
def processor(make_model, tiny_encoder_dir):
    return VideoQAProcessor.from_config(make_model().config, tiny_encoder_dir)


@pytest.fixture(scope="module")
def datasets(processor, data, features):
    return {split: VideoQADataset(processor, rows, data.clips, features) for split, rows in data.questions.items()}


@pytest.fixture(scope="module")
def train(datasets):
    """`train(model, folder, ...)`: the stock trainer after a stage of six steps; an epoch has four."""

    def run(model, folder, swap_questions=False, resume=None, **settings):
        dataset = torch.utils.data.Subset(datasets["train"], range(0, 48, 3))  # 16 questions of all kinds
        pool = datasets["train"].question_pool() if swap_questions else None
        collator = VideoQACollator(datasets["train"].processor, question_pool=pool)
        settings = {
            "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0.1,
            "save_strategy": "no", "logging_steps": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
            "remove_unused_columns": False, "label_names": ["labels"], **settings,
        }  # fmt: skip
        trainer = Trainer(
            model=model,
            args=TrainingArguments(output_dir=str(folder), **settings),
            train_dataset=dataset,
            eval_dataset=datasets["validation"],
            data_collator=collator,
            compute_metrics=answer_accuracy,
            callbacks=[EpochCallback(collator)],
        )
        log_loss_parts(trainer)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def equal_weights(model, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in model.state_dict().items())


def test_from_files_to_answers(data, datasets, processor, make_model, train, features, tmp_path):
    model = make_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for stage, swap_questions in (("self_supervised", True), ("main", False)):
        trainer = train(model, tmp_path / stage, swap_questions)
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(logs) == 6
        for entry in logs:
            parts = [entry[name] for name in ("qa_loss", "span_loss", "contrastive_loss")]
            assert entry["loss"] == pytest.approx(
                sum(w * part for w, part in zip((1.0, 0.2, 0.1), parts, strict=True)), abs=1e-4
            )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == trained

    predictions = predict(model, processor, datasets["validation"], progress=False)
    figures = evaluate_predictions(predictions, data.questions["validation"])
    assert figures["questions"] == figures["questions_with_span"] == len(datasets["validation"])
    assert figures["missing"] == 0
    for name in ("accuracy", "miou", "asa"):
        assert 0 <= figures[name] <= 1
    for prediction in predictions.values():
        assert sum(prediction["probabilities"]) == pytest.approx(1)
        assert 0 <= prediction["start"] < prediction["end"]

    model.save_pretrained(tmp_path / "release")
    processor.save_pretrained(tmp_path / "release")
    loaded, loaded_processor = (
        cls.from_pretrained(tmp_path / "release") for cls in (AutoModelForMultipleChoice, AutoProcessor)
    )
    assert equal_weights(model, loaded)
    again = VideoQADataset(loaded_processor, data.questions["validation"], data.clips, features)
    for qid, prediction in predict(loaded, loaded_processor, again, progress=False).items():
        assert prediction["probabilities"] == pytest.approx(predictions[qid].pop("probabilities"), abs=1e-6)
        assert {name: prediction[name] for name in predictions[qid]} == predictions[qid]


def test_a_video_file_gives_what_its_features_give(
    corpus, data, datasets, make_model, backbone, image_processor, processor
):
    with_backbone = make_model(vision_model=backbone).eval()
    of_pictures = VideoQAProcessor.from_config(with_backbone.config, processor.tokenizer, image_processor)
    row = data.questions["validation"][0]
    clip = next(clip for clip in data.clips if clip["clip_id"] == row["clip_id"])
    batch = of_pictures(
        row["question"], row["choices"], clip["subtitles"], clip["objects"],
        video=corpus / "videos" / f"{row['clip_id']}.mp4",
    )  # fmt: skip
    of_features = processor.pad([datasets["validation"][0]])
    assert torch.equal(batch["frame_mask"], of_features["frame_mask"])
    with torch.no_grad():
        pictures, vectors = with_backbone(**batch), with_backbone(**of_features)
    torch.testing.assert_close(pictures.logits, vectors.logits, rtol=1e-4, atol=1e-5)


@STAGES
def test_the_trainer_evaluates_while_it_trains(make_model, train, datasets, tmp_path, swap_questions):
    trainer = train(make_model(), tmp_path, swap_questions, eval_strategy="epoch", per_device_eval_batch_size=3)
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["epoch"] for entry in evaluations] == [1.0, 1.5]
    for entry in evaluations:
        right = entry["eval_accuracy"] * len(datasets["validation"])
        assert right == pytest.approx(round(right))
        assert math.isfinite(entry["eval_loss"])


@STAGES
def test_a_resumed_run_ends_with_the_same_weights(make_model, train, tmp_path, swap_questions):
    whole = train(make_model(), tmp_path / "whole", swap_questions, save_strategy="steps", save_steps=1)
    assert whole.model.config.text_config.hidden_dropout_prob > 0
    losses = {entry["step"]: entry["loss"] for entry in whole.state.log_history if "loss" in entry}
    # In the middle of the first epoch, at its end, and in the middle of the second one.
    for step in (3, 4, 5):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed = train(make_model(seed=99), tmp_path / f"from_{step}", swap_questions, resume=checkpoint)
        assert resumed.state.global_step == 6
        assert {e["step"]: e["loss"] for e in resumed.state.log_history if "loss" in e} == losses
        assert equal_weights(resumed.model, whole.model), f"resumed from step {step}"


def test_a_worker_that_stays_for_all_epochs_changes_nothing(make_model, train, tmp_path):
    # Without dropout: torch draws one number an epoch less for workers that stay, and dropout draws from the same ones.
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    alone, helped = (
        train(make_model(text_config=no_dropout), tmp_path / f"{len(settings)}", swap_questions=True, **settings)
        for settings in ({}, workers)
    )
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (alone, helped)]
    assert losses[0] == losses[1]
    assert equal_weights(helped.model, alone.model)


def test_each_epoch_of_training_draws_anew(make_model, train, datasets, tmp_path):
    model, seen = make_model(), []
    hook = model.register_forward_pre_hook(
        lambda module, args, batch: seen.append(
            (batch["input_ids"][0], batch["labels"][0], batch["anchor_input_ids"][0])
        ),
        with_kwargs=True,
    )
    dataset = datasets["train"]
    trainer = train(model, tmp_path, per_device_train_batch_size=16, max_steps=3)
    hook.remove()
    assert trainer.state.epoch == 3
    # The first row of a batch is another question each time: it is told by its rows.
    collator = VideoQACollator(dataset.processor)
    for epoch, (input_ids, label, anchor) in enumerate(seen):
        collator.set_epoch(epoch)
        batch = collator([dataset[i] for i in range(0, 48, 3)])
        place = next(i for i, rows in enumerate(batch["input_ids"]) if torch.equal(rows, input_ids))
        assert batch["labels"][place] == label
        assert torch.equal(batch["anchor_input_ids"][place], anchor)
