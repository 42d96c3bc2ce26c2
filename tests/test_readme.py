"""The examples of the README for each data set, run on small releases; each block goes on from the one before."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_hostile_files import ANSWERS, CLIP, SHOT, SRT, write

from processing import VideoQAProcessor

README = Path(__file__).parents[1] / "README.md"


def blocks():
    data = README.read_text(encoding="utf-8").split("\n## Data\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", data, flags=re.DOTALL)


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """A folder with a small release of every data set, as the examples expect them, training files too."""
    monkeypatch.chdir(tmp_path)
    folders = {"tvqa": "tvqa", "tvqa_plus": "tvqa_plus", "dramaqa": "AnotherMissOh", "how2qa": "how2qa"}
    for case, folder in (folders | {"nextqa": "nextqa"}).items():
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, case)
        for path in list((tmp_path / folder).iterdir()):
            if "val" in path.name and case != "nextqa":  # the same questions for training, under other names
                text = path.read_text().replace('"qid": 7', '"qid": 8')
                path.with_name(path.name.replace("val", "train")).write_text(text)
    with h5py.File(tmp_path / "tvqa" / "tvqa_imagenet_pool5_hq.h5", "w") as file:
        file[CLIP] = np.ones((27, 4), np.float32)
    with h5py.File(tmp_path / "tvqa_plus" / "tvqa_bbt_bottom_up_pool5_hq_20_100_pca.h5", "w") as file:
        file[CLIP] = np.ones((1, 3), np.float32)
    torch.save({SHOT: torch.ones(2, 768)}, tmp_path / "AnotherMissOh" / "clipvitl14.pth")
    own = tmp_path / "my_clips"
    own.mkdir()
    line = {"video": "a.mp4", "subtitles": "a.srt", "question": "who ?", "choices": list(ANSWERS.values()), "answer": 0}
    (own / "train.jsonl").write_text(json.dumps(line))
    (own / "a.srt").write_bytes(SRT)
    np.savez(own / "features.npz", a=np.ones((4, 3), np.float32))


def test_every_example_about_data_runs(releases, tiny_tokenizer, capsys):
    names = {"processor": VideoQAProcessor(tiny_tokenizer, max_text_length=30, video_feature_size=3)}
    found = blocks()
    assert len(found) == 6
    loaded = []
    for block in found:
        exec(compile(block, str(README), "exec"), names)  # noqa: S102
        if "data" in names:
            loaded.append(names.pop("data"))
    assert [len(data.questions) for data in loaded] == [2, 2, 2, 1, 1]
    assert "1 questions about 1 clips: 1 with label, 1 with span, 1 with subtitles, 1 with objects, " in (
        capsys.readouterr().out
    )
    assert names["train"][0]["video_features"].shape[-1] == 3
