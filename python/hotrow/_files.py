"""Files: packed ones, and ones that appear whole or not at all."""

from __future__ import annotations

import gzip
import lzma
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

if sys.platform != "win32":
    import fcntl

StrPath = str | os.PathLike[str]
_PART = ".hotrow.part"
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
    written to as it is. A process that is killed leaves its unfinished file behind, `path`.*.hotrow.part: the next
    write to `path` removes it (but on Windows).

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    path = Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                yield file
            return
        _remove_left(path)
        handle, name = _new_part(path)
        try:
            with open(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform != "win32":  # which does not rename an open file; here it must stay locked until then
                    _finish(name, path)
            if sys.platform == "win32":
                _finish(name, path)
        except BaseException:
            with suppress(FileNotFoundError):  # Ctrl-C after it has taken its place
                os.unlink(name)
            raise
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # writes do not tell
        raise


def _finish(name: str, path: Path) -> None:
    os.chmod(name, 0o666 & ~_umask())
    os.replace(name, path)


def _new_part(path: Path) -> tuple[int, str]:
    """A new file beside `path`, locked as long as it is open."""
    while True:
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=_PART, dir=path.parent)
        if sys.platform == "win32":
            return handle, name
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # else another process took it for a dead one's before it was locked
            return handle, name
        os.close(handle)


def _remove_left(path: Path) -> None:
    """Remove what killed processes left of this file: parts that nobody has locked."""
    if sys.platform == "win32":
        return
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(path.name + ".") and entry.name.endswith(_PART):
                with suppress(OSError), open(entry.path, "r+b") as part:
                    fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
