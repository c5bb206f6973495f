"""The built model, traced on the meta device by fvcore: what the census must equal.

fvcore counts a multiply-accumulate as one and adds 5 an element (4 without weights) for layer
and group norms. Matrix products go through the exact handles of ``handles.py``; what is neither
counted nor allowed in ``allowed.py`` fails the trace with its name and place.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from retsweep import model
from retsweep.costs.allowed import ELEMENTWISE_PRODUCTS, FREE, SUMS, check_product, check_sum
from retsweep.costs.conventions import FVCORE_NORM
from retsweep.costs.handles import PRODUCTS, CensusError, UncountedError, elements, inputs, output, tensors
from retsweep.spec.layer import LayerSpec
from retsweep.spec.run import Model, RunSpec
from retsweep.spec.scale import Scale

NORMALISATIONS = ("aten::layer_norm", "aten::group_norm")
BLOCK = "blocks.0."
#: How Python calls the matrix products.
PYTHON_NAMES = {"__matmul__", "__rmatmul__", *(name.removeprefix("aten::") for name in PRODUCTS)}


@dataclass(frozen=True)
class Traced:
    """One counted operation: the dotted path of the module that executed it, fvcore's name of the
    operator ("linear", "layer_norm" ...), and its multiply-accumulates."""

    module: str
    operator: str
    macs: int

    @property
    def is_normalisation(self) -> bool:
        return f"aten::{self.operator}" in NORMALISATIONS


@dataclass(frozen=True)
class Trace:
    """Every counted operation of one forward pass, in order."""

    operations: tuple[Traced, ...]

    @property
    def macs(self) -> int:
        return sum(operation.macs for operation in self.operations)

    def by_module(self) -> dict[str, Counter[str]]:
        """MACs by operator, under the path of the very module that executed them."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for operation in self.operations:
            counts[operation.module][operation.operator] += operation.macs
        return dict(counts)


def trace(spec: RunSpec) -> Trace:
    """One training forward of the built model at batch 1 and ``scale.context`` tokens.

    Raises UncountedError for an operation that nobody has accounted for, and CensusError if the
    trace is not the census plus fvcore's normalisations, operation by operation.

    Blocks of equal layers are equal, so each kind is traced once a process, in a model of that one
    block; ``trace_whole`` traces all of them and gives the same.
    """
    alone = [_trace_alone(_Block(layer, spec.scale, spec.model, spec)).operations for layer in spec.layers]
    before, after = _shell(alone[0])
    blocks = [_renumbered(operations, index) for index, operations in enumerate(alone)]
    found = Trace((*before, *(operation for block in blocks for operation in block), *after))
    compare(expected(spec), found.by_module())
    return found


def trace_whole(spec: RunSpec) -> Trace:
    """``trace``, every block of the network traced for itself and nothing compared."""
    tokens = torch.zeros(1, spec.scale.context, dtype=torch.int64, device="meta")
    built = model.build(spec, device="meta").eval()
    return trace_module(built, tokens, smallest_limit=spec.scale.context * spec.scale.d_model)


@dataclass(frozen=True)
class _Block:
    """A layer with all that its block depends on; ``spec`` is any network that has it."""

    layer: LayerSpec
    scale: Scale
    model: Model
    spec: RunSpec = field(compare=False)


@functools.lru_cache(maxsize=128)
def _trace_alone(block: _Block) -> Trace:
    scale = dataclasses.replace(block.scale, layers=1)
    return trace_whole(dataclasses.replace(block.spec, scale=scale, layers=(block.layer,)))


def _shell(operations: Sequence[Traced]) -> tuple[list[Traced], list[Traced]]:
    """What a network of one block does before the block and after it."""
    inside = [index for index, operation in enumerate(operations) if operation.module.startswith(BLOCK)]
    return list(operations[: inside[0]]), list(operations[inside[-1] + 1 :])


def _renumbered(operations: Sequence[Traced], index: int) -> list[Traced]:
    """The block of a network of one block, as block ``index``."""
    return [
        dataclasses.replace(operation, module=f"blocks.{index}.{operation.module.removeprefix(BLOCK)}")
        for operation in operations
        if operation.module.startswith(BLOCK)
    ]


