"""Models on a GPU: the same tokens and actions as on a CPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from tests.models.action.tiny import ARM, BACKBONES, GAME, MAZE, batch
from tests.models.action.tiny import model as action_model
from tests.models.language.tiny import PAD, SCHEDULES, model, padded, rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("beams", [1, 3])
def test_generated_tokens_are_those_of_the_cpu(name, beams):
    network = model(SCHEDULES[name])
    ids, mask = padded(rows(13, 4, 9), "left")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": PAD, "num_beams": beams}
    expected = network.generate(ids, attention_mask=mask, **options)
    network = network.cuda()
    for more in ({}, {"cache_implementation": "static"}):
        if more and beams > 1:
            continue
        found = network.generate(ids.cuda(), attention_mask=mask.cuda(), **options, **more)
        assert found.cpu().equal(expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_of_actions_are_those_of_the_cpu(name):
    here, there = (action_model(BACKBONES[name]).double().to(device) for device in ("cpu", "cuda"))
    for domain in (ARM, MAZE, GAME):
        window = batch(domain, 3, 9)
        with torch.no_grad():
            wanted, _ = here(window)
            found, _ = there(window.to("cuda"))
        close = 1e-4 if name == "mamba" else 1e-6
        torch.testing.assert_close(found.cpu(), wanted, rtol=close, atol=close)
