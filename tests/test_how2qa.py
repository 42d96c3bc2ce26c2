"""How2QA and NExT-QA, the sets whose releases are csv files."""

import doctest
import json
from collections import Counter

import pytest

from processing.loaders import how2qa, load_how2qa, load_nextqa, nextqa

ROW = "NOuQuofjk44,[67.2:118.0],None,12,16,how many ?,1"


@pytest.mark.parametrize("module", [how2qa, nextqa])
def test_the_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.fixture
def how2(tmp_path):
    def write(*rows):
        (tmp_path / "how2QA_val_release.csv").write_text("\n".join(rows))
        return load_how2qa(tmp_path, ("validation",), subtitles=False)

    return write


def test_the_first_row_is_a_question_and_its_last_cell_the_answer(how2):
    row, other = how2(ROW, ROW.replace("None", "01.50")).questions["validation"]
    assert (row["clip_id"], row["question"], row["group"]) == ("NOuQuofjk44_60_120", "how many ?", "how2qa")
    assert (row["start"], row["end"]) == (pytest.approx(7.2), 58.0)
    assert sorted(row["choices"]) == ["1", "12", "16", "None"]
    assert row["choices"][row["label"]] == "1"
    assert "01.50" in other["choices"]  # a text, no number
    assert (row["qid"], other["qid"]) == ("how2qa_validation_0", "how2qa_validation_1")


def test_an_option_may_be_repeated(how2):
    (row,) = how2(ROW.replace("12,16", "1,1")).questions["validation"]
    assert sorted(row["choices"]) == ["1", "1", "1", "None"]
    assert row["choices"][row["label"]] == "1"


def test_the_answers_place_is_the_same_in_every_reading_and_all_places_occur(how2):
    labels = how2(*[ROW] * 200).questions["validation"]["label"][:]
    assert labels == how2(*[ROW] * 200).questions["validation"]["label"][:]
    assert min(Counter(labels).values()) > 25
    assert len(set(labels)) == 4


def test_subtitles_of_the_60_second_clip(how2, tmp_path):
    how2(ROW)
    line = {"vid_name": "NOuQuofjk44_60_120", "sub": [{"text": " so now", "start": 1.5, "end": 3}]}
    (tmp_path / "how2r_qa_sub.jsonl").write_text(json.dumps(line))
    (clip,) = load_how2qa(tmp_path, ("validation",)).clips
    assert clip["subtitles"] == [{"start": 1.5, "end": 3.0, "speaker": "", "text": "so now"}]
    assert clip["duration"] == 60.0
    (tmp_path / "how2r_qa_sub.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"how2r_qa_sub.jsonl.*subtitles=False"):
        load_how2qa(tmp_path, ("validation",))


@pytest.mark.parametrize("row", ["a,b", ROW + ",more", ROW.replace("[67.2:118.0]", "67.2-118"), ROW.replace(":", ":-")])
def test_a_row_of_another_form_is_named(how2, row):
    with pytest.raises(ValueError, match=r"how2QA_val_release.csv, line 2: .*Seven cells are allowed"):
        how2(ROW, row)


@pytest.mark.parametrize("content", [b'"', b"\xff,"])
def test_a_file_that_is_no_csv_is_named(tmp_path, content):
    (tmp_path / "how2QA_val_release.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"how2QA_val_release.csv: .*A csv file in UTF-8 is allowed"):
        load_how2qa(tmp_path, ("validation",), subtitles=False)


HEADER = ",".join(nextqa.COLUMNS)
NEXT = "4010,369,640,480,how do they play,0,6,CH,roll,tap,strum,hit,pat"


@pytest.fixture
def following(tmp_path):
    def write(*rows, header=HEADER):
        (tmp_path / "val.csv").write_text("\n".join([header, *rows]))
        return load_nextqa(tmp_path, ("validation",))

    return write


def test_a_row_of_nextqa(following):
    data = following(NEXT, NEXT.replace("4010", "4011"))  # the number of a question begins anew with each video
    row = data.questions["validation"][0]
    assert (row["qid"], row["clip_id"], row["group"], row["label"]) == ("4010_6", "4010", "CH", 0)
    assert row["choices"] == ["roll", "tap", "strum", "hit", "pat"]
    assert data.clips[0] == {"clip_id": "4010", "duration": None, "subtitles": [], "objects": []}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": [NEXT + ",x"]}, "line 2: .*13 cells are allowed"),
        ({"rows": [NEXT.replace(",0,", ",roll,")]}, "line 2: .*a number from 0"),
        ({"rows": [NEXT.replace(",0,", ",5,")]}, "label is 5"),
        ({"rows": [NEXT], "header": "video,question,answer"}, "the columns .* came"),
        ({"rows": [], "header": ""}, r"the columns \[\] came"),
    ],
)
def test_a_broken_nextqa_is_named(following, arguments, words):
    rows = arguments.pop("rows")
    with pytest.raises(ValueError, match=words):
        following(*rows, **arguments)


def test_real_how2qa(real):
    data = load_how2qa(real / "how2qa", ("validation",), subtitles=False)
    table = data.questions["validation"]
    assert len(table) == 2_852
    assert {len(choices) for choices in table["choices"]} == {4}
    assert sum("None" in choices for choices in table["choices"]) > 0
    late = sum(end > 60 for end in table["end"] if end is not None)
    assert 0.07 < late / len(table) < 0.1


def test_real_nextqa(real):
    data = load_nextqa(real / "nextqa", ("validation",))
    table = data.questions["validation"]
    assert len(table) == 4_996
    assert set(table["group"]) == {"CW", "CH", "TN", "TC", "TP", "DC", "DL", "DO"}
