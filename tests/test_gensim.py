"""gensim's Word2Vec on hotrow: the same vocabulary, corpora of every kind, its callbacks and files, patching, and
gensim's own tests.
"""

from __future__ import annotations

import copy
import gzip
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hotrow
from conftest import run_python
from hotrow import Sampling, _encode

models = pytest.importorskip("gensim.models")  # what follows needs it
from gensim.models.callbacks import CallbackAny2Vec  # noqa: E402
from gensim.models.word2vec import LineSentence, PathLineSentences  # noqa: E402

import hotrow.gensim as adapter  # noqa: E402
from hotrow import _gensim_text  # noqa: E402

SMALL: dict[str, Any] = {"vector_size": 16, "min_count": 3, "workers": 1, "seed": 7, "epochs": 2, "sg": 1}


def sentences(number: int = 300, words: int = 50, seed: int = 0) -> list[list[str]]:
    """Sentences of up to 20 words, Zipf, many equally frequent; none is empty."""
    rng = np.random.default_rng(seed)
    lines = [[f"w{w}" for w in rng.zipf(1.4, rng.integers(1, 20)) if w < words] for _ in range(number)]
    return [line for line in lines if line]


def write(path: Path, lines: Iterable[list[str]] | None = None) -> Path:
    path.write_text("\n".join(map(" ".join, sentences() if lines is None else lines)) + "\n", encoding="utf-8")
    return path


