from analysis.aggregate import lines_of
from analysis.order import put_in_order
from analysis.plan import Member, Plan
from tests.analysis.rows import row, transformer, type_x


def ordered(*rows, plan=None):
    return [line["label"] for line in put_in_order(lines_of(rows), plan)]


def planned(*members):
    return Plan("s", (), {}, tuple(Member(variant, said) for variant, said in members))


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


def test_networks_that_are_spelt_layer_by_layer_are_called_by_their_spelling():
    """What a search finds: two of one ratio, one of another; the Transformer says it already."""

    def spelt(pattern, **columns):
        return row("Pattern 1:3", layout="pattern", pattern=pattern, variant_hash=pattern, **columns)

    found = ordered(spelt("RRRA"), spelt("HRRR", ffn=64), transformer(layout="pattern"), transformer())
    assert "Pattern 1:3 (RRRA)" in found
    assert "Pattern 1:3 (HRRR, ffn 64)" in ordered(spelt("HRRR", ffn=64), spelt("RRRA", ffn=32))
    assert not [name for name in found if "Transformer" in name and "RRR" in name]
    assert ordered(spelt("RRRA"), spelt("RRRA")) == ["Pattern 1:3"]


def test_a_label_is_the_architecture_while_nothing_else_varies():
    assert ordered(row(), transformer()) == ["Transformer", "RetNet"]


def test_a_label_names_what_varies():
    assert ordered(row(variant_hash="a"), row(variant_hash="b", learning_rate=1e-2), transformer()) == [
        "Transformer (lr 0.003)",
        "RetNet (lr 0.003)",
        "RetNet (lr 0.01)",
    ]


def trained(steps=800, **columns):
    recipe = {
        "planned_steps": steps,
        "epochs": None,
        "batch": 8,
        "dropout": 0.0,
        "schedule": "cosine",
        "clip": 1.0,
    }
    return recipe | {"variant_hash": f"{steps} {columns}"} | columns


def test_a_label_names_the_training_where_its_architecture_has_several():
    of_another = transformer(**trained(800, variant_hash="t"))
    found = ordered(row(**trained(100)), row(**trained(800)), of_another)
    assert found == ["Transformer", "RetNet (steps 100)", "RetNet (steps 800)"]
    found = ordered(row(**trained()), row(**trained(clip=None, dropout=0.1, schedule="constant")))
    assert found == ["RetNet (dropout 0, cosine, clip 1)", "RetNet (dropout 0.1, constant)"]
    found = ordered(row(**trained(batch=8)), row(**trained(None, epochs=2, batch=16)))
    assert found == ["RetNet (epochs 2, batch 16)", "RetNet (steps 800, batch 8)"]


def test_what_the_names_of_protocol_and_scale_say_is_not_said_again():
    published = trained(None, protocol="published", epochs=10, batch=32, dropout=0.2, clip=None)
    assert ordered(row(**trained()), row(**published)) == ["RetNet (corrected)", "RetNet (published)"]
    assert ordered(row(**trained()), row(**trained(100)), row(**published)) == [
        "RetNet (corrected, steps 100)",
        "RetNet (corrected, steps 800)",
        "RetNet (published)",
    ]


def test_rows_from_before_the_training_was_told_stand_beside_new_ones():
    old = transformer(variant_hash="v")
    assert ordered(old, transformer(**trained(variant_hash="v"), seed=1), row(**trained())) == [
        "Transformer",
        "RetNet",
    ]
    assert ordered(row(variant_hash="abcdefg"), row(**trained(variant_hash="bcdefgh"))) == [
        "RetNet #abcdef",
        "RetNet #bcdefg",
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


def test_a_label_is_what_the_sweep_calls_the_line():
    rows = [
        row(variant_hash="shuffled", shuffle=True, planned_steps=64),
        row(variant_hash="repaired", protocol="corrected"),
        row(variant_hash="base", protocol="published", dropout=0.2),
        transformer(),
    ]
    plan = planned(
        ("base", {"ladder": "published", "step": "as it is"}),
        ("shuffled", {"ladder": "published", "step": "shuffling"}),
        ("repaired", {"ladder": "published", "step": "all repaired"}),
        ("repaired", {"ladder": "corrected", "step": "as it is"}),
        ("not run", {"ladder": "corrected", "step": "shuffling"}),
    )
    assert ordered(*rows, plan=plan) == [
        "Transformer (corrected)",  # it has no name in the sweep, and protocols differ
        "RetNet (published: as it is)",
        "RetNet (published: shuffling)",
        "RetNet (corrected: as it is)",
    ]


def test_lines_of_one_name_in_the_sweep_are_told_apart():
    rows = [row(variant_hash=str(rate), learning_rate=rate) for rate in (1e-3, 2e-3)]
    plan = planned(*((str(rate), {"step": "warm-up"}) for rate in (1e-3, 2e-3)))
    assert ordered(*rows, plan=plan) == ["RetNet (warm-up, lr 0.001)", "RetNet (warm-up, lr 0.002)"]


def test_switches_read_as_words():
    rows = [row(variant_hash=str(on), shuffle=on, final_norm=not on) for on in (True, False)]
    assert ordered(*rows) == ["RetNet (no shuffle, final norm)", "RetNet (shuffle, no final norm)"]
