"""Which classes take part in a step when there are too many for all (Partial FC, An et al., CVPR 2022)."""

import torch
from torch import Tensor
from torch import distributed as dist


def sample_classes(labels: Tensor, classes: int, rate: float) -> Tensor:
    """Sorted class numbers: all of the batch's, filled up with random others to ⌊rate·classes⌋.

    labels: (B,), −1 for none. Under several processes all see the same classes, those of every batch.
    """
    present = labels[labels >= 0]
    seed = torch.randint(0, 2**31, (1,))
    if dist.is_initialized() and dist.get_world_size() > 1:
        padded = labels.new_full((len(labels),), -1)
        padded[: len(present)] = present
        gathered = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, padded)
        present = torch.cat(gathered)
        present = present[present >= 0]
        dist.broadcast(seed, 0)
    generator = torch.Generator().manual_seed(int(seed))
    priority = torch.rand(classes, generator=generator)
    priority[present] = 2.0
    count = max(int(rate * classes), int((priority > 1).sum()), 1)
    return torch.sort(torch.topk(priority, count).indices).values
