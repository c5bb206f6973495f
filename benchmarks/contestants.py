"""Our two rows and their peers, behind one face: the same shapes, each in its own code.

Every peer is imported where it is built, so that none is needed for anything else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from benchmarks.options import WHAT
from retsweep.spec.run import RunSpec

if TYPE_CHECKING:
    from retsweep.layers.precision import Precision

#: One generated token a sequence, (batch,) -> logits (batch, vocabulary), behind what was read before.
Step = Callable[[Tensor], Tensor]


class Unavailable(Exception):
    """A contestant cannot take part here. Its text says why, in one line."""


@dataclass(frozen=True)
class Contestant:
    """``build(spec, positions)`` gives a model of the shapes of ``spec.scale`` that can read ``positions``
    tokens; ``logits(model, tokens)`` its logits at all of (batch, time);
    ``decoder(model, prompt, room, precision)`` reads a prompt (batch, time) as the model does that best
    and gives its step for the tokens that follow, of which there are at most ``room`` in all; it is
    called, and its step too, where autocast is at ``precision`` already. ``differs``: from our row, in
    words. ``package`` has its version, ``modules`` must import, ``needs`` is what to install. ``on``:
    kinds of device it runs on. ``what`` it takes part in."""

    name: str
    build: Callable[[RunSpec, int], nn.Module]
    logits: Callable[[nn.Module, Tensor], Tensor]
    decoder: Callable[[nn.Module, Tensor, int, Precision], Step]
    package: str = ""
    differs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    needs: str = ""
    on: tuple[str, ...] = ("cpu", "cuda")
    what: tuple[str, ...] = WHAT

    def check(self, kind: str) -> None:
        """Raises Unavailable if it does not run on that kind of device, or does not import."""
        if kind not in self.on:
            raise Unavailable(f"{self.name} has kernels for {', '.join(self.on)} alone, and this is {kind}")
        for module in self.modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # a peer's import may fail in any way: a version, a library
                reason = " ".join(str(error).split())
                raise Unavailable(
                    f"{self.name} does not import ({reason}); it needs: {self.needs}"
                ) from error

    @property
    def version(self) -> str:
        """Of its package; nothing for ours, and for what is not installed."""
        try:
            return importlib.metadata.version(self.package) if self.package else ""
        except importlib.metadata.PackageNotFoundError:
            return ""


# ---- ours ------------------------------------------------------------------------------------
def _ours(name: str) -> Contestant:
    def build(spec: RunSpec, positions: int) -> nn.Module:
        from retsweep.model import build

        return build(spec)

    return Contestant(name, build, lambda model, tokens: cast(Tensor, model(tokens)), _our_decoder)


def _our_decoder(model: nn.Module, prompt: Tensor, room: int, precision: Precision) -> Step:
    from retsweep.decode.engine import Decoder
    from retsweep.model import LanguageModel

    decoder = Decoder(cast(LanguageModel, model), batch=len(prompt), room=room, precision=precision)
    decoder.read(prompt)
    return decoder.step


# ---- transformers ----------------------------------------------------------------------------
def _gpt2(spec: RunSpec, positions: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    scale = spec.scale
    config = GPT2Config(
        vocab_size=scale.vocabulary,
        n_positions=positions,
        n_embd=scale.d_model,
        n_layer=scale.layers,
        n_head=scale.heads,
        n_inner=scale.ffn,
        activation_function="gelu",  # ours; its own gelu_new is several operations and slower
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        bos_token_id=0,
        eos_token_id=0,
    )
    return cast(nn.Module, GPT2LMHeadModel(config))


def _hub_logits(model: nn.Module, tokens: Tensor) -> Tensor:
    return cast(Tensor, model(input_ids=tokens, use_cache=False).logits)


def _hub_decoder(model: nn.Module, prompt: Tensor, room: int, precision: Precision) -> Step:
    """The library's cache, filled by its own prefill and grown as it grows by default."""
    cache = model(input_ids=prompt, use_cache=True, logits_to_keep=1).past_key_values
    return _hub_step(model, cache)


def _hub_static_decoder(model: nn.Module, prompt: Tensor, room: int, precision: Precision) -> Step:
    """The library's cache that is allocated beforehand, of ``room`` tokens."""
    from transformers import StaticCache

    cache = StaticCache(config=cast(Any, model).config, max_cache_len=room)
    model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return _hub_step(model, cache)


