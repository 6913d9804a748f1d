"""From text to word vectors: reading, encoding, and the command line."""

from __future__ import annotations

import gzip
import lzma
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotrow
from hotrow import WordVectors, cli, text

POEM = "Tyger Tyger, burning bright,\nIn the forests of the night;\n\nWhat immortal hand or eye,\n"


def parse(path: Path) -> dict[str, list[float]]:
    """word2vec text format, read by its definition."""
    header, *lines = path.read_text(encoding="utf-8").split("\n")
    rows, width = map(int, header.split())
    assert lines.pop() == ""
    assert len(lines) == rows
    read = {word: [float(x) for x in numbers] for word, *numbers in (line.split(" ") for line in lines)}
    assert all(len(v) == width for v in read.values())
    return read


# --- text -------------------------------------------------------------------------------------------------------------


def test_tokenize() -> None:
    assert text.tokenize("Don't stop -- it's 42, Élan_vital; 'quoted' O''x") == [
        "don't", "stop", "it's", "42", "élan", "vital", "quoted", "o", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(("suffix", "opener"), [(".txt", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_files_are_read_as_they_are_packed(tmp_path: Path, suffix: str, opener: Any) -> None:
    path = tmp_path / f"poem{suffix}"
    with opener(path, "wb") as file:
        file.write(POEM.encode() + b"fearful \xff symmetry")
    assert list(text.read_sentences(path)) == [
        ["tyger", "tyger", "burning", "bright"],
        ["in", "the", "forests", "of", "the", "night"],
        [],
        ["what", "immortal", "hand", "or", "eye"],
        ["fearful", "symmetry"],
    ]


def test_words_are_numbered_by_frequency_then_appearance() -> None:
    corpus = text.encode([["b", "a", "c"], ["a", "rare"], [], ["c", "b", "d", "a", "d"]], 2)
    assert corpus.words == ["a", "b", "c", "d"]
    assert corpus.counts.tolist() == [3, 2, 2, 2]
    assert corpus.tokens.tolist() == [1, 0, 2, 0, 2, 1, 3, 0, 3]
    assert corpus.offsets.tolist() == [0, 3, 4, 9]
    assert (corpus.tokens.dtype, corpus.offsets.dtype, corpus.counts.dtype) == (np.int32, np.int64, np.int64)


def test_a_corpus_without_words_is_an_error() -> None:
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match=r"^the text has no words$"):
            text.encode(nothing)
    with pytest.raises(ValueError, match=r"^no word occurs 5 times among the text's 2: lower min_count$"):
        text.encode([["once"], ["twice"]])


def test_python_brings_english() -> None:
    words = {word for sentence in islice(text.python_sentences(), 2000) for word in sentence}
    assert {"the", "exception", "statement"} <= words


# --- command line -----------------------------------------------------------------------------------------------------


def test_demo_trains_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, saved = tmp_path / "poem.txt", tmp_path / "vectors.txt"
    path.write_text(POEM * 30)
    options = ["--vectors", str(saved), "--size", "8", "--epochs", "2", "--min-count", "1"]
    assert cli.main(["demo", "--corpus", str(path), *options, "tyger", "lamb"]) == 0
    shown, complaints = capsys.readouterr()
    assert "hotrow.gather(table, [4, 1, 3, 3]) is equal to the product." in shown
    assert "450 words, 13 different (each at least 1 times), read in " in shown
    assert f"13 vectors written to {saved} in word2vec text format" in shown
    assert "'lamb' is not among the words of the text" in complaints
    assert len(parse(saved)["tyger"]) == 8


def test_demo_writes_the_format_of_the_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, saved = tmp_path / "poem.txt", tmp_path / "vectors.npy"
    path.write_text(POEM * 30)
    options = ["--vectors", str(saved), "--size", "8", "--epochs", "1", "--min-count", "1"]
    assert cli.main(["demo", "--corpus", str(path), *options]) == 0
    assert f"13 vectors written to {saved} in .npy format" in capsys.readouterr().out
    assert WordVectors.load(saved).vectors.shape == (13, 8)


def test_demo_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent.txt"
    assert cli.main(["demo", "--corpus", str(absent)]) == 1
    assert capsys.readouterr().err == f"hotrow: [Errno 2] No such file or directory: {str(absent)!r}\n"
    (tmp_path / "empty.txt").touch()
    assert cli.main(["demo", "--corpus", str(tmp_path / "empty.txt")]) == 1
    assert capsys.readouterr().err == f"hotrow: {tmp_path / 'empty.txt'}: the text has no words\n"
    cut = tmp_path / "cut.txt.xz"
    cut.write_bytes(lzma.compress(POEM.encode() * 99)[:-40])
    assert cli.main(["demo", "--corpus", str(cut)]) == 1
    assert capsys.readouterr().err.startswith(f"hotrow: {cut}: ")
    assert sorted(os.listdir(tmp_path)) == ["cut.txt.xz", "empty.txt"]


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (".", "it is a directory"),
        ("nowhere/vectors.txt", "there is no directory"),
        ("poem.txt", "is the corpus: choose another name"),
        ("vectors.txt.gz", "compressed files are read, not written"),
    ],
)
def test_demo_refuses_a_bad_target_before_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], vectors: str, complaint: str
) -> None:
    poem = tmp_path / "poem.txt"
    poem.write_text(POEM)
    assert cli.main(["demo", "--corpus", str(poem), "--vectors", str(tmp_path / vectors)]) == 1
    shown, complaints = capsys.readouterr()
    assert complaint in complaints
    assert shown == ""
    assert poem.read_text() == POEM


@pytest.mark.parametrize(
    "option", ["--epochs=0", "--size=0", "--min-count=0", "--sample=-1", "--sample=nan", "--seed=-1"]
)
def test_demo_refuses_bad_numbers(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", option])
    assert stopped.value.code == 2
    assert f"argument {option.split('=')[0]}: must be at least " in capsys.readouterr().err


def test_demo_says_when_nothing_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "poem.txt").write_text(POEM)
    options = ["--vectors", str(tmp_path / "v"), "--size", "8", "--min-count", "1", "--sample", "1e-9"]
    assert cli.main(["demo", "--corpus", str(tmp_path / "poem.txt"), *options]) == 0
    assert "Nothing was trained: the text is too short for this --sample." in capsys.readouterr().out


def test_ctrl_c_ends_a_command_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(as_json: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hotrow, "show_config", stop)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "hotrow: stopped\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"hotrow {hotrow.__version__}\n"
