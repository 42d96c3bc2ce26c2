"""The network: its parts on values worked out by hand, its invariances, saving and loading, freezing, its errors."""

from contextlib import contextmanager
from math import log

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    ConvNextConfig,
    DebertaV2Config,
    Dinov2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    SwinConfig,
    ViTConfig,
)

from modeling_videoqa import VideoQAForMultipleChoice, VideoQAModel, modeling_videoqa
from modeling_videoqa.loss_videoqa import answer_loss, contrastive_loss, span_loss
from modeling_videoqa.modeling_videoqa import AlignedAttention, FractionalTokenTypeEmbedding, RecurrentPooling

TARGETS = ("anchor_input_ids", "labels", "start_positions", "end_positions")
SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
# Encoders without the two rows of BERT's token types.
WITHOUT_TABLE = {
    "roberta": lambda: RobertaConfig(**SIZES, type_vocab_size=1),
    "bert of four types": lambda: BertConfig(**SIZES, type_vocab_size=4),
    "modernbert": lambda: ModernBertConfig(
        **SIZES, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, local_attention=8
    ),
    "distilbert": lambda: DistilBertConfig(vocab_size=90, dim=32, n_layers=2, n_heads=2, hidden_dim=48),
    "deberta-v2": lambda: DebertaV2Config(
        **SIZES,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    ),
}


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


def inputs_of(batch):
    return without(batch, *TARGETS)


def assert_close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def assert_equal_outputs(found, expected, tolerance=1e-6, names=None):
    names = names or expected.keys()
    assert names
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance, msg=name)


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def refused(*words):
    """An error in three parts: what came (with these words), what is allowed, what to do."""
    with pytest.raises(ValueError, match="Allowed: ") as error:
        yield
    came, rest = str(error.value).split("Allowed: ")
    assert all(word in came for word in words), came
    assert len(rest.split(". ")) > 1, rest


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(modeling_videoqa) == 0


# --- token types (METHOD.md, point 6)


@pytest.mark.parametrize(
    ("token_types", "expected"),
    [
        ("fractional", [[2, 4, 6], [1, 3, -2], [2, 6, -4], [3, 9, -6]]),  # E0, E1/3, 2 E1/3, E1
        ("binary", [[2, 4, 6], [3, 9, -6], [3, 9, -6], [3, 9, -6]]),
    ],
)
def test_token_types_by_hand(token_types, expected):
    table = FractionalTokenTypeEmbedding(3, token_types)
    table.weight.data = torch.tensor([[2.0, 4.0, 6.0], [3.0, 9.0, -6.0]])
    found = table(torch.tensor([[0, 1, 2, 3]]))
    assert_close(found, torch.tensor([expected], dtype=torch.float32))
    found.sum().backward()
    assert_close(table.weight.grad, torch.tensor([[1.0] * 3, [2.0 if token_types == "fractional" else 3.0] * 3]))


def test_a_bert_checkpoint_goes_in_and_comes_out_unchanged(tiny_encoder_dir, tmp_path):
    model = VideoQAForMultipleChoice.from_text_encoder(tiny_encoder_dir, video_feature_size=6)
    model.model.text_encoder.save_pretrained(tmp_path)
    with (
        safe_open(tiny_encoder_dir / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "model.safetensors", "pt") as after,
    ):
        names = {name for name in before.keys() if not name.startswith("pooler.")}  # noqa: SIM118 (not a dict)
        assert "embeddings.token_type_embeddings.weight" in names
        assert names == set(after.keys())
        for name in names:
            assert torch.equal(before.get_tensor(name), after.get_tensor(name)), name
    assert BertModel.from_pretrained(tmp_path).config.hidden_size == 32


def test_two_token_types_give_what_bert_itself_gives(tiny_encoder_dir):
    """Segments 0 and 3 have E0 and E1, as the two segments of BERT."""
    bert = BertModel.from_pretrained(tiny_encoder_dir).eval()
    model = VideoQAModel.from_text_encoder(tiny_encoder_dir, video_feature_size=None).eval()
    input_ids, mask = torch.randint(5, 90, (4, 12)), torch.ones(4, 12, dtype=torch.long)
    mask[1, 7:] = 0
    token_types = (torch.arange(12) > 4).long().expand(4, 12)
    expected = bert(input_ids, mask, token_types).last_hidden_state[:, 0]
    assert_close(model.encode_text(input_ids, mask, 3 * token_types), expected)
    between = model.encode_text(input_ids, mask, 2 * token_types)
    assert not torch.allclose(between, expected, atol=1e-4)


def test_a_new_model_draws_the_table_of_bert_as_bert_does(make_config):
    weight = VideoQAForMultipleChoice(make_config()).model.text_encoder.embeddings.token_type_embeddings.weight
    assert 0.01 < weight.std() < 0.03
    assert weight.ne(0).all()


