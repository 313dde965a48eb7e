"""A stack of mixers as one."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Backbone, BackboneConfig, BackboneState, Layout
from tests.nn.test_mixer_contract import in_pieces, numbers

MIXERS = ("rat", "window", "attention", "rnn", "mlstm", "slstm")
CONFIG = BackboneConfig(mixers=MIXERS, dim=16, heads=4, chunk_size=4, window=5, memory=8)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(CONFIG).double()


def test_states_of_all_layers_go_on_together():
    module, x = backbone(), numbers(3, 14, 16)
    with torch.no_grad():
        whole, state = module(x)
        output, after = in_pieces(module, x, [1, 2, 9])
        torch.testing.assert_close(output, whole, rtol=1e-12, atol=1e-12)
        assert state.nbytes == sum(layer.nbytes for layer in state.layers)
        assert state.nbytes <= after.nbytes  # with room for more
        assert (after.longest, after.seen.tolist()) == (14, [14] * 3)
        index = torch.tensor([2, 0])
        more = numbers(2, 3, 16, seed=4)
        chosen, _ = module(more, state.reorder(index))
        torch.testing.assert_close(chosen, module(torch.cat([x[index], more], 1))[0][:, 14:], rtol=1e-12, atol=1e-12)
    with pytest.raises(ArgumentError, match="length: expected 14, since this state cannot go back"):
        state.crop(8)
    with pytest.raises(ArgumentError, match="state: expected 6 layers, got 3"):
        module(x, BackboneState(layers=state.layers[:3]))


def test_blocks_computed_again_have_the_same_gradients():
    module, x = backbone(), numbers(2, 11, 16)
    layout = Layout.of_mask(torch.arange(11)[None] >= torch.tensor([[0], [4]]))
    gradients = []
    for checkpointing in (False, True):
        module.checkpointing = checkpointing
        module.zero_grad()
        module(x, None, layout)[0].square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for once, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("mixers", [(), ("rat", "mamba")])
def test_a_schedule_names_mixers(mixers):
    with pytest.raises(ArgumentError, match="mixers: expected a sequence of names among rat, attention, window, rnn"):
        BackboneConfig(mixers=mixers, dim=16, heads=4)