def _hub_step(model: nn.Module, cache: Any) -> Step:
    def step(tokens: Tensor) -> Tensor:
        nonlocal cache
        found = model(input_ids=tokens[:, None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = found.past_key_values
        return cast(Tensor, found.logits[:, -1])

    return step


# ---- yet-another-retnet ----------------------------------------------------------------------
def _another(spec: RunSpec, positions: int) -> nn.Module:
    from yet_another_retnet.retnet import RetNet

    scale = spec.scale
    return cast(
        nn.Module,
        RetNet(
            num_tokens=scale.vocabulary,
            d_model=scale.d_model,
            nhead=scale.heads,
            num_layers=scale.layers,
            dim_feedforward=scale.ffn,
            dropout=0.0,
        ),
    )


def _another_decoder(model: nn.Module, prompt: Tensor, room: int, precision: Precision) -> Step:
    retnet: Any = model
    _, states = retnet.forward_chunkwise(prompt, start_idx=0)
    position = prompt.shape[1]

    def step(tokens: Tensor) -> Tensor:
        nonlocal states, position
        logits, states = retnet.forward_recurrent(tokens, seq_idx=position, prev_states=states)
        position += 1
        return cast(Tensor, logits)

    return step


# ---- torchscale ------------------------------------------------------------------------------
def _torchscale(spec: RunSpec, positions: int) -> nn.Module:
    from torchscale.architecture.config import RetNetConfig
    from torchscale.architecture.retnet import RetNetDecoder

    scale = spec.scale
    config = RetNetConfig(
        decoder_embed_dim=scale.d_model,
        decoder_value_embed_dim=scale.d_model,
        decoder_retention_heads=scale.heads,
        decoder_ffn_embed_dim=scale.ffn * 2 // 3,  # three matrices where ours are two
        decoder_layers=scale.layers,
        vocab_size=scale.vocabulary,
    )
    embedding = nn.Embedding(scale.vocabulary, scale.d_model)
    return cast(nn.Module, RetNetDecoder(config, embed_tokens=embedding))


def _torchscale_decoder(model: nn.Module, prompt: Tensor, room: int, precision: Precision) -> Step:
    """Its recurrence has no prefill. Its cost does not depend on the position, so that it starts at the
    prompt's end with the state of one token; it is handed all tokens, of which it reads the last."""
    state: dict[Any, Any] = {}
    read = prompt

    def step(tokens: Tensor) -> Tensor:
        nonlocal read
        read = torch.cat([read, tokens[:, None]], dim=1)
        logits, _ = model(read, incremental_state=state)
        return cast(Tensor, logits[:, -1])

    return step


# ---- flash-linear-attention ------------------------------------------------------------------
def _fla(spec: RunSpec, positions: int) -> nn.Module:
    from fla.models import RetNetConfig, RetNetForCausalLM

    scale = spec.scale
    config = RetNetConfig(
        hidden_size=scale.d_model,
        num_hidden_layers=scale.layers,
        num_heads=scale.heads,
        expand_k=1,
        expand_v=1,
        intermediate_size=scale.ffn * 2 // 3,  # three matrices where ours are two
        vocab_size=scale.vocabulary,
        tie_word_embeddings=False,
        fuse_cross_entropy=False,  # the loss is the same function for all
    )
    return cast(nn.Module, RetNetForCausalLM(config))


EXTRA = "pip install -c constraints.txt -e '.[peers]'"
GPT2 = ("learned positions instead of rotary", "a final LayerNorm", "a head without bias")
GATED = "FFN of three gated matrices, two thirds as wide: as many products"
RMS = "RMSNorm instead of LayerNorm, a final one"

#: Ours first, then its peers.
GROUPS: dict[str, tuple[Contestant, ...]] = {
    "attention": (
        _ours("Transformer"),
        Contestant(
            "GPT-2",
            _gpt2,
            _hub_logits,
            _hub_decoder,
            package="transformers",
            differs=(
                *GPT2,
                "a cache that grows with each token, its default, where ours is allocated before",
            ),
            modules=("transformers.models.gpt2.modeling_gpt2",),
            needs=EXTRA,
        ),
        Contestant(
            "GPT-2, static cache",
            _gpt2,
            _hub_logits,
            _hub_static_decoder,
            package="transformers",
            differs=(*GPT2, "a cache that is allocated before, as ours, of which each step reads the whole"),
            modules=("transformers.models.gpt2.modeling_gpt2",),
            needs=EXTRA,
            what=("decode",),
        ),
    ),
    "retention": (
        _ours("RetNet"),
        Contestant(
            "yet-another-retnet",
            _another,
            lambda model, tokens: cast(Tensor, cast(Any, model).forward_parallel(tokens)),
            _another_decoder,
            package="yet-another-retnet",
            differs=(
                "biases in all projections",
                "four projections instead of one wide one",
                "no weights in the norm of heads",
                "FFN with SiLU instead of GELU",
                "decays of 1/32 to 1/512",
            ),
            modules=("yet_another_retnet.retnet",),
            needs=EXTRA,
        ),
        Contestant(
            "torchscale",
            _torchscale,
            lambda model, tokens: cast(Tensor, model(tokens)[0]),
            _torchscale_decoder,
            package="torchscale",
            differs=(GATED, RMS, "rows divided by their sum", "no biases"),
            modules=("torchscale.architecture.retnet",),
            needs="torchscale==0.3.0 with fairscale, and a timm and torchvision that fit the installed torch",
        ),
        Contestant(
            "flash-linear-attention",
            _fla,
            _hub_logits,
            _hub_decoder,
            package="flash-linear-attention",
            differs=(GATED, RMS, "retention in chunks, in Triton", "no biases"),
            modules=("fla.models",),
            needs="flash-linear-attention",
            on=("cuda",),
        ),
    ),
}
#: By kind of device: without these there is nothing to compare with. On a GPU the target is of the best
#: peer, and that is the one with kernels of its own.
REQUIRED = {
    "cpu": ("GPT-2", "yet-another-retnet"),
    "cuda": ("GPT-2", "yet-another-retnet", "flash-linear-attention"),
}


def parameters(model: nn.Module) -> int:
    """Elements of all different trainable tensors."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def block_parameters(model: nn.Module, vocabulary: int) -> int:
    """:func:`parameters` without those of embeddings, learned positions among them, and of the head."""
    outside = {
        id(parameter)
        for part in model.modules()
        if isinstance(part, nn.Embedding) or (isinstance(part, nn.Linear) and part.out_features == vocabulary)
        for parameter in part.parameters(recurse=False)
    }
    inside = (one for one in model.parameters() if one.requires_grad and id(one) not in outside)
    return sum(parameter.numel() for parameter in inside)


def halve_matrices(model: nn.Module) -> nn.Module:
    """``model``, its linear maps cast to bfloat16 in place, as our engine casts its own: autocast in
    inference casts every float32 matrix anew for each token, and a peer that pays for it would be slow
    by our doing."""
    for part in model.modules():
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D":  # transformers' name for one
            part.to(torch.bfloat16)
    return model
