"""From text to encoded sentences."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import lzma
import os
import re
import sysconfig
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hotrow import _check, _encode, _threads
from hotrow._files import OPENERS

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""', re.DOTALL)
_BLANK_LINE = re.compile(r"\n\s*\n")
_BOM = b"\xef\xbb\xbf"
_BLOCK = 4 << 20  # bytes: some 10 ms of work, 64 KiB for each of the most threads that are worth their waking
_MOST_THREADS = 64

# tokenize() on ASCII: letters and digits, lower-cased, and ends of lines stay. All else becomes a space, but for an
# apostrophe between two letters or digits that is the first of its word.
_KEPT = bytes(c if chr(c).isalnum() or c in b"'\n" else ord(" ") for c in bytes(range(128)).lower()).ljust(256)
_LOOSE_APOSTROPHE = re.compile(rb"'(?:(?<![a-z0-9]')|(?![a-z0-9]))")
_SECOND_APOSTROPHE = re.compile(rb"('[a-z0-9]+)'")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Encoded sentences.

    Attributes:
        words (list of str, length V): the vocabulary, most frequent first; equally frequent ones as they first appear.
        counts (int64[V]): how often each occurs.
        tokens (int32[T]): word numbers, sentence after sentence; may be a read-only memory map.
        offsets (int64[S + 1]): where each sentence starts in tokens, and T; may be one too.
    """

    words: list[str]
    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]


