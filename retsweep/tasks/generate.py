"""task=generate: text from a trained model. It makes no row and no study: ``sweep/generate.py`` finds the
trained trial and prints what this gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from retsweep.spec.base import SpecError
from retsweep.spec.base import spec as make_spec
from retsweep.spec.run import RunSpec
from retsweep.tasks.base import Workspace

if TYPE_CHECKING:
    import torch

    from retsweep.model import LanguageModel


@make_spec
class Generate:
    """``tokens`` at most; ``temperature``, ``top_k``, ``top_p``, ``seed`` as in retsweep/decode/sampling.py;
    ``checkpoint``: the weights that validation chose, or those of the last step."""

    name: ClassVar[str] = "generate"
    reads_data: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    computes: ClassVar[bool] = True

    tokens: PositiveInt = 200
    temperature: NonNegativeFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    checkpoint: Literal["best", "last"] = "best"

    def __call__(self, spec: RunSpec, workspace: Workspace) -> dict[str, Any]:
        """It has no columns. Raises SpecError."""
        raise SpecError("task=generate speaks for one trained run and makes no row; accepted: no sweep")

    @property
    def file(self) -> str:
        """The checkpoint's name in a trial's folder."""
        return f"{self.checkpoint}.pt"

    def text(self, spec: RunSpec, workspace: Workspace, prompt: str) -> Iterator[str]:
        """What comes behind ``prompt``, piece by piece as tokens are chosen, until the text ends.
        ``workspace`` is that of the trained trial; products are fp32, whatever it was trained in.

        Raises SpecError, before the first piece where it can be: a checkpoint that cannot be read, a mask
        that leaks, weights that are no numbers.
        """
        import torch

        from retsweep.data.prepare import prepare
        from retsweep.decode import Decoder, Sampling, continuation

        encoder = prepare(spec.corpus, spec.tokenizer, spec.scale.vocabulary, workspace.cache).encoder()
        read = torch.from_numpy(encoder.encode(prompt))[None]
        if not read.shape[1]:  # as a text begins: behind the end of another
            read = torch.tensor([[encoder.end]])
        model = self.model(spec, workspace)
        sampler = Sampling(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed
        ).sampler()
        decoder = Decoder(model, 1, read.shape[1] + self.tokens)

        def known(logits: torch.Tensor) -> torch.Tensor:
            return sampler(logits[:, : encoder.size])  # a model may have rows for which there is no token

        def tokens() -> Iterator[int]:
            for chosen in continuation(decoder, read, self.tokens, known):
                if int(chosen) == encoder.end:
                    return
                yield int(chosen)

        return encoder.streamed(tokens())

    def model(self, spec: RunSpec, workspace: Workspace) -> LanguageModel:
        """The trained model. Raises SpecError."""
        from retsweep.model import LanguageModel, build
        from retsweep.tasks.evaluation import with_weights
        from retsweep.train import checkpoint

        path: Path = workspace.folder / self.file
        try:
            weights = checkpoint.load(path)["weights"]
            if weights is None:
                raise SpecError(f"{path}: the run diverged before its first checkpoint and has no weights")
            checkpoint.check_weights(build(spec, device="meta"), weights, path)
        except checkpoint.BrokenCheckpoint as error:
            raise SpecError(str(error)) from error
        model = with_weights(spec, {name: value.to(workspace.device) for name, value in weights.items()})
        assert isinstance(model, LanguageModel)
        return model
