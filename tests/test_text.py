"""Numbering the words of files and lines: the native encoder and the one in Python against str.split()."""

from __future__ import annotations

import gzip
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotrow
from conftest import run_python
from hotrow import _backend, _encode, text

ENCODERS = ["native"] * (find_spec("hotrow._native") is not None) + ["python"]
SPACES = " \t\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000"
NO_SPACES = "\0\x01\x08\x0e\x1b\x7f\u0084\u0086\u200b\u2030\u2060\u180e\ufeff\u3001"
Sentences = list[list[str]]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(_encode, "encoder", lambda threads: _encode.PythonEncoder())
    return str(request.param)


def split(data: bytes) -> Sentences:
    """The definition."""
    return [line.decode(errors="replace").split() for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]


def numbered(sentences: Sentences, min_count: int) -> tuple[list[str], list[int], Sentences]:
    """Words, counts and what stays of the sentences, by the definition: sorted() keeps the order of appearance."""
    counts = Counter(word for sentence in sentences for word in sentence)
    words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: -counts[word])
    known = set(words)
    kept = [[word for word in sentence if word in known] for sentence in sentences]
    return words, [counts[word] for word in words], [sentence for sentence in kept if sentence]


def decoded(corpus: text.Corpus) -> tuple[list[str], list[int], Sentences]:
    assert (corpus.tokens.dtype, corpus.offsets.dtype, corpus.counts.dtype) == (np.int32, np.int64, np.int64)
    assert (corpus.offsets[0], corpus.offsets[-1]) == (0, corpus.tokens.size)
    parts = np.split(corpus.tokens, corpus.offsets[1:-1])
    return corpus.words, corpus.counts.tolist(), [[corpus.words[t] for t in part] for part in parts]


def encode_data(data: bytes, path: Path, **settings: Any) -> text.Corpus:
    path.write_bytes(data)
    return text.encode_file(path, bar=False, **settings)


def check(data: bytes, path: Path, min_count: int = 1, **settings: Any) -> None:
    expected = numbered(split(data), min_count)
    if expected[0]:
        assert decoded(encode_data(data, path, min_count=min_count, **settings)) == expected
        return
    with pytest.raises(ValueError, match=r"the text has no words|no word occurs"):
        encode_data(data, path, min_count=min_count, **settings)


# --- what words and sentences are -------------------------------------------------------------------------------------

TEXTS = [
    ("one line, no end", b"a b a", ["a", "b"], [[0, 1, 0]]),
    ("equal counts as they appear", b"b a\na b c c", ["b", "a", "c"], [[0, 1], [1, 0, 2, 2]]),
    ("case is kept", b"A a A", ["A", "a"], [[0, 1, 0]]),
    ("empty lines", b"\n\n a\n \t\n\na\n\n", ["a"], [[0], [0]]),
    ("CRLF", b"a b\r\nb\r\n\r\n", ["b", "a"], [[1, 0], [0]]),
    ("a lone CR is a space", b"a\rb\rb\n", ["b", "a"], [[1, 0, 0]]),
    ("BOM at the start", b"\xef\xbb\xbfa a", ["a"], [[0, 0]]),
    ("BOM elsewhere", b"a a\n\xef\xbb\xbfa", ["a", "\ufeffa"], [[0, 0], [1]]),
    ("NUL", b"a\0 a\0 a \0", ["a\0", "a", "\0"], [[0, 0, 1, 2]]),
    ("invalid bytes that read alike", b"\xff \xfe \xe2\x82 x \xc3 \xef\xbf\xbd", ["\ufffd", "x"], [[0, 0, 0, 1, 0, 0]]),
    ("a surrogate is three", b"\xed\xa0\x80 \xff\xff\xff", ["\ufffd\ufffd\ufffd"], [[0, 0]]),
    ("a cut character before a space", b"\xe2\x80\xe2\x80\x83\xe2\x80", ["\ufffd"], [[0, 0]]),
    ("longer white space", "a\x85b\xa0b\u2003c\u3000c\u1680c".encode(), ["c", "b", "a"], [[2, 1, 1, 0, 0, 0]]),
    ("eight bytes and nine", b"aaaaaaaa aaaaaaaaa aaaaaaaaa", ["aaaaaaaaa", "aaaaaaaa"], [[1, 0, 0]]),
]  # fmt: skip


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(("data", "words", "sentences"), [t[1:] for t in TEXTS], ids=[t[0] for t in TEXTS])
def test_texts(
    encoder: str, tmp_path: Path, data: bytes, words: list[str], sentences: list[list[int]], block_size: int
) -> None:
    corpus = encode_data(data, tmp_path / "t", min_count=1, block_size=block_size)
    assert corpus.words == words
    assert [part.tolist() for part in np.split(corpus.tokens, corpus.offsets[1:-1])] == sentences


