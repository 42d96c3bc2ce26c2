"""Video clips to frame features, each clip once, and a store that hands them out.

A store is a folder: `index.json` says how the features were made, `<clip_id>.safetensors` holds one clip's `features`,
(num_frames, feature_size) float32, and their `times`, (num_frames,) float64 seconds on the clip's clock.
"""

import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from .extraction import ClipResult, Extraction, run_extraction
from .loaders.tvqa import FRAMES_PER_SECOND, MAX_ROWS, frame_row_times
from .store import ClipMapping, StoreFolder, check_clip_id, describe
from .video_videoqa import check_frame_rate, pixel_values

logger = logging.getLogger(__name__)

FORMAT = "videoqa-features/2"


def extract_features(
    videos: Mapping[str, str | Path],
    model: torch.nn.Module,
    image_processor,
    output_dir: str | Path,
    frame_rate: float | None = 3.0,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    num_workers: int | None = None,
    timeout: float = 60.0,
    progress: bool = True,
) -> Extraction:
    """Writes one file of frame features for each clip into a store.

    Clips that are there already are skipped, so that a stopped run is taken up by calling it again, and several
    processes may work on one store, each on clips of its own. Each file appears whole or not at all. A clip that cannot
    be decoded is reported and skipped.

    Args:
        videos: clip ids, plain file names without a separator, and the clips' video files.
        model: a vision model of transformers whose output has `pooler_output`, (n, d) or (n, d, 1, 1).
        image_processor: the image processor that belongs to it.
        output_dir: the store's folder, made where missing.
        frame_rate: frames a second, as in `sample_times`; None for every frame.
        batch_size: frames that go through the model together, of one clip or of several.
        device: where the model runs, and stays; None: where it is.
        dtype: for autocast, such as `torch.bfloat16` where the device has it; None: none.
        num_workers: decoding processes ahead of the model; None: one for each core, at most four.
        timeout: seconds in which a decoder has to give its next picture.
        progress: whether a bar is shown.

    Returns:
        The store's folder, for `FeatureStore`; the clips that were finished in this run, and those that failed.

    Raises:
        ValueError: a clip id that is no plain file name, a folder whose index says something else (or that holds
            features without an index), a model without a pooled output, or features that are not finite. What was
            finished before stays.

    Example:
        >>> from transformers import AutoImageProcessor, AutoModel  # doctest: +SKIP
        >>> name = "microsoft/resnet-101"  # doctest: +SKIP
        >>> model, images = AutoModel.from_pretrained(name), AutoImageProcessor.from_pretrained(name)  # doctest: +SKIP
        >>> done = extract_features({"a": "a.mp4"}, model, images, "features")  # doctest: +SKIP
        >>> store = FeatureStore(done.directory)  # doctest: +SKIP
    """
    for clip_id in videos:
        check_clip_id(clip_id)
    check_frame_rate(frame_rate)
    folder = StoreFolder(output_dir, ".safetensors", FORMAT)
    folder.directory.mkdir(parents=True, exist_ok=True)
    rate = frame_rate if frame_rate is None else float(frame_rate)
    made_by = describe(FORMAT, model, image_processor, frame_rate=rate, autocast=str(dtype) if dtype else None)
    index = folder.matching_index(made_by)
    waiting = {clip_id: path for clip_id, path in videos.items() if not folder.file(clip_id).exists()}
    logger.info("%d clips to do, %d done before.", len(waiting), len(videos) - len(waiting))
    if device is not None:
        model.to(device)

    def write(clip: ClipResult) -> None:
        nonlocal index
        features = np.stack(clip.results)
        if not np.isfinite(features).all():
            raise ValueError(
                f"The features of clip {clip.clip_id!r} ({clip.video}) hold NaN or infinity. Allowed: finite numbers. "
                "Run the model in float32, and check its weights."
            )
        if index is None:
            index = {**made_by, "feature_size": features.shape[1]}
            folder.write_index(index)
        _check_width(features.shape, index["feature_size"], clip.clip_id, folder.directory)
        said = {"clip_id": clip.clip_id, "video": clip.video.name, "frame_rate": str(frame_rate)}
        said["duration"] = repr(clip.duration)
        tensors = {"features": features, "times": clip.times}
        folder.write(clip.clip_id, lambda file: save_file(tensors, file, metadata=said))

    was_training = model.training
    model.eval()
    try:
        finished, failed = run_extraction(
            waiting,
            frame_rate,
            prepare=lambda pictures: pixel_values(pictures, image_processor),
            compute=lambda pictures: _pooled(model, np.stack(pictures), dtype),
            finish=write,
            batch_size=batch_size,
            num_workers=num_workers,
            timeout=timeout,
            progress=progress,
        )
    finally:
        model.train(was_training)
    return Extraction(folder.directory, finished, failed)


