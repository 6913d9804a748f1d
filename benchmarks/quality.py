"""Quality of the vectors: hotrow and gensim after one epoch with equal parameters, on word-similarity test sets."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import hotrow
from benchmarks.skipgram import MIN_COUNT, describe, read_corpus, train_gensim, train_hotrow
from hotrow import text

TEST_SETS = {"WordSim-353": "wordsim353.tsv", "SimLex-999": "simlex999.txt"}


def scores(vectors: Any) -> dict[str, float]:
    """Spearman's correlation with human judgement, for the pairs whose words are in the vocabulary, x 100."""
    from gensim.test.utils import datapath

    return {name: 100 * vectors.evaluate_word_pairs(datapath(file))[1][0] for name, file in TEST_SETS.items()}


def run(words: int, threads: int, seeds: int) -> None:
    name, sentences = read_corpus(words)
    corpus = text.encode(sentences, MIN_COUNT)
    print(f"{name}, {describe(corpus)}; {threads} threads\n")
    columns = ["words/s", *TEST_SETS]
    line = "{:16}" + "{:>18}" * len(columns)
    print(line.format("", *columns), flush=True)
    results: dict[str, list[list[float]]] = {"hotrow": [], "gensim": []}
    with hotrow.num_threads(threads):
        for seed in range(1, seeds + 1):
            for trainer, rows in results.items():
                if trainer == "hotrow":
                    seconds, ours = train_hotrow(corpus, seed)
                    vectors = ours.to_keyedvectors()
                else:
                    seconds, vectors = train_gensim(sentences, threads, seed)
                rows.append([corpus.tokens.size / seconds, *scores(vectors).values()])
                rate, *marks = rows[-1]
                print(line.format(f"{trainer}, seed {seed}", f"{rate:,.0f}", *(f"{m:.1f}" for m in marks)), flush=True)
    if seeds > 1:
        print()
        for trainer, rows in results.items():
            (rate, _), *marks = [(statistics.mean(c), statistics.stdev(c)) for c in zip(*rows, strict=True)]
            cells = [f"{mean:.1f} +- {deviation:.1f}" for mean, deviation in marks]
            print(line.format(f"{trainer}, mean", f"{rate:,.0f}", *cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=0, help="first words of the corpus to train on; default: 0, all")
    parser.add_argument("--threads", type=int, default=hotrow.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with mean and spread; default: 1")
    arguments = parser.parse_args()
    run(arguments.words, arguments.threads, arguments.seeds)


if __name__ == "__main__":
    main()
