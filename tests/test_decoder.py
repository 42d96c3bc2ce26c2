"""Decoding in another process: the same as decoding here, and whatever befalls it is an error and no more."""

import doctest
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_video import REAL, encode

from processing import decoder_videoqa
from processing.decoder_videoqa import Decoder, shared_decoder
from processing.video_videoqa import decode_frames, probe_video, read_subtitle_track

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz_decoder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of 25 frames with a subtitle track."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    encode(path, subtitles=("subrip", [(100, 500, b"(Amy:)Hello")]))
    return path


@pytest.fixture
def decoder():
    with Decoder() as decoder:
        yield decoder


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(decoder_videoqa).failed == 0


def test_it_gives_what_decoding_here_gives(decoder, clip):
    info, expected = decoder.probe(clip), probe_video(clip)
    assert info._replace(frame_times=None) == expected._replace(frame_times=None)
    np.testing.assert_array_equal(info.frame_times, expected.frame_times)
    times = [0.0, 0.3, 0.3, 0.9]
    np.testing.assert_array_equal(list(decoder.frames(clip, times)), decode_frames(clip, times))
    np.testing.assert_array_equal(list(decoder.frames(clip, times, size=(8, 6))), decode_frames(clip, times, (8, 6)))
    assert list(decoder.frames(clip, [])) == []
    assert decoder.subtitles(clip) == read_subtitle_track(clip)
    assert decoder.subtitles(clip)[0].speaker == "Amy"


def test_errors_are_those_of_decoding_here_and_the_process_stays(decoder, clip, tmp_path):
    decoder.probe(clip)
    process = decoder._process
    (tmp_path / "text.mp4").write_text("no video")
    for path, error in (
        (tmp_path / "none.mp4", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (tmp_path / "text.mp4", ValueError),
    ):
        with pytest.raises(error) as here:
            probe_video(path)
        with pytest.raises(error) as there:
            decoder.probe(path)
        assert str(here.value) == str(there.value)
    with pytest.raises(ValueError, match="ascending"):
        list(decoder.frames(clip, [1.0, 0.0]))
    assert decoder.probe(clip).width == 48
    assert decoder._process is process


def test_a_crash_is_an_error_and_the_next_file_is_read(decoder, clip):
    frames = decoder.frames(clip, np.repeat(np.arange(25) / 25, 2000))  # more than a pipe holds
    next(frames)
    os.kill(decoder._process.pid, signal.SIGSEGV)
    with pytest.raises(ValueError, match=r"clip\.mkv stopped its decoder: it ended with -11.*Allowed"):
        list(frames)
    assert len(list(decoder.frames(clip, [0.0]))) == 1


def test_a_hang_is_an_error_and_the_next_file_is_read(clip):
    with Decoder(timeout=30) as decoder:
        decoder.probe(clip)
        os.kill(decoder._process.pid, signal.SIGSTOP)
        decoder.timeout = 0.2
        with pytest.raises(ValueError, match=r"nothing came for 0\.2 s"):
            decoder.probe(clip)
        decoder.timeout = 30
        assert decoder.probe(clip).width == 48


def test_damaged_files_are_answers_or_errors(clip, tmp_path):
    """Some hundred; benchmarks/fuzz_decoder.py does thousands."""
    path, content = tmp_path / "damaged.mkv", clip.read_bytes()
    with Decoder(timeout=20) as decoder:
        for seed in range(200):
            path.write_bytes(fuzz_decoder.damaged(content, np.random.default_rng(seed)))
            assert fuzz_decoder.look(decoder, path) in ("error", "pictures")
        path.write_bytes(content)
        assert fuzz_decoder.look(decoder, path) == "pictures"


def test_too_much_memory_is_an_error(clip):
    with Decoder(max_memory=1 << 20) as decoder:  # less than it has when it starts: nothing more can be had
        for _ in range(2):
            with pytest.raises(ValueError, match=r"clip\.mkv.*Allowed"):
                list(decoder.frames(clip, [0.0], size=(8000, 8000)))


def test_what_is_left_before_its_end_does_not_mix_with_the_next(decoder, clip):
    times = np.repeat(np.arange(25) / 25, 200)
    for _ in range(2):
        frames = decoder.frames(clip, times)
        first = next(frames)
        frames.close()
    np.testing.assert_array_equal(first, decode_frames(clip, [0.0])[0])
    assert decoder.probe(clip).width == 48


def test_the_process_ends_with_its_owner(clip):
    decoder = Decoder()
    decoder.probe(clip)
    process = decoder._process
    del decoder
    assert process.poll() is not None


def test_the_process_ends_when_the_one_that_asks_is_killed(clip):
    code = (
        "import sys, time; from processing.decoder_videoqa import Decoder; d = Decoder(); d.probe(sys.argv[1]);"
        "print(d._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(clip)], stdout=subprocess.PIPE) as asking:
        pid = int(asking.stdout.readline())
        asking.kill()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if (state := _state(pid)) in ("Z", None):  # nobody may be there to collect it
            return
        threading.Event().wait(0.05)
    pytest.fail(f"the decoder is still there, in state {state}")


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def test_each_thread_has_its_own():
    found = [shared_decoder()]
    thread = threading.Thread(target=lambda: found.append(shared_decoder()))
    thread.start()
    thread.join()
    assert found[0] is shared_decoder()
    assert found[0] is not found[1]


def test_it_needs_no_package_around_it(clip, tmp_path):
    """As custom code from the Hub, whose files lie in one folder of another name."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("decoder_videoqa", "video_videoqa", "subtitles_videoqa"):
        shutil.copy(Path(decoder_videoqa.__file__).with_name(f"{name}.py"), folder)
    (folder / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom elsewhere.decoder_videoqa import shared_decoder\n"
    code += "print(shared_decoder().probe(sys.argv[1]).width)"  # a script without a main guard
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script), str(clip)], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "48\n"


def test_what_a_library_prints_does_not_get_among_the_answers(decoder, clip, capfd):
    with Decoder() as decoder:
        decoder.probe(clip)
    if REAL.is_dir():
        with Decoder() as decoder:
            assert decoder.probe(REAL / "nasa_13013.mp4").duration == pytest.approx(13, abs=0.5)
