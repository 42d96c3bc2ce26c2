"""The scoring network as one graph, by `torch.export` and as an ONNX file, for batches of any shape.

A graph cannot sort rows by their lengths as the model does, so this one encodes padding too, and lets it take part in
nothing. All else is computed by the model's own parts, with its own weights.
"""

import os
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from .files import write_whole
from .modeling_videoqa import RecurrentPooling, VideoQAForMultipleChoice, VideoQAModelOutput

ROWS = ("input_ids", "attention_mask", "token_type_ids")
FRAMES = ("video_features", "frame_mask")
OUTPUTS = ("logits", "start_logits", "end_logits")
# Which dimensions of an input may have any size. The frames of a segment are as many as the config says.
DYNAMIC = dict.fromkeys(ROWS, ("batch_size", "num_choices", "num_segments", "length"))
DYNAMIC |= dict.fromkeys(("segment_mask", *FRAMES), ("batch_size", "num_segments"))
# What they are while the graph is recorded: any other number would do, but 1 would be taken for a constant.
RECORDED = {"batch_size": 2, "num_choices": 3, "num_segments": 4, "length": 7}
TOLERANCE = 1e-4
LARGEST_FILE = 2**31  # bytes of a protocol buffer
INT32 = 6  # onnx.TensorProto.INT32


@torch.library.custom_op("modeling_videoqa::gru", mutates_args=())
def recurrent_states(rows: Tensor, mask: Tensor, weights: list[Tensor]) -> Tensor:
    """
    The GRU of [`RecurrentPooling`] as one operator: torch's own would be unrolled over the segments of the recorded
    batch, and ONNX has one that knows about lengths, too.

    Args:
        rows (`Tensor[num_rows, num_segments, hidden_size]`)
        mask (`BoolTensor[num_rows, num_segments]`): Valid segments, padding at the end.
        weights (`list[Tensor]`): The GRU's parameters, in their order.

    Returns:
        States `Tensor[num_rows, num_segments, 2 * hidden_size]`, 0 at padded segments.
    """
    with torch.device("meta"):
        pooling = RecurrentPooling(rows.shape[-1])
    names = [name for name, _ in pooling.named_parameters()]
    states, _ = functional_call(pooling, dict(zip(names, weights, strict=True)), (rows[:, None], mask))
    return states[:, 0]


@recurrent_states.register_fake
def _(rows: Tensor, mask: Tensor, weights: list[Tensor]) -> Tensor:
    return rows.new_empty(rows.shape[0], rows.shape[1], 2 * rows.shape[2])


def _onnx_recurrent_states(op) -> Callable:
    """The same in ONNX; `op` are its operators."""

    def translation(rows, mask, weights):
        size = rows.shape[-1]
        # Gates: reset, update, new -> update, reset, new.
        order = op.Constant(value_ints=[*range(size, 2 * size), *range(size), *range(2 * size, 3 * size)])
        weights = [op.Unsqueeze(op.Gather(weight, order, axis=0), [0]) for weight in weights]
        w_input, w_hidden, b_input, b_hidden = (
            op.Concat(forward, backward, axis=0) for forward, backward in zip(weights[:4], weights[4:], strict=True)
        )
        states, _ = op.GRU(
            op.Transpose(rows, perm=[1, 0, 2]),
            w_input,
            w_hidden,
            op.Concat(b_input, b_hidden, axis=1),
            op.ReduceSum(op.Cast(mask, to=INT32), [1], keepdims=0),  # lengths
            direction="bidirectional",
            hidden_size=size,
            linear_before_reset=1,
        )  # (num_segments, 2, num_rows, hidden_size)
        return op.Reshape(op.Transpose(states, perm=[2, 0, 1, 3]), [0, 0, -1])

    return translation


