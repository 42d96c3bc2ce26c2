"""Question, clip and features joined into examples, lazily."""

import logging
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Dataset

from .collator import QuestionPool
from .processing_videoqa import VideoQAProcessor

logger = logging.getLogger(__name__)


class VideoQADataset(Dataset):
    """
    Examples for [`VideoQACollator`] out of the two tables of `processing.loaders`.

    Texts are tokenized once: a question's when the data set is made, a clip's when it is first asked for. Features are
    read when an example is asked for, and never copied for each question. How many questions have features is logged
    at the level INFO, and as a warning where it is less than half of them.

    Args:
        processor ([`VideoQAProcessor`]): Makes the examples.
        questions (`datasets.Dataset`): Questions of one split; any iterable of such rows will do.
        clips (`datasets.Dataset`): Clips, at least those of the questions; any iterable of such rows will do.
        features (`Mapping`, *optional*): `clip_id -> (features (num_frames, d_v), times (num_frames,))`.
        subtitles, objects (`bool`): Leave them out to see what they are worth: with neither and without features the
            model sees question and choices alone.

    Raises:
        ValueError: if no clip has features though features were given.
    """

    def __init__(
        self,
        processor: VideoQAProcessor,
        questions,
        clips,
        features: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
        subtitles: bool = True,
        objects: bool = True,
    ):
        self.processor = processor
        self.questions = list(questions)
        self.features = features
        self._use_subtitles, self._use_objects = subtitles, objects
        # A table stays where it is, in a file: the object labels of all clips would fill the memory.
        self._clips = clips if isinstance(clips, datasets.Dataset) else list(clips)
        is_table = isinstance(clips, datasets.Dataset)
        clip_ids = clips["clip_id"][:] if is_table else [clip["clip_id"] for clip in self._clips]
        self._places = {clip_id: place for place, clip_id in enumerate(clip_ids)}
        self._clip_examples: dict[str, dict[str, Any]] = {}
        if features is not None:
            self._tell_features(features)
        self._question_examples = [
            processor.prepare_question(question["question"], question["choices"]) for question in self.questions
        ]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        question = self.questions[index]
        clip_id = question["clip_id"]
        example = {"qid": question["qid"], "clip_id": clip_id, **self._question_examples[index], **self._clip(clip_id)}
        example.update(
            self.processor.targets(
                example["segment_times"],
                question["label"],
                len(question["choices"]),
                question["start"],
                question["end"],
            )
        )
        return example

    def question_pool(self) -> QuestionPool:
        """All questions of this split, for pre-training."""
        return QuestionPool(
            [example["question_ids"][0] for example in self._question_examples],
            [question["clip_id"] for question in self.questions],
        )

    def subtitles(self, clip_id: str) -> list[dict] | None:
        """Sentences of a clip as the model sees them: `None` if subtitles were switched off."""
        return self._clips[self._places[clip_id]]["subtitles"] if self._use_subtitles else None

    def _tell_features(self, features: Mapping) -> None:
        count = sum(question["clip_id"] in features for question in self.questions)
        if not count:
            raise ValueError(
                f"None of the clips of {len(self.questions)} questions has features. Allowed: features for at least "
                "one clip, under the clip's clip_id. Extract the features of these clips, or pass features=None."
            )
        level = logging.INFO if 2 * count >= len(self.questions) else logging.WARNING
        logger.log(level, "%d of %d questions have features", count, len(self.questions))

    def _clip(self, clip_id: str) -> dict[str, Any]:
        if clip_id not in self._clip_examples:
            clip = self._clips[self._places[clip_id]]
            self._clip_examples[clip_id] = self.processor.prepare_clip(
                subtitles=clip["subtitles"] if self._use_subtitles else None,
                objects=clip["objects"] if self._use_objects else None,
                duration=clip["duration"],
            )
        example = self._clip_examples[clip_id]
        if self.features is not None and clip_id in self.features:
            features, times = self.features[clip_id]
            example = {**example, **self.processor.align_features(features, times, example["segment_times"])}
        return example
