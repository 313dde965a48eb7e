"""The language model: padding, packing, loss, gradients, initial weights, saving."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DataCollatorWithFlattening, DynamicCache, Trainer

from holdfast.errors import ArgumentError
from holdfast.models.language import HoldfastForCausalLM
from tests.models.language.tiny import CHUNK, SCHEDULES, VOCABULARY, config, model, padded, rows

EXACT = 1e-10
"""Of float64 logits of size 10, with sums of a hundred terms in another order."""

by_schedule = pytest.mark.parametrize("mixers", SCHEDULES.values(), ids=SCHEDULES)
LENGTHS = (3, 13, 8)


@by_schedule
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_padding_changes_nothing(mixers: tuple[str, ...], side: str) -> None:
    network, alone = model(mixers), rows(*LENGTHS)
    ids, mask = padded(alone, side)
    logits = network(ids, attention_mask=mask).logits
    for number, row in enumerate(alone):
        expected = network(row[None]).logits[0]
        torch.testing.assert_close(logits[number][mask[number] > 0], expected, rtol=0, atol=EXACT)


@by_schedule
def test_a_row_of_padding_alone_has_finite_logits(mixers: tuple[str, ...]) -> None:
    ids = torch.zeros(2, 6, dtype=torch.long)
    mask = torch.tensor([[0] * 6, [1] * 6])
    network = model(mixers)
    logits = network(ids, attention_mask=mask).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1], network(ids[1:]).logits[0], rtol=0, atol=EXACT)


@by_schedule
@pytest.mark.parametrize("told", ["cu_seqlens", "cu_seq_lens_q", "position_ids"])
def test_packed_documents_do_not_see_each_other(mixers: tuple[str, ...], told: str) -> None:
    network, alone = model(mixers), rows(*LENGTHS)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    given = {"cu_seqlens": bounds, "cu_seq_lens_q": bounds.int(), "position_ids": positions}[told]
    logits = network(torch.cat(alone)[None], **{told: given}).logits[0]
    expected = torch.cat([network(row[None]).logits[0] for row in alone])
    torch.testing.assert_close(logits, expected, rtol=0, atol=EXACT)


def test_the_collator_of_transformers_packs_for_it() -> None:
    network, alone = model(SCHEDULES["rat+window"]), rows(*LENGTHS)
    for whole in (False, True):
        collator = DataCollatorWithFlattening(return_flash_attn_kwargs=whole, return_position_ids=not whole)
        batch = collator([{"input_ids": row.tolist()} for row in alone])
        loss = network(**batch).loss
        losses = [cross_entropy(network(row[None]).logits[0, :-1], row[1:], reduction="sum") for row in alone]
        expected = sum(losses) / (sum(LENGTHS) - len(LENGTHS))
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)  # the loss is taken in float32


def test_several_rows_may_be_packed() -> None:
    network, alone = model(SCHEDULES["rat+window"]), rows(5, 7, 9, 3)
    ids = torch.cat(alone).view(2, 12)
    positions = torch.cat([torch.arange(len(row)) for row in alone]).view(2, 12)
    logits = network(ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits.flatten(0, 1)
    expected = torch.cat([network(row[None]).logits[0] for row in alone])
    torch.testing.assert_close(logits, expected, rtol=0, atol=EXACT)


def test_positions_of_padded_rows_are_no_documents() -> None:
    network, alone = model(SCHEDULES["rat+window"]), rows(*LENGTHS)
    ids, mask = padded(alone, "left")
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)  # as generate makes them
    expected = network(ids, attention_mask=mask).logits
    logits = network(ids, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=EXACT)
    with pytest.raises(ArgumentError, match="position_ids: expected positions that rise"):
        network(ids, attention_mask=mask, position_ids=torch.arange(13)[None].expand(3, -1) % 5)
    with pytest.raises(ArgumentError, match="attention_mask: expected ones only"):
        network(ids, attention_mask=mask, cu_seqlens=torch.tensor([0, 13, 26, 39]))


def test_the_loss_is_that_of_the_next_token() -> None:
    network, ids = model(SCHEDULES["rat+window"]), torch.stack(rows(9, 9))
    labels = ids.clone()
    labels[0, :4] = -100
    output = network(ids, labels=labels)
    shifted, target = output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    torch.testing.assert_close(output.loss.double(), cross_entropy(shifted, target), rtol=1e-5, atol=0)
    total = network(ids, labels=labels, num_items_in_batch=torch.tensor(7)).loss
    expected = cross_entropy(shifted, target, reduction="sum") / 7
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)


def test_what_is_returned_can_be_less_and_more() -> None:
    network, ids = model(SCHEDULES["rat+window"]), torch.stack(rows(9, 9))
    whole = network(ids, output_hidden_states=True)
    assert [tuple(state.shape) for state in whole.hidden_states] == [(2, 9, 32)] * 3
    torch.testing.assert_close(network.head(whole.hidden_states[-1]), whole.logits, rtol=0, atol=EXACT)
    assert whole.hidden_states[0].equal(network.embedding(ids))
    assert network(ids).hidden_states is None
    torch.testing.assert_close(network(ids, logits_to_keep=2).logits, whole.logits[:, -2:], rtol=0, atol=EXACT)
    chosen = torch.tensor([1, 4])
    torch.testing.assert_close(network(ids, logits_to_keep=chosen).logits, whole.logits[:, chosen], rtol=0, atol=EXACT)
    of_vectors = network(inputs_embeds=network.embedding(ids), return_dict=False)
    assert isinstance(of_vectors, tuple)
    torch.testing.assert_close(of_vectors[0], whole.logits, rtol=0, atol=EXACT)
    assert network(ids, use_cache=False).past_key_values is None
    assert network(ids).past_key_values.columns == 9
    assert network.train()(ids).past_key_values is None
    assert network(ids[:, :0]).logits.shape == (2, 0, VOCABULARY)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_checkpointing_changes_no_gradient() -> None:
    ids = torch.stack(rows(9, 9))
    gradients = []
    for checkpointing in (False, True):
        network = model(("rat", "window", "rnn")).train()
        if checkpointing:
            network.gradient_checkpointing_enable()
            assert network.is_gradient_checkpointing
            assert network.backbone.checkpointing
        network(ids, labels=ids).loss.backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=EXACT, msg=name)
    network.gradient_checkpointing_disable()
    assert not network.backbone.checkpointing


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = HoldfastForCausalLM(config(("rat", "rnn"), initializer_range=0.05, hidden_size=64, memory=100))
    for name, weight in network.named_parameters():
        if name.endswith("norm.weight"):
            assert weight.eq(1).all(), name
        elif not name.endswith("gate_bias"):
            assert weight.mean().abs() < 0.005, name
            assert 0.04 < weight.std() < 0.06, name
    for block, memory in zip(network.backbone.blocks, (CHUNK, 100), strict=True):
        tokens = block.mixer.gate_bias.exp()
        assert 1 <= tokens.min() < 1 + 0.1 * memory
        assert memory - 1 - 0.2 * memory < tokens.max() <= memory - 1


def test_initial_gates_of_the_xlstm_are_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = HoldfastForCausalLM(config(("mlstm", "slstm"), hidden_size=64))
    for block in network.backbone.blocks:
        torch.manual_seed(1)
        fresh = copy.deepcopy(block.mixer)
        fresh.reset_parameters()
        spreads = [(a.std(), b.std()) for a, b in zip(block.mixer.parameters(), fresh.parameters(), strict=True)]
        assert all(torch.isclose(a, b, rtol=0.5, atol=0.02) for a, b in spreads if a.isfinite())
    assert network.backbone.blocks[0].mixer.gates.bias[-4:].min() >= 3, "forget gates are open at first"
    with torch.no_grad():
        network.backbone.blocks[0].mixer.gates.bias.fill_(-7.0)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.backbone.blocks[0].mixer.gates.bias.eq(-7).all(), "what was loaded stays"


def test_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for tied in (True, False):
            network = model(("rat", "window", "attention", "rnn"), tie_word_embeddings=tied).to(dtype)
            network.save_pretrained(tmp_path / "whole")
            network.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
            assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
            for folder in ("whole", "sharded"):
                loaded = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
                assert type(loaded) is HoldfastForCausalLM
                assert loaded.dtype == dtype
                assert (loaded.head.weight is loaded.embedding.weight) == tied
                for name, weight in network.state_dict().items():
                    assert loaded.state_dict()[name].equal(weight), name


def test_weights_that_a_file_lacks_are_initialised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = model(("rat", "rnn")).float()
    network.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("backbone.blocks.0.mixer.gate_bias", "backbone.blocks.0.mixer_norm.weight"):
        del weights[name]
    weights["backbone.blocks.1.mixer.gate_bias"] = torch.full((32,), -7.0)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    first, second = loaded.backbone.blocks
    assert 0 <= first.mixer.gate_bias.min() < first.mixer.gate_bias.max() <= torch.tensor(CHUNK - 1.0).log()
    assert first.mixer_norm.weight.eq(1).all()
    assert first.mixer.in_proj.weight.equal(network.backbone.blocks[0].mixer.in_proj.weight)
    assert second.mixer.gate_bias.eq(-7).all()


@pytest.mark.parametrize(
    ("mixers", "parameters"),
    [
        (("attention",) * 24, 1_273_595_904),
        (("rat",) * 24, 1_298_810_880),
        (("rnn",) * 24, 1_273_645_056),
        (("rat", "window") * 12, 1_286_203_392),
    ],
    ids=["attention", "rat", "rnn", "rat+window"],
)
def test_the_published_models_have_so_many_parameters(mixers: tuple[str, ...], parameters: int) -> None:
    from holdfast.models.language import HoldfastConfig

    with torch.device("meta"):
        network = HoldfastForCausalLM(HoldfastConfig(mixers=mixers))
    assert sum(weight.numel() for weight in network.parameters()) == parameters


def test_norms_and_gate_biases_do_not_decay() -> None:
    network = model(("rat", "rnn", "attention"))
    decaying = set(Trainer.get_decay_parameter_names(None, network))  # type: ignore[arg-type]
    assert decaying == {name for name, weight in network.named_parameters() if weight.ndim == 2}


def test_every_weight_has_a_place_when_a_model_is_sharded() -> None:
    network = model(("rat", "rnn"))
    names = {name for name, _ in network.named_modules()}
    planned = {name.replace("*", number) for name in HoldfastForCausalLM._fsdp_plan for number in "01"}
    assert planned <= names
    covered = {name for name, _ in network.named_parameters() if name.startswith(tuple(planned))}
    assert covered == dict(network.named_parameters()).keys()
    assert {type(block).__name__ for block in network.backbone.blocks} == set(network._no_split_modules)


def test_bfloat16_computes() -> None:
    network, ids = model(SCHEDULES["rat+window"]), torch.stack(rows(12, 12))
    expected = network(ids).logits
    logits = network.bfloat16()(ids).logits
    assert logits.dtype == torch.bfloat16
    # eight bits of weights and activations, a dozen roundings one after the other
    assert (logits.double() - expected).norm() < 12 * 2**-8 * expected.norm()


def test_a_new_token_gets_an_embedding() -> None:
    network = model(SCHEDULES["rat+window"], tie_word_embeddings=True)
    network.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
    assert network.config.vocab_size == VOCABULARY + 3
    assert network.head.weight is network.embedding.weight
    ids = torch.tensor([[VOCABULARY + 2, 1]])
    assert network(ids, labels=ids).logits.shape[-1] == VOCABULARY + 3


def test_mistakes_are_one_line() -> None:
    network, ids = model(SCHEDULES["rat"]), torch.stack(rows(9, 9))
    mistakes = {
        "input_ids: expected input_ids or inputs_embeds, got none": {"input_ids": None},
        "past_key_values: expected a HoldfastCache or None, got DynamicCache": {"past_key_values": DynamicCache()},
        r"attention_mask: expected shape \(2, 9\)": {"attention_mask": torch.ones(2, 4)},
        r"attention_mask: expected shape \(2, 9\),": {"attention_mask": torch.ones(2, 1, 9, 9)},
        r"position_ids: expected shape \(2, 9\), got shape \(2, 4\)": {"position_ids": torch.zeros(2, 4)},
        "cu_seqlens: expected rising numbers": {"cu_seqlens": torch.tensor([0, 9])},
    }
    for message, given in mistakes.items():
        with pytest.raises(ArgumentError, match=message) as caught:
            network(**{"input_ids": ids, **given})
        assert "\n" not in str(caught.value)
    cache = network(ids).past_key_values
    with pytest.raises(ArgumentError, match="a state of 2"):
        network(ids[:1], past_key_values=cache)
    with pytest.raises(ArgumentError, match="each of which begins anew"):
        network(ids, past_key_values=cache, cu_seqlens=torch.tensor([0, 9, 18]))
    with pytest.raises(ArgumentError, match="state: expected 3 layers, got 2"):
        model(("rat",) * 3)(ids, past_key_values=cache)
