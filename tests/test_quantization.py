"""The encoder in int8 or bfloat16: nearly the same answers, the model itself untouched, and clear errors."""

import copy

import pytest
import torch
from test_common_checks import ENCODERS
from torch import nn

from modeling_videoqa import quantization
from modeling_videoqa.quantization import LONGEST_PLAIN_ATTENTION, Int8Linear, cast_bf16, quantize_int8


def inference(batch):
    targets = ("labels", "start_positions", "end_positions", "anchor_input_ids")
    return {name: value for name, value in batch.items() if name not in targets}


def test_the_examples_in_the_docstrings_run(failed_examples):
    assert failed_examples(quantization) == 0


def distance(found, exact):
    return ((found.logits - exact.logits).abs().max() / exact.logits.std()).item()


@pytest.mark.parametrize("family", ["bert", "modernbert"])  # the second has no biases
@pytest.mark.parametrize("measured", [False, True], ids=["no batch", "a batch"])
def test_answers_are_nearly_the_same_and_not_quite(family, measured, make_model, make_batch):
    model = make_model(scale=0.05, text_config=ENCODERS[family]())  # weights as large as those of a trained encoder
    batch = make_batch()
    fast = quantize_int8(model, batch if measured else None)
    with torch.inference_mode():
        found, exact = fast(**inference(batch)), model(**inference(batch))
    assert 0 < distance(found, exact) < 0.05
    assert found.start_logits.shape == exact.start_logits.shape


@pytest.mark.parametrize("longest", [LONGEST_PLAIN_ATTENTION, LONGEST_PLAIN_ATTENTION + 1])  # plain attention, and sdpa
@pytest.mark.parametrize("family", ENCODERS)
def test_answers_in_bfloat16_are_as_near_as_under_autocast(family, longest, make_model, make_batch):
    model = make_model(text_config=ENCODERS[family](), max_text_length=longest)
    batch = inference(make_batch())
    with torch.inference_mode():
        found, exact = cast_bf16(model)(**batch), model(**batch)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(**batch)
    assert 0 < distance(found, exact) < 3 * distance(rounded, exact)
    assert found.logits.dtype is torch.float32


def test_a_token_with_large_values_takes_nothing_from_the_others():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(32, 8), torch.randn(5, 32)
    expected, inputs = linear(inputs), inputs * torch.tensor([1.0, 1.0, 1000.0, 1.0, 0.0])[:, None]
    found = Int8Linear(linear)(inputs)
    assert (found - expected)[[0, 1, 3]].abs().max() < 0.03
    torch.testing.assert_close(found[4], linear.bias)


def test_an_input_with_large_values_takes_little_from_the_others_once_it_is_known():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(32, 8), torch.randn(64, 32) * torch.tensor([100.0] + 31 * [1.0])
    with torch.no_grad():
        linear.weight[:, 0] /= 100
        expected = linear(inputs)
    errors = [(Int8Linear(linear, known)(inputs) - expected).norm() for known in (None, inputs.abs().amax(dim=0))]
    assert errors[1] < errors[0] / 5


def test_an_input_that_was_not_seen_before_takes_little_from_the_others():
    torch.manual_seed(0)
    linear, inputs = nn.Linear(32, 8), torch.randn(64, 32)
    largest = inputs.abs().amax(dim=0)
    largest[3] = 0.0
    errors = [(Int8Linear(linear, known)(inputs) - linear(inputs)).norm() for known in (None, largest)]
    assert errors[1] < 20 * errors[0] < linear(inputs).norm()


def test_labels_of_the_batch_change_nothing(make_model, make_batch):
    model, batch = make_model(), make_batch()
    batch.pop("anchor_input_ids")
    with_labels, without = quantize_int8(model, batch), quantize_int8(model, inference(batch))
    assert torch.equal(with_labels(**batch).logits, without(**batch).logits)


MAKE = pytest.mark.parametrize("make", [quantize_int8, lambda model, batch: cast_bf16(model)], ids=["int8", "bf16"])


@MAKE
def test_a_copy_answers_the_same(make, make_model, make_batch):
    batch = inference(make_batch())
    model = make(make_model(), batch)
    assert torch.equal(copy.deepcopy(model)(**batch).logits, model(**batch).logits)


def test_every_linear_layer_of_the_encoder_and_nothing_else_is_int8(make_model):
    model = make_model()
    found = quantize_int8(model)
    stock = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    left = {name for name, module in found.named_modules() if type(module) is nn.Linear}
    assert left == {name for name in stock if "text_encoder." not in name}
    assert len(left) < len(stock)


def test_the_encoder_and_nothing_else_is_in_bfloat16(make_model):
    for name, parameter in cast_bf16(make_model()).named_parameters():
        assert parameter.dtype is (torch.bfloat16 if "text_encoder." in name else torch.float32), name


@MAKE
def test_the_model_itself_stays_as_it_is(make, make_model, make_batch):
    model, batch = make_model(), inference(make_batch())
    before, expected = {name: value.clone() for name, value in model.state_dict().items()}, model(**batch).logits
    make(model.train(), None)
    assert model.training
    assert model.dtype is torch.float32
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(**batch).logits, expected)  # its attention is its own as well


def test_another_dtype_is_refused(make_model):
    with pytest.raises(ValueError, match=r"in torch.float64. Allowed: cpu, torch.float32.*Call model.to"):
        quantize_int8(make_model().double())


def test_another_device_is_refused(make_model):
    with pytest.raises(ValueError, match=r"is on meta. Allowed: cpu.*Call the model under torch.autocast"):
        cast_bf16(make_model().to("meta"))
