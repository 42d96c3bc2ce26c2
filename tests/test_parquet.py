"""A data set written as Parquet comes back as it was, through our loader and through `load_dataset`."""

import doctest

import pytest
from datasets import DatasetDict, load_dataset

from processing.loaders import load_parquet, load_videoqa, make_tables, parquet, push_to_hub, save_parquet
from processing.mini_corpus import write_mini_corpus


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_videoqa("mini", write_mini_corpus(tmp_path_factory.mktemp("c") / "mini", 2, 1, progress=False))


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(parquet).failed == 0


def test_the_same_rows_come_back(data, tmp_path):
    folder = save_parquet(data, tmp_path / "deep" / "out")
    for again in (load_parquet(folder), load_videoqa("parquet", folder)):
        assert {split: list(table) for split, table in again.questions.items()} == {
            split: list(table) for split, table in data.questions.items()
        }
        assert list(again.clips) == list(data.clips)
        assert again.coverage() == data.coverage()
        assert again.clips.features == data.clips.features
    assert list(load_dataset(str(folder), "questions", split="train")) == list(data.questions["train"])
    assert list(load_dataset(str(folder), split="validation")) == list(data.questions["validation"])
    assert list(load_dataset(str(folder), "clips", split="clips", streaming=True)) == list(data.clips)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "clips", "questions"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_what_is_not_known_stays_unknown(tmp_path):
    row = {"qid": "1", "clip_id": "c", "question": "?", "choices": ["a", "b"], "group": "g"}
    row |= dict.fromkeys(("label", "start", "end"))
    clip = {"clip_id": "c", "duration": None, "subtitles": [], "objects": []}
    data = make_tables({"test": [row]}, [clip], subtitles=False)
    again = load_parquet(save_parquet(data, tmp_path / "out"))
    assert list(again.questions["test"]) == [row]
    assert list(again.clips) == [clip]


def test_some_splits(data, tmp_path):
    folder = save_parquet(data, tmp_path / "out")
    assert list(load_parquet(folder, ["validation"]).questions) == ["validation"]
    for splits in ("train", [], ["test"]):
        with pytest.raises(ValueError, match=r"splits is .*'train', 'validation'"):
            load_parquet(folder, splits)


def test_nothing_is_written_over(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="holds something already"):
        save_parquet(data, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_interrupted_writing_leaves_nothing(data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(data.clips), "to_parquet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_parquet(data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_tables_are_refused(data, tmp_path):
    other = data._replace(clips=data.clips.remove_columns("duration"))
    other.clips.to_parquet(save_parquet(data, tmp_path / "out") / "clips" / "clips.parquet")
    with pytest.raises(ValueError, match="holds a table with"):
        load_parquet(tmp_path / "out")


def test_a_question_without_its_clip_is_named(data, tmp_path):
    folder = save_parquet(data, tmp_path / "out")
    data.clips.select([1, 2]).to_parquet(folder / "clips" / "clips.parquet")
    lost = data.clips[0]["clip_id"]
    with pytest.raises(ValueError, match=f"split 'train', qid .*: its clip '{lost}' is not among the 2 clips"):
        load_parquet(folder)


def test_both_tables_go_to_the_hub(data, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        DatasetDict, "push_to_hub", lambda self, repo_id, **options: pushed.append((dict(self), repo_id, options))
    )
    push_to_hub(data, "user/name", private=True)
    (questions, repo, first), (clips, other_repo, second) = pushed
    assert questions == dict(data.questions)
    assert clips == {"clips": data.clips}
    assert (repo, other_repo) == ("user/name", "user/name")
    assert first == {"config_name": "questions", "set_default": True, "private": True}
    assert second == {"config_name": "clips", "private": True}
