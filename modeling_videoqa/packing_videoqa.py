"""Rows of text -> dense blocks without padding -> rows: the fast path through any text encoder."""

from collections.abc import Callable

import torch
from torch import Tensor

# What starting one more block costs, in tokens of encoding. The time of benchmarks/cpu.py is flat between 64 and 512,
# so it is a constant and not an option.
BLOCK_OVERHEAD = 128
# Largest number of tokens in a block: on a CPU what keeps the activations of a layer in the cache, on a GPU what fills
# the chip.
MAX_BLOCK_TOKENS = {"cpu": 2048}
DEFAULT_MAX_BLOCK_TOKENS = 65536


def plan_blocks(lengths: list[int], max_block_tokens: int, overhead: int = BLOCK_OVERHEAD) -> list[list[int]]:
    """
    Group rows of nearly equal length so that the encoder sees next to no padding.

    The rows are sorted by length; the cuts between blocks minimise the number of encoded tokens, padding included, plus
    `overhead` for each block (dynamic programming over the distinct lengths, of which there are at most as many as
    tokens in a row). Groups over `max_block_tokens` are then divided evenly.

    Args:
        lengths (`list[int]`): Tokens of each row, all positive.
        max_block_tokens (`int`): Limit of rows x longest row of one block; a block has at least one row.
        overhead (`int`): Cost of one more block, in tokens.

    Returns:
        `list[list[int]]`: Row numbers of each block, every row once, longest rows first.

    Example:

    ```python
    >>> plan_blocks([3, 40, 39, 3], max_block_tokens=1000, overhead=8)
    [[1, 2], [0, 3]]
    ```
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    # starts[k]: first place in `order` with the k-th distinct length; a block never begins anywhere else.
    starts = [0] + [i for i in range(1, len(order)) if lengths[order[i]] != lengths[order[i - 1]]] + [len(order)]
    best, previous = [0] + [0] * (len(starts) - 1), [0] * len(starts)
    for stop in range(1, len(starts)):
        costs = [
            best[start] + lengths[order[starts[start]]] * (starts[stop] - starts[start]) + overhead
            for start in range(stop)
        ]
        previous[stop] = min(range(stop), key=costs.__getitem__)
        best[stop] = costs[previous[stop]]
    blocks, stop = [], len(starts) - 1
    while stop > 0:
        start = previous[stop]
        rows = order[starts[start] : starts[stop]]
        pieces = -(-len(rows) // max(max_block_tokens // lengths[rows[0]], 1))
        size = -(-len(rows) // pieces)
        blocks[:0] = [rows[i : i + size] for i in range(0, len(rows), size)]
        stop = start
    return blocks


def encode_rows(
    encode: Callable[[Tensor, Tensor | None, Tensor], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor,
) -> Tensor:
    """
    Encode rows of text block by block, each block cut to its own longest row.

    The result equals that of encoding all rows in one padded batch; only the work on padding is left out.

    Args:
        encode: `(input_ids, attention_mask or None, token_type_ids)`, each `(rows, length)`, -> `(rows, hidden_size)`.
            The mask is `None` for a block without padding.
        input_ids, attention_mask, token_type_ids (`Tensor[num_rows, max_text_length]`):
            The rows, each with at least one token; padding on the right.

    Returns:
        `Tensor[num_rows, hidden_size]`: in the order of the rows.
    """
    places = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
    lengths = (attention_mask.ne(0) * places).amax(dim=1).tolist()
    limit = MAX_BLOCK_TOKENS.get(input_ids.device.type, DEFAULT_MAX_BLOCK_TOKENS)
    blocks = plan_blocks(lengths, limit)
    encoded = []
    for rows in blocks:
        longest, shortest = lengths[rows[0]], lengths[rows[-1]]
        index = torch.tensor(rows, device=input_ids.device)
        mask = None if longest == shortest else attention_mask[index, :longest]
        encoded.append(encode(input_ids[index, :longest], mask, token_type_ids[index, :longest]))
    inverse = torch.empty(len(lengths), dtype=torch.long)
    inverse[torch.tensor([row for rows in blocks for row in rows])] = torch.arange(len(lengths))
    return torch.cat(encoded)[inverse.to(input_ids.device)]


def lay_end_to_end(
    input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    The tokens of all rows one behind the other, without a padded place.

    Args:
        input_ids, attention_mask, token_type_ids (`Tensor[num_rows, max_text_length]`): Padding on the right.

    Returns:
        Token ids, token types and places in their row, each `Tensor[num_tokens]`, and where each row begins and the
        last one ends, `IntTensor[num_rows + 1]`.

    Example:

    ```python
    >>> rows = torch.tensor([[7, 8, 0], [9, 0, 0]])
    >>> ids, types, places, begins = lay_end_to_end(rows, rows.ne(0), torch.zeros_like(rows))
    >>> ids.tolist(), places.tolist(), begins.tolist()
    ([7, 8, 9], [0, 1, 0], [0, 2, 3])
    ```
    """
    valid = attention_mask.bool()
    places = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    begins = torch.nn.functional.pad(valid.sum(dim=1).cumsum(dim=0), (1, 0)).to(torch.int32)
    return input_ids[valid], token_type_ids[valid], places[valid], begins