def vocabulary(model: Any) -> list[Any]:
    """All that build_vocab makes."""
    wv = model.wv
    return [
        wv.index_to_key, list(wv.key_to_index.items()), wv.expandos["count"].tolist(), wv.vectors.tolist(),
        np.asarray(wv.expandos.get("sample_int", [])).tolist(), np.asarray(model.cum_table).tolist(),
        model.corpus_count, model.corpus_total_words, list(model.raw_vocab.items()), model.effective_min_count,
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test has its own warnings and leaves gensim and hotrow as they were."""
    adapter._warned.clear()
    yield
    assert {name: vars(models.Word2Vec)[name] for name in adapter._METHODS} == adapter._REPLACED
    assert not [kept for kept in adapter._kept.values() if kept.text is not None and kept.text.counts is None]


# --- the vocabulary ---------------------------------------------------------------------------------------------------

TEXTS = {
    "plain": "b a a c\nd b e\n",
    "ties": "f e d c b a " * 3,
    "blank lines": "\n\n a b \n   \n\t\na\n\n",
    "mark of order": "\ufeffa b a\n",
    "white space": "a\u00a0b\u2003c\x1cd\x85e a\u3000b\r\nc\rd\x00e a\n",
    "long line": " ".join(islice(cycle("abcdefg"), 20_005)) + "\na b\n",
    "replaced": "a \ufffd b a\n",
    "empty": "",
    "only space": " \n \n",
    "zipf": "\n".join(map(" ".join, sentences())),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"min_count": 2},
    {"sorted_vocab": 0},
    {"max_final_vocab": 3},
    {"max_vocab_size": 4},
    {"null_word": 1},
    {"sample": 0},
    {"sample": 3.0},
    {"ns_exponent": -0.5},
    {"trim_rule": lambda word, count, least: 1 if word == "a" else 0},
]


def readers(path: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    with gzip.open(path.with_suffix(".gz"), "wb") as packed:
        packed.write(path.read_bytes())
    folder = path.parent / "folder"
    folder.mkdir(exist_ok=True)
    for i in range(2):
        (folder / f"{i}.txt").write_bytes(path.read_bytes())
    return {
        "corpus_file": lambda: {"corpus_file": str(path)},
        "LineSentence": lambda: {"corpus_iterable": LineSentence(str(path))},
        "of a Path": lambda: {"corpus_iterable": LineSentence(path)},
        "packed": lambda: {"corpus_iterable": LineSentence(str(path.with_suffix(".gz")))},
        "limit": lambda: {"corpus_iterable": LineSentence(str(path), limit=2)},
        "short sentences": lambda: {"corpus_iterable": LineSentence(str(path), max_sentence_length=2)},
        "folder": lambda: {"corpus_iterable": PathLineSentences(str(folder), limit=1)},
        "lists": lambda: {"corpus_iterable": list(LineSentence(str(path)))},
    }


def built(cls: Any, corpus: dict[str, Any], trim_rule: Any = None, **options: Any) -> Any:
    model = cls(**{"vector_size": 4, "min_count": 1, "seed": 3, "hashfxn": len} | options)
    model.build_vocab(**corpus, keep_raw_vocab=True, trim_rule=trim_rule)
    return model


@pytest.mark.parametrize("name", TEXTS)
def test_the_vocabulary_is_gensims(name: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXTS[name].encode())
    for reader, corpus in readers(path).items():
        for options in OPTIONS:
            theirs, ours = (built(cls, corpus(), **options) for cls in (models.Word2Vec, adapter.Word2Vec))
            if len(theirs.wv):
                assert vocabulary(ours) == vocabulary(theirs), (reader, options)
            else:
                assert ours.corpus_count == theirs.corpus_count


def test_the_vocabulary_is_read_natively_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr(adapter, "read", lambda source: read.append(source) or _gensim_text.read(source))
    for reader, corpus in readers(write(tmp_path / "text.txt")).items():
        read.clear()
        built(adapter.Word2Vec, corpus())
        assert bool(read) == (reader != "lists"), reader


def test_bytes_that_are_not_utf8_are_refused_as_by_gensim(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"a b \xff a\n")
    for cls in (models.Word2Vec, adapter.Word2Vec):
        with pytest.raises(UnicodeDecodeError):
            cls(min_count=1).build_vocab(LineSentence(str(path)))


def test_a_vocabulary_from_frequencies(tmp_path: Path) -> None:
    made = []
    for cls in (models.Word2Vec, adapter.Word2Vec):
        model = cls(vector_size=4, min_count=1, hashfxn=len)
        model.build_vocab_from_freq({"a": 5, "b": 3, "c": 3}, corpus_count=4, keep_raw_vocab=True)
        made.append(vocabulary(model))
    assert made[0] == made[1]
    model.train([["a", "b", "x"]] * 4, total_examples=4, epochs=1)


# --- training ---------------------------------------------------------------------------------------------------------


def epochs_by_hand(corpus: list[list[str]], options: dict[str, Any]) -> tuple[Any, float]:
    """A gensim model with its vocabulary built and each epoch trained by a call of hotrow; the loss."""
    model = models.Word2Vec(**options)
    model.build_vocab(corpus)
    draw = sampling_of(model)
    loss = 0.0
    for epoch in range(model.epochs):
        numbers = [[model.wv.key_to_index[w] for w in line if w in model.wv] for line in corpus]
        tokens = np.array(list(chain.from_iterable(numbers)), np.int32)
        offsets = np.cumsum([0, *map(len, numbers)])
        fall = (model.alpha - model.min_alpha) / model.epochs

        def add(_: int, mean: float, terms: int) -> None:
            nonlocal loss
            loss += mean * terms

        more: dict[str, Any] = {} if model.sg else {"cbow_mean": bool(model.cbow_mean)}
        more |= {"tree": adapter._tree(model.wv)} if model.hs else {"negative": model.negative}
        train = getattr(hotrow, ("skipgram" if model.sg else "cbow") + ("_hs" if model.hs else "") + "_epoch")
        with hotrow.num_threads(1):
            train(
                model.wv.vectors, outputs(model), tokens, offsets, draw, window=model.window,
                shrink_windows=model.shrink_windows, lr=model.alpha - epoch * fall,
                lr_end=model.alpha - (epoch + 1) * fall, seed=int.from_bytes(model.random.bytes(8), "little"),
                progress=add, **more,
            )  # fmt: skip
    return model, loss


def outputs(model: Any) -> Any:
    return model.syn1 if model.hs else model.syn1neg


def sampling_of(model: Any) -> Sampling:
    counts = model.wv.expandos["count"]
    return Sampling.from_counts(counts, sample=model.sample, ns_exponent=model.ns_exponent)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sg": 0},
        {"sg": 0, "cbow_mean": 0, "window": 2},
        {"window": 3, "negative": 2, "shrink_windows": False, "alpha": 0.1, "min_alpha": 0.02},
        {"sample": 0.05, "ns_exponent": 0.2, "epochs": 3},
        {"hs": 1, "negative": 0},
        {"hs": 1, "negative": 0, "sg": 0, "sample": 0.05},
    ],
)
def test_an_epoch_is_that_of_the_operator(backend: ModuleType, options: dict[str, Any]) -> None:
    options = SMALL | {"hashfxn": len} | options
    expected, loss = epochs_by_hand(sentences(), options)
    ours = adapter.Word2Vec(sentences(), compute_loss=True, **options)
    np.testing.assert_allclose(ours.wv.vectors, expected.wv.vectors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs(ours), outputs(expected), rtol=1e-4, atol=1e-6)
    assert ours.get_latest_training_loss() == pytest.approx(loss, rel=1e-4)


def test_probabilities_are_those_of_gensims_tables() -> None:
    """To 2^-31, which is what cum_table resolves, and as from_counts has them."""
    model = models.Word2Vec(sentences(), **SMALL | {"sample": 0.02})
    ours, other = adapter._sampling(model), sampling_of(model)
    np.testing.assert_allclose(ours.keep, other.keep, atol=2)
    mass = []
    for drawn in (ours, other):
        accept = (drawn.alias_accept + 1.0) / 2**32
        mass.append(accept.copy())
        np.add.at(mass[-1], drawn.alias_other, 1 - accept)
    np.testing.assert_allclose(*mass, atol=2**-31 * drawn.keep.size)


def test_paths_are_those_of_gensims_tree() -> None:
    """As long, weighted by counts, as those of any Huffman tree: equal weights leave a choice."""
    model = models.Word2Vec(sentences(), **SMALL | {"hs": 1, "negative": 0})
    tree, counts = adapter._tree(model.wv), model.wv.expandos["count"]
    assert len(model.wv) > 10
    for w, (points, codes) in enumerate(zip(model.wv.expandos["point"], model.wv.expandos["code"], strict=True)):
        path = slice(*tree.path_offsets[w : w + 2])
        assert np.array_equal(tree.points[path], points)
        assert np.array_equal(tree.codes[path], codes)
    lengths = [np.diff(t.path_offsets) @ counts for t in (tree, hotrow.HuffmanTree.from_counts(counts))]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("more", [{"sg": 0}, {"sg": 1}, {"sg": 0, "hs": 1, "negative": 0}, {"hs": 1, "negative": 0}])
def test_the_loss_is_about_gensims(more: dict[str, Any]) -> None:
    options = SMALL | {"sample": 0, "epochs": 5, "compute_loss": True} | more
    theirs, ours = (cls(sentences(1000), **options) for cls in (models.Word2Vec, adapter.Word2Vec))
    assert ours.get_latest_training_loss() == pytest.approx(theirs.get_latest_training_loss(), rel=0.05)


def test_without_compute_loss_there_is_none() -> None:
    assert adapter.Word2Vec(sentences(), **SMALL).get_latest_training_loss() == 0


@pytest.mark.parametrize("kind", ["corpus_file", "LineSentence", "of a Path", "packed", "lists"])
def test_every_kind_of_corpus_trains_alike_and_again(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt")
    corpus = readers(path)[kind]()
    if "corpus_iterable" in corpus:
        corpus["sentences"] = corpus.pop("corpus_iterable")
    ours = [adapter.Word2Vec(**corpus, **SMALL, hashfxn=len) for _ in range(2)]
    expected = adapter.Word2Vec(sentences(), **SMALL, hashfxn=len)
    for model in ours:
        assert model.wv.vectors.tobytes() == expected.wv.vectors.tobytes()
    assert np.isfinite(expected.wv.vectors).all()


def test_aligned_copies_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an error ends an epoch: what was trained is there."""
    monkeypatch.setattr(_gensim_text, "_SLICE", 100)
    path, trained = write(tmp_path / "text.txt"), []
    for enough in (0, 10**9):
        monkeypatch.setattr(adapter, "_PASS", enough)
        model = adapter.Word2Vec(corpus_file=str(path), **SMALL, hashfxn=len)
        with monkeypatch.context() as change:
            change.setattr(model, "_log_progress", lambda *_: 1 / 0)
            change.setattr(adapter, "default_timer", iter(range(10**6)).__next__)
            with pytest.raises(ZeroDivisionError):
                model.train(corpus_file=str(path), total_words=10, epochs=1)
        trained.append(model.wv.vectors.tobytes() + model.syn1neg.tobytes())
    assert trained[0] == trained[1]


@pytest.mark.parametrize("kind", ["corpus_file", "LineSentence", "lists"])
@pytest.mark.parametrize("chunk", [1, 7, 500, 1 << 18])
def test_accounts_are_gensims(
    kind: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Words and sentences, unknown ones included; with sample=0 as many are kept as by gensim."""
    for size in ("_CHUNK", "_SLICE"):
        monkeypatch.setattr(_gensim_text, size, chunk)
    path = write(tmp_path / "text.txt")
    corpus = readers(path)[kind]()
    trained = []
    for cls in (models.Word2Vec, adapter.Word2Vec):
        model = cls(**SMALL | {"sample": 0, "min_count": 30})
        model.build_vocab(**corpus)
        counts = {"total_examples": model.corpus_count, "total_words": model.corpus_total_words}
        trained.append(model.train(**corpus, **counts, epochs=3, report_delay=0))
        assert model.train_count == 1
        assert model.total_train_time > 0
    assert trained[0] == trained[1]
    assert trained[1][0] < trained[1][1]
    assert "did not equal" not in caplog.text
    assert model.min_alpha_yet_reached == pytest.approx(model.min_alpha)


def test_effective_words_are_those_expected() -> None:
    model = adapter.Word2Vec(**SMALL | {"sample": 0.01})
    model.build_vocab(sentences())
    keep = (model.wv.expandos["sample_int"] + 1.0) / 2**32
    effective, _ = model.train(sentences(), total_examples=model.corpus_count, epochs=1)
    assert effective == pytest.approx(keep @ model.wv.expandos["count"], abs=1)


def test_progress_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_gensim_text, "_CHUNK", 100)
    monkeypatch.setattr(adapter, "default_timer", iter(range(10**6)).__next__)
    with caplog.at_level(logging.INFO, "gensim"):
        adapter.Word2Vec(sentences(), **SMALL)
    assert "EPOCH 1 - PROGRESS: at" in caplog.text
    assert "EPOCH 1: training on" in caplog.text


@pytest.mark.parametrize("by", ["total_examples", "total_words"])
def test_the_learning_rate_falls_over_the_epochs(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gensim_text, "_CHUNK", 400)
    rates = []

    def train(*_: Any, lr: float, lr_end: float, **__: Any) -> float:
        rates.append((lr, lr_end))
        return 0.0

    monkeypatch.setattr(adapter, "_epoch_function", lambda model: train)
    model = adapter.Word2Vec(**SMALL)
    model.build_vocab(sentences())
    total = model.corpus_count if by == "total_examples" else model.corpus_total_words
    model.train(sentences(), **{by: total}, epochs=2, start_alpha=0.2, end_alpha=0.1)
    assert len(rates) > 4
    ends = [end for _, end in rates]
    assert [begin for begin, _ in rates] == [0.2, *ends[:-1]]
    assert ends == sorted(ends, reverse=True)
    assert min(abs(np.array(ends) - 0.15)) < 1e-9
    assert ends[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "corpus",
    [
        [["unknown", "w1", "w2", "unknown"], [], ["w1", "w3"]],
        [[], [], []],
        [["unknown"]],
        [("w1", "w2"), np.array(["w1", "w2"])],
        ["words as strings"],
        iter([["w1", "w2"]]),
    ],
    ids=["unknown words", "empty sentences", "none known", "tuples and arrays", "strings", "an iterator"],
)
def test_odd_corpora(corpus: Any) -> None:
    model = adapter.Word2Vec(sentences(), **SMALL)
    if isinstance(corpus, list):
        raw = sum(map(len, corpus))
        assert model.train(corpus, total_examples=len(corpus), epochs=2)[1] == 2 * raw
    else:
        assert model.train(corpus, total_examples=1, epochs=2)[1] == 2  # as gensim: the second pass finds nothing
    assert np.isfinite(model.wv.vectors).all()


@pytest.mark.parametrize("cls", [models.Word2Vec, adapter.Word2Vec])
def test_what_gensim_refuses_is_refused(cls: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError, match="Using a generator as corpus_iterable can't support 3 passes"):
        cls((line for line in sentences()), **SMALL)
    model = cls(**SMALL)
    with pytest.raises(RuntimeError, match="you must first build vocabulary"):
        model.train(sentences(), total_examples=1, epochs=1)
    model.build_vocab(sentences())
    with pytest.raises(ValueError, match="total_words must be provided"):
        model.train(corpus_file=str(write(tmp_path / "text.txt")), total_examples=1, epochs=1)
    model.train([], total_examples=1, epochs=1)
    assert "train() called with an empty iterator" in caplog.text


def test_training_goes_on_with_new_words(tmp_path: Path) -> None:
    model = adapter.Word2Vec(sentences(), **SMALL)
    known, before = len(model.wv), model.wv.vectors.copy()
    more = [["new1", "new2", "w1"]] * 20
    model.build_vocab(more, update=True)
    assert model.wv.index_to_key[known:] == ["new1", "new2"]
    model.train(more, total_examples=model.corpus_count, epochs=5)
    assert model.wv.vectors.shape == model.syn1neg.shape == (known + 2, 16)
    changed = np.flatnonzero((model.wv.vectors[:known] != before).any(axis=1))
    assert changed.tolist() == [model.wv.key_to_index["w1"]]
    path = write(tmp_path / "more.txt", [["new3", "new1"]] * 9)
    model.build_vocab(corpus_file=str(path), update=True)
    model.train(corpus_file=str(path), total_words=model.corpus_total_words, epochs=1)
    assert "new3" in model.wv
    assert model.train_count == 3


@pytest.mark.parametrize(("workers", "allowed", "used"), [(1, 2, 1), (3, 2, 2), (2, 4, 2), (0, 2, 1)])
def test_threads(workers: int, allowed: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        adapter, "_epoch_function", lambda model: lambda *_, **__: seen.append(hotrow.get_num_threads())
    )
    with hotrow.num_threads(allowed):
        adapter.Word2Vec(sentences(), **SMALL | {"workers": workers})
        assert hotrow.get_num_threads() == allowed
    assert seen == [used, used]


def test_models_train_in_threads_at_once() -> None:
    before, failed = hotrow.get_num_threads(), []

    def train(workers: int) -> None:
        try:
            model = adapter.Word2Vec(sentences(), **SMALL | {"workers": workers, "epochs": 20})
            assert np.isfinite(model.wv.vectors).all()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=train, args=(1 + i % 2,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert hotrow.get_num_threads() == before


class Log(CallbackAny2Vec):  # type: ignore[misc]  # gensim has no types
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_train_begin(self, model: Any) -> None:
        self.events.append("train begins")

    def on_train_end(self, model: Any) -> None:
        self.events.append("train ends")

    def on_epoch_begin(self, model: Any) -> None:
        self.events.append("epoch begins")

    def on_epoch_end(self, model: Any) -> None:
        self.events.append(model.get_latest_training_loss())


def test_callbacks(tmp_path: Path) -> None:
    log = Log()
    adapter.Word2Vec(
        corpus_file=str(write(tmp_path / "text.txt")), callbacks=[log], compute_loss=True, **SMALL | {"epochs": 3}
    )
    losses = log.events[2::2][:3]
    assert log.events == [
        "train begins", "epoch begins", losses[0], "epoch begins", losses[1], "epoch begins", losses[2], "train ends",
    ]  # fmt: skip
    assert 0 < losses[0] < losses[1] < losses[2]


# --- reading again ----------------------------------------------------------------------------------------------------


class Each(CallbackAny2Vec):  # type: ignore[misc]  # gensim has no types
    """Calls a function after each epoch."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.on_epoch_end = function


def test_an_iterable_is_read_in_each_epoch() -> None:
    class Growing:
        passes = 0

        def __iter__(self) -> Iterator[list[str]]:
            self.passes += 1
            return iter([["w1", "w2"]] * self.passes)

    corpus = Growing()
    model = adapter.Word2Vec(sentences(), **SMALL)
    assert model.train(corpus, total_examples=1, epochs=4)[1] == 2 * (1 + 2 + 3 + 4)
    assert corpus.passes == 4


@pytest.mark.parametrize("kind", ["corpus_file", "LineSentence", "folder"])
def test_a_file_is_read_once_and_again_if_it_changes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    monkeypatch.setattr(adapter, "read", lambda source: read.append(source) or _gensim_text.read(source))
    path = write(tmp_path / "text.txt")
    corpus = readers(path)[kind]()
    files = [path, *(tmp_path / "folder").iterdir()]
    model = adapter.Word2Vec(**SMALL)
    model.build_vocab(**corpus)
    words = model.corpus_total_words
    arguments = {**corpus, "total_words": words, "epochs": 3}
    assert model.train(**arguments)[1] == 3 * words
    assert len(read) == 1

    def change(model: Any) -> None:
        if len(read) == 2:
            for file in files:
                write(file, [["w1", "w2"], ["w3"]])

    expected = words + 2 * {"folder": 4}.get(kind, 3)
    assert model.train(**arguments, callbacks=[Each(change)])[1] == expected
    assert len(read) == 3
    assert not adapter._kept


def test_a_vocabulary_that_changes_between_epochs(tmp_path: Path) -> None:
    """The text is numbered anew: here after the rows changed places."""
    path = write(tmp_path / "text.txt", [["a", "a", "a", "b", "b", "c"]] * 200)
    effective = []

    def turn(model: Any) -> None:
        model.wv.index_to_key = model.wv.index_to_key[:2]
        model.wv.key_to_index = {word: i for i, word in enumerate(model.wv.index_to_key)}
        for name in ("vectors", "expandos"):
            table = getattr(model.wv, name)
            setattr(model.wv, name, table[:2] if name == "vectors" else {k: v[:2] for k, v in table.items()})
        model.syn1neg = model.syn1neg[:2]
        model.make_cum_table()

    model = adapter.Word2Vec(corpus_file=str(path), callbacks=[Each(turn)], **SMALL | {"sample": 0})
    effective.append(model.train(corpus_file=str(path), total_words=1200, epochs=1)[0])
    assert effective == [1000]
    assert model.wv.vectors.shape == (2, 16)


@pytest.mark.parametrize("failing", ["read", "renumber"])
def test_without_room_for_the_text_it_is_read_line_by_line(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_encode, "encode" if failing == "read" else "renumber", full)
    model = adapter.Word2Vec(corpus_file=str(write(tmp_path / "text.txt")), **SMALL, hashfxn=len)
    expected = adapter.Word2Vec(sentences(), **SMALL, hashfxn=len)
    assert model.wv.vectors.tobytes() == expected.wv.vectors.tobytes()


@pytest.mark.parametrize("error", [KeyError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 10, 299])
def test_an_error_in_the_corpus_leaves_a_model(
    error: BaseException, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gensim_text, "_CHUNK", 100)
    lines = sentences()

    class Broken:
        passes = 0

        def __iter__(self) -> Iterator[list[str]]:
            self.passes += 1
            yield from lines[:after] if self.passes == 2 else lines
            if self.passes == 2:
                raise error

    model = adapter.Word2Vec(lines, **SMALL)
    threads, before = threading.active_count(), model.wv.vectors.copy()
    with pytest.raises(type(error)):
        model.train(Broken(), total_examples=len(lines), epochs=3)
    assert threading.active_count() == threads
    assert (model.wv.vectors != before).any()
    assert np.isfinite(model.wv.vectors).all()
    model.train(lines, total_examples=len(lines), epochs=1)


def test_ctrl_c_ends_the_chunk_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def train(*_: Any, progress: Callable[[int, float, int], object], **__: Any) -> None:
        time.sleep(0.2)  # the main thread waits for this one by then
        os.kill(os.getpid(), signal.SIGINT)
        try:
            for _ in range(1000):
                time.sleep(0.01)
                progress(1024, 0.0, 0)
        except BaseException as error:
            ended.append(error)
            raise

    model = adapter.Word2Vec(sentences(), **SMALL)
    threads = threading.active_count()
    with monkeypatch.context() as change:
        change.setattr(adapter, "_epoch_function", lambda model: train)
        with pytest.raises(KeyboardInterrupt):
            model.train(sentences(), total_examples=300, epochs=2)
    assert [type(error) for error in ended] == [adapter._StoppedError]
    assert threading.active_count() == threads
    model.train(sentences(), total_examples=300, epochs=1)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda m: setattr(m.wv, "vectors", m.wv.vectors.astype(np.float16)), TypeError, "in_table"),
        (lambda m: setattr(m.wv, "vectors", m.wv.vectors.astype(np.float64)), TypeError, "float"),
        (lambda m: m.wv.vectors.setflags(write=False), ValueError, "in_table"),
        (lambda m: setattr(m, "syn1neg", m.syn1neg[:-1]), ValueError, "^syn1neg has 45 rows, wv 46: "),
        (lambda m: m.wv.add_vectors(["new"], np.ones((1, 16))), ValueError, "^syn1 has 46 rows, wv 47: "),
    ],
    ids=["float16", "float64", "read-only", "rows", "added"],
)
def test_vectors_that_cannot_be_trained(change: Callable[[Any], object], error: type[Exception], match: str) -> None:
    more = {"hs": 1, "negative": 0} if "syn1 " in match else {}
    model = adapter.Word2Vec(sentences(), **SMALL | more)
    change(model)
    before = model.wv.vectors.copy()
    with pytest.raises(error, match=match):
        model.train(sentences(), total_examples=300, epochs=1)
    assert (model.wv.vectors == before).all()


