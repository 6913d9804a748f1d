"""word2vec text and binary, GloVe and fastText .vec: files that are read from the front.

Source: word2vec.c, https://code.google.com/archive/p/word2vec (text and binary); GloVe, https://github.com/stanfordnlp/GloVe
(text without the first line); fastText's .vec, https://fasttext.cc/docs/en/english-vectors.html (word2vec text).
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hotrow import _check
from hotrow._files import OPENERS, StrPath, atomic_write
from hotrow.ops import Floats

SPACE = re.compile(rb"[ \t\n\v\f\r]")  # what ends a word in word2vec.c, GloVe and fastText; other white space does not
_BLOCK = 8 << 20  # bytes read at a time
_ROWS = 1024  # rows written at a time


class Found:
    """What was read so far of a file, and where errors in it are."""

    def __init__(self, path: StrPath, unit: str, first: int, errors: str) -> None:
        self.path, self.unit, self.first, self.errors = path, unit, first, errors
        self.words: list[str] = []
        self.blocks: list[Floats] = []
        self._seen: set[str] = set()

    def wrong(self, i: int, reason: str) -> ValueError:
        """The error that entry i of the file is."""
        return ValueError(f"{self.path}, {self.unit} {self.first + i}: {reason}")

    def add(self, raw: list[bytes], block: Floats | None = None) -> None:
        """Add words, none of which holds a newline, and their vectors."""
        start = len(self.words)
        try:
            words = b"\n".join(raw).decode("utf-8", self.errors).split("\n")
        except UnicodeDecodeError:
            i = next(i for i, word in enumerate(raw) if not _is_utf8(word))
            raise self.wrong(
                start + i, f"{raw[i][:60]!r} is not UTF-8; errors='replace' reads it all the same"
            ) from None
        self.words += words
        self._seen.update(words)
        if "" in self._seen:
            raise self.wrong(start + words.index(""), "there is no word")
        if len(self._seen) < len(self.words):
            seen: set[str] = set()
            for i, word in enumerate(self.words):
                if word in seen:
                    raise self.wrong(i, f"the word {word!r} stands twice")
                seen.add(word)
        if block is not None:
            self.blocks.append(block)

    def stacked(self) -> tuple[list[str], Floats]:
        """Words and vectors; each block goes as soon as it is copied, so that they are not held twice."""
        vectors = np.empty((len(self.words), self.blocks[0].shape[1]), self.blocks[0].dtype)
        end = len(vectors)
        while self.blocks:
            block = self.blocks.pop()
            vectors[end - len(block) : end] = block
            end -= len(block)
        return self.words, vectors


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _reading(path: StrPath) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file to read, what it decompresses to if need be, and its size if that is known."""
    opener = OPENERS.get(Path(path).suffix)
    try:
        if opener is None:
            with open(path, "rb", buffering=1 << 20) as plain:
                yield plain, os.fstat(plain.fileno()).st_size if os.path.isfile(path) else None
        else:
            with opener(path, "rb") as packed, io.BufferedReader(packed, 1 << 20) as file:
                yield file, None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: the compressed file is damaged: {error}") from None


def _read_header(path: StrPath, file: BinaryIO, size: int | None, least: int, each: int, hint: str) -> tuple[int, int]:
    """Words and columns by the first line. A word with D numbers takes at least `least + each * D` bytes."""
    line = file.readline(200)
    if not line:
        raise ValueError(f"{path}: the file is empty")
    fields = line.split()
    if len(fields) != 2 or not all(f.isdigit() for f in fields) or not line.endswith(b"\n"):
        raise ValueError(f"{path}, line 1: expected the numbers of words and columns, not {line[:60]!r}{hint}")
    words, width = int(fields[0]), int(fields[1])
    if words == 0 or width == 0:
        raise ValueError(f"{path}, line 1: {words} words of {width} numbers are no vectors")
    if size is not None and words * (least + each * width) - 1 > size - len(line):  # the last newline may be missing
        raise ValueError(f"{path}, line 1: {words} words of {width} numbers do not fit into a file of {size} bytes")
    return words, width


# --- text -------------------------------------------------------------------------------------------------------------


def read_text(path: StrPath, format: str, dtype: np.dtype[Any], errors: str) -> tuple[list[str], Floats]:
    with _reading(path) as (file, size):
        promised, width = None, 0
        if format == "word2vec":
            hint = "; a GloVe file has no such line: format='glove'"
            promised, width = _read_header(path, file, size, 2, 2, hint)
        found = Found(path, "line", 1 if promised is None else 2, errors)
        while lines := file.readlines(_BLOCK):
            done = len(found.words)
            if promised is not None and done + len(lines) > promised:
                raise found.wrong(promised, f"the file goes on after the {promised} words that line 1 promises")
            width = width or lines[0].rstrip().count(b" ")
            raw, numbers = _split(found, lines, width, spaces=promised is None)
            found.add(raw, _parse(found, numbers, width, dtype))
    if promised is not None and len(found.words) < promised:
        raise found.wrong(len(found.words), f"the file ends, {promised} words were promised in line 1")
    if not found.words:
        raise ValueError(f"{path}: the file is empty")
    return found.stacked()


