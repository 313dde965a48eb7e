"""Which parameters are layers, which one is the output's, and which set no scale."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.graph import call_graph
from holdfast.optim.rewarming.layers import (
    has_norm,
    layers_of,
    output_layer,
    scale_decay_groups,
    scale_invariance,
    select,
    unwrapped,
)


def net():
    return nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.LayerNorm(6), nn.ReLU(),
        nn.Linear(6, 6, bias=False), nn.LayerNorm(6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip


def names(selection):
    return [layer.name for layer in selection.layers]


class HeadFirst(nn.Module):
    """Its output layer is defined first, and another way through it cannot be traced."""

    def __init__(self, branches=False):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.body = nn.Linear(4, 4)
        self.branches = branches

    def forward(self, x):
        if self.branches and x.sum() > 0:
            x = -x
        self.last = self.body(x)
        return self.head(torch.relu(self.last))


def test_all_but_the_output_layer_is_selected():
    selection = select(net())
    assert names(selection) == ["0.weight", "3.weight"]
    assert selection.excluded == {"6.weight": "the output layer"}
    assert names(select(net(), include="all")) == ["0.weight", "3.weight", "6.weight"]
    assert names(select(net(), exclude=["0"])) == ["3.weight"]
    assert names(select(net(), include=["6.*"], exclude=["3.weight"])) == ["0.weight", "6.weight", "6.bias"]
    for argument in ("include", "exclude"):
        with pytest.raises(ArgumentError, match=rf"{argument}: expected names of .*, got nothing\.\*"):
            select(net(), **{argument: ["nothing.*"]})


def test_the_output_layer_is_the_one_called_last():
    model = HeadFirst()
    assert output_layer(model) is model.head
    assert not hasattr(model, "last")
    # Without a trace there is only the order of definition.
    assert call_graph(HeadFirst(branches=True)).traced is False
    untraced = HeadFirst(branches=True)
    assert output_layer(untraced) is untraced.body


def test_a_model_of_hugging_face_names_its_output_layer():
    model = HeadFirst(branches=True)
    model.get_output_embeddings = lambda: model.head
    assert output_layer(model) is model.head


def test_a_layer_of_another_library_counts_by_its_name():
    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return x @ self.weight

    model = nn.Sequential(nn.Linear(4, 4), Conv1D())
    assert [layer.name for layer in layers_of(model)] == ["0.weight", "1.weight"]
    assert output_layer(model) is model[1]


def test_tied_weights_come_once_and_count_as_the_output_layer():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.body = nn.Linear(4, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.body(self.embed(x)))

    assert [(layer.name, layer.aliases) for layer in layers_of(Tied())] == [
        ("embed.weight", ("head.weight",)),
        ("body.weight", ()),
    ]
    assert names(select(Tied())) == ["body.weight"]
    assert select(Tied()).excluded == {"embed.weight": "the output layer, tied with head.weight"}
    assert names(select(Tied(), include=["head"])) == ["embed.weight", "body.weight"]


def test_wrapped_and_compiled_models_have_the_names_of_the_bare_one():
    class Holder(nn.Module):
        """Its own child is called like the one that a wrapper has."""

        def __init__(self):
            super().__init__()
            self.module = net()

        def forward(self, x):
            return self.module(x)

    bare = [layer.name for layer in layers_of(Holder())]
    assert bare[0] == "module.0.weight"
    compiled = functools.partial(torch.compile, backend="eager")
    for wrap in (nn.DataParallel, compiled, lambda model: compiled(nn.DataParallel(model))):
        model = wrap(Holder())
        assert isinstance(unwrapped(model), Holder)
        assert [layer.name for layer in layers_of(model)] == bare
        assert names(select(model)) == bare[:2]
    inner = Holder()
    inner.module = compiled(inner.module)
    assert [layer.name for layer in layers_of(inner)] == bare


def test_attention_convolutions_and_embeddings_are_layers():
    model = nn.ModuleDict(
        {
            "a": nn.MultiheadAttention(4, 2),
            "c": nn.Conv2d(2, 3, 3),
            "e": nn.Embedding(5, 4),
            "t": nn.ConvTranspose1d(2, 2, 2),
        }
    )
    model["n"] = nn.LayerNorm([3, 3])
    assert [layer.name for layer in layers_of(model)] == [
        "a.in_proj_weight", "a.out_proj.weight", "c.weight", "e.weight", "t.weight",
    ]  # fmt: skip
    assert [layer.title for layer in layers_of(model)] == ["a.in_proj_weight", "a.out_proj", "c", "e", "t"]


def test_parametrised_weights_are_taken_apart():
    old = nn.Linear(3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(old)
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(3, 3)),
        parametrizations.spectral_norm(nn.Linear(3, 3)),
        nn.utils.spectral_norm(nn.Linear(3, 3)),
        old,
    )
    assert [(layer.name, layer.role) for layer in layers_of(model)] == [
        ("0.parametrizations.weight.original0", "magnitude"),
        ("0.parametrizations.weight.original1", "direction"),
        ("1.parametrizations.weight.original", "direction"),
        ("2.weight_orig", "direction"),
        ("3.weight_g", "magnitude"),
        ("3.weight_v", "direction"),
    ]
    assert not has_norm(model)

    class Symmetric(nn.Module):
        def forward(self, weight):
            return weight.triu() + weight.triu(1).mT

    parametrize.register_parametrization(model[2], "weight_orig", Symmetric())
    with pytest.raises(ArgumentError, match=r"2\.parametrizations\.weight_orig under Symmetric"):
        layers_of(model)


def test_norms_are_known_by_class_name_or_function():
    class LlamaRMSNorm(nn.Module):
        def forward(self, x):
            return x

    class Functional(nn.Module):
        def forward(self, x):
            return nn.functional.layer_norm(x, x.shape[-1:])

    for norm in (nn.BatchNorm1d(4), LlamaRMSNorm(), Functional(), nn.GroupNorm(1, 4), nn.RMSNorm(4)):
        assert has_norm(nn.Sequential(nn.Linear(4, 4), norm)), norm
    assert not has_norm(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def test_scale_invariance_finds_the_layers_that_a_norm_follows():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv1d(4, 4, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 8, bias=False), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change = scale_invariance(model, torch.randn(16, 2, 8))
    assert {name for name, value in change.items() if value < 0.01} == {"0.weight", "7.weight"}
    assert change["10.weight"] > 0.5
    assert change["4.weight"] > 0.01  # its bias stays as it is
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    with pytest.raises(ArgumentError, match="names: expected some of"):
        scale_invariance(model, torch.randn(2, 2, 8), names=["x"])
    with pytest.raises(ArgumentError, match="batch: expected one for which"):
        scale_invariance(nn.Embedding(2, 2).apply(lambda m: m.register_forward_hook(lambda *_: 1)), torch.tensor([0]))


def test_scale_decay_is_on_the_scales_of_norms_alone():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6), nn.RMSNorm(6), nn.Linear(6, 3))
    scales, others = scale_decay_groups(model, 1.0, lr=1e-3)
    assert [id(parameter) for parameter in scales["params"]] == [id(model[1].weight), id(model[4].weight)]
    assert (scales["weight_decay"], others["weight_decay"], scales["lr"], others["lr"]) == (1.0, 0.0, 1e-3, 1e-3)
    assert len(others["params"]) == 7
    torch.optim.AdamW([scales, others])
    assert scale_decay_groups(model, 1.0, weight_decay=0.1)[1]["weight_decay"] == 0.1
    with pytest.raises(ArgumentError, match="norms that have a scale"):
        scale_decay_groups(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, elementwise_affine=False)), 1.0)
    with pytest.raises(ArgumentError, match="decay: expected a number of at least 0"):
        scale_decay_groups(model, -1.0)


class Counting(nn.Module):
    """Changes a buffer and draws numbers in its forward, whatever it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("noise", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.noise = torch.randn(3)
        return self.layer(x) + self.noise


def test_looking_for_layers_changes_neither_buffers_nor_random_states():
    model = Counting()
    calls, noise, random = model.calls, model.noise, torch.get_rng_state()
    select(model)
    assert model.calls is calls
    assert model.noise is noise
    assert calls == 0
    assert torch.equal(torch.get_rng_state(), random)
