"""Each test clip shows its own frame number: frame k is one flat grey of level 16 + 8 k, with a white corner."""

import doctest
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPImageProcessorPil, ConvNextImageProcessorPil

from processing import video_videoqa
from processing.decoder_videoqa import Decoder
from processing.subtitles_videoqa import make_segments
from processing.video_videoqa import (
    VideoInfo,
    decode_frames,
    iter_frames,
    pixel_values,
    probe_video,
    read_subtitle_track,
    sample_times,
    select_frames,
)

REAL = Path(__file__).parents[1].parent / "shared/real/video"
HEIGHT, WIDTH = 32, 48
VARIABLE = (0, 1, 2, 5, 9, 10, 11, 20, 28)  # in thirtieths of a second
ASS_HEADER = b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n\n[Events]\n"


def encode(
    path,
    ticks=range(25),
    rate=25,
    codec="libx264",
    b_frames=2,
    gop=None,
    rotation=None,
    sound_from=None,
    subtitles=None,
):
    """Writes a clip; `subtitles` is (codec, [(start ms, length ms, payload)])."""
    with av.open(str(path), "w") as container:
        # B-frames even where they save nothing, and although each frame looks like a new scene.
        options = {"b_strategy": "0", "sc_threshold": "0"} if codec == "libx264" else {}
        video = container.add_stream(codec, rate=rate, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, rate)
        video.codec_context.max_b_frames = b_frames
        if gop:
            video.codec_context.gop_size = gop
        if rotation:
            video.set_display_rotation(rotation)
        if sound_from is not None:
            sound = container.add_stream("aac", rate=8000, layout="mono")
        if subtitles:
            track = container.add_stream(subtitles[0])
            track.codec_context.subtitle_header = ASS_HEADER
            track.time_base = Fraction(1, 1000)
            container.start_encoding()
        for number, tick in enumerate(ticks):
            picture = np.full((HEIGHT, WIDTH, 3), (16 + 8 * number) % 240, np.uint8)
            picture[:8, :8] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound_from is not None:
            for block in range(4):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 8000, int(sound_from * 8000) + 1024 * block
                frame.time_base = Fraction(1, 8000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        for start, length, payload in subtitles[1] if subtitles else ():
            packet = av.Packet(payload)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = length, Fraction(1, 1000), track
            container.mux(packet)
    return path


def black_png(side):
    """A black picture of `side` x `side` pixels of one bit."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def numbers(pictures):
    """The frame numbers that decoded pictures show."""
    return np.round((pictures[:, HEIGHT // 2, WIDTH // 2, 0].astype(float) - 16) / 8).astype(int).tolist()


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        "plain": encode(folder / "plain.mp4"),
        "variable": encode(folder / "variable.mkv", VARIABLE, rate=30),
        "late": encode(folder / "late.mkv", range(50, 75)),
        "late_mp4": encode(folder / "late.mp4", range(50, 75)),
        "edited": encode(folder / "edited.mp4", range(-5, 20)),  # an edit list hides the first five
        "webm": encode(folder / "clip.webm", codec="libvpx"),
        "avi": encode(folder / "clip.avi", codec="mpeg4", b_frames=0),
        "mov": encode(folder / "clip.MOV", b_frames=0),
        "sparse": encode(folder / "sparse.mp4", [0, 1, 2, 300, 301, 600, 601, 602, 1000], gop=2),
    }


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(video_videoqa).failed == 0


class TestSelectFrames:
    def test_worked_by_hand(self):
        # Ten frames a second for two seconds; parts of [0, 1) have their centres at .125, .375, .625, .875.
        index, mask = select_frames(np.arange(20) / 10, [[0, 1], [1, 1.3], [1.3, 1.3], [1.3, 2]], 4)
        assert index.tolist() == [[1, 4, 6, 9], [10, 11, 12, 0], [0, 0, 0, 0], [14, 16, 17, 19]]
        assert mask.sum(1).tolist() == [4, 3, 0, 4]
        assert index.dtype == np.int64
        assert mask.dtype == bool

    def test_a_tie_goes_to_the_earlier_frame(self):
        index, _ = select_frames([0.1, 0.3, 0.35], [[0, 0.4]], 1)  # centre .2
        assert index.tolist() == [[0]]

    def test_a_frame_nearest_to_two_centres_counts_once(self):
        index, mask = select_frames([0.0, 7.0, 7.1, 7.2, 7.3], [[0, 8]], 4)  # centres 1, 3, 5, 7
        assert index[mask].tolist() == [0, 1]
        assert mask.tolist() == [[True, True, False, False]]

    def test_the_end_of_the_last_segment(self):
        times = [0.0, 1.0, 2.0, 3.0]
        index, mask = select_frames(times, [[0, 1], [1, 2]], 4)
        assert [index[t][mask[t]].tolist() for t in range(2)] == [[0], [1, 2, 3]]
        index, mask = select_frames(times, [[0, 1], [1, 2]], 4, span="subtitle")
        assert [index[t][mask[t]].tolist() for t in range(2)] == [[0, 1], [1, 2]]

    def test_zero_length_segments_at_the_end_get_nothing(self):
        _, mask = select_frames([0.0, 1.0, 2.0], [[0, 2], [2, 2]], 4)
        assert mask.sum(1).tolist() == [3, 0]

    def test_a_clip_of_unknown_length(self):
        index, mask = select_frames(np.arange(8.0), np.array(make_segments([])[0][:2])[None], 2)
        assert index.tolist() == [[2, 5]]  # the centres of [0, 7]'s halves are 1.75 and 5.25
        assert mask.all()

    def test_no_frames_and_no_segments(self):
        assert not select_frames([], [[0, 1]], 4)[1].any()
        assert select_frames([0.0], np.zeros((0, 2)), 4)[0].shape == (0, 4)

    times = st.lists(st.integers(0, 400).map(lambda t: t / 10), max_size=60).map(sorted)
    starts = st.lists(st.integers(0, 300).map(lambda t: t / 10), max_size=8).map(sorted)

    @given(times, starts, st.integers(30, 45))
    @settings(max_examples=150, deadline=None)
    def test_every_frame_belongs_to_exactly_one_segment_of_a_partition(self, times, starts, duration):
        segments = make_segments([{"start": start, "text": "x"} for start in starts], duration)
        bounds = np.array([segment[:2] for segment in segments])
        index, mask = select_frames(times, bounds, 60)  # room for all
        assert np.sort(index[mask]).tolist() == list(range(len(times)))
        for (start, end), row, held in zip(bounds, index, mask, strict=True):
            inside = np.asarray(times)[row[held]]
            assert (inside >= start).all()
            assert (inside < end).all() or end == duration

    @given(times, starts, st.integers(1, 6), st.sampled_from(["partition", "subtitle"]))
    @settings(max_examples=150, deadline=None)
    def test_rows_are_ascending_and_filled_from_the_left(self, times, starts, num_frames, span):
        segments = make_segments([{"start": s, "text": "x"} for s in starts], 40, span)
        index, mask = select_frames(times, [segment[:2] for segment in segments], num_frames, span)
        assert index.shape == mask.shape == (len(segments), num_frames)
        for row, held in zip(index, mask, strict=True):
            assert (np.diff(row[held]) > 0).all()
            assert held.tolist() == sorted(held.tolist(), reverse=True)
            assert not row[~held].any()

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"frame_times": [1.0, 0.0]}, "not ascending"),
            ({"frame_times": [np.nan]}, "not finite"),
            ({"frame_times": [[1.0]]}, "frame_times"),
            ({"segment_times": [0, 1]}, "segment times"),
            ({"segment_times": [[1, 0]]}, "segment times"),
            ({"segment_times": [[3, 4], [1, 2]]}, "segment times"),
            ({"num_frames": 0}, "num_frames"),
            ({"num_frames": True}, "num_frames"),
            ({"span": "half"}, "span is 'half'"),
        ],
    )
    def test_mistakes(self, changed, said):
        with pytest.raises(ValueError, match=f"{said}(.|\n)*Allowed"):
            select_frames(**{"frame_times": [0.0], "segment_times": [[0, 1]], "num_frames": 4, **changed})


def test_the_clips_hold_b_frames(clips):
    with av.open(str(clips["plain"])) as container:
        ticks = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert ticks != sorted(ticks)


class TestProbe:
    @pytest.mark.parametrize("name", ["plain", "late", "late_mp4", "webm", "avi", "mov"])
    def test_constant_rate(self, clips, name):
        info = probe_video(clips[name])
        np.testing.assert_allclose(info.frame_times, np.arange(25) / 25, atol=1e-9)
        assert info.duration == pytest.approx(1.0)
        assert (info.height, info.width) == (HEIGHT, WIDTH)
        assert info.frame_times.dtype == np.float64

    def test_variable_rate(self, clips):
        info = probe_video(str(clips["variable"]))
        np.testing.assert_allclose(info.frame_times, np.array(VARIABLE) / 30, atol=0.0005)
        assert info.tick == 0.001

    def test_frames_cut_off_by_an_edit_list_are_not_there(self, clips):
        np.testing.assert_allclose(probe_video(clips["edited"]).frame_times, np.arange(20) / 25, atol=1e-9)
        assert numbers(decode_frames(clips["edited"], [0.0, 0.76])) == [5, 24]

    def test_the_clock_begins_with_the_earlier_of_picture_and_sound(self, tmp_path):
        late_picture = probe_video(encode(tmp_path / "a.mkv", range(30, 40), sound_from=1.0, b_frames=0))
        assert late_picture.frame_times[0] == pytest.approx(0.2, abs=0.15)  # aac's own run-in is up to 0.128 s
        assert late_picture.frame_times[0] > 0.1
        late_sound = probe_video(encode(tmp_path / "b.mkv", range(30, 40), sound_from=2.0, b_frames=0))
        assert late_sound.frame_times[0] == 0

    def test_rotation(self, tmp_path):
        path = encode(tmp_path / "portrait.mp4", range(3), rotation=-90)  # to be shown a quarter turn clockwise
        info = probe_video(path)
        assert (info.height, info.width) == (WIDTH, HEIGHT)
        (picture,) = decode_frames(path, [0.0])
        assert picture.shape == (WIDTH, HEIGHT, 3)
        assert picture[2, -3].min() > 200  # the white corner has gone from the left to the right
        assert picture[2, 2].max() < 100
        assert decode_frames(path, [0.0], size=(20, 30)).shape == (1, 20, 30, 3)


class TestSampleTimes:
    info = VideoInfo(2.0, 8, 8, np.array([0.0, 0.4, 0.9, 1.0, 1.8]))

    def test_worked_by_hand(self):
        assert sample_times(self.info, 1).tolist() == [0.0, 1.0]
        assert sample_times(self.info, 2).tolist() == [0.0, 0.4, 1.0]  # at 0, .5, 1 and 1.5: the fourth shows 1.0 too
        assert sample_times(self.info, 10).tolist() == self.info.frame_times.tolist()
        assert sample_times(self.info, None).tolist() == self.info.frame_times.tolist()
        assert sample_times(self.info, 0.1).tolist() == [0.0]

    def test_a_clock_of_milliseconds_does_not_lose_frames(self):
        rounded = np.round(np.arange(300) / 30, 3)
        assert len(sample_times(VideoInfo(10.0, 8, 8, rounded, 0.001), 30)) == 300
        assert len(sample_times(VideoInfo(10.0, 8, 8, rounded, 0.001), 10)) == 100

    def test_a_coarse_clock_does_not_run_ahead(self):
        # .35 s: the frame of .36 s is not on screen yet.
        assert sample_times(VideoInfo(0.7, 8, 8, np.arange(17) / 25, 1 / 25), 1 / 0.35)[1] == pytest.approx(0.32)

    @given(
        st.lists(st.integers(0, 5000), min_size=1, max_size=40, unique=True), st.floats(0.1, 60), st.integers(1, 500)
    )
    @settings(max_examples=100, deadline=None)
    def test_times_are_those_of_frames_each_once(self, ticks, rate, last):
        times = np.sort(np.array(ticks)) / 1000
        sampled = sample_times(VideoInfo(times[-1] + last / 1000, 8, 8, times, 0.001), rate)
        assert np.isin(sampled, times).all()
        assert (np.diff(sampled) > 0).all()
        assert sampled[0] == times[0]

    @pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf, "3", True, 1e9])
    def test_rates_that_are_none(self, rate):
        with pytest.raises(ValueError, match="Allowed"):
            sample_times(self.info, rate)


class TestDecode:
    @pytest.mark.parametrize("name", ["plain", "late", "late_mp4", "webm", "avi", "mov"])
    def test_every_frame_by_its_time(self, clips, name):
        times = probe_video(clips[name]).frame_times
        assert numbers(decode_frames(clips[name], times)) == list(range(25))

    def test_the_frame_on_screen(self, clips):
        asked = {-1.0: 0, 0.0: 0, 0.05: 1, 0.16: 2, 0.1666: 3, 0.25: 3, 0.32: 4, 0.34: 5, 0.5: 6, 0.9: 7, 99.0: 8}
        pictures = decode_frames(clips["variable"], list(asked))
        assert pictures.dtype == np.uint8
        assert numbers(pictures) == list(asked.values())

    def test_any_order_and_repeats(self, clips):
        assert numbers(decode_frames(clips["plain"], [0.8, 0.0, 0.8, 0.41])) == [20, 0, 20, 10]

    def test_size_and_nothing_asked(self, clips):
        assert decode_frames(clips["plain"], [0.0, 0.5], size=(10, 20)).shape == (2, 10, 20, 3)
        assert decode_frames(clips["plain"], []).shape == (0, HEIGHT, WIDTH, 3)
        assert decode_frames(clips["plain"], [], size=(10, 20)).shape == (0, 10, 20, 3)

    @pytest.mark.parametrize("gap", [0.01, 0.1, 1.0])
    def test_seeking_finds_the_same_frames_as_decoding_all(self, clips, monkeypatch, gap):
        def decode(name, times):
            return numbers(np.stack(list(iter_frames(clips[name], times, seek_gap=gap))))

        monkeypatch.setattr(video_videoqa, "_SEEK_MARGIN", 0.0)
        times = probe_video(clips["sparse"]).frame_times
        assert decode("sparse", times) == list(range(9))
        assert decode("sparse", times[::3] + 0.02) == [0, 3, 6]
        for name in ("late", "late_mp4", "webm"):
            assert decode(name, np.arange(25) / 25) == list(range(25))

    def test_a_seek_that_fails_falls_back_to_decoding_all(self, clips, monkeypatch):
        monkeypatch.setattr(video_videoqa, "_from_key_frame", lambda *_: None)
        times = probe_video(clips["sparse"]).frame_times
        assert np.diff(times).max() > 10
        assert numbers(decode_frames(clips["sparse"], times)) == list(range(9))

    @given(st.lists(st.integers(0, 1100), min_size=1, max_size=8))
    @settings(max_examples=25, deadline=None)
    def test_what_is_on_screen_is_the_last_frame_begun(self, clips, milliseconds):
        begun = probe_video(clips["variable"]).frame_times
        expected = [int(np.flatnonzero(begun <= ms / 1000 + 0.0005)[-1]) for ms in milliseconds]
        assert numbers(decode_frames(clips["variable"], [ms / 1000 for ms in milliseconds])) == expected

    def test_one_at_a_time(self, clips):
        pictures = iter_frames(clips["plain"], [0.0, 0.01, 0.5])
        assert numbers(np.stack(list(pictures))) == [0, 0, 12]
        with pytest.raises(ValueError, match="not ascending"):
            next(iter_frames(clips["plain"], [0.5, 0.0]))

    @pytest.mark.parametrize(
        ("times", "size", "said"),
        [
            ([np.nan], None, "not finite"),
            ([[0.0]], None, "one row"),
            ([0.0], 224, "size is 224"),
            ([0.0], (0, 5), "size is"),
            ([0.0], (2.0, 5), "size is"),
            ([0.0], (10**5, 10**5), "size is"),
        ],
    )
    def test_mistakes(self, clips, times, size, said):
        with pytest.raises(ValueError, match=f"{said}.*Allowed|Allowed.*{said}"):
            decode_frames(clips["plain"], times, size)

    @pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
    def test_avi_with_b_frames(self, tmp_path, codec):
        path = encode(tmp_path / "b.avi", codec=codec, ticks=range(10))
        times = probe_video(path).frame_times  # one frame late: avi counts decoding steps
        np.testing.assert_allclose(times, np.arange(1, 11) / 25, atol=1e-9)
        shown = decode_frames(path, times)[:, HEIGHT // 2, WIDTH // 2, 0].astype(int)
        assert (np.abs(shown - (16 + 8 * np.arange(10))) < 4).all() if codec == "libx264" else shown[0] < shown[-1]

    def test_pictures_out_of_order_are_refused(self, clips, monkeypatch):
        decoded = video_videoqa._decoded
        monkeypatch.setattr(video_videoqa, "_decoded", lambda *given: reversed(list(decoded(*given))))
        with pytest.raises(ValueError, match=r"out of order.*Allowed"):
            decode_frames(clips["plain"], [0.0, 0.99])


SUBTITLES = {
    "mkv": ("subrip", [(0, 400, b"<i>Ann: hi</i>"), (500, 300, b"a &amp; b"), (900, 50, b"<i></i>")]),
    "webm": ("webvtt", [(0, 400, b"<v Ann>hi"), (500, 300, b"a &amp; b")]),
    "mp4": ("mov_text", [(0, 400, b"\x00\x07Ann: hi\x00\x00\x00\x08styl"), (500, 300, b"\x00\x05a & b")]),
    "ass.mkv": (
        "ass",
        [
            (0, 400, b"0,0,Default,Ann,0,0,0,,{\\b1}hi"),
            (450, 10, b"1,0,Default,,0,0,0,,{\\p1}m 0 0 l 9 9"),
            (500, 300, b"2,0,Default,,0,0,0,,a\\N& b"),
        ],
    ),
}


class TestSubtitleTrack:
    @pytest.mark.parametrize("ending", SUBTITLES)
    def test_formats(self, tmp_path, ending):
        codec = "libvpx" if ending == "webm" else "mpeg4"
        path = encode(tmp_path / f"clip.{ending}", codec=codec, b_frames=0, subtitles=SUBTITLES[ending])
        assert read_subtitle_track(path) == [(0.0, 0.4, "Ann", "hi"), (0.5, 0.8, "", "a & b")]

    def test_times_are_on_the_clock_of_the_pictures(self, tmp_path):
        shifted = ("subrip", [(2200, 400, b"hi")])
        path = encode(tmp_path / "late.mkv", range(50, 75), b_frames=0, subtitles=shifted)
        assert read_subtitle_track(path) == [(pytest.approx(0.2), pytest.approx(0.6), "", "hi")]

    def test_none(self, clips):
        assert read_subtitle_track(clips["plain"]) == []


class TestBadFiles:
    functions = (probe_video, read_subtitle_track, lambda path: decode_frames(path, [0.0]))

    @pytest.fixture
    def refused(self):
        def check(path, kind, said):
            for function in self.functions:
                with pytest.raises(kind, match=said) as caught:
                    function(path)
                assert "Allowed" in str(caught.value)
                assert not isinstance(caught.value, av.FFmpegError)

        return check

    def test_paths(self, refused, tmp_path, clips):
        refused(tmp_path / "none.mp4", FileNotFoundError, "no video file")
        refused("http://127.0.0.1/a.mp4", FileNotFoundError, "no video file")
        refused(tmp_path, IsADirectoryError, "folder")
        (tmp_path / "a.m3u8").write_text("#EXTM3U\n")
        refused(tmp_path / "a.m3u8", ValueError, "'.m3u8'")
        os.mkfifo(tmp_path / "pipe.mp4")
        refused(tmp_path / "pipe.mp4", ValueError, "no ordinary file")

    @pytest.mark.parametrize("suffix", video_videoqa.VIDEO_SUFFIXES)
    def test_contents(self, refused, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"")
        refused(path, ValueError, "empty")
        path.write_text("This is a text that somebody renamed.\n" * 99)
        refused(path, ValueError, "cannot be read as")

    def test_a_playlist_cannot_make_us_read_other_files(self, refused, tmp_path, clips):
        path = tmp_path / "list.mp4"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clips['plain']}\n#EXT-X-ENDLIST\n")
        refused(path, ValueError, "cannot be read as mp4")
        path.write_text(f"ffconcat version 1.0\nfile '{clips['plain']}'\n")
        refused(path, ValueError, "cannot be read as mp4")

    def test_a_file_of_another_container(self, refused, tmp_path, clips):
        path = tmp_path / "really.mkv"
        path.write_bytes(clips["plain"].read_bytes())
        refused(path, ValueError, "cannot be read as mkv")

    def test_truncated(self, tmp_path, clips):
        mp4 = tmp_path / "half.mp4"
        mp4.write_bytes(clips["plain"].read_bytes()[:-200])  # the index stands at the end
        with pytest.raises(ValueError, match="cannot be read as mp4"):
            probe_video(mp4)
        whole = encode(tmp_path / "long.mkv", range(250), codec="mpeg4", gop=5).read_bytes()
        mkv = tmp_path / "half.mkv"
        mkv.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="cut short: its header says 10 s"):
            probe_video(mkv)

    @given(st.integers(0, 10**9), st.integers(0, 255))
    @settings(max_examples=40, deadline=None)
    def test_a_broken_byte_never_lets_a_decoder_error_out(self, clips, tmp_path_factory, place, value):
        content = bytearray(clips["variable"].read_bytes())
        content[place % len(content)] = value
        path = tmp_path_factory.getbasetemp() / "broken.mkv"
        path.write_bytes(content)
        for function in self.functions:
            try:
                function(path)
            except ValueError as error:
                if isinstance(error, av.FFmpegError) or "Allowed" not in str(error):
                    raise

    def test_sound_alone(self, refused, tmp_path):
        path = tmp_path / "sound.mp4"
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        refused(path, ValueError, "no video stream")

    def test_caps(self, clips, monkeypatch):
        monkeypatch.setattr(video_videoqa, "MAX_FRAMES", 24)
        with pytest.raises(ValueError, match="more than 24 frames"):
            probe_video(clips["plain"])
        monkeypatch.undo()
        monkeypatch.setattr(video_videoqa, "MAX_SECONDS", 0.9)
        with pytest.raises(ValueError, match=r"up to 0\.9 s"):
            probe_video(clips["plain"])
        monkeypatch.undo()
        monkeypatch.setattr(video_videoqa, "MAX_FRAME_PIXELS", HEIGHT * WIDTH - 1)
        with pytest.raises(ValueError, match="pictures of 1536 pixels"):
            decode_frames(clips["plain"], [0.0])

    @pytest.mark.parametrize("side", [64, 30_000])
    def test_a_picture_of_30_000_by_30_000(self, tmp_path, side):
        """Half a megabyte of file; the header says its size, or says that it is small."""
        png = tmp_path / "big.mov"
        with av.open(str(png), "w") as container:
            stream = container.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "monob"
            packet = av.Packet(black_png(30_000))
            packet.pts = packet.dts = 0
            packet.duration, packet.time_base, packet.stream = 1, Fraction(1, 25), stream
            container.mux(packet)
        content = bytearray(png.read_bytes())
        place = content.index(b"png ") + 28  # in the sample description
        assert struct.unpack_from(">HH", content, place) == (64, 64)
        struct.pack_into(">HH", content, place, side, side)
        png.write_bytes(content)
        said = "cannot be read as mov video.*with pictures of up to 64000000 pixels"
        with Decoder(timeout=20, max_memory=1 << 30) as decoder:
            with pytest.raises(ValueError, match=said):
                decoder.probe(png)
            with pytest.raises(ValueError, match=said):
                list(decoder.frames(png, [0.0]))

    def test_a_clip_of_very_many_tiny_frames(self, tmp_path):
        path = tmp_path / "many.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=1000)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts, frame.time_base = 0, Fraction(1, 1000)
            content = bytes([*stream.encode(frame), *stream.encode(None)][0])
            for number in range(video_videoqa.MAX_FRAMES + 2):
                packet = av.Packet(content)
                packet.pts = packet.dts = number
                packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
                container.mux(packet)
        with Decoder() as decoder, pytest.raises(ValueError, match=r"more than 500000 frames\. Allowed"):
            decoder.probe(path)

    def test_without_pyav(self, clips, monkeypatch):
        monkeypatch.setattr(video_videoqa, "av", None)
        with pytest.raises(ImportError, match=r"av >= 17\.1\. Install it with 'pip install --upgrade av'"):
            probe_video(clips["plain"])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real clips are not at {REAL}")
class TestRealClips:
    def test_nasa(self):
        path = REAL / "nasa_13013.mp4"
        info = probe_video(path)
        assert (info.width, info.height, len(info.frame_times)) == (480, 270, 390)
        np.testing.assert_allclose(info.frame_times, np.arange(390) * 1001 / 30000, atol=1e-9)
        assert info.duration == pytest.approx(13.013)
        assert len(sample_times(info, 3)) == 40
        sentences = read_subtitle_track(path)
        assert sentences[0][:3] == (0.21, 4.26, "NAR")
        assert sentences[0].line.startswith("NAR : This is the optical and science segment of the Webb")
        assert "NASA\u2019s" in sentences[2].text

    def test_a_late_frame_is_the_same_by_seeking(self):
        path = REAL / "nasa_13013.mp4"
        sought, plain = (list(iter_frames(path, [12.0, 12.5], (64, 64), seek_gap=gap)) for gap in (1.0, np.inf))
        assert np.array_equal(sought, plain)

    def test_av1(self):
        info = probe_video(REAL / "av1_video.mkv")
        assert (info.width, info.height, len(info.frame_times)) == (640, 360, 125)
        assert info.duration == pytest.approx(5.0)
        pictures = decode_frames(REAL / "av1_video.mkv", sample_times(info, 3), size=(36, 64))
        assert pictures.shape == (15, 36, 64, 3)
        assert pictures.std() > 10
        assert read_subtitle_track(REAL / "av1_video.mkv") == []


class TestPixelValues:
    def test_values(self):
        processor = CLIPImageProcessorPil(
            size={"height": 4, "width": 4}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        frames = np.zeros((2, 8, 6, 3), np.uint8)
        frames[1] = (255, 0, 51)
        pixels = pixel_values(frames, processor)
        assert pixels.shape == (2, 3, 4, 4)
        np.testing.assert_allclose(pixels[0], np.full((3, 4, 4), -1.0))
        np.testing.assert_allclose(pixels[1, :, 2, 2], [1.0, -1.0, -0.6], atol=1e-6)

    def test_a_picture_three_pixels_high_is_not_turned(self):
        frames = np.zeros((1, 3, 8, 3), np.uint8)
        frames[..., 0] = 255
        pixels = pixel_values(frames, ConvNextImageProcessorPil(do_resize=False, do_normalize=False))
        assert pixels.shape == (1, 3, 3, 8)
        assert pixels[0, 0].min() == 1
        assert pixels[0, 1:].max() == 0

    def test_no_picture_at_all_keeps_the_size(self):
        processor = ConvNextImageProcessorPil(size={"shortest_edge": 32})
        assert pixel_values(np.zeros((0, 48, 64, 3), np.uint8), processor).shape == (0, 3, 32, 32)

    @pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), [1]])
    def test_mistakes(self, frames):
        with pytest.raises(ValueError, match=r"frames have shape.*Allowed"):
            pixel_values(frames, ConvNextImageProcessorPil())

    def test_an_image_processor_of_another_kind(self):
        def strange(images, **_):
            return {"pixel_values": np.zeros((1, len(images), 3, 4, 4))}

        with pytest.raises(ValueError, match="function made"):
            pixel_values(np.zeros((2, 8, 8, 3), np.uint8), strange)
