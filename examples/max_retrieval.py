"""Max retrieval: train the paper's one-head network on small sets, and let the probe take it apart on large ones.

python examples/max_retrieval.py
holdfast probe sharpness examples/max_retrieval.py:head --compare plain adaptive hard
"""

import sys
import time
from functools import cached_property

import torch

from holdfast.nn import Adaptive, Hard, Plain
from holdfast.probes.sharpness import probe_sharpness
from holdfast.studies.sharpness.item_sets import CLASSES, sample_item_sets
from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet

ITEMS = 1 << 17  # at a time: it bounds memory


class Head:
    """The network's head, as the probe wants it: logits at a size, and whether given weights lead to right answers.

    Trained on sets of 5 to 16 items when it is first used; each size has its own sets, always the same ones.
    """

    def __init__(self, steps=600, seed=0):
        self.steps, self.seed = steps, seed

    def __call__(self, n):
        """Attention logits of many sets of n items: (sets, n)."""
        return torch.cat([self.net.encode(sets.items, sets.query)[1][0] for sets in self.sets(n)])

    def correct(self, n, weights):
        """For each of these sets, whether the network names the right class with these attention weights."""
        right, first = [], 0
        for sets in self.sets(n):
            some = weights[first : first + sets.items.shape[1]]
            hidden, _ = self.net.encode(sets.items, sets.query)
            answer = self.net.read(hidden, some[None, None]).argmax(dim=-1)
            right.append(answer[0, 0] == sets.winning_class[0])
            first += len(some)
        return torch.cat(right)

    def sets(self, n):
        """Test sets of n items, a bounded number of items at a time: 1024 sets, fewer above 256 items."""
        generator = torch.Generator().manual_seed(1_000_003 * (self.seed + 1) + n)
        count, most = max(64, min(1024, (1 << 18) // n)), max(1, ITEMS // n)
        for first in range(0, count, most):
            some = min(most, count - first)
            yield sample_item_sets(some, n, generator=generator).view(1, some)

    @cached_property
    def net(self):
        """The trained network."""
        net = MaxRetrievalNet([self.seed], features=1 + CLASSES, classes=CLASSES)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
        generator = torch.Generator().manual_seed(self.seed)
        began, wait, threads = time.monotonic(), 2, torch.get_num_threads()
        torch.set_num_threads(1)  # more only wait for each other on tensors as small as these
        with torch.enable_grad():  # the probe, which may be the first to ask, works without gradients
            for step in range(self.steps):
                sets = sample_item_sets(128, (5, 16), generator=generator).view(1, 128)
                output = net(sets.items, sets.query, sets.mask)
                loss = torch.nn.functional.cross_entropy(output[0], sets.winning_class[0])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if time.monotonic() - began > wait:
                    wait *= 2
                    print(f"training: step {step + 1} of {self.steps}, loss {loss.item():.3f}", file=sys.stderr)
        torch.set_num_threads(threads)
        return net.requires_grad_(False)


head = Head()

if __name__ == "__main__":
    normalisers = {"plain": Plain(), "adaptive": Adaptive(), "hard": Hard()}
    print(probe_sharpness(head, [16, 64, 256, 1024], normalisers=normalisers, correct=head.correct))
