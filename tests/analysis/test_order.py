from analysis.aggregate import lines_of
from analysis.order import put_in_order
from tests.analysis.rows import row, transformer, type_x


def ordered(*rows):
    return [line["label"] for line in put_in_order(lines_of(rows))]


def test_the_order_is_the_reports():
    pattern = row("Pattern 1:3", layout="pattern", attention_heads=24, retention_heads=72)
    reference = row("FFN only", layout="pattern", reference=True)
    rows = [reference, pattern, type_x("C", 3), type_x("B", 10), type_x("B", 2), row(), type_x("A", 11)]
    assert ordered(*rows, transformer(), type_x("A", 1)) == [
        "Transformer",
        "RetNet",
        "Type A 1:11",
        "Type A 11:1",
        "Type B 2:10",
        "Type B 10:2",
        "Type C 3:5",
        "Pattern 1:3",
        "FFN only",
    ]


def test_a_label_is_the_architecture_while_nothing_else_varies():
    assert ordered(row(), transformer()) == ["Transformer", "RetNet"]


def test_a_label_names_what_varies():
    assert ordered(row(variant_hash="a"), row(variant_hash="b", learning_rate=1e-2), transformer()) == [
        "Transformer (lr 0.003)",
        "RetNet (lr 0.003)",
        "RetNet (lr 0.01)",
    ]


def test_only_namesakes_are_told_apart_by_their_mixer_or_pattern():
    found = ordered(
        type_x("A", 2, variant_hash="a"),
        type_x("A", 2, variant_hash="b", mixer="gla"),
        transformer(mixer=None),
    )
    assert found == ["Transformer", "Type A 2:10 (gla)", "Type A 2:10 (msr)"]


def test_namesakes_that_differ_in_an_unknown_switch_or_in_nothing_visible():
    assert ordered(row(variant_hash="a", decays="own"), row(variant_hash="b", decays="full")) == [
        "RetNet (decays full)",
        "RetNet (decays own)",
    ]
    assert ordered(row(variant_hash="aaaaaaaaa"), row(variant_hash="bbbbbbbbb")) == [
        "RetNet #aaaaaa",
        "RetNet #bbbbbb",
    ]


def test_leaky_rows_are_marked():
    assert ordered(transformer(leaky=True), row()) == ["Transformer leaky", "RetNet"]
