"""gensim's Word2Vec, trained by hotrow: `Word2Vec`, a subclass, or `patch()`, which changes gensim's own class.

    from hotrow.gensim import Word2Vec                  # in place of: from gensim.models import Word2Vec
    import hotrow.gensim; hotrow.gensim.patch()         # or this, and no other line changes

Building the vocabulary, the first vectors, `train` with its callbacks, files and everything after training are gensim's
code. hotrow takes the place of four steps of it:

- an epoch of skip-gram or CBOW, by hotrow.skipgram_epoch, cbow_epoch, skipgram_hs_epoch and cbow_hs_epoch, on
  `wv.vectors` and `syn1neg` or `syn1` in place. Negatives are drawn by `cum_table`, words kept by `sample_int` and
  paths are those of `wv`: gensim's own tables and tree.
- counting the words of a corpus_file, a LineSentence on a path or a PathLineSentences: natively, to the same
  vocabulary, and `cum_table`.
- reading these. They stay encoded for the epochs of a `train`, 4 bytes a word, in a temporary file beyond 67 million
  words; a file that changes is read again. Any other iterable is read again in each epoch, as by gensim, on the calling
  thread, while hotrow trains on what came before.

What differs:

- The contexts of a word share the negatives that skip-gram draws for it. gensim draws them for each pair.
- It uses up to `workers` threads, and at most hotrow.get_num_threads(). With one, the same corpus and seed give the
  same bits again.
- The learning rate falls from word to word. gensim holds it for a batch, and with corpus_file lets each thread fall
  only part of the way. batch_words and queue_factor mean nothing.
- gensim leaves out what a sentence has beyond 10,000 words. hotrow trains on it, but LineSentence and corpus_file cut
  lines there.
- In an epoch over a file the tables may be trained as copies: `wv.vectors` then holds its vectors when it has ended.
- The effective words that are logged and returned are those expected to be kept, not those that were.
- An error in the corpus ends `train` with that error and leaves the model as trained so far. gensim waits for ever.

What hotrow does not train goes to gensim's code, with one RuntimeWarning in a process for each reason: hs=1 with
negatives, vectors_lockf, a window or negative above 1000, a subclass with training of its own. FastText and Doc2Vec,
which are such, go there without one. Vectors that gensim's code would misread (no float32, or strided) hotrow trains if
it can, else it raises a TypeError or ValueError.
"""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Queue
from timeit import default_timer
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hotrow import _threads, ops
from hotrow._encode import Array
from hotrow.huffman import HuffmanTree
from hotrow.sampling import Sampling, _alias_table

try:
    from gensim.models import Doc2Vec, FastText, word2vec

    from hotrow._gensim_text import Chunk, Source, Text, encoded_chunks, numbered, read, slices, source_of
except ImportError as error:
    raise ImportError(f'hotrow.gensim needs gensim ({error}): pip install "hotrow[gensim]"') from error

__all__ = ["Word2Vec", "patch", "patched", "unpatch"]

_Gensim = word2vec.Word2Vec

# Copying a row there and back takes as long as 13 tokens gain from aligned rows: 14% at D = 100.
_PASS = 50  # tokens for each row
_MOST_COPIED = 256 << 20  # bytes

# Methods of gensim that hotrow takes the place of, and those whose work is then done too: hotrow may stand in for a
# class that has changed none of the latter.
_REPLACED = {
    name: getattr(_Gensim, name)
    for name in ("_train_epoch", "_train_epoch_corpusfile", "_scan_vocab", "make_cum_table")
}
_INCLUDED = {
    name: getattr(_Gensim, name)
    for name in (
        "_do_train_job", "_do_train_epoch", "_raw_word_count", "_get_thread_working_mem", "_worker_loop",
        "_worker_loop_corpusfile", "_job_producer", "_log_epoch_progress",
    )
}  # fmt: skip


# --- what hotrow trains -----------------------------------------------------------------------------------------------


def _not_trained(model: Any) -> str | None:
    """Why gensim has to train this model, or None."""
    for name, method in _INCLUDED.items():
        if getattr(type(model), name) is not method:
            return f"{type(model).__qualname__} has a {name} of its own"
    if model.hs and model.negative:
        return "it trains hierarchical softmax (hs=1) without negatives alone"
    if not np.all(model.wv.vectors_lockf == 1):
        return "it has no vectors_lockf"
    if model.window > 1000 or model.negative > 1000:
        return "window and negative can be at most 1000"
    return None