def _pooled(model: torch.nn.Module, pictures: np.ndarray, dtype: torch.dtype | None) -> np.ndarray:
    """Pictures (n, 3, height, width) -> pooled features (n, d) float32."""
    parameter = next(model.parameters())
    pixels = torch.from_numpy(pictures).to(parameter.device, parameter.dtype)
    with torch.inference_mode(), torch.autocast(parameter.device.type, dtype) if dtype else nullcontext():
        output = getattr(model(pixel_values=pixels), "pooler_output", None)
    if output is None or output.flatten(1).shape != output.shape[:2]:
        raise ValueError(
            f"{type(model).__name__} gives {'no pooler_output' if output is None else tuple(output.shape)}. "
            "Allowed: a model whose pooler_output is (n, d) or (n, d, 1, 1). Use for example ResNetModel."
        )
    return output.flatten(1).float().cpu().numpy()


class FeatureStore(ClipMapping):
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
        self._folder = StoreFolder(directory, ".safetensors", FORMAT)
        self.directory = self._folder.directory
        self.index = self._folder.read_index()
        self.feature_size = self.index.get("feature_size")
        if not isinstance(self.feature_size, int) or self.feature_size < 1:
            raise ValueError(
                f"The index in {directory} has the feature_size {self.feature_size!r}. Allowed: a whole number from 1. "
                "Restore it, or extract anew into another folder."
            )
        self._clip_ids = dict.fromkeys(self._folder.clip_ids())

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads one clip: `features`, (n, feature_size) float32, and `times`, (n,) float64 seconds, ascending."""
        if clip_id not in self:
            raise KeyError(
                f"There are no features of clip {clip_id!r} in {self.directory}. Allowed: one of its {len(self)} "
                "clips, see keys(). Extract the clip with extract_features, then open the store again."
            )
        file = self._folder.file(clip_id)
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

    def duration(self, clip_id: str) -> float:
        """Seconds of a clip, as its video said.

        Args:
            clip_id: a clip of the store.
        """
        with safe_open(self._folder.file(clip_id), framework="numpy") as tensors:
            return float(tensors.metadata()["duration"])


def write_tvqa_h5(store: FeatureStore, path: str | Path, progress: bool = True) -> None:
    """Write a store in the layout of TVQA's own feature files, for programs that read those.

    One dataset for each clip, (n, feature_size) float32, row i the frame on screen at i / 3 s; a clip of more than 300
    such rows has 300, spread over its length. `open_features(path, 3, durations)` reads the times back.

    Args:
        store: features of at least 3 frames a second, or of every frame.
        path: the h5 file, which is not there yet.
        progress: whether a bar is shown.

    Raises:
        FileExistsError: there is something at `path`.
        ValueError: the store has fewer frames a second.

    Example:
        >>> write_tvqa_h5(FeatureStore("features"), "features.h5")  # doctest: +SKIP
    """
    path, rate = Path(path), store.index["frame_rate"]
    if path.exists():
        raise FileExistsError(f"{path} is there already. Allowed: a new file. Give another name, or move it away.")
    if rate is not None and rate < FRAMES_PER_SECOND:
        raise ValueError(
            f"The store has {rate:g} frames a second. Allowed: {FRAMES_PER_SECOND} or more, as TVQA's files have. "
            "Extract the features anew."
        )
    temporary = path.with_name(f".{path.name}.part")
    try:
        with h5py.File(temporary, "w") as file:
            for clip_id in tqdm(store, disable=not progress):
                features, times = store[clip_id]
                duration = store.duration(clip_id)
                count = max(1, math.ceil(duration * FRAMES_PER_SECOND))
                moments = frame_row_times(MAX_ROWS if count > MAX_ROWS + 1 else count, duration)
                # A nanosecond for the rounding of thirds: the frame that begins at a moment is the one on screen.
                rows = np.searchsorted(times, np.array(moments) + 1e-9, side="right") - 1
                file[clip_id] = features[np.maximum(rows, 0)]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_width(shape: tuple[int, ...], feature_size: int, clip_id: str, directory: Path) -> None:
    if len(shape) != 2 or shape[1] != feature_size:
        raise ValueError(
            f"The features of clip {clip_id!r} have shape {tuple(shape)}. Allowed in {directory}: (num_frames, "
            f"{feature_size}), as its index says. Extract the clip with the model of this store."
        )
