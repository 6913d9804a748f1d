"""The documentation holds: blocks of Python run and print what stands below them, names and variables are all there.

Blocks of README.md and docs/ run in the order of their page, each page in a process and a directory of its own; those
of docs/how-embeddings-learn.md are its script's, which runs instead.
"""

from __future__ import annotations

import ast
import lzma
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent

import pytest

import hotrow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPT = DOCS / "how_embeddings_learn.py"
TEXT = DOCS / "how-embeddings-learn.md"
BACKENDS_OF_KERAS = ("torch", "jax", "tensorflow")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^ *[`~]{3,} *\{?(?:code-block\W+)?(?:i?py|text$)", re.MULTILINE)  # in whatever form

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the source distribution has no docs")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _pages() -> list[Path]:
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *DOCS.glob("**/*.md")])
    return [page for page in pages if page != TEXT and page.parent.name != "decisions" and PYTHON.search(_read(page))]


def _missing(code: str) -> str:
    """A framework that a block imports and that is not installed, or none."""
    nodes = list(ast.walk(ast.parse(code)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    needed = {name.removeprefix("hotrow.").split(".")[0] for name in imported} & {"torch", "keras", "gensim"}
    absent = [name for name in sorted(needed) if find_spec(name) is None]
    if "keras" in needed and not any(map(find_spec, BACKENDS_OF_KERAS)):
        absent.append("a backend of Keras")
    return " and ".join(absent)


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks(page: Path, tmp_path: Path) -> None:
    """Blocks in a program whose lines have the numbers of the page's, an end of block at each end."""
    text = _read(page)
    program = [""] * text.count("\n")
    blocks, skipped = [], ""
    assert len(PYTHON.findall(text)) == sum(1 + (block[2] is not None) for block in BLOCK.finditer(text))
    for block in BLOCK.finditer(text):
        skipped = _missing(block[1])
        if skipped and not blocks:
            break  # a page about this framework
        if not skipped:
            begin, code = text[: block.start(1)].count("\n"), block[1].splitlines()
            program[begin : begin + len(code) + 1] = [*code, r'print("\0", end="", flush=True)']
            blocks.append(block)
    if not blocks:
        pytest.skip(f"{skipped} not installed")
    (tmp_path / "page.py").write_text("\n".join(program), encoding="utf-8")
    sentences = [f"{a} sentence of {b} words\n" for a in ("one", "two", "ten") for b in ("few", "more")]
    (tmp_path / "corpus.txt.xz").write_bytes(lzma.compress("".join(sentences * 20).encode()))
    keras = next(filter(find_spec, BACKENDS_OF_KERAS), "")
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={"KERAS_BACKEND": keras, "TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    printed = done.stdout.split("\0")[:-1]
    assert len(printed) == len(blocks)
    for block, output in zip(blocks, printed, strict=True):
        assert block[2] is None or output == block[2], block[1]


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("hotrow", "__init__"),
        ("optim", "optim"),
        ("torch", "torch/__init__"),
        ("torch-optim", "torch/optim"),
        ("keras", "keras/__init__"),
        ("gensim", "gensim"),
    ],
)
def test_reference_has_every_public_name(page: str, module: str) -> None:
    """The reference against __all__ of the sources, no framework imported; modules have pages of their own."""
    source = ROOT / "python/hotrow" / f"{module}.py"
    public = ast.literal_eval(re.search(r"^__all__ = (\[.*?\])", _read(source), re.DOTALL | re.MULTILINE)[1])
    modules = {path.stem for path in source.parent.iterdir()}
    expected = [name for name in public if name not in modules]
    reference = _read(DOCS / f"reference/{page}.md")
    described = re.findall(r"^\.\. auto(?:class|function|data):: (\w+)$", reference, re.MULTILINE)
    assert sorted(described) == sorted(expected)


def test_reference_has_the_definitions() -> None:
    """Sphinx lists what is in its __all__: those with a docstring."""
    assert ".. automodule:: hotrow.reference\n   :members:" in _read(DOCS / "reference/reference.md")
    assert [name for name in hotrow.reference.__all__ if not getattr(hotrow.reference, name).__doc__] == []


def test_variables() -> None:
    """Every environment variable that the sources read is on the page about them, and none that they do not."""
    files = [*(ROOT / "python").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "tests/test_symbols.py"]
    sources = "".join(map(_read, [*files, ROOT / "pyproject.toml"]))
    read = re.findall(r'"((?:HOTROW|OMP|GOMP)_[A-Z_]+)"|env\.(HOTROW_\w+)', sources)
    page = _read(DOCS / "threads-and-environment.md") + _read(ROOT / "README.md").partition("## Threads and")[2]
    described = re.findall(r"^\| `((?:HOTROW|OMP|GOMP)_[A-Z_]+)", page, re.MULTILINE)
    assert sorted(set(described) | {"OMP_NUM_THREADS"}) == sorted({a or b for a, b in read})
    assert not any("getenv" in _read(file) for file in (ROOT / "csrc").rglob("*.cpp"))


def test_version() -> None:
    assert f"\nversion: {hotrow.__version__}\n" in _read(ROOT / "CITATION.cff")
    assert re.search(r"^## (\S+)", _read(ROOT / "CHANGELOG.md"), re.MULTILINE)[1] == hotrow.__version__


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.parametrize("backend", BACKENDS_OF_KERAS)
def test_how_embeddings_learn(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.splitlines()[-1].startswith("Flatten: the outputs of the two orders differ by")


def test_code_in_the_text_is_the_scripts() -> None:
    script = _read(SCRIPT)
    blocks = re.findall(r"^```python\n(.*?)^```", _read(TEXT), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        assert block in script or indent(block, "    ") in script, block


def test_pictures_in_the_text_are_there() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", _read(TEXT))
    assert pictures
    assert [name for name in pictures if not (DOCS / name).is_file()] == []
