"""The command line: hotrow info, hotrow demo."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import hotrow
from hotrow import reference, text
from hotrow.vectors import WordVectors
from hotrow.word2vec import train_skipgram


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hotrow", description="Embedding tables, fast on the CPU.")
    parser.add_argument("--version", action="version", version=f"hotrow {hotrow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    info = commands.add_parser("info", help="what this installation is and what it found on this machine")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    demo = commands.add_parser("demo", help="a lookup is a one-hot product; then train word vectors on real English")
    demo.add_argument("--corpus", type=Path, help="train on this text (.txt, .gz, .xz), a sentence a line")
    demo.add_argument("--vectors", type=Path, default=Path("vectors.txt"), help="where to write (default %(default)s)")
    demo.add_argument("--size", type=int, default=100, help="length of a vector (default %(default)s)")
    demo.add_argument("--epochs", type=int, help="passes over the text (default 20; 1 with --corpus)")
    demo.add_argument("--min-count", type=int, default=5, help="leave out rarer words (default %(default)s)")
    demo.add_argument(
        "--sample", type=float, default=1e-4, help="thin out words above this share (default %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=1, help="of all random draws (default %(default)s)")
    demo.add_argument("words", nargs="*", help="show the neighbours of these words")
    demo.set_defaults(run=_demo)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
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
    assert (rows == product).all()
    print(f"\nhotrow.gather(table, {indices.tolist()}) is equal to the product.\n")


def _demo(args: argparse.Namespace) -> int:
    _show_lookup()
    started = time.perf_counter()
    if args.corpus:
        print(f"Reading {args.corpus} ...", flush=True)
        sentences = text.read_sentences(args.corpus)
    else:
        print("Reading the English that ships with Python: its language reference and docstrings ...", flush=True)
        sentences = text.python_sentences()
    corpus = text.encode(sentences, args.min_count)
    print(
        f"{corpus.tokens.size:,} words in {corpus.offsets.size - 1:,} sentences, {len(corpus.words):,} different, "
        f"{time.perf_counter() - started:.1f} s\n"
    )
    epochs = args.epochs or (1 if args.corpus else 20)
    threads = hotrow.get_num_threads()
    print(f"Skip-gram with negative sampling, {args.size} dimensions, {epochs} epochs, {threads} threads", flush=True)
    trained = train_skipgram(corpus, vector_size=args.size, epochs=epochs, sample=args.sample, seed=args.seed)
    state = "" if trained.complete else " (stopped early)"
    losses = " -> ".join(f"{loss:.3f}" for loss in (trained.losses[:1] + trained.losses[1:][-1:])) or "none"
    rate = trained.tokens / trained.seconds / 1e6
    print(
        f"{trained.tokens:,} words in {trained.seconds:.2f} s: {rate:.1f} million words/s{state}; mean loss {losses}\n"
    )
    vectors = WordVectors(corpus.words, trained.vectors)
    for word in args.words or _telling_words(vectors):
        near = vectors.most_similar(word, 6) if word in vectors else None
        print(f"  {word:>12}  " + ("   ".join(f"{w} {c:.2f}" for w, c in near) if near else "(not in the vocabulary)"))
    vectors.save_word2vec(args.vectors)
    print(f"\n{len(vectors):,} vectors written to {args.vectors} in word2vec text format")
    return 0


def _telling_words(vectors: WordVectors) -> list[str]:
    """A few words to show neighbours of: favourites that the vocabulary has, then its middling frequent ones."""
    favourites = ("server", "three", "january", "tuple", "exception", "river", "king", "church", "paris", "guitar")
    found = [w for w in favourites if w in vectors]
    return (found + [w for w in vectors.words[100:2000:300] if w not in found])[:7]
