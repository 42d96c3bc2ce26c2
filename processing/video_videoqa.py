"""Video files to frames, by presentation time.

All times are seconds on the clip's own clock: 0 is where the earliest of the file's video and audio streams starts to
be shown or heard. Sound that starts before the container's zero is an encoder's run-in that nobody hears, and does
not move the clock. Frames are never found by their number: frame rates vary, and containers drop frames.
"""

import heapq
import math
import numbers
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .subtitles_videoqa import Sentence, check_span, parse_cue_text, split_speaker

try:
    import av
    from av.stream import Disposition  # one that is too old for it would fail in the middle of a file
except ImportError:
    av = None

# The demuxer is named, never guessed: a playlist with a film's suffix could make the library read other files.
_DEMUXERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "matroska",
    ".avi": "avi",
}
VIDEO_SUFFIXES = tuple(_DEMUXERS)
MAX_FRAME_PIXELS = 64_000_000  # 8K is 33 million
MAX_FRAMES = 500_000  # more than 2 hours at 60 a second
MAX_SECONDS = 12 * 3600.0
SEEK_GAP = 8.0  # seconds; decoding this much is about as quick as a seek (benchmarks/extraction.py)

_SEEK_MARGIN = 1.0  # some indexes hold decoding times, which run ahead of presentation times
_CUT_SHORT = (0.5, 0.05)  # seconds, share of the length: headers round, and tracks end at different times
_ASS_FIELDS = 8  # commas in front of the text of an ass packet: order, layer, style, name, three margins, effect
_ASS_TAG = re.compile(r"\{[^}]*\}")
_ASS_DRAWING = re.compile(r"\{[^}]*\\p[1-9]")


class VideoInfo(NamedTuple):
    """What `probe_video` finds.

    Args:
        duration: end of the last frame's display, in seconds.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        frame_times: presentation times of all frames in seconds, ascending, (num_frames,) float64.
        tick: the step of the file's clock in seconds, to which the times are rounded; 0 where they are exact.
    """

    duration: float
    width: int
    height: int
    frame_times: np.ndarray
    tick: float = 0.0


def select_frames(
    frame_times: np.ndarray, segment_times: np.ndarray, num_frames: int, span: str = "partition"
) -> tuple[np.ndarray, np.ndarray]:
    """Picks the frames of each segment, uniformly in time.

    A frame belongs to the segment [a, b) with a <= time < b. With `span="partition"` the last segment also has its end
    and everything after it, so that every frame belongs to exactly one segment; with `span="subtitle"` a segment is
    the closed [a, b]. A segment of zero length gets nothing, unless a partition has no other kind (a clip of unknown
    length): then the last one gets all frames. Of a segment with more than `num_frames` frames, cut into that many
    equal parts in time, the frame nearest to each part's centre is taken (the earlier of two); a frame that is nearest
    to two centres counts once.

    Args:
        frame_times: presentation times in seconds, ascending, (F,).
        segment_times: starts and ends in seconds, starts ascending, (T, 2).
        num_frames: the most frames a segment gets, I.
        span: "partition" or "subtitle", as the segments were made.

    Returns:
        `index`, (T, I) int64, into `frame_times`, ascending and filled from the left, and `mask`, (T, I) bool; where
        the mask is False the index is 0.

    Raises:
        ValueError: times of another shape, not finite or not ascending; `num_frames` below 1; an unknown span.

    Example:
        >>> index, mask = select_frames(np.arange(10) / 2, [[0, 4], [4, 5]], num_frames=4)
        >>> index.tolist(), mask[1].tolist()
        ([[1, 3, 5, 7], [8, 9, 0, 0]], [True, True, False, False])
    """
    check_span(span)
    times = _checked_times(frame_times, "frame_times", ascending=True)
    segments = np.asarray(segment_times, dtype=np.float64)
    if segments.ndim != 2 or segments.shape[1] != 2 or not _sound_segments(segments):
        raise ValueError(
            f"The segment times have shape {segments.shape} or are out of order. Allowed: (num_segments, 2) finite "
            "seconds with ascending starts and no end before its start. Build them from make_segments."
        )
    if isinstance(num_frames, bool) or not isinstance(num_frames, numbers.Integral) or num_frames < 1:
        raise ValueError(f"num_frames is {num_frames!r}. Allowed: a whole number from 1. Pass 4, the paper's.")
    index = np.zeros((len(segments), num_frames), dtype=np.int64)
    mask = np.zeros((len(segments), num_frames), dtype=bool)
    ranges = _partition_ranges(times, segments) if span == "partition" else _subtitle_ranges(times, segments)
    for segment, (first, stop) in enumerate(ranges):
        start, end = segments[segment]
        if stop > first and end <= start:  # only the sole holder of a clip of unknown length
            end = times[stop - 1]
        picks = first + _nearest_to_centres(times[first:stop], start, end, num_frames)
        index[segment, : len(picks)] = picks
        mask[segment, : len(picks)] = True
    return index, mask


