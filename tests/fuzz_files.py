"""Damaged files for every reader, from the seeds in tests/seeds: python tests/fuzz_files.py --seconds 600 [KIND ...]

A file is read, and then written and read again to the same, or refused by a ValueError that names it. With
--atheris KIND, and what libFuzzer takes after it, Google's atheris looks for inputs by coverage: pip install atheris,
beside hotrow as wheels install it (it does not see what an editable installation loads).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

ATHERIS: Any = None
if "--atheris" in sys.argv:
    import atheris as ATHERIS  # type: ignore[import-not-found,no-redef]  # before what it is to instrument

with ATHERIS.instrument_imports(include=["hotrow"]) if ATHERIS else nullcontext():
    from hotrow import Word2Vec, WordVectors

SEEDS = Path(__file__).parent / "seeds"
KINDS = ("txt", "vec", "bin", "glove", "safetensors", "npy", "npy.vocab", "txt.gz", "bin.xz", "model")
_TELLING = np.frombuffer(b"0123456789 \n\r\t.-e\0\xff{}[]',\":", np.uint8)


def seeds(kind: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((SEEDS / kind).iterdir())]


def _same(a: WordVectors, b: WordVectors) -> bool:
    return a.words == b.words and np.array_equal(a.vectors, b.vectors, equal_nan=True)


def check(kind: str, data: bytes, folder: Path) -> bool:
    """Whether this is read as a file of its kind; AssertionError if something else than a refusal comes of it."""
    path = folder / f"v.{kind}"
    path.write_bytes(data)
    try:
        if kind == "model":
            model = Word2Vec.load(path)
            read, again = model.vectors, folder / "again.model"
            assert len(model.counts) == len(read.words)
        else:
            if kind == "npy.vocab":
                path = folder / "v.npy"
                np.save(path, np.arange(60, dtype=np.float32).reshape(12, 5))  # without words of its own
            read, again = WordVectors.load(path, mmap=kind == "npy"), folder / f"again.{kind.split('.')[0]}"
    except (ValueError, FileNotFoundError) as error:  # there is no vocabulary beside an array without words
        assert f"{folder}/v" in str(error), error
        assert kind == "npy" or isinstance(error, ValueError)
        return False
    assert len(read.vectors) == len(read.words) == len(set(read.words)) > 0
    try:
        (model if kind == "model" else read).save(again)
    except ValueError as error:  # readers take more words, such as those with a tab inside
        assert "format cannot hold the word" in str(error), error
        return True
    assert _same(Word2Vec.load(again).vectors if kind == "model" else WordVectors.load(again), read)
    return True


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, or with a few bytes changed, taken out, repeated or put in."""
    if rng.random() < 0.2:
        return content[: rng.integers(len(content) + 1)]
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        # Half of the time near the start, where headers are.
        i = int(rng.integers(1 + (len(changed) if rng.random() < 0.5 else min(len(changed), 150))))
        n = int(rng.integers(1, 9))
        telling = rng.choice(_TELLING, n).tobytes()
        kind = rng.integers(4)
        changed[i : i + n * (kind != 3)] = [telling, b"", bytes(changed[i : i + n]) * 2, telling][kind]
    return bytes(changed)


def run(kind: str, seed: int, folder: Path) -> Iterator[bool]:
    """Check the seeds, then for ever what becomes of them: what is read is changed further."""
    rng, known = np.random.default_rng(seed), seeds(kind)
    for data in known:
        assert check(kind, data, folder), "a seed was refused"
    while True:
        data = mutated(known[rng.integers(len(known))], rng)
        try:
            read = check(kind, data, folder)
        except Exception as error:
            raise AssertionError(f"{kind} of {data!r}: {type(error).__name__}: {error}") from error
        if read and len(data) < 10_000:
            known[len(known) if len(known) < 300 else rng.integers(300) :][:1] = [data]
        yield read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="for each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for kind in options.kinds or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            end, read = time.monotonic() + options.seconds, [0, 0]
            for accepted in run(kind, options.seed, Path(folder)):
                read[accepted] += 1
                if time.monotonic() > end:
                    break
            print(f"{kind}: {read[1]} read, {read[0]} refused", flush=True)


def main_atheris() -> None:
    """python tests/fuzz_files.py --atheris KIND [libFuzzer's options]"""
    kind = sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found")  # what libFuzzer keeps goes to the first directory that it is told
        found.mkdir()
        directories = [str(found), str(SEEDS / kind)]
        ATHERIS.Setup([sys.argv[0], *sys.argv[3:], *directories], lambda data: check(kind, data, Path(folder)) and None)
        ATHERIS.Fuzz()


if __name__ == "__main__":
    main_atheris() if ATHERIS else main()
