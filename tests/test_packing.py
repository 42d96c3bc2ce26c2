"""Packing changes the work, never the result: the plan against all other plans, the rows against one padded batch."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, DebertaV2Config, DistilBertConfig, ElectraConfig, ModernBertConfig, RobertaConfig

from modeling_videoqa import VideoQAConfig, VideoQAModel, packing_videoqa
from modeling_videoqa.packing_videoqa import BLOCK_OVERHEAD, encode_rows, plan_blocks

NO_LIMIT = 10**9
SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS = {
    "bert": lambda: BertConfig(**SIZES, **NO_DROPOUT),
    "roberta": lambda: RobertaConfig(**SIZES | NO_DROPOUT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "modernbert": lambda: ModernBertConfig(
        **SIZES, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, local_attention=8
    ),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=90, dim=32, n_layers=2, n_heads=2, hidden_dim=48, dropout=0.0, attention_dropout=0.0
    ),
    "deberta-v2": lambda: DebertaV2Config(
        **SIZES,
        **NO_DROPOUT,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    ),
    "electra": lambda: ElectraConfig(**SIZES, **NO_DROPOUT, embedding_size=16),
}


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(packing_videoqa) == 0


# --- the plan


def cost(lengths, blocks, overhead):
    return sum(len(block) * max(lengths[row] for row in block) + overhead for block in blocks)


def partitions(rows):
    """Every way to put rows into groups."""
    if not rows:
        yield []
        return
    for size in range(len(rows)):
        for others in combinations(rows[1:], size):
            rest = [row for row in rows[1:] if row not in others]
            yield from ([(rows[0], *others), *more] for more in partitions(rest))


@given(
    st.lists(st.integers(1, 80), max_size=300),
    st.integers(1, 5000),
    st.integers(0, 500),
)
def test_every_row_is_in_one_block_and_every_block_within_the_limit(lengths, limit, overhead):
    blocks = plan_blocks(lengths, limit, overhead)
    assert sorted(row for block in blocks for row in block) == list(range(len(lengths)))
    for block in blocks:
        assert len(block) == 1 or len(block) * max(lengths[row] for row in block) <= limit
    in_order = [lengths[row] for block in blocks for row in block]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 30))
def test_no_other_grouping_costs_less(lengths, overhead):
    planned = cost(lengths, plan_blocks(lengths, NO_LIMIT, overhead), overhead)
    assert planned == min(cost(lengths, groups, overhead) for groups in partitions(list(range(len(lengths)))))


@given(st.lists(st.integers(1, 80), min_size=1, max_size=200))
def test_a_plan_is_never_worse_than_one_block_or_one_cut(lengths):
    planned = cost(lengths, plan_blocks(lengths, NO_LIMIT), BLOCK_OVERHEAD)
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    for cut in range(len(rows)):
        groups = [group for group in (rows[:cut], rows[cut:]) if group]
        assert planned <= cost(lengths, groups, BLOCK_OVERHEAD)


@pytest.mark.parametrize(
    ("lengths", "overhead", "expected"),
    [
        ([], 8, []),
        ([7], 8, [[0]]),
        ([3, 40, 39, 3], 8, [[1, 2], [0, 3]]),
        ([3, 40, 39, 3], 1000, [[1, 2, 0, 3]]),  # starting a block costs more than any padding
        ([5, 9, 5, 9], 0, [[1, 3], [0, 2]]),  # free blocks: no padding at all
    ],
)
def test_plans_by_hand(lengths, overhead, expected):
    assert plan_blocks(lengths, NO_LIMIT, overhead) == expected


@pytest.mark.parametrize(
    ("rows", "length", "limit", "sizes"),
    [
        (6, 10, 60, [6]),
        (7, 10, 60, [4, 3]),  # evenly, not 6 and 1
        (5, 3, 8, [2, 2, 1]),  # two rows of three tokens fit in 8, three do not
        (2, 10, 4, [1, 1]),  # a row over the limit goes alone
    ],
)
def test_a_large_block_is_divided_evenly(rows, length, limit, sizes):
    assert [len(block) for block in plan_blocks([length] * rows, limit)] == sizes


# --- the rows


def padded_rows(lengths, seed=0, longest=None, vocabulary=90):
    """Random rows of the given lengths, padded on the right with garbage: only the mask says where a row ends."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(lengths), longest or max(lengths))
    input_ids = torch.randint(4, vocabulary, shape, generator=draw)
    token_type_ids = torch.randint(0, 4, shape, generator=draw).sort(dim=1).values
    attention_mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    return input_ids, attention_mask, token_type_ids


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(60, 90), st.integers(1, 600))
def test_rows_come_back_in_their_order_without_their_padding(lengths, longest, limit):
    rows = padded_rows(lengths, longest=longest)
    shapes = []

    def fingerprint(input_ids, attention_mask, token_type_ids):
        shapes.append(input_ids.shape)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if attention_mask is None or attention_mask.shape[0] == 1:
            assert mask.all()
        assert mask.any(dim=0).all()  # cut to the longest row
        values = mask * (100 * input_ids + token_type_ids) * torch.arange(1, mask.shape[1] + 1)
        return torch.stack([values.sum(dim=1), mask.sum(dim=1)], dim=1).float()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(packing_videoqa.MAX_BLOCK_TOKENS, "cpu", limit)
        packed = encode_rows(fingerprint, *rows)
    whole = rows[1] * (100 * rows[0] + rows[2]) * torch.arange(1, longest + 1)
    assert packed.tolist() == torch.stack([whole.sum(dim=1), rows[1].sum(dim=1)], dim=1).float().tolist()
    assert all(count == 1 or count * length <= limit for count, length in shapes)