def test_strided_vectors_train() -> None:
    """gensim's code would take the rows for others."""
    trained = []
    for strided in (False, True):
        model = adapter.Word2Vec(**SMALL, hashfxn=len)
        model.build_vocab(sentences())
        if strided:
            wide = np.zeros((len(model.wv), 20), np.float32)
            wide[:, :16] = model.wv.vectors
            model.wv.vectors = wide[:, :16]
        model.train(sentences(), total_examples=300, epochs=1)
        trained.append(model.wv.vectors.tobytes())
    assert trained[0] == trained[1]


# --- what gensim trains -----------------------------------------------------------------------------------------------


class Counting(adapter.Word2Vec):  # type: ignore[misc]  # gensim has no types
    def _raw_word_count(self, job: Any) -> Any:
        return super()._raw_word_count(job)


def locked(model: Any) -> None:
    model.wv.vectors_lockf = np.zeros(len(model.wv), np.float32)


@pytest.mark.parametrize(
    ("cls", "options", "prepare", "reason"),
    [
        (adapter.Word2Vec, {"hs": 1}, None, r"hierarchical softmax \(hs=1\) without negatives"),
        (adapter.Word2Vec, {}, locked, "vectors_lockf"),
        (adapter.Word2Vec, {"negative": 1001}, None, "at most 1000"),
        (Counting, {}, None, "Counting has a _raw_word_count of its own"),
    ],
)
def test_what_hotrow_does_not_train_gensim_does(
    cls: Any, options: dict[str, Any], prepare: Any, reason: str, tmp_path: Path
) -> None:
    """To the same bits as gensim alone, with one warning."""
    path = write(tmp_path / "text.txt")
    options = SMALL | {"hashfxn": len} | options

    def trained(cls: Any) -> bytes:
        model = cls(**options)
        model.build_vocab(corpus_file=str(path))
        if prepare is not None:
            prepare(model)
        model.train(sentences(), total_examples=300, epochs=2)
        model.train(corpus_file=str(path), total_words=model.corpus_total_words, epochs=1)
        return bytes(model.wv.vectors.tobytes())

    with pytest.warns(RuntimeWarning, match=f"^gensim trains this model, not hotrow: .*{reason}") as caught:
        ours = trained(cls)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert trained(cls) == ours == trained(models.Word2Vec)  # without another warning


