"""Word2Vec: every kind of corpus, training on, stopping and going on, files, and the command line."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hotrow
from hotrow import Word2Vec, WordVectors, _encode, cli, text, word2vec
from hotrow.word2vec import early_stopping

SMALL: dict[str, Any] = {"vector_size": 12, "epochs": 2, "min_count": 3, "threads": 1, "seed": 4}


def lines(sentences: int = 400, words: int = 60, seed: int = 0) -> list[str]:
    """Sentences of up to 20 words, Zipf, some rare and some sentences empty."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{w}" for w in rng.zipf(1.4, rng.integers(0, 20)) if w < words) for _ in range(sentences)]


def lists() -> list[list[str]]:
    return [line.split() for line in lines()]


def bits(model: Word2Vec) -> tuple[Any, ...]:
    """All that training made, but for what depends on where calls cut an epoch: the last digits of losses."""
    return (model.vectors.vectors.tobytes(), model._out_table.tobytes(), model.counts.tolist(), model.complete)


@pytest.fixture
def model() -> Word2Vec:
    return Word2Vec(**SMALL).fit(lines())


# --- corpora ----------------------------------------------------------------------------------------------------------


def in_file(folder: Path, name: str, opener: Any) -> Path:
    with opener(folder / name, "wb") as file:
        file.write("\n".join(lines()).encode())
    return folder / name


def encoded() -> text.Corpus:
    return text.encode(lists(), 3)


