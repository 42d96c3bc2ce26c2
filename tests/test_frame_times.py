"""The frame returned for a time is the one on screen then, on clips whose pictures show their own number.

What is expected comes from the times the clips were encoded with, never from what our own probing says.
"""

import json
import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from test_video import REAL

from processing.decoder_videoqa import Decoder
from processing.video_videoqa import decode_frames, iter_frames, probe_video, sample_times

BITS, BAR, HEIGHT = 10, 16, 48
FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)


def draw(number, width=BITS * BAR, height=HEIGHT):
    """The number in binary, a bar for each bit."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[:, bit * BAR : (bit + 1) * BAR] = 220 if number >> bit & 1 else 30
    return picture


def read(pictures):
    middles = np.stack([picture[HEIGHT // 2, BAR // 2 : BITS * BAR : BAR, 0] for picture in pictures])
    return ((middles > 128) << np.arange(BITS)).sum(1).tolist()


def encode(
    path, ticks, time_base, codec="libx264", pixels="yuv420p", b_frames=2, size=(BITS * BAR, HEIGHT), second=None
):
    """Frame n of the clip is shown from `ticks[n]` on; `second` adds a smaller track that shows other numbers."""
    with av.open(str(path), "w") as container:
        options = {"b_strategy": "0", "sc_threshold": "0"} if codec == "libx264" else {}
        tracks = [(size, 0)] + ([(second, 512)] if second else [])
        streams = []
        for (width, height), _ in tracks:
            stream = container.add_stream(codec, rate=round(1 / time_base), options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.codec_context.time_base = time_base
            stream.codec_context.max_b_frames = b_frames
            stream.codec_context.gop_size = 40
            streams.append(stream)
        for number, tick in enumerate(ticks):
            for stream, ((width, height), offset) in zip(streams, tracks, strict=True):
                picture = draw(number + offset, width, height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = int(tick), time_base
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def uneven(seed):
    return np.cumsum(np.random.default_rng(seed).integers(1, 12, size=120)) * 7


CLIPS = {
    "23.976": {"ticks": range(200), "time_base": 1 / FILM},
    "25": {"ticks": range(200), "time_base": Fraction(1, 25)},
    "29.97": {"ticks": range(200), "time_base": 1 / NTSC},
    "60": {"ticks": range(400), "time_base": Fraction(1, 60)},
    "25 without b frames": {"ticks": range(200), "time_base": Fraction(1, 25), "b_frames": 0},
    "late": {"ticks": range(250, 450), "time_base": Fraction(1, 25)},
    "late film": {"ticks": range(77, 277), "time_base": 1 / FILM, "b_frames": 4},
    "uneven": {"ticks": uneven(0), "time_base": Fraction(1, 600)},
    "uneven without b frames": {"ticks": uneven(1), "time_base": Fraction(1, 600), "b_frames": 0},
    "mpeg4": {"ticks": range(200), "time_base": Fraction(1, 25), "codec": "mpeg4"},
    # An avi with B-frames says nothing of when its first picture is shown: players differ.
    "avi": {"ticks": range(200), "time_base": Fraction(1, 25), "codec": "mpeg4", "b_frames": 0},
}  # fmt: skip
SUFFIXES = {"mpeg4": (".mp4", ".mkv"), "avi": (".avi",)}
CASES = [(name, suffix) for name in CLIPS for suffix in SUFFIXES.get(name, (".mp4", ".mkv", ".mov"))]


def expected(ticks, time_base, times, milliseconds):
    """Number of the frame on screen, and whether the time is too near to a change to be asked about."""
    starts = (np.asarray(ticks) - ticks[0]) * float(time_base)
    grain = 0.002 if milliseconds else 1e-6  # matroska writes whole milliseconds
    near = np.abs(np.asarray(times)[:, None] - starts).min(1) < grain
    return np.searchsorted(starts, np.asarray(times) + 1e-9, side="right") - 1, near & milliseconds


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_the_frame_for_a_time_is_the_one_on_screen(tmp_path, name, suffix):
    clip = CLIPS[name]
    path = encode(tmp_path / f"clip{suffix}", **clip)
    info = probe_video(path)
    starts = (np.asarray(clip["ticks"]) - clip["ticks"][0]) * float(clip["time_base"])
    np.testing.assert_allclose(info.frame_times, starts, atol=0.0011 if suffix == ".mkv" else 1e-4)
    length = starts[-1] + float(clip["time_base"])
    times = np.sort(
        np.concatenate([np.random.default_rng(0).uniform(0, length, 100), starts[::7], np.arange(0, length, 1 / 3)])
    )
    number, skipped = expected(clip["ticks"], clip["time_base"], times, suffix == ".mkv")
    for gap in (0.05, 1.0, np.inf):  # by seeking to nearly each of them, to some, to none
        found = np.array(read(iter_frames(path, times, seek_gap=gap)))
        np.testing.assert_array_equal(found[~skipped], number[~skipped])


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_every_sampled_frame_is_the_one_on_screen_at_its_moment(tmp_path, name, suffix):
    clip = CLIPS[name]
    path = encode(tmp_path / f"clip{suffix}", **clip)
    info = probe_video(path)
    for rate in (1, 3, 10, 24):
        times = sample_times(info, rate)
        moments = np.arange(0, info.duration - 1e-6, 1 / rate)
        number, skipped = expected(clip["ticks"], clip["time_base"], moments, suffix == ".mkv")
        wanted = dict.fromkeys(number[~skipped].tolist())
        possible = {
            *wanted,
            *(number[skipped]).tolist(),
            *(number[skipped] + 1).tolist(),
            *(number[skipped] - 1).tolist(),
        }
        found = read(decode_frames(path, times))
        assert found == sorted(set(found))
        assert set(wanted) <= set(found) <= possible


def test_ten_bits_and_odd_sizes(tmp_path):
    ticks = range(30)
    deep = encode(tmp_path / "deep.mkv", ticks, Fraction(1, 25), pixels="yuv420p10le")
    odd = encode(tmp_path / "odd.mkv", ticks, Fraction(1, 25), "ffv1", "yuv444p", 0, size=(BITS * BAR + 1, HEIGHT + 1))
    for path, size in ((deep, (BITS * BAR, HEIGHT)), (odd, (BITS * BAR + 1, HEIGHT + 1))):
        info = probe_video(path)
        assert (info.width, info.height) == size
        pictures = decode_frames(path, info.frame_times)
        assert pictures.shape[1:] == (size[1], size[0], 3)
        assert read(pictures) == list(ticks)


def test_the_larger_of_several_video_tracks(tmp_path):
    path = encode(tmp_path / "two.mkv", range(30), Fraction(1, 25), second=(BITS * BAR, HEIGHT - 16))
    assert probe_video(path).height == HEIGHT
    assert read(decode_frames(path, probe_video(path).frame_times)) == list(range(30))


@pytest.mark.parametrize("length", [1, 2, 8])
def test_a_clip_shorter_than_one_step_has_one_frame(tmp_path, length):
    path = encode(tmp_path / "short.mp4", range(length), Fraction(1, 25))
    times = sample_times(probe_video(path), 3)
    assert read(decode_frames(path, times)) == [0]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed (Debian's package ffmpeg)")
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL}")
@pytest.mark.parametrize("name", ["nasa_13013.mp4", "av1_video.mkv"])
def test_the_times_of_real_clips_are_those_that_ffprobe_prints(name):
    command = ["ffprobe", "-v", "error", "-show_frames", "-show_streams", "-of", "json", str(REAL / name)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    info = probe_video(REAL / name)
    best = max(
        (stream for stream in told["streams"] if stream["codec_type"] == "video"),
        key=lambda stream: (
            stream["width"] * stream["height"] == info.width * info.height,
            int(stream.get("nb_frames", 0)),
        ),
    )
    frames = [frame for frame in told["frames"] if frame.get("stream_index") == best["index"]]
    start = min(float(s["start_time"]) for s in told["streams"] if s["codec_type"] in ("video", "audio"))
    times = [float(frame["pts_time"]) - start for frame in frames]
    np.testing.assert_allclose(info.frame_times, times, atol=1e-5)
    with Decoder() as decoder:
        np.testing.assert_array_equal(decoder.probe(REAL / name).frame_times, info.frame_times)
