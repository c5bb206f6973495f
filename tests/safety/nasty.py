"""What a fuzzer puts where a value, a key or a line is expected; and how often it tries."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

#: Multiplies the examples of every fuzz test, each time other ones: ``make fuzz``.
VARIABLE = "RETSWEEP_FUZZ"
FACTOR = int(os.environ.get(VARIABLE, "0"))


def examples(count: int) -> settings:
    """``count`` examples, the same each time; or FACTOR times as many, others each time."""
    if not FACTOR:
        return settings(max_examples=count)
    return settings(max_examples=count * FACTOR, derandomize=False, print_blob=True)


#: Values as the command line and YAML spell them.
WORDS = [
    *("", " ", "null", "true", "-1", "0", "1", "2", "3", "7", "1e400", "-1e-3", "nan", "inf", ".5", "1_000"),
    *("9" * 30, "9" * 5000, "1e9", "99999999", "[]", "{}", "[[]]", "[1,2]", "{a:1}", "[null]", "0x10"),
    *(
        "..",
        ".",
        "/",
        "/etc/passwd",
        "../../x",
        "~",
        "~nobody_here/x",
        "C:\\x",
        "a/b",
        "a b",
        "con",
        "x" * 300,
    ),
    *(
        "a\x00b",
        "a\nb",
        "a\tb",
        "\u202e",
        "\ud800",
        "é",
        "日本",
        "\x1b[31m",
        "'",
        '"',
        "''",
        '"a',
        "a'b",
        "\\",
    ),
    *("${seed}", "${scale.layers}", "${oc.env:HOME}", "${oc.env:RETSWEEP_STORAGE,null}", "${hydra:job.id}"),
    *(
        "${nothing.here}",
        "${",
        "}",
        "${}",
        "${oc.decode:1}",
        "${${seed}}",
        "$",
        "${study}",
        "\\${oc.env:HOME}",
    ),
    *("retsweep.layers.msr.MsrSpec", "os.system", "retsweep.spec.scale.Scale", "tests.sweep.toy.Toy", "???"),
    *(
        "attention",
        "msr",
        "hybrid",
        "none",
        "R",
        "RRRA",
        "A" * 99,
        "Z",
        "type_a",
        "tiny",
        "0:3",
        "a,b",
        "a=b",
    ),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "*a", "? x", "- 1", "1:2:3", "2020-01-01", "0o7"),
    *("x" * 300, "\\", "${study}", "a=b"),
    *("yes", "|", "{a:{b:{c:1}}}", "=", "#", "a\\"),
]

words = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(WORDS),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(max_size=12),
)

#: Values as data: what YAML or JSON can hold, and what Python has beside it.
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
keys = st.one_of(st.sampled_from(["_target_", "layout", "from", "a", "name"]), st.text(max_size=6))
data: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of nested sections by its dotted key."""
    if isinstance(tree, dict) and tree:
        found: dict[str, Any] = {}
        for key, item in tree.items():
            found |= flat(item, f"{path}.{key}" if path else str(key))
        return found
    return {path: tree}
