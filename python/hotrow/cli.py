"""The command line: hotrow info, hotrow demo, hotrow word2vec, hotrow similar."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hotrow
from hotrow import _formats, reference, text
from hotrow._files import check_target
from hotrow.vectors import WordVectors
from hotrow.word2vec import Word2Vec

# Words with telling neighbours in most English text, and in Python's own.
_FAVOURITES = ("three", "january", "river", "king", "church", "music", "exception", "dictionary", "dir", "bytes")


def _at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(value: str) -> float:
        number = kind(value)
        if not least <= number < np.inf:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return number

    parse.__name__ = kind.__name__  # argparse names it where the value is no number at all
    return parse


def _flag(value: str) -> int:
    if value not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"must be 0 or 1, not {value}")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hotrow", description="Embedding tables, fast on the CPU.")
    parser.add_argument("--version", action="version", version=f"hotrow {hotrow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    info = commands.add_parser("info", help="what this installation is and what it found on this machine")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    about = "Show that a lookup is a one-hot product, then train word vectors on real English."
    more = "Ctrl-C ends the training and keeps what it has. HOTROW_NUM_THREADS sets the threads."
    demo = commands.add_parser("demo", help=about, description=about, epilog=more)
    whole, size = _at_least(1, int), "(default %(default)s)"
    demo.add_argument("--corpus", metavar="FILE", type=Path, help="train on this .txt, .gz or .xz, a sentence a line")
    demo.add_argument("--vectors", metavar="FILE", type=Path, default="vectors.txt", help=f"where to write {size}")
    demo.add_argument("--size", metavar="N", type=whole, default=100, help=f"length of a vector {size}")
    demo.add_argument("--epochs", metavar="N", type=whole, help="passes over the text (default 20; 1 with --corpus)")
    demo.add_argument("--min-count", metavar="N", type=whole, default=5, help=f"leave out rarer words {size}")
    demo.add_argument(
        "--sample", metavar="SHARE", type=_at_least(0, float), default=1e-4, help=f"thin out more frequent words {size}"
    )
    demo.add_argument("--seed", metavar="N", type=_at_least(0, int), default=1, help=f"seed of all draws {size}")
    demo.add_argument("words", nargs="*", metavar="WORD", help="show the neighbours of these words")
    demo.set_defaults(run=_demo)
    _add_word2vec(commands)

    about = "Show the nearest words of each word; with --minus, of the sum of all: king woman --minus man."
    similar = commands.add_parser("similar", help="the nearest words in a file of word vectors", description=about)
    similar.add_argument(
        "vectors", metavar="VECTORS", type=Path, help="word2vec, GloVe, fastText .vec, safetensors, .npy"
    )
    similar.add_argument("words", nargs="+", metavar="WORD")
    similar.add_argument("--minus", action="append", default=[], metavar="WORD", help="take away; may be repeated")
    similar.add_argument("--topn", metavar="N", type=whole, default=10, help=f"how many {size}")
    similar.add_argument("--format", choices=_formats.FORMATS, help="of the file (default: what its suffix says)")
    similar.set_defaults(run=_similar)
    return parser


def _add_word2vec(commands: Any) -> None:
    about = "Train word vectors by skip-gram or CBOW on a text, a sentence a line, words between spaces."
    more = (
        "Ctrl-C ends the training and keeps what it has. Options may be written with one dash, as word2vec.c has them."
    )
    train = commands.add_parser("word2vec", help="train word vectors on a text", description=about, epilog=more)
    train.add_argument("corpus", metavar="CORPUS", type=Path, help=".txt, .gz or .xz, UTF-8")
    train.add_argument(
        "vectors",
        metavar="VECTORS",
        type=Path,
        help="where to write; its suffix says the format, word2vec text if none",
    )
    whole, number = _at_least(1, int), _at_least(0, float)
    for name, kind, default, what in (
        ("size", whole, 100, "length of a vector"),
        ("window", whole, 5, "most words to either side that are context"),
        ("sample", number, 1e-3, "thin out words more frequent than this share; 0: none"),
        ("negative", _at_least(0, int), 5, "negatives drawn for a word"),
        ("shared-negatives", _flag, 1, "0 draws them for each pair of skip-gram, as word2vec.c; slower"),
        ("hs", _flag, 0, "1 is hierarchical softmax, with -negative 0"),
        ("cbow", _flag, 0, "1 is CBOW, the default of word2vec.c"),
        ("iter", whole, 5, "passes over the text"),
        ("min-count", _at_least(0, int), 5, "leave out rarer words"),
        ("max-final-vocab", whole, None, "raise min-count until at most so many words stay (default: no limit)"),
        ("alpha", number, 0.025, "learning rate at the start"),
        ("min-alpha", number, 1e-4, "learning rate at the end"),
        ("ns-exponent", float, 0.75, "negatives are drawn by frequency to this power"),
        ("seed", _at_least(0, int), 1, "seed of all draws"),
        ("threads", whole, None, "default: HOTROW_NUM_THREADS, else all CPUs"),
        ("binary", _flag, 0, "1 writes word2vec binary"),
        ("checkpoint-every", number, 600, "seconds between checkpoints"),
    ):
        shown = what if default is None else f"{what} (default %(default)s)"
        train.add_argument(f"-{name}", f"--{name}", metavar="N", type=kind, default=default, help=shown)
    train.add_argument("-checkpoint", "--checkpoint", metavar="FILE", type=Path, help="what to go on from if stopped")
    train.add_argument("-resume", "--resume", action="store_true", help="go on from the checkpoint, at its settings")
    train.set_defaults(run=_word2vec)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    args = _parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"hotrow: {message}", file=sys.stderr)
    try:
        return int(args.run(args))
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, ImportError) as error:
        print(f"hotrow: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hotrow: stopped", file=sys.stderr)
        return 130


def _info(args: argparse.Namespace) -> int:
    hotrow.show_config(as_json=args.json)
    return 0


def _show_lookup() -> None:
    """A lookup equals the one-hot product."""
    table = np.arange(10, dtype=np.float32).reshape(5, 2) / 10
    indices = np.array([4, 1, 3, 3])
    rows = hotrow.gather(table, indices)
    product = reference.one_hot(indices, 5) @ table
    print("A lookup is a one-hot matrix times the table:\n")
    for i, one_hot, row in zip(indices, reference.one_hot(indices, 5), rows, strict=True):
        print(f"  {i}  ->  {one_hot.astype(int)} @ table  =  {row}  =  table[{i}]")
    if not (rows == product).all():
        raise ValueError(f"hotrow.gather gives {rows.tolist()}, the product is {product.tolist()}: please report this")
    print(f"\nhotrow.gather(table, {indices.tolist()}) is equal to the product.\n")


def _format_of(path: Path) -> str:
    return _formats.choose(path, None, default="word2vec")


def _read(args: argparse.Namespace) -> text.Corpus:
    started = time.perf_counter()
    if args.corpus:
        print(f"Reading {args.corpus}", flush=True)
        corpus = text.encode_file(args.corpus, min_count=args.min_count, tokenized=False)
    else:
        print("Reading the English that ships with Python: its language reference and docstrings", flush=True)
        paragraphs = tqdm(text.python_sentences(), unit=" paragraphs", unit_scale=True, leave=False, disable=None)
        try:
            corpus = text.encode(paragraphs, args.min_count)
        except ValueError as error:
            raise ValueError(f"text of Python: {error}") from error
    print(
        f"{corpus.tokens.size:,} words, {len(corpus.words):,} different (each at least {args.min_count} times), "
        f"read in {time.perf_counter() - started:.1f} s\n"
    )
    return corpus


def _report(model: Word2Vec) -> None:
    if not model.complete:
        print("Stopped by Ctrl-C: keeping what is trained so far.")
    rate = model.tokens / max(model.seconds, 1e-9) / 1e6
    print(f"{model.tokens:,} words in {model.seconds:.2f} s: {rate:.1f} million words/s", end="")
    first, *more = [f"{loss:.3f}" for loss in model.losses] or ["-"]
    print(f"; mean loss of a pair {first}" + (f", in the last epoch {more[-1]}" if more else "") + "\n")
    if model.complete and not any(model.losses):
        print("Nothing was trained: the text is too short for this --sample. Try --sample 0.\n")


def _write(vectors: WordVectors, path: Path, format: str) -> None:
    vectors.save(path, format)
    print(f"{len(vectors):,} vectors written to {path} in {_formats.FORMATS[format]} format")


def _word2vec(args: argparse.Namespace) -> int:
    format = _format_of(args.vectors)
    if args.binary:
        if _formats.choose(args.vectors, None, "word2vec-binary") != "word2vec-binary":
            raise ValueError(f"-binary 1, but the name of {args.vectors} says {_formats.FORMATS[format]}")
        format = "word2vec-binary"
    _formats.check_writable(args.vectors, format)
    check_target(args.vectors, args.corpus)
    if args.resume and not args.checkpoint:
        raise ValueError("-resume needs -checkpoint FILE")
    if args.checkpoint and args.checkpoint.resolve() == args.vectors.resolve():
        raise ValueError(f"{args.vectors} is the checkpoint too: choose another name")
    keep = {"checkpoint": args.checkpoint, "checkpoint_every": args.checkpoint_every}
    if args.resume:
        model = Word2Vec.resume(args.checkpoint, args.corpus, **keep)
    else:
        model = Word2Vec(
            vector_size=args.size, window=args.window, min_count=args.min_count, sample=args.sample,
            negative=args.negative, shared_negatives=bool(args.shared_negatives), ns_exponent=args.ns_exponent,
            alpha=args.alpha, min_alpha=args.min_alpha, epochs=args.iter, seed=args.seed, sg=1 - args.cbow, hs=args.hs,
            max_final_vocab=args.max_final_vocab, threads=args.threads,
        )  # fmt: skip
        model.fit(args.corpus, **keep)
    _report(model)
    _write(model.vectors, args.vectors, format)
    return 0


def _demo(args: argparse.Namespace) -> int:
    format = _format_of(args.vectors)
    _formats.check_writable(args.vectors, format)
    check_target(args.vectors, args.corpus)
    _show_lookup()
    corpus = _read(args)
    asked = [word.lower() for word in args.words]
    for word in asked:
        if word not in corpus.words:
            print(f"hotrow: {word!r} is not among the words of the text", file=sys.stderr)
    epochs = args.epochs or (1 if args.corpus else 20)
    passes = f"{epochs} epoch{'s' * (epochs > 1)}"
    print(f"Skip-gram with negative sampling, {args.size} dimensions, {passes}, {hotrow.get_num_threads()} threads")
    sys.stdout.flush()
    model = Word2Vec(vector_size=args.size, epochs=epochs, sample=args.sample, seed=args.seed).fit(corpus)
    _report(model)
    vectors = model.vectors
    for word in asked or _telling_words(vectors):
        if word in vectors:
            near = vectors.most_similar(word, topn=5)
            print(f"  {word:>10}  " + "  ".join(f"{other} {cosine:.2f}" for other, cosine in near))
    print()
    _write(vectors, args.vectors, format)
    return 0


def _similar(args: argparse.Namespace) -> int:
    format = _formats.choose(args.vectors, args.format)
    vectors = WordVectors.load(args.vectors, format, errors="replace", mmap=format == "npy")
    unknown = [repr(word) for word in [*args.words, *args.minus] if word not in vectors]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not among the {len(vectors):,} words of {args.vectors}")
    for positive in [args.words] if args.minus else [[word] for word in args.words]:
        print(" + ".join(positive) + "".join(f" - {word}" for word in args.minus))
        for word, cosine in vectors.most_similar(positive, args.minus, args.topn):
            print(f"  {cosine:6.3f}  {word}")
    return 0


def _telling_words(vectors: WordVectors) -> list[str]:
    """A few words to show neighbours of: favourites frequent enough to have learned something, else frequent words."""
    frequent = vectors.words[: max(50, len(vectors) // 10)]
    found = [word for word in _FAVOURITES if word in frequent]
    return (found + [word for word in frequent[20::40] if word not in found])[:6]
