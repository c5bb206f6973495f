import pytest

from analysis.rows import TableError
from analysis.sidebyside import side_by_side
from tests.analysis.rows import row, transformer, type_x


def published():
    leaky = {"protocol": "published", "leaky": True, "train_ppl": 4.0, "valid_ppl": 5.0}
    return [
        transformer(**leaky, valid_ppl_causal_eval=300.0),
        transformer(**leaky | {"valid_ppl": 7.0}, valid_ppl_causal_eval=310.0, seed=1),
        row(protocol="published", valid_ppl=600.0),
        type_x("C", 2, protocol="published", status="diverged@9", valid_ppl=None),
        row("FFN only", reference=True, layout="pattern", valid_ppl=1.0),
    ]


def corrected():
    return [
        transformer(valid_ppl=24.0),
        transformer(valid_ppl=24.5, seed=1),
        row(valid_ppl=31.0),
        type_x("A", 10, valid_ppl=24.25),
        type_x("C", 2, valid_ppl=28.0),
    ]


def by_model(table):
    return {line["architecture"]: line for line in table.lines}


def test_models_are_joined_and_ranked_where_they_may_be():
    table = side_by_side(published(), corrected())
    assert [line["label"] for line in table.lines] == ["Transformer", "RetNet", "Type A 10:2", "Type C 2:6"]
    lines = by_model(table)
    transformers = lines["Transformer"]
    assert transformers["published_leaky"]
    assert transformers["published_rank"] is None
    assert transformers["published_valid_ppl"] == 6.0
    assert transformers["published_valid_ppl_causal_eval"] == 305.0
    assert transformers["published_valid_ppl_causal_eval_ci95"] > 0
    assert transformers["published_variant_hash"] == "variant of Transformer"
    assert [line["corrected_rank"] for line in table.lines] == [1, 4, 1, 3]  # 24.25 twice
    assert lines["RetNet"]["published_rank"] is None, "the only one that may be ranked: no ranking"
    assert lines["Type C 2:6"]["published_rank"] is None
    assert lines["Type A 10:2"]["published_valid_ppl"] is None
    # as the report printed them: 4.251, 23.984, 3.209, 13002
    assert [line["report_rank"] for line in table.lines] == [2, 3, 1, 4]
    assert lines["Type A 10:2"]["report_train_ppl"] == 3.209


def test_what_is_printed_marks_the_leak_and_names_divergence():
    table = side_by_side(published(), corrected())
    (section,) = table.sections
    cells = {
        line["architecture"]: {c.header.replace("\n", " "): c.cell(line) for c in section.columns}
        for line in table.lines
    }
    assert cells["Transformer"]["published valid ppl"].startswith("6.000 ± ")
    assert cells["Transformer"]["published valid ppl"].endswith(" leaky")
    assert "published rank" not in cells["Transformer"]
    assert any("neighbours are often not resolved" in note for note in table.notes)
    assert cells["RetNet"]["published valid ppl"] == "600.0"
    assert cells["Type A 10:2"]["published valid ppl"] == ""
    assert any("Type C 2:6 (diverged@9)" in note for note in table.notes)
    assert any(note.startswith("leaky") for note in table.notes)


def test_a_model_twice_in_a_study_is_refused():
    twice = [*corrected(), row(variant_hash="other", learning_rate=1.0)]
    with pytest.raises(TableError, match=r"the corrected study has RetNet more than once \(RetNet \(lr"):
        side_by_side(published(), twice)
    with pytest.raises(TableError, match="rows of different data"):
        side_by_side([*published(), type_x("A", 3, corpus="x", data_hash="e")], corrected())
