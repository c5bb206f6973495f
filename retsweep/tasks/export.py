"""task=export: a trained model as safetensors, which hold tensors and text and nothing that could run.

``sweep/export.py`` finds the trained trial. What it writes is read back by :func:`read_exported`::

    from retsweep.tasks.export import read_exported

    model = read_exported("runs/STUDY/trials/HASH/export")

safetensors check no content, so that the header carries a CRC-32 of each tensor, and of itself.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from retsweep import __version__
from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from retsweep.model import LanguageModel

#: In a trial's folder, and in that.
FOLDER, WEIGHTS, CONFIG = "export", "model.safetensors", "config.yaml"
CHECKSUMS, HEADER = "crc32", "crc32_of_this"


@make_spec
class Export:
    """``checkpoint``: the weights that validation chose, or those of the last step."""

    name: ClassVar[str] = "export"
    reads_data: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    checkpoint: Literal["best", "last"] = "best"

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """It has no columns. Raises SpecError."""
        raise SpecError("task=export writes one trained run and makes no row; accepted: no sweep")

    @property
    def file(self) -> str:
        """The checkpoint's name in a trial's folder."""
        return f"{self.checkpoint}.pt"


def write(spec: RunSpec, checkpoint: Path, folder: Path, said: Mapping[str, str]) -> Path:
    """Writes the weights of ``checkpoint`` into ``folder``, ``said`` into their header. Raises SpecError
    for one that is broken, or of another model."""
    from safetensors.torch import save

    from retsweep.model import build
    from retsweep.train.atomic import write_atomically
    from retsweep.train.checkpoint import BrokenCheckpoint, check_weights, load

    try:
        content = load(checkpoint)
        weights: dict[str, Tensor] | None = content["weights"]
        if weights is None:
            raise SpecError(f"{checkpoint}: the run diverged before its first checkpoint and has no weights")
        check_weights(build(spec, device="meta"), weights, checkpoint)
    except (BrokenCheckpoint, FileNotFoundError) as error:
        raise SpecError(str(error)) from error
    own = {name: tensor.contiguous().clone() for name, tensor in weights.items()}  # no two share their bytes
    header = {
        **said,
        "format": "pt",
        "retsweep": __version__,
        "step": str(content["step"]),
        CHECKSUMS: json.dumps({name: _checksum(tensor) for name, tensor in own.items()}, sort_keys=True),
    }
    header[HEADER] = _checksum_of(header)
    folder.mkdir(exist_ok=True)
    write_atomically(folder / WEIGHTS, lambda file: file.write(save(own, header)))
    return folder / WEIGHTS


def read_exported(folder: Path | str) -> LanguageModel:
    """The model that was exported into ``folder``, on the CPU. Raises SpecError, in one line, for files that
    are broken or of two models."""
    from safetensors import SafetensorError, safe_open

    from retsweep.model import LanguageModel, build
    from retsweep.spec.configs import from_file
    from retsweep.spec.load import load
    from retsweep.tasks.evaluation import with_weights
    from retsweep.train.checkpoint import BrokenCheckpoint, check_weights

    spec, _ = load(from_file(Path(folder) / CONFIG))
    path = Path(folder) / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.pop(HEADER) != _checksum_of(header):
            raise BrokenCheckpoint(f"{path}: checksum of its header is wrong")
        checksums = json.loads(header[CHECKSUMS])
        for name, tensor in weights.items():
            if checksums.get(name) != _checksum(tensor):
                raise BrokenCheckpoint(f"{path}: checksum of {name} is wrong")
        check_weights(build(spec, device="meta"), weights, path)
    except BrokenCheckpoint as error:
        raise SpecError(str(error)) from error
    except (OSError, SafetensorError, ValueError, LookupError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise SpecError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error
    model = with_weights(spec, weights)
    assert isinstance(model, LanguageModel)
    return model


def _checksum_of(header: Mapping[str, str]) -> str:
    return str(zlib.crc32(json.dumps(header, sort_keys=True).encode()))


def _checksum(tensor: Tensor) -> int:
    """Of its bytes, its name's kind of number and its shape."""
    import torch

    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    flat = tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor.new_zeros(0)
    return zlib.crc32(flat.numpy().tobytes(), zlib.crc32(about))
