"""Word vectors in files: which format, then safetensors and .npy; the others are in _word2vec.py.

Whatever is wrong with a file is a ValueError that says where, before any of it is handed on.

Source: https://github.com/huggingface/safetensors; numpy.lib.format (.npy).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hotrow._files import OPENERS, StrPath, atomic_write
from hotrow._word2vec import SPACE, Found, read_binary, read_text, write_binary, write_text
from hotrow.ops import Floats

FORMATS = {
    "word2vec": "word2vec text",
    "word2vec-binary": "word2vec binary",
    "glove": "GloVe text",
    "safetensors": "safetensors",
    "npy": ".npy",
}
TEXTS = ("word2vec", "glove")
_SUFFIXES = {
    ".txt": "word2vec",
    ".vec": "word2vec",
    ".bin": "word2vec-binary",
    ".glove": "glove",
    ".safetensors": "safetensors",
    ".npy": "npy",
}
STREAMS = ("word2vec", "word2vec-binary", "glove")  # read from the front, so may be compressed
_NPY_START = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    rb"\s*\{'descr': '(<f[248])', 'fortran_order': (True|False), 'shape': \((\d+), (\d+)\),? ?\}\s*"
)
_WORDS_HEADER = re.compile(rb"\s*\{'descr': '\|u1', 'fortran_order': (?:True|False), 'shape': \((\d+),\),? ?\}\s*")
_ROWS = 1024  # rows written at a time
_SAFETENSORS_HEADER = 100_000_000  # bytes; its readers refuse longer ones


def choose(path: StrPath, format: str | None, default: str | None = None) -> str:
    """The format asked for, else the one that the suffix names, without .gz or .xz, else the default."""
    if format is None:
        inner = Path(path).with_suffix("") if Path(path).suffix in OPENERS else Path(path)
        format = _SUFFIXES.get(inner.suffix, default)
        if format is None:
            raise ValueError(f"the name of {path} does not tell its format: give format=, one of {', '.join(FORMATS)}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {format!r}")
    return format


def check_writable(path: StrPath, format: str) -> None:
    """Raise what `write` would whatever the words and vectors are."""
    if Path(path).suffix in OPENERS:
        raise ValueError(f"{path}: compressed files are read, not written")
    if format == "safetensors":
        _safetensors()


def read(path: StrPath, format: str, dtype: Any, errors: str, mmap: bool) -> tuple[list[str], Floats]:
    """Words and vectors of a file; see WordVectors.load."""
    if errors not in ("strict", "replace", "ignore"):
        raise ValueError(f"errors must be 'strict', 'replace' or 'ignore', not {errors!r}")
    if dtype is not None and format not in TEXTS:
        raise ValueError(f"dtype is for text: {FORMATS[format]} files have a dtype of their own")
    dtype = np.dtype(np.float32 if dtype is None else dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, not {dtype}")
    if mmap and format != "npy":
        raise ValueError(f"mmap is for .npy files, not for {FORMATS[format]}")
    if format not in STREAMS and Path(path).suffix in OPENERS:
        raise ValueError(f"{path}: {FORMATS[format]} files cannot be read compressed")
    if format in TEXTS:
        return read_text(path, format, dtype, errors)
    if format == "word2vec-binary":
        return read_binary(path, errors)
    return _read_safetensors(path) if format == "safetensors" else _read_npy(path, errors, mmap)


def write(path: StrPath, format: str, words: Sequence[str], vectors: Floats) -> None:
    """Write words and vectors[V, D]; see WordVectors.save."""
    check_writable(path, format)
    if not vectors.size:
        raise ValueError(f"there is nothing to save in vectors of shape {vectors.shape}")
    encoded = _encode(words, format)
    if format in TEXTS:
        write_text(path, format, encoded, vectors)
    elif format == "word2vec-binary":
        write_binary(path, encoded, vectors)
    elif format == "safetensors":
        _write_safetensors(path, words, vectors)
    else:
        _write_npy(path, encoded, vectors)


def _encode(words: Sequence[str], format: str) -> list[bytes]:
    cannot = SPACE if format in STREAMS else re.compile(rb"[\r\n]") if format == "npy" else None
    encoded = []
    for word in words:
        try:
            raw = word.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the word {word!r} has no UTF-8 form") from None
        if not raw or (cannot and cannot.search(raw)):
            raise ValueError(f"{FORMATS[format]} format cannot hold the word {word!r}")
        encoded.append(raw)
    return encoded


# --- .npy and a vocabulary --------------------------------------------------------------------------------------------


def _vocabulary(path: StrPath) -> Path:
    return Path(os.fspath(path) + ".vocab")


def _write_array(file: BinaryIO, a: Floats) -> None:
    """As numpy.save does, which loses what a full disk does not take of the last bytes."""
    header = np.lib.format.header_data_from_array_1_0(a)
    np.lib.format.write_array_header_1_0(file, header)
    rows = a.T if header["fortran_order"] else a
    for i in range(0, len(rows), _ROWS):
        file.write(np.ascontiguousarray(rows[i : i + _ROWS]).data)


def _write_npy(path: StrPath, words: list[bytes], vectors: Floats) -> None:
    if vectors.dtype.kind != "f":
        raise TypeError(f".npy format cannot hold {vectors.dtype}: convert the vectors first")
    text = b"".join([word + b"\n" for word in words])
    with atomic_write(_vocabulary(path)) as vocabulary, atomic_write(path) as file:
        vocabulary.write(text)
        vocabulary.flush()  # a full disk is known before the vectors take their place
        _write_array(file, vectors)
        # Two files cannot change at once: the vectors keep their words with them (numpy.load reads the first array).
        _write_array(file, np.frombuffer(text, np.uint8))


def _read_npy(path: StrPath, errors: str, mmap: bool) -> tuple[list[str], Floats]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(_NPY_START) + 2)
        if not start:
            raise ValueError(f"{path}: the file is empty")
        wide = start[-2:-1] > b"\1"
        length = int.from_bytes(file.read(4 if wide else 2), "little")
        header = file.read(min(length, 10_000))
        fields = _NPY_HEADER.fullmatch(header)
        if not start.startswith(_NPY_START) or not fields:
            raise ValueError(
                f"{path}: expected the .npy header of little-endian floats in 2 dimensions, not {header[:60]!r}"
            )
        dtype, shape = np.dtype(fields[1].decode()), (int(fields[3]), int(fields[4]))
        offset, count = file.tell(), shape[0] * shape[1]
        end = offset + count * dtype.itemsize
        if count == 0 or end > size:
            raise ValueError(f"{path}: an array of shape {shape} is not what {size - offset} bytes hold")
        file.seek(end)
        order: Any = "F" if fields[2] == b"True" else "C"
        words = _read_words(path, file, shape[0], errors)
        if mmap:
            return words, np.memmap(path, dtype, "r", offset, shape, order)
        file.seek(offset)
        return words, np.fromfile(file, dtype, count).reshape(shape, order=order)


def _read_words(path: StrPath, file: BinaryIO, rows: int, errors: str) -> list[str]:
    """The words that follow the vectors or, in a file of numpy.save, those of the vocabulary beside it."""
    if os.fstat(file.fileno()).st_size > file.tell():
        source = Path(f"{path}, words")
        header = file.read(10)
        fields = _WORDS_HEADER.fullmatch(file.read(int.from_bytes(header[8:], "little")))
        raw = file.read()
        if header[:8] != _NPY_START + b"\1\0" or not fields or int(fields[1]) != len(raw):
            raise ValueError(f"{path}: what follows the vectors is not their words")
    else:
        source = _vocabulary(path)
        raw = source.read_bytes().replace(b"\r\n", b"\n")
    lines = raw.removesuffix(b"\n").split(b"\n")
    if len(lines) != rows:
        raise ValueError(f"{source}: {len(lines)} lines are not the words of the {rows} rows of {path}")
    found = Found(source, "line", 1, errors)
    found.add(lines)
    return found.words


# --- safetensors ------------------------------------------------------------------------------------------------------


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError('safetensors files need the package safetensors: pip install "hotrow[vectors]"') from None
    return safetensors


def _write_safetensors(path: StrPath, words: Sequence[str], vectors: Floats) -> None:
    if vectors.dtype.kind != "f":
        raise TypeError(f"hotrow saves no {vectors.dtype} in safetensors: convert the vectors first")
    metadata = {"words": json.dumps(words, ensure_ascii=False)}
    length = len(json.dumps(metadata, ensure_ascii=False).encode())
    if length > _SAFETENSORS_HEADER - 1000:
        raise ValueError(f"the words take {length} bytes, safetensors allows {_SAFETENSORS_HEADER}: save as .npy")
    data = _safetensors().numpy.save({"vectors": np.ascontiguousarray(vectors)}, metadata)
    with atomic_write(path) as file:
        file.write(data)


def _read_safetensors(path: StrPath) -> tuple[list[str], Floats]:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata, names = opened.metadata() or {}, list(opened.keys())
            if "vectors" not in names or "words" not in metadata:
                raise ValueError(
                    f"{path}: expected a tensor 'vectors' and metadata 'words', not {names}, {[*metadata]}"
                )
            kind = opened.get_slice("vectors").get_dtype()
            if kind not in ("F16", "F32", "F64"):
                raise ValueError(f"{path}: the vectors must be F16, F32 or F64, not {kind}")
            vectors = opened.get_tensor("vectors")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        words = json.loads(metadata["words"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the metadata 'words' is no list of words: {error}") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path}: the metadata 'words' is no list of words")
    return words, vectors