def test_white_space_is_what_python_takes_for_it(encoder: str, tmp_path: Path) -> None:
    """Every character of up to three bytes between two letters; no other is white space."""
    characters = [chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000]
    assert {c for c in map(chr, range(0x110000)) if len(f"a{c}b".split()) > 1} - set(characters) == set()
    check("\n".join(f"a{c}b" for c in characters).encode(), tmp_path / "t")


words = st.one_of(
    st.text("ab", min_size=1, max_size=20),
    st.text(NO_SPACES + "aé\U0001f600", max_size=4),
    st.text(max_size=12).filter(lambda s: not any("\ud800" <= c < "\ue000" for c in s)),
)
unicode_texts = st.lists(st.tuples(words, st.sampled_from([*SPACES, *" \n" * 8])), max_size=60).map(
    lambda pairs: "".join(word + space for word, space in pairs).encode()
)
pieces = st.sampled_from([b"\xe2", b"\x80", b"\x83", b"\xc2", b"\x85", b"\xed", b"\xa0", b"\xf0\x9f", b"\n", b" "])
byte_texts = st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=80).map(b"".join))


@pytest.mark.parametrize("kind", ENCODERS)
@given(
    data=st.one_of(unicode_texts, byte_texts),
    block_size=st.integers(1, 70),
    threads=st.sampled_from([1, 2, 3, 8]),
    min_count=st.integers(0, 3),
)
@settings(max_examples=400, deadline=None, derandomize=True, database=None)
def test_random_texts(kind: str, data: bytes, block_size: int, threads: int, min_count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if kind == "python":
            patch.setattr(_encode, "encoder", lambda threads: _encode.PythonEncoder())
        check(data, Path(folder) / "t", min_count, block_size=block_size, threads=threads)


def big_text(seed: int = 0) -> bytes:
    """Some 400,000 words of all lengths, a third of them in UTF-8 of several bytes, many of them once."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.2, 400_000) % 2_000_003
    spaces = rng.choice(np.array([" ", " ", " ", "\n", "\u3000"]), ids.size).tolist()
    return "".join(
        f"{'wéж'[i % 3] * (i % 5)}{i}{space}" for i, space in zip(ids.tolist(), spaces, strict=True)
    ).encode()


def test_threads_and_blocks_do_not_show(encoder: str, tmp_path: Path) -> None:
    data = big_text()
    expected = numbered(split(data), 2)
    for threads in (1, 2, 3, 8):
        for block_size in (4 << 20, 100_003):
            corpus = encode_data(data, tmp_path / "t", min_count=2, threads=threads, block_size=block_size)
            assert decoded(corpus) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_a_word_and_a_line_may_be_of_any_length(encoder: str, tmp_path: Path, threads: int) -> None:
    size = 50_000_000
    word = b"x" * size
    corpus = encode_data(b"a " + word + b" a " + word[1:] + b"\n" + word, tmp_path / "t", min_count=1, threads=threads)
    assert list(map(len, corpus.words)) == [1, size, size - 1]
    assert corpus.tokens.tolist() == [0, 1, 0, 2, 1]
    assert corpus.offsets.tolist() == [0, 4, 5]
    corpus = encode_data(b"ab c " * (size // 5), tmp_path / "t", min_count=1, threads=threads)
    assert corpus.words == ["ab", "c"]
    assert corpus.offsets.tolist() == [0, size // 5 * 2]
    assert (corpus.tokens.reshape(-1, 2) == [0, 1]).all()


# --- vocabulary -------------------------------------------------------------------------------------------------------


def test_encode_lines_takes_strings_as_sentences(encoder: str) -> None:
    lines = ["b a\n", "a\nc", "", "\ufeffa \u3000", "a" * 30]
    expected = numbered([line.split() for line in lines], 1)
    for block_size in (1, 5, 1 << 20):
        assert decoded(text.encode_lines(iter(lines), min_count=1, block_size=block_size, bar=False)) == expected


def test_no_words_and_too_rare_words(encoder: str, tmp_path: Path) -> None:
    for data in (b"", b" \n\t\r\n", "\u3000\n".encode(), b"\xef\xbb\xbf"):
        with pytest.raises(ValueError, match=r"t: the text has no words$"):
            encode_data(data, tmp_path / "t")
    with pytest.raises(ValueError, match=r"t: no word occurs 5 times among the text's 4: lower min_count$"):
        encode_data(b"a b\na c", tmp_path / "t")
    with pytest.raises(ValueError, match=r"t: more than max_final_vocab = 1 words occur 2 times, the most of all"):
        encode_data(b"a b a b c", tmp_path / "t", min_count=1, max_final_vocab=1)


@pytest.mark.parametrize("min_count", [1, 3])
@pytest.mark.parametrize("most", [1, 2, 7, 60, 61, 10_000])
def test_max_final_vocab_is_gensims(encoder: str, tmp_path: Path, min_count: int, most: int) -> None:
    word2vec = pytest.importorskip("gensim.models.word2vec")
    rng = np.random.default_rng(most)
    sentences = [[f"w{i}" for i in rng.zipf(1.5, 20) % 200] for _ in range(100)]
    path = tmp_path / "t"
    path.write_text("\n".join(map(" ".join, sentences)), encoding="utf-8")
    model = word2vec.Word2Vec(min_count=min_count, max_final_vocab=most, vector_size=1)
    model.build_vocab(word2vec.LineSentence(str(path)))
    for corpus in (
        text.encode_file(path, min_count=min_count, max_final_vocab=most, bar=False),
        text.encode(sentences, min_count, max_final_vocab=most),
    ):
        counts = {word: model.wv.get_vecattr(word, "count") for word in model.wv.index_to_key}
        assert dict(zip(corpus.words, corpus.counts.tolist(), strict=True)) == counts


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"min_count": -1}, ValueError, "min_count"),
        ({"min_count": 2.5}, TypeError, "min_count"),
        ({"max_final_vocab": 0}, ValueError, "max_final_vocab"),
        ({"threads": 0}, ValueError, "threads"),
        ({"block_size": 0}, ValueError, "block_size"),
    ],
)
def test_bad_settings(tmp_path: Path, setting: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        encode_data(b"a", tmp_path / "t", **setting)
    with pytest.raises(error, match=f"^{message}"):
        text.encode_lines(["a"], **setting)


def test_bad_lines(encoder: str) -> None:
    with pytest.raises(TypeError, match=r"^lines must be an iterable of str, not a str$"):
        text.encode_lines("a b")
    with pytest.raises(TypeError, match=r"^lines must hold str, not bytes$"):
        text.encode_lines([b"a b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="surrogates not allowed"):
        text.encode_lines(["a \ud800"])


# --- files ------------------------------------------------------------------------------------------------------------

PACKERS: dict[str, Any] = {".gz": gzip.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_of_several_members(encoder: str, tmp_path: Path, suffix: str) -> None:
    parts = [b"\xef\xbb\xbfa b", b"c a\n", big_text()[:300_000], b""]
    path = tmp_path / f"t{suffix}"
    path.write_bytes(b"".join(map(PACKERS[suffix], parts)))
    corpus = text.encode_file(path, min_count=1, bar=False, block_size=50_000)
    assert decoded(corpus) == numbered(split(b"".join(parts)), 1)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("spoil", ["truncated", "garbage"])
def test_damaged_files_are_named(encoder: str, tmp_path: Path, suffix: str, spoil: str) -> None:
    packed = PACKERS[suffix](big_text()[:500_000])
    path = tmp_path / f"t{suffix}"
    half = len(packed) // 2
    path.write_bytes(packed[:half] + b"\x55" * 40 * (spoil == "garbage") + packed[half + 40 :] * (spoil == "garbage"))
    with pytest.raises(ValueError, match=rf"^{path}: "):
        text.encode_file(path, bar=False)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        text.encode_file(tmp_path / "nowhere.txt")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        text.encode_file(tmp_path)


def test_pipes_are_read(encoder: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", 'printf "a b\\nab" >"$0"', path]):
        assert decoded(text.encode_file(path, min_count=1, bar=False)) == numbered([["a", "b"], ["ab"]], 1)


def test_large_texts_go_to_a_file_without_a_name(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = big_text() + b"x " * 500_000  # some blocks have no end of a line
    in_memory = encode_data(data, tmp_path / "t", min_count=3)
    monkeypatch.setattr(_encode, "MEMORY", 100_000)
    folder = tmp_path / "large"
    folder.mkdir()
    corpus = encode_data(data, tmp_path / "t", min_count=3, directory=folder, block_size=200_000)
    assert decoded(corpus) == decoded(in_memory)
    assert list(folder.iterdir()) == []
    assert not corpus.tokens.flags.writeable
    assert not corpus.offsets.flags.writeable
    assert type(corpus.tokens) is np.ndarray
    assert in_memory.tokens.flags.owndata


def test_a_mapped_corpus_trains(backend: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = big_text()[:200_000]
    corpora = [encode_data(data, tmp_path / "t", min_count=3)]
    monkeypatch.setattr(_encode, "MEMORY", 4096)
    corpora.append(encode_data(data, tmp_path / "t", min_count=3))
    assert [corpus.tokens.flags.writeable for corpus in corpora] == [True, False]
    with hotrow.num_threads(1):
        one, two = (hotrow.Word2Vec(vector_size=8, epochs=1).fit(corpus).vectors.vectors for corpus in corpora)
    assert one.tobytes() == two.tobytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
def test_a_full_disk_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a b c d\n" * 100_000)
    run_python(
        """
import os, resource, sys
from hotrow import _encode, text
_encode.MEMORY = 4096
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
before = len(os.listdir("/proc/self/fd"))
try:
    text.encode_file(sys.argv[1] + "/t", directory=sys.argv[1], bar=False)
except OSError as error:
    assert sys.argv[1] in str(error), error
else:
    sys.exit("no error")
assert os.listdir(sys.argv[1]) == ["t"]
assert len(os.listdir("/proc/self/fd")) <= before + 1, os.listdir("/proc/self/fd")  # one may be the library of threads
""",
        str(tmp_path),
    )


# --- threads and processes --------------------------------------------------------------------------------------------


def test_two_at_once(encoder: str, tmp_path: Path) -> None:
    texts = [big_text(seed)[:2_000_000] for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda i: encode_data(texts[i], tmp_path / f"t{i}", threads=3, min_count=1), (0, 1)))
    assert [decoded(corpus) for corpus in found] == [numbered(split(data), 1) for data in texts]


@pytest.mark.skipif("native" not in ENCODERS, reason="Python's encoder has no threads")
def test_a_child_can_encode_after_its_parent(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(big_text()[:500_000])
    code = """
import os, sys
from hotrow import text
def size():
    return text.encode_file(sys.argv[1], threads=3, min_count=1, bar=False).tokens.size
before = size()
child = os.fork()
if child == 0:
    os._exit(size() != before)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert size() == before
"""
    run_python(code, str(tmp_path / "t"))


ENDLESS = """
import sys
from hotrow import _encode, text
def lines():
    print("ready", flush=True)
    while True:
        yield "a b c d e f g h " * 1000
try:
    if sys.argv[1] == "pipe":
        print("ready", flush=True)
        text.encode_file("/dev/stdin", bar=False)
    else:
        _encode.MEMORY = 4096
        text.encode_lines(lines(), directory=sys.argv[2], bar=False)
except KeyboardInterrupt:
    sys.exit(3)
"""


@pytest.mark.parametrize("source", ["pipe", "lines"])
def test_ctrl_c_stops_at_once(tmp_path: Path, source: str) -> None:
    command = [sys.executable, "-c", ENDLESS, source, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("native" not in ENCODERS, reason="needs the native encoder")
def test_the_native_encoder_serves_every_backend(tmp_path: Path) -> None:
    """The kernels in use are no matter: where it was built it reads."""
    (tmp_path / "t").write_bytes(b"a b a")
    code = """
import sys
from hotrow import _encode, text
assert type(_encode.encoder(1)).__module__ == "hotrow._native"
assert text.encode_file(sys.argv[1], min_count=1).words == ["a", "b"]
"""
    run_python(code, str(tmp_path / "t"), HOTROW_BACKEND="numba")


def test_without_the_native_module_python_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("hotrow._native")

    monkeypatch.setattr(_backend, "native", missing)
    assert type(_encode.encoder(2)) is _encode.PythonEncoder


# --- raw text ---------------------------------------------------------------------------------------------------------

raw = st.one_of(
    st.text("aB9'_- .\n\r", max_size=40), st.text("aZé'\u2019\u2028\n\r İΣ", max_size=40), st.text(max_size=40)
).map(lambda s: s.encode(errors="replace"))


@given(data=st.one_of(raw, st.binary(max_size=60)), block_size=st.integers(1, 50))
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_raw_text_is_cut_as_tokenize_does(data: bytes, block_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        path.write_bytes(data)
        expected = numbered(list(text.read_sentences(path)), 1)
        if not expected[0]:
            with pytest.raises(ValueError, match="the text has no words"):
                text.encode_file(path, tokenized=False)
            return
        corpus = text.encode_file(path, min_count=1, tokenized=False, block_size=block_size, bar=False)
        assert decoded(corpus) == expected