KINDS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "path": lambda folder: (in_file(folder, "t.txt", open), None),
    "str": lambda folder: (str(in_file(folder, "t.txt", open)), None),
    "gz": lambda folder: (in_file(folder, "t.gz", gzip.open), None),
    "xz": lambda folder: (in_file(folder, "t.xz", lzma.open), None),
    "lines": lambda _: (lines(), None),
    "generator of lines": lambda _: (iter(lines()), None),
    "array of lines": lambda _: (np.array(lines()), None),
    "lists": lambda _: (lists(), None),
    "generator of tuples": lambda _: (map(tuple, lists()), None),
    "Corpus": lambda _: (encoded(), None),
    "int32": lambda _: (encoded().tokens, encoded().offsets),
    "int64": lambda _: (encoded().tokens.astype(np.int64), encoded().offsets.astype(np.int32)),
    "list of int": lambda _: (encoded().tokens.tolist(), encoded().offsets.tolist()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_corpus_gives_the_same_bits(kind: str, backend: ModuleType, tmp_path: Path) -> None:
    want = Word2Vec(**SMALL).fit(lines())
    corpus, offsets = KINDS[kind](tmp_path)
    found = Word2Vec(**SMALL).fit(corpus, offsets=offsets)
    assert bits(found) == bits(want)
    assert found.losses == pytest.approx(want.losses, rel=1e-12)
    numbers = tuple(map(str, range(len(want.vectors))))
    assert found.vectors.words == (want.vectors.words if offsets is None else numbers)
    assert (found.tokens, found.complete) == (2 * encoded().tokens.size, True)


@pytest.mark.parametrize("shared", [True, False])
def test_training_is_that_of_skipgram_epoch(shared: bool) -> None:
    corpus = encoded()
    rows = len(corpus.words)
    in_table, out_table = (
        (2 * np.random.default_rng(4).random((rows, 12), np.float32) - 1) / 12,
        np.zeros((rows, 12), "f4"),
    )
    sampling = hotrow.Sampling.from_counts(corpus.counts, sample=0.01, ns_exponent=0.5)
    with hotrow.num_threads(1):
        losses = [
            hotrow.skipgram_epoch(
                in_table, out_table, corpus.tokens, corpus.offsets, sampling, window=3, negative=4,
                shared_negatives=shared, shrink_windows=False, lr=lr, lr_end=lr - 0.02, seed=4 * 2**32 + epoch,
            )
            for epoch, lr in enumerate((0.05, 0.03))
        ]  # fmt: skip
    options: dict[str, Any] = {"window": 3, "negative": 4, "sample": 0.01, "ns_exponent": 0.5, "shrink_windows": False}
    options["shared_negatives"] = shared
    model = Word2Vec(**SMALL, **options, alpha=0.05, min_alpha=0.01).fit(corpus)
    assert model.losses == pytest.approx(losses, rel=1e-12)
    np.testing.assert_allclose(model.vectors.vectors, in_table, rtol=1e-4, atol=1e-7)
    assert bits(model) != bits(Word2Vec(**SMALL | {"seed": 5}, **options, alpha=0.05, min_alpha=0.01).fit(corpus))


def test_numbers_that_are_rare_are_left_out() -> None:
    tokens, offsets = np.array([7, 1, 7, 1, 4, 7, 1, 4], np.int64), [0, 4, 5, 8]
    shared = {"min_count": 2, "threads": 1, "vector_size": 4}
    model = Word2Vec(**shared).fit(tokens, offsets=offsets)
    assert (model.vectors.words, model.counts.tolist()) == (("1", "4", "7"), [3, 2, 3])
    same = Word2Vec(**shared).fit([["7", "1", "7", "1"], ["4"], ["7", "1", "4"]])
    assert same.vectors.words == ("7", "1", "4")
    assert Word2Vec(**shared | {"min_count": 3}).fit(tokens, offsets=offsets).vectors.words == ("1", "7")
    assert Word2Vec(**shared | {"max_final_vocab": 2}).fit(tokens, offsets=offsets).vectors.words == ("1", "7")
    everything = Word2Vec(**shared | {"min_count": 0}).fit(tokens, offsets=offsets)
    assert everything.vectors.words == tuple("01234567")
    assert everything.counts.tolist() == [0, 3, 0, 0, 2, 0, 0, 3]
    assert tokens.tolist() == [7, 1, 7, 1, 4, 7, 1, 4]


def test_numbers_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def epoch(in_table: Any, out_table: Any, tokens: Any, offsets: Any, sampling: Any, **options: Any) -> float:
        seen.append(tokens)
        return 0.0

    monkeypatch.setitem(word2vec._EPOCHS, (1, 0), epoch)
    tokens = np.array([0, 1, 2, 1, 0, 2], np.int64)
    Word2Vec(min_count=2, epochs=1).fit(tokens, offsets=[0, 6])
    assert np.shares_memory(seen[0], tokens)


def test_a_long_sentence_is_not_cut() -> None:
    words = ("a b c d e " * 5000).split()
    model = Word2Vec(vector_size=4, epochs=1, sample=0).fit([words])
    assert model.tokens == model.counts.sum() == 25_000


CORPUS = text.Corpus(["a", "b"], np.array([2, 1]), np.array([0, 1, 0], np.int32), np.array([0, 3]))
BAD_CORPORA: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "None": (None, None, TypeError, "corpus must be a path, an iterable of str .*, not NoneType"),
    "bytes": (b"a b", None, TypeError, "corpus must be .*, not bytes"),
    "number": (3, None, TypeError, "corpus must be .*, not int"),
    "array": (np.arange(3), None, TypeError, "a corpus that is an array of int64 needs offsets"),
    "lists of int": ([[1, 2]], None, TypeError, r"corpus\[0\] must hold str, not int: numbers go as an array, .*"),
    "mixed words": ([["a"], ["a", None]], None, TypeError, r"corpus\[1\] must hold str, not NoneType"),
    "list, then str": ([["a"], "a b"], None, TypeError, r"corpus\[1\] must be a list of str, not str"),
    "str, then list": (["a b", ["a"]], None, TypeError, r"corpus\[1\] must be a str as corpus\[0\] is, not list"),
    "ints": ([1, 2], None, TypeError, r"corpus\[0\] must be a str or a list of str, not int"),
    "lines of bytes": ([b"a"], None, TypeError, r"corpus\[0\] must be a str or a list of str, not bytes"),
    "no sentences": ([], None, ValueError, "the text has no words"),
    "empty sentences": ([[], []], None, ValueError, "the text has no words"),
    "empty lines": (["", " "], None, ValueError, "the text has no words"),
    "rare words": (["a b", "a"], None, ValueError, "no word occurs 3 times among the text's 3: lower min_count"),
    "rare numbers": ([0, 1, 0], [0, 3], ValueError, "no word occurs 3 times among the text's 3: lower min_count"),
    "no numbers": (np.zeros(0, np.int32), [0], ValueError, "the text has no words"),
    "text and offsets": ("a b", [0, 3], TypeError, "corpus must be int32 or int64 beside offsets, not str.*"),
    "Corpus and offsets": (CORPUS, [0, 3], TypeError, "corpus must be int32 or int64 beside offsets, not object"),
    "lists and offsets": ([[0], [1, 2]], [0, 3], TypeError, "corpus must be one array of .*, not sequences"),
    "floats": (np.ones(3), [0, 3], TypeError, "corpus must be int32 or int64 beside offsets, not float64"),
    "rank": (np.ones((3, 2), int), [0, 3], TypeError, "corpus must have 1 dimension, not 2"),
    "float offsets": ([0, 1], [0.0, 2.0], TypeError, "offsets must be int32 or int64, not float64"),
    "no offsets": ([0, 1], np.zeros(0, int), ValueError, "offsets must have at least 1 entry: 0, and 2 at the end"),
    "wrong end": ([0, 1], [0, 3], ValueError, r"offsets\[-1\] = 3 must be the length of corpus, 2"),
    "descending": ([0, 1], [0, 2, 1, 2], ValueError, "offsets must not descend: .*"),
    "negative": ([0, -1], [0, 2], IndexError, r"corpus\[1\] = -1 is negative"),
    "too large": ([0, 2**31 - 1], [0, 2], ValueError, r"corpus\[1\] = 2147483647 is too large: .*"),
    "Corpus beyond": (
        text.Corpus(["a"], np.array([3]), np.array([0, 1], np.int32), np.array([0, 2])), None,
        IndexError, r"tokens\[1\] = 1 is out of range for 1 words",
    ),
    "Corpus with a word twice": (
        text.Corpus(["a", "a"], np.array([3, 1]), np.array([0], np.int32), np.array([0, 1])), None,
        ValueError, "of 2 words only 1 are different",
    ),
    "Corpus with other words": (
        text.Corpus([3], np.array([3]), np.array([0], np.int32), np.array([0, 1])), None,  # type: ignore[list-item]
        TypeError, "words must be strings, not int: 3",
    ),
    "Corpus with other counts": (
        text.Corpus(["a"], np.array([3, 1]), np.array([0], np.int32), np.array([0, 1])), None,
        ValueError, r"1 words need as many counts, not int64 of shape \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CORPORA)
def test_bad_corpora_change_nothing(name: str, model: Word2Vec) -> None:
    corpus, offsets, kind, message = BAD_CORPORA[name]
    before = bits(model)
    with pytest.raises(kind, match=f"^{message}$"):
        model.fit(corpus, offsets=offsets)
    assert bits(model) == before


def test_absent_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Word2Vec().fit(tmp_path / "absent")
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"a b c " * 100)[:-9])
    with pytest.raises(ValueError, match=r"t\.gz: "):
        Word2Vec().fit(tmp_path / "t.gz")


