"""Images of some classes only, and few of them, from a folder train/<class>/*: data.factory=few_images:Images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images [3, height, width] of -1 to 1, numbered by their place in ``classes``.

    Of each class's first ``of``, in an order that follows from ``seed``, a third is test, a third validation, and
    ``train`` of the others are for training.
    """

    def __init__(self, split: str, root: str, classes: list[str], of: int, train: int, seed: int) -> None:
        third = of // 3
        places = {"test": slice(0, third), "validation": slice(third, 2 * third)}.get(split)
        order = torch.randperm(of, generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = order[places] if places else order[2 * third :][:train]
        files = {name: sorted((Path(root) / "train" / name).iterdir()) for name in classes}
        paths = [(files[name][place], number) for number, name in enumerate(classes) for place in chosen]
        self.classes = classes
        self.images = torch.stack([pil_to_tensor(Image.open(path)) for path, _ in paths]).float() / 127.5 - 1
        self.targets = torch.tensor([number for _, number in paths])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]
