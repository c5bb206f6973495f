"""What a line is called, and where it stands: in the report's order, vanilla, A, B, C, others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.aggregate import DESCRIPTION, PROVENANCE, Line, is_measured
from analysis.plan import Plan

#: The layout, and the column, of networks that are spelt layer by layer: between several of them a ratio
#: says too little, and a search is after the spelling.
PATTERN = "pattern"
LAYOUT_RANK = {"type_a": 1, "type_b": 2, "type_c": 3}

#: A label names these whenever they differ between lines ...
VARIED = ["scale", "protocol", "learning_rate", "precision", "layers", "d_model", "ffn", "context"]
#: ... these where lines of its own architecture, scale and protocol differ in them ...
TRAINING = [
    *("planned_steps", "epochs", "batch", "accumulate", "dropout", "weight_decay"),
    *("schedule", "warmup", "clip", "beta2", "weight_decay_of", "shuffle", "train_chunks", "chunking"),
    *("final_norm", "model_start", "branches", "match"),
]
#: ... and these only where all that does not tell two lines apart.
TOLD_APART = ["mixer", "hybrid_form", "mask", "start", "position", "placement", PATTERN]
SHORT = {
    "beta2": "β2",
    "weight_decay_of": "decay of",
    "train_chunks": "first chunks",
    "model_start": "start",
    "final_norm": "final norm",
    "learning_rate": "lr",
    "d_model": "d",
    "planned_steps": "steps",
    "hybrid_form": "form",
    "attention_heads": "attention heads",
    "retention_heads": "retention heads",
}


def put_in_order(lines: Sequence[Line], plan: Plan | None = None) -> list[Line]:
    """The lines in order, each with a ``label`` no other has; reference lines come last. ``plan``
    adds what the sweep calls them, and its order where the report has none."""
    members = plan.members if plan else ()
    places = {member.variant_hash: place for place, member in reversed(list(enumerate(members)))}
    labelled = [{"label": label, **line} for label, line in zip(labels(lines, plan), lines, strict=True)]
    return sorted(labelled, key=lambda line: _place(line, places))


def labels(lines: Sequence[Line], plan: Plan | None = None) -> list[str]:
    """The architecture and what the sweep calls the line, or what varies between ``lines``; and
    what tells namesakes apart."""
    ranked = [line for line in lines if not line.get("reference")]
    varied = [column for column in VARIED if _varies(ranked, column)]
    searched = _varies([line for line in ranked if line.get("layout") == PATTERN], PATTERN)
    said = words(plan)
    found = []
    for line in lines:
        called = said.get(str(line.get("variant_hash")))
        own = [PATTERN] * (searched and line.get("layout") == PATTERN and "Pattern " in _architecture(line))
        columns = [*own, *varied, *_training(line, lines)]
        found.append(_bracketed(line, called) if called else named(line, columns))
    for column in (*(VARIED if said else ()), *TOLD_APART, *_other_columns(lines)):
        namesakes = _namesakes(found)
        for same in namesakes:
            if len({str(lines[index].get(column)) for index in same}) > 1:
                for index in same:
                    found[index] = named(lines[index], [column], found[index])
    for same in _namesakes(found):
        for index in same:
            found[index] += f" #{str(lines[index].get('variant_hash'))[:6]}"
    return [
        f"{label} leaky" if line.get("leaky") else label for label, line in zip(found, lines, strict=True)
    ]


def unnamed(lines: Sequence[Line]) -> dict[str, str]:
    """What of the training differs between ``lines``, though not every label says so: the values
    by the column's short name."""
    ranked = [line for line in lines if not line.get("reference")]
    found = {}
    for column in TRAINING:
        if _trained_apart(ranked, column) and not all(column in _training(line, lines) for line in ranked):
            values = dict.fromkeys(_value(line[column]) for line in ranked if column in line)
            found[_short(column)] = ", ".join(values)
    return found