@pytest.mark.parametrize("more", [{"sg": 0}, {"sg": 0, "hs": 1, "negative": 0}, {"hs": 1, "negative": 0}])
def test_shared_negatives_are_for_skip_gram_with_negatives_alone(more: dict[str, Any]) -> None:
    one, two = (Word2Vec(**SMALL, **more, shared_negatives=shared).fit(encoded()) for shared in (True, False))
    assert bits(one) == bits(two)


# --- CBOW -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cbow_mean", [True, False])
def test_cbow_is_its_operator(cbow_mean: bool) -> None:
    model = Word2Vec(**SMALL | {"epochs": 1}, sg=0, cbow_mean=cbow_mean, alpha=0.05, min_alpha=0.01).fit(encoded())
    start = Word2Vec(**SMALL | {"epochs": 1}, alpha=0, min_alpha=0).fit(encoded())
    in_table, out_table = start.vectors.vectors.copy(), np.zeros((len(start.vectors), 12), np.float32)
    corpus = encoded()
    with hotrow.num_threads(1):
        loss = hotrow.cbow_epoch(
            in_table, out_table, corpus.tokens, corpus.offsets, hotrow.Sampling.from_counts(corpus.counts),
            cbow_mean=cbow_mean, lr=0.05, lr_end=0.01, seed=4 * 2**32,
        )  # fmt: skip
    assert model.vectors.vectors.tobytes() == in_table.tobytes()
    assert model.losses == [pytest.approx(loss, rel=1e-9)]


def test_cbow_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    options = SMALL | {"epochs": 3, "sg": 0, "cbow_mean": False}
    whole = Word2Vec(**options).fit(lines())

    def stop(model: Word2Vec, epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    stopped = Word2Vec(**options).fit(lines(), checkpoint=tmp_path / "c", callbacks=[stop])
    assert not stopped.complete
    assert bits(Word2Vec.resume(tmp_path / "c", lines())) == bits(whole)


# --- hierarchical softmax ---------------------------------------------------------------------------------------------

HS: dict[str, Any] = SMALL | {"hs": 1, "negative": 0}


@pytest.mark.parametrize("sg", [0, 1])
def test_hierarchical_softmax_is_its_operator(sg: int, backend: ModuleType) -> None:
    model = Word2Vec(**HS | {"epochs": 1}, sg=sg, alpha=0.05, min_alpha=0.01).fit(encoded())
    start = Word2Vec(**HS | {"epochs": 1}, alpha=0, min_alpha=0).fit(encoded())
    in_table, out_table = start.vectors.vectors.copy(), np.zeros((len(start.vectors), 12), np.float32)
    corpus = encoded()
    with hotrow.num_threads(1):
        loss = (hotrow.skipgram_hs_epoch if sg else hotrow.cbow_hs_epoch)(
            in_table, out_table, corpus.tokens, corpus.offsets, hotrow.Sampling.from_counts(corpus.counts),
            hotrow.HuffmanTree.from_counts(corpus.counts), lr=0.05, lr_end=0.01, seed=4 * 2**32,
        )  # fmt: skip
    assert model.vectors.vectors.tobytes() == in_table.tobytes()
    assert model._out_table.tobytes() == out_table.tobytes()
    assert model.losses == [pytest.approx(loss, rel=1e-9)]


@pytest.mark.parametrize("sg", [0, 1])
def test_hierarchical_softmax_goes_on_from_a_checkpoint(sg: int, tmp_path: Path) -> None:
    options = HS | {"epochs": 3, "sg": sg}
    whole = Word2Vec(**options).fit(lines())

    def stop(model: Word2Vec, epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    stopped = Word2Vec(**options).fit(lines(), checkpoint=tmp_path / "c", callbacks=[stop])
    assert not stopped.complete
    assert bits(Word2Vec.resume(tmp_path / "c", lines())) == bits(whole)


def test_hierarchical_softmax_learns_new_words() -> None:
    model = Word2Vec(**HS).fit(lines())
    known, out_table = model.vectors.words, model._out_table.copy()
    model.alpha = model.min_alpha = 0.0  # nothing moves
    model.partial_fit(["new newer w1 new newer"] * 9)
    assert model.vectors.words == (*known, "new", "newer")
    np.testing.assert_array_equal(model._out_table, np.vstack([out_table, np.zeros((2, 12), "f4")]))
    model.alpha = model.min_alpha = 0.05
    losses = model.partial_fit(["new newer w1 new newer"] * 9, epochs=20).losses
    assert losses[-1] < losses[-20]


def test_command_trains_hierarchical_softmax(tmp_path: Path) -> None:
    corpus, saved = in_file(tmp_path, "t.txt", open), tmp_path / "v.npy"
    flags = ["-hs=1", "-negative=0", "-size=12", "-min-count=3", "-threads=1", "-seed=4", "-iter=2"]
    assert cli.main(["word2vec", str(corpus), str(saved), *flags]) == 0
    want = Word2Vec(**HS).fit(corpus).vectors
    np.testing.assert_array_equal(WordVectors.load(saved).vectors, want.vectors)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *((name, 1.5, f"{name} must be an integer, not float") for name in (
            "vector_size", "window", "min_count", "negative", "epochs", "seed", "sg", "hs", "max_final_vocab",
            "threads",
        )),
        *((name, "1", f"{name} must be a number, not str") for name in ("sample", "ns_exponent", "alpha", "min_alpha")),
        *((name, float("nan"), f"{name} = nan must be finite") for name in ("sample", "ns_exponent", "alpha")),
        *((name, 0, f"{name} = 0 must be at least 1") for name in ("vector_size", "epochs", "max_final_vocab")),
        *((name, -1, f"{name} = -1.0 must be at least 0") for name in ("sample", "alpha", "min_alpha")),
        ("window", 0, r"window = 0 must be in \[1, 1000\]"),
        ("negative", 1001, r"negative = 1001 must be in \[0, 1000\]"),
        ("min_count", -1, "min_count = -1 must be at least 0"),
        ("seed", 2**31, r"seed = 2147483648 must be in \[0, 2147483647\]"),
        ("threads", 0, r"threads = 0 must be in \[1, 4096\]"),
        ("shrink_windows", 1, "shrink_windows must be True or False, not int"),
        ("shared_negatives", 0, "shared_negatives must be True or False, not int"),
        ("sg", 2, r"sg = 2 must be in \[0, 1\]"),
        ("hs", 1, "negative = 5 must be 0 where hs = 1: hierarchical softmax is trained without negatives"),
    ],
)  # fmt: skip
def test_bad_parameters(name: str, value: Any, error: str) -> None:
    with pytest.raises(TypeError if " must be " in error and " = " not in error else ValueError, match=f"^{error}$"):
        Word2Vec(**{name: value})