@pytest.mark.parametrize("encoder", WITHOUT_TABLE)
@pytest.mark.parametrize("tuned", [None, 1])
def test_an_encoder_without_token_types_gets_a_table_of_zeros_that_learns(
    encoder, tuned, make_config, make_batch, tmp_path
):
    text_config = WITHOUT_TABLE[encoder]()
    plain = AutoModel.from_config(text_config).eval()
    plain.save_pretrained(tmp_path)
    fields = {"video_feature_size": 6, "max_text_length": 12, "num_tuned_text_layers": tuned}
    model = VideoQAForMultipleChoice.from_text_encoder(tmp_path, **fields).eval()
    table = model.model.token_type_embeddings
    assert table.weight.eq(0).all()

    batch = make_batch()
    batch["input_ids"] = batch["input_ids"].clamp(max=89)
    batch["anchor_input_ids"] = batch["anchor_input_ids"].clamp(max=89)
    rows = batch["attention_mask"].flatten(0, 2).any(dim=1)
    ids, mask, types = (batch[name].flatten(0, 2)[rows] for name in ("input_ids", "attention_mask", "token_type_ids"))
    expected = plain(ids, attention_mask=mask).last_hidden_state[:, 0]
    assert_close(model.model.encode_text(ids, mask, types), expected, 1e-5)

    model.train()
    found = gradients(model, batch)
    assert found["model.token_type_embeddings.weight"].ne(0).any(dim=1).all()
    assert all(gradient.isfinite().all() for gradient in found.values())
    table.weight.data.normal_()
    model.eval()
    assert not torch.allclose(model.model.encode_text(ids, mask, types), expected, atol=1e-4)


def test_embeddings_narrower_than_the_encoder(make_config, make_batch):
    """ELECTRA widens its embeddings behind the token types, whose table is as narrow as the words'."""
    sizes = SIZES | {"vocab_size": 200}
    electra = VideoQAForMultipleChoice(make_config(ElectraConfig(**sizes, embedding_size=16)))
    assert electra.model.text_encoder.embeddings.token_type_embeddings.weight.shape == (2, 16)
    assert electra(**make_batch()).loss.isfinite()
    albert = AlbertConfig(**sizes, embedding_size=16)
    assert VideoQAForMultipleChoice(make_config(albert, num_tuned_text_layers=None))(**make_batch()).loss.isfinite()
    with refused("num_tuned_text_layers=1", "albert"):  # its layers share one set of weights
        VideoQAForMultipleChoice(make_config(albert, num_tuned_text_layers=1))


# --- aligned attention (eq. 3)


def attend(text, frames, mask, scope="local", normalize=False, projection=((0.0, 1.0), (2.0, 0.0))):
    """`frames` as `(batch_size, num_segments, num_frames, feature_size)`; the projection is M of eq. 3, (d_v, d_t)."""
    matrix, frames, mask = torch.tensor(projection), torch.as_tensor(frames), torch.as_tensor(mask)
    attention = AlignedAttention(*matrix.shape, scope=scope, normalize=normalize)
    attention.projection.weight.data = matrix.T.clone()
    return attention(torch.as_tensor(text), frames[mask], mask)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        # v1 M = (0, 1) and v2 M = (4, 0); g = (log 3, 0), not divided by anything; alpha = (3/4, 1/4).
        (False, [1.0, 0.75]),
        # v2 / |v2| M = (2, 0).
        (True, [0.5, 0.75]),
    ],
)
def test_attention_by_hand(normalize, expected):
    text = [[[[0.0, log(3)]]]]
    attended, weights = attend(text, [[[[1.0, 0.0], [0.0, 2.0]]]], [[[True, True]]], normalize=normalize)
    assert_close(weights, torch.tensor([[[[0.75, 0.25]]]]))
    assert_close(attended, torch.tensor([[[expected]]]))


def test_global_attention_by_hand():
    """Two segments of one frame: the softmax goes over both, in each segment's own terms."""
    text = [[[[0.0, log(3)], [0.0, 0.0]]]]
    frames, mask = [[[[1.0, 0.0]], [[0.0, 2.0]]]], [[[True], [True]]]
    attended, weights = attend(text, frames, mask, scope="global")
    assert_close(weights, torch.tensor([[[[[0.75], [0.25]], [[0.5], [0.5]]]]]))
    assert_close(attended, torch.tensor([[[[1.0, 0.75], [2.0, 0.5]]]]))
    attended, weights = attend(text, frames, mask, scope="local")
    assert_close(weights, torch.ones(1, 1, 2, 1))
    assert_close(attended, torch.tensor([[[[0.0, 1.0], [4.0, 0.0]]]]))


def test_attention_teaches_the_text_what_to_look_for():
    text = torch.zeros(1, 1, 1, 2, requires_grad=True)
    attended, _ = attend(text, [[[[1.0, 0.0], [0.0, 2.0]]]], [[[True, True]]])
    attended[..., 0].sum().backward()
    # u = (0, 1) and (4, 0), alpha = 1/2 each, H_v = (2, 1/2); d H_v[0] / d H = sum_i alpha_i u_i[0] (u_i - H_v).
    assert_close(text.grad, torch.tensor([[[[4.0, -1.0]]]]))


def test_the_video_trains_the_text_encoder_too(make_model, make_batch):
    model = make_model()
    model(**inputs_of(make_batch())).video_logits.sum().backward()
    for name, parameter in model.model.text_encoder.encoder.layer.named_parameters():
        if not name.endswith("key.bias"):  # which no softmax sees
            assert parameter.grad.abs().max() > 0, name


