"""Word vectors: hotrow, gensim and fastText train on the same text with the same parameters, speed beside quality.

Scores x 100: Spearman's correlation with people's judgement on WordSim-353 and SimLex-999, and the share of Google's
analogies that are solved; of pairs and questions whose words are in the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hotrow
from benchmarks.cases import DATA
from benchmarks.machine import multiply_add_rate
from hotrow import text

MIN_COUNT = 5
SHORT = 10  # words
SHARED = {"window": 5, "sample": 1e-4, "alpha": 0.025, "min_alpha": 1e-4}
SKIP_GRAM = {"sg": 1, "hs": 0, "negative": 5, "vector_size": 100}
Options = dict[str, Any]


class Text:
    """A plain text file, a sentence a line, and what is made of it before the clock runs."""

    def __init__(self, folder: Path, words: int) -> None:
        """The first `words` words of the Wikipedia corpus; 0 is all."""
        source = DATA / "wiki.txt.xz"
        lines: Iterable[list[str]] = text.python_sentences()
        if source.is_file():
            lines = text.read_sentences(source)
        else:
            print(f"{source} is missing (HOTROW_DATA names its folder): using text that ships with Python instead")
        self.folder, self.path, count = folder, folder / "text.txt", 0
        with self.path.open("w", encoding="utf-8") as file:
            for line in lines:
                line = line[: words - count] if words else line
                file.write(" ".join(line) + "\n")
                count += len(line)
                if count == words:
                    break
        self.name = f"{source.name if source.is_file() else 'Python documentation'}, {count:,} words"

    @cached_property
    def encoded(self) -> text.Corpus:
        return text.encode_file(self.path, min_count=MIN_COUNT, bar=False)

    @cached_property
    def sentences(self) -> list[list[str]]:
        return [[sys.intern(word) for word in line] for line in text.read_sentences(self.path)]

    @cached_property
    def short(self) -> text.Corpus:
        """The same words in sentences of SHORT."""
        corpus, size = self.encoded, self.encoded.tokens.size
        return text.Corpus(corpus.words, corpus.counts, corpus.tokens, np.append(np.arange(0, size, SHORT), size))


# What trains: the seconds it takes and the vectors.
Train = Callable[[Text, Options, int], tuple[float, hotrow.WordVectors]]


def _hotrow(backend: str = "native", one_thread: bool = False, short: bool = False) -> Train:
    def train(source: Text, options: Options, threads: int) -> tuple[float, hotrow.WordVectors]:
        hotrow.use_backend(backend)
        model = hotrow.Word2Vec(**options, threads=1 if one_thread else threads)
        model.fit(source.short if short else source.encoded, bar=False)
        hotrow.use_backend("native")
        return model.seconds, model.vectors

    return train


def _gensim(corpus_file: bool = False) -> Train:
    """On lists of words, or on a file, which leaves Python out; there each worker has the learning rate fall by
    its own share of the text.
    """

    def train(source: Text, options: Options, threads: int) -> tuple[float, hotrow.WordVectors]:
        from gensim.models import Word2Vec

        model = Word2Vec(**options, min_count=MIN_COUNT, workers=threads)
        corpus: Options = {"corpus_file": str(source.path)} if corpus_file else {"corpus_iterable": source.sentences}
        model.build_vocab(**corpus)
        started = time.perf_counter()
        model.train(
            **corpus, total_words=model.corpus_total_words, total_examples=model.corpus_count, epochs=model.epochs
        )
        return time.perf_counter() - started, _vectors(model.wv)

    return train


def _fasttext(source: Text, options: Options, threads: int) -> tuple[float, hotrow.WordVectors]:
    """Without subwords, as word2vec; with counting the words, which fastText does not do apart."""
    import fasttext

    arguments = {
        "dim": options["vector_size"], "ws": options["window"], "neg": options["negative"] or 5, "minn": 0, "maxn": 0,
        "loss": "hs" if options["hs"] else "ns", "t": options["sample"], "lr": options["alpha"], "minCount": MIN_COUNT,
        "epoch": options["epochs"], "thread": threads, "bucket": 0, "verbose": 0,
    }  # fmt: skip
    for attempt in range(20):
        started = time.perf_counter()
        try:
            model = fasttext.train_unsupervised(str(source.path), "skipgram" if options["sg"] else "cbow", **arguments)
            break
        except RuntimeError:  # fastText 0.9.3 meets a NaN at the start of one run in two
            if attempt == 19:
                raise
    seconds = time.perf_counter() - started
    return seconds, hotrow.WordVectors(model.words, np.stack([model.get_word_vector(word) for word in model.words]))


def _whole(train: Callable[[Text, Options, int, str], None]) -> Train:
    """From a file of text to one of vectors."""

    def job(source: Text, options: Options, threads: int) -> tuple[float, hotrow.WordVectors]:
        path = str(source.folder / "vectors.bin")
        started = time.perf_counter()
        train(source, options, threads, path)
        return time.perf_counter() - started, hotrow.WordVectors.load(path)

    return job


def _hotrow_job(source: Text, options: Options, threads: int, path: str) -> None:
    hotrow.Word2Vec(**options, min_count=MIN_COUNT, threads=threads).fit(source.path, bar=False).vectors.save(path)


def _gensim_job(module: str, corpus_file: bool) -> Train:
    """`module`: whose Word2Vec."""

    def train(source: Text, options: Options, threads: int, path: str) -> None:
        from gensim.models.word2vec import LineSentence

        name = str(source.path)
        corpus = {"corpus_file": name} if corpus_file else {"sentences": LineSentence(name)}
        model = import_module(module).Word2Vec(**corpus, **options, min_count=MIN_COUNT, workers=threads)
        model.wv.save_word2vec_format(path, binary=True)

    return _whole(train)


def _vectors(wv: Any) -> hotrow.WordVectors:
    return hotrow.WordVectors(wv.index_to_key, wv.vectors)


class Case(NamedTuple):
    """What is compared with gensim."""

    trainers: dict[str, Train]
    options: Options
    epochs: int | None = None  # default: --epochs


GENSIM = {"gensim": _gensim(), "gensim, corpus_file": _gensim(corpus_file=True)}
PEERS = {"fastText": _fasttext} | GENSIM
INTERFACES = {"hotrow.gensim": "hotrow.gensim", "gensim": "gensim.models"}
CASES = {
    "skip-gram D=100": Case(
        {
            "hotrow": _hotrow(),
            "hotrow, 1 thread": _hotrow(one_thread=True),
            f"hotrow, sentences of {SHORT}": _hotrow(short=True),
            "hotrow Numba": _hotrow("numba"),
        }
        | PEERS,
        SKIP_GRAM,
    ),
    "skip-gram D=300": Case({"hotrow": _hotrow()} | GENSIM, SKIP_GRAM | {"vector_size": 300}),
    "CBOW D=100": Case({"hotrow": _hotrow()} | PEERS, SKIP_GRAM | {"sg": 0}),
    "hierarchical softmax D=100": Case({"hotrow": _hotrow()} | PEERS, SKIP_GRAM | {"hs": 1, "negative": 0}),
    "text to saved vectors": Case(
        {"hotrow": _whole(_hotrow_job), "gensim": _gensim_job("gensim.models", corpus_file=True)}, SKIP_GRAM, 5
    ),
    "gensim's interface, LineSentence": Case(
        {name: _gensim_job(module, corpus_file=False) for name, module in INTERFACES.items()},
        SKIP_GRAM,
        5,
    ),
    "gensim's interface, corpus_file": Case(
        {name: _gensim_job(module, corpus_file=True) for name, module in INTERFACES.items()},
        SKIP_GRAM,
        5,
    ),
}


def multiply_adds(source: Text, options: Options) -> float:
    """Those that a word of the text takes: dot products and the gradients of both sides, over all windows.

    Counted where the first million words are trained with one column.
    """
    corpus, counted = source.encoded, []
    tokens = corpus.tokens[:1_000_000]
    offsets = np.unique(np.minimum(corpus.offsets, tokens.size))
    sampling = hotrow.Sampling.from_counts(corpus.counts, sample=options["sample"])
    tables = np.zeros((2, len(corpus.words), 1), np.float32)
    for epoch in (hotrow.skipgram_epoch, hotrow.cbow_epoch):
        terms: list[int] = []
        epoch(
            *tables, tokens, offsets, sampling, window=options["window"], negative=1, lr=0.0,
            progress=lambda _tokens, _loss, count, terms=terms: terms.append(count),
        )  # fmt: skip
        counted.append(sum(terms) / tokens.size)
    contexts, centers = counted
    outputs = 1 + options["negative"]
    if options["hs"]:
        lengths = np.diff(hotrow.HuffmanTree.from_counts(corpus.counts).path_offsets)
        outputs = np.average(lengths, weights=corpus.counts * sampling.keep.astype(float))
    terms_of_a_column = 3 * contexts * outputs if options["sg"] else 2 * contexts + 3 * centers * outputs
    return float(terms_of_a_column * options["vector_size"])


def scores(vectors: hotrow.WordVectors) -> dict[str, float]:
    from gensim.test.utils import datapath

    return {
        "WordSim-353": 100 * vectors.evaluate_pairs(datapath("wordsim353.tsv")).spearman,
        "SimLex-999": 100 * vectors.evaluate_pairs(datapath("simlex999.txt")).spearman,
        "analogies": 100 * vectors.evaluate_analogies(datapath("questions-words.txt")).accuracy,
    }


def run(
    name: str, source: Text, epochs: int, threads: int, rounds: int, wanted: Sequence[str] | None = None
) -> dict[str, Any]:
    """Train with seeds 1 to `rounds`, the trainers in turn. Print medians of speed and means of scores; return all.

    The limit is the rate of multiply-adds that the machine has on so many threads, over those of a word.
    """
    case = CASES[name]
    epochs = case.epochs or epochs
    options = SHARED | case.options | {"epochs": epochs}
    words = source.encoded.tokens.size
    shown = ", ".join(f"{key} {value:g}" for key, value in options.items())
    print(f"\n{name}: {source.name}, {words:,} of {len(source.encoded.words):,} words that occur {MIN_COUNT} times")
    limit = multiply_add_rate(threads, 5) / multiply_adds(source, options)
    print(
        f"{shown}; {threads} threads, seeds 1 to {rounds}; multiply-adds allow {limit / 1e6:.1f} M words/s", flush=True
    )
    missing = {t for t, package in (("fastText", "fasttext"), ("hotrow Numba", "numba")) if not find_spec(package)}
    trainers = {t: train for t, train in case.trainers.items() if t in (wanted or case.trainers) and t not in missing}
    seconds: dict[str, list[float]] = {trainer: [] for trainer in trainers}
    marks: dict[str, list[dict[str, float]]] = {trainer: [] for trainer in trainers}
    for seed in range(1, rounds + 1):
        for trainer, train in trainers.items():
            taken, vectors = train(source, options | {"seed": seed}, threads)
            seconds[trainer].append(taken)
            marks[trainer].append(scores(vectors))
    medians = {trainer: statistics.median(taken) for trainer, taken in seconds.items()}
    fastest = min(median for trainer, median in medians.items() if trainer.startswith("gensim"))
    tests = list(marks["gensim"][0])
    print(
        f"{'':24}{'seconds':>9}{'M words/s':>11}{'of limit':>10}{'x gensim':>10}"
        + "".join(f"{test:>17}" for test in tests)
    )
    for trainer, median in medians.items():
        cells = []
        for test in tests:
            values = [mark[test] for mark in marks[trainer]]
            spread = f" +- {statistics.stdev(values):.1f}" if rounds > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        rate = epochs * words / median
        speed = f"{median:9.2f}{rate / 1e6:11.2f}{rate / limit:10.0%}{fastest / median:10.1f}"
        print(f"{trainer:24}{speed}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
    measured = {"seconds": seconds, "medians": medians, "scores": marks, "limit": limit}
    return {"case": name, "text": source.name, "words": words, "options": options, "threads": threads} | measured


@contextmanager
def reading(words: int) -> Iterator[Text]:
    """The corpus in a folder of its own, for a while; see Text."""
    with tempfile.TemporaryDirectory() as folder:
        yield Text(Path(folder), words)


def compile_numba(source: Text) -> None:
    """Numba compiles a kernel for the arrays it is first called with."""
    if find_spec("numba"):
        corpus = source.encoded
        start = text.Corpus(corpus.words, corpus.counts, corpus.tokens[:1000], np.array([0, 1000]))
        hotrow.use_backend("numba")
        hotrow.Word2Vec(**SHARED, **SKIP_GRAM, epochs=1).fit(start, bar=False)
        hotrow.use_backend("native")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="cases whose names contain one of these")
    parser.add_argument("--trainers", nargs="+", metavar="NAME", help="these and gensim; default: all of a case")
    parser.add_argument("--words", type=int, default=0, help="first words of the corpus; default: 0, all")
    parser.add_argument("--epochs", type=int, default=1, help="where a case does not say; default: %(default)s")
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="seeds, trained with one after the other; default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    a = parser.parse_args()
    chosen = [name for name in CASES if any(part in name for part in a.cases or [""])]
    if not chosen:
        parser.error(f"no case is named so; there are: {'; '.join(CASES)}")
    with reading(a.words) as source, hotrow.num_threads(a.threads):
        compile_numba(source)
        wanted = a.trainers and [*a.trainers, "gensim"]
        results = [run(name, source, a.epochs, a.threads, a.rounds, wanted) for name in chosen]
    if a.json:
        a.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
