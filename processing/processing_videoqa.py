"""Question, choices, subtitles, objects and frames -> the batch of the model; the model's output -> answers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import is_torchvision_available

from .decoder_videoqa import shared_decoder
from .rows_videoqa import text_rows
from .subtitles_videoqa import Sentence, make_segments, read_subtitles, segments_of_span, tidy_sentences, to_sentences
from .video_videoqa import VIDEO_SUFFIXES, VideoInfo, pixel_values, sample_times, select_frames

# Fields of the model's config that the input depends on; the processor carries the same names.
INPUT_FIELDS = (
    "segment_span", "num_frames", "max_segments", "max_text_length", "frame_rate", "video_feature_size",
    "mask_probability",
)  # fmt: skip
IGNORE_INDEX = -100


@dataclass
class VideoQAAnswer:
    """
    The answer to one question.

    Args:
        answer (`str`): Text of the chosen answer.
        index (`int`): Its place among the choices.
        probabilities (`list[float]`): Probability of each choice.
        start, end (`float`): Where in the clip the answer is, in seconds.
        evidence (`list[Sentence]`): The sentences in that span.
    """

    answer: str
    index: int
    probabilities: list[float]
    start: float
    end: float
    evidence: list[Sentence]


class VideoQAProcessor(ProcessorMixin):
    r"""
    Builds the model's input from text and video (METHOD.md, points 1 to 8), and reads its output.

    The batch has these keys; B questions, N choices, T segments, I frames a segment, L tokens a row. T and L are the
    largest of the batch, at most `max_segments` and `max_text_length`:

    | key | shape, dtype | |
    |---|---|---|
    | `input_ids`, `attention_mask`, `token_type_ids` | (B, N, T, L) int64 | token types are segment numbers 0..3 |
    | `segment_mask` | (B, T) bool | real segments |
    | `video_features` or `pixel_values` | (B, T, I, d_v) or (B, T, I, 3, H, W) float32 | absent: text only |
    | `frame_mask` | (B, T, I) bool | real frames |
    | `segment_times` | (B, T, 2) float32 | start and end of the sentences, seconds; for post-processing |
    | `anchor_input_ids` | (B, T, L) int64 | masked row of the correct answer; from the collator, training only |
    | `labels`, `start_positions`, `end_positions` | (B,) int64 | -100: not known |

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the text encoder.
        segment_span, num_frames, max_segments, max_text_length, frame_rate, video_feature_size, mask_probability:
            As in [`VideoQAConfig`](modeling_videoqa); take them from the model with [`from_config`].
        frame_preprocessing (`dict` or image processor, *optional*):
            What turns pictures into `pixel_values`: an image processor of transformers or its `to_dict()`. `None` for a
            model that takes features or text only.

    Example:

    ```python
    >>> from transformers import AutoTokenizer
    >>> from processing import VideoQAProcessor

    >>> tokenizer = AutoTokenizer.from_pretrained("google-bert/bert-base-uncased")  # doctest: +SKIP
    >>> processor = VideoQAProcessor(tokenizer)  # doctest: +SKIP
    >>> batch = processor(
    ...     question="What did Ann buy?", choices=["a lamp", "a clock"],
    ...     subtitles=[{"start": 0.5, "end": 2.0, "speaker": "Ann", "text": "I bought the lamp."}],
    ... )  # doctest: +SKIP
    >>> batch["input_ids"].shape  # 1 question, 2 choices, 1 segment, 15 tokens  # doctest: +SKIP
    torch.Size([1, 2, 1, 15])
    ```
    """

    def __init__(
        self,
        tokenizer,
        segment_span: str = "partition",
        num_frames: int = 4,
        max_segments: int = 40,
        max_text_length: int = 80,
        frame_rate: float | None = 3.0,
        video_feature_size: int | None = 2048,
        mask_probability: float = 0.2,
        frame_preprocessing=None,
    ):
        for name in ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id"):
            if getattr(tokenizer, name, None) is None:
                raise ValueError(
                    f"The tokenizer {type(tokenizer).__name__} has no {name}. Allowed: a tokenizer with [CLS], [SEP], "
                    "[MASK] and padding, as every BERT-like encoder has. Choose such an encoder."
                )
        self.segment_span = segment_span
        self.num_frames = num_frames
        self.max_segments = max_segments
        self.max_text_length = max_text_length
        self.frame_rate = frame_rate
        self.video_feature_size = video_feature_size
        self.mask_probability = mask_probability
        # Kept as JSON, not as a sub-processor: transformers has no optional ones, and a text-only model needs none.
        is_processor = frame_preprocessing is not None and not isinstance(frame_preprocessing, Mapping)
        self.frame_preprocessing = frame_preprocessing.to_dict() if is_processor else frame_preprocessing
        self._image_processor = frame_preprocessing if is_processor else None
        super().__init__(tokenizer)

    @classmethod
    def from_config(cls, config, tokenizer, frame_preprocessing=None) -> "VideoQAProcessor":
        """
        The processor that fits a model.

        Args:
            config ([`VideoQAConfig`]): Config of the model.
            tokenizer (`PreTrainedTokenizerBase` or `str`): Tokenizer, or the name or folder of the text encoder.
            frame_preprocessing: See the class.

        Raises:
            ValueError: if there is no tokenizer beside the encoder, or it has more words than the encoder.
        """
        if isinstance(tokenizer, str | Path):
            tokenizer = _load_tokenizer(tokenizer)
        if len(tokenizer) > config.text_config.vocab_size:
            raise ValueError(
                f"The tokenizer knows {len(tokenizer)} tokens, the text encoder {config.text_config.vocab_size}. "
                "Allowed: at most as many tokens as the encoder has embeddings. Take the encoder's own tokenizer, or "
                "resize the model's token embeddings."
            )
        fields = {name: getattr(config, name) for name in INPUT_FIELDS}
        return cls(tokenizer, **fields, frame_preprocessing=frame_preprocessing)

    @property
    def image_processor(self):
        """The image processor built from `frame_preprocessing`, or `None`."""
        if self._image_processor is None and self.frame_preprocessing is not None:
            fields = dict(self.frame_preprocessing)
            name = fields.pop("image_processor_type")
            if not is_torchvision_available() and hasattr(transformers, f"{name}Pil"):
                name = f"{name}Pil"  # what transformers falls back to, with a warning
            self._image_processor = getattr(transformers, name)(**fields)
        return self._image_processor

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids", "attention_mask", "token_type_ids", "segment_mask", "video_features", "pixel_values",
            "frame_mask", "segment_times", "anchor_input_ids", "labels", "start_positions", "end_positions",
        ]  # fmt: skip

    def __call__(
        self,
        question: str | Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
        subtitles=None,
        objects=None,
        video=None,
        frames=None,
        video_features=None,
        frame_times=None,
        duration=None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        One question, or a batch of questions when `question` is a list; then every other argument is a list as long.

        Args:
            question (`str`), choices (`Sequence[str]`): At least two choices, none of them empty.
            subtitles (*optional*): Sentences as a list of `{"start", "end", "speaker", "text"}` (seconds), or a path to
                an `.srt` or `.vtt` file, or to a video with an embedded subtitle track.
            objects (*optional*): List of `{"time", "labels"}`: labels seen in the frame at a time in seconds.
            video (`str` or `Path`, *optional*): Video file, for a model that takes pictures.
            frames (`uint8 array[num_frames, height, width, 3]`, *optional*): RGB pictures with `frame_times`.
            video_features (`float array[num_frames, video_feature_size]`, *optional*): Features with `frame_times`.
            frame_times (`float array[num_frames]`, *optional*): Presentation times in seconds, ascending.
            duration (`float`, *optional*): Seconds; default: that of the video, else the end of the last sentence.
            return_tensors (`str`): `"pt"`, the only one.

        Returns:
            [`BatchFeature`] with the keys above, without labels.

        Raises:
            ValueError: for input that cannot be used; the message says what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f'return_tensors={return_tensors!r}. Allowed: "pt". Leave it out.')
        clip = {
            "subtitles": subtitles, "objects": objects, "video": video, "frames": frames,
            "video_features": video_features, "frame_times": frame_times, "duration": duration,
        }  # fmt: skip
        if question is None or isinstance(question, str):
            columns = {name: [value] for name, value in {"question": question, "choices": choices, **clip}.items()}
        else:
            size = len(question)
            columns = {"question": question, "choices": choices, **clip}
            columns = {name: [None] * size if value is None else value for name, value in columns.items()}
            for name, value in columns.items():
                if isinstance(value, str) or len(value) != size:
                    raise ValueError(
                        f"{name} does not fit a batch of {size} questions. Allowed: a list of {size}, one entry for "
                        "each question. Pass such a list, or a single question."
                    )
        examples = []
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            example = self.prepare_question(row.pop("question"), row.pop("choices"))
            examples.append({**example, **self.prepare_clip(**row)})
        return self.pad(examples)

    def prepare_question(self, question: str, choices: Sequence[str]) -> dict[str, Any]:
        """
        The question's share of an example, each text tokenized once.

        Returns:
            `dict`: `question_ids`, a list with the question's tokens (one for all choices), and `choice_ids`.
        """
        texts = [] if choices is None or isinstance(choices, str) else list(choices)
        if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(
                f"choices={choices!r}. Allowed: a list of at least two texts, none of them empty. Correct the choices "
                f"of the question {question!r}."
            )
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question={question!r}. Allowed: a text that is not empty. Pass the question.")
        question_ids, *choice_ids = self._tokenize([question, *texts])
        return {"question_ids": [question_ids], "choice_ids": choice_ids}

    def prepare_clip(
        self,
        subtitles=None,
        objects=None,
        video=None,
        frames=None,
        video_features=None,
        frame_times=None,
        duration=None,
    ) -> dict[str, Any]:
        """
        The clip's share of an example: aligned segments, their tokens, and their frames. Arguments as in `__call__`.

        Returns:
            `dict`: `subtitle_ids` and `object_ids` (T lists of tokens), `segment_times` and `sentence_times` (T, 2),
            and where there are frames `frame_mask` (T, I) and `video_features` (T, I, d_v) or `pixel_values`
            (T, I, 3, H, W).
        """
        kinds = {"video": video, "frames": frames, "video_features": video_features}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} came together. Allowed: one of video, frames and video_features, or none for "
                "text only. Leave the others out."
            )
        info = None if video is None else self.probe_video(video)
        if duration is None and info is not None:
            duration = info.duration
        sentences = tidy_sentences(read_any_subtitles(subtitles), duration)
        segments = make_segments(sentences, duration, self.segment_span, self.max_segments)
        times = np.array([(segment.start, segment.end) for segment in segments], dtype=np.float64)
        # What is answered with: the sentences' own times (point 13). Merging goes by the texts, so the same ones meet.
        spoken = make_segments(sentences, duration, "subtitle", self.max_segments)
        texts = self._tokenize(
            [segment.text for segment in segments] + self._object_texts(objects, times)
        )  # 2 T lists of tokens
        example = {
            "subtitle_ids": texts[: len(segments)],
            "object_ids": texts[len(segments) :],
            "segment_times": times,
            "sentence_times": np.array([(segment.start, segment.end) for segment in spoken], dtype=np.float32),
        }
        if info is not None:
            frame_times, pictures = self.video_frames(video, info, times)
            frames = list(pictures) or np.zeros((0, info.height, info.width, 3), np.uint8)
        if frames is not None:
            frames = self.preprocess_frames(np.asarray(frames))
            _check_frame_times("frames", frames, frame_times)
            example.update(self._align(frames, frame_times, times, "pixel_values"))
        elif video_features is not None:
            example.update(self.align_features(video_features, frame_times, times))
        return example

    def align_features(self, features: np.ndarray, frame_times: np.ndarray, segment_times: np.ndarray) -> dict:
        """
        Frame features of a clip, aligned to its segments (METHOD.md, points 2 and 3).

        Args:
            features (`float array[num_frames, video_feature_size]`): One row a frame.
            frame_times (`float array[num_frames]`): Seconds, ascending.
            segment_times (`float array[num_segments, 2]`): Seconds.

        Returns:
            `dict`: `video_features` (T, I, d_v) and `frame_mask` (T, I).
        """
        self._check_features(features, frame_times)
        return self._align(np.asarray(features), frame_times, segment_times, "video_features")

    # The steps of `prepare_clip` for a caller that encodes the frames itself, such as the pipeline.

    def read_sentences(self, subtitles=None, video: str | Path | None = None) -> list[Sentence]:
        """
        Subtitles in any form; where `None` came, those of the video's own track.

        Args:
            subtitles (*optional*): As in [`__call__`].
            video (`str` or `Path`, *optional*): Where to look for a track if there are no subtitles.

        Returns:
            `list[Sentence]`, empty where there are none.
        """
        if subtitles is None and video is not None:
            return shared_decoder().subtitles(video)
        return read_any_subtitles(subtitles)

    def probe_video(self, video: str | Path) -> VideoInfo:
        """Length, size and frame times of a video file, as `processing.video_videoqa.probe_video`."""
        return shared_decoder().probe(video)

    def video_frames(
        self, video: str | Path, info: VideoInfo, segment_times: np.ndarray
    ) -> tuple[np.ndarray, Iterator[np.ndarray]]:
        """
        Only the frames that some segment needs, each once.

        Args:
            video (`str` or `Path`): Video file.
            info (`VideoInfo`): From `probe_video`.
            segment_times (`float array[num_segments, 2]`): Seconds.

        Returns:
            Their times in seconds, `(num_frames,)`, and as many RGB pictures `(height, width, 3)` uint8, one at a time.
        """
        candidates = sample_times(info, self.frame_rate)
        index, mask = self.frame_places(candidates, segment_times)
        wanted = candidates[np.unique(index[mask])]
        return wanted, shared_decoder().frames(video, wanted)

    def preprocess_frames(self, frames: np.ndarray) -> np.ndarray:
        """RGB pictures `(num_frames, height, width, 3)` uint8 -> `(num_frames, 3, H, W)` for the vision backbone."""
        if self.image_processor is None:
            raise ValueError(
                "A video or pictures came, but this processor has no frame_preprocessing. Allowed: features with "
                "frame_times, or a processor with the image processor of the model's vision backbone. Extract "
                "features first, or leave the video out for text only."
            )
        return pixel_values(frames, self.image_processor)

    def frame_places(self, frame_times: np.ndarray, segment_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Which frame stands in each place of the segments (METHOD.md, point 2).

        Args:
            frame_times (`float array[num_frames]`): Seconds, ascending.
            segment_times (`float array[num_segments, 2]`): Seconds.

        Returns:
            The frame's number `(T, I)` and whether there is one `(T, I)`.
        """
        return select_frames(np.asarray(frame_times, np.float64), segment_times, self.num_frames, self.segment_span)

    def targets(
        self, segment_times: np.ndarray, label: int | None, num_choices: int, start=None, end=None
    ) -> dict[str, int]:
        """
        Training targets of a question (METHOD.md, point 13).

        Args:
            segment_times (`array[num_segments, 2]`): Seconds.
            label (`int`, *optional*): Place of the right choice.
            num_choices (`int`): Number of choices.
            start, end (`float`, *optional*): Annotated span in seconds.

        Returns:
            `dict`: `labels`, `start_positions`, `end_positions`; -100 where not known.
        """
        if label is not None and (label != int(label) or not 0 <= label < num_choices):
            raise ValueError(
                f"label={label!r} for a question with {num_choices} choices. Allowed: 0 to {num_choices - 1}, or None. "
                "Correct the label."
            )
        first, last = segments_of_span(segment_times, start, end)
        return {"labels": IGNORE_INDEX if label is None else label, "start_positions": first, "end_positions": last}

    def pad(self, examples: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """
        Examples (`prepare_question` | `prepare_clip` | `targets`) -> the batch.

        Rows are put together here, from pieces that were tokenized once: `[CLS] q [SEP] a [SEP] S [SEP] o [SEP]`
        (points 4 to 6).

        Args:
            examples (`Sequence[dict]`): Examples with the same number of choices.

        Returns:
            [`BatchFeature`] with the keys in the class's docstring.
        """
        if not examples:
            raise ValueError("A batch of no questions came. Allowed: at least one. Pass a question.")
        counts = sorted({len(example["choice_ids"]) for example in examples})
        if len(counts) != 1:
            raise ValueError(
                f"The questions of one batch have {' and '.join(map(str, counts))} choices. Allowed: the same number "
                "for all of a batch. Put questions with other numbers of choices into batches of their own."
            )
        batch = text_rows(examples, self.tokenizer, self.max_text_length)
        num_segments = batch["segment_mask"].shape[1]
        batch["segment_times"] = _stack([example["sentence_times"] for example in examples], num_segments)
        for key in ("video_features", "pixel_values"):
            having = [example for example in examples if key in example]
            if having:
                # A clip without frames beside clips with them: nothing but padded frames.
                shape = having[0][key].shape
                empty = {key: np.zeros((1, *shape[1:]), np.float32), "frame_mask": np.zeros((1, shape[1]), bool)}
                filled = [example if key in example else empty for example in examples]
                batch[key] = _stack([np.asarray(example[key], np.float32) for example in filled], num_segments)
                batch["frame_mask"] = _stack([example["frame_mask"] for example in filled], num_segments)
        for key in ("labels", "start_positions", "end_positions"):
            if key in examples[0]:
                batch[key] = np.array([example[key] for example in examples], dtype=np.int64)
        return BatchFeature({key: torch.from_numpy(value) for key, value in batch.items()})

    def post_process_multiple_choice(
        self, outputs, batch: Mapping[str, torch.Tensor], choices: Sequence[Sequence[str]], subtitles=None
    ) -> list[VideoQAAnswer]:
        """
        Answers with probabilities, span in seconds and evidence (METHOD.md, points 12 and 13).

        Args:
            outputs ([`VideoQAOutput`]): Output of the model.
            batch ([`BatchFeature`]): What the model was given, for the segments' times.
            choices (`Sequence[Sequence[str]]`): Choices of each question; of a single question, its choices.
            subtitles (*optional*): Subtitles of each question as given to `__call__`, for the evidence.

        Returns:
            `list[VideoQAAnswer]`, one for each question.
        """
        single = isinstance(choices[0], str)
        choices = [choices] if single else choices
        subtitles = [subtitles] if single else subtitles if subtitles is not None else [None] * len(choices)
        probabilities = outputs.logits.detach().float().softmax(dim=-1).cpu().numpy()
        spans = best_spans(outputs.start_logits, outputs.end_logits)
        times = batch["segment_times"].cpu().numpy()
        answers = []
        for i, texts in enumerate(choices):
            index = int(probabilities[i].argmax())
            start, end = times[i, spans[i, 0], 0], times[i, spans[i, 1], 1]
            evidence = _evidence(read_any_subtitles(subtitles[i]), start, end, times[i, :, 1].max())
            span = _seconds(start), _seconds(end)
            answers.append(VideoQAAnswer(texts[index], index, probabilities[i].tolist(), *span, evidence))
        return answers

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        # split_special_tokens: the letters "[SEP]" in a subtitle are text and must not cut the row.
        return self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, truncation=True,
            max_length=self.max_text_length, return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]  # fmt: skip

    def _object_texts(self, objects: Iterable[Mapping] | None, segment_times: np.ndarray) -> list[str]:
        """Labels of each segment's frames in frame order, each once (point 4)."""
        objects = sorted(objects or (), key=lambda entry: entry["time"])
        if not objects:
            return [""] * len(segment_times)
        seen = np.array([entry["time"] for entry in objects], dtype=np.float64)
        index, mask = select_frames(seen, segment_times, self.num_frames, self.segment_span)
        return [
            " ".join(dict.fromkeys(label for i in row[real] for label in objects[i]["labels"]))
            for row, real in zip(index, mask, strict=True)
        ]

    def _check_features(self, features, frame_times) -> None:
        features = np.asarray(features)
        if features.ndim != 2 or (self.video_feature_size is not None and features.shape[1] != self.video_feature_size):
            raise ValueError(
                f"video_features of shape {features.shape}. Allowed: (num_frames, {self.video_feature_size}). Use the "
                "features that the model was trained with."
            )
        if not np.isfinite(features).all():
            row = int(np.argwhere(~np.isfinite(features))[0][0])
            raise ValueError(
                f"video_features hold NaN or infinity, first in frame {row}. Allowed: finite numbers. Extract the "
                "features of this clip again."
            )
        _check_frame_times("video_features", features, frame_times)

    def _align(self, frames: np.ndarray, frame_times, segment_times: np.ndarray, key: str) -> dict[str, np.ndarray]:
        index, mask = self.frame_places(frame_times, segment_times)
        aligned = np.zeros((*mask.shape, *frames.shape[1:]), np.float32)
        aligned[mask] = frames[index[mask]]
        return {key: aligned, "frame_mask": mask}


