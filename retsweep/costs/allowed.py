"""Operations that cost no matrix product, and how to see one that hides among them.

An operation that is neither counted nor named here fails the trace: a new one is a decision.
Elementwise products are free only while they are that. Three disguises are refused: a product
whose output is larger than both of its factors (an outer product), one that is summed afterwards
(a contraction), and one larger than any tensor of the matrix products of its block (a contraction
whose factors were expanded first).
"""

from __future__ import annotations

from typing import Any

from retsweep.costs.handles import UncountedError, elements, inputs, output, sizes, tensors

#: Multiply or divide element by element.
ELEMENTWISE_PRODUCTS = frozenset(
    f"aten::{name}{suffix}" for name in ("mul", "div", "addcmul") for suffix in ("", "_")
)

#: Sum over elements. Free as well, unless what they sum is a product.
SUMS = frozenset({"aten::sum", "aten::mean"})

#: One element in, one element out.
ELEMENTWISE = frozenset(
    f"aten::{name}{suffix}"
    for name in (
        *(
            "add",
            "sub",
            "rsub",
            "neg",
            "abs",
            "exp",
            "expm1",
            "exp2",
            "log",
            "log2",
            "log1p",
            "pow",
            "square",
        ),
        *("sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "silu", "gelu", "relu", "softplus"),
        *("clamp", "clamp_min", "clamp_max", "minimum", "maximum", "where", "masked_fill", "logical_not"),
        *("polar", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_not", "__and__", "__or__", "tril", "triu"),
        *("floor", "floor_divide", "remainder"),
    )
    for suffix in ("", "_")
)

#: Move, copy, look up or make elements.
LAYOUT = frozenset(
    f"aten::{name}"
    for name in (
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "movedim"),
        *(
            "expand",
            "expand_as",
            "repeat",
            "repeat_interleave",
            "squeeze",
            "unsqueeze",
            "select",
            "slice",
            "narrow",
        ),
        *(
            "split",
            "split_with_sizes",
            "chunk",
            "unbind",
            "cat",
            "stack",
            "flip",
            "roll",
            "constant_pad_nd",
            "pad",
        ),
        *(
            "contiguous",
            "clone",
            "copy_",
            "to",
            "type_as",
            "alias",
            "detach",
            "detach_",
            "lift_fresh",
            "index",
        ),
        *(
            "view_as_real",
            "view_as_complex",
            "conj",
            "mT",
            "mH",
            "numpy_T",
            "real",
            "imag",
            "complex",
            "size",
            "numel",
            "Int",
        ),
        *(
            "ScalarImplicit",
            "embedding",
            "dropout",
            "feature_dropout",
            "arange",
            "linspace",
            "zeros",
            "zeros_like",
        ),
        *(
            "ones",
            "ones_like",
            "full",
            "full_like",
            "empty",
            "empty_like",
            "new_zeros",
            "new_ones",
            "new_full",
        ),
        *("new_empty", "scalar_tensor", "softmax", "log_softmax", "max", "amax"),
    )
)

FREE = ELEMENTWISE | LAYOUT
#: Through these a product is followed to the sum behind it.
_TRANSPARENT = FREE | ELEMENTWISE_PRODUCTS


def check_product(node: Any) -> None:
    """Raises UncountedError if an elementwise product is an outer product of activations."""
    factors = tensors(inputs(node))
    if node.kind().startswith("aten::addcmul"):
        factors = factors[1:3]
    size = elements(output(node))
    if len(factors) == 2 and all(elements(factor) < size and depends_on_input(factor) for factor in factors):
        shapes = " x ".join(str(tuple(sizes(factor))) for factor in factors)
        raise UncountedError(f"{node.kind()} of {shapes} is an outer product: write it as einsum or matmul")


def check_sum(node: Any) -> None:
    """Raises UncountedError if what is summed is a product of two different activations."""
    if elements(inputs(node)[0]) == elements(output(node)):
        return
    waiting, seen = [inputs(node)[0]], set()
    while waiting:
        value = waiting.pop()
        above = value.node()
        if value.debugName() in seen or above.kind() not in _TRANSPARENT:
            continue
        seen.add(value.debugName())
        factors = tensors(inputs(above))
        if above.kind().startswith("aten::addcmul"):
            factors = factors[1:3]
        different = len({factor.debugName() for factor in factors}) == 2
        if above.kind() in ELEMENTWISE_PRODUCTS and different and all(map(_is_activation, factors)):
            raise UncountedError(
                f"{node.kind()} of a product ({above.kind()} of {tuple(sizes(value))}) is a contraction: "
                "write it as einsum or matmul"
            )
        waiting += [factor for factor in tensors(inputs(above)) if factor.isCompleteTensor()]


def _is_activation(value: Any) -> bool:
    return elements(value) > 1 and depends_on_input(value)


def depends_on_input(value: Any) -> bool:
    """Whether a traced value comes from the model's input or parameters, not from constants."""
    waiting, seen = [value], set()
    while waiting:
        current = waiting.pop()
        if current.debugName() in seen:
            continue
        seen.add(current.debugName())
        node = current.node()
        if node.kind() == "prim::Param":
            return True
        waiting += node.inputs()
    return False
