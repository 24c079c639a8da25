"""The judges that look at what a model draws: classifiers in four roles."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import IMAGE_SHAPE, check_finite, check_images, check_is, check_tensor, check_whole
from .models import NUM_CLASSES, restored

JUDGE_ROLES = {
    "open": "scores; an eleventh answer, 'none of these'",
    "plain": "scores; ten answers",
    "guide": "guides attacks, never scores",
    "tuning": "for choosing knobs, never reported",
}


class Judge(nn.Module):
    """Classifier of 28 x 28 images.  The four roles differ in architecture (see JUDGE_ROLES).

    forward: images (B, 1, 28, 28) -> logits (B, C), or (B, C + 1) for role "open", whose last
    column means "none of these".
    """

    def __init__(self, role: str, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        if role not in JUDGE_ROLES:
            raise ValueError(f"role={role!r} is not one of {', '.join(JUDGE_ROLES)}")
        check_whole(num_classes, "num_classes", 2, 1000)
        self.role, self.num_classes = role, num_classes
        self.has_none = role == "open"
        if role == "open":
            body = [*_block(1, 16, 3, 1), *_block(16, 32, 3, 2), *_block(32, 64, 3, 2)]
            body += [*_block(64, 64, 3, 1), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU()]
            width = 128
        elif role == "plain":
            body = [nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 48, 5)]
            body += [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 192), nn.ReLU()]
            width = 192
        elif role == "guide":
            body = [*_block(1, 32, 4, 2), *_block(32, 64, 4, 2), nn.Flatten()]
            body += [nn.Linear(64 * 49, 100), nn.ReLU()]
            width = 100
        else:
            body = [nn.Flatten(), nn.Linear(784, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU()]
            width = 256
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(width, num_classes + self.has_none)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate activations, (B, width)."""
        weight = self.head.weight
        check_tensor(images, ("B", *IMAGE_SHAPE), "images", weight.device, weight.dtype)
        out: Tensor = self.body(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, C) or (B, C + 1)."""
        out: Tensor = self.head(self.features(images))
        return out

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch: int = 250) -> Tensor:
        """Softmax of the logits, in batches whose activations fit a processor's cache.

        Raises ValueError unless the images lie in [0, 1].
        """
        check_images(images, device=self.head.weight.device)
        check_whole(batch, "batch")
        return torch.cat([self(part).softmax(1) for part in images.split(batch)])

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers and strings only: what a checkpoint holds."""
        tensors = {k: v.detach().cpu() for k, v in self.state_dict().items()}
        return {"role": self.role, "num_classes": self.num_classes, "tensors": tensors}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Judge":
        """The judge of `to_state`, on the CPU, in evaluation mode."""
        judge = restored(lambda: cls(state["role"], state["num_classes"]), state["tensors"])
        return judge.to(memory_format=torch.channels_last)


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def check_judge(judge: object, num_classes: int | None, name: str = "judge") -> None:
    """Refuse what is not a Judge (of so many classes) with finite weights, ready to judge."""
    check_is(judge, Judge, name)
    assert isinstance(judge, Judge)
    if num_classes is not None and judge.num_classes != num_classes:
        raise ValueError(f"{name} knows {judge.num_classes} classes, the model {num_classes}")
    if judge.training:
        raise ValueError(
            f"{name} is in training mode, where an image's verdict depends on the others: "
            "call its eval()"
        )
    check_finite(judge, name)


def check_judges(judges: object, num_classes: int | None = None) -> None:
    """Refuse what does not map names to judges that score, all of so many classes."""
    check_is(judges, Mapping, "judges")
    assert isinstance(judges, Mapping)
    for role, judge in judges.items():
        check_judge(judge, num_classes, f"judges[{role!r}]")
    if not judges or any(judge.role == "guide" for judge in judges.values()):
        raise ValueError(
            f"judges {list(judges)}: give at least one that scores, and not the one that guides"
        )


def check_guide(guide: object, num_classes: int) -> None:
    """Refuse what is not the judge that guides, of so many classes."""
    check_judge(guide, num_classes, "guide")
    assert isinstance(guide, Judge)
    if guide.role != "guide":
        raise ValueError(
            f"guide has the role {guide.role!r}: a judge that scores cannot guide as well; "
            "pass the judge of role 'guide'"
        )
