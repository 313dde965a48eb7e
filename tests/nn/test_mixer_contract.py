"""What every sequence mixer keeps to: any split, any padding, packed documents, and states that do not change."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.nn import Layout
from tests.nn.mixers import BUILD, DIM, mixer

NAMES = pytest.mark.parametrize("name", BUILD)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_pieces(module, x, cuts, state=None):
    outputs, start = [], 0
    for stop in [*cuts, x.shape[1]]:
        output, state = module(x[:, start:stop], state)
        outputs.append(output)
        start = stop
    return torch.cat(outputs, 1), state


@NAMES
@pytest.mark.parametrize("cuts", [[1], [18], [3, 4, 4, 9], list(range(1, 19))], ids=["1", "18", "4", "steps"])
def test_any_split_has_the_values_and_gradients_of_the_whole(name, cuts):
    module, x = mixer(name), numbers(2, 19, DIM)
    weights = numbers(2, 19, DIM, seed=2)
    gradients = []
    for pieces in ([], cuts):
        leaf = x.clone().requires_grad_()
        output, state = in_pieces(module, leaf, pieces)
        module.zero_grad()
        (output * weights).sum().backward()
        gradients.append([output.detach(), leaf.grad, *[parameter.grad.clone() for parameter in module.parameters()]])
        assert state.seen.tolist() == [19, 19]
    for whole, split in zip(*gradients, strict=True):
        torch.testing.assert_close(split, whole, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # in place, which the backward pass above did not allow
        torch.testing.assert_close(in_pieces(module, x, cuts)[0], gradients[0][0], **CLOSE)
        state = module.init_state(2, limit=19)
        torch.testing.assert_close(in_pieces(module, x, cuts, state)[0], gradients[0][0], **CLOSE)


@NAMES
@pytest.mark.parametrize("limit", [None, 40])
def test_padding_anywhere_changes_nothing_for_live_tokens(name, limit):
    module, x, more = mixer(name), numbers(4, 13, DIM), numbers(4, 7, DIM, seed=2)
    live = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
    ).bool()
    then = torch.tensor([[0, 1, 1, 0, 0, 1, 1], [1] * 7, [0] * 7, [0, 0, 0, 1, 0, 0, 0]]).bool()
    x[~live] = torch.nan
    with torch.no_grad():
        state = None if limit is None else module.init_state(4, limit=limit)
        first, state = module(x, state, Layout.of_mask(live))
        second, state = module(more, state, Layout.of_mask(then))
        third, state = module(more[:, :1], state)
        fourth, state = module(more, state)
        for row in range(4):
            tokens = torch.cat([x[row][live[row]], more[row][then[row]], more[row, :1], more[row]])
            alone, _ = module(tokens[None])
            padded = torch.cat([first[row][live[row]], second[row][then[row]], third[row], fourth[row]])
            torch.testing.assert_close(padded, alone[0], **CLOSE)
            assert state.seen[row] == len(tokens)
    assert not first[~live].any()
    assert not second[~then].any()


@NAMES
def test_padding_has_the_gradient_of_the_rows_alone(name):
    module, x = mixer(name), numbers(2, 9, DIM)
    live = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 0, 0, 0]]).bool()
    padded = x.clone().requires_grad_()
    module(padded, None, Layout.of_mask(live))[0].square().sum().backward()
    for row in range(2):
        alone = x[row][live[row]][None].clone().requires_grad_()
        module(alone)[0].square().sum().backward()
        torch.testing.assert_close(padded.grad[row][live[row]], alone.grad[0], rtol=1e-10, atol=1e-10)
    assert not padded.grad[~live].any()


@NAMES
def test_documents_in_one_row_do_not_see_each_other(name):
    module, x = mixer(name), numbers(2, 12, DIM)
    bounds = [0, 5, 6, 12, 21, 24]
    packed, state = module(x, None, Layout.of_documents(torch.tensor(bounds), 2, 12))
    flat = x.flatten(0, 1)
    for start, stop in pairwise(bounds):
        alone, after = module(flat[None, start:stop])
        torch.testing.assert_close(packed.flatten(0, 1)[start:stop], alone[0], **CLOSE)
    more = numbers(2, 3, DIM, seed=3)
    torch.testing.assert_close(module(more, state)[0][1:], module(more[1:], after)[0], **CLOSE)
    with pytest.raises(ArgumentError, match="state: expected None where documents are packed"):
        module(x, state, Layout.of_documents(torch.tensor(bounds), 2, 12))


@NAMES
def test_a_state_that_was_handed_out_never_changes(name):
    module, x = mixer(name), numbers(2, 6, DIM)
    with torch.no_grad():
        _, state = in_pieces(module, x, [1, 2, 3])
        before = copy.deepcopy(state)
        branches = [numbers(2, 5, DIM, seed=seed) for seed in (5, 6)]
        steps = [in_pieces(module, branch, [1, 2], state)[0] for branch in branches]
        again = [module(branch, before)[0] for branch in branches]
        for step, whole in zip(steps, again, strict=True):
            torch.testing.assert_close(step, whole, **CLOSE)
        torch.testing.assert_close(module(branches[0], state)[0], again[0], **CLOSE)


@NAMES
def test_rows_of_a_state_can_be_chosen_in_any_order(name):
    module, x, more = mixer(name), numbers(3, 6, DIM), numbers(4, 5, DIM, seed=2)
    index = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        _, state = in_pieces(module, x, [1, 2, 3])
        chosen, _ = in_pieces(module, more, [1, 2], state.reorder(index))
        whole, _ = module(torch.cat([x[index], more], 1))
    torch.testing.assert_close(chosen, whole[:, 6:], **CLOSE)


@NAMES
@pytest.mark.parametrize("limit", [None, 40])
def test_rows_can_begin_anew_while_others_go_on(name, limit):
    module, x = mixer(name), numbers(3, 30, DIM)
    begins = {7: [1], 13: [0, 1], 20: [2], 21: [1]}  # at this token these rows begin anew
    with torch.no_grad():
        initial, state, first = module.init_state(3, limit=limit), module.init_state(3, limit=limit), [0, 0, 0]
        handed_out: list[tuple[object, object]] = []
        for at, number in [(0, 7), (7, 3), (10, 3), (13, 7), (20, 1), (21, 9)]:
            rows = begins.get(at, [])
            if rows:
                if limit is None:
                    handed_out.append((state, copy.deepcopy(state)))
                chosen = torch.tensor([row in rows for row in range(3)])
                first = [at if row in rows else begin for row, begin in enumerate(first)]
                longest = max(at - begin for begin in first)
                state = state.restarted(chosen, initial, longest)
                assert state.seen.tolist() == [at - begin for begin in first]
                assert state.longest == longest
            steps, state = in_pieces(module, x[:, at : at + number], list(range(1, number)), state)
            for row, begin in enumerate(first):
                alone, _ = module(x[row : row + 1, begin : at + number])
                torch.testing.assert_close(steps[row], alone[0, -number:], **CLOSE)
        several, _ = module(x[:, :4], state)
        for row, begin in enumerate(first):
            alone, _ = module(torch.cat([x[row : row + 1, begin:], x[row : row + 1, :4]], 1))
            torch.testing.assert_close(several[row], alone[0, -4:], **CLOSE)
        for old, before in handed_out:
            torch.testing.assert_close(module(x[:, :3], old)[0], module(x[:, :3], before)[0], rtol=0, atol=0)


@NAMES
def test_a_later_token_changes_no_bit_of_an_earlier_output(name):
    module, x = mixer(name), numbers(1, 17, DIM)
    with torch.no_grad():
        whole, _ = module(x)
        for place in (3, 4, 8, 16):
            changed = x.clone()
            changed[:, place] = 7.0
            output, _ = module(changed)
            assert torch.equal(output[:, :place], whole[:, :place])
            assert not torch.equal(output[:, place], whole[:, place])
        if name.startswith(("r", "slstm")):  # in PyTorch's attention a hidden NaN is multiplied by zero
            changed[:, 4:] = torch.nan
            output, _ = module(changed)
            torch.testing.assert_close(output[:, :4], whole[:, :4], **CLOSE)
            assert output[:, 4].isnan().all()
    leaf = x.clone().requires_grad_()
    module(leaf)[0][:, 7].sum().backward()
    assert not leaf.grad[:, 8:].any()


@NAMES
def test_no_token_is_a_length_too(name):
    module, x = mixer(name), numbers(2, 3, DIM)
    output, state = module(x[:, :0])
    assert output.shape == (2, 0, DIM)
    output, state = module(x, state)
    torch.testing.assert_close(output, module(x)[0], **CLOSE)
    nothing, same = module(x[:, :0], state)
    assert nothing.shape == (2, 0, DIM)
    assert same is state


@NAMES
def test_no_row_is_a_batch_too(name):
    module, x = mixer(name), numbers(0, 9, DIM)
    output, state = module(x)
    assert output.shape == x.shape
    assert module(x, state)[0].shape == x.shape


@NAMES
@pytest.mark.parametrize("limit", [None, 40])
def test_mixed_precision_may_be_switched_between_two_pieces(name, limit):
    """In bfloat16 a number has 8 bits, and weights far from their start add up dozens of such roundings."""
    module, x = mixer(name).float(), numbers(2, 19, DIM).float()
    whole = module(x)[0]
    for first in (True, False):
        state, outputs = module.init_state(2, limit=limit), []
        for number, piece in enumerate(x.split([7, 5, 1, 6], 1)):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=first == (number % 2 == 0)):
                output, state = module(piece, state)
            outputs.append(output.float())
        assert (torch.cat(outputs, 1) - whole).norm() < 0.1 * whole.norm()


class Quantised(nn.Module):
    """A projection with weights of 8 bits, as libraries that quantise keep them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = linear.weight.detach().abs().max() / 127
        self.weight = nn.Parameter((linear.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return x @ (self.weight * self.scale).to(x.dtype).T


@NAMES
@pytest.mark.parametrize("limit", [None, 40])
def test_quantised_weights_are_no_dtype_for_a_state(name, limit):
    module, x = mixer(name).float(), numbers(2, 19, DIM).float()
    projections = [kind for kind in ("in_proj", "out_proj") if hasattr(module, kind)]
    if not projections:
        pytest.skip("no layer of it is a linear one, as libraries that quantise look for")
    for kind in projections:
        setattr(module, kind, Quantised(getattr(module, kind)))
    with torch.no_grad():
        pieces, _ = in_pieces(module, x, [7, 8, 13], module.init_state(2, limit=limit))
        torch.testing.assert_close(pieces, module(x)[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(in_pieces(module, x, [7, 8, 13])[0], pieces, rtol=1e-4, atol=1e-4)


@NAMES
def test_what_does_not_fit_is_refused_before_anything_is_written(name):
    module, x = mixer(name), numbers(2, 3, DIM)
    _, state = module(x)
    with pytest.raises(ArgumentError, match=r"x: expected shape \(batch, time, 24\), got shape \(2, 3, 23\)"):
        module(x[..., :-1])
    with pytest.raises(ArgumentError, match="state: expected 1 rows, as the input has, got a state of 2"):
        module(x[:1], state)
    for mask in ([[0, 1, 1]], [[0], [0]], [[0, 1, 1, 1]] * 2):  # the first two would broadcast
        with pytest.raises(ArgumentError, match=r"layout: expected that of \(2, 3\) tokens, got one of"):
            module(x, None, Layout.of_mask(torch.tensor(mask)))
    wide = state.mapped(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    with pytest.raises(ArgumentError, match=r"state: expected a state in torch\.float64, got one in torch\.float32"):
        module(x, wide)
    with pytest.raises(ArgumentError, match="limit: expected a whole number of at least 0, got -1"):
        module.init_state(2, limit=-1)
    other = mixer("rnn" if name != "rnn" else "rat")
    with pytest.raises(ArgumentError, match=r"state: expected \w+State or None, got \w+State"):
        module(x, other(x)[1])
    fixed = module.init_state(2, limit=4)
    with torch.no_grad():
        _, fixed = module(x, fixed)
        before = copy.deepcopy(fixed)
        with pytest.raises(ArgumentError, match="state: expected room for 6 tokens, got a limit of 4"):
            module(x, fixed)
        torch.testing.assert_close(module(x[:, :1], fixed)[0], module(x[:, :1], before)[0], **CLOSE)


@NAMES
def test_half_precision_keeps_its_dtype_and_a_wide_recurrence(name):
    module = mixer(name).bfloat16()
    x = numbers(2, 9, DIM).bfloat16()
    output, state = module(x)
    assert output.dtype == torch.bfloat16
    step, _ = module(x[:, :1], state)
    assert step.dtype == torch.bfloat16
    kept = ("running_key", "running_value", "running", "cell", "normaliser", "hidden", "stabiliser", "tail")
    for attribute in kept:
        if hasattr(state, attribute):
            assert getattr(state, attribute).dtype == torch.float32
