"""From a clip's files and a question to an answer: the pipeline "video-question-answering"."""

import difflib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForMultipleChoice, Pipeline

logger = logging.getLogger(__name__)

TASK = "video-question-answering"
BATCH_SIZE = 8  # questions
PICTURES_AT_A_TIME = 16  # through the backbone
BAR_FROM = 20  # questions, from which on a bar is shown
CLIP_KEYS = ("video", "subtitles", "objects", "frames", "video_features", "frame_times", "duration")
QUESTION_KEYS = ("question", "choices")
# What the processor and the model's config both say; where they differ, one of them is not of this model.
SHARED_FIELDS = (
    "segment_span", "num_frames", "max_segments", "max_text_length", "frame_rate", "video_feature_size",
)  # fmt: skip


@dataclass
class _Clip:
    """What the questions on one clip share."""

    given: dict[str, Any]
    example: dict[str, Any]
    sentences: list
    frame_times: np.ndarray | None = None  # (num_frames,) seconds
    pictures: dict[int, np.ndarray] | None = None  # frame -> (height, width, 3) uint8


class VideoQAPipeline(Pipeline):
    """
    Answers multiple-choice questions about clips, from their files.

    A question is a dict of `question`, `choices` and what is known of the clip; or `questions`, a list of dicts of
    `question` and `choices`, all on the same clip. Of consecutive questions on the same clip the video is decoded
    once, the subtitles are read and tokenized once, and each frame goes through the vision backbone once.

    | key | |
    |---|---|
    | `question`, `choices` | `str`, and a list of at least two `str`: any number, whatever the model was trained on |
    | `video` | path of a video file, for a model with a vision backbone |
    | `subtitles` | list of `{"start", "end", "speaker", "text"}` in seconds; path of an `.srt` or `.vtt` file or of a video with a subtitle track. Left out: the track inside `video`, if there is one. `[]`: there are none |
    | `objects` | list of `{"time", "labels"}`, seconds |
    | `video_features`, `frame_times` | instead of `video`: (num_frames, video_feature_size) and (num_frames,) seconds |
    | `frames`, `frame_times` | instead of `video`: RGB pictures (num_frames, height, width, 3) uint8 |
    | `duration` | seconds; default: that of the video, else the end of the last sentence |

    Without `video`, `video_features` and `frames` the answer comes from text alone.

    Args:
        model ([`VideoQAForMultipleChoice`]): The model; it is put into evaluation mode.
        processor ([`VideoQAProcessor`]): The processor saved with it. `pipeline(...)` loads it.
        device, dtype: As in any pipeline.
        batch_size (`int`, defaults to 8): Questions that go through the model together.
        return_frames (`bool`, defaults to `False`): Return the frames that the model looked at, too.
        progress (`bool`, *optional*): Show a bar. Default: from 20 questions on, where stderr is a terminal.

    Raises:
        ValueError: there is no processor beside the model, or one that does not fit it.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> import processing  # registers model, processor and pipeline; without the package: trust_remote_code=True

    >>> qa = pipeline("video-question-answering", model="runs/demo/model")  # doctest: +SKIP
    >>> qa(
    ...     video="clip.mp4", subtitles="clip.srt", question="What is named first ?", choices=["lamp", "clock"]
    ... )  # doctest: +SKIP
    {'answer': 'lamp', 'index': 0, 'scores': [0.98, 0.02], 'span': [0.0, 2.2], 'evidence': [{'start': 0.0, ...}]}
    ```
    """  # noqa: E501 (a row of the table)

    _load_processor = None  # looked for, and checked here: what transformers says of a missing one helps nobody
    _load_tokenizer = _load_image_processor = _load_feature_extractor = _load_video_processor = False

    def __init__(self, model, *args, processor=None, **kwargs):
        _check_processor(model, processor)
        super().__init__(model, *args, processor=processor, **kwargs)
        self.feature_extractor = self.image_processor = None  # the processor has it, and saves it
        self._batch_size = BATCH_SIZE if self._batch_size is None else _checked_batch_size(self._batch_size)
        self._told: set[str] = set()
        self.model.eval()

    def __call__(self, inputs=None, *, batch_size=None, num_workers=None, **kwargs):
        """
        Answer one question, several questions on one clip, or questions on many clips.

        Args:
            inputs (`dict`, or an iterable of `dict`, *optional*):
                Questions with the keys above; or give the keys of a single one as keyword arguments. Of a list the
                answers are a list. Of a generator or a data set they come one by one, as they are asked for.
            batch_size (`int`, *optional*): Questions that go through the model together, for this call.
            num_workers (*optional*): Accepted, without effect: a process of its own decodes, whatever is asked.
            return_frames, progress (`bool`, *optional*): See the class, for this call.

        Returns:
            `dict` for each question, or for `questions` a list of them, in the order asked:

            - `answer` (`str`) and `index` (`int`): the choice, and its place among the choices;
            - `scores` (`list[float]`): the probability of each choice;
            - `span` (`list[float]`): start and end of where the answer is, in seconds;
            - `evidence` (`list[dict]`): the sentences of the span, `{"start", "end", "speaker", "text"}`;
            - `frames` (`list[dict]`, with `return_frames=True`): `{"time": seconds, "image": PIL.Image, "weight":
              float}`, the attention that the answer's texts pay to each frame. With local attention the weights of a
              segment sum to one, with global attention those of the clip. `image` is `None` where features came.

        Raises:
            ValueError: input that cannot be used; the message says what is allowed.
            FileNotFoundError, IsADirectoryError: a path that is no file.

        Example:

        ```python
        >>> qa(video="clip.mp4", questions=[
        ...     {"question": "What is named first ?", "choices": ["lamp", "clock"]},
        ...     {"question": "What is red ?", "choices": ["the box", "the ball", "the star"]},
        ... ])  # doctest: +SKIP
        ```
        """
        parameters = {name: kwargs.pop(name) for name in ("return_frames", "progress") if name in kwargs}
        _, forward, after = self._sanitize_parameters(**parameters)
        forward, after = {**self._forward_params, **forward}, {**self._postprocess_params, **after}
        size = self._batch_size if batch_size is None else _checked_batch_size(batch_size)
        if inputs is not None and kwargs:
            raise ValueError(
                f"A positional argument came together with {', '.join(kwargs)}. Allowed: one of the two. Put the keys "
                "into the dict of the question."
            )
        inputs = kwargs if inputs is None else inputs
        if isinstance(inputs, Mapping):
            (result,) = self._results([inputs], _count([inputs]), size, forward, after)
            return result
        if isinstance(inputs, list | tuple):
            return list(self._results(inputs, _count(inputs), size, forward, after, is_many=True))
        is_sized = hasattr(inputs, "__len__")
        if isinstance(inputs, str) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
            raise ValueError(
                f"{_short(inputs)} came as a question. Allowed: a dict with question and choices, an iterable of such "
                "dicts, or keyword arguments. Call for example qa(subtitles=..., question=..., choices=[...])."
            )
        total = len(inputs) if is_sized else None
        if is_sized and not hasattr(inputs, "__iter__"):  # a map-style data set
            rows = inputs
            inputs = (rows[place] for place in range(total))
        return self._results(inputs, total, size, forward, after, is_many=True)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """
        Save model and processor, as `pipeline("video-question-answering", model=save_directory)` loads them.

        Where the model's class was registered with `register_for_auto_class`, so that its code is saved with it, this
        pipeline's code and its entry in the config are saved too.

        Args:
            save_directory (`str` or `Path`): Folder, made where it is missing.
            kwargs: For the `save_pretrained` of model and processor.

        Example:

        ```python
        >>> qa.save_pretrained("my_model")  # doctest: +SKIP
        ```
        """
        if getattr(self.model, "_auto_class", None) is not None:
            # The class that came from the Hub is in no registry, and is saved again all the same.
            self._registered_impl = {TASK: {"impl": type(self), "pt": (AutoModelForMultipleChoice,)}}
            super().save_pretrained(save_directory, **kwargs)
        else:
            self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, return_frames=None, progress=None, local_files_only=None, **unknown):
        if unknown:
            raise ValueError(_unknown_keys(unknown, ("batch_size", "device", "dtype", "progress", "return_frames")))
        forward, after = {}, {}
        if return_frames is not None:
            forward["return_frames"] = after["return_frames"] = bool(return_frames)
        if progress is not None:
            after["progress"] = bool(progress)
        return {}, forward, after

    def _results(self, inputs, total, batch_size, forward, after, is_many=False) -> Iterator[dict | list[dict]]:
        """The result of each of the inputs, as soon as its last question is answered."""
        after = dict(after)
        progress = after.pop("progress", None)
        if progress is None:
            progress = total is not None and total >= BAR_FROM and sys.stderr.isatty()
        found = []
        with tqdm(total=total, desc="answering", unit="question", disable=not progress) as bar:
            questions = self._prepared(inputs, is_many, forward.get("return_frames", False))
            while batch := list(islice(questions, batch_size)):
                answers = self._answered([example for example, _, _ in batch], forward, after)
                for (_, has_list, is_last), answer in zip(batch, answers, strict=True):
                    found.append(answer)
                    bar.update()
                    if is_last:
                        yield found if has_list else found[0]
                        found = []

    def _prepared(self, inputs, is_many: bool, return_frames: bool) -> Iterator[tuple[dict, bool, bool]]:
        """Each question prepared for the model, whether it stands in a list, and whether it is the last of its input.

        One clip is kept, for the questions that follow on the same one.
        """
        clip = None
        for number, entry in enumerate(inputs):
            try:
                given, questions, has_list = _checked(entry)
                # All of an input's questions are looked at before its clip is decoded.
                prepared = [self._tokenized(question) for question in questions]
                if clip is None or not _is_same(clip.given, given):
                    clip = self.prepare_clip(given, return_frames)
                prepared = [_joined(question, clip) for question in prepared]
            except (ValueError, FileNotFoundError, IsADirectoryError) as error:
                if not is_many or type(error) not in (ValueError, FileNotFoundError, IsADirectoryError):
                    raise
                raise type(error)(f"Input {number}, counted from 0: {error}") from error
            for place, question in enumerate(prepared, start=1):
                yield question, has_list, place == len(prepared)

    def _answered(self, questions: list[dict], forward: dict, after: dict) -> list[dict]:
        """The answers to a batch; questions with the same number of choices go through the model together."""
        answers: list[dict | None] = [None] * len(questions)
        counts = [len(question["choices"]) for question in questions]
        for count in dict.fromkeys(counts):
            places = [place for place, other in enumerate(counts) if other == count]
            chosen = [questions[place] for place in places]
            batch = self.processor.pad([question["example"] for question in chosen])
            outputs = self.forward(batch, **forward)
            for place, answer in zip(places, self.postprocess(outputs, batch, chosen, **after), strict=True):
                answers[place] = answer
        return answers

    def prepare_clip(self, given: Mapping[str, Any], return_frames: bool = False) -> _Clip:
        """
        What all questions on a clip share: tokens of its sentences, and one feature for each frame that is needed.

        Args:
            given (`dict`): The keys of the class's table but for the question.
            return_frames (`bool`): Keep the pictures.

        Returns:
            What `preprocess` takes as `clip`.

        Example:

        ```python
        >>> clip = qa.prepare_clip({"video": "clip.mp4", "subtitles": "clip.srt"})  # doctest: +SKIP
        ```
        """
        given = dict(given)
        kind, value = self._checked_frames(given)
        sentences = self.processor.read_sentences(given.get("subtitles"), given.get("video"))
        if given.get("subtitles") is None and not sentences:
            self._tell_no_text(given.get("video"), kind)
        info = None if kind != "video" else self.processor.probe_video(value)
        duration = info.duration if given.get("duration") is None and info is not None else given.get("duration")
        example = self.processor.prepare_clip(sentences, given.get("objects"), duration=duration)
        clip = _Clip(given, example, sentences)
        if kind is None:
            return clip
        segments, times = example["segment_times"], given.get("frame_times")
        if kind == "video":
            times, pictures = self.processor.video_frames(value, info, segments)
            features = self._encode(range(len(times)), pictures, len(times), clip, return_frames)
        elif kind == "frames":
            _check_count(value, times)
            index, mask = self.processor.frame_places(times, segments)
            needed = np.unique(index[mask])
            features = self._encode(needed, (value[place] for place in needed), len(value), clip, return_frames)
        else:
            features = value
        example.update(self.processor.align_features(features, times, segments))
        clip.frame_times = np.asarray(times, np.float64)
        return clip

    def preprocess(self, inputs: Mapping[str, Any], clip: _Clip | None = None) -> dict[str, Any]:
        """
        Prepare one question.

        Args:
            inputs (`dict`): `question` and `choices`; without `clip` also the keys of the clip.
            clip (*optional*): From `prepare_clip`.

        Returns:
            `dict`: `example`, for the processor's `pad`; `choices`; `clip`.

        Example:

        ```python
        >>> qa.preprocess({"question": "Who ?", "choices": ["Ann", "Bob"]}, clip=clip)  # doctest: +SKIP
        ```
        """
        question = self._tokenized(inputs)
        if clip is None:
            clip = self.prepare_clip({key: value for key, value in inputs.items() if key in CLIP_KEYS})
        return _joined(question, clip)

    def _forward(self, model_inputs, return_frames: bool = False):
        return self.model(**model_inputs, output_attentions=return_frames)

    def postprocess(self, model_outputs, batch, questions: list[dict], return_frames: bool = False) -> list[dict]:
        """
        The answers as plain dicts.

        Args:
            model_outputs ([`VideoQAOutput`]): Output of the model.
            batch ([`BatchFeature`]): What it was given.
            questions (`list[dict]`): From `preprocess`, as many as the batch has.
            return_frames (`bool`): Add the frames.

        Returns:
            `list[dict]`: See `__call__`.

        Example:

        ```python
        >>> qa.postprocess(qa.forward(batch), batch, questions)  # doctest: +SKIP
        ```
        """
        found = self.processor.post_process_multiple_choice(
            model_outputs, batch, [question["choices"] for question in questions],
            [question["clip"].sentences for question in questions],
        )  # fmt: skip
        attentions = model_outputs.get("frame_attentions")
        answers = []
        for place, (question, answer) in enumerate(zip(questions, found, strict=True)):
            answers.append(
                {
                    "answer": answer.answer,
                    "index": answer.index,
                    "scores": answer.probabilities,
                    "span": [answer.start, answer.end],
                    "evidence": [sentence._asdict() for sentence in answer.evidence],
                }
            )
            if return_frames:
                weights = None if attentions is None else attentions[place, answer.index].float().numpy()
                answers[-1]["frames"] = self._frames_looked_at(question["clip"], weights)
        return answers

    def get_inference_context(self):
        return torch.inference_mode

    def _tokenized(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        choices = inputs.get("choices")
        choices = choices.tolist() if isinstance(choices, np.ndarray) else choices
        example = self.processor.prepare_question(inputs.get("question"), choices)
        return {"example": example, "choices": list(choices)}

    def _frames_looked_at(self, clip: _Clip, weights: np.ndarray | None) -> list[dict[str, Any]]:
        """The frames of a clip in the order of time; `weights` as in the model's output, for one choice."""
        if clip.frame_times is None or weights is None:
            return []
        segments = clip.example["segment_times"]
        if weights.ndim == 3:  # global attention: each text row over all frames
            weights = weights[: len(segments)].mean(axis=0)
        index, mask = self.processor.frame_places(clip.frame_times, segments)
        heaviest: dict[int, float] = {}  # a frame may stand in two segments that overlap
        for frame, weight in zip(index[mask].tolist(), weights[: len(segments)][mask].tolist(), strict=True):
            heaviest[frame] = max(weight, heaviest.get(frame, 0.0))
        pictures = clip.pictures or {}
        return [
            {
                "time": float(clip.frame_times[frame]),
                "image": Image.fromarray(pictures[frame]) if frame in pictures else None,
                "weight": weight,
            }
            for frame, weight in sorted(heaviest.items())
        ]

    def _encode(
        self, places: Iterable[int], pictures: Iterable[np.ndarray], num_frames: int, clip: _Clip, keep: bool
    ) -> np.ndarray:
        """Features (num_frames, video_feature_size) of the pictures at some places, 0 at the others."""
        features = np.zeros((num_frames, self.model.config.video_feature_size), np.float32)
        numbered = zip(places, pictures, strict=True)
        clip.pictures = {}
        while chunk := list(islice(numbered, PICTURES_AT_A_TIME)):
            pixels = self.processor.preprocess_frames(np.stack([picture for _, picture in chunk]))
            with self.device_placement(), torch.inference_mode():
                encoded = self._vision_part()._encode_pixels(torch.from_numpy(pixels).to(self.device))
            if encoded.shape[1] != features.shape[1]:
                raise ValueError(
                    f"The vision backbone gives features of width {encoded.shape[1]}, the model takes "
                    f"{features.shape[1]}. Allowed: a backbone with video_feature_size={features.shape[1]}. Build the "
                    "model again with the backbone that belongs to it."
                )
            features[[place for place, _ in chunk]] = encoded.float().cpu().numpy()
            if keep:
                clip.pictures.update(chunk)
        return features

    def _vision_part(self) -> torch.nn.Module | None:
        """The part of the model that holds a vision backbone, also where the model is wrapped (PEFT)."""
        parts = self.model.modules()
        return next((part for part in parts if hasattr(part, "_encode_pixels") and part.vision_model is not None), None)

    def _checked_frames(self, given: dict) -> tuple[str | None, Any]:
        """Which kind of frames came, and the frames. Tensors in `given` become arrays."""
        for name in ("frames", "video_features", "frame_times"):
            value = given.get(name)
            if isinstance(value, torch.Tensor):
                value = value.detach().cpu()
                value = value.float() if value.is_floating_point() and name == "video_features" else value
            given[name] = None if value is None else np.asarray(value)
        kinds = [name for name in ("video", "frames", "video_features") if given.get(name) is not None]
        if len(kinds) > 1:
            raise ValueError(
                f"{' and '.join(kinds)} came together. Allowed: one of video, frames and video_features, or none for "
                "text only. Leave the others out."
            )
        kind = kinds[0] if kinds else None
        if given.get("frame_times") is not None and kind in (None, "video"):
            raise ValueError(
                "frame_times came without video_features or frames. Allowed: both, or neither. A video has its own "
                "times: leave frame_times out, or pass the features that they belong to."
            )
        if kind == "video" and not isinstance(given["video"], str | os.PathLike):
            raise ValueError(
                f"video is {_short(given['video'])}. Allowed: the path of a video file. Pass pictures as frames=, with "
                "frame_times=."
            )
        if kind is not None and self.model.config.video_feature_size is None:
            raise ValueError(
                f"{kind} came, but this model reads text only (video_feature_size=None). Allowed: subtitles and "
                "objects. Leave it out; subtitles may be the path of a video with a subtitle track."
            )
        if kind in ("video", "frames") and self._vision_part() is None:
            raise ValueError(
                f"{kind} came, but this model was saved without a vision backbone. Allowed: video_features with "
                "frame_times, or a model saved with its backbone. Extract features first "
                "(examples/extract_features.py), or train with --backbone."
            )
        return kind, given.get(kind) if kind else None

    def _tell_no_text(self, video, kind: str | None) -> None:
        """Say once that an answer is given without the clip's text."""
        what = f"{video} has no subtitle track" if video is not None else "no subtitles came"
        where = "the pictures alone" if kind is not None else "question and choices alone, without any clip"
        if (kind or "") not in self._told:
            self._told.add(kind or "")
            logger.warning(
                f"No text of the clip: {what}, and the answer comes from {where}. Pass subtitles=, or subtitles=[] "
                "where the clip has none. This is said once."
            )


def _joined(question: dict[str, Any], clip: _Clip) -> dict[str, Any]:
    return {**question, "example": {**question["example"], **clip.example}, "clip": clip}


def _check_processor(model, processor) -> None:
    if not hasattr(processor, "prepare_clip"):
        came = "No processor" if processor is None else f"A {type(processor).__name__} as processor"
        raise ValueError(
            f"{came} came for the model {getattr(model, 'name_or_path', '') or type(model).__name__!r}. Allowed: the "
            "VideoQAProcessor that was saved in the model's folder (processor_config.json and the tokenizer's files). "
            "Save it there with processor.save_pretrained(folder), or pass processor=; where the package is installed, "
            "`import processing` makes it known, elsewhere trust_remote_code=True."
        )
    config = model.config
    differing = [name for name in SHARED_FIELDS if getattr(processor, name) != getattr(config, name)]
    if differing:
        values = ", ".join(f"{name}={getattr(processor, name)!r} for {getattr(config, name)!r}" for name in differing)
        raise ValueError(
            f"The processor does not fit the model: {values}. Allowed: the processor saved with the model. Is "
            "processor_config.json missing from its folder? Save the processor there, or build one with "
            "VideoQAProcessor.from_config(model.config, tokenizer)."
        )


def _check_count(frames: np.ndarray, times: np.ndarray | None) -> None:
    if times is None or len(times) != len(frames):
        count = "no frame_times" if times is None else f"{len(times)} frame_times"
        raise ValueError(
            f"{len(frames)} frames came with {count}. Allowed: one time in seconds for each frame. Pass the "
            "presentation times of the frames."
        )


def _checked(entry) -> tuple[dict[str, Any], list[Mapping], bool]:
    """What is given of the clip, the questions on it, and whether they came as a list."""
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"{_short(entry)} came as a question. Allowed: a dict with question and choices, and subtitles, video or "
            "video_features. Put them into such a dict."
        )
    has_list = entry.get("questions") is not None
    keys = (*QUESTION_KEYS, "questions", *CLIP_KEYS)
    if unknown := [key for key in entry if key not in keys]:
        raise ValueError(_unknown_keys(unknown, keys))
    given = {key: entry.get(key) for key in CLIP_KEYS}
    if not has_list:
        return given, [entry], False
    if any(entry.get(key) is not None for key in QUESTION_KEYS):
        raise ValueError(
            "questions came together with question or choices. Allowed: question and choices, or questions, a list of "
            "dicts of the two. Put the single question into the list."
        )
    questions = entry["questions"]
    if isinstance(questions, str | Mapping) or not isinstance(questions, Iterable):
        questions = [None]
    questions = list(questions)
    if not questions or not all(isinstance(question, Mapping) for question in questions):
        raise ValueError(
            f"questions={_short(entry['questions'])}. Allowed: a list of at least one dict of question and choices. "
            'Pass questions=[{"question": ..., "choices": [...]}].'
        )
    for question in questions:
        if unknown := [key for key in question if key not in QUESTION_KEYS]:
            raise ValueError(_unknown_keys(unknown, QUESTION_KEYS))
    return given, questions, True


def _unknown_keys(unknown: Iterable[str], known: tuple[str, ...]) -> str:
    unknown = list(unknown)
    close = difflib.get_close_matches(str(unknown[0]), known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "Remove it or correct its name."
    return f"Unknown: {', '.join(map(repr, unknown))}. Allowed: {', '.join(known)}. {hint}"


def _count(entries: Iterable) -> int:
    """Questions, as far as the entries are what they should be."""
    lists = [entry.get("questions") if isinstance(entry, Mapping) else None for entry in entries]
    return sum(len(questions) if hasattr(questions, "__len__") else 1 for questions in lists)


def _checked_batch_size(batch_size) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"batch_size={batch_size!r}. Allowed: a whole number from 1. Pass for example batch_size={BATCH_SIZE}."
        )
    return batch_size


def _is_same(one, other) -> bool:
    """Whether two values are equal, arrays and tensors inside of dicts and lists included."""
    if one is other:
        return True
    if isinstance(one, str | os.PathLike) and isinstance(other, str | os.PathLike):
        return os.fspath(one) == os.fspath(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        one, other = (
            value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else value
            for value in (one, other)
        )
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return one is not None and other is not None and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
