"""Video clips to frame features, each clip once, and a store that hands them out.

A store is a folder: `index.json` says how the features were made, `<clip_id>.safetensors` holds one clip's `features`,
(num_frames, feature_size) float32, and their `times`, (num_frames,) float64 seconds on the clip's clock.
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from .video_videoqa import check_frame_rate, iter_frames, pixel_values, probe_video, sample_times

logger = logging.getLogger(__name__)

INDEX_NAME = "index.json"
_SUFFIX = ".safetensors"
_FORMAT = "videoqa-features/1"
# What two runs must share for their features to stand side by side. Versions are recorded, not compared.
_IDENTITY = ("format", "frame_rate", "model", "weights_sha256", "image_processor", "feature_size")


def extract_features(
    videos: Mapping[str, str | Path],
    model: torch.nn.Module,
    image_processor,
    output_dir: str | Path,
    frame_rate: float | None = 3.0,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Path:
    """Writes one file of frame features for each clip into a store.

    Clips that are there already are skipped, so that a stopped run is taken up by calling it again. Each file appears
    whole or not at all.

    Args:
        videos: clip ids, plain file names without a separator, and the clips' video files.
        model: a vision model of transformers whose output has `pooler_output`, (n, d) or (n, d, 1, 1).
        image_processor: the image processor that belongs to it.
        output_dir: the store's folder, made where missing.
        frame_rate: frames a second, as in `sample_times`; None for every frame.
        batch_size: frames that go through the model together.
        device: where the model runs, and stays; None: where it is.
        progress: whether a bar is shown.

    Returns:
        The store's folder, for `FeatureStore`.

    Raises:
        ValueError: a clip id that is no plain file name, a folder whose index says something else (or that holds
            features without an index), a model without a pooled output, features that are not finite, and what
            `probe_video` and `decode_frames` raise. What was finished before stays.

    Example:
        >>> from transformers import AutoImageProcessor, AutoModel  # doctest: +SKIP
        >>> name = "microsoft/resnet-101"  # doctest: +SKIP
        >>> model, images = AutoModel.from_pretrained(name), AutoImageProcessor.from_pretrained(name)  # doctest: +SKIP
        >>> store = FeatureStore(extract_features({"a": "a.mp4"}, model, images, "features"))  # doctest: +SKIP
    """
    for clip_id in videos:
        _check_clip_id(clip_id)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}. Allowed: a whole number from 1. Pass for example 32.")
    check_frame_rate(frame_rate)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    made_by = _description(model, image_processor, frame_rate)
    index = _matching_index(output_dir, made_by)
    waiting = {clip_id: path for clip_id, path in videos.items() if not _clip_file(output_dir, clip_id).exists()}
    logger.info("%d clips to do, %d done before.", len(waiting), len(videos) - len(waiting))
    if device is not None:
        model.to(device)
    was_training = model.training
    model.eval()
    try:
        for clip_id, path in tqdm(waiting.items(), desc="clips", disable=not progress):
            times = sample_times(probe_video(path), frame_rate)
            features = _clip_features(path, times, model, image_processor, batch_size)
            if not np.isfinite(features).all():
                raise ValueError(
                    f"The features of clip {clip_id!r} ({path}) hold NaN or infinity. Allowed: finite numbers. Run "
                    "the model in float32, and check its weights."
                )
            if index is None:
                index = {**made_by, "feature_size": features.shape[1]}
                text = json.dumps(index, indent=2)
                _write(output_dir / INDEX_NAME, lambda file, text=text: file.write_text(text, encoding="utf-8"))
            _check_width(features.shape, index["feature_size"], clip_id, output_dir)
            metadata = {"clip_id": clip_id, "video": Path(path).name, "frame_rate": str(frame_rate)}
            tensors = {"features": features, "times": times}
            _write(
                _clip_file(output_dir, clip_id),
                lambda file, tensors=tensors, metadata=metadata: save_file(tensors, file, metadata=metadata),
            )
    finally:
        model.train(was_training)
    return output_dir


class ClipFeatures(Mapping):
    """A read-only mapping from clip to features (n, feature_size) and times (n,); a reader adds `__getitem__`.

    Which clips there are is known from the start, in the keys of `_clip_ids`, so asking for it reads nothing.
    """

    _clip_ids: dict[str, None]

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._clip_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._clip_ids)

    def __len__(self) -> int:
        return len(self._clip_ids)


class FeatureStore(ClipFeatures):
    """The features that `extract_features` wrote: a read-only mapping from clip id to features and times.

    Which clips there are is read once, on opening; a clip's file only when it is asked for.

    Args:
        directory: the store's folder.

    Attributes:
        feature_size: width d of the features.
        index: how they were made (`frame_rate`, `model`, `weights_sha256`, `image_processor`, `versions`).

    Raises:
        FileNotFoundError: there is no such folder, or no index in it.
        ValueError: the index cannot be read.

    Example:
        >>> store = FeatureStore("features")  # doctest: +SKIP
        >>> features, times = store["s01e01_seg01_clip_00"]  # doctest: +SKIP
        >>> features.shape, times.shape  # doctest: +SKIP
        ((183, 2048), (183,))
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.index = _read_index(self.directory)
        self.feature_size = self.index["feature_size"]
        names = sorted(entry.name for entry in self.directory.iterdir())
        self._clip_ids = dict.fromkeys(name.removesuffix(_SUFFIX) for name in names if _is_clip_file(name))

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads one clip: `features`, (n, feature_size) float32, and `times`, (n,) float64 seconds, ascending."""
        if clip_id not in self:
            raise KeyError(
                f"There are no features of clip {clip_id!r} in {self.directory}. Allowed: one of its {len(self)} "
                "clips, see keys(). Extract the clip with extract_features, then open the store again."
            )
        file = _clip_file(self.directory, clip_id)
        try:
            with safe_open(file, framework="numpy") as tensors:
                features, times = tensors.get_tensor("features"), tensors.get_tensor("times")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"The file {file} of clip {clip_id!r} cannot be read: {error}. Allowed: a safetensors file with "
                "'features' and 'times'. Delete it and extract the clip again."
            ) from error
        _check_width(features.shape, self.feature_size, clip_id, self.directory)
        is_sound = times.shape == features.shape[:1] and np.isfinite(times).all() and (np.diff(times) >= 0).all()
        if not is_sound or not np.isfinite(features).all():
            raise ValueError(
                f"Clip {clip_id!r} in {self.directory} holds NaN or infinity, or its {times.shape} times do not fit "
                f"its {features.shape} features. Allowed: finite features, one ascending time each. Delete "
                f"{file.name} and extract the clip again."
            )
        return features.astype(np.float32, copy=False), times.astype(np.float64, copy=False)


def _check_clip_id(clip_id: object) -> None:
    is_plain = isinstance(clip_id, str) and 0 < len(clip_id.encode("utf-8", "surrogatepass")) <= 200
    if not is_plain or clip_id.startswith(".") or not clip_id.isprintable() or any(mark in clip_id for mark in "/\\:"):
        raise ValueError(
            f"The clip id is {clip_id!r}. Allowed: a plain file name, at most 200 bytes, that does not begin with a "
            "dot and holds no '/', '\\' or ':'. Rename the clip, for example 's01e01_seg01_clip_00'."
        )


def _clip_file(directory: Path, clip_id: str) -> Path:
    return directory / f"{clip_id}{_SUFFIX}"


def _is_clip_file(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _description(model: torch.nn.Module, image_processor, frame_rate: float | None) -> dict:
    """What the index says of how features are made, all but their width."""
    settings = image_processor.to_json_string() if hasattr(image_processor, "to_json_string") else repr(image_processor)
    return {
        "format": _FORMAT,
        "frame_rate": frame_rate if frame_rate is None else float(frame_rate),
        "model": type(model).__name__,
        "name_or_path": getattr(getattr(model, "config", None), "_name_or_path", ""),
        "weights_sha256": _weights_hash(model),
        "image_processor": hashlib.sha256(settings.encode()).hexdigest(),
        "versions": {module.__name__: str(module.__version__) for module in (torch, transformers, np)},
    }


def _weights_hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Bytes, because numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _matching_index(directory: Path, made_by: dict) -> dict | None:
    """The index of a store that may be gone on with; None where the folder holds no features yet."""
    if not (directory / INDEX_NAME).exists():
        if any(_is_clip_file(entry.name) for entry in directory.iterdir()):
            raise ValueError(
                f"{directory} holds .safetensors files but no {INDEX_NAME}: nobody knows how they were made. Allowed: "
                "an empty folder, or a store of extract_features. Choose another folder."
            )
        return None
    index = _read_index(directory)
    differing = [key for key in _IDENTITY if key in made_by and index.get(key) != made_by[key]]
    if differing:
        said = "; ".join(f"{key} {index.get(key)!r} there, {made_by[key]!r} here" for key in differing)
        raise ValueError(
            f"The features in {directory} were made differently: {said}. Allowed: one way of making them in a store. "
            "Choose another folder, or go on with the same model, image processor and frame rate."
        )
    if index.get("versions") != made_by["versions"]:
        warnings.warn(
            f"The features in {directory} were begun with {index.get('versions')}, now it is {made_by['versions']}; "
            "they may differ in the last digits.",
            stacklevel=3,
        )
    return index


def _read_index(directory: Path) -> dict:
    file = directory / INDEX_NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no feature store in {directory}: {INDEX_NAME} is missing. Allowed: a folder that "
            "extract_features wrote. Check the path, or extract the features."
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} is no JSON: {error}. Allowed: the index that extract_features wrote. Restore it, or extract anew."
        ) from error
    width = index.get("feature_size") if isinstance(index, dict) else None
    if not isinstance(width, int) or width < 1 or index.get("format") != _FORMAT:
        raise ValueError(
            f"{file} is no index of features: {str(index)[:200]}. Allowed: format {_FORMAT!r} with a feature_size. "
            "Restore it, or extract anew into another folder."
        )
    return index


def _clip_features(
    path: str | Path, times: np.ndarray, model: torch.nn.Module, image_processor, batch_size: int
) -> np.ndarray:
    pictures = iter_frames(path, times)
    parameter = next(model.parameters())
    pooled = []
    while batch := list(islice(pictures, batch_size)):
        pixels = torch.from_numpy(pixel_values(np.stack(batch), image_processor))
        pixels = pixels.to(parameter.device, parameter.dtype)
        with torch.inference_mode():
            output = getattr(model(pixel_values=pixels), "pooler_output", None)
        if output is None or output.flatten(1).shape != output.shape[:2]:
            raise ValueError(
                f"{type(model).__name__} gives {'no pooler_output' if output is None else tuple(output.shape)}. "
                "Allowed: a model whose pooler_output is (n, d) or (n, d, 1, 1). Use for example ResNetModel."
            )
        pooled.append(output.flatten(1).float().cpu().numpy())  # (n, d)
    return np.concatenate(pooled)


def _check_width(shape: tuple[int, ...], feature_size: int, clip_id: str, directory: Path) -> None:
    if len(shape) != 2 or shape[1] != feature_size:
        raise ValueError(
            f"The features of clip {clip_id!r} have shape {tuple(shape)}. Allowed in {directory}: (num_frames, "
            f"{feature_size}), as its index says. Extract the clip with the model of this store."
        )


def _write(file: Path, write) -> None:
    """Writes under another name first, so that a stopped run leaves no half file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