@pytest.mark.parametrize(
    ("options", "kind", "error"),
    [
        ({"bar": 1}, TypeError, "bar must be True or False, not int"),
        ({"callbacks": print}, TypeError, "callbacks must be a sequence of callables, not builtin.*"),
        ({"callbacks": [print, 3]}, TypeError, r"callbacks\[1\] must be callable, not int"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be a path, not int"),
        ({"checkpoint": "nowhere/c"}, ValueError, "cannot write nowhere/c: there is no directory .*"),
        ({"checkpoint": "."}, ValueError, "cannot write .: it is a directory"),
        ({"checkpoint_every": -1}, ValueError, "checkpoint_every = -1.0 must be at least 0"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], error: str) -> None:
    with pytest.raises(kind, match=f"^{error}$"):
        Word2Vec().fit(iter(()), **options)


def test_attributes_are_checked_again(model: Word2Vec) -> None:
    before = bits(model)
    model.vector_size = 5
    with pytest.raises(ValueError, match=r"^vector_size = 5 must be 12, the length of the vectors that are there$"):
        model.partial_fit(lines())
    model.vector_size, model.window = 12, 0
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"^window = 0 must be in \[1, 1000\]$"):
            train(lines())
    assert bits(model) == before


def test_a_checkpoint_is_not_the_corpus(tmp_path: Path) -> None:
    path = in_file(tmp_path, "t.txt", open)
    with pytest.raises(ValueError, match=r"t\.txt is the corpus: choose another name$"):
        Word2Vec().fit(path, checkpoint=path)


def test_before_fit_there_is_nothing(tmp_path: Path) -> None:
    model = Word2Vec()
    assert not model.complete
    assert "not trained" in repr(model)
    with pytest.raises(ValueError, match=r"^the model has no vectors before fit$"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_learns(capsys: pytest.CaptureFixture[str]) -> None:
    for bar in (False, None):  # None: on a terminal, which this is not
        model = Word2Vec(**SMALL | {"epochs": 4}).fit(lines(), bar=bar)
        assert capsys.readouterr().err == ""
    assert model.losses == sorted(model.losses, reverse=True)
    assert isinstance(model.vectors, WordVectors)
    model.fit(lines(), bar=True)
    shown = capsys.readouterr().err
    assert "epoch 4/4: 100%" in shown
    assert "loss=" in shown


def test_callbacks_see_epochs_and_may_stop() -> None:
    seen: list[Any] = []

    class Stop:
        def __call__(self, model: Word2Vec, epoch: int, loss: float) -> bool:
            return epoch == 2

    model = Word2Vec(**SMALL | {"epochs": 9})
    model.fit(lines(), callbacks=[lambda *call: seen.append(call), Stop()])
    assert seen == [(model, epoch, loss) for epoch, loss in enumerate(model.losses)]
    assert len(model.losses) == 3
    assert model.complete


@pytest.mark.parametrize(
    ("losses", "options", "epochs"),
    [
        ([3, 2, 1, 0.5], {}, None),
        ([3, 2, 2, 1], {}, 3),
        ([3, 4, 2, 3, 3, 1], {"patience": 2}, 5),
        ([3, 2, 1.95, 1.92], {"min_delta": 0.1}, 3),
    ],
)
def test_early_stopping(losses: list[float], options: dict[str, Any], epochs: int | None, model: Word2Vec) -> None:
    stop = early_stopping(**options)
    stops = [stop(model, epoch, loss) for epoch, loss in enumerate(losses)]
    assert (stops.index(True) + 1 if True in stops else None) == epochs


def test_early_stopping_stops_a_fit() -> None:
    model = Word2Vec(**SMALL | {"epochs": 50}, alpha=0, min_alpha=0).fit(lines(), callbacks=[early_stopping(2, 0.5)])
    assert len(model.losses) == 3
    with pytest.raises(ValueError, match="patience = 0 must be at least 1"):
        early_stopping(0)


def test_a_second_fit_starts_again(model: Word2Vec) -> None:
    before, losses = bits(model), model.losses
    model.fit(lines())
    assert (bits(model), model.losses) == (before, losses)


# --- more text --------------------------------------------------------------------------------------------------------


def test_partial_fit_grows(model: Word2Vec) -> None:
    words, counts = model.vectors.words, model.counts
    in_table, out_table = model.vectors.vectors.copy(), model._out_table.copy()
    rare = words[-1]
    model.alpha = model.min_alpha = 0.0  # nothing moves
    more = [f"new {rare}", "new newer", "new", "newer once", "newer"] + ["newer w1"] * 2
    model.partial_fit(more, epochs=3)
    assert model.vectors.words == (*words, "newer", "new")
    added = model.counts - np.append(counts, [0, 0])
    assert added.tolist()[-2:] == [5, 3]
    assert {w: n for w, n in zip(model.vectors.words, added.tolist(), strict=True) if n} == {
        "newer": 5, "new": 3, "w1": 2, rare: 1,
    }  # fmt: skip
    np.testing.assert_array_equal(model.vectors.vectors[: len(words)], in_table)
    np.testing.assert_array_equal(model._out_table[: len(words)], out_table)
    fresh = model.vectors[["newer", "new"]]
    assert ((abs(fresh) <= 1 / 12) & (fresh != 0)).all()
    assert (model.tokens, len(model.losses)) == (3 * 11, 2 + 3)


@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_takes_every_kind(kind: str, tmp_path: Path) -> None:
    corpus, offsets = KINDS[kind](tmp_path)
    start: Any = lines(seed=1) if offsets is None else [" ".join(map(str, range(10))) for _ in range(9)]
    models = [Word2Vec(**SMALL).fit(start) for _ in range(2)]
    models[0].partial_fit(corpus, offsets=offsets)
    again = encoded()
    if offsets is not None:
        again = text.Corpus([str(i) for i in range(len(again.words))], again.counts, again.tokens, again.offsets)
    elif kind != "Corpus":  # its rare words are known here
        again = text.encode(lists(), 1)
    before = again.tokens.copy()
    models[1].partial_fit(again)
    assert bits(models[0]) == bits(models[1])
    np.testing.assert_array_equal(again.tokens, before)


def test_corpora_beyond_memory_are_renumbered_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = text.encode(lists(), 1)

    def train() -> list[Any]:
        numbers = Word2Vec(**SMALL).fit(corpus.tokens, offsets=corpus.offsets)
        return [bits(numbers), bits(Word2Vec(**SMALL).fit(lines(50)).partial_fit(lines(seed=1)))]

    in_memory = train()
    monkeypatch.setattr(_encode, "MEMORY", 1024)
    assert train() == in_memory


def test_partial_fit_on_nothing_is_fit(model: Word2Vec) -> None:
    assert bits(Word2Vec(**SMALL).partial_fit(lines())) == bits(model)


def test_partial_fit_learns_and_samples_by_the_sums(model: Word2Vec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    from_counts = hotrow.Sampling.from_counts
    monkeypatch.setattr(
        hotrow.Sampling, "from_counts", lambda counts, **o: seen.append(counts) or from_counts(counts, **o)
    )
    before = model.vectors.vectors.copy()
    model.partial_fit(lines(seed=2))
    assert seen[0] is model.counts
    assert (model.vectors.vectors[: len(before)] != before).any()


def test_partial_fit_keeps_max_final_vocab() -> None:
    model = Word2Vec(**SMALL | {"min_count": 1}, max_final_vocab=4).fit(["a a a b b c"])
    model.partial_fit(["x x y z z z"])
    assert model.vectors.words == ("a", "b", "c", "z")


def test_partial_fit_puts_frequent_numbers_first() -> None:
    model = Word2Vec(**SMALL | {"min_count": 1}).fit([2, 2, 5], offsets=[0, 3])
    model.partial_fit([5, 1, 9, 9, 0, 9, 0], offsets=[0, 7])
    assert (model.vectors.words, model.counts.tolist()) == (("2", "5", "9", "0", "1"), [2, 2, 3, 2, 1])


@pytest.mark.parametrize(
    ("corpus", "message"),
    [(["x y"], "no word of the text is known or occurs 3 times: lower min_count"), ([], "the text has no words")],
)
def test_partial_fit_on_nothing_known(corpus: Any, message: str, model: Word2Vec) -> None:
    before = bits(model)
    with pytest.raises(ValueError, match=f"^{message}$"):
        model.partial_fit(corpus)
    assert bits(model) == before


# --- files ------------------------------------------------------------------------------------------------------------


def test_save_and_load_go_round(model: Word2Vec, tmp_path: Path) -> None:
    model.save(tmp_path / "m.ckpt")
    loaded = Word2Vec.load(tmp_path / "m.ckpt")
    assert bits(loaded) == bits(model)
    assert (loaded.losses, loaded.vectors.words, repr(loaded)) == (model.losses, model.vectors.words, repr(model))
    assert bits(loaded.partial_fit(lines(seed=3))) == bits(model.partial_fit(lines(seed=3)))
    assert os.listdir(tmp_path) == ["m.ckpt"]


def test_shared_negatives_are_saved(model: Word2Vec, tmp_path: Path) -> None:
    own = Word2Vec(**SMALL, shared_negatives=False).fit(lines())
    assert bits(own) != bits(model)
    own.save(tmp_path / "m")
    loaded = Word2Vec.load(tmp_path / "m")
    assert not loaded.shared_negatives
    assert bits(loaded.partial_fit(lines(seed=3))) == bits(own.partial_fit(lines(seed=3)))


def test_models_from_before_there_was_a_choice_share_negatives(model: Word2Vec, tmp_path: Path) -> None:
    parameters = model._parameters()
    del parameters["shared_negatives"]
    model.save(tmp_path / "m")
    rewritten(tmp_path / "m", parameters=parameters)
    assert repr(Word2Vec.load(tmp_path / "m")) == repr(model)


def test_words_of_any_characters_are_kept(tmp_path: Path) -> None:
    words = ["a b", "\n", "", "\ud800", "é", "\0"]
    Word2Vec(**SMALL).fit([words] * 3).save(tmp_path / "m")
    assert sorted(Word2Vec.load(tmp_path / "m").vectors.words) == sorted(words)


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    about = json.loads(arrays["about"].tobytes())
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            about[name] = value
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **{name: a for name, a in arrays.items() if a is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "expected a model of format 'hotrow.Word2Vec 1', not 'other'"),
        ({"parameters": {"window": 0}}, "this is no file of a model: window = 0 must be .*"),
        ({"parameters": {"depth": 1}}, "this is no file of a model: .*'depth'"),
        ({"run": None}, "this is no file of a model: .*"),
        ({"words": ["a"]}, r"counts must be int64 of shape \(1,\), not int64 of shape .*"),
        (
            {"in_table": np.zeros((2, 12), "f4")},
            r"in_table must be float32 of shape .*, not float32 of shape \(2, 12\)",
        ),
        ({"out_table": None}, "the model's out_table cannot be read: .*"),
        ({"counts": np.array([{}])}, "the model's counts cannot be read: .*"),
    ],
)
def test_damaged_models(changes: dict[str, Any], message: str, model: Word2Vec, tmp_path: Path) -> None:
    path = tmp_path / "m"
    model.save(path)
    rewritten(path, **changes)
    with pytest.raises(ValueError, match=f"m: {message}$"):
        Word2Vec.load(path)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"text", lambda b: b[: len(b) // 2], lambda b: b[:-1]])
def test_cut_models(damage: Callable[[bytes], bytes], model: Word2Vec, tmp_path: Path) -> None:
    path = tmp_path / "m"
    model.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"m: this is not a whole file of a model$"):
        Word2Vec.load(path)


def test_an_archive_that_points_before_its_start(model: Word2Vec, tmp_path: Path) -> None:
    """zipfile seeks there, which is an OSError, and NumPy leaves the file open."""
    path = tmp_path / "m"
    model.save(path)
    content = path.read_bytes()
    directory = int.from_bytes(content[-6:-2], "little")  # of the archive: where it says that it starts
    path.write_bytes(content[:-6] + (directory + 1000).to_bytes(4, "little") + content[-2:])
    with pytest.raises(ValueError, match=r"m: .*cannot be read: .*Invalid argument$"):
        Word2Vec.load(path)


def test_an_archive_of_something_else_than_arrays(model: Word2Vec, tmp_path: Path) -> None:
    path = tmp_path / "m"
    model.save(tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole") as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, b"text" if name == "counts.npy" else whole.read(name))
    with pytest.raises(ValueError, match="m: the model's counts cannot be read: it is no array"):
        Word2Vec.load(path)


def test_a_changed_byte_is_seen(model: Word2Vec, tmp_path: Path) -> None:
    path = tmp_path / "m"
    model.save(path)
    data, table = bytearray(path.read_bytes()), model.vectors.vectors.tobytes()
    data[data.index(table[:16])] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="m: the model's in_table cannot be read: Bad CRC-32"):
        Word2Vec.load(path)


def test_an_absent_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Word2Vec.load(tmp_path / "absent")


# --- stopping and going on --------------------------------------------------------------------------------------------

LONG: dict[str, Any] = SMALL | {"epochs": 3}


class Crash(Exception):
    pass


def crash(path: Path, blocks: int, monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]) -> None:
    """Train until so many checkpoints are written; the first is that of the start."""
    write, written = word2vec._model_file.write, 0

    def keep(*args: Any, **arrays: Any) -> None:
        nonlocal written
        write(*args, **arrays)
        written += 1
        if written > blocks:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(word2vec._model_file, "write", keep)
        with pytest.raises(Crash):
            train()


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["path", "lists", "Corpus", "int64"])
def test_a_checkpoint_goes_on_to_the_same_end(
    kind: str, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    corpus, offsets = KINDS[kind](tmp_path)
    whole = Word2Vec(**LONG).fit(corpus, offsets=offsets)
    options: dict[str, Any] = {"offsets": offsets, "checkpoint_every": 0}
    crash(path, blocks, monkeypatch, lambda: Word2Vec(**LONG).fit(corpus, checkpoint=path, **options))
    stopped = Word2Vec.load(path)
    assert not stopped.complete
    assert stopped._run is not None
    assert (stopped._run.epoch * encoded().tokens.size + stopped._run.tokens > 0) == (blocks > 0)
    assert stopped._run.tokens == 1024 or blocks != 1
    assert bits(stopped) != bits(whole)
    resumed = Word2Vec.resume(path, corpus, **options)
    assert bits(resumed) == bits(whole)
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-12)
    assert bits(Word2Vec.load(path)) == bits(whole)
    assert Word2Vec.resume(path, None).complete