@pytest.mark.parametrize(
    "train",
    [
        lambda: models.FastText(sentences(), **SMALL, hashfxn=len, bucket=100).wv.vectors,
        lambda: models.Doc2Vec(
            [models.doc2vec.TaggedDocument(line, [i]) for i, line in enumerate(sentences())],
            vector_size=8, workers=1, epochs=2, seed=1, hashfxn=len,
        ).wv.vectors,
    ],
    ids=["FastText", "Doc2Vec"],
)  # fmt: skip
def test_other_models_of_gensim_train_as_ever(train: Callable[[], Any]) -> None:
    before = train().tobytes()
    with adapter.patched():
        assert train().tobytes() == before


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # gensim leaves files open
@pytest.mark.parametrize("separately", [None, ["syn1neg"]])
def test_files_are_gensims(separately: Any, tmp_path: Path) -> None:
    path, ours = str(tmp_path / "model"), adapter.Word2Vec(sentences(), **SMALL)
    ours.save(path, separately=separately)
    assert type(ours) is adapter.Word2Vec
    code = """
import sys
sys.modules["hotrow"] = None
from gensim.models import Word2Vec
model = Word2Vec.load(sys.argv[1])
model.train([["w1", "w2"]], total_examples=1, epochs=1)
print(type(model).__module__)
"""
    assert run_python(code, path).stdout.strip() == "gensim.models.word2vec"
    theirs, again = models.Word2Vec.load(path), adapter.Word2Vec.load(path)
    assert type(theirs) is models.Word2Vec
    assert type(again) is adapter.Word2Vec
    for model in (theirs, again):
        assert model.wv.index_to_key == ours.wv.index_to_key
        assert model.wv.vectors.tobytes() == ours.wv.vectors.tobytes()
        assert model.syn1neg.tobytes() == ours.syn1neg.tobytes()
        assert (model.cum_table == ours.cum_table).all()
    for model in (again, ours):
        model.train(sentences(), total_examples=300, epochs=2)
    assert again.wv.vectors.tobytes() == ours.wv.vectors.tobytes()
    theirs.save(path)
    assert type(adapter.Word2Vec.load(path)) is adapter.Word2Vec


