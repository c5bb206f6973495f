"""A precision that the device lacks is told before anything is written."""

from __future__ import annotations

import pytest

from retsweep.__main__ import EXIT_BAD, main
from retsweep.spec import SpecError, load_spec


def test_tf32_is_a_gpu_s() -> None:
    protocol = load_spec(["protocol.precision=tf32"]).protocol
    protocol.check_device("cuda")
    protocol.check_device("cuda:1")
    with pytest.raises(SpecError, match=r"^protocol\.precision=tf32 .* on cpu; accepted there: fp32, bf16$"):
        protocol.check_device("cpu")
    for precision in ("fp32", "bf16"):
        load_spec([f"protocol.precision={precision}"]).protocol.check_device("cpu")


@pytest.mark.parametrize("task", ["train", "decode_bench", "train_bench"])
def test_it_is_refused_when_the_sweep_is_planned(tmp_path, capsys, task) -> None:
    asked = [
        f"task={task}",
        "scale=tiny",
        "protocol.precision=tf32",
        "device=cpu",
        "tracker=none",
        f"runs={tmp_path}/runs",
    ]
    assert main(asked) == EXIT_BAD
    assert capsys.readouterr().err.startswith("retsweep: protocol.precision=tf32 is of a GPU's tensor cores")
    assert not (tmp_path / "runs").exists()
    assert main([*asked, "--cfg"]) == 0  # it can be composed for another machine