@pytest.mark.parametrize("kind", ["path", "lists", "Corpus"])
def test_partial_fit_goes_on_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, (corpus, _) = tmp_path / "c", KINDS[kind](tmp_path)
    start = lines(200, 30, seed=5)
    whole = Word2Vec(**LONG).fit(start).partial_fit(corpus)
    assert len(whole.vectors) > len(Word2Vec(**LONG).fit(start).vectors)
    model = Word2Vec(**LONG).fit(start)
    crash(path, 3, monkeypatch, lambda: model.partial_fit(corpus, checkpoint=path, checkpoint_every=0))
    resumed = Word2Vec.resume(path, corpus)
    assert bits(resumed) == bits(whole)
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-12)


@pytest.mark.parametrize("change", ["order", "cut", "word", "shorter"])
def test_another_corpus_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, corpus = tmp_path / "c", [sentence for sentence in lists() if sentence]
    crash(path, 1, monkeypatch, lambda: Word2Vec(**LONG).fit(corpus, checkpoint=path, checkpoint_every=0))
    before = path.read_bytes()
    match change:
        case "order":
            corpus[-1].reverse()
            corpus[-1].sort(key=len)
        case "cut":
            corpus[-2:] = [corpus[-2] + corpus[-1]]
        case "word":
            corpus = [[word.replace("w1", "W1") for word in sentence] for sentence in corpus]
        case "shorter":
            del corpus[-1]
    with pytest.raises(ValueError, match=r"^this is not the corpus that .*c was trained on$"):
        Word2Vec.resume(path, corpus)
    assert path.read_bytes() == before


