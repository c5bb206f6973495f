"""The default corpus: English of the Python standard library, which is on every machine.

Its documents are the help topics (``pydoc_data/topics.py``) and, a module each, the docstrings of
all modules. Sources are parsed with `ast`, never imported. Only prose is kept (see ``prose``), and
each paragraph once, up to case, numbers and punctuation. Whole documents go to train, valid or
test by a hash of their name, so that the split hardly moves between Python versions; the text
itself differs between them, and the data hash with it.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retsweep.data import prose
from retsweep.data.corpus import COLUMN, SPLITS, Corpus, files_stamp
from retsweep.spec import SpecError
from retsweep.spec.base import spec

if TYPE_CHECKING:
    from datasets import DatasetDict

#: Folders whose modules are tests, third-party, or not there on every installation.
SKIPPED_FOLDERS = frozenset(
    {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "ensurepip",
        "lib-dynload",
        "__pycache__",
    }
)
#: Modules that an installation writes for itself.
SKIPPED_MODULES = ("sitecustomize", "usercustomize", "_sysconfigdata")

#: Characters of prose in valid and in test: about 48,000 tokens at a vocabulary of 512.
HELD_OUT_CHARACTERS = 100_000
#: A longer document goes to train, so that no single subject makes up a held-out split.
HELD_OUT_DOCUMENT = HELD_OUT_CHARACTERS // 8

#: Where definitions stand: among statements, never inside expressions.
BLOCKS = ("body", "handlers", "orelse", "finalbody")
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@spec
class PyDocs(Corpus):
    @property
    def label(self) -> str:
        return "pydocs"

    def stamp(self) -> str | None:
        folder = standard_library()
        code = hashlib.sha256(Path(__file__).read_bytes() + Path(prose.__file__).read_bytes()).hexdigest()
        return files_stamp((path for _, path in modules(folder)), code, platform.python_version())

    def dataset(self, cache: Path) -> DatasetDict:
        from datasets import Dataset, DatasetDict

        splits = split(clean(raw_documents(standard_library())))
        return DatasetDict({name: Dataset.from_dict({COLUMN: splits[name]}) for name in SPLITS})


def standard_library() -> Path:
    """The folder of the standard library's sources. Raises SpecError where there are none."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    for needed in (folder / "pydoc_data" / "topics.py", folder / "argparse.py"):
        if not needed.is_file():
            raise SpecError(
                f"corpus pydocs needs the standard library's sources, but {needed} does not exist (this "
                "Python is zipped, frozen or stripped); use a full CPython, or corpus=text corpus.path=FOLDER"
            )
    return folder


def modules(folder: Path, package: str = "") -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module below ``folder``, in the order of their names."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a thousand Paths cost more than the walk
        if entry.is_dir():
            if entry.name not in SKIPPED_FOLDERS and entry.name.isidentifier():
                yield from modules(Path(entry.path), f"{package}{entry.name}.")
        elif suffix == ".py" and not stem.startswith(SKIPPED_MODULES):
            name = package.rstrip(".") if stem == "__init__" else package + stem
            yield name, Path(entry.path)


def raw_documents(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of every document: help topics first, then modules. Raises SpecError."""
    for name, path in sorted(modules(folder)):
        tree = _parse(path)
        if name == "pydoc_data.topics":
            for topic, text in sorted(_topics(tree, path).items()):
                yield f"topic {topic}", [text]
        else:
            yield f"module {name}", list(docstrings(tree))


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError) as error:
            version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
            raise SpecError(f"corpus pydocs: {path} cannot be parsed by {version}: {error}") from error


def _topics(tree: ast.Module, path: Path) -> dict[str, str]:
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return {str(name): str(text) for name, text in topics.items()}
    raise SpecError(f"corpus pydocs: {path} holds no dictionary of help topics")


def docstrings(node: ast.AST) -> Iterator[str]:
    """The docstrings of a module and of all that is defined in it, in the order of the source."""
    if isinstance(node, Documented):
        text = ast.get_docstring(node)
        if text:
            yield text
    for block in BLOCKS:
        for child in getattr(node, block, ()):
            if hasattr(child, "body"):
                yield from docstrings(child)


def clean(raw: Iterator[tuple[str, list[str]]]) -> dict[str, str]:
    """Name -> text of the documents that hold prose, each paragraph only where it comes first.

    A paragraph is a line; the paragraphs of one docstring stand together.
    """
    seen: set[str] = set()
    kept: dict[str, str] = {}
    for name, texts in raw:
        blocks = []
        for text in texts:
            lines = []
            for paragraph in prose.paragraphs(text):
                key = prose.normalised(paragraph)
                if key not in seen:
                    seen.add(key)
                    lines.append(paragraph)
            if lines:
                blocks.append("\n".join(lines))
        if blocks:
            kept[name] = "\n\n".join(blocks) + "\n"
    return kept


def split(texts: dict[str, str]) -> dict[str, list[str]]:
    """Train, valid and test of whole documents, in the order of their names' hashes."""
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    room = {"valid": HELD_OUT_CHARACTERS, "test": HELD_OUT_CHARACTERS}
    for name in sorted(texts, key=lambda name: hashlib.sha256(name.encode()).digest()):
        text = texts[name]
        fits = [held for held in room if room[held] >= len(text)] if len(text) <= HELD_OUT_DOCUMENT else []
        if fits:
            chosen = max(fits, key=lambda held: room[held])
            room[chosen] -= len(text)
            splits[chosen].append(text)
        else:
            splits["train"].append(text)
    return splits
