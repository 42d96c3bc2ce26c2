"""Layers for rows give what the whole encoder gives: the last one for its first token alone, rows end to end."""

import copy

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AttentionMaskInterface,
    AutoConfig,
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from modeling_videoqa import VideoQAConfig, VideoQAModel, layers_videoqa
from modeling_videoqa.layers_videoqa import RowLayerMixin, install_row_layers

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
FAMILIES = [
    BertConfig(**SIZES),
    RobertaConfig(**SIZES, pad_token_id=0),
    XLMRobertaConfig(**SIZES, pad_token_id=0),
    ElectraConfig(**SIZES, embedding_size=16),
    CamembertConfig(**SIZES, pad_token_id=0),
]
# Of another form: through the attention interface.
OTHERS = [
    DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, dropout=0.0, attention_dropout=0.0),
    ModernBertConfig(  # windows of two tokens to either side in all layers but every third
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        local_attention=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    ),
]  # fmt: skip
OTHERS += [
    AutoConfig.for_model(name, **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    for name in layers_videoqa.TAKE_THE_INTERFACE
    if name in CONFIG_MAPPING
    and name not in ("distilbert", "modernbert")  # the oldest transformers has not all of them
]


def both(config, attention, dtype=torch.float32):
    torch.manual_seed(0)
    whole = AutoModel.from_config(config, attn_implementation=attention).to(dtype)
    first = copy.deepcopy(whole)
    assert install_row_layers(first.encoder.layer)
    assert all(isinstance(layer, RowLayerMixin) for layer in first.encoder.layer)
    return whole, first


def rows(padded):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 7, dtype=torch.long)
    if padded:
        mask[1, 4:] = mask[2, 1:] = 0
    return {"input_ids": torch.randint(1, 50, (3, 7), generator=generator), "attention_mask": mask}


@pytest.mark.parametrize("padded", [False, True], ids=["whole rows", "padded rows"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_values_and_gradients_are_those_of_the_whole_layer(config, attention, padded):
    whole, first = both(config, attention, torch.float64)
    found = []
    for model in (whole, first):
        states = model(**rows(padded)).last_hidden_state
        states[:, 0].pow(2).sum().backward()
        found.append(states[:, 0])
    assert first(**rows(padded)).last_hidden_state.shape == (3, 1, 16)
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    theirs = dict(first.named_parameters())
    for name, parameter in whole.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-9, atol=1e-10, msg=name)


def test_the_weights_keep_their_names():
    whole, first = both(FAMILIES[0], "sdpa")
    assert list(whole.state_dict()) == list(first.state_dict())
    assert type(copy.deepcopy(first).encoder.layer[-1]) is type(first.encoder.layer[-1])


def test_checkpointed_gradients_are_the_same():
    whole, first = both(FAMILIES[0], "sdpa")
    first.gradient_checkpointing_enable()
    for model in (whole, first):
        model.train()(**rows(padded=True)).last_hidden_state[:, 0].sum().backward()
    weight = "encoder.layer.0.attention.self.key.weight"
    torch.testing.assert_close(first.get_parameter(weight).grad, whole.get_parameter(weight).grad)


def test_dropout_acts_in_training_alone():
    _, first = both(BertConfig(**SIZES | {"attention_probs_dropout_prob": 0.5, "hidden_dropout_prob": 0.5}), "eager")
    draws = [first.train()(**rows(False)).last_hidden_state for _ in range(2)]
    assert not torch.equal(*draws)
    fixed = [first.eval()(**rows(False)).last_hidden_state for _ in range(2)]
    assert torch.equal(*fixed)


def test_an_unknown_attention_computes_everything(monkeypatch):
    whole, first = both(FAMILIES[0], "sdpa")
    monkeypatch.setattr(layers_videoqa, "ATTENTIONS", ("eager",))
    found = first.eval()(**rows(True)).last_hidden_state
    assert torch.equal(found, whole.eval()(**rows(True)).last_hidden_state[:, :1])


def test_layers_of_another_form_stay_as_they_are():
    distil = AutoModel.from_config(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24))
    before = [type(layer) for layer in distil.transformer.layer]
    assert not install_row_layers(distil.transformer.layer)
    assert [type(layer) for layer in distil.transformer.layer] == before


# --- rows end to end


