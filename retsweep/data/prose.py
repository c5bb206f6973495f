"""Which parts of a documentation text are English prose, and how they read as plain paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator

MIN_WORDS = 4
#: Shares of a paragraph's words. Code, grammar and tables fall far below, sentences far above.
MIN_PLAIN_SHARE = 0.7
MIN_FUNCTION_SHARE = 0.12

#: Words that hold English sentences together; identifiers and other languages have few of them.
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those it its they them their there which who whose what when where how why
    is are was were be been being has have had do does did can could may might must shall should will
    would not no nor and or but if then else unless until while because since so as than too also only
    both either of to in on at by for with from into onto out over under between within without about
    after before during through via per you your we our he she his her any all each every some such same
    other more most less
    """.split()  # noqa: SIM905 - a list of a hundred literals is no easier to read
)

#: Typography of the help topics, back to what docstrings are typed with.
PLAIN = str.maketrans(dict(zip("“”‘’—–\u00a0", "\"\"''-- ", strict=True)) | {"…": "..."})

BULLET = re.compile(r"(?:[-*+•]|\(?(?:\d{1,2}|[a-z])[.)])\s+(?=\S)")
CODE = re.compile(
    r"^(?:>>>|\.\.\. |\$ |@\w|(?:def|class) .*:$|import [\w., ]+$|from \S+ import )"  # a line of code
    r"|::=|[=|+#*~-]{4,}|\w = \S"  # grammar, a table's border, an assignment
)
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
EDGES = ".,;:!?()[]{}\"'`*_<>"


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of prose in a docstring or help topic, each as one line.

    Left out: interactive examples, code, grammar, tables, underlines and headings, whatever has
    fewer than MIN_WORDS words, and what is not English.
    """
    for block in re.split(r"\n\s*\n", text.expandtabs().translate(PLAIN)):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if any(CODE.search(line) for line in lines):
            continue
        for item in _items(lines):
            if is_prose(item):
                yield item


def _items(lines: list[str]) -> Iterator[str]:
    """Lines joined where they were wrapped and parted where a list's next item begins."""
    item = ""
    for line in lines:
        bullet = BULLET.match(line)
        if bullet:
            if item:
                yield item
            item = line[bullet.end() :]
        elif item.endswith("-") and item[-2:-1].isalpha() and line[:1].islower():
            item += line  # wrapped at a hyphen: "keyword-" + "only"
        else:
            item = f"{item} {line}".strip()
    if item:
        yield re.sub(r"\s+", " ", item)


def is_prose(paragraph: str) -> bool:
    """Whether most of the words are plain and enough of them belong to English grammar."""
    words = [word.strip(EDGES) for word in paragraph.split()]
    if len(words) < MIN_WORDS:
        return False
    plain = sum(bool(WORD.fullmatch(word)) for word in words)
    grammar = sum(word.lower() in FUNCTION_WORDS for word in words)
    return plain >= MIN_PLAIN_SHARE * len(words) and grammar >= MIN_FUNCTION_SHARE * len(words)


def normalised(paragraph: str) -> str:
    """What near-duplicates share: letters in lower case, every number alike, one space."""
    return " ".join(re.sub(r"[^a-z]+", " ", re.sub(r"\d+", " n ", paragraph.lower())).split())