@pytest.fixture
def scene():
    """Random text and frames: the third segment of the first clip has no frame, the second clip has none at all."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.tensor([[[True, True, False], [True, True, True], [False] * 3], [[False] * 3] * 3])
    return torch.randn(2, 4, 3, 5, generator=draw), torch.randn(2, 3, 3, 6, generator=draw), mask


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_sum_to_1_over_the_valid_frames(scope, normalize, scene):
    text, frames, mask = scene
    attended, weights = attend(text, frames, mask, scope, normalize, torch.randn(6, 5).tolist())
    if scope == "local":
        assert weights.shape == (2, 4, 3, 3)
        expected = mask.any(dim=-1)[:, None].expand(2, 4, 3)
        assert weights[~mask[:, None].expand_as(weights)].eq(0).all()
    else:
        assert weights.shape == (2, 4, 3, 3, 3)
        expected = mask.flatten(1).any(dim=-1)[:, None, None].expand(2, 4, 3)
        assert weights[~mask[:, None, None].expand_as(weights)].eq(0).all()
        weights = weights.flatten(-2)
    assert_close(weights.sum(dim=-1), expected.float())
    assert attended.shape == (2, 4, 3, 5)
    assert attended[~expected].eq(0).all()  # nothing to attend to
    assert attended[expected].ne(0).all()


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_frame_of_another_segment_matters_only_globally(scope, scene):
    text, frames, mask = scene
    projection = torch.randn(6, 5).tolist()
    before, _ = attend(text, frames, mask, scope, projection=projection)
    frames = frames.clone()
    frames[0, 1] += 1
    after, _ = attend(text, frames, mask, scope, projection=projection)
    changed = (after - before).abs().amax(dim=(1, 3)).gt(1e-4).tolist()
    assert changed == [[scope == "global", True, scope == "global"], [False] * 3]


@pytest.mark.parametrize("scope", ["local", "global"])
def test_masked_frames_change_nothing(scope, make_model, make_batch):
    model, batch = make_model(visual_attention=scope), make_batch()
    spoilt = batch | {"video_features": batch["video_features"].clone()}
    spoilt["video_features"][~batch["frame_mask"]] = torch.nan
    assert (~batch["frame_mask"] & batch["segment_mask"][..., None]).any()  # one in a real segment too
    assert_equal_outputs(model(**spoilt), model(**batch))
    found, expected = gradients(model, spoilt), gradients(model, batch)
    assert_equal_outputs(found, expected)


def test_the_length_of_a_frame_vector_counts_only_without_normalisation(make_model, make_batch):
    batch = make_batch()
    longer = batch | {"video_features": 3 * batch["video_features"]}
    normalised, as_they_come = make_model(normalize_features=True), make_model(normalize_features=False)
    assert_equal_outputs(normalised(**longer), normalised(**batch), 1e-5)
    assert not torch.allclose(as_they_come(**longer).logits, as_they_come(**batch).logits, atol=1e-4)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_frames_of_padded_segments_change_nothing(scope, make_model, make_batch):
    model, batch = make_model(visual_attention=scope), without(make_batch(segments=(3, 1)), "frame_mask")
    spoilt = batch | {"video_features": batch["video_features"].clone()}
    spoilt["video_features"][1, 1:] = torch.nan
    assert_equal_outputs(model(**spoilt), model(**batch))
    everywhere = torch.ones(2, 3, 2, dtype=torch.bool)
    assert_equal_outputs(model(**spoilt, frame_mask=everywhere), model(**batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_in_half_precision(dtype, make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch["video_features"] = batch["video_features"].to(dtype)
    batch["video_features"][0, 0, 0] = 0  # a black frame has no direction
    same = batch | {"video_features": batch["video_features"].float()}
    assert_equal_outputs(model(**batch), model(**same), 1e-6)


# --- recurrent pooling (eq. 4)


def test_pooling_equals_a_gru_on_the_unpadded_segments():
    pooling = RecurrentPooling(5)
    rows = torch.randn(3, 2, 4, 5)
    lengths = [4, 1, 3]
    segment_mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    rows = rows.masked_fill(~segment_mask[:, None, :, None], 99.0)
    states, pooled = pooling(rows, segment_mask)
    assert states.shape == (3, 2, 4, 10)
    assert pooled.shape == (3, 2, 10)
    for clip, length in enumerate(lengths):
        for row in range(2):
            expected, _ = pooling.gru(rows[clip, row, :length])
            assert_close(states[clip, row, :length], expected)
            assert_close(pooled[clip, row], expected.amax(dim=0))
            assert states[clip, row, length:].eq(0).all()


def padded(batch, segments=0, tokens=0, frames=0):
    """The batch as it would be beside a longer one; what is added is garbage that the masks hide."""
    result = dict(batch)
    for name, value in batch.items():
        if name in ("input_ids", "attention_mask", "token_type_ids"):
            result[name] = F.pad(value, (0, tokens, 0, segments), value=0 if "mask" in name else 3)
        elif name == "anchor_input_ids":
            result[name] = F.pad(value, (0, tokens, 0, segments), value=3)
        elif name == "video_features":
            result[name] = F.pad(value, (0, 0, 0, frames, 0, segments), value=torch.nan)
        elif name == "frame_mask":
            result[name] = F.pad(value, (0, frames, 0, segments))
        elif name == "segment_mask":
            result[name] = F.pad(value, (0, segments))
    return result


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("more", [{"segments": 3}, {"tokens": 5}, {"frames": 2}, {"segments": 1, "tokens": 2}])
def test_more_padding_changes_nothing(scope, more, make_model, make_batch):
    model, batch = make_model(visual_attention=scope), make_batch()
    expected, found = model(**batch), model(**padded(batch, **more))
    scores = ("logits", "text_logits", "video_logits", "loss", "qa_loss", "span_loss", "contrastive_loss")
    assert_equal_outputs(found, expected, names=scores)
    longest = batch["segment_mask"].shape[1]
    for name in ("start_logits", "end_logits"):
        assert_close(found[name][:, :longest], expected[name])
        assert found[name][:, longest:].eq(-torch.inf).all()
    assert_equal_outputs(gradients(model, padded(batch, **more)), gradients(model, batch), 1e-5)


def test_a_padded_segment_has_no_score(make_model, make_batch):
    batch = make_batch(segments=(3, 1))
    output = make_model()(**batch)
    for scores in (output.start_logits, output.end_logits):
        assert torch.equal(scores.isfinite(), batch["segment_mask"])
        assert scores[~batch["segment_mask"]].eq(-torch.inf).all()


def test_the_order_of_the_questions_changes_nothing(make_model, make_batch):
    model, batch = make_model(), make_batch(segments=(3, 1, 2, 3))
    order = torch.tensor([2, 0, 3, 1])
    expected, found = model(**batch), model(**{name: value[order] for name, value in batch.items()})
    for name, value in expected.items():
        assert_close(found[name], value[order] if value.ndim else value, 1e-5)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_batch_gives_what_its_clips_give_one_by_one(scope, make_model, make_batch):
    model, batch = make_model(visual_attention=scope), make_batch(segments=(3, 1, 2))
    together = model(**batch)
    for clip, length in enumerate((3, 1, 2)):
        alone = {name: value[clip : clip + 1] for name, value in batch.items()}
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            alone[name] = alone[name][:, :, :length]
        for name in ("segment_mask", "video_features", "frame_mask", "anchor_input_ids"):
            alone[name] = alone[name][:, :length]
        output = model(**alone)
        for name in ("logits", "text_logits", "video_logits"):
            assert_close(output[name][0], together[name][clip], 1e-5)
        for name in ("start_logits", "end_logits"):
            assert_close(output[name][0], together[name][clip, :length], 1e-5)


def test_the_order_of_the_choices_moves_the_logits_and_nothing_else(make_model, make_batch):
    model, batch = make_model(), make_batch()
    expected = model(**batch)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = dict(batch)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        moved[name] = batch[name][:, order]
    moved["labels"] = torch.argsort(order)[batch["labels"]]
    found = model(**moved)
    assert_close(found.logits, expected.logits[:, order], 1e-5)
    assert_equal_outputs(found, expected, 1e-5, ("loss", "start_logits", "end_logits", "contrastive_loss"))


# --- the whole model


@pytest.mark.parametrize("num_choices", [2, 4, 5])
def test_any_number_of_choices(num_choices, make_model, make_batch):
    output = make_model()(**make_batch(num_choices=num_choices))
    assert output.logits.shape == (3, num_choices)
    assert output.start_logits.shape == output.end_logits.shape == (3, 3)
    assert output.loss.isfinite()


def test_logits_are_the_sum_of_both_halves(make_model, make_batch):
    output = make_model()(**make_batch())
    assert_close(output.logits, output.text_logits + output.video_logits)


def test_the_loss_is_the_weighted_sum_of_the_three(make_model, make_batch):
    batch = make_batch()
    output = make_model()(**batch, output_hypotheses=True)
    spans = (batch["start_positions"], batch["end_positions"])
    assert_close(output.qa_loss, answer_loss(output.logits, batch["labels"]))
    assert_close(output.span_loss, span_loss(output.start_logits, output.end_logits, *spans))
    assert_close(output.contrastive_loss, contrastive_loss(output.hypotheses, output.anchor, batch["labels"]))
    assert_close(output.loss, 1.0 * output.qa_loss + 0.2 * output.span_loss + 0.1 * output.contrastive_loss)


def test_span_scores_are_the_largest_over_the_choices(make_model, make_batch):
    """The classifier at work on the text GRU's output, before pooling (point 13)."""
    model, batch = make_model(), make_batch()
    output = model(**batch)
    states = model.model(**without(inputs_of(batch), "video_features", "frame_mask")).text_states
    scores = model.span_classifier(states)
    for clip, length in enumerate((3, 1, 2)):
        assert_close(output.start_logits[clip, :length], scores[clip, :, :length, 0].amax(dim=0))
        assert_close(output.end_logits[clip, :length], scores[clip, :, :length, 1].amax(dim=0))


