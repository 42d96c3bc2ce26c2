"""Numbers worked out by hand, and pages read back as HTML: nothing from outside, nothing unescaped."""

import doctest
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from modeling_videoqa import report
from modeling_videoqa.metrics import evaluate_predictions
from modeling_videoqa.report import (
    Slice,
    by_first_word,
    by_group,
    calibration,
    mistakes,
    span_errors,
    write_comparison,
    write_report,
)

ADDRESSES = {"href", "xlink:href", "srcset", "data", "poster", "background", "action", "formaction", "ping", "cite"}
VOID = {"meta", "img", "br"}
HOSTILE = '<script>alert("1")</script>\' onload="x" {{ 7 * 7 }} {% raw %} &lt; <img src=http://x.example/>'
SAID = [
    {"start": 0.0, "end": 4.0, "speaker": "Amy", "text": "Hello there."},
    {"start": 4.0, "end": 8.0, "speaker": "", "text": "Somebody knocks."},
    {"start": 9.0, "end": None, "speaker": None, "text": "The end."},
]


class Page(HTMLParser):
    """What a browser would be told: the tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.source, self.open, self.tags, self.texts = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def read(path):
    """The page, which asks for nothing from outside and runs nothing."""
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags[0][0] == "html"
    styles = re.findall(r"<style>.*?</style>", page.source, re.DOTALL)
    assert len(styles) == 1
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "a", "use", "form")
        assert not attributes.keys() & ADDRESSES
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        styles.append(attributes.get("style", ""))
    assert not re.search(r"url\(|@import|https?:", "".join(styles))
    return page


def question(
    qid, label=0, start=None, end=None, group="house", text="What is it?", choices=("cup", "door", "coat", "tea")
):
    return {
        "qid": qid,
        "clip_id": f"clip {qid}",
        "question": text,
        "choices": list(choices),
        "label": label,
        "start": start,
        "end": end,
        "group": group,
    }


def answer(probabilities, start=None, end=None, **more):
    label = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {"label": label, "probabilities": list(probabilities), "start": start, "end": end, **more}


ROWS = [
    question("q1", 0, 2.0, 6.0, "house", "Who knocks?"),
    question("q2", 1, 4.0, 8.0, "castle", "What's that?"),
    question("q3", 2, 0.0, 2.0, "house", "Is it her?", ["cup", "door", "coat"]),
    question("q4", 3, None, None, "house", "what now?"),
    question("q5", None, 1.0, 2.0, "barn", "Why?"),
]
ANSWERS = {
    "q1": answer([0.7, 0.1, 0.1, 0.1], 3.0, 6.0),  # right, IoU 3/4
    "q2": answer([0.9, 0.0, 0.1, 0.0], 0.0, 4.0),  # wrong, IoU 0
    "q3": answer([0.6, 0.2, 0.2], None, None),  # wrong, no span
    "q5": answer([0.25, 0.25, 0.25, 0.25], 1.0, 2.0),
}  # q4: no prediction


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(report).failed == 0


# --- computing


def test_accuracy_by_group_counts_a_missing_prediction_as_wrong():
    castle, house = by_group(ANSWERS, ROWS)
    assert castle == Slice("castle", 1, 0, 0.25)
    assert (house.name, house.questions, house.correct) == ("house", 3, 1)
    assert house.chance == pytest.approx((1 / 4 + 1 / 3 + 1 / 4) / 3)


def test_accuracy_by_first_word_puts_other_last():
    rows = [*ROWS, question("q6", text='"WHAT?"'), question("q7", text=""), question("q8", text="Whatever?")]
    assert [(row.name, row.questions, row.correct) for row in by_first_word(ANSWERS, rows)] == [
        ("what", 3, 0),
        ("who", 1, 1),
        ("other", 3, 0),
    ]


@pytest.mark.parametrize(
    ("correct", "questions", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (400, 1000, 0.3701, 0.4307)],
)
def test_wilsons_interval_has_its_published_values(correct, questions, low, high):
    assert Slice("", questions, correct, 0.2).interval == pytest.approx((low, high), abs=1e-4)


def test_calibration_by_hand():
    result = calibration(ANSWERS, ROWS)
    # one question each at 0.6 (wrong), 0.7 (right) and 0.9 (wrong), on upper borders of bins
    assert [bin.questions for bin in result.bins] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 0]
    assert result.bins[6].confidence == pytest.approx(0.7)
    assert result.bins[6].accuracy == 1
    assert result.bins[0].accuracy is None
    assert result.error == pytest.approx((0.6 + 0.3 + 0.9) / 3)
    assert (result.questions, result.accuracy) == (3, pytest.approx(1 / 3))


def test_a_bin_weighs_by_its_mean():
    rows = [question(str(n), choices=["a", "b"]) for n in range(4)]
    right, wrong = answer([0.75, 0.25]), answer([0.25, 0.75])
    result = calibration({"0": right, "1": right, "2": right, "3": wrong}, rows)
    assert result.error == pytest.approx(0)
    assert calibration({}, rows).error is None


def test_span_errors_by_hand():
    errors = span_errors(ANSWERS, ROWS)
    assert errors.iou.tolist() == [0.75, 0, 0]  # q5 has no label, q4 no span
    assert errors.start.tolist() == [1, -4]
    assert errors.end.tolist() == [0, -4]
    assert span_errors(ANSWERS, ROWS[3:]) is None


def test_the_bars_of_the_spans_by_hand(tmp_path):
    # IoU 0.5 and 1, and one without overlap; starts 0, 0 and 20 s late, ends 4 s early, 0 and 40 s late
    rows = [question(qid, 0, 0.0, 8.0) for qid in "123"]
    spans = {"1": (0.0, 4.0), "2": (0.0, 8.0), "3": (20.0, 48.0)}
    predictions = {qid: answer([0.7, 0.1, 0.1, 0.1], *span) for qid, span in spans.items()}
    text = read(write_report(tmp_path / "report.html", predictions, rows)).text
    assert "66.7 % have an IoU of at least 0.5, and 33.3 % no overlap at all" in text
    for row in ("no overlap 1 33.3 %", "0.4 to 0.5 0 0.0 %", "0.5 to 0.6 1 33.3 %", "0.9 to 1.0 1 33.3 %"):
        assert row in text
    for row in ("start +0.0 +0.0 +10.0", "end -2.0 +0.0 +20.0"):
        assert row in text
    for row in ("-10 to -3 0.0 % 33.3 %", "-1 to 1 66.7 % 33.3 %", "10 to 30 33.3 % 0.0 %", "over 30 0.0 % 33.3 %"):
        assert row in text


def test_mistakes_are_listed_once_and_in_order():
    shares = {
        "a": [0.1, 0.5, 0.4],
        "b": [0.0, 1.0, 0.0],
        "c": [0.2, 0.6, 0.2],
        "d": [0.3, 0.3, 0.4],
        "e": [0.8, 0.1, 0.1],
    }
    rows = [question(qid, choices=["x", "y", "z"]) for qid in [*shares, "missing"]]
    predictions = {qid: answer(values) for qid, values in shares.items()}
    assert mistakes(predictions, rows, count=1) == (["b"], ["c"])
    assert mistakes(predictions, rows, count=3) == (["b", "a", "c"], ["d"])
    assert mistakes(predictions, rows) == (["b", "a", "c", "d"], [])


@pytest.mark.parametrize("compute", [by_group, by_first_word, calibration, span_errors, mistakes])
def test_without_any_label_there_is_nothing_to_compute(compute):
    with pytest.raises(ValueError, match=r"not one question has a label.*needed.*whose answers are known"):
        compute({}, [question("1", label=None)])


# --- the report


def test_report_says_what_was_found(tmp_path):
    path = write_report(
        tmp_path / "new" / "report.html", ANSWERS, ROWS, lambda clip_id: SAID, title="My model", facts={"split": "test"}
    )
    page = read(path)
    assert "My model" in page.text
    assert "split test" in page.text
    assert "25.0 %" in page.text  # 1 of 4
    assert "Questions with a known answer: 4, of them with a known span: 3." in page.text
    assert "Without a known answer, and so left out: 1." in page.text
    assert "Without a prediction, and so counted as wrong: 1." in page.text
    for text in ("What's that?", "Is it her?", "castle", "who", "Somebody knocks.", "90.0 %", "✗ chosen", "✓ right"):
        assert text in page.text
    assert "Why?" not in page.text  # without a label it is no mistake
    assert page.text.count("clip q2") == 1
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_report_shows_the_intervals_of_the_evaluation(tmp_path):
    page = read(write_report(tmp_path / "report.html", ANSWERS, ROWS))
    intervals = evaluate_predictions(ANSWERS, ROWS)["intervals"]
    for low, high in intervals.values():
        assert f"95% interval {100 * low:.1f} % to {100 * high:.1f} %" in page.text


def test_report_without_spans_mistakes_or_video(tmp_path):
    rows = [question("1"), question("2", start=3.0)]  # half a span is none
    predictions = {"1": answer([0.7, 0.1, 0.1, 0.1]), "2": answer([1.0, 0.0, 0.0, 0.0])}
    page = read(write_report(tmp_path / "report.html", predictions, rows, frames=lambda clip_id, times: None))
    assert "No question with a known answer has a known span, so this part is left out" in page.text
    assert "There is none" in page.text
    assert "mIoU" not in page.text
    assert not [tag for tag, _ in page.tags if tag in ("article", "img")]
    page = read(write_report(tmp_path / "report.html", {}, rows))
    assert "counted as wrong: 2." in page.text


def test_evidence_stands_in_for_subtitles(tmp_path):
    predictions = {"q2": answer([0.9, 0.0, 0.1, 0.0], evidence=["A bell rings."])}
    assert "A bell rings." in read(write_report(tmp_path / "a.html", predictions, ROWS, lambda clip_id: None)).text
    assert "A bell rings." not in read(write_report(tmp_path / "a.html", predictions, ROWS, lambda clip_id: SAID)).text


def test_sentences_in_a_span_are_marked_and_far_ones_folded(tmp_path):
    said = [{"start": n, "end": n + 1.0, "speaker": "", "text": f"sentence{n}"} for n in range(20)]
    rows = [question("1", 0, 2.0, 4.0)]
    predictions = {"1": answer([0.1, 0.9, 0.0, 0.0], 3.0, 5.0)}
    page = read(write_report(tmp_path / "report.html", predictions, rows, lambda clip_id: said))
    marks = dict.fromkeys(range(20), "")
    for line in re.findall(r'<li class="line.*?</li>', page.source, re.DOTALL):
        marks[int(re.search(r"sentence(\d+)", line)[1])] = "".join(re.findall(r'class="key">(.)<', line))
    assert {place: mark for place, mark in marks.items() if mark} == {2: "T", 3: "TP", 4: "P"}
    assert "14 more sentences" in page.text  # 6 to 19; 0 is too little to fold
    assert page.source.count("<details>") == 2


def test_frames_are_small_pictures_in_the_page(tmp_path):
    asked = []

    def frames(clip_id, times):
        asked.append((clip_id, times))
        return [Image.new("RGBA", (1920, 1080)), None][: len(times)]

    page = read(write_report(tmp_path / "report.html", ANSWERS, ROWS, frames=frames))
    assert sorted(asked) == [("clip q2", [2.0, 6.0]), ("clip q3", [1.0])]
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [(picture["width"], picture["height"]) for picture in pictures] == [("208", "117")] * 2
    assert all(picture["src"].startswith("data:image/jpeg;base64,") for picture in pictures)
    assert len(page.source) < 40_000


def test_another_number_of_pictures_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"1 of Image for 2 times of clip 'clip q2'.*allowed.*in the order"):
        write_report(tmp_path / "a.html", ANSWERS, ROWS, frames=lambda clip_id, times: [Image.new("L", (9, 9))])
    with pytest.raises(ValueError, match=r"frames gave 2 of str.*One PIL image"):
        write_report(tmp_path / "a.html", ANSWERS, ROWS, frames=lambda clip_id, times: ["a.jpg"] * len(times))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"q9": answer([1.0, 0, 0, 0])}, "unknown questions"),
        ({"q1": {"label": 0, "start": None, "end": None}}, r"probabilities are None.*allowed.*softmax"),
        ({"q1": answer([3.0, 1.0, -1.0, 0.0])}, "take the softmax"),
        ({"q1": answer([0.9, 0.9, 0.0, 0.0])}, "add up to 1"),
        ({"q1": answer([0.5, 0.25, 0.25])}, "4 numbers from 0 to 1"),
        ({"q1": answer([0.7, 0.1, 0.1, float("nan")])}, "take the softmax"),
        ({"q1": {**answer([0.7, 0.1, 0.1, 0.1]), "label": 2}}, r"label is 2.*that of 0.*from the same answer"),
        ({"q1": answer([0.7, 0.1, 0.1, 0.1], 1.0, None)}, "give both or neither"),
    ],
)
def test_bad_predictions_leave_no_page(tmp_path, predictions, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report.html", predictions, ROWS)
    if "q1" in predictions:
        with pytest.raises(ValueError, match=message):
            write_comparison(tmp_path / "figure.html", {"one": predictions}, ROWS, ["q1"])
    with pytest.raises(ValueError, match="not one question has a label"):
        write_report(tmp_path / "report.html", {}, ROWS[4:])
    with pytest.raises(ValueError, match=r"0 mistakes.*At least 1"):
        write_report(tmp_path / "report.html", ANSWERS, ROWS, num_mistakes=0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_page_leaves_the_older_one(tmp_path):
    path = write_report(tmp_path / "report.html", ANSWERS, ROWS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="softmax"):
        write_report(path, {"q1": answer([2.0, 0, 0, 0])}, ROWS)
    assert path.read_bytes() == before


# --- hostile text and odd numbers


def hostile_page(path):
    qid = HOSTILE
    rows = [question(qid, 0, 1.0, 2.0, HOSTILE, HOSTILE, [HOSTILE, HOSTILE + "2"]) | {"clip_id": HOSTILE}]
    said = [{"start": 0.0, "end": 4.0, "speaker": HOSTILE, "text": HOSTILE}]
    predictions = {qid: answer([0.1, 0.9], 1.0, 2.0, evidence=[HOSTILE])}
    common = {"subtitles": None, "frames": lambda clip_id, times: [Image.new("RGB", (8, 8)) for _ in times]}
    yield write_report(path, predictions, rows, title=HOSTILE, facts={HOSTILE: HOSTILE}, **common)
    yield write_comparison(path, {HOSTILE: predictions, "b": {}}, rows, [qid], title=HOSTILE, **common)
    common["subtitles"] = lambda clip_id: said
    yield write_report(path, predictions, rows, title=HOSTILE, facts={HOSTILE: HOSTILE}, **common)
    yield write_comparison(path, {HOSTILE: predictions, "b": {}}, rows, [qid], title=HOSTILE, **common)


def test_hostile_text_stays_text(tmp_path):
    for path in hostile_page(tmp_path / "page.html"):
        page = read(path)
        assert "<script" not in page.source
        assert 'onload="' not in page.source
        # title, heading, question, qid, clip, group, two choices, and more
        assert page.text.count(HOSTILE) >= 8
        policy = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
        assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_odd_spans_and_text_make_a_page(tmp_path):
    rows = [question("1", 0, 3.0, 3.0, text="\ud83d half"), question("2", 0, 3.0, 9.0)]
    predictions = {
        "1": answer([0.1, 0.9, 0, 0], 7.0, 2.0),
        "2": answer([0.1, 0.9, 0, 0], float("nan"), float("nan")),
    }
    page = read(write_report(tmp_path / "report.html", predictions, rows, lambda clip_id: []))
    assert "? half" in page.text
    assert "nan" not in page.source
    assert not re.search(r'(?:width|x)="-', page.source)


# --- the comparison


def test_comparison_shows_each_model_on_each_question(tmp_path):
    models = {"text only": ANSWERS, "with video": {"q1": answer([0.2, 0.5, 0.2, 0.1], 4.0, 8.0)}}
    page = read(
        write_comparison(
            tmp_path / "figure.html",
            models,
            iter(ROWS),
            ["q5", "q1"],
            lambda clip_id: SAID,
            lambda clip_id, times: [Image.new("RGB", (100, 50)) for _ in times],
            "Figure 4",
        )
    )
    assert page.text.index("Why?") < page.text.index("Who knocks?")
    for text in ("Figure 4", "text only", "with video", "70.0 % ✓ chosen", "50.0 % ✗ chosen", "0.75", "0.33"):
        assert text in page.text
    unlabelled, labelled = re.findall(r"<article>.*?</article>", page.source, re.DOTALL)
    assert unlabelled.count("no prediction") == 4  # "with video" has none: said at each choice
    assert "✓" not in unlabelled
    assert "✗" not in unlabelled
    assert unlabelled.count("<img") == 1  # truth and prediction are the same span
    assert labelled.count("<img") == 3


def test_comparison_refuses_what_it_cannot_show(tmp_path):
    path = tmp_path / "figure.html"
    with pytest.raises(ValueError, match=r"0 models and 1 qids.*At least one.*give"):
        write_comparison(path, {}, ROWS, ["q1"])
    with pytest.raises(ValueError, match=r"1 models and 0 qids"):
        write_comparison(path, {"a": ANSWERS}, ROWS, [])
    with pytest.raises(ValueError, match=r"1 qids are unknown, the first is 'q9'.*allowed.*drop them"):
        write_comparison(path, {"a": ANSWERS}, ROWS, ["q1", "q9"])
    assert list(tmp_path.iterdir()) == []
