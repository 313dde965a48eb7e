"""The action model: padding is inert, the action sees what it may, and a domain's loss is its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.models.action.batch import Batch
from holdfast.models.action.config import ActionConfig, from_document, published_config, to_document
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Discrete, Domain, Image, Vector
from holdfast.models.action.mamba import Mamba, MambaConfig
from holdfast.models.action.model import ActionModel
from holdfast.nn import Adaptive, BackboneConfig, Layout
from tests.models.action.tiny import ARM, BACKBONES, GAME, MAZE, batch, model, padded, schedule, strengthened

EVERY = pytest.mark.parametrize("name", BACKBONES)
LIMIT = 1e-6


@EVERY
@pytest.mark.parametrize("sides", [(1, 0), (7, 0), (0, 5), (3, 11)])
def test_padding_changes_no_valid_logit(name, sides):
    """In float64: a tolerance of 1e-6 is then about what is read, and not about rounding."""
    net = model(BACKBONES[name]).double()
    for domain in (ARM, MAZE):
        whole = batch(domain, 3, 9)
        with torch.no_grad():
            logits, _ = net(whole)
            others, _ = net(padded(whole, *sides))
        end = others.shape[1] - sides[1]
        assert logits.std() > 0.1
        assert (others[:, sides[0] : end] - logits).abs().max() <= LIMIT


@EVERY
def test_windows_of_several_lengths_are_as_if_alone(name):
    net, whole = model(BACKBONES[name]).double(), batch(ARM, 4, 12)
    lengths = (12, 5, 1, 0)
    valid = torch.arange(12) < torch.tensor(lengths)[:, None]
    valid[1] = valid[1].flip(0)
    with torch.no_grad():
        together, _ = net(replace(whole, valid=valid))
        for row, length in enumerate(lengths[:3]):
            steps = slice(12 - length, 12) if row == 1 else slice(0, length)
            part = {
                field: getattr(whole, field)[row : row + 1, steps]
                for field in ("observation", "action", "valid", "reward", "returns_to_go")
            }
            alone, _ = net(Batch(domain=ARM, **part))
            assert (together[row, steps] - alone[0]).abs().max() <= LIMIT


@EVERY
def test_padding_has_no_gradient_and_the_loss_is_that_of_the_valid_steps(name):
    net, whole = model(BACKBONES[name]).double(), batch(ARM, 2, 6)
    found = []
    for given in (whole, padded(whole, 2, 3)):
        net.zero_grad()
        loss = net.loss(given)
        assert loss.elements == 2 * 6 * 2
        loss.mean.backward()
        found.append([loss.mean.detach(), *[p.grad for p in net.parameters() if p.grad is not None]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_nothing_to_learn_from_is_a_loss_of_zero_and_said():
    net, whole = model(BACKBONES["rnn"]), batch(ARM, 2, 3)
    loss = net.loss(replace(whole, valid=torch.zeros(2, 3, dtype=torch.bool)))
    assert loss.mean == 0
    assert loss.elements == 0
    loss.mean.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


@EVERY
@pytest.mark.parametrize("past_actions", [False, True])
def test_an_action_sees_what_came_before_it_and_not_what_answers_it(name, past_actions):
    net, whole = model(BACKBONES[name], past_actions=past_actions), batch(ARM, 1, 6)
    assert whole.reward is not None
    assert whole.returns_to_go is not None
    step = 3
    with torch.no_grad():
        logits, _ = net(whole)
        for field, first in (
            ("observation", step),
            ("returns_to_go", step),
            ("reward", step + 1),
            ("action", step + 1),
        ):
            tensor = getattr(whole, field).clone()
            tensor[:, step] = tensor[:, step] + 1.0 if field != "action" else torch.tensor([0.9, 5.0])
            other, _ = net(replace(whole, **{field: tensor}))
            assert torch.equal(other[:, :first], logits[:, :first])
            differs = not torch.equal(other[:, first:], logits[:, first:])
            assert differs == (field != "action" or past_actions)


@EVERY
def test_a_window_may_be_continued_from_the_state_of_another(name):
    net, whole = model(BACKBONES[name]).double(), batch(ARM, 2, 8)
    parts = [
        replace(
            whole,
            **{
                field: getattr(whole, field)[:, steps]
                for field in ("observation", "action", "valid", "reward", "returns_to_go")
            },
        )
        for steps in (slice(0, 3), slice(3, 8))
    ]
    with torch.no_grad():
        logits, _ = net(whole)
        first, state = net(parts[0])
        second, _ = net(parts[1], state)
    torch.testing.assert_close(torch.cat([first, second], 1), logits, rtol=1e-6, atol=1e-6)


def test_what_is_left_out_is_no_token_and_not_read():
    whole = batch(MAZE, 2, 5)
    for returns in (True, False):
        for rewards in (True, False):
            net = model(BACKBONES["rnn"], returns=returns, rewards=rewards)
            length = net.tokens.order(1).length
            assert length == 1 + returns + rewards
            part = replace(
                whole,
                returns_to_go=whole.returns_to_go if returns else None,
                reward=whole.reward if rewards else None,
            )
            with torch.no_grad():
                logits, state = net(part)
            assert state.seen.tolist() == [5 * length] * 2
            with torch.no_grad():
                assert torch.equal(net(whole)[0], logits)
    for field, name in (("returns_to_go", "returns_to_go"), ("reward", "reward")):
        with pytest.raises(ArgumentError, match=f"{name}: expected numbers, which this model reads, got None"):
            model(BACKBONES["rnn"])(replace(whole, **{field: None}))


def test_a_reward_that_is_not_known_is_no_token():
    net, whole = model(BACKBONES["attention"]), batch(MAZE, 1, 4)
    assert whole.reward is not None
    known = torch.tensor([[True, False, True, True]])
    lost = whole.reward.masked_fill(~known, torch.nan)
    with torch.no_grad():
        logits, state = net(replace(whole, reward=lost, reward_known=known))
        zero, _ = net(replace(whole, reward=lost.nan_to_num()))
    assert state.seen.tolist() == [11]
    assert torch.isfinite(logits).all()
    assert (logits - zero)[:, 2:].abs().max() > 1e-3
    torch.testing.assert_close(logits[:, :2], zero[:, :2])


def test_rewards_and_returns_are_read_in_units_of_the_scale():
    whole = batch(ARM, 1, 4)
    assert whole.reward is not None
    assert whole.returns_to_go is not None
    unscaled = replace(ARM, reward_scale=1.0)
    one, two = model(BACKBONES["rnn"]), model(BACKBONES["rnn"], domains=(unscaled, MAZE, GAME))
    same = replace(whole, domain=unscaled, reward=whole.reward / 4, returns_to_go=whole.returns_to_go / 4)
    with torch.no_grad():
        torch.testing.assert_close(one(whole)[0], two(same)[0])


def wide(dims: int) -> tuple[ActionModel, ActionModel]:
    """A model for one action dimension, and one with room for more whose other weights are the same."""
    domain = Domain(name="line", observation=Vector(2), action=Continuous((-1.0,), (1.0,)))
    nets = []
    for room in (1, dims):
        torch.manual_seed(0)
        config = ActionConfig(backbone=schedule("rnn"), domains=(domain,), vocabulary=Vocabulary(3, 16, room))
        nets.append(ActionModel(config))
    narrow, roomy = nets
    state = narrow.state_dict()
    with torch.no_grad():
        for name, parameter in roomy.named_parameters():
            if name.startswith("head"):
                nn.init.normal_(parameter, std=3.0)
                parameter[: len(state[name])] = state[name]
            else:
                parameter.copy_(state[name])
    return narrow, roomy


def test_dimensions_that_a_domain_lacks_change_no_loss_and_no_gradient():
    narrow, roomy = wide(8)
    whole = batch(narrow.config.domains[0], 3, 7)
    losses = [net.loss(whole) for net in (narrow, roomy)]
    assert (losses[0].mean - losses[1].mean).abs() <= LIMIT
    assert losses[0].elements == losses[1].elements == 21
    for loss in losses:
        loss.mean.backward()
    for name, parameter in narrow.named_parameters():
        other = roomy.get_parameter(name).grad
        assert other is not None
        torch.testing.assert_close(other[: len(parameter)], parameter.grad)
    grad = roomy.head.linear.weight.grad
    assert grad is not None
    assert not grad[3 + 16 :].any()
    assert not grad[:3].any()


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_a_continuous_dimension_never_becomes_a_discrete_action(temperature):
    net = model(BACKBONES["rnn"])
    with torch.no_grad():
        net.head.linear.bias[: net.config.ids.discrete] = 1e4
        logits, _ = net(batch(ARM, 2, 50))
        ids = net.head.choose(logits, ARM.action, temperature=temperature)
    assert ids.min() >= net.config.ids.discrete
    actions = net.config.ids.actions(ids, ARM.action)
    assert (actions > torch.tensor(ARM.action.low)).all()
    assert (actions < torch.tensor(ARM.action.high)).all()


def test_a_discrete_domain_has_its_own_actions_only():
    """The maze has three of the five ids that the game has."""
    net = model(BACKBONES["rnn"])
    assert net.config.ids == Vocabulary(5, 256, 2)
    with torch.no_grad():
        net.head.linear.bias[3:] = 1e4
        logits, _ = net(batch(MAZE, 2, 9))
        ids = net.head.choose(logits, MAZE.action, temperature=2.0, generator=torch.Generator().manual_seed(0))
    assert logits.shape == (2, 9, 1, 3)
    assert set(ids.flatten().tolist()) == {0, 1, 2}
    with pytest.raises(ArgumentError, match="temperature: expected 0, or a positive number, got -1"):
        net.head.choose(logits, MAZE.action, temperature=-1.0)


def test_the_loss_is_the_mean_over_steps_and_dimensions():
    net, whole = model(BACKBONES["rnn"]), batch(ARM, 2, 4)
    with torch.no_grad():
        logits, _ = net(whole)
        ids = net.config.ids.ids(whole.action, ARM.action) - net.config.ids.discrete
        by_hand = -torch.log_softmax(logits, -1).gather(-1, ids[..., None]).mean()
        torch.testing.assert_close(net.loss(whole).mean, by_hand)


def test_vectors_stand_in_their_slots_and_pictures_may_be_grey():
    net = model(BACKBONES["rnn"], state_width=9)
    assert net.vectors is not None
    assert net.images is not None
    x = torch.randn(4, 3)
    placed = torch.zeros(4, 9)
    placed[:, [6, 0, 4]] = x
    torch.testing.assert_close(net.vectors(x, MAZE.observation), net.vectors.linear(placed))
    torch.testing.assert_close(net.vectors(x, Vector(3)), net.vectors.linear(nn.functional.pad(x, (0, 6))))
    grey = torch.randint(0, 256, (2, 3, 1, 16, 16), dtype=torch.uint8)
    colour = grey.expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(net.images(grey), net.images(colour))
    torch.testing.assert_close(net.images(colour.float() / 255), net.images(colour))
    with torch.no_grad():
        assert net(batch(GAME, 2, 3))[0].shape == (2, 3, 1, 5)


def test_the_encoder_of_pictures_is_impala_s():
    """Figure 3 of its paper: 15 convolutions, and 2048 numbers of a picture of 64 x 64."""
    net = ActionModel(published_config(schedule("rnn"), (GAME_64, ARM)))
    assert net.images is not None
    assert net.images.linear.in_features == 2048
    assert sum(isinstance(module, nn.Conv2d) for module in net.images.modules()) == 15
    assert net.config.ids == Vocabulary(18, 256, 8)
    assert net.head.linear.out_features == 2066
    assert net.vectors is not None
    assert net.vectors.linear.in_features == 204
    assert (
        ActionModel(published_config(schedule("rnn"), (ARM,), past_actions=True)).tokens.actions.num_embeddings == 274
    )


GAME_64 = replace(GAME, observation=Image(3, 64, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_width": 4}, "domain arm: expected observations that fit into the width of 4, got one that needs 5"),
        ({"state_width": 6}, "domain maze: expected observations that fit into the width of 6, got one that needs 7"),
        ({"image": Image(3, 8, 16)}, r"domain game: expected pictures of shape \(3, 8, 16\)"),
        ({"vocabulary": Vocabulary(4, 8, 2)}, "domain game: expected at most 4 discrete actions"),
        ({"vocabulary": Vocabulary(5, 8, 1)}, "domain arm: expected at most 1 action dimensions"),
        ({"domains": (ARM, ARM)}, "domains: expected domains of different names"),
        ({"domains": ()}, "domains: expected domains of different names"),
        ({"decode": "right"}, "decode: expected centre or left"),
    ],
)
def test_a_model_that_its_domains_do_not_fit_is_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        model(BACKBONES["rnn"], **changes)


def test_a_batch_of_another_domain_is_refused():
    net = model(BACKBONES["rnn"])
    for domain, message in [
        (replace(ARM, name="leg"), "domain: expected one of arm, maze, game, got 'leg'"),
        (replace(ARM, reward_scale=1.0), "reward_scale of domain arm: expected 4.0"),
        (replace(ARM, action=Continuous((-1.0, -1.0), (1.0, 1.0))), "action of domain arm: expected Continuous"),
        (replace(MAZE, observation=Vector(3)), "observation of domain maze: expected Vector"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            net(batch(domain, 1, 2))
    with torch.no_grad():
        net(batch(replace(ARM, target_return=1.0), 1, 2))  # which is no part of the model


def test_nan_actions_are_refused_where_they_are_valid():
    net, whole = model(BACKBONES["rnn"]), batch(ARM, 2, 4)
    action = whole.action.clone()
    action[1, 2, 0] = torch.nan
    with pytest.raises(ArgumentError, match="action: expected numbers, got NaN"):
        net.loss(replace(whole, action=action))
    valid = whole.valid.clone()
    valid[1, 2] = False
    assert torch.isfinite(net.loss(replace(whole, action=action, valid=valid)).mean)


def test_the_context_holds_the_actions_that_were_taken_and_the_loss_those_to_be_learnt():
    whole, other = batch(ARM, 2, 5), batch(ARM, 2, 5, seed=2)
    both = replace(whole, taken=other.action)
    for past_actions in (False, True):
        net = model(BACKBONES["rnn"], past_actions=past_actions)
        with torch.no_grad():
            logits = net(both)[0]
            assert torch.equal(logits, net(replace(whole, action=other.action))[0])
            assert torch.equal(logits, net(whole)[0]) != past_actions
            ids = net.config.ids.ids(whole.action, ARM.action) - net.config.ids.discrete
            by_hand = -torch.log_softmax(logits, -1).gather(-1, ids[..., None]).mean()
            torch.testing.assert_close(net.loss(both).mean, by_hand)


def test_shapes_of_a_batch_are_checked_by_name():
    whole = batch(ARM, 2, 4)
    for field, tensor, message in [
        ("observation", torch.zeros(2, 4, 4), r"observation of domain arm: expected shape \(2, 4, 5\)"),
        ("action", torch.zeros(2, 4, 1), r"action of domain arm: expected shape \(2, 4, 2\)"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            replace(whole, **{field: tensor})


@EVERY
def test_a_configuration_comes_back_from_json(name):
    import json

    config = model(BACKBONES[name], past_actions=True, decode="left").config
    assert from_document(json.loads(json.dumps(to_document(config)))) == config


def test_a_configuration_keeps_its_normaliser_and_refuses_what_it_does_not_know():
    shape = BackboneConfig(mixers=("attention",), dim=8, heads=2, normaliser=Adaptive())
    config = ActionConfig(backbone=shape, domains=(ARM,))
    assert from_document(to_document(config)) == config
    for change in ({"layers": 3}, {"backbone": {"kind": "Nothing"}}, {"domains": 3}):
        with pytest.raises(ArgumentError, match="config: expected the configuration of an action model"):
            from_document({**to_document(config), **change})


def test_mamba_keeps_to_the_contract_of_mixers_in_any_split_and_layout():
    module = strengthened(Mamba(MambaConfig(dim=8, layers=2, state_size=4))).eval()
    x = torch.randn(3, 11, 8)
    live = torch.tensor([[1] * 11, [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0], [0] * 11]).bool()
    with torch.no_grad():
        whole, _ = module(x)
        for cuts in ([4, 7], [1] * 11, [2, 1, 5, 3]):
            state, parts = None, []
            for part in x.split(cuts, 1):
                output, state = module(part, state)
                parts.append(output)
            torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
        padded_output, state = module(x.masked_fill(~live[..., None], torch.nan), None, Layout.of_mask(live))
        alone, _ = module(x[1][live[1]][None])
        torch.testing.assert_close(padded_output[1][live[1]], alone[0], rtol=1e-5, atol=1e-5)
        assert not padded_output[~live].any()
        assert state.seen.tolist() == [11, 5, 0]
        kept = [tensor.clone() for tensor in (state.inputs, state.recurrent)]
        more, after = module(x, state, Layout.of_mask(live))
        assert torch.equal(state.inputs, kept[0])
        assert torch.equal(state.recurrent, kept[1])
        both, _ = module(torch.cat([x[1][live[1]], x[1][live[1]]])[None])
        torch.testing.assert_close(more[1][live[1]], both[0, 5:], rtol=1e-5, atol=1e-5)
        assert torch.equal(after.recurrent[2], state.recurrent[2])
        documents, _ = module(x, None, Layout.of_documents(torch.tensor([0, 4, 11, 22, 33]), 3, 11))
        torch.testing.assert_close(documents[0, 4:], module(x[:1, 4:])[0][0], rtol=1e-5, atol=1e-5)
        with pytest.raises(ArgumentError, match="state: expected 1 rows"):
            module(x[:1], state)
        with pytest.raises(ArgumentError, match="state: expected parts of shape"):
            Mamba(MambaConfig(dim=8, layers=1, state_size=4))(x, state)


def test_the_library_s_mamba_would_be_wrong_with_several_tokens_at_once():
    """Why ours steps: where this fails, the library has mended it."""
    from transformers import DynamicCache

    module = strengthened(Mamba(MambaConfig(dim=8, layers=2, state_size=4))).eval()
    x = torch.randn(1, 9, 8)
    with torch.no_grad():
        whole, _ = module(x)
        cache = DynamicCache(config=module.shape)
        module._through(x[:, :4], cache, None)
        several = module._through(x[:, 4:], cache, None)
    assert (several - whole[:, 4:]).abs().max() > 1e-3


def test_discrete_only_and_continuous_only_models_have_no_more_rows_than_they_need():
    game = ActionModel(ActionConfig(backbone=schedule("rnn"), domains=(MAZE,)))
    arm = ActionModel(ActionConfig(backbone=schedule("rnn"), domains=(ARM,), vocabulary=Vocabulary(0, 32, 2)))
    assert game.head.linear.out_features == 3
    assert arm.head.linear.out_features == 64
    assert game.images is None
    assert torch.isfinite(game.loss(batch(MAZE, 1, 3)).mean)
    assert torch.isfinite(arm.loss(batch(ARM, 1, 3)).mean)
    with pytest.raises(
        ArgumentError, match="dims: expected discrete actions or continuous dimensions, got none of both"
    ):
        Vocabulary(0, 4, 0)
    assert Discrete(3).dims == 1
