"""Frame features from video: does the decoding keep the backbone busy, and what does a killed run lose?

    python benchmarks/extraction.py

Encodes clips of 640 x 360 at 25 frames a second, samples 3 of them a second, and measures in one run: decoding alone,
decoding with the preparation of the pictures, the backbone alone (ResNet-101 with random weights), and all together.
Then where seeking is quicker than decoding what lies between, and ten runs that are killed at a random moment.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from tqdm import tqdm
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

from processing import FeatureStore, extract_features
from processing.extraction import find_clips, run_extraction
from processing.video_videoqa import iter_frames, pixel_values

HEIGHT, WIDTH, RATE = 360, 640, 25


def encode(path: Path, seconds: int, seed: int) -> None:
    """A clip of soft shapes that move, with a cut every four seconds: about as hard to decode as a film."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * RATE):
            if number % (4 * RATE) == 0:
                waves = rng.uniform(0.01, 0.08, size=(3, 2))
                grain = rng.integers(0, 24, size=(HEIGHT, WIDTH, 3))
            shapes = [np.sin(a * columns + b * rows + number / 9) for a, b in waves]
            picture = 104 + 100 * np.stack(shapes, axis=-1) + np.roll(grain, number, axis=1)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def backbone(depths: list[int], device: str) -> ResNetModel:
    torch.manual_seed(0)
    return ResNetModel(ResNetConfig(depths=depths)).eval().to(device)


def frames_a_second(work) -> float:
    """`work` returns how many frames it has done."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def measure(videos: dict, model: ResNetModel, batch_size: int, folder: Path, device: str, dtype) -> None:
    images, counts = ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.875), []

    def decode(prepare) -> int:
        counts.clear()
        run_extraction(videos, 3.0, prepare, list, lambda clip: counts.append(len(clip.times)), batch_size)
        return sum(counts)

    def compute() -> int:
        pixels = torch.randn(batch_size, 3, 224, 224, device=device)
        rounds = max(1, total // batch_size)
        with torch.inference_mode(), torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            for _ in tqdm(range(rounds), desc="batches"):
                model(pixel_values=pixels).pooler_output.float().cpu()
        return rounds * batch_size

    def extract() -> int:
        done = extract_features(videos, model, images, folder / "features", batch_size=batch_size, dtype=dtype)
        return sum(len(times) for _, times in FeatureStore(done.directory).values())

    decoding = frames_a_second(lambda: decode(list))
    total = sum(counts)
    prepared = frames_a_second(lambda: decode(lambda pictures: pixel_values(pictures, images)))
    alone = frames_a_second(compute)
    together = frames_a_second(extract)
    print(f"{total} frames of {len(videos)} clips, {os.cpu_count()} cores, {device}")
    print(f"decoding alone               {decoding:8.1f} frames a second")
    print(f"decoding and preparation     {prepared:8.1f}")
    print(f"backbone alone               {alone:8.1f}")
    print(f"all together                 {together:8.1f}   {together / min(prepared, alone):.2f} of the slower alone")


def measure_seeking(path: Path, seconds: int) -> None:
    print("seconds between two frames: seeking against decoding all")
    for gap in (1, 2, 4, 8, 16):
        times = np.arange(0.5, seconds, gap)
        spent = {}
        for seek in (True, False):
            began = time.perf_counter()
            count = sum(1 for _ in iter_frames(path, times, seek_gap=gap / 2 if seek else np.inf))
            spent[seek] = time.perf_counter() - began
        print(f"{gap:4d} s  {count:4d} frames  {spent[False] / spent[True]:6.2f} times as fast")


KILLED = """
import sys, torch
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel
from processing import extract_features
from processing.extraction import find_clips
torch.manual_seed(0)
model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
images = ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.875)
print("ready", flush=True)
extract_features(find_clips(sys.argv[1], [".mp4"]), model, images, sys.argv[2], progress=False)
"""


def measure_kills(clips: Path, store: Path, times: int = 10) -> None:
    rng, kept, lost, broken = np.random.default_rng(0), {}, 0, 0
    for _ in tqdm(range(times), desc="kills"):
        with subprocess.Popen([sys.executable, "-c", KILLED, clips, store], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.2, 2.5))
            os.kill(process.pid, signal.SIGKILL)
        there = {path: path.stat().st_mtime_ns for path in store.glob("[!.]*.safetensors")}
        lost += len(kept.items() - there.items())
        kept = there
        for clip_id in FeatureStore(store) if there else ():
            try:
                FeatureStore(store)[clip_id]
            except ValueError:
                broken += 1
    print(f"{times} kills: {len(kept)} clips finished on the way, {lost} of them lost or done again, {broken} broken")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--depths", type=int, nargs=4, default=[3, 4, 23, 3], help="default: ResNet-101")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in tqdm(range(args.clips), desc="encoding"):
            encode(folder / f"clip_{number}.mp4", args.seconds, number)
        videos = find_clips(folder, [".mp4"])
        model = backbone(args.depths, args.device)
        measure(videos, model, args.batch_size, folder, args.device, torch.bfloat16 if args.bf16 else None)
        measure_seeking(next(iter(videos.values())), args.seconds)
        measure_kills(folder, folder / "killed")


if __name__ == "__main__":
    main()
