"""Word2Vec: word vectors from a corpus, by skip-gram or CBOW, with negative sampling or hierarchical softmax."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hotrow import _check, _corpus, _model_file, _threads
from hotrow._files import StrPath, check_target
from hotrow._interrupt import interrupt_later
from hotrow.huffman import HuffmanTree
from hotrow.ops import cbow_epoch, cbow_hs_epoch, empty_table, skipgram_epoch, skipgram_hs_epoch
from hotrow.sampling import Sampling
from hotrow.text import Corpus
from hotrow.vectors import WordVectors

Callback = Callable[["Word2Vec", int, float], object]

_EVERY = 600.0  # seconds between checkpoints
_ROWS = 4096  # first vectors drawn at a time

# What trains for an epoch, by (sg, hs).
_EPOCHS: dict[tuple[int, int], Callable[..., float]] = {
    (1, 0): skipgram_epoch,
    (0, 0): cbow_epoch,
    (1, 1): skipgram_hs_epoch,
    (0, 1): cbow_hs_epoch,
}


@dataclass
class _Run:
    """Where a call of fit or partial_fit stands."""

    epochs: int
    fingerprint: list[int]  # of the corpus
    extended: bool  # the vocabulary was there before the corpus
    epoch: int = 0  # epochs done
    tokens: int = 0  # done in this epoch
    loss: float = 0.0  # of these, summed over pairs
    pairs: int = 0
    finished: bool = False


class _Options(NamedTuple):
    """How a call of fit, partial_fit or resume shows and keeps what it does."""

    bar: bool | None
    callbacks: tuple[Callback, ...]
    checkpoint: StrPath | None
    checkpoint_every: float


def _options(
    corpus: Any, bar: bool | None, callbacks: Iterable[Callback], checkpoint: StrPath | None, every: float
) -> _Options:
    if bar is not None:
        bar = _check.boolean("bar", bar)
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a sequence of callables, not {type(callbacks).__name__}")
    callbacks = tuple(callbacks)
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            raise TypeError(f"callbacks[{i}] must be callable, not {type(callback).__name__}")
    if checkpoint is not None:
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be a path, not {type(checkpoint).__name__}")
        check_target(checkpoint, corpus if isinstance(corpus, (str, os.PathLike)) else None)
    return _Options(bar, callbacks, checkpoint, _check.real("checkpoint_every", every, 0))


class Word2Vec:
    """Word vectors, trained on all threads by skip-gram or CBOW, with negative sampling or hierarchical softmax
    (hotrow.skipgram_epoch, cbow_epoch, skipgram_hs_epoch, cbow_hs_epoch).

    Parameters have gensim's names and are attributes, which may be changed between calls. Skip-gram, sg=1, is the
    default; gensim's is CBOW, sg=0. Memory: two tables, float32[V, D], and the encoded
    corpus, which goes to a temporary file beyond 67 million words. One thread and a seed give the same bits again; more
    threads update without locks (Hogwild).

    Args:
        vector_size (int): D; default 100.
        window (int in [1, 1000]): most words to either side that are a word's context; default 5.
        min_count (int >= 0): rarer words are left out; default 5.
        sample (float): words more frequent than this share are thinned; 0 keeps all; default 1e-3.
        negative (int in [0, 1000]): negatives drawn for a word; default 5.
        shared_negatives (bool): the contexts of a word share them, the default, or each has its own, as in word2vec.c
            and gensim, which takes longer; of skip-gram with negatives alone, else it means nothing.
        ns_exponent (float): they are drawn by frequency to this power; default 0.75.
        alpha, min_alpha (float): the learning rate falls linearly from one to the other; default 0.025, 1e-4.
        epochs (int): passes over the corpus; default 5.
        seed (int in [0, 2^31)): of the first vectors and all draws; default 1.
        sg (0 or 1): 1 is skip-gram, the default; 0 is CBOW.
        hs (0 or 1): 1 is hierarchical softmax, which needs negative=0: gensim would train both; 0, the default, is
            negative sampling.
        cbow_mean (bool): CBOW pools contexts by their mean, the default, or their sum.
        shrink_windows (bool): draw the windows of words from 1 to `window`; False: always `window`; default True.
        max_final_vocab (int >= 1): raise min_count until at most so many words stay; default: no limit.
        threads (int in [1, 4096]): default: hotrow.get_num_threads().

    Attributes:
        counts (int64[V]): how often each word was there.
        losses (list of float): mean loss of a pair, of CBOW a word, in each epoch trained, in float64; how time cuts an
            epoch into calls shows in the last digits.
        tokens (int): words the last call trained on, repeats included, before subsampling.
        seconds (float): time that took.

    Raises:
        TypeError, ValueError: a parameter is of a wrong type, out of range, or asks for what is not trained.

    Source:
        word2vec.c (Mikolov et al. 2013). Names and first vectors, uniform in (-1, 1) / D, output vectors zero:
        gensim's Word2Vec.
    """

    def __init__(
        self,
        *,
        vector_size: int = 100,
        window: int = 5,
        min_count: int = 5,
        sample: float = 1e-3,
        negative: int = 5,
        shared_negatives: bool = True,
        ns_exponent: float = 0.75,
        alpha: float = 0.025,
        min_alpha: float = 1e-4,
        epochs: int = 5,
        seed: int = 1,
        sg: int = 1,
        hs: int = 0,
        cbow_mean: bool = True,
        shrink_windows: bool = True,
        max_final_vocab: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.vector_size = _check.integer("vector_size", vector_size, 1)
        self.window = _check.integer("window", window, 1, 1000)
        self.min_count = _check.integer("min_count", min_count, 0)
        self.sample = _check.real("sample", sample, 0)
        self.negative = _check.integer("negative", negative, 0, 1000)
        self.shared_negatives = _check.boolean("shared_negatives", shared_negatives)
        self.ns_exponent = _check.real("ns_exponent", ns_exponent)
        self.alpha, self.min_alpha = _check.real("alpha", alpha, 0), _check.real("min_alpha", min_alpha, 0)
        self.epochs = _check.integer("epochs", epochs, 1)
        self.seed = _check.integer("seed", seed, 0, 2**31 - 1)
        self.sg, self.hs = _check.integer("sg", sg, 0, 1), _check.integer("hs", hs, 0, 1)
        if self.hs and self.negative:
            raise ValueError(
                f"negative = {self.negative} must be 0 where hs = 1: hierarchical softmax is trained without negatives"
            )
        self.cbow_mean = _check.boolean("cbow_mean", cbow_mean)
        self.shrink_windows = _check.boolean("shrink_windows", shrink_windows)
        self.max_final_vocab = max_final_vocab
        if max_final_vocab is not None:
            self.max_final_vocab = _check.integer("max_final_vocab", max_final_vocab, 1)
        self.threads = None if threads is None else _check.integer("threads", threads, 1, _threads.MAX)
        self.losses: list[float] = []
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.tokens, self.seconds = 0, 0.0
        self._run: _Run | None = None
        self._vectors: WordVectors | None = None
        self._out_table = empty_table(0, self.vector_size)

    def __repr__(self) -> str:
        words = "not trained" if self._vectors is None else f"{len(self._vectors)} words"
        return f"<Word2Vec: {words}, " + ", ".join(f"{k}={v}" for k, v in self._parameters().items()) + ">"

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in signature(Word2Vec).parameters}

    @property
    def vectors(self) -> WordVectors:
        """The words and their vectors, in the table that is trained, not in a copy.

        Raises:
            ValueError: there are none yet.
        """
        if self._vectors is None:
            raise ValueError("the model has no vectors before fit")
        return self._vectors

    @property
    def complete(self) -> bool:
        """Whether the last training went to its end, or to where a callback ended it."""
        return self._run is not None and self._run.finished

    def fit(
        self,
        corpus: Any,
        *,
        offsets: Any = None,
        bar: bool | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: StrPath | None = None,
        checkpoint_every: float = _EVERY,
    ) -> Self:
        """Train from the start. Ctrl-C ends it with what it has: `complete` is then False.

        Args:
            corpus: one of these; words are what str.split() gives, sentences may be of any length.

                - a path (str or PathLike) of UTF-8 text, a sentence a line; .gz and .xz are unpacked
                - an iterable of str, a sentence each
                - an iterable of lists of str
                - a hotrow.text.Corpus; min_count and max_final_vocab were for who made it
                - int32 or int64[T] word numbers from 0, with offsets: walks of a graph, baskets. The words are then
                  str(number). It is not copied unless min_count leaves out numbers, such as those that are never there
                  (min_count=0 leaves out none).
            offsets (int32 or int64[S + 1]): where each sentence starts in such an array, and T.
            bar (bool): show progress bars; default: on a terminal.
            callbacks (iterable of callables): each is called with (model, epoch, loss) after each epoch, counted from
                0; if one returns a true value, training ends: see hotrow.word2vec.early_stopping.
            checkpoint: a file to write at the start, at the end, on Ctrl-C and between; `resume` goes on from there.
            checkpoint_every (float): seconds between, at least 0; default 600.

        Returns:
            Word2Vec: the model itself.

        Raises:
            TypeError: the corpus is of no such kind; an option is of a wrong type.
            ValueError: no words, none that min_count leaves, a damaged file; an option out of range.
            IndexError: a word number is negative.
            OSError: a file cannot be read or written.
        """
        Word2Vec(**self._parameters())  # attributes may have been set since: check them again
        options = _options(corpus, bar, callbacks, checkpoint, checkpoint_every)
        encoded = self._encode(corpus, offsets, bar)
        self._vectors, self._out_table = None, empty_table(0, self.vector_size)
        self.losses, self.counts = [], np.zeros(0, np.int64)
        return self._start(encoded, options, self.epochs, extended=False)

    def partial_fit(
        self,
        corpus: Any,
        *,
        epochs: int | None = None,
        offsets: Any = None,
        bar: bool | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: StrPath | None = None,
        checkpoint_every: float = _EVERY,
    ) -> Self:
        """Train on with more text, at the learning rates of a whole fit. A model without vectors is fitted.

        Words that are known keep their vectors, however rare they are in the text; new ones that occur min_count times
        in it get rows at the end, the most frequent first, up to max_final_vocab words in all. Counts add up, and
        subsampling and negatives go by the sums. `vectors` is then another object. With hs=1 the tree is made anew of
        the sums, as gensim's build_vocab(update=True) does: inner nodes keep their vectors by number, so that where
        the paths differ they have to be learned again.

        Args:
            epochs (int): passes over this corpus; default: the model's.
            corpus and the others: as fit.

        Raises:
            TypeError, ValueError, IndexError, OSError: as fit; ValueError: no word is known or frequent enough.
        """
        Word2Vec(**self._parameters())
        options = _options(corpus, bar, callbacks, checkpoint, checkpoint_every)
        epochs = self.epochs if epochs is None else _check.integer("epochs", epochs, 1)
        extended = self._vectors is not None
        if extended and self.vector_size != (width := self.vectors.vectors.shape[1]):
            raise ValueError(
                f"vector_size = {self.vector_size} must be {width}, the length of the vectors that are there"
            )
        encoded = self._encode(corpus, offsets, bar, extended=extended)
        return self._start(encoded, options, epochs, extended)

    @classmethod
    def resume(
        cls,
        path: StrPath,
        corpus: Any,
        *,
        offsets: Any = None,
        bar: bool | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: StrPath | None = None,
        checkpoint_every: float = _EVERY,
    ) -> Word2Vec:
        """Go on with a training that was stopped, from its last checkpoint to the end it would have come to.

        Args:
            path: the checkpoint, or what `save` wrote.
            corpus: the same one, of whatever kind; it is not read if the training has come to its end.
            checkpoint: default: path.
            others: as fit.

        Raises:
            TypeError, ValueError, IndexError, OSError: as fit and load; ValueError: another corpus.
        """
        options = _options(corpus, bar, callbacks, path if checkpoint is None else checkpoint, checkpoint_every)
        model = cls.load(path)
        if model._run is None or model.complete:
            return model
        encoded = model._encode(corpus, offsets, bar, extended=model._run.extended, grow=False)
        if list(encoded.words) != list(model.vectors.words) or _corpus.fingerprint(encoded) != model._run.fingerprint:
            raise ValueError(f"this is not the corpus that {os.fspath(path)} was trained on")
        return model._train(encoded, options)

    def save(self, path: StrPath) -> None:
        """Write the whole model to a file that `load` and `resume` read: an .npz archive whatever its suffix.

        Raises:
            ValueError: there are no vectors yet.
            OSError: the file cannot be written; one that was there before is unchanged.
        """
        vectors = self.vectors
        assert self._run is not None
        about = {"parameters": self._parameters(), "losses": self.losses, "run": asdict(self._run)}
        tables = {"in_table": vectors.vectors, "out_table": self._out_table}
        _model_file.write(path, about | {"words": vectors.words}, counts=self.counts, **tables)

    @classmethod
    def load(cls, path: StrPath) -> Word2Vec:
        """Read a model, whole, from what `save` or a checkpoint wrote.

        Raises:
            ValueError: the file is damaged or no model.
            OSError: it cannot be read.
        """
        reader = _model_file.Reader(path)
        try:
            model = cls(**reader.about["parameters"])
            model.losses = [float(loss) for loss in reader.about["losses"]]
            model._run = _Run(**reader.about["run"])
            words = list(reader.about["words"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: this is no file of a model: {error}") from None
        model.counts = reader.array("counts", np.int64, (len(words),))
        tables = []
        for name in ("in_table", "out_table"):
            tables.append(empty_table(len(words), model.vector_size))
            tables[-1][:] = reader.array(name, np.float32, tables[-1].shape)
        model._vectors, model._out_table = WordVectors(words, tables[0]), tables[1]
        return model

    def _encode(
        self, corpus: Any, offsets: Any, bar: bool | None, *, extended: bool = False, grow: bool = True
    ) -> Corpus:
        """The corpus numbered by its own words or, extended, by the words that are known and, growing, new ones."""
        if not extended:
            return _corpus.encode(
                corpus, offsets, min_count=self.min_count, max_final_vocab=self.max_final_vocab, threads=self.threads,
                bar=bar,
            )  # fmt: skip
        known = self.vectors.words
        most = self.max_final_vocab if grow else len(known)
        encoded = _corpus.encode(corpus, offsets, min_count=0, threads=self.threads, bar=bar)
        return _corpus.extend(encoded, known, self.min_count, most)

    def _start(self, corpus: Corpus, options: _Options, epochs: int, extended: bool) -> Self:
        """Train on a corpus that is numbered by the model's words and, after them, new ones."""
        run = _Run(epochs, _corpus.fingerprint(corpus), extended)
        known, rows = self.counts.size, len(corpus.words)
        in_table, out_table = (empty_table(rows, self.vector_size) for _ in range(2))
        if known:
            in_table[:known], out_table[:known] = self.vectors.vectors, self._out_table
        draw = np.random.default_rng([self.seed, known] if known else self.seed)
        for i in range(known, rows, _ROWS):
            new = in_table[i : i + _ROWS]
            new[:] = (2 * draw.random(new.shape, np.float32) - 1) / self.vector_size
        out_table[known:] = 0
        counts = np.array(corpus.counts, np.int64)
        counts[:known] += self.counts
        self._vectors, self._out_table = WordVectors(corpus.words, in_table), out_table
        self.counts, self._run = counts, run
        return self._train(corpus, options)

    def _train(self, corpus: Corpus, options: _Options) -> Self:
        """From where the run stands to its end."""
        run, total = self._run, corpus.tokens.size
        assert run is not None
        sampling = Sampling.from_counts(self.counts, sample=self.sample, ns_exponent=self.ns_exponent)
        train_epoch = _EPOCHS[self.sg, self.hs]
        outputs: Any = {"tree": HuffmanTree.from_counts(self.counts)} if self.hs else {"negative": self.negative}
        if self.sg and not self.hs:
            outputs["shared_negatives"] = self.shared_negatives
        fall = (self.alpha - self.min_alpha) / run.epochs
        self.tokens, started = 0, time.perf_counter()
        self._keep(options.checkpoint)
        kept = time.monotonic()
        with ExitStack() as stack:
            if self.threads is not None:
                stack.enter_context(_threads.num_threads(self.threads))
            shown = stack.enter_context(
                tqdm(
                    total=run.epochs * total, initial=run.epoch * total + run.tokens, unit=" words", unit_scale=True,
                    disable=None if options.bar is None else not options.bar,
                )
            )  # fmt: skip
            stop_if_asked = stack.enter_context(interrupt_later())

            def progress(tokens: int, loss: float, pairs: int) -> None:
                nonlocal kept
                run.tokens, run.loss, run.pairs = run.tokens + tokens, run.loss + loss * pairs, run.pairs + pairs
                self.tokens += tokens
                shown.set_postfix(loss=f"{loss:.3f}", refresh=False)
                shown.update(tokens)
                if time.monotonic() - kept >= options.checkpoint_every:
                    self._keep(options.checkpoint)
                    kept = time.monotonic()
                stop_if_asked()

            try:
                while not run.finished:
                    shown.set_description(f"epoch {run.epoch + 1}/{run.epochs}")
                    train_epoch(
                        self.vectors.vectors, self._out_table, corpus.tokens, corpus.offsets, sampling,
                        **outputs, window=self.window, shrink_windows=self.shrink_windows,
                        lr=self.alpha - run.epoch * fall, lr_end=self.alpha - (run.epoch + 1) * fall,
                        seed=self.seed * 2**32 + len(self.losses), begin=run.tokens, progress=progress,
                        **({} if self.sg else {"cbow_mean": self.cbow_mean}),
                    )  # fmt: skip
                    loss = run.loss / run.pairs if run.pairs else 0.0
                    self.losses.append(loss)
                    run.epoch, run.tokens, run.loss, run.pairs = run.epoch + 1, 0, 0.0, 0
                    run.finished = run.epoch == run.epochs  # before callbacks, which may save
                    ended = [bool(callback(self, run.epoch - 1, loss)) for callback in options.callbacks]
                    run.finished |= any(ended)
            except KeyboardInterrupt:
                pass
            self.seconds = time.perf_counter() - started
            self._keep(options.checkpoint)
        return self

    def _keep(self, checkpoint: StrPath | None) -> None:
        if checkpoint is not None:
            self.save(checkpoint)


def early_stopping(patience: int = 1, min_delta: float = 0.0) -> Callback:
    """A callback that ends training when the loss has not fallen below its least by more than min_delta for `patience`
    epochs.

    Raises:
        TypeError, ValueError: patience is no integer of at least 1, or min_delta no number of at least 0.
    """
    patience, min_delta = _check.integer("patience", patience, 1), _check.real("min_delta", min_delta, 0)
    least, since = float("inf"), 0

    def stop(model: Word2Vec, epoch: int, loss: float) -> bool:
        nonlocal least, since
        since = 0 if loss < least - min_delta else since + 1
        least = min(least, loss)
        return since >= patience

    return stop
