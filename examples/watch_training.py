"""Watch: as norms grow, the same learning rate turns the layers less and less; it is seen while the model trains.

A plain loop; in the Trainer of Hugging Face and in Lightning `HoldfastCallback` does the same.
"""

import torch
from torch import nn

from holdfast.probes.watch import Watch

STEPS, EVERY, CLASSES = 800, 200, 8


def network():
    """Two hidden layers, each followed by a norm, so that its scale does not matter and is free to grow."""
    hidden = [nn.Linear(32, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(64, CLASSES))


def train(steps=STEPS, seed=0):
    """What is watched at every `EVERY`-th step, with the norm of the first layer."""
    torch.manual_seed(seed)
    teacher = torch.randn(32, CLASSES)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    watch = Watch(model, optimizer, every=EVERY, rows=64)
    told = []
    for step in range(steps):
        watch.before_step(step)
        inputs = torch.randn(64, 32)
        labels = (inputs @ teacher).argmax(-1)
        noise = torch.rand(64) < 0.5  # half of the labels are wrong, so that gradients do not vanish
        labels = torch.where(noise, torch.randint(CLASSES, (64,)), labels)
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        numbers = watch.after_step(step + 1)
        if numbers:
            told.append({"step": step + 1, "norm": model[0].weight.norm().item(), **numbers})
    watch.remove()
    return told


COLUMNS = {
    "norm of W": ("norm", ".2f"),
    "effective lr": ("elr/0", ".5f"),
    "rank of W": ("weight_rank/0", ".1f"),
    "stable rank": ("weight_stable_rank/0", ".2f"),
    "rank of features": ("rank/2", ".1f"),
    "cost": ("cost", ".1%"),
}

if __name__ == "__main__":
    print("first layer, at a learning rate that stays as it is:")
    print(f"{'step':>5}", *COLUMNS, sep="  ")
    for row in train():
        cells = (f"{row[name]:{form}}".rjust(len(title)) for title, (name, form) in COLUMNS.items())
        print(f"{row['step']:>5}", *cells, sep="  ")
