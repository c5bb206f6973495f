"""A wheel works from any folder: conf/ travels inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout and unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S -s and an explicit path: the checkout's editable install must not be what answers.
    packages = sysconfig.get_path("purelib")
    code = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {packages!r}]; import retsweep.__main__ as m; "
        f"assert m.__file__.startswith({str(site)!r}); sys.exit(m.main())"
    )
    environment = {**os.environ, "RETSWEEP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), packages])
    return subprocess.run(
        [sys.executable, "-S", "-s", "-c", code, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_wheel_carries_every_yaml_and_the_reports_figures(installed: Path) -> None:
    inside = {
        path.relative_to(installed / "retsweep") for path in (installed / "retsweep/conf").rglob("*.yaml")
    }
    assert inside == {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml")}
    figures = Path("analysis/published/retformers.csv")
    assert (installed / figures).read_bytes() == (ROOT / figures).read_bytes()


@pytest.mark.slow
def test_the_wheel_trains_from_any_folder(installed: Path, tmp_path: Path) -> None:
    for name, text in {"train": "a b c d " * 400, "valid": "a b d c " * 40, "test": "b a c d " * 40}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    done = run(
        installed, tmp_path, "scale=tiny", "corpus=text", f"corpus.path={tmp_path}", "tokenizer=bytes",
        "tracker=none", "protocol.steps=3", "study=wheel",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs/wheel/trials").glob("*/row.json"))
    assert (tmp_path / "runs/wheel/table.csv").read_text().startswith("label,architecture,")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_an_analysis_of_the_users_own_is_named_and_not_run(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "analysis.py"
    script.write_text("raise SystemExit('the script of the user ran')\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-m", "retsweep", "task=count", "scale=tiny", "tracker=none", "study=s"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"no table: {script} hides" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert list((tmp_path / "runs/s/trials").glob("*/row.json"))
    assert not (tmp_path / "runs/s/table.csv").exists()