def test_an_early_stop_is_an_end(tmp_path: Path) -> None:
    model = Word2Vec(**LONG).fit(lines(), checkpoint=tmp_path / "c", callbacks=[lambda *_: True])
    assert bits(Word2Vec.resume(tmp_path / "c", None)) == bits(model)


def test_a_model_saved_by_the_last_callback_is_complete(tmp_path: Path) -> None:
    def save(model: Word2Vec, epoch: int, loss: float) -> None:
        model.save(tmp_path / str(epoch))

    model = Word2Vec(**LONG).fit(lines(), callbacks=[save])
    assert [Word2Vec.load(tmp_path / str(epoch)).complete for epoch in range(3)] == [False, False, True]
    assert bits(Word2Vec.resume(tmp_path / "0", lines())) == bits(model)


TRAIN = """
import sys
from hotrow import Word2Vec
corpus, path, every, epochs = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
def started(model, epoch, loss):
    print("epoch", epoch, flush=True)
model = Word2Vec(vector_size=12, epochs=epochs, min_count=3, threads=1, seed=4)
model.fit(corpus, checkpoint=path, checkpoint_every=every, callbacks=[started])
print("complete" if model.complete else "stopped", len(model.losses), len(model.vectors), flush=True)
"""


def training(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    corpus, path, epochs = in_file(tmp_path, "t.txt", open), tmp_path / "c", 1000
    process = training(corpus, path, 0, epochs)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline().startswith("epoch")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    stopped = Word2Vec.load(path)
    assert 2 <= len(stopped.losses) < epochs
    resumed = Word2Vec.resume(path, corpus)
    whole = Word2Vec(**SMALL | {"epochs": epochs}).fit(corpus)
    assert bits(resumed) == bits(whole)
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-12)


