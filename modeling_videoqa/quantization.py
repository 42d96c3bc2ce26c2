"""The text encoder in int8 or in bfloat16, for inference on a CPU."""

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .modeling_videoqa import VideoQAForMultipleChoice

TINY = 1e-12  # in the place of the largest value of a row of zeros
# Tokens of a row up to which an encoder in bfloat16 is about as fast with plain attention as with sdpa, and up to a
# tenth faster with heads of 64 or rows of many lengths; above, scores of all tokens by all tokens cost more.
LONGEST_PLAIN_ATTENTION = 128


class Int8Linear(nn.Module):
    """
    A linear layer in int8: weights with a scale for each output, inputs with one for each row.

    torch's kernel quantizes its whole input with one scale, and few tokens have values many times those of the others:
    each row is divided by its largest value first, and what comes out is multiplied by it.

    Args:
        linear (`nn.Linear`): In float32.
        largest (`Tensor[in_features]`, *optional*): Largest values that were seen of each input. The inputs are
            divided, and the weights multiplied, by the root of largest input over largest weight, which brings the
            inputs nearer to one range (Xiao et al. 2023, SmoothQuant, eq. 4).
    """

    def __init__(self, linear: nn.Linear, largest: Tensor | None = None):
        super().__init__()
        weight = linear.weight.detach()
        self.bias = None if linear.bias is None else linear.bias.detach().clone()
        self.smoothing = None
        if largest is not None:
            # An input that was next to nothing so far may be more later, and is not to fill its row then.
            largest = largest.clamp(largest.max().clamp(TINY) / 1000)
            self.smoothing = (weight.abs().amax(dim=0).clamp(TINY) / largest).sqrt()
            weight = weight / self.smoothing
        scales = weight.abs().amax(dim=1).clamp(TINY).double() / 127
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        self.weight = torch.ops.quantized.linear_prepack(
            torch.quantize_per_channel(weight, scales, zeros, axis=0, dtype=torch.qint8), None
        )

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """`Tensor[..., in_features]` -> `Tensor[..., out_features]`."""
        if self.smoothing is not None:
            inputs = inputs * self.smoothing
        # Not as a norm: on a CPU torch takes ten times as long for that.
        largest = inputs.abs().amax(dim=-1, keepdim=True).clamp_(TINY)
        # Seven bits: without VNNI instructions the sums of two products overflow with eight, and answers are to be the
        # same on all machines.
        outputs = torch.ops.quantized.linear_dynamic(inputs / largest, self.weight, reduce_range=True)
        return outputs.mul_(largest) if self.bias is None else torch.addcmul(self.bias, outputs, largest, out=outputs)


class Bf16Linear(nn.Module):
    """
    A linear layer in bfloat16 whose weights are laid out once, as oneDNN's kernel reads them. `nn.Linear` lays them out
    at every call, and writes the bias into the outputs before it multiplies.

    Args:
        linear (`nn.Linear`): In bfloat16.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach().clone()

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """`Tensor[..., in_features]` -> `Tensor[..., out_features]`, both bfloat16."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")

    def __deepcopy__(self, memo: dict) -> "Bf16Linear":
        return self  # nothing in it changes, and torch cannot copy a weight in oneDNN's own layout


def cast_bf16(model: VideoQAForMultipleChoice) -> VideoQAForMultipleChoice:
    """
    A copy of a model whose text encoder is in bfloat16: faster than under autocast, which casts weights and inputs for
    each layer, on a CPU that computes in bfloat16 itself ([`~modeling_videoqa.training.native_bf16`]); on another one
    many times slower. `examples/evaluate.py` answers with it where it helps.

    The copy answers and cannot be trained or saved: save the model itself, and cast it where it is used.

    Args:
        model ([`VideoQAForMultipleChoice`]): On the CPU.

    Returns:
        [`VideoQAForMultipleChoice`]: In evaluation mode.

    Raises:
        `ValueError`: The model is on another device.

    Example:

    ```python
    >>> from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

    >>> text_config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, video_feature_size=None))
    >>> cast_bf16(model)(input_ids=torch.randint(1, 100, (1, 5, 3, 12))).logits.shape
    torch.Size([1, 5])
    ```
    """
    if model.device.type != "cpu":
        raise ValueError(
            f"The model is on {model.device}. Allowed: cpu; elsewhere autocast does it. Call the model under "
            "torch.autocast(..., torch.bfloat16)."
        )
    cast = copy.deepcopy(model).eval()
    encoder = cast.model.text_encoder.to(torch.bfloat16)
    if cast.model.token_type_embeddings is not None:  # of an encoder without any; what it gives goes into the encoder
        cast.model.token_type_embeddings.to(torch.bfloat16)
    if cast.config.max_text_length <= LONGEST_PLAIN_ATTENTION:
        encoder.set_attn_implementation("eager")
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        for name, linear in _linears(encoder).items():
            encoder.set_submodule(name, Bf16Linear(linear))
    return cast


def quantize_int8(
    model: VideoQAForMultipleChoice, batch: Mapping[str, Tensor] | None = None
) -> VideoQAForMultipleChoice:
    """
    A copy of a model whose text encoder has its linear layers in int8: a quarter of the encoder's memory, and faster
    (benchmarks/RESULTS.md, with what it costs on TVQA+). Measure yours with `examples/evaluate.py --int8`.

    The copy answers and cannot be trained or saved: save the model itself, and quantize it where it is used.

    Args:
        model ([`VideoQAForMultipleChoice`]): On the CPU, in float32.
        batch (`dict`, *optional*):
            Some questions as the processor makes them, with or without labels, the more like the later ones the better:
            the ranges of all layers' inputs are measured on them, and the answers come nearer to those of the model.

    Returns:
        [`VideoQAForMultipleChoice`]: In evaluation mode.

    Raises:
        `ValueError`: The model is on another device or in another dtype.

    Example:

    ```python
    >>> from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

    >>> text_config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, video_feature_size=None))
    >>> batch = {"input_ids": torch.randint(1, 100, (1, 5, 3, 12))}
    >>> quantize_int8(model, batch)(**batch).logits.shape
    torch.Size([1, 5])
    ```
    """
    if model.device.type != "cpu" or model.dtype is not torch.float32:
        raise ValueError(
            f"The model is on {model.device} in {model.dtype}. Allowed: cpu, torch.float32; int8 is for CPUs. "
            'Call model.to("cpu").float() first.'
        )
    quantized = copy.deepcopy(model).eval()
    encoder = quantized.model.text_encoder
    linears = _linears(encoder)
    largest = {} if batch is None else _largest_inputs(quantized, linears, batch)
    with warnings.catch_warnings():
        # torch keeps these operators and moves the tools around them to another package.
        warnings.filterwarnings("ignore", message=".*quantize_per_channel.*")
        for name, linear in linears.items():
            encoder.set_submodule(name, Int8Linear(linear, largest.get(name)))
    return quantized


def _linears(encoder: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in encoder.named_modules() if type(module) is nn.Linear}


def _largest_inputs(model, linears: Mapping[str, nn.Linear], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name of the layer the largest absolute value of each input while the model answers the batch."""
    largest: dict[str, Tensor] = {}

    def watch(name: str):
        def hook(module: nn.Module, arguments: tuple[Tensor]) -> None:
            found = arguments[0].detach().abs().flatten(0, -2).amax(dim=0)
            largest[name] = torch.maximum(largest[name], found) if name in largest else found

        return hook

    handles = [linear.register_forward_pre_hook(watch(name)) for name, linear in linears.items()]
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return largest