def test_a_model_between_build_vocab_and_train_is_copied_and_saved(tmp_path: Path) -> None:
    path, file = write(tmp_path / "text.txt"), str(tmp_path / "model")
    model = adapter.Word2Vec(**SMALL)
    model.build_vocab(corpus_file=str(path))
    model.save(file)
    assert (tmp_path / "model").stat().st_size < 100_000
    trained = []
    for copied in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model), adapter.Word2Vec.load(file)):
        assert type(copied) is adapter.Word2Vec
        copied.train(corpus_file=str(path), total_words=copied.corpus_total_words, epochs=2)
        trained.append(copied.wv.vectors.tobytes())
    assert len(set(trained)) == 1


# --- patching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether a model of gensim's class is now trained by hotrow."""
    epochs: list[Any] = []
    train_on = adapter._train_on
    monkeypatch.setattr(adapter, "_train_on", lambda *args: epochs.append(args) or train_on(*args))
    earlier = models.Word2Vec(sentences(), **SMALL)  # a model and a name that were there before
    bound_before = models.Word2Vec

    def used() -> bool:
        seen = []
        for train in (
            lambda: bound_before(sentences(), **SMALL),
            lambda: earlier.train(sentences(), total_examples=300, epochs=1),
        ):
            epochs.clear()
            train()
            seen.append(bool(epochs))
        assert seen[0] == seen[1]
        return seen[0]

    return used


