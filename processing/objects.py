"""Video clips to the names of what is seen in them, by a detector, and a store that hands them out.

A store is a folder: `index.json` says how the labels were made, `<clip_id>.json` holds one clip's `objects`: a list of
`{"time", "labels"}` as in the table of clips.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from .extraction import ClipResult, Extraction, run_extraction
from .loaders.schema import CLIP_FEATURES, VideoQAData, check_clip
from .store import ClipMapping, StoreFolder, check_clip_id, describe
from .video_videoqa import check_frame_rate

logger = logging.getLogger(__name__)

FORMAT = "videoqa-objects/1"


def extract_objects(
    videos: Mapping[str, str | Path],
    model: torch.nn.Module,
    image_processor,
    output_dir: str | Path,
    threshold: float = 0.5,
    label_map: Mapping[str, str | None] | None = None,
    frame_rate: float | None = 3.0,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    num_workers: int | None = None,
    timeout: float = 60.0,
    progress: bool = True,
) -> Extraction:
    """Writes one file of object labels for each clip into a store; as `extract_features` in all that is not said here.

    A frame's labels are those of the boxes whose score reaches the threshold, the surest first, each once. Boxes and
    scores are not kept.

    Args:
        videos: clip ids, plain file names without a separator, and the clips' video files.
        model: an object detection model of transformers, with `config.id2label`.
        image_processor: the image processor that belongs to it, with `post_process_object_detection`.
        output_dir: the store's folder, made where missing.
        threshold: least score of a box, 0 to 1.
        label_map: the model's name of a thing -> the word to use, or None for none; names that are not in it stay.
        frame_rate, batch_size, device, dtype, num_workers, timeout, progress: as in `extract_features`.

    Returns:
        The store's folder, for `ObjectStore`; the clips that were finished in this run, and those that failed.

    Raises:
        ValueError: a threshold out of its range, a label map with names that the model does not have, and what
            `extract_features` raises.

    Example:
        >>> from transformers import AutoImageProcessor, AutoModelForObjectDetection  # doctest: +SKIP
        >>> name = "facebook/detr-resnet-50"  # doctest: +SKIP
        >>> model = AutoModelForObjectDetection.from_pretrained(name)  # doctest: +SKIP
        >>> images = AutoImageProcessor.from_pretrained(name)  # doctest: +SKIP
        >>> done = extract_objects({"a": "a.mp4"}, model, images, "objects", label_map={"tv": "television"})  \
