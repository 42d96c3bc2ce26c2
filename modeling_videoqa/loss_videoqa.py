"""The three losses of Kim et al. 2021 and their weighted sum, as pure functions."""

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """
    Cross-entropy over the answer choices, eq. 6.

    Args:
        logits (`Tensor[batch_size, num_choices]`): Sum of the text and the visual score of each choice.
        labels (`Tensor[batch_size]`): Place of the right choice; -100 for a question without a label.

    Returns:
        `Tensor[]`: Mean over the questions with a label, 0 if there is none.

    Example:

    ```python
    >>> import torch
    >>> answer_loss(torch.zeros(1, 5), torch.tensor([2]))  # log 5
    tensor(1.6094)
    ```
    """
    # Computed in float32: under bf16 autocast a sum of exponentials keeps only two or three digits.
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def span_loss(start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """
    Temporal localization, eq. 7: mean of the cross-entropies of the first and of the last segment of the span.

    Args:
        start_logits, end_logits (`Tensor[batch_size, num_segments]`): Scores of the segments, -inf where padded.
        start_positions, end_positions (`Tensor[batch_size]`):
            First and last segment of the annotated span; -100 for a question without one, which adds nothing.

    Returns:
        `Tensor[]`: Mean over the questions with a span, 0 if there is none.
    """
    return (answer_loss(start_logits, start_positions) + answer_loss(end_logits, end_positions)) / 2


def contrastive_loss(hypotheses: Tensor, anchor: Tensor, labels: Tensor) -> Tensor:
    """
    Supervised contrastive loss, eq. 8 and 9: the masked right answer must lie nearest to the right answer.

    Args:
        hypotheses (`Tensor[batch_size, num_choices, 2 * hidden_size]`): Pooled text of each choice.
        anchor (`Tensor[batch_size, 2 * hidden_size]`): Pooled text of the masked row of the right choice.
        labels (`Tensor[batch_size]`): Place of the right choice; -100 adds nothing.

    Returns:
        `Tensor[]`: Mean over the questions with a label, 0 if there is none.
    """
    scores = torch.einsum("bnd,bd->bn", hypotheses.float(), anchor.float())
    return answer_loss(scores, labels)


def weighted_sum(losses: dict[str, Tensor | None], weights: dict[str, float]) -> Tensor | None:
    """
    Total loss, eq. 10.

    Args:
        losses (`dict[str, Tensor]`): Loss parts by name; `None` for a part that was not computed.
        weights (`dict[str, float]`): Weight of each part.

    Returns:
        `Tensor[]`, or `None` if no part was computed.
    """
    parts = [weights[name] * loss for name, loss in losses.items() if loss is not None]
    return torch.stack(parts).sum() if parts else None
