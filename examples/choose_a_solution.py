"""Solutions: two optimisers reach the same accuracy, and only one of the networks can be pruned.

Power-propagation trains the roots of the weights: what is large moves fast, what is small stays near zero. Needs
scikit-learn, for its digits: pip install 'holdfast[solutions]'.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from holdfast.optim import apply_masks_, magnitude_masks, power_adamw

STEPS, TESTED, KEPT = 1000, 540, 0.05


def accuracy(model, images, labels):
    """Share of images that are named rightly."""
    return (model(images).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    torch.set_num_threads(1)  # more only wait for each other on tensors as small as these
    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    train, test = (images[TESTED:], labels[TESTED:]), (images[:TESTED], labels[:TESTED])
    print(f"accuracy on test images, with all weights and with {KEPT:.0%} of each layer:")
    for make in (torch.optim.AdamW, power_adamw):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
        optimizer = make(model if make is power_adamw else model.parameters(), lr=3e-3)
        for _ in range(STEPS):
            places = torch.randint(len(train[0]), (60,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train[0][places]), train[1][places]).backward()
            optimizer.step()
        dense = accuracy(model, *test)
        apply_masks_(model, magnitude_masks(model, KEPT))
        print(f"{make.__name__:<12} {dense:.2f}  {accuracy(model, *test):.2f}")
