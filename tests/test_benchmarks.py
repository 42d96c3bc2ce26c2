"""What the speed benchmarks compare is the same network, and the work that they count is the work that torch counts."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from encoding import (
    NUM_CHOICES,
    PLAIN_LENGTH,
    PLAIN_SEGMENTS,
    encoder_work,
    make_batch,
    make_model,
    make_plain,
    matrix_product_rate,
    pad_as_the_paper,
    peak_mb,
    row_lengths,
    training_step,
    tuned_parameters,
)

ROWS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("shape", ["tvqa", "short"])
def test_the_plain_way_gives_the_same_logits_loss_and_gradients(shape):
    packed = make_model("tiny").train()
    plain, batch = make_plain(packed), make_batch(2, shape)
    padded = pad_as_the_paper(batch)
    assert padded["input_ids"].shape == (2, NUM_CHOICES, PLAIN_SEGMENTS, PLAIN_LENGTH)
    found, expected = packed(**batch), plain(**padded)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    found.loss.backward()
    expected.loss.backward()
    theirs = dict(plain.named_parameters())
    assert len(tuned_parameters(packed)) == len(tuned_parameters(plain))
    for name, parameter in packed.named_parameters():
        assert (parameter.grad is None) == (theirs[name].grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_shapes_are_those_of_the_data():
    batch = make_batch(200, "tvqa")
    segments, lengths = batch["segment_mask"].sum(dim=1).float(), torch.from_numpy(row_lengths(batch, training=False))
    assert abs(segments.mean() - 22) < 1
    assert lengths.max() == PLAIN_LENGTH
    assert abs((lengths == PLAIN_LENGTH).float().mean() - 0.5) < 0.05
    assert abs(lengths[lengths < PLAIN_LENGTH].float().mean() - (4 + 15.2 + 5.6 + 12)) < 2  # the means of the files
    assert row_lengths(make_batch(3, "short"), training=True).size == 3 * (NUM_CHOICES + 1) * 5


def counted(model, batch, backward=False):
    with FlopCounterMode(display=False) as counter:
        states = model.model.encode_text(
            *(batch[name].flatten(0, 2) for name in ("input_ids", "attention_mask", "token_type_ids"))
        )
        if backward:
            states.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("tuned", "training"), [(0, False), (1, True), (2, True)])
def test_the_work_is_what_torch_counts(tuned, training):
    """On rows without padding, in eager attention: the counter knows nothing of sdpa on a CPU."""
    model = make_model("tiny", tuned=tuned).train(training)
    model.config.text_config._attn_implementation = "eager"
    batch = {name: make_batch(2, "short")[name][:, :, :3, :20] for name in ROWS}
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    lengths = batch["attention_mask"].sum(dim=-1).flatten().numpy()
    work = encoder_work(lengths, model.config.text_config, tuned=tuned)
    plain = make_plain(model)
    for parts in (model, plain):
        parts.model.requires_grad_(False)
        for layer in list(parts.model.text_encoder.encoder.layer)[2 - tuned :]:
            layer.requires_grad_(True)
    assert counted(model, batch, training) == pytest.approx(work["needed"], rel=1e-6)
    assert counted(plain, batch, training) == pytest.approx(work["whole"], rel=1e-6)


def test_a_training_step_changes_what_is_tuned_and_nothing_else():
    model, batch = make_model("tiny").train(), make_batch(1, "short")
    before = {name: value.clone() for name, value in model.named_parameters()}
    training_step(model, torch.optim.AdamW(tuned_parameters(model), lr=1e-3), batch)()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    tuned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert changed <= tuned
    assert any(name.startswith("model.text_encoder.encoder.layer.1") for name in changed)


def test_the_peak_is_that_of_the_call():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("Linux alone says it")
    assert 200 < peak_mb(lambda: torch.ones(64 * 2**20).sum()) < 400  # 256 MB of float32
    assert peak_mb(lambda: None) < 20


def test_a_matrix_product_has_a_rate():
    assert 1e8 < matrix_product_rate(16, 32, "cpu", torch.float32, least=0.01) < 1e14