def sample_times(info: VideoInfo, frame_rate: float | None) -> np.ndarray:
    """Gives the frames that are on screen at 0, 1 / frame_rate, 2 / frame_rate, ... before the clip's end.

    Args:
        info: from `probe_video`.
        frame_rate: moments a second; None for every frame.

    Returns:
        The presentation times of those frames in seconds, ascending, each once, (F,) float64. Fewer than asked for
        where a frame stays longer than 1 / frame_rate.

    Raises:
        ValueError: a frame rate that is no finite number above 0, or that asks for more than `MAX_FRAMES` moments.

    Example:
        >>> sample_times(VideoInfo(2.0, 64, 48, np.array([0.0, 0.4, 0.9, 1.0, 1.8])), frame_rate=2).tolist()
        [0.0, 0.4, 1.0]
    """
    if frame_rate is None:
        return info.frame_times.copy()
    check_frame_rate(frame_rate)
    if info.duration * frame_rate > MAX_FRAMES:
        raise ValueError(
            f"A frame rate of {frame_rate!r} asks for {info.duration * frame_rate:g} moments. Allowed: up to "
            f"{MAX_FRAMES} in a clip, here of {info.duration:g} s. Pass a lower one, or None for every frame."
        )
    moments = np.arange(math.ceil(info.duration * frame_rate) + 1) / frame_rate
    moments = moments[(moments < info.duration) | (moments == 0)]  # a clip of one instant still has a frame
    on_screen = np.searchsorted(info.frame_times, moments + _tolerance(info.tick), side="right") - 1
    return info.frame_times[np.unique(np.maximum(on_screen, 0))]


def check_frame_rate(frame_rate: float | None) -> None:
    """Refuses a frame rate that is neither None nor a finite number above 0.

    Args:
        frame_rate: frames a second; None stands for every frame.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_frame_rate(3.0)
    """
    if frame_rate is None:
        return
    is_number = isinstance(frame_rate, numbers.Real) and not isinstance(frame_rate, bool)
    if not is_number or not 0 < frame_rate < math.inf:
        raise ValueError(
            f"The frame rate is {frame_rate!r}. Allowed: frames a second, a finite number above 0, or None for every "
            "frame. Pass frame_rate=3, that of TVQA's frames."
        )


