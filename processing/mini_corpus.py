"""The mini corpus: a small diagnostic data set in the TVQA+ layout, written from a seed.

A clip has three or four sentences, each with its own segment, and in the middle of each segment a figure walks by. Four
kinds of question each need one thing, and nothing else answers them:

| kind | asks for | needs |
|---|---|---|
| `dialogue` | what a speaker bought, lost, ... | the subtitles |
| `frames` | the figure's colour when something is named | the subtitles (which segment) and the pictures |
| `objects` | what the figure holds then | the subtitles (which segment) and the object labels |
| `order` | what is named first, or last | the order of the segments |

Question and choices alone stand at chance, 1 in 5: the choices are what the clip's sentences and figures hold, filled
up with what is nowhere in it; what belongs to which sentence is drawn uniformly, and the right answer's place is
balanced.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .mini_drawing import COLOURS, FPS, SHAPES, THINGS, MiniFigure, figure_at, figure_boxes, write_video

KINDS = ("dialogue", "frames", "objects", "order")
SPLITS = ("train", "val")
# In each clip. Frames have more: to tell colours apart is all that their features have to be trained for, and hardest.
QUESTIONS_PER_KIND = {"dialogue": 2, "frames": 3, "objects": 2, "order": 2}
NUM_CHOICES = 5
OBJECT_FPS = 3  # frames per second of the object labels, as in TVQA
MAX_CLIPS = 47_040  # in a split: more do not fit the two-digit numbers of a TVQA clip name

# Every word is one token of BERT's uncased vocabulary, so that no word is harder to match than another.
NAMES = ("Ann", "Bob", "Emma", "Henry", "Jack", "Lucy", "Mary", "Peter")
NOUNS = (
    *("umbrella", "ticket", "guitar", "letter", "camera", "blanket", "lamp", "mirror"),
    *("clock", "pillow", "bottle", "basket", "piano", "candle", "jacket", "helmet"),
)
VERBS = {
    "buy": "bought",
    "lose": "lost",
    "find": "found",
    "sell": "sold",
    "paint": "painted",
    "break": "broke",
    "borrow": "borrowed",
    "clean": "cleaned",
}

# Share of a segment at which its figure comes and goes. Attention over a segment's frames can tell choices apart only
# where the frames differ, so every segment has empty ones too.
_IN_VIEW = (0.27, 0.73)
_POOLS = {"dialogue": NOUNS, "frames": tuple(COLOURS), "objects": tuple(THINGS), "order": NOUNS}
_FIRST_QID = {"train": 0, "val": 500_000}  # above the last of MAX_CLIPS * 10 in train: qids are unique across splits
_VERSION = 2  # of the content; raised when the same parameters would give other files


@dataclass(frozen=True)
class MiniSentence:
    """One spoken sentence.

    Args:
        start (`float`), end (`float`): seconds from the start of the clip.
        speaker (`str`): one of `NAMES`.
        verb (`str`): base form, a key of `VERBS`.
        noun (`str`): one of `NOUNS`.
    """

    start: float
    end: float
    speaker: str
    verb: str
    noun: str


@dataclass(frozen=True)
class MiniClip:
    """The plan of one clip: all that its files say, before any is written.

    Args:
        clip_id (`str`): a name of the form `s01e01_seg01_clip_00`.
        duration (`float`): seconds, a whole number of video frames.
        sentences (`tuple` of `MiniSentence`): in order of time, T of them.
        figures (`tuple` of `MiniFigure`): the T figures, one in the middle of each segment.
        background_seed (`int`): seed of the picture's texture.
        questions (`tuple` of `dict`): records in the layout of `tvqa_plus_train.json`, and the key `"kind"`.
    """

    clip_id: str
    duration: float
    sentences: tuple[MiniSentence, ...]
    figures: tuple[MiniFigure, ...]
    background_seed: int
    questions: tuple[dict, ...]


def _draw(rng: np.random.Generator, pool: Iterable, count: int) -> list:
    """`count` different elements in random order, all draws equally likely."""
    pool = list(pool)
    return [pool[i] for i in rng.permutation(len(pool))[:count]]


def _clip_name(split: str, number: int) -> str:
    # As in the releases, 2 segments of an episode; odd seasons train and even ones val, so the splits share no clip.
    rest, clip = divmod(number, 20)
    rest, segment = divmod(rest, 2)
    season, episode = divmod(rest, 24)
    return f"s{2 * season + 1 + SPLITS.index(split):02}e{episode + 1:02}_seg{segment + 1:02}_clip_{clip:02}"


def _plan_sentences(rng: np.random.Generator, count: int) -> tuple[MiniSentence, ...]:
    # Of the nine pairs of 3 speakers and 3 verbs, the six off the diagonal: no pair twice, while some speakers and some
    # verbs come twice, so that neither alone says which sentence is meant.
    speakers, verbs = _draw(rng, NAMES, 3), _draw(rng, VERBS, 3)
    pairs = _draw(rng, [(speakers[i], verbs[j]) for i in range(3) for j in range(3) if i != j], count)
    sentences, clock = [], 0  # hundredths of a second: sums stay exact
    for (speaker, verb), noun in zip(pairs, _draw(rng, NOUNS, count), strict=True):
        start = clock + int(rng.integers(10, 31))
        clock = start + int(rng.integers(200, 301))
        sentences.append(MiniSentence(start / 100, clock / 100, speaker, verb, noun))
    return tuple(sentences)


def _plan_figures(
    rng: np.random.Generator, sentences: Sequence[MiniSentence], duration: float
) -> tuple[MiniFigure, ...]:
    count = len(sentences)
    colours, things = _draw(rng, COLOURS, count), _draw(rng, THINGS, count)
    borders = [0.0, *(sentence.start for sentence in sentences[1:]), duration]
    figures = []
    for start, end, colour, thing in zip(borders[:-1], borders[1:], colours, things, strict=True):
        enter, leave = (round(start + share * (end - start), 4) for share in _IN_VIEW)
        shape, direction = _draw(rng, SHAPES, 1)[0], _draw(rng, (1, -1), 1)[0]
        figures.append(MiniFigure(enter, leave, shape, colour, thing, direction))
    return tuple(figures)


def _place(split: str, kind: str, number: int, seed: int) -> int:
    """The right answer's place in a kind's question of this number; each run of five questions has all five places."""
    block, turn = divmod(number, NUM_CHOICES)
    rng = np.random.default_rng([SPLITS.index(split), 1 + KINDS.index(kind), block, seed])
    return int(rng.permutation(NUM_CHOICES)[turn])


def _question_text(kind: str, sentence: MiniSentence, first: bool) -> str:
    if kind == "dialogue":
        return f"What did {sentence.speaker} {sentence.verb} ?"
    if kind == "order":
        return f"What is named {'first' if first else 'last'} ?"
    # Short, because the question stands in every row: the demo trains on a CPU in a few minutes.
    asked = "Which colour is seen" if kind == "frames" else "What is held"
    return f"{asked} with the {sentence.noun} ?"


def _plan_questions(
    rng: np.random.Generator,
    sentences: Sequence[MiniSentence],
    figures: Sequence[MiniFigure],
    split: str,
    number: int,
    seed: int,
) -> tuple[dict, ...]:
    nouns = [sentence.noun for sentence in sentences]
    answers = {
        "dialogue": nouns,
        "frames": [figure.colour for figure in figures],
        "objects": [figure.held for figure in figures],
        "order": nouns,
    }
    questions = []
    for kind in KINDS:
        ends = [0, len(sentences) - 1]
        asked = ends if kind == "order" else _draw(rng, range(len(sentences)), QUESTIONS_PER_KIND[kind])
        for turn, index in enumerate(asked):
            sentence, answer = sentences[index], answers[kind][index]
            # The other answers of the clip, filled up with some that do not occur in it.
            others = [other for other in answers[kind] if other != answer]
            others += _draw(
                rng, [other for other in _POOLS[kind] if other not in answers[kind]], NUM_CHOICES - 1 - len(others)
            )
            choices = _draw(rng, others, NUM_CHOICES - 1)
            place = _place(split, kind, QUESTIONS_PER_KIND[kind] * number + turn, seed)
            choices.insert(place, answer)
            questions.append(
                {
                    "qid": _FIRST_QID[split] + sum(QUESTIONS_PER_KIND.values()) * number + len(questions),
                    "vid_name": _clip_name(split, number),
                    "q": _question_text(kind, sentence, first=index == 0),
                    **{f"a{i}": choice for i, choice in enumerate(choices)},
                    "answer_idx": str(place),
                    "ts": [sentence.start, sentence.end],
                    "bbox": {},
                    "kind": kind,
                }
            )
    return tuple(questions)


def _plan_clip(split: str, number: int, seed: int) -> MiniClip:
    rng = np.random.default_rng([SPLITS.index(split), 0, number, seed])  # 1 and above: the streams of `_place`
    sentences = _plan_sentences(rng, count=int(rng.integers(3, 5)))
    # The clip ends with a whole video frame, 0.3 to 0.425 s after the last word.
    duration = math.ceil(round((sentences[-1].end + 0.3) * FPS, 6)) / FPS
    figures = _plan_figures(rng, sentences, duration)
    background_seed = int(rng.integers(2**31))
    questions = _plan_questions(rng, sentences, figures, split, number, seed)
    return MiniClip(_clip_name(split, number), duration, sentences, figures, background_seed, questions)


def plan_clips(split: str, num_clips: int, seed: int = 0) -> list[MiniClip]:
    """Plan the clips of one split without writing anything.

    A clip and its questions depend only on `(seed, split, number of the clip)`, so a larger corpus begins with a
    smaller one.

    Args:
        split (`str`): `"train"` or `"val"`; their clips are disjoint.
        num_clips (`int`): 1 to `MAX_CLIPS`.
        seed (`int`): not negative.

    Returns:
        `list` of `MiniClip`, with nine questions each, as `QUESTIONS_PER_KIND` says.

    Raises:
        ValueError: if an argument is none of these.

    Example:

        >>> clip = plan_clips("train", num_clips=1)[0]
        >>> clip.clip_id, len(clip.questions)
        ('s01e01_seg01_clip_00', 9)
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}. Allowed: {' or '.join(map(repr, SPLITS))}. Give one of these names.")
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(
            f"{num_clips} {split} clips were asked for. Allowed: 1 to {MAX_CLIPS}, as many as TVQA's clip names can "
            "number. Ask for a number of clips in this range."
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}. Allowed: 0 and above. Give another seed.")
    return [_plan_clip(split, number, seed) for number in range(num_clips)]


