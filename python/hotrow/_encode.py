"""Numbers the words of a text: what hotrow.text's functions share. An encoder turns text into pieces of provisional
numbers, which are kept; when the text has ended its vocabulary is known and they are replaced.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hotrow import _backend

Array = NDArray[Any]
Pieces: TypeAlias = Iterator[tuple[Array, Array]]  # int32 word numbers, int64 numbers of words before ends of sentences

# Bytes of a vector that stay in memory; the rest goes to a file. The tables of a vocabulary that such a text has take
# about as much, so that whoever can train on it has that room.
MEMORY = 256 << 20
_CHUNK = 1 << 18  # words renumbered at a time
_BATCH = 10_000  # sentences


class Settings(NamedTuple):
    min_count: int
    max_final_vocab: int | None
    directory: str | os.PathLike[str] | None


class Vocabulary(Protocol):
    """What is asked of an encoder after the last piece, in this order."""

    def vocabulary(self, tokens: Array) -> tuple[Array, Array]:
        """int64[V] counts and positions of first appearance of all words; words of count 0 do not exist."""

    def words(self, ids: Array) -> list[str]: ...

    def compact(self, number: Array, tokens: Array, ends: Array) -> tuple[int, int]:
        """Renumber the tokens by int32[V], leave out those of number -1, then sentences without words. Both arrays are
        written in place; returns how much of each is left.
        """


class Vector:
    """A vector that grows: in memory up to a limit, beyond it in a temporary file without a name."""

    def __init__(self, dtype: Any, directory: str | os.PathLike[str] | None) -> None:
        self.size = 0
        self._memory: Array = np.empty(MEMORY // np.dtype(dtype).itemsize, dtype)  # not there before it is written
        self._directory = directory
        self._file: IO[bytes] | None = None

    def append(self, values: Array) -> None:
        before, self.size = self.size, self.size + values.size
        if self._file is None:
            if self.size <= self._memory.size:
                self._memory[before : self.size] = values
                return
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115 - closed by close()
            self._write(self._memory[:before])
            self._memory = self._memory[:0].copy()
        self._write(values)

    def _write(self, values: Array) -> None:
        assert self._file is not None
        data = values.view(np.uint8).data
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            error.filename = os.fspath(self._directory or tempfile.gettempdir())
            raise

    def values(self) -> Array:
        """All of it, to be changed in place."""
        if self._file is None:
            return self._memory[: self.size]
        return np.memmap(self._file, self._memory.dtype, "r+", shape=(self.size,))

    def finish(self, size: int) -> Array:
        """The first `size` of it; a file is mapped read-only."""
        if self._file is None:
            self._memory.resize(size, refcheck=False)
            return self._memory
        self._file.truncate(size * self._memory.itemsize)
        return np.asarray(np.memmap(self._file, self._memory.dtype, "r", shape=(size,)))

    def close(self) -> None:
        """A map of the file holds it open for itself."""
        if self._file is not None:
            self._file.close()


def encode(
    pieces: Pieces, encoder: Vocabulary, settings: Settings, *, by_count: bool = True
) -> tuple[list[str], Array, Array, Array]:
    """The fields of a Corpus: numbers by falling count, then by first appearance, or by that alone.

    Raises:
        ValueError: there are no words, or none stays.
        OSError: the directory is full.
    """
    with ExitStack() as stack:
        tokens, ends = (Vector(dtype, settings.directory) for dtype in (np.int32, np.int64))
        stack.callback(tokens.close)
        stack.callback(ends.close)
        ends.append(np.zeros(1, np.int64))
        for numbers, stops in pieces:
            tokens.append(numbers)
            ends.append(stops)
        ends.append(np.array([tokens.size]))
        if tokens.size == 0:
            raise ValueError("the text has no words")
        counts, first = encoder.vocabulary(tokens.values())
        least = least_count(counts, tokens.size, settings)
        order = np.flatnonzero(counts >= least)
        order = order[np.lexsort((first[order], -counts[order] if by_count else first[order]))]
        words = encoder.words(order)
        number = np.full(counts.size, -1, np.int32)
        number[order] = np.arange(order.size, dtype=np.int32)
        tokens_kept, ends_kept = encoder.compact(number, tokens.values(), ends.values())
        return words, counts[order], tokens.finish(tokens_kept), ends.finish(ends_kept)


def least_count(counts: Array, total: int, settings: Settings) -> int:
    """The min_count that leaves at most max_final_vocab words."""
    least, most = max(1, settings.min_count), settings.max_final_vocab
    highest = int(counts.max())
    if highest < least:
        raise ValueError(f"no word occurs {least} times among the text's {total}: lower min_count")
    if most is not None and most < np.count_nonzero(counts):
        first_beyond = counts.size - 1 - most
        least = max(least, int(np.partition(counts, first_beyond)[first_beyond]) + 1)
        if highest < least:
            raise ValueError(
                f"more than max_final_vocab = {most} words occur {highest} times, the most of all: none stays"
            )
    return least


def renumber(number: Array, tokens: Iterable[Array], offsets: Iterable[Array]) -> tuple[Array, Array]:
    """Copies of tokens, renumbered by int32[V], and offsets; numbers of -1 and sentences without words are left out.

    Raises:
        OSError: the directory for temporary files is full.
    """
    with ExitStack() as stack:
        copies = Vector(np.int32, None), Vector(np.int64, None)
        for copy, chunks, dtype in zip(copies, (tokens, offsets), (np.int32, np.int64), strict=True):
            stack.callback(copy.close)
            for chunk in chunks:
                copy.append(chunk.astype(dtype, copy=False))
        sizes = Numbering().compact(number, *(copy.values() for copy in copies))
        return copies[0].finish(sizes[0]), copies[1].finish(sizes[1])


class Numbering:
    """The encoder of sentences that are lists of words: a dict."""

    def __init__(self) -> None:
        self._number: defaultdict[str, int] = defaultdict()
        self._number.default_factory = self._number.__len__
        self._total = 0

    def batches(self, sentences: Iterable[list[str]]) -> Pieces:
        remaining = iter(sentences)
        while batch := list(islice(remaining, _BATCH)):
            yield self.piece(batch)

    def piece(self, sentences: Iterable[list[str]]) -> tuple[Array, Array]:
        number = self._number
        tokens, ends = array("i"), array("q")
        for sentence in sentences:
            tokens.extend([number[word] for word in sentence])
            ends.append(self._total + len(tokens))
        self._total += len(tokens)
        return np.array(tokens, np.int32), np.array(ends, np.int64)

    def vocabulary(self, tokens: Array) -> tuple[Array, Array]:
        counts = np.zeros(len(self._number), np.int64)
        for i in range(0, tokens.size, _CHUNK):
            counts += np.bincount(tokens[i : i + _CHUNK], minlength=counts.size)
        return counts, np.arange(counts.size)

    def words(self, ids: Array) -> list[str]:
        words = list(self._number)
        return [words[i] for i in ids]

    def compact(self, number: Array, tokens: Array, ends: Array) -> tuple[int, int]:
        kept, ends_done, ends_kept = 0, 1, 1
        for i in range(0, tokens.size, _CHUNK):
            chunk = number[tokens[i : i + _CHUNK]]
            stays = chunk >= 0
            before = np.concatenate([[0], np.cumsum(stays)])
            last = ends_done + int(np.searchsorted(ends[ends_done:], i + chunk.size, "right"))
            stops = kept + before[ends[ends_done:last] - i]
            stops = stops[np.diff(stops, prepend=ends[ends_kept - 1]) > 0]
            ends[ends_kept : ends_kept + stops.size] = stops
            ends_done, ends_kept = last, ends_kept + stops.size
            tokens[kept : kept + before[-1]] = chunk[stays]
            kept += int(before[-1])
        return kept, ends_kept


class PythonEncoder(Numbering):
    """The native encoder again, in Python: holds a line at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._line: list[bytes] = []  # what is there of a line whose end has not come

    def feed(self, block: bytes) -> list[tuple[Array, Array]]:
        lines, end, begun = block.rpartition(b"\n")
        if not end:
            self._line.append(block)
            return []
        text = b"".join([*self._line, lines])
        self._line = [begun]
        return [self.piece(line.decode(errors="replace").split() for line in text.split(b"\n"))]

    def close(self) -> list[tuple[Array, Array]]:
        return self.feed(b"\n")


def encoder(threads: int) -> Any:
    """The native encoder where it was built, whichever kernels are in use: reading has one result."""
    try:
        return _backend.native().Encoder(threads)
    except ModuleNotFoundError:
        return PythonEncoder()
