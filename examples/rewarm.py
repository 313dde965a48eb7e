"""Method: a learning rate that rises again when the labels of a task change, in a plain loop, and what it is worth.

Half-way through all labels are drawn anew. A rate that has decayed by then learns the new ones slowly, though norms of
all layers are held; one that the detector re-warms learns them as it did the first.
"""

import torch
from torch import nn

from holdfast.optim import Cusum, Projector, Rewarm, normalize_

STEPS, CHANGE, CLASSES = 800, 400, 4
torch.manual_seed(0)
inputs = torch.randn(256, 16)
tasks = torch.randint(CLASSES, (2, 256))


def train(trigger):
    """Accuracy at the end of each task, and the schedule."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    model = normalize_(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    Projector(model, optimizer)
    rewarm = Rewarm(optimizer, peak=3e-3, final=3e-5, warmup=20, period=CHANGE, trigger=trigger)
    accuracy = []
    for labels in tasks:
        for _ in range(STEPS - CHANGE):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            rewarm.step(loss)
        accuracy.append((model(inputs).argmax(-1) == labels).float().mean().item())
    return accuracy, rewarm


if __name__ == "__main__":
    print("accuracy after the first and the second task:")
    for name, trigger in (("one decay", None), ("re-warmed", Cusum())):
        (first, second), rewarm = train(trigger)
        steps = [event.step for event in rewarm.events if event.kind == "rewarmed"]
        print(f"{name}: {first:.2f} {second:.2f}  re-warmed at {steps}")