def _srt_time(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"00:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def _srt(clip: MiniClip) -> str:
    entries = (
        f"{number}\n{_srt_time(s.start)} --> {_srt_time(s.end)}\n({s.speaker}:)I {VERBS[s.verb]} the {s.noun}.\n"
        for number, s in enumerate(clip.sentences, start=1)
    )
    return "\n".join(entries)


def _tvr_subtitles(clip: MiniClip) -> dict:
    sub = [
        {"text": f" {s.speaker} : I {VERBS[s.verb]} the {s.noun} .", "start": s.start, "end": s.end}
        for s in clip.sentences
    ]
    return {"vid_name": clip.clip_id, "sub": sub}


def _stage_objects(clip: MiniClip) -> dict:
    """Boxes and labels of one clip; frame n, counted from 1, is at (n - 1) / 3 seconds and has index n - 1."""
    boxes, labels = [], []
    for index in range(math.ceil(clip.duration * OBJECT_FPS)):
        time = index / OBJECT_FPS
        figure = figure_at(clip.figures, time)
        boxes.append([] if figure is None else figure_boxes(figure, time))
        labels.append([] if figure is None else [figure.shape, figure.held])
    return {"boxes": boxes, "object": labels, "counts": [len(row) for row in labels]}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="ascii", newline="\n")


