"""Exact counts of single operations, and the disguises in which a contraction is refused."""

import itertools
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from retsweep.costs.fvcore_trace import trace_module
from retsweep.costs.handles import UncountedError, einsum_macs


class Call(nn.Module):
    """A function as a module, with a weight that makes it depend on something trained."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def macs(function, *shapes):
    arguments = [torch.empty(shape, device="meta") for shape in shapes]
    return trace_module(Call(function), *arguments, smallest_limit=10**6).macs


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (functional.linear, [(2, 3, 5), (7, 5)], 2 * 3 * 5 * 7),
        (functional.linear, [(5,), (7, 5), (7,)], 5 * 7),
        (torch.matmul, [(2, 4, 3, 5), (5, 7)], 2 * 4 * 3 * 5 * 7),
        (torch.matmul, [(1, 4, 3, 5), (2, 1, 5, 7)], 2 * 4 * 3 * 5 * 7),  # both broadcast
        (torch.matmul, [(5,), (5,)], 5),
        (torch.matmul, [(3, 5), (5,)], 15),
        (torch.mm, [(3, 5), (5, 7)], 105),
        (torch.bmm, [(2, 3, 5), (2, 5, 7)], 210),
        (torch.addmm, [(7,), (3, 5), (5, 7)], 105),
        (torch.baddbmm, [(2, 3, 7), (2, 3, 5), (2, 5, 7)], 210),
        (torch.addbmm, [(3, 7), (2, 3, 5), (2, 5, 7)], 210),
        (torch.mv, [(3, 5), (5,)], 15),
        (torch.addmv, [(3,), (3, 5), (5,)], 15),
        (torch.outer, [(3,), (5,)], 15),
        (torch.addr, [(3, 5), (3,), (5,)], 15),
        (torch.dot, [(5,), (5,)], 5),
        (
            functional.scaled_dot_product_attention,
            [(2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13)],
            2 * 3 * 5 * 11 * (7 + 13),
        ),
        (lambda x, w: functional.layer_norm(x, (5,), w), [(2, 3, 5), (5,)], 2 * 3 * 5 * 5),
        (lambda x: functional.layer_norm(x, (5,)), [(2, 3, 5)], 2 * 3 * 5 * 4),
        (lambda x: functional.group_norm(x, 2), [(3, 4)], 3 * 4 * 4),
        (lambda q, k: torch.einsum("bnd,bmd->bnm", q, k), [(2, 3, 5), (2, 7, 5)], 210),
    ],
)
def test_every_counted_operation_is_exact(function, shapes, expected):
    assert macs(function, *shapes) == expected


def test_einsum_is_exact_where_fvcore_rounds_its_text_or_halves_outer_products():
    assert einsum_macs("bhnd,bhmd->bhnm", [(1, 8, 32, 16), (1, 8, 32, 16)]) == 131_072
    assert einsum_macs("i,j->ij", [(3,), (5,)]) == 15
    assert einsum_macs("...nd,...dm->...nm", [(4, 1, 2, 3), (6, 3, 5)]) == 4 * 6 * 2 * 3 * 5
    assert einsum_macs("ij->ji", [(3, 5)]) == 0
    assert einsum_macs("ijk,j->ij", [(3, 5, 7), (5,)]) == 15  # k is summed before the product


labels = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    labels, labels, st.permutations("abcde"), st.fixed_dictionaries({c: st.integers(1, 4) for c in "abcde"})
)
def test_einsum_of_two_operands_counts_the_loop_nest(left, right, order, size):
    """The multiplications of the loop nest, after labels that meet nothing are summed away."""
    result = [c for c in order if c in left or c in right][:3]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    loops = [c for c in string.ascii_lowercase if c in set(left) | set(right)]
    loops = [c for c in loops if c in result or (c in left and c in right)]
    multiplied = sum(1 for _ in itertools.product(*(range(size[c]) for c in loops)))
    shapes = [[size[c] for c in left], [size[c] for c in right]]
    assert einsum_macs(equation, shapes) == multiplied


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (lambda x: x.cumsum(-1), [(3, 5)], "aten::cumsum is neither counted"),
        (lambda x: torch.fft.rfft(x), [(8,)], "aten::fft_rfft is neither counted"),
        (lambda q, k: (q * k).sum(-1), [(3, 5), (3, 5)], "is a contraction"),
        (lambda q, k: (q * k).transpose(0, 1).mean(0), [(3, 5), (3, 5)], "is a contraction"),
        (lambda q, k: ((q / k) * 2.0).sum(-1), [(3, 5), (3, 5)], "is a contraction"),
        (lambda q, k: (q[:, None] * k[None]).sum(-1), [(3, 5), (7, 5)], "outer product"),
        (lambda k, v: k[:, None] * v[None], [(5,), (7,)], "outer product"),
        (lambda s, k, v: torch.addcmul(s, k[:, None], v[None]), [(5, 7), (5,), (7,)], "outer product"),
        (lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(2, 3), (3, 4), (4, 5)], "3 operands"),
        (lambda a, b: torch.einsum("ij,jk", a, b), [(2, 3), (3, 4)], "does not name its result"),
    ],
)
def test_what_nobody_accounted_for_fails_with_its_name(function, shapes, message):
    with pytest.raises(UncountedError, match=message):
        macs(function, *shapes)


def test_an_expanded_product_larger_than_any_matrix_product_is_refused():
    def contraction(q, k):
        return q[:, None].repeat(1, 64, 1) * k.repeat(64, 1, 1)

    arguments = [torch.empty(64, 16, device="meta"), torch.empty(64, 16, device="meta")]
    with pytest.raises(UncountedError, match="in disguise"):
        trace_module(Call(contraction), *arguments, smallest_limit=64 * 16)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, g: functional.silu(g) * x, [(3, 5), (3, 5)]),
        (lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6), [(3, 5)]),  # a norm by hand
        (lambda x: x * torch.arange(3, device=x.device)[:, None], [(3, 5)]),
        (
            lambda x: (
                x * (torch.arange(3, device=x.device)[:, None] * torch.arange(5, device=x.device)[None])
            ),
            [(3, 5)],
        ),  # of constants
        (lambda x: x / x.exp().sum(-1, keepdim=True), [(3, 5)]),
        (lambda x: 2.0 * x + x.softmax(-1), [(3, 5)]),
    ],
)
def test_elementwise_work_is_free(function, shapes):
    assert macs(function, *shapes) == 0


def test_places_are_told():
    class Inner(nn.Module):
        def forward(self, x):
            return x.cumsum(-1)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 4), Inner()])

        def forward(self, x):
            return self.blocks[1](self.blocks[0](x))

    with torch.device("meta"):
        x, outer, plain = torch.empty(2, 4), Outer(), nn.Sequential(nn.Linear(4, 5), nn.GELU())
    with pytest.raises(UncountedError, match=r"in blocks\.1: aten::cumsum"):
        trace_module(outer, x)
    assert trace_module(plain, x).by_module() == {"0": {"linear": 40}}


def test_work_whose_result_is_thrown_away_counts():
    def wasteful(x):
        torch.matmul(x, x)
        x @ x
        return x

    assert macs(wasteful, (3, 3)) == 54
