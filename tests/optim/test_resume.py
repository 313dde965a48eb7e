"""Trainings by the Trainer of Hugging Face and by Accelerate go on from a checkpoint as if nothing had been."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from holdfast.optim import PowerProp, power_adamw, second_order

accelerate = pytest.importorskip("accelerate")
move_to_device = pytest.importorskip("accelerate.utils").send_to_device
STEPS, SAVED = 100, 50
MAKERS = {
    "powerprop-sgd": lambda model: PowerProp(
        model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), alpha=3
    ),
    "powerprop-adamw": lambda model: power_adamw(model, lr=3e-3),
    "shampoo": lambda model: second_order("shampoo", model, lr=0.02, every=3),
    "soap": lambda model: second_order("soap", model, lr=3e-3, every=3),
    "muon": lambda model: second_order("muon", model, lr=0.01),
}


class Net(nn.Module):
    """One with a convolution, which second-order optimisers work on as a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 12), nn.Linear(12, 2))

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"logits": logits} if labels is None else {"loss": (logits - labels).square().mean(), "logits": logits}


def network():
    torch.manual_seed(0)
    return Net()


def examples(number):
    x = torch.randn(number, 1, 8, generator=torch.Generator().manual_seed(1))
    return [{"x": row, "labels": torch.stack([row[0, 0] * row[0, 1], row[0, 2:].abs().sum()])} for row in x]


def equal(one, other):
    values = other.state_dict()
    assert all(value.isfinite().all() for value in values.values())
    return all(torch.equal(one.state_dict()[name], value) for name, value in values.items())


@pytest.mark.parametrize("name", MAKERS)
def test_the_trainer_of_hugging_face(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    if name in ("shampoo", "soap"):
        pytest.importorskip("pytorch_optimizer")

    def train(folder, checkpoint=None):
        model = network()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder), use_cpu=True, report_to=[], disable_tqdm=True, seed=0, data_seed=0,
            per_device_train_batch_size=4, remove_unused_columns=False, dataloader_pin_memory=False,
            max_steps=STEPS, save_steps=SAVED, max_grad_norm=1.0, logging_strategy="no", lr_scheduler_type="cosine",
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=examples(48), optimizers=(MAKERS[name](model), None)
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return model

    whole = train("whole")
    assert not equal(whole, network())
    assert equal(whole, train("resumed", str(tmp_path / "whole" / f"checkpoint-{SAVED}")))


@pytest.mark.parametrize("name", MAKERS)
def test_accelerate(name, tmp_path):
    if name in ("shampoo", "soap"):
        pytest.importorskip("pytorch_optimizer")
    data = [{key: value[None] for key, value in example.items()} for example in examples(2 * STEPS)]

    def prepared():
        accelerator, model = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2), network()
        optimizer = MAKERS[name](model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return accelerator, *accelerator.prepare(model, optimizer, schedule)

    def train(accelerator, model, optimizer, schedule, part):
        for example in part:
            with accelerator.accumulate(model):
                accelerator.backward(model(**example)["loss"])
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    whole = prepared()
    train(*whole, data)
    first = prepared()
    train(*first, data[: 2 * SAVED])
    first[0].save_state(str(tmp_path))
    second = prepared()
    second[0].load_state(str(tmp_path))
    train(*second, data[2 * SAVED :])
    assert not equal(whole[1], network())
    assert equal(second[1], whole[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MAKERS)
def test_a_model_that_is_moved_once_it_has_an_optimiser(name):
    """As the Trainer and Accelerate do, which also take the optimiser's state there, and load it."""
    if name in ("shampoo", "soap"):
        pytest.importorskip("pytorch_optimizer")
    moved, there = network(), network().cuda()
    optimizer = MAKERS[name](moved)
    moved.cuda()
    optimizer.load_state_dict(move_to_device(optimizer.state_dict(), torch.device("cuda")))
    for model, its in ((moved, optimizer), (there, MAKERS[name](there))):
        for example in examples(10):
            its.zero_grad()
            model(**{key: value[None].cuda() for key, value in example.items()})["loss"].backward()
            its.step()
    # The roots of the two were taken on a CPU and on a GPU.
    for one, other in zip(moved.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    optimizer.step()