def _write_annotations(folder: Path, plans: dict[str, list[MiniClip]]) -> None:
    clips = [clip for split in SPLITS for clip in plans[split]]
    for split in SPLITS:
        questions = [question for clip in plans[split] for question in clip.questions]
        _write_json(folder / f"tvqa_plus_{split}.json", questions)
    (folder / "tvqa_subtitles").mkdir()
    for clip in clips:
        (folder / "tvqa_subtitles" / f"{clip.clip_id}.srt").write_text(_srt(clip), encoding="ascii", newline="\n")
    lines = "".join(json.dumps(_tvr_subtitles(clip)) + "\n" for clip in clips)
    (folder / "tvqa_preprocessed_subtitles.jsonl").write_text(lines, encoding="ascii", newline="\n")
    objects = {clip.clip_id: _stage_objects(clip) for clip in clips}
    _write_json(folder / "tvqa_bbt_frcn_vg_hq_20_100.json", objects)
    _write_json(folder / "durations.json", {clip.clip_id: clip.duration for clip in clips})


def _missing_files(folder: Path, plans: dict[str, list[MiniClip]]) -> list[str]:
    names = [f"tvqa_plus_{split}.json" for split in SPLITS]
    names += ["tvqa_preprocessed_subtitles.jsonl", "tvqa_bbt_frcn_vg_hq_20_100.json", "durations.json"]
    for split in SPLITS:
        for clip in plans[split]:
            names += [f"tvqa_subtitles/{clip.clip_id}.srt", f"videos/{clip.clip_id}.mp4"]
    return [name for name in names if not (folder / name).is_file()]


