"""Features that are stored by region or by shot, seen as those of whole clips: one row a frame, on the clip's clock."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .loaders.dramaqa import CLIP_NAME
from .store import ClipMapping


class RegionFeatures(ClipMapping):
    """STAGE's layout: the regions of all frames of a clip, one row each; here one row a frame, the mean of its regions.

    Frames without a region have no row.

    Args:
        features: clip -> (number of regions, feature_size), and times that are not used.
        frame_rate: frames a second.
        counts: clip -> regions of each frame; see `read_region_counts`.

    Example:
        >>> regions = {"clip": (np.array([[1.0], [3.0], [5.0]], np.float32), None)}
        >>> vectors, times = RegionFeatures(regions, 2, {"clip": [2, 0, 1]})["clip"]
        >>> vectors.tolist(), times.tolist()
        ([[2.0], [5.0]], [0.0, 1.0])
    """

    def __init__(
        self,
        features: Mapping[str, tuple[np.ndarray, Any]],
        frame_rate: float,
        counts: Mapping[str, Sequence[int]],
    ):
        self._features, self._frame_rate, self._counts = features, frame_rate, counts
        self._clip_ids = {clip_id: None for clip_id in features if clip_id in counts}
        if not self._clip_ids:
            raise ValueError(
                f"None of the {len(features)} clips with features is among the {len(counts)} with counts of regions. "
                "Allowed: the two files of one release. Check that they belong together."
            )

    @property
    def feature_size(self) -> int:
        """Width of the features."""
        return self[next(iter(self))][0].shape[1]

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads one clip: `features`, (n, feature_size) float32, and `times`, (n,) float64 seconds, ascending."""
        if clip_id not in self:
            raise KeyError(
                f"Clip {clip_id!r} has no regions, or no counts of them. Allowed: one of {len(self)} clips, see "
                "keys(). Check that the file belongs to these clips."
            )
        rows, _ = self._features[clip_id]
        counts = np.array(self._counts[clip_id], dtype=np.int64)
        if counts.sum() != len(rows):
            raise ValueError(
                f"Clip {clip_id!r} has {len(rows)} regions with features and {counts.sum()} by its counts. "
                "Allowed: as many. Check that the two files belong together."
            )
        frames = np.flatnonzero(counts)
        first = np.cumsum(counts)[frames] - counts[frames]
        return np.add.reduceat(rows, first) / counts[frames, None].astype(np.float32), frames / self._frame_rate


class ShotFeatures(ClipMapping):
    """Features of DramaQA's shots, handed out for shots and for scenes: a scene is all its shots, one after the other.

    Args:
        features: shot -> features and times from the shot's start, in seconds.
        starts: shot -> where it starts in the episode; see `shot_starts`. A scene has the shots that are in it.

    Example:
        >>> shots = {f"AnotherMissOh14_001_{n:04}": (np.full((2, 1), n), np.array([0.0, 0.5])) for n in (25, 26)}
        >>> starts = {"AnotherMissOh14_001_0025": 100.0, "AnotherMissOh14_001_0026": 106.0}
        >>> vectors, times = ShotFeatures(shots, starts)["AnotherMissOh14_001_0000"]
        >>> vectors[:, 0].tolist(), times.tolist()
        ([25, 25, 26, 26], [0.0, 0.5, 6.0, 6.5])
    """

    def __init__(self, features: Mapping[str, tuple[np.ndarray, np.ndarray]], starts: Mapping[str, float]):
        self._features, self._starts = features, starts
        self._begins: dict[str, float] = {}  # scene -> its first shot's start, whether that shot has features or not
        for shot, start in starts.items():
            scene = _scene(shot)
            self._begins[scene] = min(start, self._begins.get(scene, start))
        shots = sorted(shot for shot in features if CLIP_NAME.fullmatch(shot))
        self._shots = {shot: [shot] for shot in shots}
        for shot in shots:
            if shot in starts:
                self._shots.setdefault(_scene(shot), []).append(shot)
        self._clip_ids = dict.fromkeys(self._shots)
        if not self._clip_ids:
            raise ValueError(
                f"None of {len(features)} clips is named as AnotherMissOh14_001_0025 (episode, scene, shot). Allowed: "
                "features of DramaQA's shots. Leave out `shots` for other files."
            )

    @property
    def feature_size(self) -> int:
        """Width of the features."""
        return self[next(iter(self))][0].shape[1]

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Reads one clip: `features`, (n, feature_size), and `times`, (n,) float64 seconds, ascending."""
        if clip_id not in self:
            raise KeyError(
                f"There are no features of clip {clip_id!r}. Allowed: one of {len(self)} shots and scenes, see keys(). "
                "Check that the file belongs to these clips."
            )
        begin = self._begins[clip_id] if clip_id in self._begins else self._starts.get(clip_id, 0.0)
        vectors, times = zip(*(self._features[shot] for shot in self._shots[clip_id]), strict=True)
        offsets = [self._starts.get(shot, begin) - begin for shot in self._shots[clip_id]]
        all_times = np.concatenate([time + offset for time, offset in zip(times, offsets, strict=True)])
        order = np.argsort(all_times, kind="stable")
        return np.concatenate(vectors)[order], all_times[order]


def _scene(shot: str) -> str:
    return f"{shot[:-4]}0000"