def test_patching(used: Callable[[], bool]) -> None:
    steps: list[tuple[Callable[[], object] | None, bool]] = [
        (None, False),
        (adapter.patch, True),
        (adapter.patch, True),
        (adapter.unpatch, False),
        (adapter.unpatch, False),
    ]
    for step, expected in steps:
        if step:
            step()
        assert used() is expected
    with adapter.patched():
        assert used()
        with adapter.patched():
            assert used()
        assert used()
        adapter.unpatch()
        assert used()  # until the block ends
    assert not used()
    adapter.patch()
    with pytest.raises(KeyError), adapter.patched():
        raise KeyError
    assert used()
    adapter.unpatch()


def test_models_of_a_patched_class_are_gensims(tmp_path: Path) -> None:
    with adapter.patched():
        model = models.Word2Vec(corpus_file=str(write(tmp_path / "text.txt")), **SMALL)
    assert type(model) is models.Word2Vec
    assert b"hotrow" not in pickle.dumps(model)
    expected = adapter.Word2Vec(sentences(), **SMALL)
    assert model.wv.vectors.tobytes() == expected.wv.vectors.tobytes()


def test_what_someone_else_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = vars(models.Word2Vec)["_train_epoch"]

    def other(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    adapter.patch()
    monkeypatch.setattr(models.Word2Vec, "_train_epoch", other)
    adapter.unpatch()
    assert vars(models.Word2Vec)["_train_epoch"] is other
    monkeypatch.undo()
    adapter.unpatch()


def test_blocks_in_threads() -> None:
    """The class stays patched until the last block ends."""
    inside, end = threading.Barrier(2), threading.Event()

    def block() -> None:
        with adapter.patched():
            inside.wait()
            end.wait()

    thread = threading.Thread(target=block)
    thread.start()
    with adapter.patched():
        inside.wait()
    assert vars(models.Word2Vec)["_train_epoch"] is adapter._train_epoch
    end.set()
    thread.join()
    assert vars(models.Word2Vec)["_train_epoch"] is not adapter._train_epoch


def test_gensim_is_named_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["gensim"] = None
import hotrow
try:
    import hotrow.gensim
except ImportError as error:
    print(error)
"""
    assert run_python(code).stdout.strip().endswith('pip install "hotrow[gensim]"')


# --- gensim's own tests -----------------------------------------------------------------------------------------------

# Tests of gensim that fail on hotrow, or may fail, and why.
FAILING: dict[str, str] = {}
UNSTEADY = {"test_cbow_hs_online": "gensim trains it, on threads without locks; without hotrow too 1 in 60 runs fails"}


def test_gensims_own_tests_pass(tmp_path: Path) -> None:
    suite = Path(__file__).with_name("gensim_suite.py")
    done = subprocess.run(
        [sys.executable, suite], capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["failed"]) - UNSTEADY.keys() == FAILING.keys(), done.stderr[-5000:]
    assert result["run"] > 80
    assert result["epochs"] > 100
