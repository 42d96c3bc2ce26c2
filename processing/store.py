"""A folder with one file for each clip, and an index that says how the files were made.

Files appear whole or not at all, and a folder holds what was made in one way only: two runs whose model, weights,
preprocessing or rate differ do not go on with each other's files.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

INDEX_NAME = "index.json"
# Recorded, but not compared: two runs may differ in them and still stand side by side.
_RECORDED_ONLY = ("versions", "name_or_path", "revision", "preprocessing")


class ClipMapping(Mapping):
    """A read-only mapping from clip ids; a reader adds `__getitem__`.

    Which clips there are is known from the start, in the keys of `_clip_ids`, so asking for it reads nothing.
    """

    _clip_ids: dict[str, None]

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._clip_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._clip_ids)

    def __len__(self) -> int:
        return len(self._clip_ids)


class StoreFolder:
    """The files and the index of one kind of store.

    Args:
        directory: the folder.
        suffix: of the clips' files.
        kind: format of the files, as the index names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = StoreFolder(folder, ".json", "numbers/1")
        ...     store.write_index({"format": "numbers/1"})
        ...     store.write("a", lambda file: file.write_text("1"))
        ...     store.clip_ids(), store.read_index()
        (['a'], {'format': 'numbers/1'})
    """

    def __init__(self, directory: str | Path, suffix: str, kind: str):
        self.directory, self.suffix, self.kind = Path(directory), suffix, kind

    def file(self, clip_id: str) -> Path:
        """The file of a clip, whether it is there or not."""
        return self.directory / f"{clip_id}{self.suffix}"

    def clip_ids(self) -> list[str]:
        """The clips that are there, sorted."""
        names = (entry.name for entry in self.directory.iterdir())
        is_clip = (name for name in names if name.endswith(self.suffix) and name[0] != "." and name != INDEX_NAME)
        return sorted(name.removesuffix(self.suffix) for name in is_clip)

    def write(self, clip_id: str, write: Callable[[Path], Any]) -> None:
        """Write a clip's file under another name first, so that a stopped run leaves no half file.

        Args:
            clip_id: the clip.
            write: writes the file whose path it is given.
        """
        _write_whole(self.file(clip_id), write)

    def write_index(self, index: Mapping) -> None:
        """Write the index, as `write` does.

        Args:
            index: what it says.
        """
        text = json.dumps(index, indent=2)
        _write_whole(self.directory / INDEX_NAME, lambda file: file.write_text(text, encoding="utf-8"))

    def read_index(self) -> dict:
        """The index, as it was written.

        Raises:
            FileNotFoundError: there is no such folder, or no index in it.
            ValueError: it cannot be read, or is that of another format.
        """
        file = self.directory / INDEX_NAME
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no store in {self.directory}: {INDEX_NAME} is missing. Allowed: a folder of the format "
                f"{self.kind!r}. Check the path, or extract anew."
            )
        try:
            index = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{file} is no JSON: {error}. Allowed: the index that was written with the files. Restore it, or "
                "extract anew."
            ) from error
        if not isinstance(index, dict) or index.get("format") != self.kind:
            raise ValueError(
                f"{file} is no index of the format {self.kind!r}: {str(index)[:200]}. Allowed: that format. Restore "
                "it, or extract anew into another folder."
            )
        return index

    def matching_index(self, made_by: Mapping) -> dict | None:
        """The index of a store that may be gone on with; None where the folder holds no files yet.

        Args:
            made_by: what the files to come are made by; see `describe`.

        Raises:
            ValueError: what is there was made in another way, or nobody knows how.
        """
        if not (self.directory / INDEX_NAME).exists():
            if self.clip_ids():
                raise ValueError(
                    f"{self.directory} holds {self.suffix} files but no {INDEX_NAME}: nobody knows how they were made. "
                    "Allowed: an empty folder, or a store with its index. Choose another folder."
                )
            return None
        index = self.read_index()
        differing = [key for key in made_by if key not in _RECORDED_ONLY and index.get(key) != made_by[key]]
        if differing:
            said = "; ".join(f"{key} {index.get(key)!r} there, {made_by[key]!r} here" for key in differing)
            raise ValueError(
                f"What is in {self.directory} was made differently: {said}. Allowed: one way of making them in a "
                "store. Choose another folder, or go on with the same model, image processor and settings."
            )
        if index.get("versions") != made_by["versions"]:
            warnings.warn(
                f"The store {self.directory} was begun with {index.get('versions')}, now it is {made_by['versions']}; "
                "what is added may differ in the last digits.",
                stacklevel=3,
            )
        return index


def describe(kind: str, model: torch.nn.Module, image_processor: Any, **settings: Any) -> dict:
    """What an index says of how files are made.

    Args:
        kind: format of the files.
        model: the model; its weights are hashed.
        image_processor: what prepares its pictures.
        settings: whatever else makes a difference.

    Returns:
        A dictionary for JSON.

    Example:
        >>> describe("numbers/1", torch.nn.Linear(1, 1), None, frame_rate=3.0)["model"]
        'Linear'
    """
    config = getattr(model, "config", None)
    is_known = hasattr(image_processor, "to_json_string")
    prepared = image_processor.to_json_string() if is_known else repr(image_processor)
    return {
        "format": kind,
        **settings,
        "model": type(model).__name__,
        "name_or_path": getattr(config, "_name_or_path", ""),
        "revision": getattr(config, "_commit_hash", None),
        "weights_sha256": _weights_hash(model),
        "image_processor": hashlib.sha256(prepared.encode()).hexdigest(),
        "preprocessing": json.loads(prepared) if is_known else prepared,
        "versions": {module.__name__: str(module.__version__) for module in (torch, transformers, np)},
    }


def check_clip_id(clip_id: object) -> None:
    """Refuse a clip id that is no plain file name.

    Args:
        clip_id: the id.

    Raises:
        ValueError: it is none.

    Example:
        >>> check_clip_id("s01e01_seg01_clip_00")
    """
    is_plain = isinstance(clip_id, str) and 0 < len(clip_id.encode("utf-8", "surrogatepass")) <= 200
    if not is_plain or clip_id.startswith(".") or not clip_id.isprintable() or any(mark in clip_id for mark in "/\\:"):
        raise ValueError(
            f"The clip id is {clip_id!r}. Allowed: a plain file name, at most 200 bytes, that does not begin with a "
            "dot and holds no '/', '\\' or ':'. Rename the clip, for example 's01e01_seg01_clip_00'."
        )


def _weights_hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Bytes, because numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
