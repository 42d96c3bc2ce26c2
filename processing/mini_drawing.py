"""The pictures of the mini corpus: one large coloured figure that walks by with a small thing in its hand.

All of it is plain numpy on a 96 x 96 canvas. Outlines are written as inequalities in unit coordinates (x to the right,
y down, both -1..1), sampled finer than the pixels and averaged, so that edges are smooth and need no drawing library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

SIZE = 96  # pixels, width and height of a picture
FPS = 8  # frames per second of the videos

# Any two of these, and each of them and the background, are at least 160 apart in RGB: no codec mixes them up. The
# background is a middle grey: beside a light one all figures are dark above all, and their features nearly the same.
COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 220, 40),
    "blue": (20, 40, 240),
    "yellow": (250, 235, 20),
    "purple": (210, 20, 230),
    "black": (10, 10, 10),
}
BACKGROUND = 128  # mean grey level of the empty scene

_RADIUS = 27  # pixels: a figure is 54 high, 56 % of the picture
_HELD_RADIUS = 12  # pixels, half the side of the square that a held thing fills
_HAND = (28, 8)  # pixels from the figure's centre to the held thing's, in walking direction and down
_REACH = _HAND[0] + _HELD_RADIUS + 2  # pixels from the figure's centre to the outermost pixel of its sprite
_STEPS = SIZE // 2 - _REACH  # pixels that the figure's centre moves to each side of the picture's middle
_FINE = 4  # samples per pixel and axis


@dataclass(frozen=True)
class MiniFigure:
    """A figure that is in view for a while: what is drawn between two times, and nothing outside them.

    Args:
        enter (`float`): seconds; the first moment at which the figure is in view.
        leave (`float`): seconds; the first moment at which it is gone.
        shape (`str`): one of `SHAPES`.
        colour (`str`): one of `COLOURS`.
        held (`str`): what it holds, one of `THINGS`.
        direction (`int`): 1 walks to the right, -1 to the left; the thing is held in front.
    """

    enter: float
    leave: float
    shape: str
    colour: str
    held: str
    direction: int


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer, inner = 1.0, 0.42
    half = np.pi / 5
    # Folded into one tenth of the star, its border is the straight line from an outer to an inner corner.
    angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)
    rise, run = inner * np.sin(half), outer - inner * np.cos(half)
    return np.hypot(x, y) * (np.cos(angle) * rise + np.sin(angle) * run) <= outer * rise


def _flag(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    pole = (np.abs(x + 0.7) <= 0.14) & (np.abs(y) <= 1)
    cloth = (x >= -0.7) & (np.abs(y + 0.45) <= 0.55 * (1 - x) / 1.7)
    return pole | cloth


def _cup(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    body = (np.abs(y) <= 0.8) & (np.abs(x + 0.25) <= 0.6 - 0.15 * y)
    from_handle = np.hypot(x - 0.35, y + 0.1)
    return body | ((from_handle <= 0.6) & (from_handle >= 0.3) & (x >= 0.3))


def _key(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from_head = np.hypot(x, y + 0.5)
    shaft = (np.abs(x) <= 0.14) & (y >= -0.1) & (y <= 1)
    teeth = (x >= 0) & (x <= 0.6) & (((y >= 0.3) & (y <= 0.52)) | ((y >= 0.75) & (y <= 1)))
    return ((from_head <= 0.5) & (from_head >= 0.22)) | shaft | teeth


_Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]
_SHAPES: dict[str, _Outline] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 1,
    "triangle": lambda x, y: (np.abs(y) <= 1) & (np.abs(x) <= (1 + y) / 2),
    "diamond": lambda x, y: np.abs(x) + np.abs(y) <= 1,
}
_THINGS: dict[str, _Outline] = {
    "ball": lambda x, y: x**2 + y**2 <= 0.8**2,
    "box": lambda x, y: (np.abs(x) <= 0.95) & (np.abs(y) <= 0.65),
    "flag": _flag,
    "cup": _cup,
    "key": _key,
    "star": _star,
}
SHAPES = tuple(_SHAPES)
THINGS = tuple(_THINGS)


@cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Where a sprite is sampled, x and y in pixels from its centre, each (2 * _RADIUS * _FINE, 2 * _REACH * _FINE)."""
    rows = (np.arange(2 * _RADIUS * _FINE) + 0.5) / _FINE - _RADIUS
    columns = (np.arange(2 * _REACH * _FINE) + 0.5) / _FINE - _REACH
    return np.meshgrid(columns, rows)


