"""Finding and reading the files of a release, with errors that name the file and the place in it."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple


class Release(NamedTuple):
    """The files of questions of a data set.

    Args:
        name: its name in messages.
        files: split -> official name of its file.
        counts: split -> questions in the official release; without a split that has no such number.
    """

    name: str
    files: Mapping[str, str]
    counts: Mapping[str, int]


class ReleaseFolder:
    """The files of a release, found by their official names in a folder or up to two folders below it.

    Upper and lower case are not told apart where the exact name is not there: releases differ in them. What is nearer
    to the top comes first. The folders are listed once, when the first name is asked for.

    Args:
        data_dir: the folder.

    Raises:
        FileNotFoundError: there is no such folder.

    Example:
        >>> folder = ReleaseFolder(Path(__file__).parents[1])
        >>> folder.find("files.py").name, folder.find("none.json", "FILES.py").name, folder.find("none.json")
        ('files.py', 'files.py', None)
    """

    def __init__(self, data_dir: str | Path):
        self.root = Path(data_dir)
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"data_dir is {str(self.root)!r}. An existing folder is allowed: pass that of the release."
            )

    @cached_property
    def _levels(self) -> list[list[os.DirEntry]]:
        levels, folders = [], [self.root]
        for _ in range(3):
            levels.append([entry for folder in folders for entry in os.scandir(folder)])
            folders = [entry.path for entry in levels[-1] if entry.is_dir()]
        return levels

    def find(self, *names: str) -> Path | None:
        """The first of some files or folders that is there, or None.

        Args:
            names: official names, the preferred one first.

        Raises:
            ValueError: several folders on one level have it.
        """
        for name in names:
            for inside in self._levels:
                found = [entry for entry in inside if entry.name == name]
                found = found or [entry for entry in inside if entry.name.casefold() == name.casefold()]
                if len(found) > 1:
                    where = ", ".join(sorted(Path(entry.path).parent.name for entry in found))
                    raise ValueError(
                        f"{name} is in {len(found)} folders of {self.root}: {where}. One is allowed, for they may "
                        f"differ: pass one of these folders as data_dir."
                    )
                if found:
                    return Path(found[0].path)
        return None

    def need(self, *names: str, otherwise: str) -> Path:
        """As `find`, where one of the files must be there.

        Args:
            names: official names, the preferred one first.
            otherwise: what can be done to go on without it, for the error message.

        Raises:
            FileNotFoundError: none of them is there.
            ValueError: as in `find`.
        """
        path = self.find(*names)
        if path is None:
            subject = f"{names[0]} is not" if len(names) == 1 else f"neither {' nor '.join(names)} is"
            raise FileNotFoundError(
                f"{subject} in {self.root} or up to two folders below. It is needed: put it there, or {otherwise}."
            )
        return path

    def questions(self, release: Release, splits: Sequence[str]) -> dict[str, Path]:
        """The files of questions of some splits.

        Args:
            release: the names of the files.
            splits: the splits that are wanted.

        Raises:
            FileNotFoundError: a split's file is not there.
            ValueError: no split was asked for, an unknown one, or a single text in the place of a sequence.
        """
        if isinstance(splits, str) or not splits or not set(splits) <= release.files.keys():
            raise ValueError(
                f"splits is {splits!r}. A sequence of some of {list(release.files)} is allowed: pass for instance "
                f"splits=('train',)."
            )
        otherwise = "leave its split out of splits"
        return {split: self.need(release.files[split], otherwise=otherwise) for split in splits}


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file.

    Args:
        path: the file, UTF-8.
        kind: `list` or `dict`, what the file has to hold.

    Returns:
        The value, of that kind.

    Raises:
        ValueError: the file is cut short, no JSON or of another kind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "durations.json").write_text('{"c1": 9.5}')
        ...     read_json(Path(folder) / "durations.json", dict)
        {'c1': 9.5}
    """
    value = parse_json(_read_text(path), str(path))
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: a JSON {type(value).__name__} came. A {kind.__name__} is allowed: check that this is the "
            f"official file of that name."
        )
    return value


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    r"""Read a file with one JSON value a line; empty lines are passed over.

    Args:
        path: the file, UTF-8.

    Yields:
        For each line its place, for error messages, and its value.

    Raises:
        ValueError: a line is no JSON.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.jsonl").write_text('{"qid": 1}\n{"qid": 2}\n')
        ...     [value for _, value in read_json_lines(Path(folder) / "a.jsonl")]
        [{'qid': 1}, {'qid': 2}]
    """
    try:
        # A line ends at "\n" alone; others, such as U+2028, may stand inside a JSON text.
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, parse_json(line, where)
    except UnicodeDecodeError as error:
        raise _no_text(path, error) from error


def read_csv(path: Path) -> list[tuple[str, list[str]]]:
    """The rows of a csv file as texts: no cell is taken for a number, and "None" is an answer.

    Args:
        path: the file, UTF-8.

    Returns:
        For each row its place, for error messages, and its cells. Empty rows are left out.

    Raises:
        ValueError: the file is no UTF-8 or no csv.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.csv").write_text('x,"1,5",None')
        ...     [cells for _, cells in read_csv(Path(folder) / "a.csv")]
        [['x', '1,5', 'None']]
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(f"{path}, line {reader.line_num}", cells) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}. A csv file in UTF-8 is allowed: fetch the file again.") from error


def get_key(record: Any, key: str, where: str, *kinds: type) -> Any:
    """Look a key up in a record of a file.

    Args:
        record: what should be a JSON object.
        key: the key.
        where: file and place, for the error message.
        kinds: types of which the value has to be one; a bool is not taken for an int.

    Returns:
        The value.

    Raises:
        ValueError: the record is no object, has no such key, or the value is of another type.

    Example:
        >>> get_key({"qid": 7}, "qid", "a.json, record 1", int, str)
        7
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: {record!r:.80} came. A JSON object is allowed: correct the file.")
    if key not in record:
        raise ValueError(f"{where}: no key {key!r}, only {sorted(record)}. It is needed: complete the file.")
    value = record[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        allowed = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{where}, key {key!r}: {value!r:.80} came. Only {allowed} is allowed: correct the file.")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _no_text(path, error) from error


def _no_text(path: Path, error: UnicodeDecodeError) -> ValueError:
    return ValueError(f"{path}: {error}. UTF-8 text is allowed: fetch the file again.")


def parse_json(text: str, where: str) -> Any:
    """Parse one JSON value.

    Args:
        text: the JSON.
        where: file and place, for the error message.

    Raises:
        ValueError: it is no JSON, or nested too deeply.

    Example:
        >>> parse_json("[1, 2]", "a.json")
        [1, 2]
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: no JSON at line {error.lineno}, column {error.colno} ({error.msg}). A whole JSON value is "
            f"allowed: the file may be cut short, fetch it again."
        ) from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise ValueError(f"{where}: {error}. Plain JSON is allowed: check that this is the official file.") from error
