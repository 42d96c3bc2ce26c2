"""The encoder in int8: nearly the same answers, the model itself untouched, and clear errors."""

import pytest
import torch
from torch import nn

from modeling_videoqa import quantization
from modeling_videoqa.quantization import quantize_int8


def inference(batch):
    targets = ("labels", "start_positions", "end_positions", "anchor_input_ids")
    return {name: value for name, value in batch.items() if name not in targets}


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(quantization) == 0


def test_answers_are_nearly_the_same_and_not_quite(make_model, make_batch):
    model, batch = make_model(scale=0.05), inference(make_batch())  # weights as large as those of a trained encoder
    with torch.inference_mode():
        exact, fast = model(**batch), quantize_int8(model)(**batch)
    torch.testing.assert_close(fast.logits, exact.logits, rtol=0, atol=0.1 * exact.logits.std().item())
    assert not torch.equal(fast.logits, exact.logits)
    assert fast.start_logits.shape == exact.start_logits.shape


def test_every_linear_layer_of_the_encoder_and_nothing_else_is_int8(make_model):
    model = make_model()
    found = quantize_int8(model)
    stock = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    left = {name for name, module in found.named_modules() if type(module) is nn.Linear}
    assert left == {name for name in stock if "text_encoder." not in name}
    assert len(left) < len(stock)


def test_the_model_itself_stays_as_it_is(make_model):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_int8(model.train())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_dtype_is_refused(make_model):
    with pytest.raises(ValueError, match=r"in torch.float64. Allowed: cpu, torch.float32.*Call model.to"):
        quantize_int8(make_model().double())
