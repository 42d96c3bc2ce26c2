"""Many clips through a model: decoding in several processes ahead of it, batches across clips, each clip handed over
when it is whole."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .decoder_videoqa import Decoder
from .video_videoqa import sample_times

logger = logging.getLogger(__name__)

CHUNK = 8  # pictures that travel together: what waits in the queue must not fill the memory


class Extraction(NamedTuple):
    """What a run did.

    Args:
        directory: the store.
        finished: clips that were done in this run.
        failed: clips that could not be decoded, and why.
    """

    directory: Path
    finished: list[str]
    failed: dict[str, str]


class ClipResult(NamedTuple):
    """All of one clip.

    Args:
        clip_id: the clip.
        video: its file.
        times: seconds of its frames, (F,) float64.
        duration: seconds of the clip.
        results: what `compute` gave for each frame.
    """

    clip_id: str
    video: Path
    times: np.ndarray
    duration: float
    results: list


@dataclass
class _Job:
    video: Path
    times: np.ndarray
    duration: float
    results: list
    left: int


class _Undecodable(Exception):
    pass


class _Stopped(Exception):
    pass


def run_extraction(
    videos: Mapping[str, str | Path],
    frame_rate: float | None,
    prepare: Callable[[np.ndarray], Sequence],
    compute: Callable[[list], Sequence],
    finish: Callable[[ClipResult], None],
    batch_size: int = 32,
    num_workers: int | None = None,
    timeout: float = 60.0,
    progress: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """Decode clips and compute something for each frame.

    Args:
        videos: clip ids and the clips' video files.
        frame_rate: frames a second, as in `sample_times`; None for every frame.
        prepare: pictures (n, height, width, 3) uint8 -> n items; called in the threads that decode.
        compute: items -> as many results; called in this thread, with `batch_size` items of one or several clips.
        finish: is given each clip as soon as it is whole.
        batch_size: items that are computed together.
        num_workers: decoding processes; None: as many as the processor has cores, at most four.
        timeout: seconds in which a decoder has to give its next picture.
        progress: whether a bar is shown.

    Returns:
        The clips that were finished, and those that could not be decoded, with the reason.

    Raises:
        ValueError: a batch size or a number of workers below 1. What `prepare`, `compute` and `finish` raise.

    Example:
        >>> run_extraction({}, 3.0, list, list, print, progress=False)
        ([], {})
    """
    num_workers = min(4, os.cpu_count() or 1) if num_workers is None else num_workers
    for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}. Allowed: a whole number from 1. Pass for example 32, or leave it.")
    jobs: dict[str, _Job] = {}
    waiting: deque[tuple[str, int, Any]] = deque()
    finished, failed = [], {}

    def compute_batch() -> None:
        batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
        batch = [(clip_id, place, item) for clip_id, place, item in batch if clip_id in jobs]  # not of a failed clip
        results = compute([item for _, _, item in batch]) if batch else []
        for (clip_id, place, _), result in zip(batch, results, strict=True):
            job = jobs[clip_id]
            job.results[place] = result
            job.left -= 1
            if not job.left:
                finish(ClipResult(clip_id, job.video, job.times, job.duration, job.results))
                del jobs[clip_id]
                finished.append(clip_id)
                bar.update()

    with tqdm(total=len(videos), desc="clips", disable=not progress) as bar:
        for kind, clip_id, value in _decoded(videos, frame_rate, prepare, num_workers, timeout):
            if kind == "clip":
                jobs[clip_id] = value
            elif kind == "items":
                waiting += ((clip_id, place, item) for place, item in value)
            else:
                logger.warning("Clip %r was skipped: %s", clip_id, value)
                failed[clip_id] = value
                jobs.pop(clip_id, None)
                bar.update()
            while len(waiting) >= batch_size:
                compute_batch()
        while waiting:
            compute_batch()
    return finished, failed


def _decoded(
    videos: Mapping, frame_rate: float | None, prepare: Callable, num_workers: int, timeout: float
) -> Iterator[tuple[str, str, Any]]:
    """("clip", id, job), ("items", id, [(place, item)]) and ("failed", id, reason), as the threads come to them."""
    out, stop = Queue(maxsize=4 * num_workers), threading.Event()
    clips, lock = iter(videos.items()), threading.Lock()

    def put(message: Any) -> None:
        while not stop.is_set():
            try:
                return out.put(message, timeout=0.1)
            except Full:
                continue
        raise _Stopped

    def work() -> None:
        last = None
        try:
            with Decoder(timeout) as decoder:
                while True:
                    with lock:
                        clip_id, path = next(clips, (None, None))
                    if clip_id is None:
                        break
                    try:
                        for kind, value in _clip(decoder, Path(path), frame_rate):
                            if kind == "items":
                                first, pictures = value
                                value = list(enumerate(prepare(np.stack(pictures)), start=first))
                            put((kind, clip_id, value))
                    except _Undecodable as error:
                        put(("failed", clip_id, str(error)))
        except _Stopped:
            return
        except BaseException as error:  # is raised again where somebody sees it
            last = error
        with suppress(_Stopped):
            put(last)

    count = min(num_workers, len(videos))
    threads = [threading.Thread(target=work, name=f"decoding-{number}", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    active = len(threads)
    try:
        while active:
            message = out.get()
            if message is None:
                active -= 1
            elif isinstance(message, BaseException):
                raise message
            else:
                yield message
    finally:
        stop.set()
        _drain(out)
        for thread in threads:
            thread.join(timeout=5)  # a decoder that hangs is not waited for


def _clip(decoder: Decoder, path: Path, frame_rate: float | None) -> Iterator[tuple[str, Any]]:
    try:
        info = decoder.probe(path)
        times = sample_times(info, frame_rate)
        yield "clip", _Job(path, times, info.duration, [None] * len(times), len(times))
        pictures, first = decoder.frames(path, times), 0
        while chunk := list(islice(pictures, CHUNK)):
            yield "items", (first, chunk)
            first += len(chunk)
    except (ValueError, OSError) as error:
        raise _Undecodable(str(error)) from error


def _drain(queue: Queue) -> None:
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return


def find_clips(folder: str | Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """The video files in a folder and below it, by clip id: the name without its suffix.

    Args:
        folder: the folder.
        suffixes: of the files that are taken, in lower case.

    Returns:
        Clip id -> file, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
        ValueError: two files have one name.

    Example:
        >>> sorted(find_clips(Path(__file__).parent / "loaders", [".py"]))[:2]
        ['__init__', 'dramaqa']
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not files:
        raise FileNotFoundError(
            f"There is no file with {', '.join(suffixes)} in {folder}. Allowed: a folder with such files, or with "
            "folders of them. Check the path."
        )
    clips: dict[str, Path] = {}
    for path in files:
        if path.stem in clips:
            raise ValueError(
                f"{path} and {clips[path.stem]} have one name. Allowed: a name for each clip, which is its id. Rename "
                "one of them."
            )
        clips[path.stem] = path
    return clips