def _epoch_function(model: Any) -> Callable[..., float]:
    """What trains an epoch of a model that _not_trained has nothing against."""
    outputs = "syn1" if model.hs else "syn1neg"
    if (rows := len(getattr(model, outputs))) != len(model.wv):  # add_vector: gensim's code would step out of bounds
        raise ValueError(f"{outputs} has {rows} rows, wv {len(model.wv)}: added vectors cannot be trained")
    kind: dict[str, Any] = {"window": model.window, "shrink_windows": model.shrink_windows}
    if not model.sg:
        kind["cbow_mean"] = bool(model.cbow_mean)
    if model.hs:
        return partial(ops.skipgram_hs_epoch if model.sg else ops.cbow_hs_epoch, tree=_tree(model.wv), **kind)
    return partial(ops.skipgram_epoch if model.sg else ops.cbow_epoch, negative=model.negative, **kind)


def _tree(wv: Any) -> HuffmanTree:
    """gensim's tree. A single word has a path without nodes; the only one of no words is empty."""
    points, codes = (list(wv.expandos[name]) for name in ("point", "code"))
    offsets = np.cumsum([0, *map(len, points)])
    return HuffmanTree(offsets, np.concatenate(points).astype(np.int32), np.concatenate(codes).astype(np.uint8))


_warned: set[str] = set()


def _trains(model: Any) -> bool:
    """Whether hotrow trains this model; if not, say so once for each reason."""
    reason = _not_trained(model)
    if reason is None:
        return True
    _kept.pop(model, None)
    if reason not in _warned and not isinstance(model, (FastText, Doc2Vec)):
        _warned.add(reason)
        warnings.warn(f"gensim trains this model, not hotrow: {reason}", RuntimeWarning, stacklevel=4)
    return False


# --- what is kept of a model from build_vocab to the end of train -----------------------------------------------------


@dataclass
class _Kept:
    text: Text | None = None
    tables: tuple[Array, Array] | None = None
    sampling: Sampling | None = None


_kept: WeakKeyDictionary[Any, _Kept] = WeakKeyDictionary()


def _text(model: Any, source: Source) -> Text | None:
    """The text, numbered as the model's vectors are."""
    kept, wv = _kept.setdefault(model, _Kept()), model.wv
    encoded, kept.text = kept.text, None
    if encoded is None or encoded.source != source or (encoded.counts is None and encoded.words != wv.index_to_key):
        encoded = read(source)
    if encoded is not None:
        encoded = numbered(encoded, wv.key_to_index, wv.index_to_key)
    kept.text = encoded
    return encoded


def _sampling(model: Any) -> Sampling:
    """gensim's own tables: cum_table, which is there for negatives alone and ends with 2^31 - 1, and sample_int."""
    kept, size = _kept.setdefault(model, _Kept()), len(model.wv)
    keep = np.full(size, 2**32 - 1, np.uint32)
    if model.sample:
        keep[:] = model.wv.expandos["sample_int"][:size]
    if model.hs:
        return Sampling(keep, np.empty(0, np.uint32), np.empty(0, np.int32))
    tables = np.asarray(model.cum_table), keep
    if kept.sampling is None or kept.tables is None or not all(map(np.array_equal, tables, kept.tables)):
        mass = np.diff(tables[0].astype(np.float64), prepend=0.0)
        kept.sampling = Sampling(keep, *_alias_table(mass / mass.sum()))
        kept.tables = tables[0].copy(), keep
    return kept.sampling


# --- training ---------------------------------------------------------------------------------------------------------


_fewer = threading.Lock()


@contextmanager
def _at_most(workers: int) -> Iterator[None]:
    """hotrow's number of threads is one of the process: models with fewer workers take turns."""
    if workers >= _threads.count:
        yield
    else:
        with _fewer, _threads.num_threads(max(1, workers)):
            yield


@contextmanager
def _aligned(model: Any, tokens: int) -> Iterator[tuple[Array, Array]]:
    """Both tables of a model; for a pass over enough tokens copies whose rows are aligned, which are copied back."""
    tables = model.wv.vectors, model.syn1 if model.hs else model.syn1neg
    plain = all(table.dtype == np.float32 and table.ndim == 2 and table.flags.writeable for table in tables)
    if not plain or tokens < _PASS * len(tables[0]) or sum(table.nbytes for table in tables) > _MOST_COPIED:
        yield tables
        return
    copies = [ops.empty_table(*table.shape) for table in tables]
    for copy, table in zip(copies, tables, strict=True):
        copy[:] = table
    try:
        yield copies[0], copies[1]
    finally:
        for copy, table in zip(copies, tables, strict=True):
            table[:] = copy


