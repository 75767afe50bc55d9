"""Just enough of torchvision for facenet-pytorch's MTCNN, where no build of it fits the installed torch.

`install()` puts the two modules that facenet-pytorch imports into `sys.modules`, unless torchvision works.
The suppression runs in OpenCV's compiled code, so the peer is not slowed down by the stand-in.
"""

import sys
import types

import cv2
import numpy as np
import torch


def install() -> str:
    """Make `torchvision.ops.boxes.batched_nms` importable; says which one it is: `torchvision` or `shim`."""
    try:
        from torchvision.ops.boxes import batched_nms as real

        real(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 0.5)
        return "torchvision"
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    names = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms",
             "torchvision.transforms.functional")  # fmt: skip
    modules = {name: types.ModuleType(name) for name in names}
    modules["torchvision.ops.boxes"].batched_nms = batched_nms
    modules["torchvision.transforms.functional"].to_tensor = _to_tensor
    modules["torchvision.transforms"].functional = modules["torchvision.transforms.functional"]
    sys.modules.update(modules)
    return "shim"


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Greedy suppression by intersection over union within each group; kept indices, best score first."""
    if not boxes.numel():
        return torch.empty(0, dtype=torch.int64)
    xyxy = boxes.double().numpy()
    shift = groups.numpy()[:, None] * (xyxy.max() - min(xyxy.min(), 0) + 1)
    xywh = np.concatenate([xyxy[:, :2] + shift, xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(xywh, scores.numpy(), 0.0, threshold)
    return torch.as_tensor(np.asarray(kept).reshape(-1), dtype=torch.int64)


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1))
