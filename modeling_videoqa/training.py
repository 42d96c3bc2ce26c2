"""What the stock `Trainer` needs beside it: loss parts in the log, accuracy in evaluation, predictions with spans."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

from .quantization import cast_bf16

LOSS_PARTS = ("qa_loss", "span_loss", "contrastive_loss")


class _AveragedCallback(TrainerCallback):
    """Adds figures of each training step to every training log entry, averaged as `Trainer` averages the loss."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self._micro_batches: list[dict[str, torch.Tensor]] = []
        self._steps: list[dict[str, torch.Tensor]] = []

    def watched(self) -> torch.nn.Module:
        """The module whose forward pass is looked at."""
        raise NotImplementedError

    def figures(self, output, kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What is kept of a forward pass, scalars without a graph and without a device sync."""
        raise NotImplementedError

    def collect(self, module, args, kwargs, output) -> None:
        """Forward hook."""
        if module.training and (figures := self.figures(output, kwargs)):
            self._micro_batches.append(figures)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._micro_batches, self._steps = [], []  # of an earlier run that ended between two log entries
        self._hook = self.watched().register_forward_hook(self.collect, with_kwargs=True)

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
        if not names:
            return
        values = self.trainer.accelerator.reduce(torch.stack([means[name] for name in names]), reduction="mean")
        parts = dict(zip(names, values.tolist(), strict=True))
        logs.update(parts)
        state.log_history[-1].update(parts)


class LossPartsCallback(_AveragedCallback):
    """
    The parts of the loss in the training log. Use [`log_loss_parts`].
    """

    def watched(self) -> torch.nn.Module:
        return self.trainer.model

    def figures(self, output, kwargs) -> dict[str, torch.Tensor]:
        if getattr(output, "loss", None) is None:
            return {}
        return {name: getattr(output, name).detach() for name in LOSS_PARTS if getattr(output, name) is not None}


class HypothesisDistancesCallback(_AveragedCallback):
    """
    Figure 3 of the paper in the training log. Use [`log_hypothesis_distances`].
    """

    def watched(self) -> torch.nn.Module:
        return self.trainer.model.base_model  # it always returns the hypotheses

    def figures(self, output, kwargs) -> dict[str, torch.Tensor]:
        labels = kwargs.get("labels")
        if labels is None or output.hypotheses.shape[1] < 2:
            return {}
        distances = hypothesis_distances(output.hypotheses.detach(), labels)
        return {name: value.mean() for name, value in distances.items() if len(value)}


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


def hypothesis_distances(hypotheses: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    How far the right choice lies from the nearest wrong one among the pooled text hypotheses (Figure 3 of the paper).

    Args:
        hypotheses (`Tensor[batch_size, num_choices, size]`): Pooled text of each choice, at least two choices.
        labels (`Tensor[batch_size]`): Right choices; questions with -100 are left out.

    Returns:
        `dict`: `euclidean_distance` and `cosine_distance` (1 - cosine), each `Tensor[num_labelled]`; the nearest wrong
        choice is looked for in each of the two by itself.

    Example:

    ```python
    >>> import torch
    >>> distances = hypothesis_distances(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]]]), torch.tensor([0]))
    >>> {name: round(value.item(), 3) for name, value in distances.items()}
    {'euclidean_distance': 1.414, 'cosine_distance': 0.293}
    ```
    """
    known = labels >= 0
    hypotheses, labels = hypotheses[known].float(), labels[known]
    rows = torch.arange(len(labels), device=labels.device)
    right = hypotheses[rows, labels][:, None]
    euclidean = (hypotheses - right).norm(dim=-1)
    cosine = 1 - torch.cosine_similarity(hypotheses, right, dim=-1)
    found = {}
    for name, distances in (("euclidean_distance", euclidean), ("cosine_distance", cosine)):
        distances[rows, labels] = torch.inf
        found[name] = distances.amin(dim=1)
    return found


def log_hypothesis_distances(trainer: Trainer) -> None:
    """
    Log `euclidean_distance` and `cosine_distance` of [`hypothesis_distances`] beside `loss`: the mean over the training
    questions since the last entry, at no further cost.

    Args:
        trainer (`Trainer`): A stock trainer of [`VideoQAForMultipleChoice`].

    Example:

    ```python
    >>> log_hypothesis_distances(trainer)  # doctest: +SKIP
    ```
    """
    trainer.callback_handler.callbacks.insert(0, HypothesisDistancesCallback(trainer))


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


def unsharded(model):
    """
    What FSDP left of a model, put together again: for the next stage, for [`predict`] and for `save_pretrained`. All
    processes have to call it, and each gets the whole model.

    Args:
        model ([`VideoQAForMultipleChoice`]): After training; where it is not sharded, it comes back as it is.

    Returns:
        [`VideoQAForMultipleChoice`]
    """
    if not isinstance(model, FSDPModule):
        return model
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in model.state_dict().items()
    }
    # fully_shard put a class of its own before the model's.
    whole = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))(model.config)
    for name, config in getattr(model.base_model.text_encoder, "peft_config", {}).items():  # adapters are part of it
        whole.base_model.text_encoder.add_adapter(config, name)
    whole.load_state_dict(weights)
    return whole.to(model.device).train(model.training)


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
def predict(
    model,
    processor,
    dataset,
    batch_size: int = 16,
    progress: bool = True,
    subtitles: Callable[[str], Any] | None = None,
    bf16: bool = False,
) -> dict[str, dict[str, Any]]:
    """
    Answers and spans for every question of a data set. Under `accelerate launch` each process answers its share, and
    all of them get all the answers.

    Args:
        model ([`VideoQAForMultipleChoice`]): On any device.
        processor ([`VideoQAProcessor`]): Of the model.
        dataset ([`VideoQADataset`]): Questions.
        batch_size (`int`): Questions at a time.
        progress (`bool`): Show a bar.
        subtitles (`Callable`, *optional*): `clip_id -> sentences`, such as `dataset.subtitles`: adds the evidence.
        bf16 (`bool`): Compute in bfloat16, see [`native_bf16`]: on a CPU with a copy of the model that
            [`~modeling_videoqa.quantization.cast_bf16`] makes, on a GPU under autocast.

    Returns:
        `dict`: For each qid `{"label": int, "probabilities": list[float], "start": float, "end": float}`, seconds; with
        `subtitles` also `"evidence": list[str]`, the sentences of the span.
    """
    state = PartialState()
    was_training = model.training
    model.eval()
    answering, autocast = (cast_bf16(model), False) if bf16 and model.device.type == "cpu" else (model, bf16)
    # Every n-th question for each of n processes: no place is padded, so no question is counted twice.
    share = Subset(dataset, range(state.process_index, len(dataset), state.num_processes))
    loader = DataLoader(share, batch_size=batch_size, collate_fn=lambda examples: examples)
    answers = []
    for examples in tqdm(loader, desc="answering", disable=not (progress and state.is_local_main_process)):
        batch = processor.pad(examples).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            outputs = answering(**_without_targets(batch))
        places = [[str(n) for n in range(batch["input_ids"].shape[1])]] * len(examples)
        sentences = [subtitles(example["clip_id"]) for example in examples] if subtitles else None
        found = processor.post_process_multiple_choice(outputs, batch, places, sentences)
        answers += [(example["qid"], answer) for example, answer in zip(examples, found, strict=True)]
    model.train(was_training)
    shares = gather_object([answers])
    # In the order of the data set again, whatever the number of processes.
    answers = [share[place] for place in range(len(shares[0])) for share in shares if place < len(share)]
    return {qid: _prediction(answer, with_evidence=subtitles is not None) for qid, answer in answers}


def _prediction(answer, with_evidence: bool) -> dict[str, Any]:
    found = {
        "label": answer.index, "probabilities": answer.probabilities, "start": answer.start, "end": answer.end,
    }  # fmt: skip
    return found | {"evidence": [sentence.line for sentence in answer.evidence]} if with_evidence else found


def _without_targets(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    targets = ("labels", "start_positions", "end_positions", "anchor_input_ids")
    return {name: value for name, value in batch.items() if name not in targets}


def _means(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    names = {name for row in rows for name in row}
    return {name: torch.stack([row[name].float() for row in rows if name in row]).mean() for name in names}
