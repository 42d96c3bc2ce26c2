"""What the stock `Trainer` needs beside it: loss parts in the log, accuracy in evaluation, predictions with spans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

LOSS_PARTS = ("qa_loss", "span_loss", "contrastive_loss")


class LossPartsCallback(TrainerCallback):
    """
    Adds each part of the loss to every training log entry, averaged exactly as `Trainer` averages the loss.

    Use [`log_loss_parts`].
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._micro_batches: list[dict[str, torch.Tensor]] = []
        self._steps: list[dict[str, torch.Tensor]] = []

    def collect(self, module, args, output) -> None:
        """Forward hook: keep the parts of a training step, without its graph and without a device sync."""
        if module.training and getattr(output, "loss", None) is not None:
            parts = {name: getattr(output, name) for name in LOSS_PARTS if getattr(output, name) is not None}
            self._micro_batches.append({name: value.detach() for name, value in parts.items()})

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._micro_batches, self._steps = [], []  # of an earlier run that ended between two log entries
        self._hook = self.trainer.model.register_forward_hook(self.collect)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self._hook.remove()  # the next stage brings a callback of its own

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self._steps.append(_means(self._micro_batches))
        self._micro_batches = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if not logs or "loss" not in logs or not self._steps:
            return
        means = _means(self._steps)
        self._steps = []
        names = sorted(means)
        values = self.trainer.accelerator.reduce(torch.stack([means[name] for name in names]), reduction="mean")
        parts = dict(zip(names, values.tolist(), strict=True))
        logs.update(parts)
        state.log_history[-1].update(parts)


def log_loss_parts(trainer: Trainer) -> None:
    """
    Log `qa_loss`, `span_loss` and `contrastive_loss` beside `loss`, right under gradient accumulation and several
    processes, in every place that `report_to` names.

    Args:
        trainer (`Trainer`): A stock trainer of [`VideoQAForMultipleChoice`].

    Example:

    ```python
    >>> trainer = Trainer(model=model, args=args, train_dataset=dataset, data_collator=collator)  # doctest: +SKIP
    >>> log_loss_parts(trainer)  # doctest: +SKIP
    ```
    """
    # First, so that the callbacks which report to TensorBoard and others see the parts too.
    trainer.callback_handler.callbacks.insert(0, LossPartsCallback(trainer))


def parameter_groups(model, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
    """
    Parameters for an optimizer with one learning rate for the pre-trained encoder and another for all that is new.

    Args:
        model ([`VideoQAForMultipleChoice`]): Frozen parameters are left out.
        learning_rate (`float`): Of the text encoder.
        head_learning_rate (`float`): Of attention, GRUs and classifiers.

    Returns:
        `list[dict]`: Two groups for a torch optimizer; hand it to the stock trainer as `optimizers=(optimizer, None)`.

    Example:

    ```python
    >>> optimizer = torch.optim.AdamW(parameter_groups(model, 2e-4, 1e-3))  # doctest: +SKIP
    ```
    """
    groups: dict[bool, list] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["text_encoder." in name].append(parameter)
    return [{"params": groups[True], "lr": learning_rate}, {"params": groups[False], "lr": head_learning_rate}]


def answer_accuracy(prediction) -> dict[str, float]:
    """
    `compute_metrics` for `Trainer`: accuracy over the questions with a label.

    Args:
        prediction (`EvalPrediction`): Logits first, labels as label ids.

    Returns:
        `dict`: `accuracy`.
    """
    logits, labels = prediction.predictions, prediction.label_ids
    logits = logits[0] if isinstance(logits, tuple) else logits
    known = labels >= 0
    return {"accuracy": float((logits.argmax(axis=1)[known] == labels[known]).mean())} if known.any() else {}


def native_bf16() -> bool:
    """
    Whether this machine computes in bfloat16 itself. A CPU without the instructions takes a hundred times longer.

    Returns:
        `bool`
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


@torch.inference_mode()
def predict(model, processor, dataset, batch_size: int = 16, progress: bool = True) -> dict[str, dict[str, Any]]:
    """
    Answers and spans for every question of a data set.

    Args:
        model ([`VideoQAForMultipleChoice`]): On any device.
        processor ([`VideoQAProcessor`]): Of the model.
        dataset ([`VideoQADataset`]): Questions.
        batch_size (`int`): Questions at a time.
        progress (`bool`): Show a bar.

    Returns:
        `dict`: For each qid `{"label": int, "probabilities": list[float], "start": float, "end": float}`, seconds.
    """
    was_training = model.training
    model.eval()
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=lambda examples: examples)
    predictions = {}
    for examples in tqdm(loader, desc="answering", disable=not progress):
        batch = processor.pad(examples).to(model.device)
        outputs = model(**_without_targets(batch))
        places = [[str(n) for n in range(batch["input_ids"].shape[1])]] * len(examples)
        for example, answer in zip(
            examples, processor.post_process_multiple_choice(outputs, batch, places), strict=True
        ):
            predictions[example["qid"]] = {
                "label": answer.index,
                "probabilities": answer.probabilities,
                "start": answer.start,
                "end": answer.end,
            }
    model.train(was_training)
    return predictions


def _without_targets(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    targets = ("labels", "start_positions", "end_positions", "anchor_input_ids")
    return {name: value for name, value in batch.items() if name not in targets}


def _means(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    names = {name for row in rows for name in row}
    return {name: torch.stack([row[name].float() for row in rows if name in row]).mean() for name in names}