class _StoppedError(Exception):
    """Ends a chunk that nobody waits for any more."""


def _behind(train: Callable[[Chunk], None], chunks: Iterator[Chunk], stop: threading.Event) -> None:
    """Train on each chunk in another thread while the next one is made in this one; `stop` ends it after an error."""
    with ThreadPoolExecutor(1) as trainer:
        training: Future[None] | None = None
        try:
            for chunk in chunks:
                if training is not None:
                    training.result()
                training = trainer.submit(train, chunk)
            if training is not None:
                training.result()
        except BaseException:
            stop.set()
            raise


def _train_on(
    model: Any, corpus: Any, cur_epoch: int, total_examples: int | None, total_words: int | None, report_delay: float,
    from_file: bool,
) -> tuple[int, int, int]:  # fmt: skip
    """One pass over a corpus, with gensim's accounts of it: words expected to be kept, words, chunks."""
    source = source_of(corpus)
    encoded = None if source is None else _text(model, source)
    chunks = encoded_chunks(corpus, model.wv.key_to_index) if encoded is None else slices(encoded)
    train_epoch, drawn = _epoch_function(model), _sampling(model)
    stop, no_queue = threading.Event(), Queue[Any]()
    started, next_report = default_timer() - 0.00001, 1.0
    examples = raw = jobs = 0
    effective, lr = 0.0, model._get_next_alpha(0.0, cur_epoch)

    def progress(_: int, loss: float, terms: int) -> None:
        if model.compute_loss:
            model.running_training_loss += loss * terms
        if stop.is_set():
            raise _StoppedError

    def train(chunk: Chunk) -> None:
        nonlocal examples, raw, jobs, effective, lr, next_report
        examples, raw, jobs = examples + chunk.examples, raw + chunk.raw, jobs + 1
        done = examples / total_examples if total_examples else raw / (total_words or raw or 1)
        lr_end = model._get_next_alpha(done, cur_epoch)
        with _at_most(model.workers):
            train_epoch(
                *tables, chunk.tokens, chunk.offsets, drawn, lr=lr, lr_end=lr_end,
                seed=int.from_bytes(model.random.bytes(8), "little"), progress=progress,
            )  # fmt: skip
        effective, lr = effective + float((drawn.keep[chunk.tokens] + 1.0).sum()) / 2**32, lr_end
        if (elapsed := default_timer() - started) >= next_report:
            model._log_progress(
                None, no_queue, cur_epoch, examples, total_examples, raw, total_words, effective, elapsed
            )
            next_report = elapsed + report_delay

    with _aligned(model, 0 if encoded is None else encoded.tokens.size) as tables:
        _behind(train, chunks, stop)
    if jobs == 0 and model.train_count == 0:
        word2vec.logger.warning(
            "train() called with an empty iterator (if not intended, "
            "be sure to provide a corpus that offers restartable iteration = an iterable)."
        )
    elapsed = default_timer() - started
    model._log_epoch_end(cur_epoch, examples, total_examples, raw, total_words, round(effective), elapsed, from_file)
    model.total_train_time += elapsed
    return round(effective), raw, jobs


def _epoch(model: Any, corpus: Any, cur_epoch: int, *more: Any) -> tuple[int, int, int]:
    """_train_on, which keeps what it has encoded for the epochs still to come."""
    last = True
    try:
        done = _train_on(model, corpus, cur_epoch, *more)
        last = cur_epoch + 1 >= model.epochs
        return done
    finally:
        if last:
            _kept.pop(model, None)


# --- methods of gensim's class, with its signatures -------------------------------------------------------------------


def _train_epoch(
    self: Any, data_iterable: Any, cur_epoch: int = 0, total_examples: int | None = None,
    total_words: int | None = None, queue_factor: int = 2, report_delay: float = 1.0, callbacks: Any = (),
) -> Any:  # fmt: skip
    if _trains(self):
        return _epoch(self, data_iterable, cur_epoch, total_examples, total_words, report_delay, False)
    return _REPLACED["_train_epoch"](
        self, data_iterable, cur_epoch, total_examples, total_words, queue_factor, report_delay, callbacks
    )


