"""Finding and reading the files of a release, with errors that name the file and the place in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def find_file(root: Path, name: str) -> Path | None:
    """Find a file or folder of a release by its official name, in `root` or in one of the folders of `root`.

    Args:
        root: folder of the release.
        name: name of the file or folder.

    Returns:
        Its path, or None where it is not there.

    Raises:
        ValueError: several folders of `root` have it.

    Example:
        >>> find_file(Path(__file__).parents[1], "files.py").name
        'files.py'
    """
    if (root / name).exists():
        return root / name
    found = sorted(root.glob(f"*/{name}"))
    if len(found) > 1:
        raise ValueError(
            f"{name} is in {len(found)} folders of {root}: {', '.join(path.parent.name for path in found)}. One is "
            f"allowed, for they may differ: pass one of these folders as data_dir."
        )
    return found[0] if found else None


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
    value = _parse(_read_text(path), str(path))
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
    # Not splitlines(): it also splits at U+2028 and the like, which may stand inside a JSON text.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(line, where)


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
        raise ValueError(f"{path}: {error}. UTF-8 text is allowed: fetch the file again.") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: no JSON at line {error.lineno}, column {error.colno} ({error.msg}). A whole JSON value is "
            f"allowed: the file may be cut short, fetch it again."
        ) from error