def _coverage(fine: np.ndarray) -> np.ndarray:
    """Share of each pixel, (2 * _RADIUS, 2 * _REACH, 1), that a fine boolean mask covers."""
    return fine.reshape(2 * _RADIUS, _FINE, 2 * _REACH, _FINE).mean(axis=(1, 3))[:, :, None]


def _grown(fine: np.ndarray, pixels: float) -> np.ndarray:
    """The mask with a rim of `pixels` around it."""
    margin = round(pixels * _FINE)
    padded = np.pad(fine, margin)
    grown = np.zeros_like(fine)
    for down in range(0, 2 * margin + 1):
        for right in range(0, 2 * margin + 1):
            if (down - margin) ** 2 + (right - margin) ** 2 <= margin**2:
                grown |= padded[down : down + fine.shape[0], right : right + fine.shape[1]]
    return grown


@cache  # at most shapes x directions, and things x directions masks
def _masks(outline: str, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel masks, (2 * _RADIUS, 2 * _REACH, 1): a shape and its arm, or a thing's rim and its silhouette."""
    x, y = _grid()
    if outline in _SHAPES:
        arm = (direction * x >= 0) & (direction * x <= _HAND[0]) & (np.abs(y - _HAND[1]) <= 3)
        return _coverage(_SHAPES[outline](x / _RADIUS, y / _RADIUS)), _coverage(arm)
    silhouette = _THINGS[outline]((x - direction * _HAND[0]) / _HELD_RADIUS, (y - _HAND[1]) / _HELD_RADIUS)
    return _coverage(_grown(silhouette, 1.5)), _coverage(silhouette)


def _centre(figure: MiniFigure, time: float) -> int:
    """Column of the figure's centre; it crosses the middle of the picture halfway between `enter` and `leave`."""
    progress = (time - figure.enter) / (figure.leave - figure.enter)
    return SIZE // 2 + figure.direction * round(_STEPS * (2 * progress - 1))


def frame_time(time: float) -> float:
    """The presentation time of the video frame that is on screen at `time`.

    Args:
        time (`float`): seconds from the start of the clip.

    Returns:
        `float`: seconds, a multiple of `1 / FPS`, at most `time`.

    Example:

        >>> frame_time(1 / 3)
        0.25
    """
    return int(time * FPS + 1e-6) / FPS  # a time that is a frame's own, but for its last bit, belongs to that frame


def figure_at(figures: Sequence[MiniFigure], time: float) -> MiniFigure | None:
    """The figure on screen at a time.

    Args:
        figures (sequence of `MiniFigure`): the figures of one clip; never two at once.
        time (`float`): seconds from the start of the clip.

    Returns:
        `MiniFigure`, or `None` where the scene is empty.

    Example:

        >>> figure = MiniFigure(1.0, 2.0, "circle", "red", "cup", 1)
        >>> figure_at([figure], 1.5).held, figure_at([figure], 2.0)
        ('cup', None)
    """
    shown = frame_time(time)
    return next((figure for figure in figures if figure.enter <= shown < figure.leave), None)


def figure_boxes(figure: MiniFigure, time: float) -> list[list[int]]:
    """Where the figure's shape and the thing it holds are drawn.

    Args:
        figure (`MiniFigure`): a figure in view at `time`.
        time (`float`): seconds from the start of the clip.

    Returns:
        `list` of two `[x1, y1, x2, y2]` in pixels of the picture: the shape's box and the held thing's.

    Example:

        >>> figure_boxes(MiniFigure(1.0, 2.0, "circle", "red", "cup", 1), 1.5)
        [[21, 21, 75, 75], [64, 44, 88, 68]]
    """
    x, y = _centre(figure, frame_time(time)), SIZE // 2
    hand_x, hand_y = x + figure.direction * _HAND[0], y + _HAND[1]
    return [
        [x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS],
        [hand_x - _HELD_RADIUS, hand_y - _HELD_RADIUS, hand_x + _HELD_RADIUS, hand_y + _HELD_RADIUS],
    ]


def draw_background(seed: int) -> np.ndarray:
    """The empty scene: middle grey with a slight texture that does not move.

    Args:
        seed (`int`): the texture's seed.

    Returns:
        `np.ndarray` (96, 96, 3) uint8, RGB.

    Example:

        >>> draw_background(0).shape
        (96, 96, 3)
    """
    coarse = np.random.default_rng(seed).integers(-8, 9, size=(SIZE // 8, SIZE // 8))
    grey = (BACKGROUND + np.kron(coarse, np.ones((8, 8), int))).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def draw_frame(background: np.ndarray, figures: Sequence[MiniFigure], time: float) -> np.ndarray:
    """The picture on screen at a time.

    Args:
        background (`np.ndarray`): (96, 96, 3) uint8, RGB; left as it is.
        figures (sequence of `MiniFigure`): the figures of one clip.
        time (`float`): seconds from the start of the clip.

    Returns:
        `np.ndarray` (96, 96, 3) uint8, RGB; `background` itself where no figure is in view.

    Example:

        >>> frame = draw_frame(draw_background(0), [MiniFigure(1.0, 2.0, "circle", "red", "cup", 1)], 1.5)
        >>> [int(value) for value in frame[48, 48]]
        [230, 20, 20]
    """
    figure = figure_at(figures, time)
    if figure is None:
        return background
    top, left = SIZE // 2 - _RADIUS, _centre(figure, frame_time(time)) - _REACH
    window = np.s_[top : top + 2 * _RADIUS, left : left + 2 * _REACH]
    patch = background[window].astype(float)
    shape, arm = _masks(figure.shape, figure.direction)
    rim, silhouette = _masks(figure.held, figure.direction)
    colour = COLOURS[figure.colour]
    # The white rim keeps the black silhouette visible in front of a black figure.
    for mask, paint in ((shape, colour), (arm, colour), (rim, (255, 255, 255)), (silhouette, (0, 0, 0))):
        patch += mask * (np.array(paint) - patch)
    frame = background.copy()
    frame[window] = np.round(patch)
    return frame


def write_video(path: str | Path, figures: Sequence[MiniFigure], duration: float, background_seed: int) -> None:
    """Draw a clip and write it as H.264 in an mp4 file.

    Args:
        path (`str` or `Path`): the file to write.
        figures (sequence of `MiniFigure`): what comes into view, and when.
        duration (`float`): seconds; a multiple of `1 / FPS`, so that the file is exactly as long.
        background_seed (`int`): seed of the background's texture.

    Example:

        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "clip.mp4")
        ...     write_video(path, [MiniFigure(0.2, 0.8, "circle", "red", "cup", 1)], 1.0, 0)
        ...     os.path.getsize(path) > 0
        True
    """
    background = draw_background(background_seed)
    with av.open(str(path), "w", format="mp4") as container:
        # With one thread the bytes do not depend on the number of cores. The preset has no B-frames: time starts at 0.
        options = {"preset": "ultrafast", "crf": "18", "threads": "1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(round(duration * FPS)):
            frame = av.VideoFrame.from_ndarray(draw_frame(background, figures, number / FPS), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