def _is_complete(output_dir: Path, parameters: dict, plans: dict[str, list[MiniClip]]) -> bool:
    """Whether the corpus is there already; raises where something else is."""
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return False
    try:
        found = json.loads((output_dir / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    missing = _missing_files(output_dir, plans) if found == parameters else []
    if found == parameters and not missing:
        return True
    if missing:
        what = f"a mini corpus that lacks {len(missing)} of its files ({missing[0]!r} is the first)"
    else:
        what = "other files" if found is None else f"a mini corpus of other parameters ({found})"
    raise FileExistsError(
        f"output_dir '{output_dir}' holds {what}. Allowed: a folder that does not exist or is empty, or a complete "
        f"mini corpus of the same parameters ({parameters}). Give another output_dir, or move this one away first."
    )


def write_mini_corpus(
    output_dir: str | Path,
    num_train_clips: int = 200,
    num_val_clips: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the mini corpus: questions, subtitles, object labels and videos of both splits.

    The files stand in the layouts of the TVQA and TVQA+ releases, so the loaders of those read them:

    - `tvqa_plus_train.json`, `tvqa_plus_val.json`: the questions, with one more key, `"kind"`.
    - `tvqa_subtitles/{clip}.srt`, and the same sentences in `tvqa_preprocessed_subtitles.jsonl`.
    - `tvqa_bbt_frcn_vg_hq_20_100.json`: boxes in pixels of the video, and labels, three times a second.
    - `videos/{clip}.mp4`: H.264, 96 x 96 pixels, 8 frames per second; about 10 s long.
    - `durations.json`: seconds of each clip. `corpus.json`: the parameters.

    The same arguments give the same files, byte for byte (the videos: with the same version of x264). The folder
    appears only when it is complete; a run that is interrupted leaves none. A corpus of the same parameters is not
    written again.

    Args:
        output_dir (`str` or `Path`): a folder that does not exist yet, or is empty, or holds this very corpus.
        num_train_clips (`int`): clips to train on, with nine questions each.
        num_val_clips (`int`): clips to validate on; none of them is in train.
        seed (`int`): not negative.
        progress (`bool`): show a bar while the videos are written.

    Returns:
        `Path`: `output_dir`.

    Raises:
        FileExistsError: if `output_dir` holds something else.
        ValueError: if a number of clips or the seed is out of range.

    Example:

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     corpus = write_mini_corpus(folder + "/mini", num_train_clips=1, num_val_clips=1, progress=False)
        ...     sorted(path.name for path in (corpus / "videos").iterdir())
        ['s01e01_seg01_clip_00.mp4', 's02e01_seg01_clip_00.mp4']
    """
    output_dir = Path(output_dir)
    plans = {"train": plan_clips("train", num_train_clips, seed), "val": plan_clips("val", num_val_clips, seed)}
    parameters = {
        "version": _VERSION,
        "num_train_clips": num_train_clips,
        "num_val_clips": num_val_clips,
        "seed": seed,
    }
    if _is_complete(output_dir, parameters, plans):
        return output_dir
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    # A sibling, so that the last step is a rename within one file system: all or nothing.
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}.", dir=output_dir.parent) as holder:
        partial = Path(holder) / "corpus"
        (partial / "videos").mkdir(parents=True)
        _write_annotations(partial, plans)
        for clip in tqdm(plans["train"] + plans["val"], desc="mini corpus", unit="clip", disable=not progress):
            write_video(partial / "videos" / f"{clip.clip_id}.mp4", clip.figures, clip.duration, clip.background_seed)
        _write_json(partial / "corpus.json", parameters)
        if output_dir.exists():  # and is empty; not every system renames onto an empty folder
            output_dir.rmdir()
        partial.rename(output_dir)
    return output_dir