@pytest.mark.parametrize("part", ["qa_loss", "span_loss", "contrastive_loss"])
def test_a_weight_of_0_leaves_a_part_out(part, make_model, make_batch):
    batch = make_batch()
    full, less = make_model()(**batch), make_model(**{f"{part}_weight": 0})(**batch)
    assert getattr(less, part) is None
    weights = {"qa_loss": 1.0, "span_loss": 0.2, "contrastive_loss": 0.1}
    assert_close(less.loss, full.loss - weights[part] * full[part])
    none = make_model(qa_loss_weight=0, span_loss_weight=0, contrastive_loss_weight=0)(**batch)
    assert none.loss is None


def test_a_part_without_targets_is_left_out(make_model, make_batch):
    model, batch = make_model(), make_batch()
    assert model(**inputs_of(batch)).loss is None
    output = model(**without(batch, "anchor_input_ids", "start_positions", "end_positions"))
    assert (output.span_loss, output.contrastive_loss) == (None, None)
    assert_close(output.loss, output.qa_loss)
    output = model(**without(batch, "anchor_input_ids", "labels"))
    assert_close(output.loss, 0.2 * output.span_loss)


def test_targets_change_no_prediction(make_model, make_batch):
    model, batch = make_model(), make_batch()
    names = ("logits", "text_logits", "video_logits", "start_logits", "end_logits")
    assert_equal_outputs(model(**batch), model(**inputs_of(batch)), 1e-5, names)


