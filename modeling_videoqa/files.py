"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a file that is never half there, even if the process is killed or another one writes it too.

    Args:
        path: of the file; the folder is made, and an older file is replaced as a whole.
        content: text, written as UTF-8, or bytes.

    Returns:
        The path.

    Raises:
        OSError: it cannot be written; an older file is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/figures/accuracy.txt", "0.5").read_text()
        '0.5'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