# doctest: +SKIP
    """
    for clip_id in videos:
        check_clip_id(clip_id)
    check_frame_rate(frame_rate)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}. Allowed: a score from 0 to 1. Pass for example 0.5.")
    names = {int(place): name for place, name in model.config.id2label.items()}
    unknown = sorted(set(label_map or {}) - set(names.values()))
    if unknown:
        raise ValueError(
            f"label_map has {unknown}. Allowed: names of the model, as {sorted(names.values())[:5]}. Correct them."
        )
    words = {place: (label_map or {}).get(name, name) for place, name in names.items()}
    folder = StoreFolder(output_dir, ".json", FORMAT)
    folder.directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "frame_rate": frame_rate if frame_rate is None else float(frame_rate),
        "threshold": float(threshold),
        "label_map": dict(sorted((label_map or {}).items())),
        "autocast": str(dtype) if dtype else None,
    }
    made_by = describe(FORMAT, model, image_processor, **settings)
    index = folder.matching_index(made_by)
    if index is None:
        folder.write_index(made_by)
    waiting = {clip_id: path for clip_id, path in videos.items() if not folder.file(clip_id).exists()}
    logger.info("%d clips to do, %d done before.", len(waiting), len(videos) - len(waiting))
    if device is not None:
        model.to(device)

    def write(clip: ClipResult) -> None:
        rows = zip(clip.times.tolist(), clip.results, strict=True)
        objects = [{"time": time, "labels": labels} for time, labels in rows]
        text = json.dumps({"clip_id": clip.clip_id, "duration": clip.duration, "objects": objects})
        folder.write(clip.clip_id, lambda file: file.write_text(text, encoding="utf-8"))

    was_training = model.training
    model.eval()
    try:
        finished, failed = run_extraction(
            waiting,
            frame_rate,
            prepare=list,
            compute=lambda pictures: _labels(model, image_processor, pictures, threshold, words, dtype),
            finish=write,
            batch_size=batch_size,
            num_workers=num_workers,
            timeout=timeout,
            progress=progress,
        )
    finally:
        model.train(was_training)
    return Extraction(folder.directory, finished, failed)


def _labels(
    model: torch.nn.Module,
    image_processor,
    pictures: list[np.ndarray],
    threshold: float,
    words: Mapping[int, str | None],
    dtype: torch.dtype | None,
) -> list[list[str]]:
    """The words for each picture (height, width, 3) uint8."""
    parameter = next(model.parameters())
    inputs = image_processor(images=pictures, return_tensors="pt", input_data_format="channels_last")
    inputs = inputs.to(parameter.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(parameter.dtype)
    with torch.inference_mode(), torch.autocast(parameter.device.type, dtype) if dtype else nullcontext():
        outputs = model(**inputs)
    sizes = [picture.shape[:2] for picture in pictures]
    found = image_processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=sizes)
    labels = []
    for boxes in found:
        order = boxes["scores"].argsort(descending=True, stable=True)
        names = [words.get(place) for place in boxes["labels"][order].tolist()]
        labels.append(list(dict.fromkeys(name for name in names if name)))
    return labels


class ObjectStore(ClipMapping):
    """The labels that `extract_objects` wrote: a read-only mapping from clip id to a list of `{"time", "labels"}`.

    Args:
        directory: the store's folder.

    Attributes:
        index: how they were made (`frame_rate`, `threshold`, `label_map`, `model`, `weights_sha256`, `versions`).

    Raises:
        FileNotFoundError: there is no such folder, or no index in it.
        ValueError: the index cannot be read.

    Example:
        >>> store = ObjectStore("objects")  # doctest: +SKIP
        >>> store["a"][0]  # doctest: +SKIP
        {'time': 0.0, 'labels': ['person', 'couch']}
    """

    def __init__(self, directory: str | Path):
        self._folder = StoreFolder(directory, ".json", FORMAT)
        self.directory = self._folder.directory
        self.index = self._folder.read_index()
        self._clip_ids = dict.fromkeys(self._folder.clip_ids())

    def __getitem__(self, clip_id: str) -> list[dict]:
        """Reads one clip: its frames with labels, `{"time": seconds, "labels": [text, ...]}`."""
        if clip_id not in self:
            raise KeyError(
                f"There are no objects of clip {clip_id!r} in {self.directory}. Allowed: one of its {len(self)} clips, "
                "see keys(). Extract the clip with extract_objects, then open the store again."
            )
        file = self._folder.file(clip_id)
        try:
            objects = json.loads(file.read_text(encoding="utf-8"))["objects"]
            row = {"clip_id": clip_id, "duration": None, "subtitles": [], "objects": objects}
            return check_clip(row, 1)["objects"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"The file {file} of clip {clip_id!r} cannot be read: {error}. Allowed: what extract_objects wrote. "
                "Delete it and extract the clip again."
            ) from error

    def add_to(self, data: VideoQAData) -> VideoQAData:
        """A data set with these labels in the place of its own; clips that are not in the store keep theirs.

        Args:
            data: what `load_videoqa` gave, not as a stream.
        """
        return data._replace(clips=data.clips.map(self._replaced, features=CLIP_FEATURES, desc="objects"))

    def _replaced(self, clip: dict) -> dict:
        return {"objects": self[clip["clip_id"]]} if clip["clip_id"] in self else {}
