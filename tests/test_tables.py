"""Building the tables: from the cache where nothing has changed, anew where something has, or as a stream."""

import json
import logging
import os
import pickle
import re

import pytest
from datasets import IterableDataset
from torch.utils.data import DataLoader

from processing.loaders import load_dramaqa, load_jsonl, load_tvqa, make_tables, save_parquet, tables, tvqa
from processing.loaders import load_videoqa as load

CLIPS = [f"castle_s01e01_seg01_clip_{number:02}" for number in range(3)]


def record(number, **changes):
    row = {"qid": number, "vid_name": CLIPS[number % 3], "q": "Who?", "answer_idx": number % 5, "ts": "1.5-4"}
    row |= {f"a{place}": f"answer {place}" for place in range(5)} | changes
    return {key: value for key, value in row.items() if value is not ...}


def write_lines(path, records):
    path.write_text("\n".join(map(json.dumps, records)))


@pytest.fixture
def release(tmp_path):
    """A TVQA release of 6 and 3 questions about 3 clips, with subtitles and objects."""
    root = tmp_path / "release"
    root.mkdir()
    write_lines(root / "tvqa_train.jsonl", [record(number) for number in range(6)])
    write_lines(root / "tvqa_val.jsonl", [record(number) for number in range(6, 9)])
    said = [{"text": " Amy : Hello", "start": 0.5, "end": 1.0}]
    write_lines(root / "tvqa_preprocessed_subtitles.jsonl", [{"vid_name": clip, "sub": said} for clip in CLIPS])
    (root / "det_visual_concepts_hq.pickle").write_bytes(pickle.dumps({clip: ["red cup", "lamp"] for clip in CLIPS}, 2))
    return root


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, as they are read."""
    names = []

    def watch(module, name):
        original = getattr(module, name)

        def watched(path, *arguments):
            names.append(path.name)
            return original(path, *arguments)

        monkeypatch.setattr(module, name, watched)

    watch(tvqa, "read_json_lines")
    watch(tvqa, "read_text_pickle")
    return names


def rows(data):
    return {split: list(table) for split, table in data.questions.items()}, list(data.clips)


def test_a_second_load_reads_no_source_file(release, reads, tmp_path):
    first = load("tvqa", release, cache_dir=tmp_path / "cache")
    assert set(reads) == {path.name for path in release.iterdir()}
    reads.clear()
    second = load("tvqa", release, cache_dir=tmp_path / "cache")
    assert reads == []
    assert rows(second) == rows(first)
    assert second.clips.cache_files  # memory-mapped
    assert {split: table._fingerprint for split, table in second.questions.items()} == {
        split: table._fingerprint for split, table in first.questions.items()
    }


@pytest.mark.parametrize(
    "name", ["tvqa_train.jsonl", "tvqa_preprocessed_subtitles.jsonl", "det_visual_concepts_hq.pickle"]
)
def test_a_changed_source_file_is_noticed(release, tmp_path, name):
    before = rows(load("tvqa", release, cache_dir=tmp_path / "cache"))
    path = release / name
    old = path.stat()
    if path.suffix == ".pickle":
        path.write_bytes(path.read_bytes().replace(b"lamp", b"door"))
    else:
        path.write_text(path.read_text().replace("Who?", "Why?").replace("Hello", "Adieu"))
    assert path.stat().st_size == old.st_size
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1))  # the clock of the file system may be coarse
    after = rows(load("tvqa", release, cache_dir=tmp_path / "cache"))
    assert after != before
    assert after == rows(load("tvqa", release, cache_dir=tmp_path / "other"))


def test_a_changed_file_of_a_folder_is_noticed(release, tmp_path):
    (release / "tvqa_preprocessed_subtitles.jsonl").unlink()
    folder = release / "tvqa_subtitles"
    folder.mkdir()
    for clip in CLIPS:
        (folder / f"{clip}.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nHello there\n")
    assert load("tvqa", release).clips[1]["subtitles"][0]["text"] == "Hello there"
    (folder / f"{CLIPS[1]}.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nGood bye\n")
    assert [clip["subtitles"][0]["text"] for clip in load("tvqa", release).clips] == [
        "Hello there", "Good bye", "Hello there",
    ]  # fmt: skip


def test_options_and_code_have_tables_of_their_own(release, monkeypatch):
    assert load("tvqa", release).clips[0]["objects"]
    assert not load("tvqa", release, objects=False).clips[0]["objects"]
    assert load("tvqa", release, labels=False).questions["train"]["label"][:] == [None] * 6
    assert load("tvqa", release).questions["train"]["label"][:] == [0, 1, 2, 3, 4, 0]
    before = load("tvqa", release).clips._fingerprint
    monkeypatch.setattr(tables, "_code_hash", lambda: "another")
    assert load("tvqa", release).clips._fingerprint != before


def test_a_stream_gives_the_same_rows(release, reads):
    expected = rows(load("tvqa", release))
    reads.clear()
    data = load("tvqa", release, streaming=True)
    assert reads == []  # nothing is read before it is asked for
    assert isinstance(data.clips, IterableDataset)
    assert rows(data) == expected
    assert rows(data) == expected  # and again
    assert [len(batch["qid"]) for batch in DataLoader(data.questions["train"], batch_size=4, num_workers=1)] == [4, 2]
    assert data.coverage() == load("tvqa", release).coverage()


def test_the_first_row_of_a_stream_comes_before_the_file_is_read_to_its_end(release):
    path = release / "tvqa_train.jsonl"
    path.write_text(path.read_text() + '\n{"qid":')
    stream = iter(load("tvqa", release, streaming=True).questions["train"])
    assert next(stream)["qid"] == "0"
    with pytest.raises(ValueError, match="line 7: no JSON"):
        list(stream)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("part", "split", "change"),
    [
        ("labels", "train", {"answer_idx": ...}),
        ("spans", "train", {"ts": "NaN-NaN"}),
    ],
)
def test_a_part_of_the_questions_that_is_missing_wholesale_stops(release, streaming, part, split, change):
    write_lines(release / f"tvqa_{split}.jsonl", [record(number, **change) for number in range(6)])
    with pytest.raises(ValueError, match=rf"split '{split}': not one of its 6 questions has .*{part}=False"):
        rows(load("tvqa", release, streaming=streaming))
    assert rows(load("tvqa", release, streaming=streaming, **{part: False}))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("part", ["subtitles", "objects"])
def test_a_part_of_the_clips_that_is_missing_wholesale_stops(release, streaming, part):
    if part == "subtitles":
        write_lines(release / "tvqa_preprocessed_subtitles.jsonl", [{"vid_name": clip, "sub": []} for clip in CLIPS])
    else:
        (release / "det_visual_concepts_hq.pickle").write_bytes(pickle.dumps({"other": ["cup"]}))
    with pytest.raises(ValueError, match=rf"not one of .*{part}=False"):
        rows(load("tvqa", release, streaming=streaming))
    assert rows(load("tvqa", release, streaming=streaming, **{part: False}))


def test_the_answers_of_a_test_split_may_be_hidden(release):
    write_lines(release / "tvqa_test_public.jsonl", [record(number, answer_idx=..., ts=...) for number in range(6)])
    assert load("tvqa", release, splits=("test",)).coverage()["test"].with_label == 0


def test_a_part_that_few_have_is_a_warning(release, caplog):
    (release / "det_visual_concepts_hq.pickle").write_bytes(pickle.dumps({CLIPS[0]: ["cup"]}))
    load("tvqa", release)
    assert "train: only 2 of 6 questions have an object label" in caplog.text
    assert "sentence" not in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
def test_another_number_of_questions_is_told_with_both(release, streaming, caplog):
    rows(load("tvqa", release, streaming=streaming))
    assert "TVQA train: 6 questions came, the official release has 122039" in caplog.text
    assert "TVQA validation: 3 questions came, the official release has 15253" in caplog.text


def test_every_load_tells_the_coverage(release, caplog):
    load("tvqa", release)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="processing"):
            load("tvqa", release)
        assert (
            "TVQA train: 6 questions about 3 clips: 6 with label, 6 with span, 6 with subtitles, 6 with objects, "
            "0 with duration"
        ) in caplog.messages


@pytest.mark.parametrize("streaming", [False, True])
def test_a_repeated_qid_is_an_error_in_whatever_form(release, streaming):
    write_lines(release / "tvqa_train.jsonl", [record(1), record(2), record(1, q="Why?")])
    with pytest.raises(ValueError, match="split 'train', qid '1': this qid was there before, in split 'train'"):
        rows(load("tvqa", release, streaming=streaming))


def test_a_failed_load_leaves_nothing_that_a_later_one_finds(release, tmp_path):
    good = (release / "tvqa_val.jsonl").read_text()
    (release / "tvqa_val.jsonl").write_text(good + "{")
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape("tvqa_val.jsonl, line 3")):
            load("tvqa", release, cache_dir=tmp_path / "cache")
    left = [path for path in (tmp_path / "cache").rglob("*.arrow") if "validation" in path.name]
    assert left == []
    (release / "tvqa_val.jsonl").write_text(good)
    assert rows(load("tvqa", release, cache_dir=tmp_path / "cache")) == rows(load("tvqa", release))


def test_own_rows_and_own_data_stream_too(tmp_path):
    line = {"clip": "a", "question": "Who?", "choices": ["x", "y"], "answer": 0, "subtitles": []}
    write_lines(tmp_path / "train.jsonl", [line])
    data = load_jsonl(tmp_path, subtitles=False)
    assert rows(load_jsonl(tmp_path, subtitles=False, streaming=True)) == rows(data)
    again = make_tables(rows(data)[0], rows(data)[1], subtitles=False, streaming=True)
    assert rows(again) == rows(data)
    folder = save_parquet(data, tmp_path / "parquet")
    assert rows(load("parquet", folder, streaming=True)) == rows(data)


def test_a_misspelt_option_is_an_error(release):
    with pytest.raises(TypeError, match="objcts"):
        load("tvqa", release, objcts=False)


@pytest.mark.parametrize("function", [load_tvqa, load_dramaqa])
def test_a_folder_that_is_not_there(function, tmp_path):
    with pytest.raises(FileNotFoundError, match="An existing folder"):
        function(tmp_path / "none", streaming=True)