def _training(line: Line, lines: Sequence[Line]) -> list[str]:
    """The columns of TRAINING in which lines of the same architecture as ``line`` differ."""
    alike = [other for other in lines if other.get("architecture") == line.get("architecture")]
    return [column for column in TRAINING if _trained_apart(alike, column)]


def _trained_apart(lines: Sequence[Line], column: str) -> bool:
    """Whether lines of one scale and protocol differ in ``column``: what those two imply, their
    names say. None is a value (no clipping), a missing column, as in old rows, is not."""
    values = defaultdict(set)
    for line in lines:
        if column in line:
            values[line.get("scale"), line.get("protocol")].add(line[column])
    return any(len(distinct) > 1 for distinct in values.values())


def _namesakes(found: Sequence[str]) -> list[list[int]]:
    """The indices of every label that more than one line has."""
    places = defaultdict(list)
    for index, label in enumerate(found):
        places[label].append(index)
    return [same for same in places.values() if len(same) > 1]


def words(plan: Plan | None) -> dict[str, str]:
    """What the sweep calls each variant (by hash), if it does: "published: causal mask". Of several
    names it is the one of a base, else the first."""
    found: dict[str, str] = {}
    for member in plan.members if plan else ():
        if member.said and (member.variant_hash not in found or member.said.get("step") == "as it is"):
            found[member.variant_hash] = ": ".join(member.said.values())
    return found


def named(line: Line, columns: Sequence[str], label: str | None = None) -> str:
    """``label``, or the architecture, with the ``columns`` of the line added between brackets."""
    parts = [_named(column, line[column]) for column in columns if line.get(column) not in (None, "")]
    return _bracketed(line, ", ".join(parts), label)


def _bracketed(line: Line, details: str, label: str | None = None) -> str:
    label = label if label is not None else _architecture(line)
    if not details:
        return label
    return f"{label[:-1]}, {details})" if label.endswith(")") else f"{label} ({details})"


def _architecture(line: Line) -> str:
    return str(line.get("architecture", "?"))


def _named(column: str, value: Any) -> str:
    if isinstance(value, str) and column in (*TOLD_APART, "scale", "protocol", "precision", "schedule"):
        return value
    if isinstance(value, bool):
        return f"{'' if value else 'no '}{_short(column)}"
    return f"{_short(column)} {_value(value)}"


def _short(column: str) -> str:
    return SHORT.get(column, column.replace("_", " "))


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _varies(lines: Sequence[Line], column: str) -> bool:
    return len({line[column] for line in lines if line.get(column) not in (None, "")}) > 1


def _other_columns(lines: Sequence[Line]) -> list[str]:
    """Columns that describe but that nobody has thought of: the text and the switches."""
    columns = dict.fromkeys(column for line in lines for column in line)
    known = {*VARIED, *TRAINING, *TOLD_APART}
    known |= {"architecture", "leaky", "reference", "status", "seeds", "error", "label", "partly"}
    return [
        column
        for column in columns
        if column not in known
        and not column.endswith(("_hash", "_ci95"))
        and column not in ("params", "ar_ratio", "n", "ok", "failed", *PROVENANCE)
        and not column.startswith(("macs_", "state_bytes_", "unigram_", "bigram_", "report_"))
        and (column in DESCRIPTION or not is_measured(column, [line.get(column) for line in lines]))
    ]


def _place(line: Line, places: Mapping[str, int]) -> tuple[Any, ...]:
    architecture = str(line.get("architecture", ""))
    layout = str(line.get("layout", ""))
    attention = line.get("attention_heads") or 0
    share = attention / ((attention + (line.get("retention_heads") or 0)) or 1)
    vanilla = layout in LAYOUT_RANK and not architecture.startswith("Type ")
    rank = 0 if vanilla else LAYOUT_RANK.get(layout, 4)
    # the report opens with the Transformer; below it the share of attention rises
    share = -share if vanilla else share
    place = places.get(str(line.get("variant_hash")), len(places))
    return bool(line.get("reference")), rank, share, place, str(line["label"])
