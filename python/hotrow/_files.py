"""Files: packed ones, and ones that appear whole or not at all."""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

StrPath = str | os.PathLike[str]
OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}  # what unpacks a file, by its suffix


def check_target(path: StrPath, corpus: StrPath | None = None) -> None:
    """Find out now what would fail after a training.

    Raises:
        ValueError: the file cannot be written, or it is the corpus.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise ValueError(f"cannot write {path}: it is a directory")
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no directory {target.parent}")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: no permission")
    if corpus is not None and target == Path(corpus).resolve():
        raise ValueError(f"{path} is the corpus: choose another name")


@contextmanager
def atomic_write(path: StrPath) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` when the `with` block ends without an error.

    What was at `path` stays until then, and for good if the block fails. Links are followed; a pipe or a device is
    written to as it is.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
