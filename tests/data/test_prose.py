from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retsweep.data.prose import normalised, paragraphs


def test_wrapped_lines_become_one_paragraph() -> None:
    text = (
        "Return the value of the key if it is\n    in the dictionary, else “default”.\n\n"
        "It is never an error-\nprone call.\n"
    )
    assert list(paragraphs(text)) == [
        'Return the value of the key if it is in the dictionary, else "default".',
        "It is never an error-prone call.",
    ]


def test_items_of_a_list_are_paragraphs() -> None:
    text = "- the first of the items\n  goes on here\n- the second of the items\n2. the third of the items"
    assert list(paragraphs(text)) == [
        "the first of the items goes on here",
        "the second of the items",
        "the third of the items",
    ]


@pytest.mark.parametrize(
    "text",
    [
        ">>> the_answer(to, the, question)\n42",
        "with_stmt ::= the 'with' ( item ) : suite",
        "+------+------+\n| the a | of an |\n+------+------+",
        "x = the_value_of_it(a, b)\nreturn x if the else b",
        "def f(the, a):\n    return of the a",
        "A heading of it\n===============",
        "getattr setattr delattr hasattr callable",
        "benutzt Liste von Turtles und Liste von Zweiglisten",
        "Close it now",
    ],
)
def test_what_is_not_prose_is_left_out(text: str) -> None:
    assert list(paragraphs(text)) == []


def test_near_duplicates_are_the_same_once_normalised() -> None:
    assert normalised("Python 3.11: Codec cp1250, generated!") == normalised(
        "python 3.12 codec CP437 (generated)"
    )
    assert normalised("Encode the text.") != normalised("Decode the text.")


@given(st.text())
def test_any_text_is_cut_into_single_lines(text: str) -> None:
    for paragraph in paragraphs(text):
        assert paragraph == " ".join(paragraph.split())
        assert len(paragraph.split()) >= 4
