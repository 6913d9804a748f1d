"""Skip-gram training: words per second of hotrow and gensim on the same sentences, with the same parameters."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import hotrow
from benchmarks.cases import DATA
from hotrow import text

MIN_COUNT = 5
PARAMETERS: dict[str, Any] = {
    "vector_size": 100, "window": 5, "negative": 5, "sample": 1e-4, "alpha": 0.025, "min_alpha": 1e-4, "epochs": 1,
}  # fmt: skip

Sentences = list[list[str]]


def read_corpus(words: int) -> tuple[str, Sentences]:
    """A description and the sentences of the Wikipedia corpus, its first `words` words; 0 is all."""
    path = DATA / "wiki.txt.xz"
    lines: Iterable[list[str]]
    if path.is_file():
        name, lines = path.name, text.read_sentences(path)
    else:
        print(f"{path} is missing (HOTROW_DATA names its folder): using text that ships with Python instead")
        name, lines = "hotrow.text.python_sentences()", text.python_sentences()
    sentences, left = [], words or sys.maxsize
    for line in lines:
        sentences.append([sys.intern(word) for word in line[:left]])
        left -= len(line)
        if left <= 0:
            break
    return f"{name}, {sum(map(len, sentences)):,} words", sentences


def describe(corpus: text.Corpus) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in PARAMETERS.items())
    return f"{corpus.tokens.size:,} of a vocabulary of {len(corpus.words):,} (min_count {MIN_COUNT}); {settings}"


def train_hotrow(corpus: text.Corpus, seed: int = 1) -> tuple[float, hotrow.WordVectors]:
    """Seconds of training alone, and the vectors."""
    model = hotrow.Word2Vec(**PARAMETERS, seed=seed).fit(corpus, bar=False)
    return model.seconds, model.vectors


def train_gensim(sentences: Sentences, threads: int, seed: int = 1) -> tuple[float, Any]:
    """Seconds of training alone, and the vectors."""
    from gensim.models import Word2Vec

    model = Word2Vec(**PARAMETERS, min_count=MIN_COUNT, sg=1, hs=0, workers=threads, batch_words=10_000, seed=seed)
    model.build_vocab(sentences)
    started = time.perf_counter()
    model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs)
    return time.perf_counter() - started, model.wv


def run(words: int, threads: int, rounds: int) -> dict[str, Any]:
    """Print seconds, words per second and the ratio to gensim; return them."""
    name, sentences = read_corpus(words)
    corpus = text.encode(sentences, MIN_COUNT)
    print(f"\nskip-gram: {name}, {describe(corpus)}\n{threads} threads, {rounds} rounds")

    def ours(backend: str) -> Callable[[], float]:
        def train() -> float:
            hotrow.use_backend(backend)
            return train_hotrow(corpus)[0]

        return train

    trainers: dict[str, Callable[[], float]] = {
        "hotrow": ours("native"),
        "hotrow Numba": ours("numba"),
        "gensim": lambda: train_gensim(sentences, threads)[0],
    }
    seconds: dict[str, list[float]] = {trainer: [] for trainer in trainers}
    with hotrow.num_threads(threads):
        hotrow.use_backend("numba")
        train_hotrow(text.encode(sentences[:1000], 1))  # compiles
        for _ in range(rounds):
            for trainer, train in trainers.items():
                seconds[trainer].append(train())
        hotrow.use_backend("native")
    medians = {trainer: statistics.median(values) for trainer, values in seconds.items()}
    print(f"{'':14}{'seconds':>9}{'words/s':>13}{'x gensim':>10}{'rounds':>10}")
    for trainer, median in medians.items():
        spread = " ".join(f"{s:.2f}" for s in seconds[trainer])
        rate = corpus.tokens.size / median
        print(f"{trainer:14}{median:9.2f}{rate:13,.0f}{medians['gensim'] / median:10.2f}    {spread}")
    measured = {"seconds": seconds, "medians": medians}
    return {"corpus": name, "words": corpus.tokens.size, "parameters": PARAMETERS, "threads": threads, **measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=0, help="first words of the corpus to train on; default: 0, all")
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    run(arguments.words, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
