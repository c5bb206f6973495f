"""How many multiply-accumulates a traced operation does, in whole numbers from its shapes.

fvcore's own handles count no ``scaled_dot_product_attention``, ``baddbmm``, ``mv`` or ``outer``,
read einsum's count from rounded text and halve its outer products; these replace them. A handle
takes the node of a traced graph and answers its MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

Handle = Callable[[Any], int]


class CensusError(Exception):
    """The census and the built model disagree. One line that names the operation and its place."""


class UncountedError(CensusError):
    """The built model does something of which nobody has said what it costs."""


def sizes(value: Any) -> list[int]:
    """The shape of a traced tensor."""
    if not value.isCompleteTensor():
        raise UncountedError(f"{value.node().kind()}: a tensor of unknown shape cannot be counted")
    return list(value.type().sizes())


def is_tensor(value: Any) -> bool:
    return bool(value.type().kind() == "TensorType")


def elements(value: Any) -> int:
    return prod(sizes(value))


def tensors(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if is_tensor(value)]


def output(node: Any) -> Any:
    return next(node.outputs())


def inputs(node: Any) -> list[Any]:
    return list(node.inputs())


def product_of(first: int) -> Handle:
    """A matrix product whose left operand is the input number ``first``: (..., k) x k.

    Every element of the output is a sum of k products.
    """

    def macs(node: Any) -> int:
        return elements(output(node)) * sizes(inputs(node)[first])[-1]

    return macs


def batch_summed(node: Any) -> int:
    """addbmm: input 1 is (b, n, k), the output (n, m) a sum over b and k."""
    left = sizes(inputs(node)[1])
    return elements(output(node)) * left[0] * left[-1]


def outer(first: int) -> Handle:
    """One product an element of the output."""

    def macs(node: Any) -> int:
        return prod(elements(value) for value in inputs(node)[first : first + 2])

    return macs


def dot(node: Any) -> int:
    return elements(inputs(node)[0])


def attention(node: Any) -> int:
    """Q K^T and A V in full, whatever the mask leaves: queries (..., t, e), keys (..., s, e)."""
    query, key = inputs(node)[:2]
    keys = sizes(key)[-2]
    return keys * (elements(query) + elements(output(node)))


def einsum(node: Any) -> int:
    """Two operands: a product for every combination of the labels that meet.

    A label of one operand alone that the result lacks is summed before anything is multiplied.
    One operand multiplies nothing; three have no order of their own and are not counted.
    """
    equation = inputs(node)[0].toIValue().replace(" ", "")
    shapes = [sizes(value) for value in inputs(node)[1].node().inputs()]
    return einsum_macs(equation, shapes)


def einsum_macs(equation: str, shapes: Sequence[Sequence[int]]) -> int:
    if len(shapes) == 1:
        return 0
    if len(shapes) > 2:
        raise UncountedError(f"einsum {equation!r} has {len(shapes)} operands: write it as products of two")
    left, arrow, result = equation.partition("->")
    if not arrow:
        raise UncountedError(f"einsum {equation!r} does not name its result: write it with ->")
    labelled = [_labels(term, shape) for term, shape in zip(left.split(","), shapes, strict=True)]
    meeting = set(labelled[0]) & set(labelled[1])
    size: dict[str, int] = {}
    for labels in labelled:
        for label, length in labels.items():
            if label in meeting or label in result or label.startswith("."):
                size[label] = max(length, size.get(label, 1))
    return prod(size.values())


def _labels(term: str, shape: Sequence[int]) -> dict[str, int]:
    """Sizes by label; the dimensions of an ellipsis are ".1", ".2" ... from the right."""
    before, dots, after = term.partition("...")
    hidden = [f".{index}" for index in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
    return dict(zip([*before, *hidden, *after], shape, strict=True))


#: Operations that multiply matrices, by the name under which a trace knows them.
PRODUCTS: dict[str, Handle] = {
    "aten::linear": product_of(0),
    "aten::matmul": product_of(0),
    "aten::mm": product_of(0),
    "aten::bmm": product_of(0),
    "aten::mv": product_of(0),
    "aten::addmm": product_of(1),
    "aten::addmv": product_of(1),
    "aten::baddbmm": product_of(1),
    "aten::addbmm": batch_summed,
    "aten::outer": outer(0),
    "aten::ger": outer(0),
    "aten::addr": outer(1),
    "aten::dot": dot,
    "aten::vdot": dot,
    "aten::einsum": einsum,
    "aten::scaled_dot_product_attention": attention,
}
