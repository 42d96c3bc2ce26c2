"""Text rows `[CLS] q [SEP] a [SEP] S [SEP] o [SEP]`, put together from pieces that were tokenized once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def text_rows(examples: Sequence[Mapping[str, Any]], tokenizer, max_text_length: int) -> dict[str, np.ndarray]:
    """
    All text rows of a batch by one gather: each is nine pieces out of one pool of tokens (METHOD.md, points 4 to 6).

    Args:
        examples (`Sequence[dict]`): `question_ids` (one list of tokens for all choices, or one for each), `choice_ids`
            (N lists), `subtitle_ids` and `object_ids` (T lists); N is the same in all.
        tokenizer (`PreTrainedTokenizerBase`): Whose [CLS], [SEP] and padding stand in the rows.
        max_text_length (`int`): The most tokens of a row.

    Returns:
        `dict`: `input_ids`, `attention_mask`, `token_type_ids` (B, N, T, L) int64, `segment_mask` (B, T) bool.
    """
    num_choices = len(examples[0]["choice_ids"])
    num_segments = max(len(example["subtitle_ids"]) for example in examples)
    pool: list[int] = [tokenizer.cls_token_id, tokenizer.sep_token_id]

    def add(pieces: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
        """Starts in the pool and lengths, `(size,)`; one piece for all stands for `size` equal ones."""
        starts, lengths = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for i, piece in enumerate(pieces):
            starts[i], lengths[i] = len(pool), len(piece)
            pool.extend(piece)
        if len(pieces) == 1:
            starts[:], lengths[:] = starts[0], lengths[0]
        return starts, lengths

    parts = {"question": [], "choice": [], "subtitle": [], "object": []}
    segment_mask = np.zeros((len(examples), num_segments), bool)
    for i, example in enumerate(examples):
        parts["question"].append(add(example["question_ids"], num_choices))
        parts["choice"].append(add(example["choice_ids"], num_choices))
        parts["subtitle"].append(add(example["subtitle_ids"], num_segments))
        parts["object"].append(add(example["object_ids"], num_segments))
        segment_mask[i, : len(example["subtitle_ids"])] = True
    rows = np.nonzero(np.broadcast_to(segment_mask[:, None], (len(examples), num_choices, num_segments)))
    starts, lengths = {}, {}
    for name, pairs in parts.items():
        where = rows[:2] if name in ("question", "choice") else rows[::2]
        starts[name], lengths[name] = (np.stack(column)[where] for column in zip(*pairs, strict=True))
    kept = truncate(lengths["question"], lengths["choice"], lengths["subtitle"], lengths["object"], max_text_length)
    one = np.ones_like(kept[0])
    sep = np.ones_like(kept[0])  # place of [SEP] in the pool
    question, choice, subtitle, object_ = kept
    sizes = np.stack([one, question, one, choice, one, subtitle, one, object_, (object_ > 0) * one], axis=1)
    origins = np.stack(
        [0 * one, starts["question"], sep, starts["choice"], sep, starts["subtitle"], sep, starts["object"], sep],
        axis=1,
    )
    row_sizes = sizes.sum(axis=1)
    flat, ends = sizes.ravel(), np.cumsum(sizes.ravel())
    source = np.repeat(origins.ravel() - (ends - flat), flat) + np.arange(ends[-1])
    types = np.repeat(np.tile([0, 0, 0, 1, 1, 2, 2, 3, 3], len(sizes)), flat)
    column = np.arange(ends[-1]) - np.repeat(np.cumsum(row_sizes) - row_sizes, row_sizes)
    place = (*(np.repeat(axis, row_sizes) for axis in rows), column)
    shape = (len(examples), num_choices, num_segments, int(row_sizes.max()))
    input_ids = np.full(shape, tokenizer.pad_token_id, np.int64)
    attention_mask, token_type_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    input_ids[place], attention_mask[place], token_type_ids[place] = np.array(pool)[source], 1, types
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "segment_mask": segment_mask,
    }


def truncate(question, choice, subtitle, object_, max_text_length: int) -> tuple:
    """
    Tokens of each part that stay in a row (METHOD.md, point 5): the objects are cut first, then the subtitle, then the
    question; the answer only where it alone exceeds the row. Without objects their [SEP] is left out.

    Args:
        question, choice, subtitle, object_ (`int array[num_rows]`): Tokens of each part.
        max_text_length (`int`): Tokens of a row, special tokens included.

    Returns:
        The same four arrays, cut.

    Example:

    ```python
    >>> truncate(*np.array([[4], [3], [5], [6]]), max_text_length=20)  # 4 + 12 tokens: a [SEP] and 3 are left
    (array([4]), array([3]), array([5]), array([3]))
    ```
    """
    room = max_text_length - 4  # [CLS] and the [SEP] after the question, the answer and the subtitle
    choice = np.minimum(choice, room)
    question = np.minimum(question, room - choice)
    subtitle = np.minimum(subtitle, room - choice - question)
    object_ = np.clip(room - 1 - choice - question - subtitle, 0, object_)
    return question, choice, subtitle, object_