def probe_video(path: str | Path) -> VideoInfo:
    """Reads the times of all frames of a file's best video stream, decoding only one of them.

    Frames that the container says are not shown (cut off by an edit list) are left out.

    Args:
        path: a local file, one of `VIDEO_SUFFIXES`.

    Returns:
        Length, size and frame times.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: the path is a folder.
        ValueError: not a video file of the format its suffix says, no video in it, damaged, cut short, or beyond
            `MAX_FRAME_PIXELS`, `MAX_FRAMES` or `MAX_SECONDS`.
        ImportError: PyAV is not installed.

    Example:
        >>> info = probe_video("clip.mp4")  # doctest: +SKIP
        >>> info.duration, len(info.frame_times)  # doctest: +SKIP
        (60.03, 1800)
    """
    with _opened(path) as (container, stream, origin):
        ticks, ends, picture, data_end = [], {}, None, 0.0
        for packet in container.demux():
            if packet.pts is None:
                continue
            end = packet.pts + (packet.duration or 0)
            data_end = max(data_end, float(end * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            if picture is None:
                picture = next(iter(packet.decode()), None)
            if not packet.is_discard:
                ticks.append(packet.pts)
                ends[packet.pts] = end
            if len(ticks) > MAX_FRAMES:
                raise ValueError(
                    f"{path} has more than {MAX_FRAMES} frames. Allowed: up to that many. Cut the file into clips."
                )
        if picture is None:
            picture = next(iter(stream.codec_context.decode(None)), None)
        if not ticks or picture is None:
            raise ValueError(
                f"{path} has a video stream without a single frame that can be shown. Allowed: a complete video file. "
                "Fetch or export the file again."
            )
        _check_complete(path, container, stream, data_end)
        ticks = np.unique(np.array(ticks, dtype=np.int64))
        tick, last = stream.time_base, int(ticks[-1])
        shown = ends[last] - last
        if not shown:  # some containers leave the last frame without a length: the usual one stands in
            shown = int(np.median(np.diff(ticks))) if len(ticks) > 1 else round(1 / (stream.average_rate or 25) / tick)
        duration = float((last + shown) * tick - origin)
        if duration > MAX_SECONDS:
            raise ValueError(f"{path} lasts {duration:g} s. Allowed: up to {MAX_SECONDS:g} s. Cut the file into clips.")
        height, width = (picture.width, picture.height) if picture.rotation % 180 else (picture.height, picture.width)
        return VideoInfo(duration, width, height, ticks * float(tick) - float(origin), float(tick))


def decode_frames(path: str | Path, times: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes the pictures that are on screen at given times.

    The picture at a time is the one with the largest presentation time up to it (times rounded to the file's clock
    count as equal); before the first frame it is the first, after the last the last. A rotation that the file asks
    for in steps of 90 degrees is carried out. Pixels are taken as square.

    Args:
        path: a local file, one of `VIDEO_SUFFIXES`.
        times: seconds, in any order, repeats allowed, (F,).
        size: (height, width) to scale to; None for the size of the first picture decoded.

    Returns:
        RGB pictures, (F, height, width, 3) uint8.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError, ImportError: as `probe_video`; ValueError also for times that
            are not finite, a size that is not two whole numbers, and a stream that does not hold its pictures' order.

    Example:
        >>> frames = decode_frames("clip.mp4", [0.0, 1.5], size=(224, 224))  # doctest: +SKIP
        >>> frames.shape  # doctest: +SKIP
        (2, 224, 224, 3)
    """
    times = _checked_times(times, "times")
    unique, place = np.unique(times, return_inverse=True)
    pictures = list(iter_frames(path, unique, size))
    if not pictures:
        info_size = size or probe_video(path)[2:0:-1]
        return np.zeros((0, *info_size, 3), dtype=np.uint8)
    return np.stack(pictures)[place]


def iter_frames(
    path: str | Path, times: np.ndarray, size: tuple[int, int] | None = None, seek_gap: float = SEEK_GAP
) -> Iterator[np.ndarray]:
    """Does the work of `decode_frames` one picture at a time, for more pictures than fit into memory.

    Args:
        path: a local file, one of `VIDEO_SUFFIXES`.
        times: seconds, ascending, repeats allowed, (F,).
        size: (height, width) to scale to; None for the size of the first picture decoded.
        seek_gap: seconds between two times from which on what lies between is not decoded, where the file allows it.

    Yields:
        For each time its RGB picture, (height, width, 3) uint8. Equal pictures are one array: do not write into them.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError, ImportError: as `decode_frames`, when the first picture is
            asked for; ValueError also for times that are not ascending.

    Example:
        >>> for picture in iter_frames("clip.mp4", [0.0, 0.5, 1.0]):  # doctest: +SKIP
        ...     print(picture.mean())
    """
    times = _checked_times(times, "times", ascending=True)
    size = _checked_size(size)
    # Between times that lie far apart it is quicker to seek than to decode. The times of an avi's pictures follow from
    # all that came before.
    may_seek = Path(path).suffix.lower() != ".avi"
    far = np.flatnonzero(np.diff(times, prepend=0.0) > seek_gap) if may_seek else np.zeros(0, dtype=np.int64)
    bounds = np.unique([0, *far, len(times)]).tolist()
    for first, stop in pairwise(bounds):
        is_reached = False
        for picture in _run(path, times[first:stop], size, seek=first in far):
            is_reached, size = True, picture.shape[:2]
            yield picture
        if not is_reached:  # the file's index is of no use: one pass over all that is left
            yield from _run(path, times[first:], size, seek=False)
            return


def pixel_values(frames: np.ndarray, image_processor) -> np.ndarray:
    """Prepares decoded pictures for a vision model.

    Args:
        frames: RGB pictures, (F, height, width, 3) uint8, as `decode_frames` gives them.
        image_processor: an image processor of transformers. Without torchvision those of the PIL backend work
            (`AutoImageProcessor` chooses it then); they need pillow.

    Returns:
        (F, 3, h, w) float, of the size that the image processor is set to.

    Raises:
        ValueError: the pictures have another shape or dtype, or the image processor does not give one array of three
            channels for each.

    Example:
        >>> from transformers import ConvNextImageProcessorPil
        >>> processor = ConvNextImageProcessorPil(size={"shortest_edge": 32})
        >>> pixel_values(np.zeros((2, 48, 64, 3), np.uint8), processor).shape
        (2, 3, 32, 32)
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"The frames have shape {frames.shape} and dtype {frames.dtype}. Allowed: (num_frames, height, width, 3) "
            "uint8, RGB. Decode them with decode_frames."
        )
    # Of a clip without a single frame only the size is wanted. The layout is said, not guessed: a picture three
    # pixels high would be taken for one with channels first.
    pictures = list(frames) or [np.zeros(frames.shape[1:], np.uint8)]
    prepared = image_processor(images=pictures, return_tensors="np", input_data_format="channels_last")
    pixels = prepared["pixel_values"]
    if pixels.ndim != 4 or pixels.shape[:2] != (len(pictures), 3):
        raise ValueError(
            f"{type(image_processor).__name__} made {tuple(pixels.shape)} of {len(pictures)} frames. Allowed: "
            "(num_frames, 3, height, width). Use the image processor of a plain image model, such as ResNet's."
        )
    return pixels[: len(frames)]


def read_subtitle_track(path: str | Path) -> list[Sentence]:
    """Reads the first text subtitle track inside a video file (mov_text, subrip, ass or webvtt).

    Args:
        path: a local file, one of `VIDEO_SUFFIXES`.

    Returns:
        Its sentences, in the track's order, times on the clip's clock; empty where there is no such track.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError, ImportError: as `probe_video`.

    Example:
        >>> read_subtitle_track("clip.mp4")[:1]  # doctest: +SKIP
        [Sentence(start=0.21, end=4.26, speaker='NAR', text='This is the optical and science segment of the Webb')]
    """
    with _opened(path) as (container, _, origin):
        readers = {"mov_text": _mov_text, "ass": _ass, "ssa": _ass}
        readers.update(dict.fromkeys(("subrip", "srt", "webvtt", "text"), _markup))
        tracks = ((track, readers.get(track.codec_context.name)) for track in container.streams.subtitles)
        track, reader = next(((track, reader) for track, reader in tracks if reader), (None, None))
        sentences = []
        for packet in container.demux(track) if track else ():
            if packet.pts is None or not packet.size:
                continue
            speaker, text = reader(bytes(packet))
            if text:
                start = max(float(packet.pts * packet.time_base - origin), 0.0)
                end = float((packet.pts + packet.duration) * packet.time_base - origin) if packet.duration else None
                sentences.append(Sentence(start, end if end is None else max(end, start), speaker, text))
        return sentences


def _sound_segments(segments: np.ndarray) -> bool:
    in_order = np.isfinite(segments).all() and (np.diff(segments[:, 0]) >= 0).all()
    return bool(in_order and (segments[:, 1] >= segments[:, 0]).all())


def _partition_ranges(times: np.ndarray, segments: np.ndarray) -> list[tuple[int, int]]:
    """First and one-past-last frame of each segment, so that each frame is in exactly one."""
    ranges = [(0, 0)] * len(segments)
    holders = np.flatnonzero(segments[:, 1] > segments[:, 0])
    if not len(holders):
        holders = np.arange(len(segments))[-1:]
    bounds = np.searchsorted(times, segments[holders[1:], 0], side="left")
    for holder, first, stop in zip(holders, [0, *bounds], [*bounds, len(times)], strict=True) if len(holders) else ():
        ranges[holder] = (int(first), int(stop))
    return ranges


def _subtitle_ranges(times: np.ndarray, segments: np.ndarray) -> list[tuple[int, int]]:
    firsts = np.searchsorted(times, segments[:, 0], side="left")
    stops = np.searchsorted(times, segments[:, 1], side="right")
    stops = np.where(segments[:, 1] > segments[:, 0], stops, firsts)
    return list(zip(firsts.tolist(), stops.tolist(), strict=True))


def _nearest_to_centres(times: np.ndarray, start: float, end: float, num_frames: int) -> np.ndarray:
    if len(times) <= num_frames:
        return np.arange(len(times))
    centres = start + (np.arange(num_frames) + 0.5) * (end - start) / num_frames
    after = np.clip(np.searchsorted(times, centres), 1, len(times) - 1)
    # A nanosecond for the rounding of the two differences: the earlier frame wins a tie.
    takes_earlier = centres - times[after - 1] <= times[after] - centres + 1e-9
    return np.unique(after - takes_earlier)


def _tolerance(tick: float) -> float:
    # Half a tick undoes the rounding of fine clocks (mkv: 1 ms). A coarse one (avi: one tick a frame) does not round.
    return min(tick / 2, 0.0005) + 1e-9


def _checked_times(times: np.ndarray, name: str, ascending: bool = False) -> np.ndarray:
    times = np.asarray(times, dtype=np.float64)
    is_sound = times.ndim == 1 and np.isfinite(times).all()
    if not is_sound or (ascending and (np.diff(times) < 0).any()):
        raise ValueError(
            f"{name} has shape {times.shape}{'' if is_sound else ' or holds values that are not finite'}"
            f"{' and is not ascending' if is_sound else ''}. Allowed: one row of finite seconds"
            f"{', ascending' if ascending else ''}. Take them from probe_video or sample_times."
        )
    return times


def _checked_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = list(size) if isinstance(size, (tuple, list)) else []
    are_whole = all(isinstance(side, numbers.Integral) and not isinstance(side, bool) and side > 0 for side in sides)
    if len(sides) != 2 or not are_whole or sides[0] * sides[1] > MAX_FRAME_PIXELS:
        raise ValueError(
            f"The size is {size!r}. Allowed: (height, width), whole numbers from 1, at most {MAX_FRAME_PIXELS} "
            "pixels, or None. Pass for example size=(224, 224)."
        )
    return int(sides[0]), int(sides[1])


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple]:
    """The open container, its best video stream and the clip's zero in seconds; no PyAV error leaves the block."""
    if av is None:
        raise ImportError(
            "PyAV is not installed, or too old, and no video can be read. Allowed: av >= 17.1. Install it with 'pip "
            "install --upgrade av', or pass features that were extracted before."
        )
    path = _checked_path(path)
    suffix = path.suffix.lower()
    try:
        # An absolute path can be no address; "file" shuts out what the file itself might point at.
        options = {"protocol_whitelist": "file"}
        with av.open(str(path), format=_DEMUXERS[suffix], options=options, metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None or _is_cover(stream):
                raise ValueError(
                    f"{path} has no video stream that can be decoded. Allowed: a file with moving pictures, not sound "
                    "alone. Check that this is the clip, or convert it with ffmpeg."
                )
            _check_pixels(path, stream.codec_context.width * stream.codec_context.height)
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # the size can change on the way
            stream.thread_type = "SLICE"  # AUTO has been seen to hang
            yield container, stream, _origin(container, stream)
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be read as {suffix[1:]} video: {error.strerror or error}. Allowed: a complete file of the "
            f"format its suffix says ({', '.join(VIDEO_SUFFIXES)}), with pictures of up to {MAX_FRAME_PIXELS} pixels. "
            "Fetch it again, or convert it with ffmpeg."
        ) from error


def _checked_path(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(
            f"There is no video file {path}. Allowed: an existing local file. Check the path; download what lies on a "
            "server first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Allowed: one video file. Name the file inside it.")
    if path.suffix.lower() not in _DEMUXERS:
        raise ValueError(
            f"{path} has the suffix {path.suffix!r}. Allowed: {', '.join(VIDEO_SUFFIXES)}. Convert it with ffmpeg."
        )
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        raise ValueError(
            f"{path} is empty or no ordinary file. Allowed: a complete video file. Fetch or export it again."
        )
    return path


def _check_pixels(path: Path, pixels: int) -> None:
    if pixels > MAX_FRAME_PIXELS:
        raise ValueError(
            f"{path} has pictures of {pixels} pixels. Allowed: up to {MAX_FRAME_PIXELS}. Scale the file with ffmpeg."
        )


def _is_cover(stream: "av.VideoStream") -> bool:
    # A picture of the album stands as a video stream of one frame.
    return bool(stream.disposition & Disposition.attached_pic)


def _origin(container: "av.container.InputContainer", stream: "av.VideoStream") -> Fraction:
    starts = []
    for other in container.streams:
        if other.start_time is not None and other.type in ("video", "audio") and other.time_base:
            start = other.start_time * other.time_base
            starts.append(start if other.type == "video" else max(start, Fraction(0)))
    return min(starts, default=Fraction(0))


def _check_complete(path: Path, container: "av.container.InputContainer", stream, data_end: float) -> None:
    """Refuses a file whose data ends well before its header says: half a clip would pass for a whole one."""
    said = (container.duration or 0) / av.time_base
    if stream.duration:
        said = max(said, float(stream.duration * stream.time_base))
    if said - data_end > max(_CUT_SHORT[0], _CUT_SHORT[1] * said):
        raise ValueError(
            f"{path} is cut short: its header says {said:g} s, its data ends at {data_end:g} s. Allowed: a complete "
            "video file. Fetch it again, or rewrite its header with 'ffmpeg -i in -c copy out'."
        )


def _run(path: str | Path, times: np.ndarray, size: tuple[int, int] | None, seek: bool) -> Iterator[np.ndarray]:
    """The pictures at ascending times in one pass; none at all where seeking to the first does not work."""
    with _opened(path) as (container, stream, origin):
        frames = _from_key_frame(container, stream, origin, times[0]) if seek else _decoded(container, stream, origin)
        if frames is not None:
            yield from _on_screen(frames, times, _tolerance(float(stream.time_base)), size, path)


def _decoded(container: "av.container.InputContainer", stream: "av.VideoStream", origin: Fraction) -> Iterator[tuple]:
    """(time, frame) of each frame, in the order of display."""
    # Avi stores pictures in decoding order without saying when each is shown. They come out of the decoder in the
    # order of display, so each takes the earliest time that has gone in and is still free.
    is_avi, free = container.format.name == "avi", []
    for packet in container.demux(stream):
        if is_avi and packet.pts is not None:
            heapq.heappush(free, packet.pts)
        for frame in packet.decode():
            pts = heapq.heappop(free) if is_avi and free else frame.pts
            if pts is not None:
                yield float(pts * stream.time_base - origin), frame


def _from_key_frame(container, stream, origin: Fraction, time: float) -> Iterator[tuple] | None:
    """Frames from a key frame at or before `time` on; None where the file's index does not lead to one."""
    target = math.floor((Fraction(time - _SEEK_MARGIN) + origin) / stream.time_base)
    try:
        container.seek(target, backward=True, stream=stream)
    except av.FFmpegError:
        return None
    frames = _decoded(container, stream, origin)
    for shown_at, frame in frames:
        # Frames in front of the key frame may lack what they refer to.
        if frame.key_frame:
            return _chained((shown_at, frame), frames) if shown_at <= time else None
    return None


def _chained(first: tuple, others: Iterator[tuple]) -> Iterator[tuple]:
    yield first
    yield from others


def _on_screen(
    frames: Iterator[tuple], times: np.ndarray, tolerance: float, size: tuple[int, int] | None, path: str | Path
) -> Iterator[np.ndarray]:
    """The picture on screen at each of the ascending times; `frames` are (time, frame) in the order of display."""
    shown, shown_at, picture = None, -math.inf, None
    reformatter = av.video.reformatter.VideoReformatter()  # one for all frames: setting it up costs more than using it
    waiting = iter(times.tolist())
    time = next(waiting, None)
    while time is not None:
        upcoming_at, upcoming = next(frames, (math.inf, None))
        if upcoming_at < shown_at:
            raise ValueError(
                f"{path} gives its pictures out of order, near {shown_at:g} s. Allowed: presentation times that "
                "ascend. Re-encode it, for example with 'ffmpeg -i in.mkv out.mp4'."
            )
        if shown is None and upcoming is None:
            raise ValueError(
                f"{path} has no picture that can be decoded there. Allowed: a complete video file. Fetch it again."
            )
        shown = shown or upcoming  # before the first frame, the first is shown
        while time is not None and time + tolerance < upcoming_at:
            if picture is None:
                picture = _to_picture(shown, size, path, reformatter)
                size = picture.shape[:2]  # a stream may change its own
            yield picture
            time = next(waiting, None)
        shown, shown_at, picture = upcoming, upcoming_at, None


def _to_picture(frame: "av.VideoFrame", size: tuple[int, int] | None, path: str | Path, reformatter) -> np.ndarray:
    _check_pixels(path, frame.width * frame.height)
    quarters = round(frame.rotation / 90) % 4
    height, width = size or (None, None)
    if quarters % 2:
        height, width = width, height
    picture = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, quarters))  # both turn counter-clockwise


def _mov_text(packet: bytes) -> tuple[str, str]:
    # Two bytes give the text's length; boxes with styles may follow it.
    text = packet[2 : 2 + int.from_bytes(packet[:2], "big")]
    encoding = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return split_speaker(" ".join(text.decode(encoding, errors="replace").split()))


def _ass(packet: bytes) -> tuple[str, str]:
    fields = packet.decode("utf-8", errors="replace").split(",", _ASS_FIELDS)
    raw = fields[-1]
    if len(fields) <= _ASS_FIELDS or _ASS_DRAWING.search(raw):  # outlines of drawings are no words
        return "", ""
    raw = _ASS_TAG.sub("", raw)
    for space in ("\\N", "\\n", "\\h"):
        raw = raw.replace(space, " ")
    text, name = " ".join(raw.split()), fields[3].strip()
    return (name, text) if name else split_speaker(text)


def _markup(packet: bytes) -> tuple[str, str]:
    return parse_cue_text(packet.decode("utf-8", errors="replace"))
