"""The default corpus: what it is made of, and that nothing of it is in two splits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from retsweep.data import pydocs
from retsweep.data.corpus import SPLITS
from retsweep.data.encoder import END_OF_TEXT
from retsweep.data.prepare import TokenisedCorpus
from retsweep.data.prose import normalised
from retsweep.spec import SpecError

MODULE = '''"""This is the module of {name}, and it says so here."""

raise SystemExit("it must not be imported")


class Thing:
    """A thing of {name} that is kept in the box of {name}.

    >>> Thing().of("{name}")
    """

    try:
        pass
    except ValueError:
        def method(self):
            """Return the value that {name} was given at first."""
            return lambda: "it is not a docstring of {name} at all"
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library of a dozen modules, with what has to be passed over beside them."""
    folder = tmp_path / "python"
    names = ["argparse", *(f"module_{letter}" for letter in "abcdefgh"), "package/__init__", "package/inner"]
    random.shuffle(names)  # the order on disk must not matter
    for name in [*names, "test/test_it", "site-packages/other", "sitecustomize", "package/tests/more"]:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULE.format(name="".join(filter(str.isalpha, name))))
    (folder / "pydoc_data").mkdir()
    topics = 'topics = {"while": "The while statement is used\\nfor as long as it is true."}\n'
    (folder / "pydoc_data" / "topics.py").write_text(topics)
    return folder


def test_documents_are_topics_and_modules(library: Path) -> None:
    documents = pydocs.clean(pydocs.raw_documents(library))
    assert documents["topic while"] == "The while statement is used for as long as it is true.\n"
    assert documents["module package.inner"] == (
        "This is the module of packageinner, and it says so here.\n\n"
        "A thing of packageinner that is kept in the box of packageinner.\n\n"
        "Return the value that packageinner was given at first.\n"
    )
    assert "module package" in documents
    assert not [
        name for name in documents if any(part in name for part in ("test", "other", "sitecustomize"))
    ]


def test_a_paragraph_is_kept_where_it_comes_first(library: Path) -> None:
    for name in ("module_a", "module_b"):
        (library / f"{name}.py").write_text('"""Version 1 of the Codec is generated from a table."""\n')
    documents = pydocs.clean(pydocs.raw_documents(library))
    assert "module module_a" in documents
    assert "module module_b" not in documents


def test_splits_do_not_depend_on_the_order_of_documents(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydocs, "HELD_OUT_CHARACTERS", 500)
    monkeypatch.setattr(pydocs, "HELD_OUT_DOCUMENT", 200)
    documents = pydocs.clean(pydocs.raw_documents(library))
    splits = pydocs.split(documents)
    shuffled = list(documents.items())
    random.shuffle(shuffled)
    assert pydocs.split(dict(shuffled)) == splits
    assert all(splits[name] for name in SPLITS)
    assert sorted(text for name in SPLITS for text in splits[name]) == sorted(documents.values())
    assert all(sum(map(len, splits[name])) <= 500 for name in ("valid", "test"))


def test_real_library_is_english_enough_and_split_without_overlap(pydocs: TokenisedCorpus) -> None:
    encoder = pydocs.encoder()
    texts = {name: encoder.decode(pydocs.splits[name].tokens) for name in SPLITS}
    paragraphs = {
        name: {normalised(line) for line in text.replace(END_OF_TEXT, "\n").splitlines() if line}
        for name, text in texts.items()
    }
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not paragraphs[one] & paragraphs[other]
    # a default run reads 0.35 M of them, about half; evaluation stays a tenth of the time
    assert len(pydocs.splits["train"].tokens) > 500_000
    for name in ("valid", "test"):
        assert 40_000 <= len(pydocs.splits[name].tokens) <= 60_000
        assert texts[name].count(END_OF_TEXT) >= 20  # many subjects, not one long one
    letters = sum(character.isalpha() or character == " " for character in texts["valid"])
    assert letters > 0.9 * len(texts["valid"])


def test_an_interpreter_without_sources_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "python311.zip")})
    with pytest.raises(SpecError, match=r"python311\.zip.*does not exist.*corpus=text") as error:
        pydocs.PyDocs().stamp()
    assert "\n" not in str(error.value)


def test_a_module_that_cannot_be_parsed_is_named(library: Path) -> None:
    (library / "module_c.py").write_text("def broken(:\n")
    with pytest.raises(SpecError, match=r"module_c\.py cannot be parsed"):
        list(pydocs.raw_documents(library))


def test_topics_without_a_dictionary_are_named(library: Path) -> None:
    (library / "pydoc_data" / "topics.py").write_text("topics = dict()\n")
    with pytest.raises(SpecError, match="no dictionary of help topics"):
        list(pydocs.raw_documents(library))
