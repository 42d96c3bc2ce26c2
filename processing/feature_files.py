"""Frame features as others released them, read like our own store: clip -> features and times.

Every reader is a lazy, read-only mapping: what is asked for is read then, and nothing is kept, so memory does not grow
with the file. Each process opens the file for itself, so a reader may be handed to the workers of a data loader.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors import safe_open

from .feature_views import RegionFeatures, ShotFeatures
from .features import FeatureStore
from .loaders.dramaqa import shot_starts
from .loaders.tvqa import frame_row_times, read_region_counts
from .store import ClipMapping

MAX_RATE = 1000  # rows a second
MAX_VALUES = 1 << 28  # of one clip, 1 GiB of float32: a file can promise far more rows than it holds


class _WrongFeaturesError(ValueError):
    """What a reader itself says of its file, told from what the libraries raise."""


class FeatureFile(ClipMapping):
    """One file with an array (n, feature_size) for each clip, and the rule by which its rows have times.

    Args:
        path: the file.
        frame_rate: rows a second; row n is at n / frame_rate.
        durations: clip -> seconds. For files in the manner of TVQA, 3 rows a second: a clip with more than 300 frames
            has 300 rows, spread over its length. None, or a clip that is not in it: no clip was resampled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the rate is no positive number, or the file is not of this format.

    Example:
        >>> features = open_features("tvqa_imagenet_pool5_hq.h5", frame_rate=3)  # doctest: +SKIP
        >>> vectors, times = features["s01e01_seg01_clip_00"]  # doctest: +SKIP
        >>> vectors.shape, times[:2]  # doctest: +SKIP
        ((183, 2048), array([0.        , 0.33333333]))
    """

    def __init__(self, path: str | Path, frame_rate: float, durations: Mapping[str, float | None] | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no feature file {path}. Allowed: an existing file. Check the path.")
        is_number = isinstance(frame_rate, int | float) and not isinstance(frame_rate, bool)
        if not is_number or not 0 < frame_rate <= MAX_RATE:
            raise ValueError(
                f"frame_rate is {frame_rate!r}. Allowed: rows a second, above 0 and up to {MAX_RATE}. Pass what the "
                "file was made with: files of the same name come with different rates."
            )
        self.frame_rate = float(frame_rate)
        self.durations = durations or {}
        self._opened: tuple[int, Any] | None = None  # process, handle
        handle = self._handle()
        try:
            self._clip_ids = dict.fromkeys(self._names(handle))
        except Exception as error:  # as in _handle
            raise self._wrong(f"its clips cannot be listed ({str(error)[:200]})") from error

    @property
    def feature_size(self) -> int:
        """Width of the features, as the first clip has it."""
        return self[next(iter(self))][0].shape[1]

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads one clip: `features`, (n, feature_size) float32, and `times`, (n,) float64 seconds, ascending."""
        if clip_id not in self:
            raise KeyError(
                f"There are no features of clip {clip_id!r} in {self.path}. Allowed: one of its {len(self)} clips, see "
                "keys(). Check that the file belongs to these clips."
            )
        try:
            array = np.asarray(self._read(self._handle(), clip_id))
        except _WrongFeaturesError:
            raise
        except Exception as error:  # as in _handle: a broken archive may end in zlib's own error, for one
            raise self._wrong(f"clip {clip_id!r} cannot be read ({str(error)[:200]})") from error
        if array.ndim != 2 or not len(array) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise self._wrong(f"clip {clip_id!r} has shape {array.shape} of {array.dtype}, or holds NaN or infinity")
        if clip_id in self.durations and self.frame_rate == 3:
            times = np.array(frame_row_times(len(array), self.durations[clip_id]))
        else:
            times = np.arange(len(array)) / self.frame_rate
        return array.astype(np.float32, copy=False), times

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    def _handle(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():  # a handle does not outlive a fork
            try:
                self._opened = os.getpid(), self._open()
            # The readers raise almost anything for bytes that are not theirs.
            except Exception as error:
                raise self._wrong(f"it cannot be opened ({str(error)[:200]})") from error
        return self._opened[1]

    def _wrong(self, what: str) -> ValueError:
        return _WrongFeaturesError(
            f"{self.path}: {what}. Allowed: for each clip an array (num_frames, feature_size) of finite floats, in the "
            f"format that {self.path.suffix!r} says. Fetch the file again, or convert it."
        )

    def _check_size(self, clip_id: str, shape: tuple[int, ...]) -> None:
        if np.prod([int(size) for size in shape], dtype=object) > MAX_VALUES:
            raise self._wrong(f"clip {clip_id!r} has shape {tuple(shape)}, more than {MAX_VALUES} values")

    def _open(self) -> Any:
        raise NotImplementedError

    def _names(self, handle: Any) -> list[str]:
        return list(handle)

    def _read(self, handle: Any, clip_id: str) -> np.ndarray:
        raise NotImplementedError


class H5Features(FeatureFile):
    """TVQA's layout: one dataset (n, feature_size) for each clip, at the top of the file.

    What lies outside the file is never read: links to other files and datasets that are kept in others are refused.
    """

    def _open(self) -> h5py.File:
        return h5py.File(self.path, "r")

    def _read(self, handle: h5py.File, clip_id: str) -> np.ndarray:
        if not isinstance(handle.get(clip_id, getlink=True), h5py.HardLink):
            raise self._wrong(f"clip {clip_id!r} is a link to somewhere else")
        found = handle[clip_id]
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            raise self._wrong(f"clip {clip_id!r} is no dataset of its own")
        self._check_size(clip_id, found.shape or ())
        return found[()]


class NpzFeatures(FeatureFile):
    """An npz file with one array for each clip; pickled objects are refused."""

    def _open(self) -> Any:
        loaded = np.load(self.path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        return loaded

    def _names(self, handle: Any) -> list[str]:
        return handle.files

    def _read(self, handle: Any, clip_id: str) -> np.ndarray:
        self._check_size(clip_id, (handle.zip.getinfo(f"{clip_id}.npy").file_size // 8,))
        return handle[clip_id]


class SafetensorsFeatures(FeatureFile):
    """A safetensors file with one tensor for each clip."""

    def _open(self) -> Any:
        return safe_open(self.path, framework="pt")

    def _names(self, handle: Any) -> list[str]:
        return list(handle.keys())

    def _read(self, handle: Any, clip_id: str) -> np.ndarray:
        return handle.get_tensor(clip_id).float().numpy()  # numpy has no bfloat16


class TorchFeatures(FeatureFile):
    """A file of `torch.save` with a dictionary of tensors, such as CLIP's `clipvitl14.pth`; nothing in it is run."""

    def _open(self) -> dict:
        loaded = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise ValueError("it holds something else than tensors by name")
        return loaded

    def _read(self, handle: dict, clip_id: str) -> np.ndarray:
        self._check_size(clip_id, tuple(handle[clip_id].shape))
        return handle[clip_id].float().numpy()


FORMATS: dict[str, type[FeatureFile]] = {
    ".h5": H5Features,
    ".hdf5": H5Features,
    ".npz": NpzFeatures,
    ".safetensors": SafetensorsFeatures,
    ".pt": TorchFeatures,
    ".pth": TorchFeatures,
}


def open_features(
    path: str | Path,
    frame_rate: float | None = None,
    durations: Mapping[str, float | None] | None = None,
    regions: str | Path | None = None,
    shots: str | Path | None = None,
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Open frame features of any kind: our own store, or a file with an array for each clip.

    Args:
        path: a folder that `extract_features` wrote, or an `.h5`, `.npz`, `.safetensors`, `.pt` or `.pth` file.
        frame_rate: rows a second of a file, which it does not say itself; None for a store, which does.
        durations: clip -> seconds, for files whose long clips have 300 rows, such as TVQA's; see `FeatureFile`.
        regions: STAGE's `tvqa_bbt_frcn_vg_hq_20_100.json`, for its file of regions: see `RegionFeatures`.
        shots: DramaQA's release folder, for features of its shots: see `ShotFeatures`. One row for each image of the
            release is a frame_rate of 3.125.

    Returns:
        A mapping from clip to features (n, feature_size) float32 and their times (n,) float64 in seconds, with
        `feature_size`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a format that is not known, a rate that is missing or too many, a file that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/clips.npz", clip=np.ones((3, 8), np.float32))
        ...     vectors, times = open_features(f"{folder}/clips.npz", frame_rate=2)["clip"]
        >>> vectors.shape, times.tolist()
        ((3, 8), [0.0, 0.5, 1.0])
    """
    features = _open_features(Path(path), frame_rate, durations)
    if regions is not None:
        if frame_rate is None:
            raise ValueError(f"regions={str(regions)!r} came with the store {path}. Allowed: with STAGE's file alone.")
        features = RegionFeatures(features, frame_rate, read_region_counts(regions))
    if shots is not None:
        features = ShotFeatures(features, shot_starts(shots))
    return features


def _open_features(path: Path, frame_rate: float | None, durations: Mapping | None) -> ClipMapping:
    if path.is_dir():
        if frame_rate is not None:
            raise ValueError(
                f"frame_rate={frame_rate!r} came with the store {path}, which says it itself. Leave it out."
            )
        return FeatureStore(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{path} has the suffix {path.suffix!r}. Allowed: a store's folder, or one of {', '.join(FORMATS)}. "
            "Convert the file."
        )
    return FORMATS[path.suffix.lower()](path, frame_rate, durations)