def test_questions_without_a_label_add_nothing_beside_anchors(make_model, make_batch):
    model, batch = make_model(), make_batch(segments=(3, 1, 2, 2))
    batch["labels"][1] = batch["labels"][3] = -100
    batch["start_positions"][0] = batch["end_positions"][0] = -100
    output = model(**batch)
    known = {name: value[[0, 2]] for name, value in batch.items()}
    assert_close(output.qa_loss, model(**known).qa_loss, 1e-5)
    assert_close(output.contrastive_loss, model(**known).contrastive_loss, 1e-5)
    spans = {name: value[1:] for name, value in batch.items()}
    assert_close(output.span_loss, model(**spans).span_loss, 1e-5)
    batch["anchor_input_ids"][[1, 3]] = 7  # whatever is there
    assert_close(model(**batch).loss, output.loss)


def test_a_batch_without_a_single_target_has_a_loss_of_0(make_model, make_batch):
    model, batch = make_model(), make_batch()
    for name in ("labels", "start_positions", "end_positions"):
        batch[name].fill_(-100)
    assert model(**batch).loss.item() == 0
    assert all(gradient.eq(0).all() for gradient in gradients(model, batch).values())


def test_what_is_left_out_has_its_default(make_model, make_batch):
    model = make_model()
    batch = make_batch(segments=(2, 2))
    batch |= {"attention_mask": torch.ones_like(batch["attention_mask"]), "input_ids": batch["input_ids"].clamp(min=5)}
    batch |= {"token_type_ids": torch.zeros_like(batch["token_type_ids"]), "frame_mask": batch["frame_mask"] | True}
    defaults = ("attention_mask", "token_type_ids", "segment_mask", "frame_mask")
    assert_equal_outputs(model(**without(batch, *defaults)), model(**batch))
    batch = make_batch(segments=(3, 1))
    batch["attention_mask"][0, 2, 1] = 0  # a segment is real if it has a token in any choice
    assert_equal_outputs(model(**without(batch, "segment_mask")), model(**batch))


def test_masks_may_be_numbers(make_model, make_batch):
    model, batch = make_model(), make_batch()
    numbers = {name: value.long() for name, value in batch.items() if value.dtype == torch.bool}
    assert set(numbers) == {"segment_mask", "frame_mask"}
    assert_equal_outputs(model(**batch | numbers), model(**batch))
    assert_equal_outputs(model(**batch | {"attention_mask": batch["attention_mask"].bool()}), model(**batch))


@pytest.mark.parametrize("scope", ["local", "global"])
def test_what_is_asked_for_is_returned(scope, make_model, make_batch):
    model, batch = make_model(visual_attention=scope), make_batch()
    asked = ("hypotheses", "video_hypotheses", "anchor", "frame_attentions")
    plain = model(**batch)
    assert not set(asked) & set(plain.keys())
    output = model(**batch, output_hypotheses=True, output_attentions=True)
    assert output.hypotheses.shape == output.video_hypotheses.shape == (3, 5, 64)
    assert output.anchor.shape == (3, 64)
    assert output.frame_attentions.shape == (3, 5, 3, 2) if scope == "local" else (3, 5, 3, 3, 2)
    assert_equal_outputs(output, plain)
    assert_close(model.text_classifier(output.hypotheses)[..., 0], output.text_logits)


def test_a_plain_tuple(make_model, make_batch):
    model, batch = make_model(), make_batch()
    named = model(**batch)
    plain = model(**batch, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named)
    for found, expected in zip(plain, named.values(), strict=True):
        assert_close(found, expected)
    assert_close(plain[0], named.loss)
    assert_close(model(**inputs_of(batch), return_dict=False)[0], named.logits, 1e-5)


def test_times_are_taken_and_not_used(make_model, make_batch):
    model, batch = make_model(), make_batch()
    times = torch.full((3, 3, 2), torch.nan)
    assert_equal_outputs(model(**batch, segment_times=times), model(**batch))


