"""What a step minimizes: margin loss on labeled faces plus regression to a teacher, over one shared
backbone."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sphereid_training import heads, networks
from sphereid_training.config import Config
from sphereid_training.data.augment import view_size


@dataclass(frozen=True, slots=True)
class Losses:
    """Weighted parts of one batch's loss, each a mean over all its images, and what the log shows.

    head_mean: unweighted mean head loss over the labeled images alone.
    """

    head: Tensor
    distill: Tensor
    relation: Tensor
    head_mean: Tensor

    @property
    def total(self) -> Tensor:
        """The scalar to minimize."""
        return self.head + self.distill + self.relation


class Objective(nn.Module):
    """Backbone, head and teacher projection as one module, so that one wrapper can distribute them.

    classes: identities of the head. teacher_size: length of the teacher's descriptors, 0 without a teacher.
    """

    def __init__(self, config: Config, classes: int, teacher_size: int) -> None:
        super().__init__()
        self.config = config
        size = view_size(config.data.template, config.data.input_pool)
        dim = config.backbone.embedding_size
        self.backbone = networks.build(config.backbone, size)
        self.head = heads.build(config.head, classes, dim) if config.head.weight > 0 else None
        distils = teacher_size > 0 and (config.distill.weight > 0 or config.distill.relation > 0)
        self.projection = nn.Linear(dim, teacher_size) if distils else None
        if self.projection is not None:
            # Predictions start about as long as the targets; the default is six times too long.
            nn.init.normal_(self.projection.weight, std=(dim * teacher_size) ** -0.5)
            nn.init.zeros_(self.projection.bias)

    def forward(
        self, pixels: Tensor, labels: Tensor, teacher: Tensor | None, strength: float
    ) -> tuple[Tensor, ...]:
        """(B, 3, H, W) pixels, (B,) labels (−1: none) and (B, T) descriptors to the fields of Losses.

        strength: share of the head's margin in force, 0 to 1.
        """
        embedding = self.backbone(pixels).float()
        zero = embedding.new_zeros(())
        head = distill = relation = head_mean = zero
        if self.head is not None:
            each = self.head(embedding, labels, strength)
            head = self.config.head.weight * each.mean()
            head_mean = each.detach().sum() / (labels >= 0).sum().clamp(min=1)
        if self.projection is not None and teacher is not None:
            predicted = self.projection(embedding)
            distill = self.config.distill.weight * regression_loss(predicted, teacher)
            if self.config.distill.relation > 0:
                relation = self.config.distill.relation * relation_loss(embedding, teacher)
        return head, distill, relation, head_mean


def regression_loss(predicted: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of 1 − cosine + ½ ‖predicted − teacher‖², both (B, T)."""
    angle = 1 - F.cosine_similarity(predicted, teacher, dim=1)
    return (angle + 0.5 * (predicted - teacher).pow(2).sum(dim=1)).mean()


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of all off-diagonal cosines among (B, D) students and among (B, T) teachers.

    The angular sibling of relational distillation (Park et al., CVPR 2019).
    """
    s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
    count = len(s) * (len(s) - 1)
    difference = (s @ s.T - t @ t.T).pow(2)
    return (difference.sum() - difference.diagonal().sum()) / max(count, 1)
