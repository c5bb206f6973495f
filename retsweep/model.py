"""The language model around the mixers: embedding, residual blocks, head (the RetFormers report).

    x = embedding[tokens]
    x = x + a dropout(mixer(LN(x)));  x = x + a dropout(FFN(LN(x)))    each block, pre-LayerNorm
    logits = W_head dropout(x) + bias                                   no final LayerNorm by default

FFN(x) = W_down GELU(W_up x). Embedding and head are untied. A block of the ``none`` layer is its
FFN alone. a = 1 as published (``model.branches: plain``), or 1/sqrt(2 layers), so that the sum of
all branches starts about as large as the embedding while each mixer stays as alive as it is alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retsweep.layers.initialise import Draw, initialise, normal
from retsweep.layers.mixer import Mixer
from retsweep.spec.forms import Form, Recurrent
from retsweep.spec.layer import LayerSpec, Normalisation, Operation
from retsweep.spec.run import Model, RunSpec
from retsweep.spec.scale import Scale

#: The head's start under ``model.start: fan_in``, as a fraction of 1/sqrt(fan_in): with it the first
#: loss is log(vocabulary), though no norm need stand before the head.
HEAD_GAIN = 0.1


def build(
    spec: RunSpec, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """The model of ``spec``, initialised from (``spec.seed``, each tensor's name) alone.

    On the meta device nothing is drawn and nothing allocated.
    """
    with torch.device("meta"):
        model = LanguageModel(spec).to(dtype)
    if buffers := [name for name, _ in model.named_buffers()]:
        raise TypeError(f"{', '.join(buffers)}: buffers are lost on the way from meta; use layers.constants")
    if torch.device(device).type != "meta":
        model.to_empty(device=device)
        initialise(model, spec.seed, spec.model.start)
    return model


# ---- census ----------------------------------------------------------------------------------
def parameters(spec: RunSpec) -> dict[str, int]:
    """Elements of every trainable tensor, by the name that the built model gives it."""
    scale, d = spec.scale, spec.scale.d_model
    norm = {"weight": d, "bias": d}
    ffn = {
        "up.weight": d * scale.ffn,
        "up.bias": scale.ffn,
        "down.weight": scale.ffn * d,
        "down.bias": d,
    }
    sizes = {"embedding": {"weight": scale.vocabulary * d}}
    for index, layer in enumerate(spec.layers):
        block = f"blocks.{index}"
        if layer.mixes:
            sizes |= {f"{block}.mixer_norm": norm, f"{block}.mixer": layer.parameters(scale.shape)}
        sizes |= {f"{block}.ffn_norm": norm, f"{block}.ffn": ffn}
    if spec.model.final_norm:
        sizes["final_norm"] = norm
    sizes["head"] = {"weight": scale.vocabulary * d}
    if spec.model.head_bias:
        sizes["head"]["bias"] = scale.vocabulary
    return {f"{module}.{tensor}": size for module, inner in sizes.items() for tensor, size in inner.items()}


def operations(spec: RunSpec, form: Form | None = None) -> tuple[Operation, ...]:
    """Every matrix product for one sequence in ``form``, under the path of the module that runs it.

    ``form`` None: what ``forward`` computes for ``scale.context`` tokens, each layer in the form
    that it trains in.
    """
    scale, d = spec.scale, spec.scale.d_model
    tokens = scale.context if form is None else 1 if isinstance(form, Recurrent) else form.tokens
    ffn = tokens * d * scale.ffn
    counted: list[Operation] = []
    for index, layer in enumerate(spec.layers):
        block = f"blocks.{index}"
        if layer.mixes:
            inner = layer.operations(scale.shape, form or layer.training_form(tokens))
            counted += [operation.below(f"{block}.mixer") for operation in inner]
        counted += [Operation(name, f"{block}.ffn.{name}", "ffn", ffn) for name in ("up", "down")]
    return (*counted, Operation("logits", "head", "head", tokens * d * scale.vocabulary))


def normalisations(spec: RunSpec, tokens: int) -> tuple[Normalisation, ...]:
    """Every layer or group norm over one sequence of ``tokens`` tokens, in any form."""
    scale, counted = spec.scale, []
    elements = tokens * scale.d_model
    for index, layer in enumerate(spec.layers):
        block = f"blocks.{index}"
        if layer.mixes:
            counted.append(Normalisation(f"{block}.mixer_norm", elements, weighted=True))
            counted += [norm.below(f"{block}.mixer") for norm in layer.normalisations(scale.shape, tokens)]
        counted.append(Normalisation(f"{block}.ffn_norm", elements, weighted=True))
    final = (Normalisation("final_norm", elements, weighted=True),) if spec.model.final_norm else ()
    return (*counted, *final)


def state_elements(spec: RunSpec, context: int) -> dict[str, int]:
    """Elements that one sequence keeps between generated tokens: {"cache": n, "state": n}."""
    kept = [layer.state_elements(spec.scale.shape, context) for layer in spec.layers]
    return {kind: sum(one[kind] for one in kept) for kind in ("cache", "state")}


# ---- modules ---------------------------------------------------------------------------------
class FeedForward(nn.Module):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.up = nn.Linear(scale.d_model, scale.ffn)
        self.down = nn.Linear(scale.ffn, scale.d_model)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(functional.gelu(self.up(x)))
        return y


class Block(nn.Module):
    """x: (batch, time, d_model), or (batch, d_model) for one token; the same comes out."""

    mixer: Mixer

    def __init__(self, layer: LayerSpec, scale: Scale, options: Model) -> None:
        super().__init__()
        self.branch = 1.0 if options.branches == "plain" else (2 * scale.layers) ** -0.5
        self.mixes = layer.mixes
        if self.mixes:
            self.mixer_norm = nn.LayerNorm(scale.d_model)
            self.mixer = cast(Mixer, layer.build(scale.shape))
        self.ffn_norm = nn.LayerNorm(scale.d_model)
        self.ffn = FeedForward(scale)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.mixes:
            x = self._add(x, self.mixer(self.mixer_norm(x)))
        return self._feed(x)

    def chunkwise(self, x: Tensor, chunk: int, state: Any) -> tuple[Tensor, Any]:
        if self.mixes:
            y, state = self.mixer.chunkwise(self.mixer_norm(x), chunk, state)
            x = self._add(x, y)
        return self._feed(x), state

    def recurrent(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if self.mixes:
            y, state = self.mixer.recurrent(self.mixer_norm(x), state)
            x = self._add(x, y)
        return self._feed(x), state

    def initial_state(self, batch: int, dtype: torch.dtype | None, room: int) -> Any:
        """The mixer's; None without one."""
        return self.mixer.initial_state(batch, dtype, room) if self.mixes else None

    def stand_in_state(self, batch: int, context: int, room: int, dtype: torch.dtype | None) -> Any:
        """The mixer's; None without one."""
        return self.mixer.stand_in_state(batch, context, room, dtype) if self.mixes else None

    def _feed(self, x: Tensor) -> Tensor:
        return self._add(x, self.ffn(self.ffn_norm(x)))

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.add(x, self.dropout(y), alpha=self.branch)


class LanguageModel(nn.Module):
    """tokens: (batch, time) of int64 -> logits: (batch, time, vocabulary).

    States are a tuple with one entry a block, fed back as they come out.
    """

    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        scale, options = spec.scale, spec.model
        self.embedding = nn.Embedding(scale.vocabulary, scale.d_model)
        self.blocks = nn.ModuleList(Block(layer, scale, options) for layer in spec.layers)
        self.final_norm = nn.LayerNorm(scale.d_model) if options.final_norm else nn.Identity()
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(scale.d_model, scale.vocabulary, bias=options.head_bias)
        self._start = options.start

    def starts(self) -> dict[str, Draw]:
        if self._start != "fan_in":
            return {}
        return {"head.weight": normal(HEAD_GAIN * self.head.in_features**-0.5)}

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(self.hidden(tokens))
        return y

    def hidden(self, tokens: Tensor) -> Tensor:
        """What the head multiplies, dropout done: (batch, time) -> (batch, time, d_model)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self._close(x)

    def chunkwise(
        self, tokens: Tensor, chunk: int, states: tuple[Any, ...] | None = None, *, last: bool = False
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Prefill: (batch, time) after ``states`` -> (logits, states after the last token).

        ``last``: logits of the last position alone, (batch, 1, vocabulary). Those of all of a long
        prompt are many times all else that a prefill needs.
        """
        x, after = self.embedding(tokens), []
        for block, state in zip(self._blocks(), states or (None,) * len(self.blocks), strict=True):
            x, state = block.chunkwise(x, chunk, state)
            after.append(state)
        return self._read(x[:, -1:] if last else x), tuple(after)

    def recurrent(self, tokens: Tensor, states: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One token a sequence: (batch,) -> (logits: (batch, vocabulary), states after it)."""
        x, after = self.embedding(tokens), []
        for block, state in zip(self._blocks(), states, strict=True):
            x, state = block.recurrent(x, state)
            after.append(state)
        return self._read(x), tuple(after)

    def initial_states(self, batch: int, dtype: torch.dtype | None = None, room: int = 0) -> tuple[Any, ...]:
        """Before the first token; arguments as of ``Mixer.initial_state``."""
        return tuple(block.initial_state(batch, dtype, room) for block in self._blocks())

    def stand_in_states(
        self, batch: int, context: int, room: int = 0, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """As after ``context`` tokens, with arbitrary contents: as of ``Mixer.stand_in_state``."""
        return tuple(block.stand_in_state(batch, context, room, dtype) for block in self._blocks())

    def _blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    def _close(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.final_norm(x))
        return y

    def _read(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self._close(x))
        return y