# --- with and without video


def test_a_model_without_a_visual_half(make_model, make_batch):
    model, batch = make_model(video_feature_size=None), make_batch()
    assert not [name for name, _ in model.named_parameters() if "vi" in name.split(".")[0] or "visual" in name]
    output = model(**without(batch, "video_features", "frame_mask"))
    assert output.video_logits is None
    assert_close(output.logits, output.text_logits)
    assert_equal_outputs(model(**batch), output)  # the same collator serves both


def test_a_visual_model_without_frames_answers_from_the_text(make_model, make_batch):
    model, batch = make_model(), make_batch()
    output = model(**without(batch, "video_features", "frame_mask"), output_attentions=True)
    assert (output.video_logits, output.frame_attentions) == (None, None)
    assert_close(output.logits, output.text_logits)
    assert_close(output.text_logits, model(**batch).text_logits)


def test_a_batch_whose_frames_are_all_masked(make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch["frame_mask"] = torch.zeros_like(batch["frame_mask"])
    output = model(**batch)
    assert output.loss.isfinite()
    same = output.video_logits - output.video_logits[:, :1]
    assert_close(same, torch.zeros_like(same))  # nothing seen, nothing told apart


@pytest.fixture
def resnet():
    backbone = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone.eval()


@pytest.mark.parametrize("training", [False, True])
def test_pixels_give_what_the_features_of_the_same_backbone_give(training, resnet, tiny_encoder_dir, make_batch):
    model = VideoQAForMultipleChoice.from_text_encoder(
        tiny_encoder_dir,
        text_config={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        vision_model=resnet,
        video_feature_size=6,
        max_text_length=12,
    ).train(training)
    statistics = {name: value.clone() for name, value in model.model.vision_model.state_dict().items()}
    batch = without(make_batch(), "video_features")
    pixels = torch.randn(3, 3, 2, 3, 32, 32)
    features = resnet(pixels.flatten(0, 2)).pooler_output.view(3, 3, 2, 6).detach()
    from_pixels, from_features = model(**batch, pixel_values=pixels), model(**batch, video_features=features)
    assert_equal_outputs(from_pixels, from_features, 1e-5)
    from_pixels.loss.backward()
    assert all(parameter.grad is None for parameter in model.model.vision_model.parameters())
    for name, value in model.model.vision_model.state_dict().items():
        assert torch.equal(value, statistics[name]), name
    assert_equal_outputs(statistics, resnet.state_dict())


def test_a_backbone_may_be_given_by_its_name(resnet, tiny_encoder_dir, tmp_path):
    resnet.save_pretrained(tmp_path / "backbone")
    model = VideoQAForMultipleChoice.from_text_encoder(
        tiny_encoder_dir, vision_model=str(tmp_path / "backbone"), video_feature_size=6
    )
    for name, value in model.model.vision_model.state_dict().items():
        torch.testing.assert_close(value, resnet.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(
            hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
        ),
        CLIPVisionConfig(
            hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16
        ),
        Dinov2Config(hidden_size=6, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16),
        ConvNextConfig(hidden_sizes=[4, 6], depths=[1, 1], num_stages=2),
        SwinConfig(embed_dim=3, depths=[1, 1], num_heads=[1, 2], image_size=32, window_size=2, patch_size=4),
    ],
    ids=lambda config: config.model_type,
)
def test_any_vision_model_with_a_pooled_output_serves(config, make_config, make_batch):
    model = VideoQAForMultipleChoice(make_config(vision_config=config)).eval()
    batch, pixels = without(make_batch(), "video_features"), torch.randn(3, 3, 2, 3, 32, 32)
    with torch.no_grad():
        features = model.model.vision_model(pixels.flatten(0, 2)).pooler_output.view(3, 3, 2, 6)
        outputs = model(**batch, pixel_values=pixels), model(**batch, video_features=features)
    assert_equal_outputs(*outputs, 1e-5)


def test_pixels_of_a_batch_without_valid_frames(resnet, make_config, make_batch):
    model = VideoQAForMultipleChoice(make_config(vision_config=resnet.config))
    batch = without(make_batch(), "video_features", "frame_mask")
    mask = torch.zeros(3, 3, 2, dtype=torch.bool)
    assert model(**batch, pixel_values=torch.randn(3, 3, 2, 3, 32, 32), frame_mask=mask).loss.isfinite()


# --- errors


def test_features_of_another_width(make_model, make_batch):
    with refused("frame features are 7 wide"):
        make_model(video_feature_size=6)(**make_batch(width=7))


def test_features_and_pixels(make_model, make_batch):
    with refused("video_features", "pixel_values"):
        make_model()(**make_batch(), pixel_values=torch.zeros(3, 3, 2, 3, 8, 8))


def test_pixels_without_a_backbone(make_model, make_batch):
    with refused("pixel_values", "no vision backbone"):
        make_model()(**without(make_batch(), "video_features"), pixel_values=torch.zeros(3, 3, 2, 3, 8, 8))


def test_a_masked_row_without_a_label(make_model, make_batch):
    with refused("anchor_input_ids", "labels"):
        make_model()(**without(make_batch(), "labels"))


@pytest.mark.parametrize("mask", [[True, False, True], [False, True, True], [False, False, False]])
def test_a_hole_among_the_segments_and_a_clip_without_any(mask, make_model, make_batch):
    batch = make_batch(segments=(3, 3))
    batch["segment_mask"][1] = torch.tensor(mask)
    with refused("segment_mask"):
        make_model()(**batch)


def test_an_argument_that_the_model_does_not_have(make_model, make_batch):
    with pytest.raises(TypeError, match="frames_mask"):
        make_model()(**make_batch(), frames_mask=None)


# --- saving and loading


@pytest.mark.parametrize("kind", ["bert", "roberta", "text only", "pixels"])
def test_a_model_comes_back_from_its_folder(kind, make_config, make_batch, resnet, tmp_path):
    fields = {
        "bert": {"num_tuned_text_layers": 1, "visual_attention": "global"},
        "roberta": {"text_config": RobertaConfig(**SIZES | {"vocab_size": 200}, type_vocab_size=1)},
        "text only": {"video_feature_size": None, "num_tuned_text_layers": 0},
        "pixels": {"vision_config": resnet.config, "token_types": "binary"},
    }[kind]
    model = VideoQAForMultipleChoice(make_config(**fields)).eval()
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded, report = VideoQAForMultipleChoice.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for found in (loaded, AutoModelForMultipleChoice.from_pretrained(tmp_path)):
        assert type(found) is VideoQAForMultipleChoice
        assert not found.training
        expected = model.state_dict()
        assert found.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in found.named_parameters() if parameter.requires_grad} == trained
        assert_equal_outputs(found(**make_batch()), model(**make_batch()))