def _train_epoch_corpusfile(
    self: Any, corpus_file: Any, cur_epoch: int = 0, total_examples: int | None = None,
    total_words: int | None = None, callbacks: Any = (), **kwargs: Any,
) -> Any:  # fmt: skip
    if total_words and _trains(self):
        lines = word2vec.LineSentence(corpus_file)
        return _epoch(self, lines, cur_epoch, total_examples, total_words, 1.0, True)
    return _REPLACED["_train_epoch_corpusfile"](
        self, corpus_file, cur_epoch, total_examples, total_words, callbacks, **kwargs
    )


def _scan_vocab(self: Any, sentences: Any, progress_per: int, trim_rule: Any) -> Any:
    source = None if self.max_vocab_size or isinstance(self, (FastText, Doc2Vec)) else source_of(sentences)
    encoded = None if source is None else read(source)
    if encoded is None or encoded.counts is None:
        return _REPLACED["_scan_vocab"](self, sentences, progress_per, trim_rule)
    self.raw_vocab = defaultdict(int, zip(encoded.words, encoded.counts.tolist(), strict=True))
    _kept[self] = _Kept(encoded)
    return encoded.total, encoded.sentences


def _make_cum_table(self: Any, domain: int = 2**31 - 1) -> None:
    """gensim's sums, in its order, but each power once."""
    if not len(self.wv) or isinstance(self, (FastText, Doc2Vec)):
        _REPLACED["make_cum_table"](self, domain)
        return
    counts, place = np.unique(self.wv.expandos["count"][: len(self.wv)], return_inverse=True)
    mass = np.array([count ** float(self.ns_exponent) for count in counts])
    reached = np.cumsum(mass[place])
    self.cum_table = np.rint(reached / reached[-1] * domain).astype(np.uint32)


_METHODS: dict[str, Any] = {
    "_train_epoch": _train_epoch,
    "_train_epoch_corpusfile": _train_epoch_corpusfile,
    "_scan_vocab": _scan_vocab,
    "make_cum_table": _make_cum_table,
}


# --- public -----------------------------------------------------------------------------------------------------------


class Word2Vec(word2vec.Word2Vec):  # type: ignore[misc]  # gensim has no types
    """gensim.models.Word2Vec with the same arguments, attributes and methods, trained by hotrow.

    `save` writes a model of gensim's class, which gensim loads where hotrow is not installed; `load` here makes it a
    Word2Vec of hotrow again. pickle.dumps keeps the class, and with it the need of hotrow.

    Source:
        gensim 4.4, models/word2vec.py.
    """

    _train_epoch = _train_epoch
    _train_epoch_corpusfile = _train_epoch_corpusfile
    _scan_vocab = _scan_vocab
    make_cum_table = _make_cum_table

    def save(self, *args: Any, **kwargs: Any) -> None:
        """gensim's save(fname, ...), for gensim's load.

        Raises:
            OSError: a file cannot be written.
        """
        plain = _Gensim.__new__(_Gensim)
        plain.__dict__ = self.__dict__
        plain.save(*args, **kwargs)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        """gensim's load(fname, ...), of a model that either class saved.

        Raises:
            OSError: a file cannot be read.
            AttributeError: it is no model of Word2Vec.
        """
        model = super().load(*args, **kwargs)
        if type(model) is _Gensim:
            model.__class__ = cls
        return model


_lock = threading.Lock()
_asked, _within = False, 0  # patch() was called last; blocks of patched() that are open


def _put() -> None:
    """Methods of gensim's class as they should be now; one that someone else has put there since stays."""
    wanted = _asked or _within > 0
    for name, ours in _METHODS.items():
        before, after = (_REPLACED[name], ours) if wanted else (ours, _REPLACED[name])
        if vars(_Gensim)[name] is before:
            setattr(_Gensim, name, after)


def patch() -> None:
    """Let gensim.models.Word2Vec itself train with hotrow, for whoever imported it, now or before, and for models that
    are there already. FastText and Doc2Vec train as ever. Models are gensim's, and so are their files and pickles.
    Calling it again changes nothing.
    """
    global _asked
    with _lock:
        _asked = True
        _put()


def unpatch() -> None:
    """Give gensim its own methods back, once blocks of `patched` that are open have ended."""
    global _asked
    with _lock:
        _asked = False
        _put()


@contextmanager
def patched() -> Iterator[None]:
    """Within a `with` block, `patch`: in the whole process, and until the last of such blocks has ended."""
    global _within
    with _lock:
        _within += 1
        _put()
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            _put()
