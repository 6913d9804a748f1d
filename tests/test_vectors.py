"""Word vectors: look-up, neighbours, scores beside gensim's, and every file format, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import re
import stat
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import Array
from hotrow import WordVectors, _files, _word2vec, cli

COMPASS = WordVectors(
    ["east", "north-east", "north", "west", "nowhere"],
    np.array([[1, 0], [2, 2], [0, 3], [-1, 0], [0, 0]], np.float32),
)
SUFFIXES = [".txt", ".vec", ".bin", ".glove", ".safetensors", ".npy"]
TEXTS = [".txt", ".vec", ".glove"]


@pytest.fixture(autouse=True)
def _needs_safetensors(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("suffix") == ".safetensors":
        pytest.importorskip("safetensors")


def gensim_file(name: str) -> str:
    pytest.importorskip("gensim")
    return str(import_module("gensim.test.utils").datapath(name))


def some_vectors(dtype: Any = np.float32, rows: int = 40) -> WordVectors:
    """Vectors of every magnitude, with zeros of both signs and a subnormal."""
    rng = np.random.default_rng(1)
    v = rng.standard_normal((rows, 9)).astype(dtype)
    if np.finfo(dtype).bits > 16:
        v *= dtype(10.0) ** rng.integers(-30, 30, v.shape).astype(dtype)
    v[0, :3] = 0.0, -0.0, np.finfo(dtype).smallest_subnormal
    v[1, :3] = np.nan, np.inf, -np.inf
    return WordVectors(["naïve", "日本", "a\u00a0b", *(f"w{i}" for i in range(3, rows))], v)


def array_file(a: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, a)
    return file.getvalue()


def assert_equal(a: WordVectors, b: WordVectors) -> None:
    assert a.words == b.words
    assert a.vectors.dtype == b.vectors.dtype
    assert a.vectors.tobytes() == b.vectors.tobytes()


# --- look up ----------------------------------------------------------------------------------------------------------


def test_words_and_rows() -> None:
    assert list(COMPASS) == list(COMPASS.words) == ["east", "north-east", "north", "west", "nowhere"]
    assert len(COMPASS) == 5
    assert dict(COMPASS.index) == {word: i for i, word in enumerate(COMPASS)}
    assert "east" in COMPASS
    assert "south" not in COMPASS
    assert np.shares_memory(COMPASS["north"], COMPASS.vectors)
    np.testing.assert_array_equal(COMPASS[["west", "east", "west"]], [[-1, 0], [1, 0], [-1, 0]])
    assert COMPASS[[]].shape == (0, 2)
    with pytest.raises(TypeError):
        COMPASS.index["south"] = 5  # type: ignore[index]
    for look_up in (COMPASS.most_similar, COMPASS.__getitem__, lambda w: COMPASS[["east", w]]):
        with pytest.raises(KeyError, match="'south' is not among the 5 words"):
            look_up("south")


@pytest.mark.parametrize(
    ("words", "vectors", "error", "message"),
    [
        (["a", "b"], np.ones((3, 1)), ValueError, r"2 words need as many vectors, not an array of shape \(3, 1\)"),
        (["a", "b"], np.ones(2), ValueError, r"2 words need as many vectors, not an array of shape \(2,\)"),
        (["a", "b", "a"], np.ones((3, 1)), ValueError, "the word 'a' stands twice"),
        (["a", 2], np.ones((2, 1)), TypeError, "words must be strings, not int: 2"),
        (["a"], np.ones((1, 1), int), TypeError, "vectors must be float.*, not int64"),
        (["a"], np.ones((1, 1), ">f4"), TypeError, "vectors must be float.*not the byte order of this machine.*"),
    ],
)
def test_words_and_vectors_must_match(words: list[Any], vectors: Array, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        WordVectors(words, vectors)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_most_similar() -> None:
    near = COMPASS.most_similar("east")
    assert [word for word, _ in near] == ["north-east", "north", "nowhere", "west"]
    np.testing.assert_allclose([c for _, c in near], [0.5**0.5, 0, 0, -1], atol=1e-7)
    assert COMPASS.most_similar("east", topn=1) == near[:1]
    assert COMPASS.most_similar("east", topn=0) == []
    assert COMPASS.similarity("north", "north-east") == pytest.approx(0.5**0.5)
    assert COMPASS.similarity("north", "nowhere") == 0


def random_vectors(dtype: Any, rows: int = 5000, width: int = 12) -> WordVectors:  # more rows than a block has
    rng = np.random.default_rng(2)
    return WordVectors([f"w{i}" for i in range(rows)], (3 * rng.standard_normal((rows, width))).astype(dtype))


VECTOR = np.linspace(-1, 2, 12).astype(np.float32)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("w3", None),
        (["w3", "w4900"], ["w5"]),
        (["w3", "w4900"], "w5"),
        ([("w3", 0.25), "w7"], [("w5", -2.0)]),
        (VECTOR, None),
        (["w1", VECTOR], [(VECTOR[::-1], -0.5)]),
        (np.stack([VECTOR, VECTOR[::-1]]), None),
        (None, ["w3"]),
        (["w3", "w3"], ["w3"]),
    ],
    ids=str,
)
def test_most_similar_is_that_of_gensim(positive: Any, negative: Any) -> None:
    pytest.importorskip("gensim")
    ours = random_vectors(np.float32)
    expected = ours.to_keyedvectors().most_similar(positive, negative, topn=20)
    found = ours.most_similar(positive, negative, topn=20)
    assert [word for word, _ in found] == [word for word, _ in expected]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16", np.float64])
def test_most_similar_by_definition(dtype: Any) -> None:
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    ours = random_vectors(dtype)
    v = ours.vectors.astype(np.float64)
    u = v / np.linalg.norm(v, axis=1, keepdims=True)
    query = u[1] - u[2] + 0.5 * u[3]
    cosine = u @ query / np.linalg.norm(query)
    cosine[[1, 2, 3]] = -1
    found = ours.most_similar(["w1", ("w3", 0.5)], "w2", topn=5)
    assert [word for word, _ in found] == [f"w{i}" for i in np.argsort(-cosine)[:5]]
    np.testing.assert_allclose([c for _, c in found], np.sort(cosine)[::-1][:5], rtol=1e-6)


def test_of_equal_neighbours_the_first() -> None:
    ours = WordVectors([f"w{i}" for i in range(100)], np.ones((100, 2), np.float32))
    assert [word for word, _ in ours.most_similar("w1", topn=3)] == ["w0", "w2", "w3"]
    assert len(ours.most_similar(["w1", "w2"], topn=1000)) == 98


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ValueError, "most_similar needs a word or a vector"),
        (([], []), ValueError, "most_similar needs a word or a vector"),
        (("east", 5), TypeError, "keys must be words, vectors, pairs with a weight or a sequence of them, not 5"),
        (("east", None, -1), ValueError, "topn = -1 must be at least 0"),
        (([0, 1],), TypeError, "positive must hold words, vectors or pairs with a weight, not int"),
        (("east", [("west", 1, 2)]), TypeError, "negative must hold .* not .*'west', 1, 2.*"),
        (([("east", "x")],), TypeError, "the weight in positive must be a number, not str"),
        ((np.ones(3),), ValueError, r"positive holds a vector of shape \(3,\), the words have \(2,\)"),
    ],
)
def test_bad_questions(arguments: tuple[Any, ...], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        COMPASS.most_similar(*arguments)


# --- scores -----------------------------------------------------------------------------------------------------------


def scored_vectors() -> WordVectors:
    """Vectors that solve a part of the tests, in all cases of letters, with some words missing and more that distract.

    A word of the test sets is a vector of its own; in a question (a, b, c, d), b and d are about a and c plus the
    vector of the section.
    """
    rng = np.random.default_rng(3)
    known: dict[str, Array] = {}
    relation = np.zeros(20)
    for line in Path(gensim_file("questions-words.txt")).read_text().splitlines():
        if line.startswith(":"):
            relation = rng.standard_normal(20)
            continue
        words = line.split()
        for a, b in (words[:2], words[2:]):
            known.setdefault(a, rng.standard_normal(20))
            known.setdefault(b, known[a] + relation + 0.4 * rng.standard_normal(20))
    for name in ("wordsim353.tsv", "simlex999.txt"):
        for line in Path(gensim_file(name)).read_text().splitlines():
            for word in line.split("\t")[:2]:
                known.setdefault(word, rng.standard_normal(20))
    words = [word for word in known if rng.random() > 0.05]
    vectors = [known[word] for word in words]
    for word in words[::3]:
        words.append(word.title() if word.islower() else word.lower())
        vectors.append(known[word] + 0.3 * rng.standard_normal(20))
    order = rng.permutation(len(words))
    table = np.array(vectors, np.float32)[order]
    unique = {words[i]: row for i, row in zip(order, table, strict=True)}
    return WordVectors(list(unique), np.array(list(unique.values())))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"case_insensitive": False},
    {"dummy4unknown": True},
    {"restrict_vocab": 700},
]


@pytest.mark.parametrize("file", ["wordsim353.tsv", "simlex999.txt"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pairs_score_as_in_gensim(file: str, options: dict[str, Any]) -> None:
    path, ours = gensim_file(file), scored_vectors()
    pearson, spearman, unknown = ours.to_keyedvectors().evaluate_word_pairs(path, **options)
    scores = ours.evaluate_pairs(path, **options)
    np.testing.assert_allclose(scores.pearson, pearson[0], rtol=1e-5, atol=1e-7)
    # Cosines that differ in the last place may change ranks.
    np.testing.assert_allclose(scores.spearman, spearman[0], rtol=1e-4, atol=1e-5)
    assert 100 * scores.out_of_vocabulary == pytest.approx(unknown)
    assert 0 < scores.out_of_vocabulary < 1


def test_ranks_of_equal_values(tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    angles, human = rng.integers(0, 5, 60) * 0.3, rng.integers(0, 6, 60)
    words = ["zero", *(f"w{i}" for i in range(60))]
    ours = WordVectors(words, np.stack([np.cos([0, *angles]), np.sin([0, *angles])], axis=1))
    path = tmp_path / "pairs"
    path.write_text(
        "# comment\nheader\n" + "".join(f"zero w{i} {h}\n" for i, h in enumerate(human)) + "\nzero w1 nan\n"
    )
    scores = ours.evaluate_pairs(path, delimiter=" ")
    np.testing.assert_allclose(scores.pearson, stats.pearsonr(np.cos(angles), human)[0], atol=1e-12)
    np.testing.assert_allclose(scores.spearman, stats.spearmanr(-angles, human)[0], atol=1e-12)
    assert (scores.pairs, scores.skipped, scores.out_of_vocabulary) == (60, 3, 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_analogies_score_as_in_gensim(options: dict[str, Any]) -> None:
    path, ours = gensim_file("questions-words.txt"), scored_vectors()
    accuracy, sections = ours.to_keyedvectors().evaluate_word_analogies(path, **options)
    scores = ours.evaluate_analogies(path, **options)
    assert [(s.name, s.correct, s.total) for s in scores.sections] == [
        (s["section"], len(s["correct"]), len(s["correct"]) + len(s["incorrect"])) for s in sections[:-1]
    ]
    assert scores.accuracy == accuracy
    assert 0.05 < accuracy < 0.95


def test_analogies_by_definition(tmp_path: Path) -> None:
    """Blocks of the vocabulary, case variants as answers, zero vectors."""
    rng = np.random.default_rng(5)
    v = rng.standard_normal((20_000, 5)).astype(np.float32)
    v[7] = 0
    words = [f"w{i}" for i in range(len(v))]
    words[15_000:15_010] = [f"W{i}" for i in range(10)]
    v[15_000:15_010] = v[:10]  # as near as can be, and must not be the answer
    u = v.astype(np.float64) / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9)
    lines, right = [], 0
    for a, b, c in rng.integers(0, 10, (200, 3)):
        score = (u[b] - u[a] + u[c]) @ u.T
        score[[a, b, c, 15_000 + a, 15_000 + b, 15_000 + c]] = -np.inf
        best = int(score.argmax())
        answer = best - 15_000 if 15_000 <= best < 15_010 else best
        given = answer if rng.random() < 0.5 else 11
        right += given == answer
        lines.append(f"W{a} w{b} W{c} W{given}\n")
    path = tmp_path / "questions"
    path.write_text(": only section\n" + "".join(lines) + ": none\n\nw1 w2 w3\nw1 w2 w3 unknown\n")
    scores = WordVectors(words, v).evaluate_analogies(path)
    assert scores.sections[0].correct == right
    assert (scores.total, scores.skipped, scores.out_of_vocabulary) == (200, 2, 1 / 201)
    assert scores.sections[1].accuracy == 0


def test_a_question_without_an_answer_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "questions").write_text(": all words\neast north west east\n")
    scores = WordVectors(["east", "north", "west"], COMPASS.vectors[:3]).evaluate_analogies(tmp_path / "questions")
    assert (scores.correct, scores.total) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("pairs", b"", ": no pair to score: 0 with unknown words, 0 lines that are no pair"),
        ("pairs", b"east\tsouth\t1\neast west 1\n", ": no pair to score: 1 with unknown words, 1 lines .*"),
        ("pairs", b"east\twest\t1\n\xff\n", r", line 2: b'\\xff\\n' is not UTF-8"),
        ("analogies", b"", ": the file has no questions"),
        ("analogies", b"east west north south\n", ", line 1: expected a line ': section' before the first question"),
        ("analogies", b": s\n\xc3\n", r", line 2: b'\\xc3\\n' is not UTF-8"),
    ],
)
def test_bad_test_sets(tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    path = tmp_path / "set"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}{message}$"):
        getattr(COMPASS, f"evaluate_{kind}")(path)


def test_gensim_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ImportError, match=r'to_keyedvectors needs gensim .*: pip install "hotrow\[gensim\]"$'):
        COMPASS.to_keyedvectors()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saved_vectors_read_back_exactly(tmp_path: Path, suffix: str, dtype: Any) -> None:
    path, saved = tmp_path / f"vectors{suffix}", some_vectors(dtype, rows=3000)  # more rows than are written at a time
    if suffix == ".bin" and dtype == np.float64:
        with pytest.raises(TypeError, match="word2vec binary format holds float32, not float64"):
            saved.save(path)
        return
    saved.save(path)
    widened = dtype == np.float16 and suffix in [*TEXTS, ".bin"]
    read = WordVectors.load(path, dtype=dtype if suffix in TEXTS and not widened else None)
    assert_equal(read, WordVectors(saved.words, saved.vectors.astype(np.float32)) if widened else saved)
    assert sorted(os.listdir(tmp_path)) == [path.name] + [f"{path.name}.vocab"] * (suffix == ".npy")


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_bfloat16_is_saved_as_float32(tmp_path: Path, suffix: str) -> None:
    v = COMPASS.vectors.astype(pytest.importorskip("ml_dtypes").bfloat16)
    WordVectors(COMPASS.words, v).save(tmp_path / f"v{suffix}")
    assert_equal(WordVectors.load(tmp_path / f"v{suffix}"), COMPASS)
    for other in (".npy", ".safetensors"):
        with pytest.raises(TypeError, match=r"bfloat16.*: convert the vectors first"):
            WordVectors(COMPASS.words, v).save(tmp_path / f"v{other}")


def test_views_are_saved(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    wide = np.random.default_rng(6).standard_normal((6, 8)).astype(np.float32)
    for v in (wide[::2, 1:5], np.asfortranarray(wide), wide[::-1]):
        saved = WordVectors([f"w{i}" for i in range(len(v))], v)
        for suffix in SUFFIXES:
            saved.save(tmp_path / f"v{suffix}")
            assert_equal(WordVectors.load(tmp_path / f"v{suffix}"), saved)
    assert WordVectors.load(tmp_path / "v.npy", mmap=True).vectors.flags.c_contiguous


def test_text_by_definition(tmp_path: Path) -> None:
    v = np.array([[0.1, -2], [np.nan, 1e-45]], np.float32)
    WordVectors(["the", "日本"], v).save(tmp_path / "v.txt")
    WordVectors(["the", "日本"], v).save(tmp_path / "v", "glove")
    rows = "the 0.100000001 -2\n日本 nan 1.40129846e-45\n"
    assert (tmp_path / "v.txt").read_text(encoding="utf-8") == "2 2\n" + rows
    assert (tmp_path / "v").read_text(encoding="utf-8") == rows


@pytest.mark.parametrize("opener", [gzip.open, lzma.open])
@pytest.mark.parametrize("suffix", [*TEXTS, ".bin"])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, opener: Callable[..., Any]) -> None:
    saved, end = some_vectors(), ".gz" if opener is gzip.open else ".xz"
    saved.save(tmp_path / f"v{suffix}")
    packed = tmp_path / f"v{suffix}{end}"
    with opener(packed, "wb") as file:
        file.write((tmp_path / f"v{suffix}").read_bytes())
    assert_equal(WordVectors.load(packed), saved)
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"^{re.escape(str(packed))}: the compressed file is damaged: "):
        WordVectors.load(packed)
    with pytest.raises(ValueError, match="compressed files are read, not written"):
        saved.save(packed)


def test_npy_is_mapped_and_plain(tmp_path: Path) -> None:
    path, saved = tmp_path / "v.npy", some_vectors()
    saved.save(path)
    mapped = WordVectors.load(path, mmap=True)
    assert_equal(mapped, saved)
    assert isinstance(mapped.vectors.base, np.memmap)
    assert not mapped.vectors.flags.writeable
    np.testing.assert_array_equal(np.load(path), saved.vectors)
    np.save(path, saved.vectors)  # without the words
    assert_equal(WordVectors.load(path), saved)


def test_vectors_in_npy_bring_their_words(tmp_path: Path) -> None:
    """Whatever a crash between the two files left of the vocabulary."""
    path, saved = tmp_path / "v.npy", some_vectors()
    saved.save(path)
    assert (tmp_path / "v.npy.vocab").read_text("utf-8").split("\n") == [*saved.words, ""]
    (tmp_path / "v.npy.vocab").write_text("other\n")
    assert_equal(WordVectors.load(path), saved)
    assert_equal(WordVectors.load(path, mmap=True), saved)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"a", "what follows the vectors is not their words"),
        (b"words" * 100, "what follows the vectors is not their words"),
        (array_file(np.ones(4, np.int8)), "what follows the vectors is not their words"),
        (array_file(np.frombuffer(b"a\nb\n", np.uint8))[:-1], "what follows the vectors is not their words"),
        (array_file(np.frombuffer(b"a\nb\n", np.uint8)) + b"c", "what follows the vectors is not their words"),
        (array_file(np.frombuffer(b"a\n", np.uint8)), "words: 1 lines are not the words of the 2 rows"),
        (array_file(np.frombuffer(b"a\na\n", np.uint8)), "words, line 2: the word 'a' stands twice"),
        (array_file(np.frombuffer(b"\xff\na\n", np.uint8)), "words, line 1: .* is not UTF-8"),
    ],
)
def test_damaged_words_in_npy(tmp_path: Path, tail: bytes, message: str) -> None:
    (tmp_path / "v.npy").write_bytes(array_file(np.ones((2, 3))) + tail)
    with pytest.raises(ValueError, match=message):
        WordVectors.load(tmp_path / "v.npy")


def test_safetensors_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for act in (COMPASS.save, WordVectors.load):
        with pytest.raises(ImportError, match=r'safetensors: pip install "hotrow\[vectors\]"$'):
            act(tmp_path / "v.safetensors")
    assert os.listdir(tmp_path) == []


# --- files of gensim --------------------------------------------------------------------------------------------------

# It does so when it reads GloVe's.
gensim_leaves_files_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@gensim_leaves_files_open
@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_ours_and_we_read_gensims(tmp_path: Path, binary: bool) -> None:
    models = pytest.importorskip("gensim.models")
    saved = some_vectors(rows=300)
    ours, theirs = (tmp_path / f"{who}{'.bin' if binary else '.txt'}" for who in ("ours", "theirs"))
    saved.save(ours)
    read = models.KeyedVectors.load_word2vec_format(str(ours), binary=binary)
    assert_equal(WordVectors(read.index_to_key, read.vectors), saved)
    saved.to_keyedvectors().save_word2vec_format(str(theirs), binary=binary)
    assert_equal(WordVectors.load(theirs), saved)
    if not binary:
        saved.save(ours, "glove")
        read = models.KeyedVectors.load_word2vec_format(str(ours), no_header=True)
        assert_equal(WordVectors(read.index_to_key, read.vectors), saved)


@gensim_leaves_files_open
@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("crime-and-punishment.vec", "word2vec"),
        ("lee_fasttext.vec", "word2vec"),
        ("pang_lee_polarity_fasttext.vec", "word2vec"),
        ("toy-model.vec", "word2vec"),
        ("word2vec_pre_kv_c", "word2vec"),
        ("high_precision.kv.txt", "word2vec"),
        ("EN.1-10.cbow1_wind5_hs0_neg10_size300_smpl1e-05.txt", "word2vec"),
        ("IT.1-10.cbow1_wind5_hs0_neg10_size300_smpl1e-05.txt", "word2vec"),
        ("test_glove.txt", "glove"),
        ("euclidean_vectors.bin", "word2vec-binary"),
        ("poincare_vectors.bin", "word2vec-binary"),
        ("high_precision.kv.bin", "word2vec-binary"),
    ],
)
def test_files_that_come_with_gensim(name: str, format: str) -> None:
    models = pytest.importorskip("gensim.models")
    path = gensim_file(name)
    options = {"binary": format == "word2vec-binary", "no_header": format == "glove", "unicode_errors": "replace"}
    expected = models.KeyedVectors.load_word2vec_format(path, **options)
    assert_equal(WordVectors.load(path, format, errors="replace"), WordVectors(expected.index_to_key, expected.vectors))


def test_a_file_without_the_words_it_promises_is_refused_as_by_gensim() -> None:
    path = gensim_file("pretrained.vec")
    with pytest.raises(EOFError):
        import_module("gensim.models").KeyedVectors.load_word2vec_format(path)
    with pytest.raises(ValueError, match=r"the file ends, \d+ words were promised in line 1|do not fit"):
        WordVectors.load(path)


@pytest.mark.parametrize("name", ["lee_fasttext.bin", "toy-model.bin"])
def test_models_of_fasttext_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: expected the numbers of words and columns, .*fastText's own"):
        WordVectors.load(gensim_file(name))


# --- damaged files ----------------------------------------------------------------------------------------------------

ROW = struct.pack("<2f", 1, 2)
HEADER_HINT = "; a GloVe file has no such line: format='glove'"
BINARY_HINT = "; fastText's own .bin models are another format"


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".txt", b"", ": the file is empty"),
        (".glove", b"", ": the file is empty"),
        (".bin", b"", ": the file is empty"),
        (".npy", b"", ": the file is empty"),
        (
            ".txt",
            b"the 1 2\n",
            f", line 1: expected the numbers of words and columns, not b'the 1 2\\\\n'{HEADER_HINT}",
        ),
        (".txt", b"1 -2\na 1\n", f", line 1: expected the numbers of words and columns, .*{HEADER_HINT}"),
        (".txt", b"1_0 2\n", f", line 1: expected the numbers .*{HEADER_HINT}"),
        (".txt", b"0 2\n", ", line 1: 0 words of 2 numbers are no vectors"),
        (".txt", b"1 0\na\n", ", line 1: 1 words of 0 numbers are no vectors"),
        (".txt", b"9" * 18 + b" 300\na 1\n", ", line 1: 9* words of 300 numbers do not fit into a file of 27 bytes"),
        (".bin", b"1 " + b"9" * 90 + b"\na ", ", line 1: 1 words of 9* numbers do not fit into a file of 95 bytes"),
        (".txt", b"1" * 5000, f", line 1: expected the numbers .*{HEADER_HINT}"),
        (".txt", b"2 2\na 100 2000\n", ", line 3: the file ends, 2 words were promised in line 1"),
        (".txt", b"1 2\na 1 2\nb 1 2\n", ", line 3: the file goes on after the 1 words that line 1 promises"),
        (".txt", b"2 2\na 1 2\n\nb 1 2\n", ", line 4: the file goes on after .*"),
        (".txt", b"3 2\na 1 2\n\nb 100 2000\n", ", line 3: expected a word and 2 numbers, not 0 numbers"),
        (".txt", b"2 2\na 1000 2\nb 1\n", ", line 3: expected a word and 2 numbers, not 1 numbers"),
        (".txt", b"2 2\na 1 2\nb 1 2 3\n", ", line 3: expected a word and 2 numbers, not 3 numbers"),
        (".glove", b"a 1 2\nb 1 2 3\n", ", line 2: expected a word and 2 numbers, not 3 numbers"),
        (
            ".glove",
            b"2 2\na 1 2\n",
            r", line 2: expected a word and 1 numbers, not 2 .*; is line 1 a header\? format=.*",
        ),
        (".glove", b"a 1 2\nb  1 2\n", ", line 2: expected a word and 2 numbers, not 3 numbers"),
        (".glove", b"word\n", ", line 1: expected a word and its numbers, not 0 numbers"),
        (".txt", b"2 2\na 1 2\nb 1 x\n", ", line 3: column 2: b'x' is not a number"),
        (".txt", b"2 2\na 1 2\nb 1 1-2\n", ", line 3: column 2: b'1-2' is not a number"),
        (".txt", b"2 2\na 1\t2 3\nb  4\n", r", line 2: column 1: b'1\\t2' is not a number"),
        (".txt", b"2 2\na 1 2\nb  4\n", ", line 3: column 1: b'' is not a number"),
        (".txt", b"1 1\n a 1\n", ", line 2: expected a word and 1 numbers, not 2 numbers"),
        (".txt", b"1 1\n 100\n", ", line 2: there is no word"),
        (".txt", b"3 1\na 1\nb 1\na 1\n", ", line 4: the word 'a' stands twice"),
        (".glove", b"a 1\nb 1\na 1\n", ", line 3: the word 'a' stands twice"),
        (".txt", b"2 1\na 1\n\xff 1\n", r", line 3: b'\\xff' is not UTF-8; errors='replace' reads it all the same"),
        (".bin", b"x 1\n", f", line 1: expected the numbers of words and columns, not b'x 1\\\\n'{BINARY_HINT}"),
        (
            ".bin",
            b"2 2\na " + ROW + b"bcdefghi " + ROW[:7],
            ", record 2: the file ends, 2 words were promised in line 1",
        ),
        (".bin", b"1 2\na " + ROW + b"b", ", record 2: the file goes on after the 1 words that line 1 promises"),
        (".bin", b"2 2\na " + ROW + b"\na " + ROW, ", record 2: the word 'a' stands twice"),
        (".bin", b"1 2\n " + ROW + b"\n", ", record 1: there is no word"),
        (".bin", b"1 2\na\nb " + ROW, r", record 1: b'a\\nb' holds a newline"),
        (".bin", b"1 2\n\xff " + ROW, r", record 1: b'\\xff' is not UTF-8; .*"),
        (".npy", b"PK\3\4" + b"\0" * 100, ": expected the .npy header of little-endian floats in 2 dimensions, not .*"),
    ],
)
def test_damaged_files(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}{message}$"):
        WordVectors.load(path)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    ("array", "lines", "message"),
    [
        (np.ones(2), "a\nb\n", "expected the .npy header of little-endian floats in 2 dimensions"),
        (np.ones((2, 2), int), "a\nb\n", "expected the .npy header of little-endian floats in 2 dimensions"),
        (np.ones((2, 2), ">f4"), "a\nb\n", "expected the .npy header of little-endian floats in 2 dimensions"),
        (np.array([[{}]]), "a\n", "expected the .npy header of little-endian floats in 2 dimensions"),
        (np.ones((2, 2)), "a\n", r"vocab: 1 lines are not the words of the 2 rows"),
        (np.ones((2, 2)), "a\nb\n\n", r"vocab: 3 lines are not the words of the 2 rows"),
        (np.ones((2, 2)), "a\na\n", r"vocab, line 2: the word 'a' stands twice"),
        (np.ones((2, 2)), "a\n\n", r"vocab, line 2: there is no word"),
        (np.ones((0, 2)), "", r"an array of shape \(0, 2\) is not what 0 bytes hold"),
    ],
)
def test_damaged_arrays(tmp_path: Path, array: Array, lines: str, message: str, mmap: bool) -> None:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    (tmp_path / "v.npy.vocab").write_text(lines)
    with pytest.raises(ValueError, match=message):
        WordVectors.load(tmp_path / "v.npy", mmap=mmap)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"vectors": np.ones((1, 1), np.float32)}, None, r"expected a tensor 'vectors' and metadata 'words', not .*"),
        ({"v": np.ones((1, 1), np.float32)}, {"words": '["a"]'}, r"expected a tensor 'vectors' .* not \['v'\].*"),
        ({"vectors": np.ones((1, 1), int)}, {"words": '["a"]'}, "the vectors must be F16, F32 or F64, not I64"),
        ({"vectors": np.ones((1, 1))}, {"words": "a"}, "the metadata 'words' is no list of words: .*"),
        ({"vectors": np.ones((1, 1))}, {"words": "[1]"}, "the metadata 'words' is no list of words"),
        ({"vectors": np.ones((1, 1))}, {"words": "[" * 100_000}, "the metadata 'words' is no list of words: .*"),
        ({"vectors": np.ones((1, 1))}, {"words": '["a", "b"]'}, r"2 words need as many vectors, not .*"),
        ({"vectors": np.ones(1)}, {"words": '["a"]'}, r"1 words need as many vectors, not .*"),
        ({"vectors": np.ones((2, 1))}, {"words": '["a", "a"]'}, r"the word 'a' stands twice"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, tensors: dict[str, Array], metadata: Any, message: str) -> None:
    path = tmp_path / "v.safetensors"
    pytest.importorskip("safetensors.numpy").save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}$"):
        WordVectors.load(path)


def test_what_is_odd_but_allowed(tmp_path: Path) -> None:
    expected = WordVectors(["a", "b"], np.array([[1, 2], [3, 4]], np.float32))
    row = struct.pack("<2f", 3, 4)
    for name, content in {
        "crlf.txt": b"2 2\r\na 1 2\r\nb 3 4\r\n",
        "trailing-spaces.vec": b"2 2 \na 1 2 \nb 3 4 \n",
        "no-last-newline.txt": b"2 2\na 1 2\nb 3 4",
        "signs.glove": b"a +1 2.\nb 3e0 .4E1\n",
        "newlines.bin": b"2 2\na " + ROW + b"\nb " + row + b"\n",
        "no-newlines.bin": b"2 2\r\na " + ROW + b"b " + row,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert_equal(WordVectors.load(tmp_path / name), expected)
    expected.save(tmp_path / "v.npy")
    (tmp_path / "v.npy.vocab").write_bytes(b"a\r\nb\r\n")
    assert_equal(WordVectors.load(tmp_path / "v.npy"), expected)


def test_words_with_spaces_in_glove(tmp_path: Path) -> None:
    (tmp_path / "v.glove").write_text("the 1 2\n. . . 3 4\nat name@domain.com 5 6\n")
    assert WordVectors.load(tmp_path / "v.glove").words == ("the", ". . .", "at name@domain.com")


def test_words_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"2 1\na\xff 1\nb 2\n")
    assert WordVectors.load(tmp_path / "v.txt", errors="replace").words == ("a\ufffd", "b")
    assert WordVectors.load(tmp_path / "v.txt", errors="ignore").words == ("a", "b")
    (tmp_path / "v.txt").write_bytes(b"2 1\na 1\n\xff 2\n")
    with pytest.raises(ValueError, match="line 3: there is no word"):
        WordVectors.load(tmp_path / "v.txt", errors="ignore")


@pytest.mark.parametrize("block", [7, 100, 1000])
@pytest.mark.parametrize("suffix", [*TEXTS, ".bin", ".txt.gz"])
def test_blocks_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, block: int) -> None:
    """Words, records and errors are found wherever a block ends."""
    monkeypatch.setattr(_word2vec, "_BLOCK", block)
    path, plain, saved = tmp_path / f"v{suffix}", tmp_path / f"v{suffix}".removesuffix(".gz"), some_vectors(rows=100)
    saved.save(plain)
    content = plain.read_bytes()
    pack = gzip.compress if path != plain else bytes
    path.write_bytes(pack(content))
    assert_equal(WordVectors.load(path), saved)
    path.write_bytes(pack(content.replace(b"w80 ", b"w10 ")))
    place = "record 81" if suffix == ".bin" else "line 81" if suffix == ".glove" else "line 82"
    with pytest.raises(ValueError, match=f"v{suffix}, {place}: the word 'w10' stands twice$"):
        WordVectors.load(path)
    path.write_bytes(pack(content.replace(b"w80 ", b"w\xff0 ")))
    with pytest.raises(ValueError, match=f"v{suffix}, {place}: .* is not UTF-8"):
        WordVectors.load(path)


def test_a_promise_of_terabytes_is_not_believed(tmp_path: Path) -> None:
    """Of a compressed file the size is not known: what it promises must not be allocated before it is there."""
    for name in ("v.txt.gz", "v.bin.gz"):
        for header in (b"1000000000000 300\n", b"1 1000000000000000\n"):
            (tmp_path / name).write_bytes(gzip.compress(header + b"a " + bytes(100)))
            with pytest.raises(ValueError, match=f"{name}, (line|record) "):
                WordVectors.load(tmp_path / name)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("v", {}, ValueError, "the name of .*v does not tell its format: give format=, one of word2vec, .*"),
        ("v.gz", {}, ValueError, "the name of .*v.gz does not tell its format: .*"),
        ("v.txt", {"format": "text"}, ValueError, "format must be one of 'word2vec', .*, not 'text'"),
        ("v.txt", {"errors": "strcit"}, ValueError, "errors must be 'strict', 'replace' or 'ignore', not 'strcit'"),
        ("v.txt", {"mmap": True}, ValueError, "mmap is for .npy files, not for word2vec text"),
        ("v.bin", {"dtype": np.float64}, ValueError, "dtype is for text: word2vec binary files have .*"),
        ("v.txt", {"dtype": np.int32}, TypeError, "dtype must be float32 or float64, not int32"),
        ("v.npy.gz", {}, ValueError, ".*: .npy files cannot be read compressed"),
    ],
)
def test_bad_options_of_load(tmp_path: Path, name: str, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        WordVectors.load(tmp_path / name, **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_absent_files(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / f"v{suffix}"))):
        WordVectors.load(tmp_path / f"v{suffix}")


@pytest.mark.parametrize(
    ("suffix", "word"),
    [(s, w) for s in (".txt", ".bin", ".glove") for w in ("two words", " led", "tail\n", "a\tb", "a\r")]
    + [(".npy", "a\nb"), (".npy", "a\r")]
    + [(s, w) for s in SUFFIXES for w in ("", "\ud800")],
)
def test_words_the_format_cannot_hold(tmp_path: Path, suffix: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"format cannot hold the word |the word {re.escape(repr(word))} has no UTF-8"):
        WordVectors(["fine", word], np.ones((2, 1), np.float32)).save(tmp_path / f"v{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["two words", "tail\t", '"quoted"', "\\", "\u2028", "日本"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_odd_words(tmp_path: Path, suffix: str, word: str) -> None:
    saved = WordVectors(["fine", word], np.ones((2, 1), np.float32))
    saved.save(tmp_path / f"v{suffix}")
    assert_equal(WordVectors.load(tmp_path / f"v{suffix}"), saved)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 0)])
def test_nothing_to_save(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="there is nothing to save in vectors of shape"):
        WordVectors(["a"][: shape[0]], np.ones(shape, np.float32)).save(tmp_path / f"v{suffix}")
    assert os.listdir(tmp_path) == []


# --- saving is atomic -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_saved_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    COMPASS.save(str(tmp_path / "saved.npy"))
    for name in ("saved.npy", "saved.npy.vocab"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == stat.S_IMODE(os.stat(tmp_path / "usual").st_mode)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, fails: str, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    path = tmp_path / f"vectors{suffix}"
    path.write_text("before")
    monkeypatch.setattr(_files.os, fails, fail)
    with pytest.raises(type(error)):
        COMPASS.save(path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [path.name]


def test_saving_follows_links_and_leaves_pipes(tmp_path: Path) -> None:
    target, link, pipe = (tmp_path / name for name in ("target", "link.txt", "pipe.txt"))
    target.write_text("before")
    link.symlink_to(target)
    saved = WordVectors(["a"], np.ones((1, 2)))
    saved.save(link)
    assert link.is_symlink()
    assert target.read_text() == "1 2\na 1 1\n"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        saved.save(pipe)
        assert read.result() == "1 2\na 1 1\n"
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


# --- command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_similar(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    COMPASS.save(tmp_path / f"v{suffix}")
    assert cli.main(["similar", str(tmp_path / f"v{suffix}"), "east", "west", "--topn", "1"]) == 0
    assert capsys.readouterr().out == "east\n   0.707  north-east\nwest\n   0.000  north\n"


def test_similar_solves_analogies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    COMPASS.save(tmp_path / "v", "glove")
    arguments = ["similar", "--format", "glove", str(tmp_path / "v"), "east", "north", "--minus", "west", "--topn=1"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "east + north - west\n   0.949  north-east\n"


def test_similar_complains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "v.txt"
    COMPASS.save(path)
    for words in (["east", "South"], ["east", "--minus", "South"]):
        assert cli.main(["similar", str(path), *words]) == 1
        assert capsys.readouterr() == ("", f"hotrow: 'South': not among the 5 words of {path}\n")
    path.write_text("2 2\na 1 2\n")
    assert cli.main(["similar", str(path), "a"]) == 1
    assert capsys.readouterr().err.startswith(f"hotrow: {path}, line ")
    assert cli.main(["similar", str(tmp_path / "absent.txt"), "a"]) == 1
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["similar", str(path), "a", "--topn", "0"])


def test_json_in_the_metadata(tmp_path: Path) -> None:
    """Any reader of safetensors finds the words."""
    pytest.importorskip("safetensors")
    COMPASS.save(tmp_path / "v.safetensors")
    content = (tmp_path / "v.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["words"]) == list(COMPASS.words)
    assert header["vectors"]["shape"] == [5, 2]