def test_the_base_model_comes_out_of_the_whole_and_goes_in(make_model, make_batch, tmp_path):
    model, batch = make_model(num_tuned_text_layers=1), inputs_of(make_batch())
    model.save_pretrained(tmp_path / "whole")
    base = AutoModel.from_pretrained(tmp_path / "whole")
    assert type(base) is VideoQAModel
    assert_equal_outputs(base(**batch), model.model(**batch))
    assert not base.text_encoder.encoder.layer[0].output.dense.weight.requires_grad
    base.save_pretrained(tmp_path / "base")
    whole, report = VideoQAForMultipleChoice.from_pretrained(tmp_path / "base", output_loading_info=True)
    heads = ("text_classifier", "video_classifier", "span_classifier")
    assert report["missing_keys"] == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert_equal_outputs(whole.model(**batch), base(**batch))


def test_a_text_model_grows_a_visual_half(make_model, make_batch, tmp_path):
    """Weights that a checkpoint does not have are drawn as in a new model."""
    text, batch = make_model(video_feature_size=None), make_batch()
    text.save_pretrained(tmp_path)
    model, report = VideoQAForMultipleChoice.from_pretrained(tmp_path, video_feature_size=6, output_loading_info=True)
    assert {name.split(".")[-2] for name in report["missing_keys"]} == {"video_classifier", "projection", "gru"}
    for parameter in model.model.video_pooling.parameters():
        assert 0.9 * 32**-0.5 < parameter.abs().max() <= 32**-0.5
    output = model(**batch)
    assert output.video_logits.isfinite().all()
    assert_close(output.text_logits, text(**batch).text_logits)


def test_a_new_model_starts_as_its_config_says(make_config):
    model = VideoQAForMultipleChoice(make_config(initializer_range=0.5, video_feature_size=200))
    for linear in (model.text_classifier, model.video_classifier, model.span_classifier):
        assert linear.bias.eq(0).all()
    assert model.model.visual_attention.projection.weight.std().item() == pytest.approx(0.5, rel=0.05)
    for pooling in (model.model.text_pooling, model.model.video_pooling):
        for parameter in pooling.parameters():  # as torch's own GRU: uniform in +- 1 / sqrt(hidden_size)
            assert 0.9 * 32**-0.5 < parameter.abs().max() <= 32**-0.5


def test_fields_of_the_encoder_can_be_changed_when_a_model_is_made(tiny_encoder_dir):
    model = VideoQAForMultipleChoice.from_text_encoder(
        tiny_encoder_dir, text_config={"num_hidden_layers": 1, "hidden_dropout_prob": 0.25}, token_types="binary"
    )
    assert len(model.model.text_encoder.encoder.layer) == 1
    assert model.config.text_config.hidden_dropout_prob == 0.25
    assert model.config.token_types == "binary"
    assert model.dtype == torch.float32
    original = BertModel.from_pretrained(tiny_encoder_dir)
    assert_equal_outputs(model.model.text_encoder.encoder.layer[0].state_dict(), original.encoder.layer[0].state_dict())


# --- ways to compute


def test_both_attention_kernels_agree(make_model, make_batch, tmp_path):
    make_model().save_pretrained(tmp_path)
    models = {
        kernel: VideoQAForMultipleChoice.from_pretrained(tmp_path, attn_implementation=kernel)
        for kernel in ("eager", "sdpa")
    }
    for kernel, model in models.items():
        assert model.model.text_encoder.config._attn_implementation == kernel
    batch = make_batch()
    assert_equal_outputs(models["eager"](**batch), models["sdpa"](**batch), 1e-5)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the name that Trainer's users know
