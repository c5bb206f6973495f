"""Prose that is wherever retsweep is installed and that is not of the corpus pydocs.

Two domains, from what pip has put beside the packages that retsweep itself needs: ``readmes``, their
long descriptions (what their pages on PyPI say), and ``licences``, their own licence texts. English
both, one chatty and one legal, and neither a docstring of the standard library. Only paragraphs of
prose are kept, as in pydocs, and each once, up to case, numbers and punctuation: the MIT licence
comes with six packages. The text moves with the versions of the packages; its hash, in the row as
``ood_hash``, tells. It is small (about 9,000 words): a folder of your own says more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from retsweep.data import prose
from retsweep.spec import SpecError

#: Dependencies of retsweep that carry either text, as pyproject.toml names them.
PACKAGES = (
    "datasets",
    "filelock",
    "hydra-core",
    "omegaconf",
    "optuna",
    "pandas",
    "pydantic",
    "rich",
    "safetensors",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "wandb",
)
#: Characters of a package's text in one domain, so that none of them (pydantic's list of changes) is
#: most of it.
MOST = 12_000
#: A package's own licence in its .dist-info, by either layout of it; not those of what it vendors.
LICENCE = re.compile(r"[^/]+\.dist-info/(?:licenses/)?(?:licen[cs]e|copying|notice)[^/]*", re.IGNORECASE)

#: Of Markdown: code in fences, and what surrounds the words of a link or an image.
FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^][]*)\](?:\([^()]*\)|\[[^][]*\])")
#: Marks a line of a list of changes, or of links.
NO_SENTENCE = re.compile(r"://|\B@\w|<[a-z/!]")


@functools.cache
def bundled() -> dict[str, str]:
    """{"licences": text, "readmes": text}, a paragraph a line. Raises SpecError where there is none."""
    found = {"licences": _joined(licences), "readmes": _joined(readme)}
    for domain, text in found.items():
        if not text:
            raise SpecError(
                f"the packages of this installation carry no {domain}, which evaluate.ood.path=null reads; "
                "give evaluate.ood.path=FOLDER"
            )
    return found


def _joined(texts_of: Callable[[Distribution], Iterator[str]]) -> str:
    seen: set[str] = set()
    lines: list[str] = []
    for package in PACKAGES:
        try:
            found = distribution(package)
        except PackageNotFoundError:
            continue  # run from a checkout, beside fewer packages: the hash tells
        taken = 0
        for paragraph in (p for text in texts_of(found) for p in prose.paragraphs(text)):
            key = prose.normalised(paragraph)
            if key in seen or taken + len(paragraph) > MOST or NO_SENTENCE.search(paragraph):
                continue
            seen.add(key)
            taken += len(paragraph)
            lines.append(paragraph)
    return "\n".join(lines)


def readme(package: Distribution) -> Iterator[str]:
    """The long description of the package's metadata."""
    said = package.metadata.json.get("description")
    if isinstance(said, str):
        yield LINK.sub(r"\1", LINK.sub(r"\1", FENCED.sub("\n\n", said)))  # twice: an image in a link


def licences(package: Distribution) -> Iterator[str]:
    """The package's own licence files, in the order of their names."""
    for file in sorted(package.files or (), key=str):
        if LICENCE.fullmatch(file.as_posix()):
            yield file.read_text(encoding="utf-8")
