"""The text encoder in int8, for inference on a CPU."""

import copy
import warnings

import torch
from torch import nn
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

from .modeling_videoqa import VideoQAForMultipleChoice


def quantize_int8(model: VideoQAForMultipleChoice) -> VideoQAForMultipleChoice:
    """
    A copy of a model whose text encoder has its linear layers in int8: weights by output channel, activations as they
    come. A quarter of the encoder's memory and 1.4 times the speed on a CPU with AVX2. It is not free: on TVQA+ it cost
    a small encoder 7 points of accuracy (benchmarks/RESULTS.md). Measure yours with `examples/evaluate.py --int8`.

    The copy answers and cannot be trained or saved: save the model itself, and quantize it where it is used.

    Args:
        model ([`VideoQAForMultipleChoice`]): On the CPU, in float32.

    Returns:
        [`VideoQAForMultipleChoice`]: In evaluation mode.

    Raises:
        `ValueError`: The model is on another device or in another dtype.

    Example:

    ```python
    >>> from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

    >>> text_config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, video_feature_size=None))
    >>> quantize_int8(model)(input_ids=torch.randint(1, 100, (1, 5, 3, 12))).logits.shape
    torch.Size([1, 5])
    ```
    """
    if model.device.type != "cpu" or model.dtype is not torch.float32:
        raise ValueError(
            f"The model is on {model.device} in {model.dtype}. Allowed: cpu, torch.float32; int8 is for CPUs. "
            'Call model.to("cpu").float() first.'
        )
    quantized = copy.deepcopy(model).eval()
    with warnings.catch_warnings():
        # torch keeps these operators and moves the tools around them to another package.
        warnings.filterwarnings("ignore", message=".*(torch.ao.quantization|quantize_per_channel).*")
        quantize_dynamic(quantized.model.text_encoder, {nn.Linear: per_channel_dynamic_qconfig}, inplace=True)
    return quantized