@pytest.mark.parametrize("tuned", [None, 1])
def test_gradient_checkpointing_changes_no_gradient(tuned, make_model, make_batch):
    model, batch = make_model(num_tuned_text_layers=tuned).train(), make_batch()
    loss, expected = model(**batch).loss, gradients(model, batch)
    model.gradient_checkpointing_enable()
    passes = []
    model.model.text_encoder.encoder.layer[1].intermediate.register_forward_hook(lambda *_: passes.append(1))
    found = gradients(model, batch)
    assert len(passes) == 2  # once forward, once more for the backward
    assert_close(model(**batch).loss, loss)
    assert_equal_outputs(found, expected, 1e-5)


def test_every_trained_parameter_gets_a_gradient(make_model, make_batch):
    """Otherwise DistributedDataParallel stops at the second step."""
    for tuned in (None, 1, 0):
        model = make_model(num_tuned_text_layers=tuned).train()
        model(**make_batch()).loss.backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_autocast_to_bfloat16(make_model, make_batch):
    model, batch = make_model(), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
        hypotheses = model(**batch, output_hypotheses=True).hypotheses
    expected = model(**batch)
    assert output.loss.dtype == hypotheses.dtype == torch.float32  # recurrences and losses are not for bfloat16
    assert_equal_outputs(
        {name: value.float() for name, value in output.items()}, dict(expected), 0.1, ("logits", "loss", "start_logits")
    )
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_model_in_bfloat16(make_model, make_batch):
    output = make_model().bfloat16()(**make_batch())
    assert output.logits.dtype == torch.bfloat16
    assert_close(output.logits.float(), make_model()(**make_batch()).logits, 0.1)


# --- frozen layers


@pytest.mark.parametrize(
    ("tuned", "layers"), [(None, {"embeddings", "0", "1"}), (0, set()), (1, {"1"}), (2, {"0", "1"}), (99, {"0", "1"})]
)
def test_which_layers_are_trained(tuned, layers, make_config):
    model = VideoQAForMultipleChoice(make_config(num_tuned_text_layers=tuned))
    encoder = model.model.text_encoder
    parts = {"embeddings": encoder.embeddings, "0": encoder.encoder.layer[0], "1": encoder.encoder.layer[1]}
    for name, part in parts.items():
        assert {parameter.requires_grad for parameter in part.parameters()} == {name in layers}, name
    outside = [p for name, p in model.named_parameters() if not name.startswith("model.text_encoder.")]
    assert outside
    assert all(parameter.requires_grad for parameter in outside)


@pytest.mark.parametrize("encoder", WITHOUT_TABLE)
def test_nothing_but_the_top_layers_is_trained_in_any_encoder(encoder, make_config):
    model = VideoQAModel(make_config(WITHOUT_TABLE[encoder](), num_tuned_text_layers=1))
    trained = {name for name, p in model.text_encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(".1." in f".{name}" for name in trained), trained
    assert model.token_type_embeddings.weight.requires_grad


def test_frozen_layers_keep_no_activations(make_model, make_batch):
    model, batch = make_model(num_tuned_text_layers=1).train(), make_batch()
    lower, upper = model.model.text_encoder.encoder.layer
    entering = []
    upper.register_forward_pre_hook(lambda module, args: entering.append(args[0]))

    def kept(run):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda x: x):
            run()
        return len(kept)

    model(**batch)
    assert entering
    assert not any(hidden.requires_grad for hidden in entering)
    hidden = entering[0].detach()
    assert kept(lambda: lower(hidden)) == 0
    assert kept(lambda: upper(hidden)) > 0


def test_frozen_layers_have_no_dropout_in_training(make_config, make_batch):
    dropout = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    model = VideoQAForMultipleChoice(make_config(dropout, num_tuned_text_layers=1)).train()
    encoder = model.model.text_encoder
    lower, upper = encoder.encoder.layer
    assert model.training
    assert not any(module.training for part in (encoder.embeddings, lower) for module in part.modules())
    assert all(module.training for module in upper.modules())
    seen = []
    upper.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    batch = inputs_of(make_batch())
    first, second = model(**batch).logits, model(**batch).logits
    assert torch.equal(*seen)  # up to here nothing is drawn
    assert not torch.allclose(first, second)  # from here on it is
    model.eval()
    assert not any(module.training for module in model.modules())
    assert torch.allclose(model(**batch).logits, model(**batch).logits)


def test_a_wholly_frozen_encoder_is_deterministic_in_training(make_config, make_batch):
    dropout = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    model = VideoQAForMultipleChoice(make_config(dropout, num_tuned_text_layers=0)).train()
    batch = inputs_of(make_batch())
    assert torch.equal(model(**batch).logits, model(**batch).logits)


def test_one_step_of_training_lowers_the_loss_and_leaves_frozen_weights(make_model, make_batch):
    model, batch = make_model(num_tuned_text_layers=1).train(), make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    assert model(**batch).loss < loss
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert moved <= trained
    assert {name.split(".")[1] for name in moved if name.startswith("model.")} == {
        "text_encoder", "text_pooling", "video_pooling", "visual_attention",
    }  # fmt: skip