def best_spans(start_logits: torch.Tensor, end_logits: torch.Tensor) -> np.ndarray:
    """
    The pair of segments s <= e with the highest p_start p_end (METHOD.md, point 13).

    Args:
        start_logits, end_logits (`Tensor[batch_size, num_segments]`): -inf for padded segments.

    Returns:
        `int array[batch_size, 2]`: First and last segment.
    """
    start = start_logits.detach().float().log_softmax(dim=-1)
    end = end_logits.detach().float().log_softmax(dim=-1)
    scores = start[:, :, None] + end[:, None, :]  # (batch_size, num_segments, num_segments)
    forbidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).tril(diagonal=-1)
    best = scores.masked_fill(forbidden, -math.inf).flatten(1).argmax(dim=1)
    return torch.stack([best // scores.shape[2], best % scores.shape[2]], dim=1).cpu().numpy()


def _check_frame_times(name: str, frames: np.ndarray, frame_times) -> None:
    if frame_times is None or len(frame_times) != len(frames):
        count = "no frame_times" if frame_times is None else f"{len(frame_times)} frame_times"
        raise ValueError(
            f"{len(frames)} {name} came with {count}. Allowed: one time in seconds for each frame. Pass the "
            "presentation times of the frames."
        )


def _load_tokenizer(name: str | Path):
    try:
        tokenizer, reason = AutoTokenizer.from_pretrained(name), None
    except (OSError, ValueError) as error:
        tokenizer, reason = None, error
    # Beside a config without tokenizer files transformers makes up a tokenizer of little but special tokens.
    if tokenizer is None or len(tokenizer) - len(tokenizer.all_special_ids) < 10:
        raise ValueError(
            f"No tokenizer could be loaded from {str(name)!r}. Allowed: a folder or repository that holds the "
            "encoder's tokenizer files (tokenizer.json or vocab.txt). Save the tokenizer beside the encoder."
        ) from reason
    return tokenizer


def read_any_subtitles(subtitles) -> list[Sentence]:
    """
    Sentences from a list, an `.srt` or `.vtt` file, or the subtitle track inside a video; none from `None`.

    Args:
        subtitles (`None`, `Iterable`, `str` or `Path`): As in [`VideoQAProcessor.__call__`].

    Raises:
        ValueError: if the file is no subtitle file, or the video has no subtitle track.
    """
    if subtitles is None:
        return []
    if not isinstance(subtitles, str | Path):
        return to_sentences(subtitles)
    if Path(subtitles).suffix.lower() not in VIDEO_SUFFIXES:
        return read_subtitles(subtitles)
    sentences = shared_decoder().subtitles(subtitles)
    if not sentences:
        raise ValueError(
            f"{subtitles} holds no text subtitles. Allowed: a video with a subtitle track, an .srt or .vtt file, or "
            "subtitles=None for a clip without text. Pass the subtitle file."
        )
    return sentences


def _evidence(
    sentences: Sequence[Sentence], start: np.float32, end: np.float32, clip_end: np.float32
) -> list[Sentence]:
    """
    The sentences in a span. Times are compared in the float32 of the batch: 2.2 s is later there than in a subtitle
    file, and the sentence that begins where the span ends would count as well.
    """
    # A sentence that ends with the clip, but for the rounding, is not to be cut.
    ends = [sentence.end for sentence in sentences if sentence.end is not None and np.float32(sentence.end) == clip_end]
    found = []
    for sentence in tidy_sentences(sentences, max(ends, default=_seconds(clip_end))):
        first, last = np.float32(sentence.start), np.float32(sentence.end)
        # What lasts no time (a start that nothing follows, a sentence past the clip's end) overlaps nothing.
        is_instant = first == last or start == end
        if min(last, end) > max(first, start) or (is_instant and start <= first <= end):
            found.append(sentence)
    return found


def _seconds(time: np.float32) -> float:
    """The shortest decimal that a float32 stands for: 2.2, not 2.200000047683716."""
    return float(str(time))


def _stack(arrays: Sequence[np.ndarray], num_segments: int) -> np.ndarray:
    """Stack `(T_i, ...)` into `(batch_size, num_segments, ...)`, filled with zeros."""
    stacked = np.zeros((len(arrays), num_segments, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