def tokenize(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, with an apostrophe inside: "Don't!" gives ["don't"]."""
    return _WORD.findall(text.lower())


def open_text(path: str | os.PathLike[str]) -> IO[str]:
    """Open a text file, a .gz or an .xz one, as UTF-8; bytes that are not become U+FFFD."""
    opener = OPENERS.get(Path(path).suffix, open)
    return opener(path, "rt", encoding="utf-8", errors="replace")  # type: ignore[no-any-return]


def read_sentences(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """The words of each line of a text file."""
    with open_text(path) as lines:
        for line in lines:
            yield tokenize(line)


def python_sentences() -> Iterator[list[str]]:
    """English that ships with Python: the language reference in pydoc_data.topics and the standard library's
    docstrings, a paragraph a sentence.
    """
    texts: list[str] = []
    with contextlib.suppress(ImportError):  # some distributions leave it out
        texts += importlib.import_module("pydoc_data.topics").topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "dist-packages", "test", "tests", "idle_test"} & set(path.relative_to(library).parts):
            texts += _TRIPLE_QUOTED.findall(path.read_text(encoding="utf-8", errors="replace"))
    for text in texts:
        for paragraph in _BLANK_LINE.split(text):
            yield tokenize(paragraph)


def encode(
    sentences: Iterable[list[str]],
    min_count: int = 5,
    *,
    max_final_vocab: int | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> Corpus:
    """Number the words of sentences that are lists of words, as they are given.

    Args:
        sentences (iterable of list of str): read once.
        min_count, max_final_vocab, directory: as encode_file.

    Raises:
        TypeError, ValueError, OSError: as encode_file.
    """
    settings = _settings(min_count, max_final_vocab, directory)
    numbering = _encode.Numbering()
    return Corpus(*_encode.encode(numbering.batches(sentences), numbering, settings))


def encode_file(
    path: str | os.PathLike[str],
    *,
    min_count: int = 5,
    max_final_vocab: int | None = None,
    tokenized: bool = True,
    threads: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    bar: bool | None = None,
    block_size: int = _BLOCK,
) -> Corpus:
    """Number the words of a UTF-8 text file, a sentence a line: one pass, on several threads, in memory that does not
    grow with the text but for its vocabulary. Ctrl-C ends it with nothing left behind.

    Words are what str.split() gives of a line, of any length and case; bytes that are not UTF-8 become U+FFFD. Numbers
    go by falling count, then by first appearance, whatever the number of threads. Lines without words are no sentences.

    Args:
        path: the file; .gz and .xz are unpacked.
        min_count (int >= 0): rarer words are left out of the sentences; default 5.
        max_final_vocab (int >= 1): raise min_count until at most so many words stay; words as frequent as the first one
            too many go too. Default: no limit.
        tokenized (bool): False if words are still to be lower-cased and cut as tokenize does; default True.
        threads (int in [1, 4096]): default hotrow.get_num_threads().
        directory: where what exceeds 256 MiB (67 million words) goes, to files without names that end with the corpus;
            default tempfile.gettempdir().
        bar (bool): show a progress bar in bytes; default: on a terminal.
        block_size (int >= 1): bytes read at a time; default 4 MiB.

    Raises:
        TypeError, ValueError: a parameter is of a wrong type or out of range.
        ValueError: no words, none that stays, or a damaged .gz or .xz.
        OSError: the file cannot be read, or the directory is full.

    Source:
        Words and lines: gensim's LineSentence, without its limit of 10,000 words; max_final_vocab: gensim's Word2Vec.
    """
    settings = _settings(min_count, max_final_vocab, directory)
    block_size = _check.integer("block_size", block_size, 1)
    encoder = _encoder(threads)
    with open(path, "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size or None
        blocks = _file_blocks(path, file, block_size)
        reading = contextlib.closing(_read_ahead(blocks if tokenized else _tokenized(blocks)))
        with reading as ahead, _bytes_bar(total, bar) as shown:

            def pieces() -> _encode.Pieces:
                for block in ahead:
                    yield from encoder.feed(block)
                    shown.update(file.tell() - shown.n if file.seekable() else len(block))
                yield from encoder.close()

            try:
                return Corpus(*_encode.encode(pieces(), encoder, settings))
            except (EOFError, ValueError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
                raise ValueError(f"{os.fspath(path)}: {error}") from error


def encode_lines(
    lines: Iterable[str],
    *,
    min_count: int = 5,
    max_final_vocab: int | None = None,
    threads: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    bar: bool | None = None,
    block_size: int = _BLOCK,
) -> Corpus:
    """Number the words of strings, a sentence each, as encode_file does those of lines. An end of a line within a
    string is white space like any other.

    Args:
        lines (iterable of str): read once, on the calling thread.
        min_count, max_final_vocab, threads, directory, bar, block_size: as encode_file.

    Raises:
        TypeError, ValueError, OSError: as encode_file; ValueError also for a lone surrogate, which UTF-8 cannot hold.
    """
    if isinstance(lines, str):
        raise TypeError("lines must be an iterable of str, not a str")
    settings = _settings(min_count, max_final_vocab, directory)
    block_size = _check.integer("block_size", block_size, 1)
    encoder = _encoder(threads)
    with _bytes_bar(None, bar) as shown:

        def pieces() -> _encode.Pieces:
            for block in _line_blocks(lines, block_size):
                yield from encoder.feed(block)
                shown.update(len(block))
            yield from encoder.close()

        return Corpus(*_encode.encode(pieces(), encoder, settings))


def _settings(min_count: int, max_final_vocab: int | None, directory: Any) -> _encode.Settings:
    return _encode.Settings(
        _check.integer("min_count", min_count, 0),
        None if max_final_vocab is None else _check.integer("max_final_vocab", max_final_vocab, 1),
        directory,
    )


def _encoder(threads: int | None) -> Any:
    n = _threads.count if threads is None else _check.integer("threads", threads, 1, _threads.MAX)
    return _encode.encoder(min(n, _MOST_THREADS))


def _bytes_bar(total: int | None, bar: bool | None) -> Any:
    return tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None if bar is None else not bar)


def _file_blocks(path: str | os.PathLike[str], file: IO[bytes], size: int) -> Iterator[bytes]:
    opener = OPENERS.get(Path(path).suffix)
    unpacked = opener(file, "rb") if opener else file
    start = b""
    while len(start) < len(_BOM) and (more := unpacked.read(len(_BOM) - len(start))):
        start += more
    yield start.removeprefix(_BOM)
    while block := unpacked.read(size):
        yield block


def _line_blocks(lines: Iterable[str], size: int) -> Iterator[bytes]:
    def cut(batch: list[str]) -> Iterator[bytes]:
        data = ("\n".join(batch) + "\n").encode()
        return (data[i : i + size] for i in range(0, len(data), size))

    batch, length = [], 0
    for line in lines:
        if not isinstance(line, str):
            raise TypeError(f"lines must hold str, not {type(line).__name__}")
        batch.append(line.replace("\n", " "))
        length += len(line)
        if length >= size:
            yield from cut(batch)
            batch, length = [], 0
    yield from cut(batch)


def _tokenized(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The text with its words as tokenize gives them, with spaces between; cut at ends of lines."""
    rest: list[bytes] = []
    for block in blocks:
        lines, end, begun = block.replace(b"\r", b"\n").rpartition(b"\n")
        if end:
            yield _tokenized_lines(b"".join([*rest, lines, end]))
            rest = []
        rest.append(begun)
    yield _tokenized_lines(b"".join(rest))


def _tokenized_lines(text: bytes) -> bytes:
    if not text.isascii():
        return b"\n".join(
            _tokenized_lines(line) if line.isascii() else " ".join(tokenize(line.decode(errors="replace"))).encode()
            for line in text.split(b"\n")
        )
    text = text.translate(_KEPT)
    if b"'" in text:
        text = _SECOND_APOSTROPHE.sub(rb"\1 ", _LOOSE_APOSTROPHE.sub(b" ", text))
    return text


def _read_ahead(blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The blocks, each read by another thread while the one before is worked on. Who stops early waits for a thread
    that reads a file, not for one that a pipe keeps waiting.
    """
    results: SimpleQueue[bytes | BaseException | None] = SimpleQueue()

    def read() -> None:
        try:
            results.put(next(blocks, None))
        except BaseException as error:
            results.put(error)

    def start() -> Thread:
        thread = Thread(target=read, daemon=True)
        thread.start()
        return thread

    reader = start()
    try:
        while (block := results.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            reader = start()
            yield block
    finally:
        reader.join(timeout=0.5)
