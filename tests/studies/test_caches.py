"""States as they are after many tokens."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import Backbone, BackboneConfig
from holdfast.studies.caches import again, filled


def test_a_step_is_repeated_without_a_copy() -> None:
    net = Backbone(BackboneConfig(mixers=("attention",) * 2, dim=16, heads=2)).eval()
    step = torch.randn(1, 3, 16)
    with torch.no_grad():
        state = filled(net.init_state(1, limit=33), 30)
        first, after = net(step, again(state))
        second, later = net(step, again(state))
        _, copied = net(step, state)
        _, copied = net(step, state)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    places = [[layer.cache.keys.data_ptr() for layer in end.layers] for end in (state, after, later, copied)]
    assert places[0] == places[1] == places[2]
    assert not set(places[0]) & set(places[3]), "a state that is continued twice is copied"
    assert [layer.cache.used for layer in state.layers] == [30, 30]


def test_other_states_are_refused() -> None:
    net = Backbone(BackboneConfig(mixers=("rnn",), dim=16, heads=2))
    with pytest.raises(ArgumentError, match="layers of attention"):
        again(net.init_state(1))
