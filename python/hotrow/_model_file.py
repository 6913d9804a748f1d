"""Files of whole models: an .npz archive, whatever its suffix, of arrays and of JSON. No pickle."""

from __future__ import annotations

import errno
import json
import zipfile
from typing import Any

import numpy as np

from hotrow._encode import Array
from hotrow._files import StrPath, atomic_write

_FORMAT = "hotrow.Word2Vec 1"


def write(path: StrPath, about: dict[str, Any], **arrays: Any) -> None:
    """Write what JSON can hold and arrays; the file appears whole or not at all.

    Raises:
        OSError: the file cannot be written; one that was there before is unchanged.
    """
    text = json.dumps({"format": _FORMAT, **about}).encode()
    with atomic_write(path) as file:
        np.savez(file, about=np.frombuffer(text, np.uint8), **arrays)


class Reader:
    """What `write` wrote: `about` at once, arrays one by one, so that no two need be in memory.

    Raises:
        ValueError: the file is damaged or something else.
        OSError: it cannot be read.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = path
        with open(path, "rb"):  # what is wrong with the path is told as by any other file
            pass
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: this is not a whole file of a model")
        try:
            self.about: dict[str, Any] = json.loads(self.array("about", np.uint8, None).tobytes())
            found = self.about.get("format")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: this is no file of a model: {error}") from None
        if found != _FORMAT:
            raise ValueError(f"{path}: expected a model of format {_FORMAT!r}, not {found!r}")

    def array(self, name: str, dtype: Any, shape: tuple[int, ...] | None) -> Array:
        """An array that must be of this dtype and, but for None, of this shape."""
        try:
            # numpy.load would leave a file open whose archive is damaged.
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                a: Array = archive[name]
                if not isinstance(a, np.ndarray):
                    raise ValueError("it is no array")  # NumPy gives the bytes of what does not begin as one
        except Exception as error:  # zipfile, its decompressors and NumPy have many kinds for damaged bytes
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(f"{self.path}: the model's {name} cannot be read: {error}") from None
        if a.dtype != dtype or (shape is not None and a.shape != shape):
            wanted = f"{np.dtype(dtype)} of shape {shape}"
            raise ValueError(f"{self.path}: {name} must be {wanted}, not {a.dtype} of shape {a.shape}")
        return a
