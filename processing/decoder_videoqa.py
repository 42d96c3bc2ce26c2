"""Decoding in a process of its own: a file that crashes the decoder, or makes it hang, costs an error and no more.

The process is started when it is first needed, kept for further files, and replaced when it has died. It is started by
the path of this file, not by the name of a module, so that it also works where this code came from the Hub, in scripts
without a main guard, and in the workers of a data loader.
"""

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .subtitles_videoqa import Sentence
from .video_videoqa import VideoInfo, iter_frames, probe_video, read_subtitle_track

MAX_MEMORY = 4 << 30  # bytes; a stream of 8K pictures takes half of it
_ERRORS = {error.__name__: error for error in (ValueError, FileNotFoundError, IsADirectoryError, OSError, ImportError)}
_START = """
import importlib, json, sys, types
sys.path[:] = json.loads(sys.argv[2])
package = types.ModuleType("videoqa_decoder")
package.__path__ = [sys.argv[1]]
sys.modules["videoqa_decoder"] = package
importlib.import_module("videoqa_decoder." + sys.argv[3]).serve(int(sys.argv[4]), int(sys.argv[5]))
"""


class Decoder:
    """Does what `video_videoqa` does, in another process. For one thread at a time.

    Args:
        timeout: seconds in which the next picture, or a whole answer, has to come.
        max_memory: bytes of address space that decoding may take, where the system can limit it.

    Example:
        >>> with Decoder() as decoder:  # doctest: +SKIP
        ...     info = decoder.probe("clip.mp4")
        ...     pictures = list(decoder.frames("clip.mp4", sample_times(info, 3)))
    """

    def __init__(self, timeout: float = 60.0, max_memory: int = MAX_MEMORY):
        self.timeout, self.max_memory = timeout, max_memory
        self._process: subprocess.Popen | None = None
        self._finalizer = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; the next call starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def probe(self, path: str | Path) -> VideoInfo:
        """As `probe_video`, with its errors; a crash, a hang and too much memory are a ValueError too."""
        (header, ticks), *_ = self._ask(path, {"do": "probe"})
        return VideoInfo(frame_times=ticks, **header["info"])

    def subtitles(self, path: str | Path) -> list[Sentence]:
        """As `read_subtitle_track`, with the errors of `probe`."""
        (header, _), *_ = self._ask(path, {"do": "subtitles"})
        return [Sentence(*row) for row in header["sentences"]]

    def frames(self, path: str | Path, times: np.ndarray, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """As `iter_frames`, with the errors of `probe`. Left before its end, it ends the process."""
        request = {"do": "frames", "times": np.asarray(times, dtype=np.float64).tolist(), "size": size}
        return (picture for _, picture in self._ask(path, request))

    def _ask(self, path: str | Path, request: dict) -> Iterator[tuple[dict, np.ndarray | None]]:
        """What the process answers: headers and, with most of them, arrays."""
        path = str(Path(path).absolute())
        is_done = False
        try:
            self._send({**request, "path": path})
            while True:
                header, array = self._receive(path)
                if "error" in header:
                    is_done = True  # the process is as good as before
                    raise _ERRORS[header["error"]](header["message"])
                if header.get("end"):
                    is_done = True
                    return
                yield header, array
        finally:
            if not is_done:
                self.close()

    def _send(self, request: dict) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        self.close()
        here = Path(__file__)
        arguments = [str(here.parent), json.dumps(sys.path), here.stem, str(self.max_memory), str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # an interrupt at the keyboard is for the process that asks
        )
        self._finalizer = weakref.finalize(self, _stop, self._process)

    def _receive(self, path: str) -> tuple[dict, np.ndarray | None]:
        process, expired = self._process, threading.Event()

        def give_up():
            expired.set()
            process.kill()

        watch = threading.Timer(self.timeout, give_up)
        watch.daemon = True
        watch.start()
        try:
            header = json.loads(process.stdout.readline() or "{}")
            array = None
            if "shape" in header:
                array = np.empty(header["shape"], header["dtype"])
                if process.stdout.readinto(memoryview(array).cast("B") if array.size else b"") != array.nbytes:
                    header = {}
        finally:
            watch.cancel()
        if not header:
            reason = f"nothing came for {self.timeout:g} s" if expired.is_set() else f"it ended with {process.wait()}"
            raise ValueError(
                f"{path} stopped its decoder: {reason}. Allowed: a sound video file. Fetch it again, or re-encode it, "
                "for example with 'ffmpeg -i in.mkv out.mp4'."
            )
        return header, array


_local = threading.local()


def shared_decoder() -> Decoder:
    """The decoder of this thread, made when it is first asked for.

    Example:
        >>> shared_decoder() is shared_decoder()
        True
    """
    if getattr(_local, "process", None) != os.getpid():  # a process that was forked has none of its own yet
        _local.process, _local.decoder = os.getpid(), Decoder()
    return _local.decoder


def serve(max_memory: int, parent: int) -> None:
    """Answers the requests of a `Decoder` until there are no more; what runs in the other process.

    Args:
        max_memory: as in `Decoder`.
        parent: number of the process that asks; when it is gone, so is this one.

    Example:
        >>> serve(1 << 30, 1)  # doctest: +SKIP
    """
    _limit_memory(max_memory)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    # What a library prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        for line in sys.stdin.buffer:
            for header, array in _answers_or_error(json.loads(line), max_memory):
                _write(answers, header, array)
    except BrokenPipeError:  # nobody listens any more
        os._exit(0)


def _answers_or_error(request: dict, max_memory: int) -> Iterator[tuple[dict, np.ndarray | None]]:
    try:
        yield from _answers(request)
        yield {"end": True}, None
    except MemoryError:
        yield {"error": "ValueError", "message": _too_much(request["path"], max_memory)}, None
    except (ValueError, OSError, ImportError) as error:
        known = [cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS]
        yield {"error": known[0], "message": str(error)}, None


def _answers(request: dict) -> Iterator[tuple[dict, np.ndarray | None]]:
    path = request["path"]
    if request["do"] == "probe":
        info = probe_video(path)._asdict()
        times = info.pop("frame_times")
        yield {"info": info}, times
    elif request["do"] == "subtitles":
        yield {"sentences": read_subtitle_track(path)}, None
    else:
        size = request["size"] and tuple(request["size"])
        for picture in iter_frames(path, np.array(request["times"], dtype=np.float64), size):
            yield {}, picture


def _write(answers, header: dict, array: np.ndarray | None) -> None:
    if array is not None:
        header = {**header, "shape": array.shape, "dtype": array.dtype.str}
    answers.write(json.dumps(header).encode() + b"\n")
    if array is not None and array.size:
        answers.write(memoryview(np.ascontiguousarray(array)).cast("B"))
    answers.flush()


def _too_much(path: str, max_memory: int) -> str:
    return (
        f"{path} takes more than {max_memory} bytes of memory to decode. Allowed: up to that. Scale the file with "
        "ffmpeg, or pass a Decoder with a larger max_memory."
    )


def _limit_memory(max_memory: int) -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _stop(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()
