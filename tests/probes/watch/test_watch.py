"""What is watched has the values of plain formulas, and the training does not notice."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from holdfast.probes.watch import Watch, watch_once
from holdfast.probes.watch.watching import WatchWarning

needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs lightning")


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_dropout": 0.1}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, pad_token_id=0))


@needs_transformers
def test_entropies_are_those_of_the_weights() -> None:
    model = llama()
    ids = torch.randint(1, 32, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    numbers = watch_once(model, {"input_ids": ids, "attention_mask": mask})
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    model.eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    for layer, share in enumerate(weights):
        rows = [(b, q) for b in range(3) for q in range(1, 9) if mask[b, q]]
        p = torch.stack([share[b, :, q].double() for b, q in rows])
        seen = torch.tensor([math.log(q + 1) for _, q in rows])[:, None]
        heads = (-torch.special.xlogy(p, p).sum(-1) / seen).mean(0)
        name = f"entropy/model.layers.{layer}.self_attn"
        for part, expected in (("mean", heads.mean()), ("max", heads.max()), ("min", heads.min())):
            assert numbers[f"{name}/{part}"] == pytest.approx(float(expected), abs=1e-5)


def test_a_model_without_attention_and_with_gradients_summed_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = -1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, every=1, rows=5)
    x = torch.randn(5, 6)
    watch.before_step(7)
    model(x).square().sum().backward()
    assert watch.after_step(7) == {}
    watch.before_step(7)
    model(torch.randn(5, 6)).square().sum().backward()
    before = model[0].weight.detach().clone()
    optimizer.step()
    numbers = watch.after_step(8)
    change = float((model[0].weight.detach() - before).norm() / before.norm())
    assert numbers["elr/0"] == pytest.approx(change, rel=1e-5)
    features = torch.relu(model[0](x)).detach().double()
    share = torch.linalg.svdvals(features)
    share = share / share.sum()
    assert numbers["rank/1"] == pytest.approx(math.exp(-torch.special.xlogy(share, share).sum()), rel=1e-5)
    assert numbers["dormant/1"] >= 2 / 8
    assert numbers["cost"] > 0
    watch.remove()
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def huggingface(folder: Path, *, watched: bool, resume: str | None = None, bf16: bool = False) -> Any:
    from transformers import Trainer, TrainingArguments

    from holdfast.probes.watch import HoldfastCallback

    model = llama()
    model.model.embed_tokens.requires_grad_(False)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(1, 32, (32, 7))]
    args = TrainingArguments(
        str(folder), max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True, bf16=bf16,
        logging_steps=2, save_steps=3, report_to=[], seed=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows)
    if watched:
        trainer.add_callback(HoldfastCallback(trainer, every=2, rows=3))
    trainer.train(resume_from_checkpoint=resume)
    assert not model._forward_pre_hooks
    return trainer


@needs_transformers
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_hugging_face_does_not_notice(tmp_path: Path) -> None:
    plain = huggingface(tmp_path / "plain", watched=False)
    random = torch.get_rng_state()
    trainer = huggingface(tmp_path / "watched", watched=True, bf16=False)
    assert torch.equal(random, torch.get_rng_state())
    for one, other in zip(plain.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)

    def of(trainer: Any, part: str) -> list[tuple[int, float]]:
        return [(log["step"], log[part]) for log in trainer.state.log_history if part in log]

    assert of(trainer, "loss") == of(plain, "loss")
    entropies = of(trainer, "holdfast/entropy/model.layers.1.self_attn/max")
    assert [step for step, _ in entropies] == [2, 4, 6]
    assert {"holdfast/elr/global", "holdfast/cost"} <= set().union(*trainer.state.log_history)
    resumed = huggingface(tmp_path / "watched", watched=True, resume=str(tmp_path / "watched" / "checkpoint-3"))
    assert of(resumed, "holdfast/entropy/model.layers.1.self_attn/max") == entropies
    assert of(resumed, "holdfast/elr/global") == of(trainer, "holdfast/elr/global")
    half = huggingface(tmp_path / "half", watched=True, bf16=True)
    assert len(of(half, "holdfast/cost")) == 3
    assert all(rank > 0 for _, rank in of(half, "holdfast/weight_rank/model.layers.0.mlp.up_proj"))


@needs_lightning
@pytest.mark.filterwarnings("ignore")
def test_lightning_does_not_notice(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    from holdfast.probes.watch.lightning import HoldfastCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    def train(callbacks: list[Any]) -> tuple[Any, Any]:
        torch.manual_seed(3)
        module = Module()
        trainer = pl.Trainer(
            max_steps=4, accumulate_grad_batches=2, logger=CSVLogger(tmp_path), callbacks=callbacks, accelerator="cpu",
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, precision="bf16-mixed",
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(torch.randn(32, 6), batch_size=4, shuffle=True))
        return module, trainer

    plain, _ = train([])
    random = torch.get_rng_state()
    module, trainer = train([HoldfastCallback("net", every=2, rows=3)])
    assert torch.equal(random, torch.get_rng_state())
    for one, other in zip(plain.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, other)
    with open(trainer.logger.experiment.metrics_file_path, encoding="utf-8") as file:
        metrics = list(csv.DictReader(file))
    assert [row["step"] for row in metrics] == ["2", "4"]
    names = ("holdfast/rank/1", "holdfast/dormant/1", "holdfast/elr/0", "holdfast/cost")
    assert all(float(row[name]) >= 0 for row in metrics for name in names)


@needs_lightning
@pytest.mark.filterwarnings("ignore")
def test_lightning_with_two_optimisers_by_hand(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    from holdfast.probes.watch.lightning import HoldfastCallback

    class Module(pl.LightningModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
            self.two = nn.Linear(2, 6)

        def forward(self, batch: Any) -> Any:
            return self.two(self.one(batch))

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward((self(batch) - batch).square().mean())
            for optimizer in self.optimizers()[batch_idx % 2 :]:
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.one, self.two)]

    def train(callbacks: list[Any], **settings: Any) -> Any:
        torch.manual_seed(3)
        module = Module()
        trainer = pl.Trainer(
            max_epochs=1, logger=CSVLogger(tmp_path), callbacks=callbacks, accelerator="cpu", devices=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **settings,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(torch.randn(24, 6), batch_size=4))
        return module, Path(trainer.logger.experiment.metrics_file_path)

    with patch.dict(os.environ):  # Lightning leaves a rank behind, which others take for several processes
        plain, _ = train([], strategy="ddp")
        module, told = train([HoldfastCallback(every=3, rows=3)], strategy="ddp")
    for one, other in zip(plain.parameters(), module.parameters(), strict=True):
        assert torch.equal(one, other)
    rows = list(csv.DictReader(told.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2  # the third and the sixth batch
    assert rows[0]["holdfast/elr/Adam/one.0"]
    assert rows[0]["holdfast/elr/Adam-1/two"]
    assert not rows[1]["holdfast/elr/Adam/one.0"]  # whose optimiser makes no step in the sixth
    assert rows[1]["holdfast/elr/Adam-1/two"]
    assert all(0 < float(row["holdfast/rank/one.1"]) <= 3 for row in rows)


def test_attention_that_cannot_be_listened_to_is_named() -> None:
    model = nn.TransformerEncoderLayer(8, 2)
    with pytest.warns(WatchWarning, match="entropies of attention are left out"):
        Watch(model, torch.optim.SGD(model.parameters(), lr=0.1)).remove()


def test_star_imports_need_no_trainer() -> None:
    code = (
        "import sys\nsys.modules['lightning'] = None\nsys.modules['transformers'] = None\n"
        "from holdfast.optim import *\nfrom holdfast.probes.watch import *\nWatch, Rewarm\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


class Scaled(nn.Module):
    """Is called with one argument by its place and one by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.layers(scale * x)


def test_arguments_by_place_and_by_name_go_together() -> None:
    torch.manual_seed(0)
    model = Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, every=1, rows=5)
    x = torch.randn(5, 4)
    watch.before_step(0)
    model(x, scale=2.0).sum().backward()
    optimizer.step()
    numbers = watch.after_step(1)
    watch.remove()
    expected = watch_once(model, {"x": x, "scale": 2.0}, attention=False)
    assert expected
    assert {name: numbers[name] for name in expected} == expected
