"""Studies, and the pages made of them, that the tests of the report share."""

import pytest

from tests.analysis import studies
from tests.analysis.report import pages


@pytest.fixture(scope="module")
def light():
    """Pages without the libraries: five megabytes that say nothing here."""
    from analysis.report import bundled

    with pytest.MonkeyPatch.context() as patch:
        for name in ("plotly_js", "datatables_js", "datatables_css"):
            patch.setattr(bundled, name, lambda: "")
        yield


@pytest.fixture(scope="module")
def ratios(tmp_path_factory):
    """The report's 31 models, three seeds."""
    return studies.with_metrics(studies.ar_ratio(tmp_path_factory.mktemp("report") / "ratios"))


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return studies.defects(tmp_path_factory.mktemp("report") / "ladder")


@pytest.fixture(scope="module")
def of_ratios(ratios, light):
    return pages.page(ratios)


@pytest.fixture(scope="module")
def of_both(ratios, ladder, light):
    return pages.page(ratios, ladder)
