"""Thousands of damaged video files, one after the other: every one an answer or an error, and nobody falls over.

    python benchmarks/fuzz_decoder.py ../shared/real/video/nasa_13013.mp4 --rounds 3000

Each round changes, cuts or repeats some bytes of the clip, in its headers as often as in its pictures, and asks a
`Decoder` for its times, its subtitles and some of its pictures.
"""

import argparse
import collections
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from processing.decoder_videoqa import Decoder
from processing.video_videoqa import sample_times


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file with one to six changes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 7)):
        ends = (512, len(data), len(data))
        place = int(rng.integers(0, max(1, ends[rng.integers(3)])))
        if rng.random() < 0.3:  # mp4 keeps its index at the end
            place = max(0, len(data) - int(rng.integers(1, 20_000)))
        length = int(rng.integers(1, 9))
        kind = rng.random()
        if kind < 0.7:
            data[place : place + length] = rng.bytes(length)
        elif kind < 0.8:
            del data[place : place + length]
        elif kind < 0.9:
            data[place:place] = rng.bytes(length)
        elif kind < 0.97:
            data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
        else:
            del data[max(1, place) :]
    return bytes(data)


def look(decoder: Decoder, path: Path) -> str:
    """What came of a file, in a word."""
    try:
        info = decoder.probe(path)
        decoder.subtitles(path)
        times = sample_times(info, 3)[:12]
        count = sum(1 for _ in decoder.frames(path, times, size=(36, 64)))
    except (ValueError, OSError) as error:
        return "stopped" if "stopped its decoder" in str(error) else "error"
    return "pictures" if count == len(times) else f"{count} of {len(times)} pictures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=10.0)
    args = parser.parse_args()
    content, found, slowest = args.video.read_bytes(), collections.Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder, Decoder(args.timeout) as decoder:
        path = Path(folder) / f"clip{args.video.suffix}"
        for number in tqdm(range(args.rounds)):
            path.write_bytes(damaged(content, np.random.default_rng((args.seed, number))))
            began = time.perf_counter()
            found[look(decoder, path)] += 1
            slowest = max(slowest, time.perf_counter() - began)
        path.write_bytes(content)
        if look(decoder, path) != "pictures":
            raise SystemExit("The sound file is no longer read.")
    print(f"{args.rounds} damaged files: {dict(found)}, the slowest took {slowest:.1f} s; then the sound one is read")


if __name__ == "__main__":
    main()