class ScoringNetwork(nn.Module):
    """
    What inference needs of a model, without anything that depends on the values of a batch.

    Args:
        model ([`VideoQAForMultipleChoice`]): Its parts are used, not copied.
    """

    def __init__(self, model: VideoQAForMultipleChoice):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        segment_mask: Tensor,
        video_features: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            input_ids, attention_mask, token_type_ids
                (`LongTensor[batch_size, num_choices, num_segments, length]`): Padding on the right.
            segment_mask (`BoolTensor[batch_size, num_segments]`):
                Valid segments, at least one for each clip, padding at the end. Nothing here can check that.
            video_features (`FloatTensor[batch_size, num_segments, num_frames, video_feature_size]`, *optional*)
            frame_mask (`BoolTensor[batch_size, num_segments, num_frames]`, *optional*)

        Returns:
            `logits` `Tensor[batch_size, num_choices]`, `start_logits` and `end_logits`
            `Tensor[batch_size, num_segments]`, as in [`VideoQAOutput`].
        """
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "segment_mask": segment_mask}
        if video_features is not None:
            given |= {"video_features": video_features, "frame_mask": frame_mask}
        sizes = dict(zip(DYNAMIC["input_ids"], input_ids.shape, strict=True))
        for name, value in given.items():  # one symbol for each size, and not as many as there are inputs
            for place, size in enumerate(DYNAMIC[name]):
                torch._check(value.shape[place] == sizes[size])
        base = self.model.model
        text = self.encode(input_ids, attention_mask, token_type_ids, segment_mask)
        states, hypotheses = _pool(base.text_pooling, text, segment_mask)
        outputs = VideoQAModelOutput(text_states=states, hypotheses=hypotheses, segment_mask=segment_mask)
        if video_features is not None:
            frame_mask = frame_mask & segment_mask[:, :, None]
            values = base.visual_attention.project(video_features.masked_fill(~frame_mask[..., None], 0.0))
            attended, _ = base.visual_attention.attend(text, values, frame_mask)
            outputs.video_hypotheses = _pool(base.video_pooling, attended, segment_mask)[1]
        scores = self.model.score(outputs)
        return tuple(scores[name] for name in OUTPUTS)

    def encode(self, input_ids, attention_mask, token_type_ids, segment_mask) -> Tensor:
        """`VideoQAModel.encode_segments` of all rows in one piece."""
        valid = segment_mask[:, None] & attention_mask.ne(0).any(dim=-1)  # (batch_size, num_choices, num_segments)
        first = torch.arange(attention_mask.shape[-1], device=attention_mask.device) == 0
        attention_mask = attention_mask.masked_fill(~valid[..., None] & first, 1)  # no row without a token: no NaN
        rows = (part.flatten(0, 2) for part in (input_ids, attention_mask, token_type_ids))
        return self.model.model.encode_text(*rows).unflatten(0, valid.shape).masked_fill(~valid[..., None], 0.0)


def _pool(pooling: RecurrentPooling, rows: Tensor, segment_mask: Tensor) -> tuple[Tensor, Tensor]:
    """`RecurrentPooling.forward` by the operator above."""
    mask = segment_mask[:, None].expand(-1, rows.shape[1], -1).flatten(0, 1)
    states = recurrent_states(rows.flatten(0, 1), mask, list(pooling.parameters())).unflatten(0, rows.shape[:2])
    return states, pooling.pool(states, segment_mask)


def export_program(model: VideoQAForMultipleChoice, batch: Mapping[str, Tensor]) -> ExportedProgram:
    """
    The scoring network as a graph of `torch.export`, for any batch size, number of choices and of segments, and length
    of the rows. It takes [`ScoringNetwork`]'s arguments by name.

    To load a program that was saved, import this module first: it brings the operator of the GRU.

    Args:
        model ([`VideoQAForMultipleChoice`]): In float32; it is put into evaluation mode.
        batch (`Mapping[str, Tensor]`):
            A batch of the processor, of any shape. The graph takes frames if the batch has `video_features`.

    Raises:
        ValueError: for a batch or a model that no graph can be made of.

    Example:

    ```python
    >>> import torch
    >>> from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice
    >>> from modeling_videoqa.export import export_program

    >>> text_config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    >>> model = VideoQAForMultipleChoice(VideoQAConfig(text_config=text_config, video_feature_size=None))
    >>> rows = torch.ones(1, 5, 3, 12, dtype=torch.long)  # 1 question, 5 choices, 3 segments
    >>> batch = {"input_ids": rows, "attention_mask": rows, "token_type_ids": rows}
    >>> batch["segment_mask"] = torch.ones(1, 3, dtype=torch.bool)
    >>> network = export_program(model, batch).module()
    >>> batch = {name: torch.cat([value] * 4) for name, value in batch.items()}  # 4 questions
    >>> logits, start_logits, end_logits = network(**batch)
    >>> logits.shape, start_logits.shape
    (torch.Size([4, 5]), torch.Size([4, 3]))
    ```
    """
    if model.dtype != torch.float32:
        raise ValueError(
            f"The model's weights are {model.dtype}. Allowed: torch.float32. Load it with dtype=torch.float32."
        )
    inputs = _resized(_inputs(model, batch), RECORDED)
    shapes = {name: dict.fromkeys(range(len(DYNAMIC[name])), Dim.DYNAMIC) for name in inputs}
    with torch.no_grad():
        try:
            return torch.export.export(ScoringNetwork(model).eval(), (), inputs, dynamic_shapes=shapes)
        except Exception as error:  # torch names no class for what it cannot export
            raise ValueError(
                f"torch.export cannot make a graph of the text encoder ({model.config.text_config.model_type}) with an "
                "attention of any length. Allowed: encoders whose computation does not depend on the values of a "
                "batch, such as bert or roberta. See the error above for what is in the way; try "
                'attn_implementation="eager" when loading, or another encoder.'
            ) from error


def export_onnx(model: VideoQAForMultipleChoice, path: str | os.PathLike, batch: Mapping[str, Tensor]) -> float:
    """
    Write the scoring network as one `.onnx` file with its weights, for batches of any shape, after onnxruntime has
    given the model's own scores with it: for this batch, and for one of other shapes.

    Args:
        model, batch: As for [`export_program`].
        path (`str` or `os.PathLike`): Of the file; an older one is replaced as a whole.

    Returns:
        `float`: The largest difference of a score.

    Raises:
        ImportError: A package is missing.
        ValueError: as [`export_program`], and for scores that differ by more than 1e-4. Nothing is written then.
    """
    onnxruntime, op = _packages()
    program = export_program(model, batch)
    size = sum(value.nbytes for value in program.state_dict.values())
    if size >= LARGEST_FILE:
        raise ValueError(
            f"The weights are {size:,} bytes. Allowed: less than {LARGEST_FILE:,}, what one .onnx file can hold. "
            "Export a smaller encoder, or use export_program."
        )
    names = program.graph_signature.user_inputs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name")  # two inputs have it, as they should
        content = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            output_names=OUTPUTS,
            dynamic_shapes={name: dict(enumerate(DYNAMIC[name])) for name in names},
            custom_translation_table={torch.ops.modeling_videoqa.gru.default: _onnx_recurrent_states(op)},
        ).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = max(_difference(model, session, inputs) for inputs in _checked_batches(_inputs(model, batch)))
    if not difference <= TOLERANCE:  # nor is NaN
        raise ValueError(
            f"A score of the ONNX graph differs by {difference:.2g} from the model's. Allowed: at most {TOLERANCE}. "
            "Nothing was written; try the versions of onnx, onnxscript and onnxruntime in constraints.txt."
        )
    write_whole(path, content)
    return difference


def _packages() -> tuple:
    """onnxruntime, and the operators of onnxscript."""
    try:
        import onnx  # noqa: F401 (torch asks for it late, and in other words)
        import onnxruntime
        from onnxscript import opset18
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The package {error.name} is not installed. Allowed: ONNX export with onnx, onnxscript and onnxruntime. "
            "Run: pip install modeling-videoqa[export]"
        ) from error
    return onnxruntime, opset18


def _inputs(model: VideoQAForMultipleChoice, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the network takes of a batch."""
    has_frames = model.config.video_feature_size is not None and "video_features" in batch
    names = (*ROWS, "segment_mask", *(FRAMES if has_frames else ()))
    missing = [name for name in names if batch.get(name) is None]
    if missing or "pixel_values" in batch:
        raise ValueError(
            f"The batch has {sorted(batch)}. Allowed: {', '.join(names)}, and video_features in the place of "
            "pixel_values. Take a batch of the processor, with video_features= if it is to have frames."
        )
    return {name: batch[name].to(model.device) for name in names}


