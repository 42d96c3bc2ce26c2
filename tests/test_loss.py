"""The losses on values worked out by hand, and what holds of them whatever the numbers are."""

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_videoqa import loss_videoqa
from modeling_videoqa.loss_videoqa import answer_loss, contrastive_loss, span_loss, weighted_sum

INF = torch.inf
scores = st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5)


def close(value):
    return pytest.approx(value, rel=1e-6)


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(loss_videoqa) == 0


# --- the answer, eq. 6


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[0.0, 0.0]], [0], log(2)),
        ([[0.0, log(3)]], [1], log(4 / 3)),  # p = 3/4
        ([[0.0, log(3)]], [0], log(4)),
        ([[0.0, log(3)], [log(2), 0.0]], [1, 1], (log(4 / 3) + log(3)) / 2),
        ([[0.0, log(3)], [log(2), 0.0]], [-100, 1], log(3)),  # the mean is over the questions with a label
        ([[7.0] * 5], [4], log(5)),
        ([[100.0, 0.0]], [1], 100.0),
    ],
)
def test_answer_loss_by_hand(logits, labels, expected):
    assert answer_loss(torch.tensor(logits), torch.tensor(labels)).item() == close(expected)


@given(scores, st.integers(0, 4), st.floats(-10, 10, width=32), st.permutations(range(5)))
def test_the_order_of_the_choices_and_a_common_shift_change_nothing(row, label, shift, order):
    loss = answer_loss(torch.tensor([row]), torch.tensor([label]))
    moved = answer_loss(torch.tensor([[row[i] + shift for i in order]]), torch.tensor([order.index(label)]))
    assert loss.item() >= 0
    assert moved.item() == pytest.approx(loss.item(), abs=1e-4)


@given(st.lists(scores, min_size=1, max_size=6), st.data())
def test_a_question_without_a_label_is_as_if_it_were_not_there(rows, data):
    labels = data.draw(st.lists(st.sampled_from([-100, 0, 4]), min_size=len(rows), max_size=len(rows)))
    logits, labels = torch.tensor(rows, requires_grad=True), torch.tensor(labels)
    known = labels >= 0
    loss = answer_loss(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(answer_loss(logits[known], labels[known]).item(), abs=1e-5)
    assert logits.grad[~known].eq(0).all()


def test_low_precision_logits_are_summed_in_float32():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]])
    loss = answer_loss(logits.bfloat16(), torch.tensor([2]))
    assert loss.dtype == torch.float32
    assert loss.item() == close(answer_loss(logits, torch.tensor([2])).item())


# --- the span, eq. 7


def test_span_loss_by_hand():
    start, end = torch.tensor([[0.0, 0.0, -INF]]), torch.tensor([[log(3), 0.0, -INF]])
    loss = span_loss(start, end, torch.tensor([0]), torch.tensor([1]))
    assert loss.item() == close((log(2) + log(4)) / 2)


def test_a_question_without_a_span_adds_nothing():
    start = torch.tensor([[0.0, 0.0, -INF], [1.0, 5.0, 3.0]])
    end = torch.tensor([[log(3), 0.0, -INF], [0.0, 2.0, 9.0]])
    loss = span_loss(start, end, torch.tensor([0, -100]), torch.tensor([1, -100]))
    assert loss.item() == close((log(2) + log(4)) / 2)


def test_padded_segments_leave_the_gradients_finite():
    start = torch.tensor([[0.5, -1.0, -INF], [0.0, -INF, -INF], [1.0, 2.0, 3.0]], requires_grad=True)
    end = start.detach().clone().requires_grad_()
    span_loss(start, end, torch.tensor([1, 0, -100]), torch.tensor([1, 0, -100])).backward()
    for gradient in (start.grad, end.grad):
        assert gradient.isfinite().all()
        assert gradient[0, 2] == 0
        assert gradient[1:].eq(0).all()  # nothing to learn from a clip of one segment, nor without a span
        assert gradient[0, :2].ne(0).all()


# --- the masked answer, eq. 8 and 9


def test_contrastive_loss_by_hand():
    hypotheses = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    anchor = torch.tensor([[log(3), 0.0]])  # dot products log 3 and 0
    assert contrastive_loss(hypotheses, anchor, torch.tensor([0])).item() == close(log(4 / 3))
    assert contrastive_loss(hypotheses, anchor, torch.tensor([1])).item() == close(log(4))
    assert contrastive_loss(2 * hypotheses, anchor, torch.tensor([0])).item() == close(log(10 / 9))  # no scaling


def test_each_anchor_meets_the_choices_of_its_own_question():
    hypotheses = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]], [[9.0, 9.0], [9.0, -9.0]]])
    anchor = torch.tensor([[log(3), 0.0], [0.0, log(3)], [4.0, 4.0]])
    loss = contrastive_loss(hypotheses, anchor, torch.tensor([0, 0, -100]))
    assert loss.item() == close((log(4 / 3) + log(10)) / 2)


def test_contrastive_gradients_reach_both_sides_and_pull_them_together():
    hypotheses, anchor = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    labels = torch.tensor([3, 1])
    loss = contrastive_loss(hypotheses, anchor, labels)
    loss.backward()
    nearer = contrastive_loss(hypotheses - 0.1 * hypotheses.grad, anchor - 0.1 * anchor.grad, labels)
    assert nearer < loss
    along = (hypotheses.grad * anchor.detach()[:, None]).sum(-1)  # how the score of each choice enters the loss
    right = torch.nn.functional.one_hot(labels, 5).bool()
    assert along[right].lt(0).all()
    assert along[~right].gt(0).all()


# --- all of them


@pytest.mark.parametrize("kind", ["answer", "span", "contrastive"])
def test_a_batch_without_any_target_gives_exactly_0_and_gradients_of_0(kind):
    nothing = torch.tensor([-100, -100])
    if kind == "contrastive":
        inputs = [torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)]
        loss = contrastive_loss(*inputs, nothing)
    elif kind == "span":
        inputs = [torch.tensor([[1.0, 2.0, -INF], [3.0, -INF, -INF]], requires_grad=True) for _ in range(2)]
        loss = span_loss(*inputs, nothing, nothing)
    else:
        inputs = [torch.randn(2, 5, requires_grad=True)]
        loss = answer_loss(*inputs, nothing)
    loss.backward()
    assert loss.item() == 0
    assert all(tensor.grad.eq(0).all() for tensor in inputs)


def test_weighted_sum():
    weights = {"qa_loss": 1.0, "span_loss": 0.2, "contrastive_loss": 0.1}
    two, three, four = torch.tensor(2.0), torch.tensor(3.0), torch.tensor(4.0)
    assert weighted_sum({"qa_loss": two, "span_loss": three, "contrastive_loss": four}, weights).item() == close(3.0)
    assert weighted_sum({"qa_loss": two, "span_loss": None, "contrastive_loss": four}, weights).item() == close(2.4)
    assert weighted_sum({"qa_loss": None, "span_loss": three, "contrastive_loss": None}, weights).item() == close(0.6)
    assert weighted_sum({"qa_loss": None, "span_loss": None, "contrastive_loss": None}, weights) is None
