from analysis.published import counterpart, retformers
from tests.analysis.rows import row, transformer, type_x

KNOWN = {model.architecture: model for model in retformers()}


def test_the_report_has_31_models_and_their_perplexities_end_where_it_says():
    models = retformers()
    assert [sum(m.architecture.startswith(f"Type {letter}") for m in models) for letter in "ABC"] == [
        11,
        11,
        7,
    ]
    assert len(models) == len(KNOWN) == 31
    for model in models:
        assert abs(model.train_ppl_by_epoch[-1] - model.train_ppl) < 6e-4 * max(1, model.train_ppl)
        misprint = 0.0061 if model.architecture == "Type A 8:4" else 0  # 9.10 for 9.106
        assert abs(model.macs / 1e9 - model.gmacs) < 6e-4 + misprint


def test_counterparts_have_the_layout_depth_and_mixers_of_the_report():
    assert counterpart(transformer(), KNOWN).gmacs == 10.305
    assert counterpart(row(), KNOWN).train_ppl == 23.984
    assert counterpart(type_x("C", 3), KNOWN).gmacs == 9.012
    assert counterpart(type_x("A", 3, mixer="gla"), KNOWN) is None
    assert counterpart(type_x("C", 3, hybrid_form="direct"), KNOWN) is None
    assert counterpart(row(layers=4, retention_heads=16), KNOWN) is None
    assert counterpart(row(retention_heads=48), KNOWN) is None
    assert counterpart(row("Pattern 1:1"), KNOWN) is None