def _resized(inputs: Mapping[str, Tensor], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The same in other sizes: cut, or with what comes last repeated, so that padding stays at the end."""
    resized = dict(inputs)
    for name, value in inputs.items():
        for place, size in enumerate(DYNAMIC[name]):
            index = torch.arange(sizes[size], device=value.device).clamp(max=value.shape[place] - 1)
            resized[name] = resized[name].index_select(place, index)
    return resized


def _checked_batches(inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The batch, and one with one more of all but tokens, half as many of these, and a clip of one segment."""
    sizes = dict(zip(DYNAMIC["input_ids"], inputs["input_ids"].shape, strict=True))
    changed = {name: size + 1 for name, size in sizes.items()} | {"length": sizes["length"] // 2 + 1}
    other = _resized(inputs, changed)
    other["segment_mask"][-1, 1:] = False
    return inputs, other


def _difference(model: VideoQAForMultipleChoice, session, inputs: dict[str, Tensor]) -> float:
    with torch.inference_mode():
        expected = model(**inputs)
    found = session.run(list(OUTPUTS), {name: value.numpy(force=True) for name, value in inputs.items()})
    differences = []
    for name, scores in zip(OUTPUTS, found, strict=True):
        left, right = torch.from_numpy(scores), expected[name].cpu()
        differences.append(torch.where(left == right, 0.0, (left - right).abs()).max())  # -inf is equal to -inf
    return torch.stack(differences).max().item()
