"""Training word vectors by skip-gram with negative sampling."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hotrow import _check
from hotrow.ops import Floats, empty_table, skipgram_epoch
from hotrow.sampling import Sampling
from hotrow.text import Corpus


class Trained(NamedTuple):
    """What train_skipgram returns.

    Attributes:
        vectors (float32[V, D]): the input vectors, in the order of the corpus's words.
        losses (list of float): mean loss of a pair in each epoch, float64.
        tokens (int): words trained on, repeats included, before subsampling.
        seconds (float): time spent training.
        complete (bool): False if Ctrl-C stopped it early.
    """

    vectors: Floats
    losses: list[float]
    tokens: int
    seconds: float
    complete: bool


def train_skipgram(
    corpus: Corpus,
    *,
    vector_size: int = 100,
    window: int = 5,
    negative: int = 5,
    sample: float = 1e-3,
    ns_exponent: float = 0.75,
    alpha: float = 0.025,
    min_alpha: float = 1e-4,
    epochs: int = 5,
    seed: int = 1,
    bar: bool | None = None,
) -> Trained:
    """Train word vectors on encoded sentences. Ctrl-C ends it early with what it has.

    Args:
        corpus (Corpus): encoded sentences and word counts.
        vector_size (int): D; default 100.
        window, negative: as hotrow.skipgram_epoch.
        sample, ns_exponent: as hotrow.Sampling.from_counts.
        alpha, min_alpha (float): the learning rate falls linearly from one to the other over all epochs.
        epochs (int): passes over the corpus; default 5.
        seed (int in [0, 2^31)): of the first vectors and all draws; one thread and a seed repeat bit for bit.
        bar (bool): show a progress bar; default: on a terminal.

    Raises:
        TypeError, ValueError: a parameter is of a wrong type or out of range.

    Source:
        word2vec.c (Mikolov et al. 2013): first input vectors uniform in (-0.5, 0.5) / D, output vectors zero.
    """
    vector_size, epochs = _check.integer("vector_size", vector_size, 1), _check.integer("epochs", epochs, 1)
    alpha, min_alpha = _check.real("alpha", alpha, 0), _check.real("min_alpha", min_alpha, 0)
    seed = _check.integer("seed", seed, 0, 2**31 - 1)
    sampling = Sampling.from_counts(corpus.counts, sample=sample, ns_exponent=ns_exponent)
    rows = len(corpus.words)
    in_table, out_table = empty_table(rows, vector_size), empty_table(rows, vector_size)
    in_table[:] = (np.random.default_rng(seed).random((rows, vector_size), np.float32) - 0.5) / vector_size
    out_table[:] = 0
    fall = (alpha - min_alpha) / epochs
    losses: list[float] = []
    done, complete = 0, True
    started = time.perf_counter()
    with tqdm(
        total=epochs * corpus.tokens.size, unit=" words", unit_scale=True, disable=None if bar is None else not bar
    ) as shown:

        def progress(tokens: int, loss: float) -> None:
            nonlocal done
            done += tokens
            shown.set_postfix(loss=f"{loss:.3f}", refresh=False)
            shown.update(tokens)

        try:
            for epoch in range(epochs):
                shown.set_description(f"epoch {epoch + 1}/{epochs}")
                losses.append(
                    skipgram_epoch(
                        in_table, out_table, corpus.tokens, corpus.offsets, sampling,
                        window=window, negative=negative, lr=alpha - epoch * fall, lr_end=alpha - (epoch + 1) * fall,
                        seed=seed * 2**32 + epoch, progress=progress,
                    )
                )  # fmt: skip
        except KeyboardInterrupt:
            complete = False
    return Trained(in_table, losses, done, time.perf_counter() - started, complete)
