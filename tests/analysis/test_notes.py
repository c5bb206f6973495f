from analysis.table import build
from tests.analysis.rows import row, transformer, type_x


def notes(*rows):
    return list(build("s", rows).notes)


def test_who_was_tuned_and_from_what():
    rates = {"tuned_from": "0.003 0.006"}
    found = notes(row(**rates, learning_rate=0.006), transformer(**rates, learning_rate=0.003))
    assert found == [
        "Learning rate chosen on validation, with seeds of its own, of 0.003, 0.006: every line "
        "(Transformer (lr 0.003); RetNet (lr 0.006)).",
        *notes(row(), transformer()),
    ]
    found = notes(row(**rates), transformer(), type_x("A", 3))
    assert "of 0.003, 0.006: RetNet (0.003)." in found[0]
    assert found[1] == "Not tuned: Transformer; Type A 3:9."
    assert not any("tuned" in note for note in notes(row(), transformer()))


def test_what_was_matched_to_what():
    matched = {"match": "macs", "match_target": 26_740_224}
    found = notes(
        row(**matched, ffn=40),
        transformer(**matched, ffn=64),
        row("FFN only", layout="pattern", reference=True, match="none", match_target=26_740_224, ffn=64),
    )
    assert found[:2] == [
        "FFN width solved for the Transformer's train-forward MACs (26,740,224): "
        "Transformer (ffn 64); RetNet (ffn 40).",
        "Not matched: FFN only (ffn 64).",
    ]
    assert not any("atched" in note for note in notes(row(), transformer()))


def test_leaky_lines_are_named_and_what_their_weights_are_worth():
    leaky = transformer(leaky=True)
    (note,) = [note for note in notes(leaky, row()) if note.startswith("leaky")]
    assert "on no front and in no ranking" in note
    assert "causal mask" not in note
    (note,) = [note for note in notes(leaky | {"valid_ppl_causal_eval": 99.0}) if note.startswith("leaky")]
    assert "Under a causal mask: the same weights" in note


def test_train_perplexities_of_different_text_are_told_apart():
    published = {"protocol": "published", "train_ppl_of": "first_batches"}
    corrected = {"protocol": "corrected", "train_ppl_of": "slice"}
    (note,) = [
        note
        for note in notes(transformer(**published), row(**corrected), type_x("A", 3))  # the last: an old row
        if note.startswith("Train")
    ]
    assert note == (
        "Train perplexities are not of the same text: of the first training batches, as published "
        "(Transformer (published)), of the first tokens of train, as many as valid has (RetNet (corrected))."
    )
    assert not any("Train" in note for note in notes(transformer(**published), row(**published)))
    counted = row(**corrected)
    del counted["train_ppl"]
    assert not any("Train" in note for note in notes(transformer(**published), counted))
