"""A day of work in minutes: python tests/soak.py --minutes 8

Operators, optimizers, epochs, files, threads, forks and Ctrl-C in turn, at random. Fails if memory, threads or open
files grow after the warm-up, if a result is wrong, or if nothing has ended for a minute: all stacks are then shown.
Needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import hotrow
from hotrow import HuffmanTree, Sampling, WordVectors, optim, text

HANG = 60  # seconds
GROWTH = (32, 2, 2)  # MB, threads, open files
ROWS, WIDTH, MOST = 20_000, 64, 30_000  # tables of 5 MB, work for several threads
TABLE = np.random.default_rng(0).standard_normal((ROWS, WIDTH), np.float32)
TOKENS = np.random.default_rng(1).integers(0, ROWS, 60_000).astype(np.int32)
SENTENCES = np.arange(0, TOKENS.size + 1, 100)
COUNTS = np.bincount(TOKENS, minlength=ROWS)
SAMPLING, TREE = Sampling.from_counts(COUNTS), HuffmanTree.from_counts(COUNTS)
OPTIMIZERS = (optim.SGD, optim.Adagrad, optim.RowwiseAdagrad, optim.RMSprop, optim.Adam, optim.AdamW)


def operators(rng: np.random.Generator) -> None:
    n = int(rng.integers(1, MOST))
    indices, out = rng.integers(0, ROWS, n), np.empty((n, WIDTH), np.float32)
    offsets = np.sort(np.r_[0, rng.integers(0, n + 1, n // 5), n])
    assert hotrow.gather(TABLE, indices, out=out) is out
    assert (out == TABLE[indices]).all()
    bags = hotrow.embedding_bag(TABLE, indices, offsets, mode=str(rng.choice(["sum", "mean", "sqrtn"])))
    gradient = np.zeros_like(TABLE)
    hotrow.scatter_add(gradient, indices, bags, offsets=offsets, mode="mean")
    rows, values = hotrow.coalesce(indices, bags, offsets=offsets, mode="mean")
    assert (gradient[rows] == values).all()
    try:
        hotrow.gather(TABLE, [ROWS])
    except IndexError:
        return
    raise AssertionError("no error")


def optimizers(rng: np.random.Generator) -> None:
    optimizer = OPTIMIZERS[rng.integers(len(OPTIMIZERS))](TABLE.copy(), lr=0.01)
    for _ in range(3):
        n = int(rng.integers(1, MOST))
        optimizer.step(rng.integers(0, ROWS, n), rng.standard_normal((n, WIDTH), np.float32))
    optimizer.load_state_dict(optimizer.state_dict())
    assert np.isfinite(optimizer.table).all()


def epoch(rng: np.random.Generator) -> None:
    tables = TABLE / 64, TABLE / 64
    words = {"tokens": TOKENS, "offsets": SENTENCES, "sampling": SAMPLING, "window": 2, "seed": int(rng.integers(99))}
    paths = bool(rng.integers(2))
    train = [[hotrow.skipgram_epoch, hotrow.cbow_epoch], [hotrow.skipgram_hs_epoch, hotrow.cbow_hs_epoch]][paths]
    assert np.isfinite(train[rng.integers(2)](*tables, **words, **({"tree": TREE} if paths else {})))


def files(rng: np.random.Generator) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, words = Path(folder) / "text", [f"w{i}" for i in rng.zipf(1.3, 20_000) % 3000]
        path.write_text(" ".join(words))
        found = text.encode_file(path, min_count=1, bar=False).words
        assert set(found) == set(words)
        saved = WordVectors(found, TABLE[: len(found)])
        saved.save(path.with_suffix(".bin"))
        assert WordVectors.load(path.with_suffix(".bin")).vectors.tobytes() == saved.vectors.tobytes()


def threads(rng: np.random.Generator) -> None:
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            operators(np.random.default_rng(seed))
        except BaseException as error:
            wrong.append(error)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in rng.integers(0, 2**32, 3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong, wrong


def _child(work: Callable[[], object]) -> int:
    """Fork; the child ends with status 0, 3 after Ctrl-C or 1."""
    faulthandler.cancel_dump_traceback_later()  # in the child it would wait for a thread that is not there
    child = os.fork()
    faulthandler.dump_traceback_later(HANG, exit=True)
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except KeyboardInterrupt:
        status = 3
    finally:
        os._exit(status)


def fork(rng: np.random.Generator) -> None:
    children = [_child(lambda: operators(rng)) for _ in range(2)]
    operators(rng)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def ctrl_c(rng: np.random.Generator) -> None:
    read, write = os.pipe()

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(write, b"!")
        while True:
            epoch(rng)

    child = _child(work)
    os.read(read, 1)
    time.sleep(0.1 * rng.random())
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    os.close(read)
    os.close(write)


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # glibc has it
SCENES = (operators, optimizers, epoch, files, threads, fork, ctrl_c)


def held() -> tuple[float, int, int]:
    """MB, threads and open files of this process, once what the C library keeps for later is given back."""
    _TRIM(0)
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return memory, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def run(seconds: float, seed: int = 0) -> tuple[Counter[str], float]:
    """How often each scene was played, and the MB by which the last third of the time holds more than the second.

    It is the median that counts: a table more or less is in memory after this scene or that one.
    """
    rng, played, start = np.random.default_rng(seed), Counter[str](), time.monotonic()
    thirds: list[list[tuple[float, int, int]]] = [[], [], []]
    while (third := int(3 * (time.monotonic() - start) / seconds)) < 3:
        faulthandler.dump_traceback_later(HANG, exit=True)
        scene = SCENES[rng.integers(len(SCENES)) if len(played) == len(SCENES) else len(played)]
        with hotrow.num_threads(int(rng.integers(1, 4))):
            scene(rng)
        played[scene.__name__] += 1
        thirds[third].append(held())
    faulthandler.cancel_dump_traceback_later()
    assert len(played) == len(SCENES), f"no time for more than {dict(played)}"
    before, after = (np.median(third, axis=0) for third in thirds[1:])
    for name, most, old, new in zip(("MB", "threads", "open files"), GROWTH, before, after, strict=True):
        assert new <= old + most, f"{old:.0f} {name} became {new:.0f}"
    return played, float(after[0] - before[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faulthandler.enable()
    played, grown = run(60 * options.minutes, options.seed)
    print(f"{dict(played)}; {held()[0]:.0f} MB, {grown:+.1f} from the second third to the last")


if __name__ == "__main__":
    main()
