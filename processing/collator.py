"""Examples -> training batches: padding, masked rows (contrastive), swapped questions (pre-training)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, TrainerCallback

from .processing_videoqa import VideoQAProcessor


@dataclass(frozen=True)
class QuestionPool:
    """
    All questions that pre-training may draw from.

    Args:
        question_ids (`list[list[int]]`): Tokens of each question.
        clip_ids (`list[str]`): Clip of each question.
    """

    question_ids: list[list[int]]
    clip_ids: list[str]


class VideoQACollator:
    """
    Collator for the stock `Trainer`.

    Every random draw depends only on (seed, epoch, qid) (METHOD.md, points 7 and 8): not on the batch, the order, the
    workers or a resumed run. Add [`EpochCallback`] to the trainer, which tells the epoch.

    Args:
        processor ([`VideoQAProcessor`]): Pads and puts the rows together.
        contrastive (`bool`): Add `anchor_input_ids`, the masked row of the correct answer.
        question_pool ([`QuestionPool`], *optional*): Stage 1: predict the question instead of the answer.
        seed (`int`): Seed of all draws.

    Example:

    ```python
    >>> collator = VideoQACollator(processor, contrastive=True, seed=0)  # doctest: +SKIP
    >>> batch = collator([dataset[0], dataset[1]])  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        processor: VideoQAProcessor,
        contrastive: bool = True,
        question_pool: QuestionPool | None = None,
        seed: int = 0,
    ):
        self.processor = processor
        self.contrastive = contrastive
        self.question_pool = question_pool
        self.seed = seed
        # In shared memory, so that loader workers which outlive an epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch (from 0) that the next batches belong to."""
        self._epoch.fill_(epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """
        Args:
            examples (`Sequence[dict]`): Items of [`VideoQADataset`].

        Returns:
            [`BatchFeature`]: The batch of [`VideoQAProcessor`], with `anchor_input_ids` if `contrastive`.
        """
        if self.question_pool is not None:
            examples = [self._swap_questions(example) for example in examples]
        batch = self.processor.pad(examples)
        if self.contrastive:
            batch["anchor_input_ids"] = self._mask(batch, examples)
        return batch

    def _generator(self, qid: str, purpose: str) -> np.random.Generator:
        text = f"{self.seed}/{int(self._epoch)}/{qid}/{purpose}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))

    def _mask(self, batch: BatchFeature, examples: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Masked rows of the correct choices, `(batch_size, num_segments, max_text_length)` (point 7)."""
        tokenizer, limit = self.processor.tokenizer, self.processor.max_text_length
        correct = batch["input_ids"][torch.arange(len(examples)), batch["labels"].clamp(min=0)].clone()
        draws = torch.ones(correct.shape, dtype=torch.float64)
        for row, example in zip(draws, examples, strict=True):
            # Drawn for the clip's own segments and the longest possible row: padding changes no draw.
            size = len(example["segment_times"])
            drawn = self._generator(example["qid"], "mask").random((size, limit))
            row[:size] = torch.from_numpy(drawn[:, : row.shape[1]])
        special = torch.zeros_like(correct, dtype=torch.bool)
        for token in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
            special |= correct == token
        correct[(draws < self.processor.mask_probability) & ~special] = tokenizer.mask_token_id
        return correct

    def _swap_questions(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """The choices become questions: the clip's own and others from other clips; the answer is removed (point 8)."""
        pool, num_choices = self.question_pool, len(example["choice_ids"])
        generator = self._generator(example["qid"], "questions")
        own = example["question_ids"][0]
        drawn: dict[int, list[int]] = {}
        # Bounded: where other clips hold too few different questions, the loop would never end.
        for _ in range(1000):
            if len(drawn) == num_choices - 1:
                break
            i = int(generator.integers(len(pool.question_ids)))
            # A question in the same words would be a second right answer.
            fits = pool.clip_ids[i] != example["clip_id"] and pool.question_ids[i] != own
            if fits and pool.question_ids[i] not in drawn.values():
                drawn.setdefault(i, pool.question_ids[i])
        else:
            raise ValueError(
                f"Pre-training found only {len(drawn)} questions of other clips for question {example['qid']!r}. "
                f"Allowed: at least {num_choices - 1} that differ in their words. Use a larger data set or leave "
                "stage 1 out."
            )
        place = int(generator.integers(num_choices))
        questions = list(drawn.values())
        questions.insert(place, own)
        mask = [[self.processor.tokenizer.mask_token_id]]
        return {**example, "question_ids": questions, "choice_ids": mask * num_choices, "labels": place}


class EpochCallback(TrainerCallback):
    """
    Tells a collator the epoch, in an unbroken run and in a resumed one alike.

    Args:
        collator ([`VideoQACollator`]): The trainer's collator.
    """

    def __init__(self, collator: VideoQACollator):
        self.collator = collator

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.collator.set_epoch(int(state.epoch or 0))
