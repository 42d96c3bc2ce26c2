"""Pickles of strangers: only plain texts come out, and nothing in them is run."""

import pickle
from pathlib import Path

MAX_BYTES = 4 << 30
MAX_TEXTS = 50_000_000  # a list may stand under many keys: a small file can hold more than memory does


class _PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function, so that a pickle cannot call one; what a protocol needs of its own, it has."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object):
        raise pickle.UnpicklingError("it refers to something outside itself")


def read_text_pickle(path: Path) -> dict[str, list[str]]:
    """Read a pickle that holds lists of texts by name, such as TVQA's visual concepts, written by Python 2 or 3.

    Args:
        path: the file.

    Returns:
        The texts of each name.

    Raises:
        ValueError: the file is broken, holds anything but lists of texts by name, or asks for code.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "concepts.pickle"
        ...     _ = path.write_bytes(pickle.dumps({"clip": ["red couch , lamp", ""]}, protocol=2))
        ...     read_text_pickle(path)
        {'clip': ['red couch , lamp', '']}
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes. Up to {MAX_BYTES} are allowed: check that it is the official file.")
    try:
        with path.open("rb") as file:
            value = _PlainUnpickler(file, encoding="latin1").load()
    # Broken opcodes end in almost any exception: in a missing key of the memo, a method that a number has not, ...
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as plain texts: {str(error)[:200] or type(error).__name__}. A pickle of lists of "
            f"texts by name is allowed, without any class or function: fetch the official file again."
        ) from error
    _check_texts(value, path)
    return value


def _check_texts(value: object, path: Path) -> None:
    allowed = "A dictionary of lists of texts is allowed: check that this is the official file of that name."
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}. {allowed}")
    count = 0
    for name, texts in value.items():
        if not isinstance(name, str) or not isinstance(texts, list):
            raise ValueError(f"{path} holds a {type(texts).__name__} under {name!r:.80}. {allowed}")
        count += len(texts)
        if count > MAX_TEXTS:
            raise ValueError(f"{path} holds more than {MAX_TEXTS} texts. {allowed}")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{path} holds a {type(text).__name__} under {name!r:.80}, place {place}. {allowed}")