def attend_row_by_row(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):
    """What torch.nn.attention.varlen documents, in plain words; its own kernels need a GPU."""
    found = []
    for row in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[row] : cu_seq_q[row + 1]].transpose(0, 1)  # (num_heads, length, head_size)
        k, v = (states[cu_seq_k[row] : cu_seq_k[row + 1]].transpose(0, 1) for states in (key, value))
        assert q.shape[1] <= max_q
        assert k.shape[1] <= max_k
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if window_size != (-1, -1):
            ahead = torch.arange(k.shape[1]) - torch.arange(q.shape[1])[:, None]
            scores = scores.masked_fill((ahead < -window_size[0]) | (ahead > window_size[1]), -torch.inf)
        found.append((scores.softmax(dim=-1) @ v).transpose(0, 1))
    return torch.cat(found)


def text_model(config):
    torch.manual_seed(0)
    model = VideoQAModel(VideoQAConfig(text_config=config, video_feature_size=None, max_text_length=9)).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(True)


def text_rows():
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(9) < torch.tensor([9, 4, 1, 7, 4])[:, None]).long()
    return torch.randint(1, 50, mask.shape, generator=generator), mask, torch.randint(0, 4, mask.shape)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("config", FAMILIES + OTHERS, ids=lambda config: config.model_type)
def test_rows_end_to_end_are_those_of_the_padded_batch(config, checkpointing, monkeypatch):
    monkeypatch.setattr(layers_videoqa, "varlen_attn", attend_row_by_row)
    model, rows, found = text_model(config).train(), text_rows(), []
    if checkpointing:
        model.gradient_checkpointing_enable()
    for encode in (model.encode_text, model.encode_end_to_end):
        model.zero_grad()
        states = encode(*rows)
        states.pow(2).sum().backward()
        found.append((states, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-10, atol=1e-10)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-8, atol=1e-10, msg=name)


def test_no_place_is_padded_end_to_end(monkeypatch):
    seen = []
    monkeypatch.setattr(layers_videoqa, "varlen_attn", lambda q, k, v, *a, **kw: seen.append((len(q), len(k))) or q)
    rows = text_rows()
    text_model(FAMILIES[0]).encode_end_to_end(*rows)
    assert seen == [(25, 25), (5, 25)]  # the last layer asks for the first tokens alone


@pytest.mark.parametrize("config", OTHERS, ids=lambda config: config.model_type)
def test_through_the_interface_no_mask_of_all_tokens_by_all_is_made(config, monkeypatch):
    seen = []

    def attend(query, *args, **kwargs):
        seen.append(len(query))
        return query

    def no_mask(*args, **kwargs):
        raise AssertionError("a mask was made")

    model = text_model(config)
    assert model.encode_text(*text_rows()).shape == (5, 16)
    monkeypatch.setattr(layers_videoqa, "varlen_attn", attend)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, layers_videoqa.SDPA_OR_VARLEN, no_mask)
    model.encode_end_to_end(*text_rows())
    assert seen == [25] * config.num_hidden_layers


@pytest.mark.parametrize("config", OTHERS, ids=lambda config: config.model_type)
def test_another_attention_that_the_user_asks_for_is_kept(config):
    config = VideoQAConfig(text_config=config, video_feature_size=None, max_text_length=9)
    model = VideoQAModel._from_config(config, attn_implementation="eager")
    assert model.text_encoder.config._attn_implementation == "eager"
    assert not layers_videoqa.attends_end_to_end(model.text_encoder, 9)


def test_windows_need_a_kernel_that_has_them(monkeypatch):
    encoder = text_model(OTHERS[1]).text_encoder
    monkeypatch.setattr(layers_videoqa, "VARLEN_HAS_WINDOWS", False)
    assert [layers_videoqa.attends_end_to_end(encoder, length) for length in (2, 3)] == [True, False]
    monkeypatch.setattr(layers_videoqa, "VARLEN_HAS_WINDOWS", True)
    assert layers_videoqa.attends_end_to_end(encoder, 3)


def test_a_whole_answer_is_the_same_end_to_end(make_model, make_batch, monkeypatch):
    monkeypatch.setattr(layers_videoqa, "varlen_attn", attend_row_by_row)
    model, batch = make_model(), make_batch(segments=(3, 1))
    expected = model(**batch)
    monkeypatch.setattr(model.model, "takes_rows_end_to_end", lambda: True)
    found = model(**batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)


def test_a_cpu_takes_rows_by_blocks(make_model):
    assert not make_model().model.takes_rows_end_to_end()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("config", FAMILIES + OTHERS, ids=lambda config: config.model_type)
def test_on_a_gpu_rows_go_end_to_end_in_half_precision(config):
    model, rows = text_model(config).float().cuda().eval(), [rows.cuda() for rows in text_rows()]
    with torch.autocast("cuda", torch.bfloat16):
        assert model.takes_rows_end_to_end()
        found = model.encode_end_to_end(*rows)
    torch.testing.assert_close(found.float(), model.encode_text(*rows), rtol=3e-2, atol=3e-2)
