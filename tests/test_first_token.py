"""An encoder whose last layer computes its first token alone gives what the whole one gives."""

import copy

import pytest
import torch
from transformers import AutoModel, BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig, XLMRobertaConfig

from modeling_videoqa import first_token_videoqa
from modeling_videoqa.first_token_videoqa import FirstTokenMixin, compute_first_token_only

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
FAMILIES = [
    BertConfig(**SIZES),
    RobertaConfig(**SIZES, pad_token_id=0),
    XLMRobertaConfig(**SIZES, pad_token_id=0),
    ElectraConfig(**SIZES, embedding_size=16),
]


def both(config, attention, dtype=torch.float32):
    torch.manual_seed(0)
    whole = AutoModel.from_config(config, attn_implementation=attention).to(dtype)
    first = copy.deepcopy(whole)
    compute_first_token_only(first.encoder.layer[-1])
    assert isinstance(first.encoder.layer[-1], FirstTokenMixin)
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
    monkeypatch.setattr(first_token_videoqa, "ATTENTIONS", ("eager",))
    found = first.eval()(**rows(True)).last_hidden_state
    assert torch.equal(found, whole.eval()(**rows(True)).last_hidden_state[:, :1])


def test_a_layer_of_another_form_stays_as_it_is():
    distil = AutoModel.from_config(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24))
    layer = distil.transformer.layer[-1]
    before = type(layer)
    compute_first_token_only(layer)
    assert type(layer) is before
