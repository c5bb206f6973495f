import math

import pytest

from analysis.aggregate import lines_of
from analysis.notes import learned
from analysis.table import build
from tests.analysis.rows import row, transformer, type_x


def notes(*rows):
    return list(build("s", rows).notes)


def ffn_only(valid, **columns):
    return row("FFN only", layout="pattern", reference=True, valid_ppl=valid, **columns)


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
        ffn_only(50.0, match="none", match_target=26_740_224, ffn=64),
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


def test_what_only_some_runs_have_is_named():
    old, new = transformer(), transformer(seed=1, best_valid_ppl=30.0)
    note = "Left empty, Transformer: best valid ppl: 1 of 2 runs."
    assert note in notes(old, new, row(best_valid_ppl=31.0))
    many = {f"ood_ppl_{name}": 9.0 for name in "abcdef"}
    (note,) = [one for one in notes(old, transformer(seed=1, **many)) if one.startswith("Left")]
    assert note.startswith("Left empty, every line: ood ppl a: 1 of 2 runs; ")
    assert note.endswith("; ood ppl d: 1 of 2 runs; 2 other columns (see partly in table.csv).")


def test_the_tokenised_release_is_named_beside_every_perplexity():
    told = {"corpus": "wikitext2:folder", "text_form": "tokenised"}
    table = build("s", [transformer(**told), row(**told)])
    name = "wikitext2:folder, the tokenised release (<unk>, @-@)"
    assert table.sections[0].title == name
    assert f"{name}: not comparable with figures of the raw text." in table.notes
    raw = build("s", [transformer(**told | {"text_form": "raw"}), row()])
    assert raw.sections[0].title == ""
    assert not any("tokenised" in note for note in raw.notes)


USE = "learned to use what stands before the last token: the better of Transformer and RetNet has valid ppl"
PAIRS = (
    "learned as much as counting pairs of tokens gives: the better of Transformer and RetNet has valid ppl"
)


@pytest.mark.parametrize(
    ("better", "alone", "bigram", "words"),
    [
        (54.0, 53.4, 35.1, f"No model {USE} 54.00, FFN only 53.40, bigram 35.10."),
        (53.4, 53.4, None, f"No model {USE} 53.40, FFN only 53.40."),
        (61.0, 60.5, 70.0, f"Neither Transformer nor RetNet {USE} 61.00, FFN only 60.50, bigram 70.00."),
        (52.6, 53.4, 35.1, f"No model {PAIRS} 52.60, FFN only 53.40, bigram 35.10 "
         "(FFN only is passed, the bigram is not)."),
        (52.6, None, 35.1, f"No model {PAIRS} 52.60, bigram 35.10 (the bigram is not passed)."),
        (61.0, None, 60.5, f"Neither Transformer nor RetNet {PAIRS} 61.00, bigram 60.50 "
         "(the bigram is not passed)."),
        (30.0, 53.4, 35.1, None),
        (52.6, 53.4, None, None),
        (52.6, None, None, None),
    ],
)  # fmt: skip
def test_whether_anything_was_learned_from_context(better, alone, bigram, words):
    counted = {"bigram_valid_ppl": bigram}
    rows = [transformer(valid_ppl=better, **counted), row(valid_ppl=better + 3, **counted)]
    rows += [ffn_only(alone, **counted)] if alone else []
    rows.append(type_x("A", 3, valid_ppl=60.0, **counted))
    assert learned(lines_of(rows)) == words
    assert any(note == words for note in notes(*rows)) == (words is not None)


def test_what_was_learned_of_leaky_diverged_and_several_protocols():
    alone = ffn_only(50.0)
    leaky = transformer(leaky=True, valid_ppl=2.0, valid_ppl_causal_eval=90.0)
    found = learned(lines_of([leaky, alone]))
    assert found.endswith("the last token: Transformer has valid ppl 90.00, FFN only 50.00, bigram 38.40.")
    assert learned(lines_of([row(status="diverged@3", valid_ppl=math.inf), alone])) is None
    other = {"protocol": "published"}
    rows = [row(), alone, row(variant_hash="p", valid_ppl=70.0, **other)]
    rows.append(ffn_only(60.0, variant_hash="q", **other))
    assert learned(lines_of(rows)).startswith("protocol published: No model learned to use")