def expected(spec: RunSpec) -> dict[str, Counter[str]]:
    """What ``trace`` must find: the census of the trained form and fvcore's normalisations, in
    multiply-accumulates by kind ("product", "normalisation"), by module path."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in model.operations(spec):
        counts[operation.module]["product"] += operation.macs
    for norm in model.normalisations(spec, spec.scale.context):
        counts[norm.module]["normalisation"] += norm.elements * FVCORE_NORM[norm.weighted]
    return dict(counts)


def compare(census: Mapping[str, Counter[str]], traced: Mapping[str, Counter[str]]) -> None:
    """Raises CensusError at the first module where the two differ."""
    for path in dict.fromkeys([*census, *traced]):
        found: Counter[str] = Counter()
        for operator, macs in traced.get(path, Counter()).items():
            found["normalisation" if f"aten::{operator}" in NORMALISATIONS else "product"] += macs
        wanted = census.get(path, Counter())
        for kind in ("product", "normalisation"):
            if found[kind] != wanted[kind]:
                raise CensusError(
                    f"{path or 'the model'}: the census says {wanted[kind]:,} multiply-accumulates of "
                    f"{kind}s, the built module does {found[kind]:,} ({dict(traced.get(path, {}))})"
                )


def trace_module(module: nn.Module, *arguments: torch.Tensor, smallest_limit: int = 0) -> Trace:
    """``module`` called on ``arguments``. ``smallest_limit``: elements that an elementwise product
    may have even where no matrix product of its block handles a tensor as large."""
    with _quiet():
        from fvcore.nn import FlopCountAnalysis

        recorder = _Recorder()
        analysis = FlopCountAnalysis(module, arguments)
        normal = {name: analysis._op_handles[name] for name in NORMALISATIONS}
        analysis.clear_op_handles()
        for name, count in PRODUCTS.items():
            analysis.set_op_handle(name, recorder.counts(count))
        for name, handle in normal.items():
            analysis.set_op_handle(name, recorder.keeps(handle))
        for name in ELEMENTWISE_PRODUCTS:
            analysis.set_op_handle(name, recorder.frees(check_product, is_product=True))
        for name in SUMS:
            analysis.set_op_handle(name, recorder.frees(check_sum))
        analysis.set_op_handle(**dict.fromkeys(FREE))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        with torch.no_grad(), _everything_kept(module):
            total = analysis.total()
        unknown = {path: Counter(analysis.unsupported_ops(path)) for path in analysis.by_module()}
    found = Trace(tuple(recorder.operations))
    _refuse_unknown(unknown)
    recorder.refuse_large_products(smallest_limit)
    if total != found.macs:
        raise UncountedError(f"fvcore totals {total:,} MACs, its operations {found.macs:,}")
    return found


@dataclass
class _Recorder:
    """fvcore sums over modules; this keeps every operation with its place."""

    operations: list[Traced] = field(default_factory=list)
    largest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    products: list[tuple[str, str, int]] = field(default_factory=list)

    def counts(self, count: Callable[[Any], int]) -> Callable[[Any, Any], int]:
        def handle(_: list[Any], outputs: list[Any]) -> int:
            node = outputs[0].node()
            return self._keep(node, _named(node, count))

        return handle

    def keeps(self, handle: Callable[[Any, Any], int]) -> Callable[[Any, Any], int]:
        """fvcore's own ``handle``, its answer kept."""
        return lambda given, outputs: self._keep(outputs[0].node(), int(handle(given, outputs)))

    def frees(self, check: Callable[[Any], None], is_product: bool = False) -> Callable[[Any, Any], int]:
        def handle(_: list[Any], outputs: list[Any]) -> int:
            node = outputs[0].node()
            _named(node, check)
            if is_product:
                self.products.append((_path(node), node.kind(), elements(output(node))))
            return 0

        return handle

    def _keep(self, node: Any, macs: int) -> int:
        path = _path(node)
        self.operations.append(Traced(path, node.kind().removeprefix("aten::"), macs))
        tensor_sizes = [elements(value) for value in tensors([*inputs(node), output(node)])]
        if node.kind() == "aten::scaled_dot_product_attention":  # the scores it keeps to itself
            tensor_sizes.append(macs // (2 * inputs(node)[0].type().sizes()[-1]))
        self.largest[_block(path)] = max(self.largest[_block(path)], *tensor_sizes)
        return macs

    def refuse_large_products(self, smallest_limit: int) -> None:
        for path, kind, size in self.products:
            limit = max(self.largest[_block(path)], smallest_limit)
            if size > limit:
                raise UncountedError(
                    f"{kind} in {path or 'the model'} makes {size:,} elements, more than any matrix product "
                    f"there handles ({limit:,}): a contraction in disguise? write it as einsum or matmul"
                )


def _named(node: Any, ask: Callable[[Any], Any]) -> Any:
    """``ask(node)``, with the module's path in what it complains of."""
    try:
        return ask(node)
    except UncountedError as error:
        raise UncountedError(f"in {_path(node) or 'the model'}: {error}") from error


def _refuse_unknown(unknown: dict[str, Counter[str]]) -> None:
    if not unknown[""]:
        return
    name = min(unknown[""])
    path = max(
        (path for path, found in unknown.items() if name in found),
        key=lambda path: path.count(".") + bool(path),
    )
    raise UncountedError(
        f"in {path or 'the model'}: {name} is neither counted (costs/handles.py) nor free (costs/allowed.py)"
    )


def _path(node: Any) -> str:
    return str(node.scopeName()).split("/")[-1]


def _block(path: str) -> str:
    return ".".join(path.split(".")[:2])


@contextmanager
def _everything_kept(module: nn.Module) -> Iterator[None]:
    """While it lasts, every matrix product is an output of ``module``.

    torch drops from a trace what no output needs, although it is executed: the state after the
    last chunk, for one.
    """
    kept: list[torch.Tensor] = []

    class Keep(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") in PYTHON_NAMES and isinstance(result, torch.Tensor):
                kept.append(result)
            return result

    handle = module.register_forward_hook(lambda _module, _inputs, result: (result, tuple(kept)))
    try:
        with Keep():
            yield
    finally:
        handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """fvcore warns on import and while it traces, torch of tracing itself: none of it is news."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