def _split(found: Found, lines: list[bytes], width: int, spaces: bool) -> tuple[list[bytes], list[bytes]]:
    """The words of lines, and what follows them; `spaces`: a word may hold spaces if what ends it is no number."""
    words, numbers = [], []
    for i, line in enumerate(lines, len(found.words)):
        word, _, rest = line.rstrip().partition(b" ")
        columns = rest.count(b" ") + 1 if rest else 0
        if columns > width and spaces and width:
            word, *tail = line.rstrip().rsplit(b" ", width)
            last = word.rsplit(b" ", 1)[-1]
            if last and len(_numbers(last, np.dtype(np.float64))) == 0:
                rest, columns = b" ".join(tail), width
        if columns != width or not width:
            hint = "; is line 1 a header? format='word2vec'" if spaces and width == 1 else ""
            raise found.wrong(i, f"expected a word and {width or 'its'} numbers, not {columns} numbers{hint}")
        words.append(word)
        numbers.append(rest)
    return words, numbers


def _parse(found: Found, numbers: list[bytes], width: int, dtype: np.dtype[Any]) -> Floats:
    """The floats of lines of `width` numbers, each of which is known to have width - 1 spaces."""
    joined = b" ".join(numbers)
    values = _numbers(joined, dtype)
    # Single spaces and nothing else between: then as many floats as there should be means each is where it should be.
    single = b"  " not in joined and joined[:1] != b" " and len(joined.translate(None, b"\t\n\v\f\r")) == len(joined)
    if not single or len(values) != len(numbers) * width:
        for i, line in enumerate(numbers, len(found.words)):
            for column, token in enumerate(line.split(b" "), 1):
                if SPACE.search(token) or len(_numbers(token, dtype)) != 1:
                    raise found.wrong(i, f"column {column}: {token[:60]!r} is not a number")
    return values.reshape(-1, width)


def _numbers(text: bytes, dtype: np.dtype[Any]) -> Floats:
    """The numbers of a text, white space between; none if there is anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # NumPy before 2.4
            values: Floats = np.fromstring(text, dtype, sep=" ")
            return values
    except (ValueError, DeprecationWarning):
        return np.empty(0, dtype)


def write_text(path: StrPath, format: str, words: list[bytes], vectors: Floats) -> None:
    real = _check.real_dtype(vectors.dtype)
    number = "%.9g" if real == np.float32 else "%.17g"  # the digits that tell all floats apart
    line = " ".join([number] * vectors.shape[1])
    with atomic_write(path) as file:
        if format == "word2vec":
            file.write(b"%d %d\n" % vectors.shape)
        for i in range(0, len(words), _ROWS):
            rows = vectors[i : i + _ROWS].astype(real, copy=False).tolist()
            for word, row in zip(words[i : i + _ROWS], rows, strict=True):
                file.write(word + b" " + (line % tuple(row)).encode() + b"\n")


# --- word2vec binary --------------------------------------------------------------------------------------------------


def read_binary(path: StrPath, errors: str) -> tuple[list[str], Floats]:
    """A text header, then for each word its bytes, a space and D little-endian float32, a newline after or not."""
    found = Found(path, "record", 1, errors)
    with _reading(path) as (file, size):
        hint = "; fastText's own .bin models are another format"
        promised, width = _read_header(path, file, size, 2, 4, hint)
        length, buffer = 4 * width, b""
        while len(found.words) < promised:
            # Twice as much each time when a word or a vector does not end, so that the copies stay linear.
            chunk = file.read(max(_BLOCK, len(buffer)))
            buffer += chunk
            start = 0
            words: list[bytes] = []
            rows: list[bytes] = []
            while len(found.words) + len(words) < promised:
                space = buffer.find(b" ", start)
                if space < 0 or len(buffer) - space - 1 < length:
                    break
                words.append(buffer[start:space].lstrip(b"\n"))
                rows.append(buffer[space + 1 : space + 1 + length])
                start = space + 1 + length
                if b"\n" in words[-1]:
                    raise found.wrong(len(found.words) + len(words) - 1, f"{words[-1][:60]!r} holds a newline")
            if words:
                values = np.frombuffer(b"".join(rows), "<f4").astype(np.float32, copy=False)
                found.add(words, values.reshape(-1, width))
            buffer = buffer[start:]
            if not chunk:
                break
        if len(found.words) < promised:
            raise found.wrong(len(found.words), f"the file ends, {promised} words were promised in line 1")
        buffer += file.read(2)
    if buffer not in (b"", b"\n"):
        raise found.wrong(promised, f"the file goes on after the {promised} words that line 1 promises")
    return found.stacked()


def write_binary(path: StrPath, words: list[bytes], vectors: Floats) -> None:
    if vectors.dtype.itemsize > 4:
        raise TypeError(f"word2vec binary format holds float32, not {vectors.dtype}: convert the vectors first")
    with atomic_write(path) as file:
        file.write(b"%d %d\n" % vectors.shape)
        for i in range(0, len(words), _ROWS):
            rows = vectors[i : i + _ROWS].astype("<f4")
            for word, row in zip(words[i : i + _ROWS], rows, strict=True):
                file.write(word + b" " + row.tobytes())
