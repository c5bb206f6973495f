"""The claims of the report page: each verdict follows from rows, by rule."""

import pytest

from analysis.rows import read_rows
from analysis.table import build
from tests.analysis import studies
from tests.analysis.report import pages
from tests.analysis.rows import row, study, transformer, type_x

pytest.importorskip("jinja2", reason="a report needs the extra [report]")
pytest.importorskip("plotly", reason="a report needs the extra [report]")
pytest.importorskip("itables", reason="a report needs the extra [report]")

pytestmark = pytest.mark.usefixtures("light")


def test_claims_are_read_off_the_rows(ratios, of_ratios):
    said = pages.claims(of_ratios)
    best = said["Type A 10:2 beats the Transformer"]
    assert best["published protocol, run again"] == "not in this study"
    assert best["corrected protocol"].startswith("does not hold : higher by 4")
    lines = {line["label"]: line["valid_ppl"] for line in build("ratios", read_rows(ratios)).lines}
    means = f"{lines['Type A 10:2']:.2f} against {lines['Transformer']:.2f}"
    assert means in best["corrected protocol"]
    hopeless = said["Type C, heads of both kinds in every layer, is hopeless"]["corrected protocol"]
    assert "0 of 7 Type C models diverged" in hopeless
    assert "against Type A at equal shares of attention: higher by 10" in hopeless
    counted = said["Retention saves a third of the MACs"]["counting"]
    assert counted.startswith(
        "does not hold in training : RetNet against Transformer: as the report counted 1.00x"
    )
    assert "cheaper in decoding from a context of 40 on" in counted


@pytest.mark.parametrize(("shift", "verdict"), [(-0.2, "holds : lower by"), (0.0416, "not resolved")])
def test_another_outcome_is_another_verdict(tmp_path, shift, verdict):
    folder = study(
        tmp_path / "other",
        *studies.model("Transformer", "t", 0.0),
        *studies.model("Type A 10:2", "a", shift - 0.25 / 6),
        *studies.model("RetNet", "r"),
    )
    if verdict == "not resolved":  # equal by rule: noise of the size of nothing that three seeds could tell
        folder = study(
            tmp_path / "same",
            *(transformer(seed=seed, valid_ppl=30 + seed, variant_hash="t") for seed in range(3)),
            *(
                type_x("A", 10, seed=seed, valid_ppl=30 + 2 * ((seed + 1) % 3) / 2, variant_hash="a")
                for seed in range(3)
            ),
        )
    said = pages.claims(pages.page(folder))["Type A 10:2 beats the Transformer"]["corrected protocol"]
    assert said.startswith(verdict)


def test_one_seed_establishes_nothing(tmp_path):
    folder = study(tmp_path / "one", transformer(), type_x("A", 10, valid_ppl=20.0), row())
    said = pages.claims(pages.page(folder))["Type A 10:2 beats the Transformer"]
    assert said["corrected protocol"].startswith("not established : one run a variant")
    assert "20.00 against 33.25" in said["corrected protocol"]


def test_leaky_weights_speak_under_a_causal_mask(of_both):
    said = pages.claims(of_both)["Type A 10:2 beats the Transformer"]["published protocol, run again"]
    assert said.startswith("ladder does not hold : higher by 4")
    assert "leaky weights under a causal mask" in said
    assert "training perplexity, leaking, as the report measured: higher by" in said
    type_c = pages.claims(of_both)["Type C, heads of both kinds in every layer, is hopeless"]
    assert type_c["published protocol, run again"] == "ladder holds : 1 of 1 Type C models diverged"


def test_a_measured_time_stands_beside_the_count(tmp_path):
    def runs(**of_retnet):
        made = [transformer(seed=seed, tokens_per_second=1000 + seed, variant_hash="t") for seed in range(3)]
        return made + [
            row(seed=s, tokens_per_second=800 + s * s, variant_hash="r", **of_retnet) for s in range(3)
        ]

    claim = "Retention saves a third of the MACs"
    said = pages.claims(pages.page(study(tmp_path / "one", *runs())))[claim]["corrected protocol"]
    assert said.startswith(
        "does not hold : RetNet trains 801.7 tokens a second against 1,001: slower by 19.9 %"
    )
    said = pages.claims(pages.page(study(tmp_path / "two", *runs(device="gpu"))))[claim]["corrected protocol"]
    assert said == "not established : timed on several devices: cpu, gpu" or "gpu, cpu" in said


@pytest.mark.parametrize(
    ("full", "verdict"),
    [(15_000_000, "holds"), (25_000_000, "in part"), (31_000_000, "does not hold in training")],
)
def test_the_saving_is_judged_by_the_full_count(tmp_path, full, verdict):
    folder = study(tmp_path / "saves", transformer(), row(macs_train_forward=full))
    said = pages.claims(pages.page(folder))["Retention saves a third of the MACs"]["counting"]
    assert said.startswith(f"{verdict} : RetNet against Transformer")


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "reversed")])
def test_the_order_by_cost_is_a_rank_correlation(tmp_path, sign, verdict):
    models = [type_x("A", k, macs_published=k, macs_train_forward=1000 + sign * k) for k in range(1, 8)]
    said = pages.claims(pages.page(study(tmp_path / "order", *models)))[
        "The column of GMACs orders the models by cost"
    ]
    assert said["counting"].startswith(f"{verdict} : rank correlation over 7 models")
    assert f"training forward in full {sign:+.2f}" in said["counting"]
