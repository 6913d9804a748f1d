"""Files when the process is killed or the disk is full: the old file or the new one, never half, and nothing left over.

Each writer in turn replaces one of two contents by the other.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from conftest import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills and limits processes as Linux does")

WRITERS = ["v.txt", "v.glove", "v.bin", "v.safetensors", "v.npy", "model", "checkpoint"]

# write(i) writes content i, 0 or 1; read() tells which is there. The contents differ in length and in every word.
SCENE = """
import os, resource, signal, sys, time
import numpy as np, hotrow
from hotrow import Word2Vec, WordVectors, _encode, text
from hotrow._model_file import Reader
folder, name = sys.argv[1:]
path = os.path.join(folder, name)
hotrow.set_num_threads(1)
lines = [[f"{'ab'[i]}{k % (200 + 50 * i)}" for k in range(3000)] for i in (0, 1)]
models = [Word2Vec(vector_size=30 + i, epochs=1, min_count=1, seed=i).fit(lines[i : i + 1], bar=False) for i in (0, 1)]
vectors = [m.vectors for m in models]
def write(i):
    if name == "model":
        models[i].save(path)
    elif name == "checkpoint":  # at the start, after each block of 1024 words and at the end
        Word2Vec(vector_size=30 + i, epochs=1, min_count=1, seed=i).fit(
            lines[i : i + 1], checkpoint=path, checkpoint_every=0, bar=False)
    else:
        vectors[i].save(path)
def read():
    if name in ("model", "checkpoint"):
        found = Word2Vec.load(path)
        i = int(found.vectors.words == vectors[1].words)
        if name == "checkpoint":
            found = Word2Vec.resume(path, lines[i : i + 1], checkpoint=os.path.join(folder, "other"), bar=False)
            if os.path.exists(os.path.join(folder, "other")):
                os.unlink(os.path.join(folder, "other"))
        assert found._out_table.tobytes() == models[i]._out_table.tobytes()
        found = found.vectors
    else:
        found = WordVectors.load(path)
        i = int(found.words == vectors[1].words)
    assert found.words == vectors[i].words and found.vectors.tobytes() == vectors[i].vectors.tobytes()
    return i
def left():
    return [entry for entry in os.listdir(folder) if entry.endswith(".part")]
usual = {name, name + ".vocab"} if name.endswith(".npy") else {name}
def in_child(run):
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    return child
def kills(run, longest, seed):
    # Runs this in 25 children, each killed within so many seconds; control comes back after each.
    rng = np.random.default_rng(seed)
    for _ in range(25):
        child = in_child(run)
        time.sleep(longest * rng.random())
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        yield
"""

KILL = """
def at_event(number):
    # Kill this process where it touches files for the number-th time.
    count = 0
    def hook(event, args):
        nonlocal count
        if event == "open" or event.startswith(("os.", "tempfile.", "fcntl.")):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
def endless():
    while True:
        write(0)
        write(1)
def replace():
    at_event(number)
    write(1)
seen = set()
write(0)
for number in range(1, 1000):
    child = in_child(replace)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen.add((status, read()))
    assert len(left()) <= 2, left()
    if status == 0:
        break
    write(0)
    assert set(os.listdir(folder)) == usual, os.listdir(folder)
assert (0, 1) in seen and (-9, 0) in seen, seen
for _ in kills(endless, 0.03, seed=1):
    read()
    assert len(left()) <= 2, left()
write(1)
assert read() == 1 and set(os.listdir(folder)) == usual, os.listdir(folder)
print(number)
"""


@pytest.mark.parametrize("name", WRITERS)
def test_killed_writers_leave_the_old_or_the_new(tmp_path: Path, name: str) -> None:
    """At every event Python tells of (opening, renaming, changing modes), then at random moments."""
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    assert int(run_python(SCENE + KILL, str(tmp_path), name).stdout) > 3


CONCURRENT = """
import multiprocessing
def save(i):
    for _ in range(40):
        write(i)
        read()
callers = [multiprocessing.get_context("fork").Process(target=save, args=(i % 2,)) for i in range(4)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert [caller.exitcode for caller in callers] == [0] * 4
assert os.listdir(folder) == [name], os.listdir(folder)
"""


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """None takes the part of another for one that was left."""
    run_python(SCENE + CONCURRENT, str(tmp_path), "v.bin")


# The limit is met at every kilobyte of the file, the last ones too.
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
write(1)
size = max(os.path.getsize(os.path.join(folder, entry)) for entry in usual)
write(0)
before = {entry: open(os.path.join(folder, entry), "rb").read() for entry in usual}
limits = [*range(0, size, max(1024, size // 12)), size - 4097, size - 4096, size - 1024, size - 1]
for limit in limits:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(1)
    except OSError as error:
        assert path in str(error) and error.errno, repr(error)
    else:
        raise AssertionError(f"no error at {limit} of {size} bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert name == "checkpoint" or read() == 0
    assert {entry: open(os.path.join(folder, entry), "rb").read() for entry in os.listdir(folder)} == before or (
        name == "checkpoint" and set(os.listdir(folder)) == usual)
write(1)
assert read() == 1 and set(os.listdir(folder)) == usual
os.unlink(path)
os.symlink("/dev/full", path)
try:
    write(1)
except OSError as error:
    assert "/dev/full" in str(error) and error.errno, repr(error)
else:
    raise AssertionError("/dev/full took it")
"""


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    """A limit on the size of files stands for the disk; then a device that is full, which is written to as it is."""
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    run_python(SCENE + FULL, str(tmp_path), name)


ENCODE = """
_encode.MEMORY = 4096
open(os.path.join(folder, "text"), "w").write("a b c d e f g h\\n" * 50_000)
def encode():
    while True:
        text.encode_file(os.path.join(folder, "text"), directory=folder, bar=False, threads=1, block_size=20_000)
for _ in kills(encode, 0.05, seed=2):
    assert os.listdir(folder) == ["text"], os.listdir(folder)
"""


def test_a_killed_encode_leaves_nothing(tmp_path: Path) -> None:
    """Its files have no names."""
    run_python(SCENE + ENCODE, str(tmp_path), "v.txt")


MAPPED = """
vectors[0].save(path)
mapped = WordVectors.load(path, mmap=True)
vectors[1].save(path)
assert mapped.vectors.tobytes() == vectors[0].vectors.tobytes() and read() == 1
mapped = WordVectors.load(path, mmap=True).vectors
os.truncate(path, 4096)
assert hotrow.gather(mapped, [0]).tobytes() == vectors[1].vectors[:1].tobytes()
print("cut", flush=True)
hotrow.gather(mapped, [len(mapped) - 1])
print("read", flush=True)
"""


def test_a_map_outlives_a_save_and_not_a_cut(tmp_path: Path) -> None:
    """As docs/files.md says."""
    done = run_python(SCENE + MAPPED, str(tmp_path), "v.npy", ok=False)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "cut\n"), done.stderr