def test_ctrl_c_leaves_a_model(tmp_path: Path) -> None:
    corpus, path = in_file(tmp_path, "t.txt", open), tmp_path / "c"
    process = training(corpus, path, 3600, 10**6)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch")
    process.send_signal(signal.SIGINT)
    shown, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    stopped = Word2Vec.load(path)
    assert shown.splitlines()[-1] == f"stopped {len(stopped.losses)} {len(stopped.vectors)}"
    assert not stopped.complete
    assert np.isfinite(stopped.vectors.vectors).all()


def test_ctrl_c_within_an_epoch_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = lines(2000)
    whole = Word2Vec(**LONG).fit(corpus)
    epoch, left = hotrow.skipgram_epoch, [3]

    def interrupted(*args: Any, progress: Any, **options: Any) -> float:
        def signalled(*call: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)
            progress(*call)

        return epoch(*args, **options, progress=signalled)

    monkeypatch.setitem(word2vec._EPOCHS, (1, 0), interrupted)
    model = Word2Vec(**LONG).fit(corpus, checkpoint=tmp_path / "c")
    assert not model.complete
    assert model.vectors.words == whole.vectors.words
    assert bits(Word2Vec.load(tmp_path / "c")) == bits(model)
    assert bits(Word2Vec.resume(tmp_path / "c", corpus)) == bits(whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- command line -----------------------------------------------------------------------------------------------------

OPTIONS = ["-size", "12", "-iter", "2", "-min-count", "3", "-threads", "1", "-seed", "4"]


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize(
    ("name", "options", "format"),
    [
        ("v.txt", [], "word2vec"),
        ("v", [], "word2vec"),
        ("v.npy", ["-binary", "0"], "npy"),
        ("v.safetensors", [], "safetensors"),
        ("v.bin", [], "word2vec-binary"),
        ("v", ["-binary", "1"], "word2vec-binary"),
    ],
)
def test_command(
    name: str, options: list[str], format: str, dashes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, saved = in_file(tmp_path, "t.txt", open), tmp_path / name
    flags = [dashes + flag.removeprefix("-") if flag.startswith("-") else flag for flag in OPTIONS + options]
    assert cli.main(["word2vec", str(corpus), str(saved), *flags]) == 0
    want = Word2Vec(**SMALL).fit(lines()).vectors
    found = WordVectors.load(saved, format)
    assert found.words == want.words
    np.testing.assert_array_equal(found.vectors, want.vectors)
    shown, complaints = capsys.readouterr()
    assert complaints == ""
    assert " million words/s; mean loss of a pair " in shown
    assert f"{len(want)} vectors written to {saved} in " in shown


def test_command_passes_every_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        "size": 3, "window": 4, "sample": 0.5, "negative": 7, "shared-negatives": 0, "iter": 1, "min-count": 2,
        "max-final-vocab": 9, "alpha": 0.5, "min-alpha": 0.25, "ns-exponent": 0.125, "seed": 8, "threads": 2,
    }  # fmt: skip
    names = {"size": "vector_size", "iter": "epochs"}
    corpus = in_file(tmp_path, "t.txt", open)
    flags = [f"-{name}={value}" for name, value in given.items()]
    checkpoint = tmp_path / "c"
    assert cli.main(["word2vec", str(corpus), str(tmp_path / "v"), "-checkpoint", str(checkpoint), *flags]) == 0
    found = Word2Vec.load(checkpoint)._parameters()
    assert {names.get(k, k.replace("-", "_")): v for k, v in given.items()}.items() <= found.items()


def test_command_has_the_defaults_of_the_class() -> None:
    args, model = cli._parser().parse_args(["word2vec", "c", "v"]), Word2Vec()
    for name, value in model._parameters().items():
        if name not in ("sg", "hs", "cbow_mean", "shrink_windows"):
            assert getattr(args, {"vector_size": "size", "epochs": "iter"}.get(name, name)) == value
    assert (1 - args.cbow, args.hs) == (model.sg, model.hs)


def test_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, path, saved = in_file(tmp_path, "t.txt", open), tmp_path / "c", tmp_path / "v.npy"
    crash(path, 2, monkeypatch, lambda: Word2Vec(**SMALL).fit(corpus, checkpoint=path, checkpoint_every=0))
    assert cli.main(["word2vec", str(corpus), str(saved), "-checkpoint", str(path), "-resume"]) == 0
    want = Word2Vec(**SMALL).fit(corpus).vectors
    np.testing.assert_array_equal(WordVectors.load(saved).vectors, want.vectors)


@pytest.mark.parametrize(
    ("corpus", "vectors", "flags", "complaint"),
    [
        ("absent", "v.txt", [], "[Errno 2] No such file or directory: "),
        ("t.txt", ".", [], "it is a directory"),
        ("t.txt", "nowhere/v.txt", [], "there is no directory"),
        ("t.txt", "t.txt", [], "is the corpus: choose another name"),
        ("t.txt", "v.txt.gz", [], "compressed files are read, not written"),
        ("t.txt", "v.npy", ["-binary", "1"], "-binary 1, but the name of "),
        ("t.txt", "v.txt", ["-hs", "1"], "negative = 5 must be 0 where hs = 1: "),
        ("t.txt", "v.txt", ["-min-count", "100000"], "t.txt: no word occurs 100000 times among the text's "),
        ("t.txt", "v.txt", ["-window", "1001"], "window = 1001 must be in [1, 1000]"),
        ("t.txt", "v.txt", ["-resume"], "-resume needs -checkpoint FILE"),
        ("t.txt", "v.txt", ["-checkpoint", "{}/v.txt"], "is the checkpoint too: choose another name"),
        ("t.txt", "v.txt", ["-checkpoint", "{}/t.txt"], "is the corpus: choose another name"),
        ("t.txt", "v.txt", ["-checkpoint", "{}/t.txt", "-resume"], "is the corpus: choose another name"),
        ("t.txt", "v.txt", ["-checkpoint", "{}/c", "-resume"], "[Errno 2] No such file or directory: "),
    ],
)
def test_command_refuses(
    corpus: str, vectors: str, flags: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = zlib.crc32(in_file(tmp_path, "t.txt", open).read_bytes())
    arguments = [str(tmp_path / corpus), str(tmp_path / vectors), *(flag.format(tmp_path) for flag in flags)]
    assert cli.main(["word2vec", *arguments]) == 1
    shown, complaints = capsys.readouterr()
    assert complaint in complaints
    assert complaints.count("\n") == 1
    assert shown == ""
    assert os.listdir(tmp_path) == ["t.txt"]
    assert zlib.crc32((tmp_path / "t.txt").read_bytes()) == before


@pytest.mark.parametrize("flag", ["-size=0", "-binary=2", "-cbow=x", "-sample=-1", "-iter=1.5"])
def test_command_refuses_bad_numbers(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["word2vec", "c", "v", flag])
    assert stopped.value.code == 2
    assert f"argument {flag.split('=')[0]}/-{flag.split('=')[0]}: " in capsys.readouterr().err