def text_model(encoder):
    config = VideoQAConfig(
        text_config=ENCODERS[encoder](), video_feature_size=None, max_text_length=40, num_tuned_text_layers=None
    )
    model = VideoQAModel(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("encoder", ENCODERS)
def test_packed_rows_equal_padded_rows_in_value_and_gradient(encoder, monkeypatch):
    monkeypatch.setitem(packing_videoqa.MAX_BLOCK_TOKENS, "cpu", 160)
    model = text_model(encoder)
    rows = padded_rows([5, 40, 21, 6, 40, 40, 21, 7, 21, 3, 21, 40, 1, 21, 40, 21, 5, 21, 21, 5, 21, 5, 5, 5, 5, 4])
    calls = []

    def encode(input_ids, attention_mask, token_type_ids):
        calls.append((tuple(input_ids.shape), attention_mask is None))
        return model.encode_text(input_ids, attention_mask, token_type_ids)

    target = torch.randn(len(rows[0]), 32, generator=torch.Generator().manual_seed(1))
    found = []
    for hidden in (encode_rows(encode, *rows), model.encode_text(*rows)):
        model.zero_grad()
        (hidden * target).sum().backward()
        found.append((hidden, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (packed, packed_grads), (padded, padded_grads) = found
    assert len(calls) > 3
    assert {without_mask for _, without_mask in calls} == {True, False}
    assert sum(count * length for (count, length), _ in calls) < 0.6 * rows[0].numel()
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    assert packed_grads.keys() == padded_grads.keys()
    for name, gradient in packed_grads.items():
        torch.testing.assert_close(gradient, padded_grads[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_block_without_padding_needs_no_mask(encoder):
    model = text_model(encoder)
    input_ids, attention_mask, token_type_ids = padded_rows([9, 9, 9])
    with_mask = model.encode_text(input_ids, attention_mask, token_type_ids)
    without = model.encode_text(input_ids, None, token_type_ids)
    torch.testing.assert_close(without, with_mask, rtol=1e-5, atol=1e-5)


def test_only_rows_of_real_segments_are_encoded(make_model, make_batch, monkeypatch):
    model, batch = make_model().model, make_batch(segments=(3, 1), num_choices=4)
    encoded = []
    monkeypatch.setattr(model, "encode_text", lambda ids, *rest: encoded.append(ids) or torch.ones(len(ids), 32))
    rows = (batch["input_ids"], torch.ones_like(batch["attention_mask"]), batch["token_type_ids"])
    hidden = model.encode_segments(*rows, batch["segment_mask"])
    assert sum(len(ids) for ids in encoded) == 4 * (3 + 1)
    assert hidden[:, :, :, 0].tolist() == [[[1, 1, 1]] * 4, [[1, 0, 0]] * 4]


def test_a_masked_row_without_a_label_is_not_encoded(make_model, make_batch, monkeypatch):
    model, batch = make_model().model, make_batch(segments=(3, 1), num_choices=4)
    batch["labels"][0] = -100
    encoded = []
    monkeypatch.setattr(model, "encode_text", lambda ids, *rest: encoded.append(ids) or torch.ones(len(ids), 32))
    model(**{name: value for name, value in batch.items() if name not in ("start_positions", "end_positions")})
    assert sum(len(ids) for ids in encoded) == 4 * (3 + 1) + 1


def test_the_masked_row_is_encoded_with_the_others_and_as_if_alone(make_model, make_batch, monkeypatch):
    model, batch = make_model().model, make_batch(segments=(3, 2))
    passes = []
    monkeypatch.setattr(model, "encode_segments", lambda *a, of=model.encode_segments: passes.append(a) or of(*a))
    del batch["start_positions"], batch["end_positions"]
    together = model(**batch)
    assert len(passes) == 1
    anchor, labels = batch.pop("anchor_input_ids"), batch.pop("labels")
    without = model(**batch)
    own = torch.arange(len(labels))
    for name in ("attention_mask", "token_type_ids"):
        batch[name] = batch[name][own, labels][:, None]
    alone = model(**batch | {"input_ids": anchor[:, None]})
    torch.testing.assert_close(together.anchor, alone.hypotheses[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.hypotheses, without.hypotheses, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together.anchor, together.hypotheses[own, labels])  # the mask token shows
