"""One arm of benchmarks/loading.py: float32 batches of CIFAR-sized images from a folder, as one library makes them.

Each flips, cuts 32 x 32 from a border of 4 reflected pixels, blanks a square where that is asked for, and normalises.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from arms import Window

Epochs = Callable[[], Iterator[tuple[Any, Any]]]
"""Called once an epoch: batches [n, 3, 32, 32] (or channels last) and class numbers [n]."""
SIDE, BORDER = 32, 4


def accel(given: dict[str, Any]) -> tuple[Epochs, str, dict[str, Any]]:
    """The loader of a real run, from its cache, which is built beforehand."""
    from accel_cli import __version__
    from accel_cli.config.plan import plan
    from accel_cli.engine import setup

    run = plan(given["words"]).run
    hardware, world = setup.enter(run)
    training, _ = setup.build(run, hardware, world, lambda line: None)
    steps = training.description.train_samples // given["batch"]
    done = [0]

    def epoch() -> Iterator[tuple[Any, Any]]:
        first = done[0]
        done[0] += steps
        for batches in training.loader.batches(first, first + steps):
            yield batches[0]

    means = training.description.mean, training.description.std
    return epoch, __version__, {"mean": means[0], "std": means[1]}


def transforms(given: dict[str, Any]) -> Any:
    """What torchvision's own documentation says to do, sample by sample, in uint8 until the end."""
    import torch
    from torchvision.transforms import v2

    words: list[Any] = [
        v2.RandomHorizontalFlip(),
        v2.RandomCrop(SIDE, padding=BORDER, padding_mode="reflect"),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([m / 255 for m in given["mean"]], [s / 255 for s in given["std"]]),
    ]
    if given["cutout"]:
        share = (given["cutout"] / SIDE) ** 2
        words.append(v2.RandomErasing(p=1.0, scale=(share, share), ratio=(1.0, 1.0)))
    return v2.Compose(words)


def dataloader(given: dict[str, Any], workers: int) -> tuple[Epochs, str, dict[str, Any]]:
    """ImageFolder, decoded at each read."""
    import torch
    import torchvision
    from torchvision.transforms import v2

    folder = torchvision.datasets.ImageFolder(
        os.path.join(given["root"], "train"), transform=v2.Compose([v2.ToImage(), transforms(given)])
    )
    more: dict[str, Any] = {"persistent_workers": True} if workers else {}
    loader = torch.utils.data.DataLoader(
        folder, given["batch"], shuffle=True, drop_last=True, num_workers=workers, **more
    )
    return lambda: iter(loader), torchvision.__version__, {}


def decoded(given: dict[str, Any]) -> tuple[Epochs, str, dict[str, Any]]:
    """The same transforms over images that were decoded beforehand, as accel's are: what is left without decoding."""
    import torch
    import torchvision

    images, classes = pixels(given)
    stored, change = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), transforms(given)

    class Stored(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(stored)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return change(stored[index]), classes[index]

    loader = torch.utils.data.DataLoader(Stored(), given["batch"], shuffle=True, drop_last=True)
    return lambda: iter(loader), torchvision.__version__, {}


def spdl(given: dict[str, Any]) -> tuple[Epochs, str, dict[str, Any]]:
    """Its pipeline of threads decodes whole batches; the rest is whole-batch torch, in the same threads.

    Its own decoder is FFmpeg's; where the machine has none, PIL decodes in the same threads, and the version says so.
    """
    import spdl.io
    import torch
    from PIL import Image
    from spdl.pipeline import PipelineBuilder

    files = listed(given)
    draw = np.random.default_rng(0)
    threads = given["threads"]
    mean, std = (torch.tensor(given[name]).view(1, 3, 1, 1) for name in ("mean", "std"))

    def by_ffmpeg(paths: list[str]) -> Any:
        return spdl.io.to_torch(spdl.io.load_image_batch(paths, width=None, height=None))

    def by_pil(paths: list[str]) -> Any:
        return torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]))

    try:
        decode, name = by_ffmpeg, "FFmpeg"
        by_ffmpeg([files[0][0]])
    except RuntimeError:
        decode, name = by_pil, "PIL, for there is no FFmpeg"

    def load(items: list[tuple[str, int]]) -> tuple[Any, Any]:
        images = decode([path for path, _ in items]).permute(0, 3, 1, 2)
        n = len(images)
        padded = torch.nn.functional.pad(images.float(), [BORDER] * 4, mode="reflect")
        down, right = (torch.randint(0, 2 * BORDER + 1, (n, 1)) for _ in range(2))
        rows, columns = torch.arange(SIDE) + down, torch.arange(SIDE) + right
        columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
        numbers = torch.arange(n)[:, None, None]
        taken = padded.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        taken = taken.sub_(mean).div_(std)
        if given["cutout"]:
            side = given["cutout"]
            top, left = (torch.randint(0, SIDE - side + 1, (n, 1)) for _ in range(2))
            along = torch.arange(SIDE)
            inside = ((along >= top) & (along < top + side))[:, :, None] & ((along >= left) & (along < left + side))[
                :, None, :
            ]
            taken.masked_fill_(inside[:, None], 0.0)
        return taken, torch.tensor([number for _, number in items])

    torch.set_num_threads(1)  # the pipeline's threads are the parallelism

    def epoch() -> Iterator[tuple[Any, Any]]:
        shuffled = [files[i] for i in draw.permutation(len(files))]
        builder = PipelineBuilder().add_source(shuffled).aggregate(given["batch"], drop_last=True)
        pipeline = builder.pipe(load, concurrency=threads).add_sink(3).build(num_threads=threads, max_failures=0)
        with pipeline.auto_stop():
            yield from pipeline

    from importlib.metadata import version

    return epoch, f"{version('spdl-core')} with {name}", {}


def tfdata(given: dict[str, Any], *, cached: bool) -> tuple[Epochs, str, dict[str, Any]]:
    """As tensorflow's guide to input pipelines has it; ``cached``: decoded images are kept in memory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    files = listed(given)
    mean, std = (tf.constant(given[name], tf.float32) for name in ("mean", "std"))

    def decode(path: Any, number: Any) -> tuple[Any, Any]:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3), number

    def change(image: Any, number: Any) -> tuple[Any, Any]:
        image = tf.image.random_flip_left_right(image)
        image = tf.pad(image, [[BORDER, BORDER], [BORDER, BORDER], [0, 0]], "REFLECT")
        image = tf.image.random_crop(image, [SIDE, SIDE, 3])
        image = (tf.cast(image, tf.float32) - mean) / std
        if given["cutout"]:
            side, along = given["cutout"], tf.range(SIDE)
            top, left = (tf.random.uniform([], 0, SIDE - side + 1, tf.int32) for _ in range(2))
            inside = ((along >= top) & (along < top + side))[:, None] & ((along >= left) & (along < left + side))[None]
            image = tf.where(inside[:, :, None], 0.0, image)
        return image, number

    found = tf.data.Dataset.from_tensor_slices(([path for path, _ in files], [number for _, number in files]))
    if cached:
        found = found.map(decode, tf.data.AUTOTUNE).cache().shuffle(len(files)).map(change, tf.data.AUTOTUNE)
    else:
        found = found.shuffle(len(files)).map(lambda p, n: change(*decode(p, n)), tf.data.AUTOTUNE)
    found = found.batch(given["batch"], drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return lambda: ((images.numpy(), numbers.numpy()) for images, numbers in found), tf.__version__, {}


ARMS: dict[str, Callable[[dict[str, Any]], tuple[Epochs, str, dict[str, Any]]]] = {
    "accel": accel,
    "dataloader 0": lambda given: dataloader(given, 0),
    "dataloader 1": lambda given: dataloader(given, 1),
    "dataloader 2": lambda given: dataloader(given, 2),
    "dataloader decoded": decoded,
    "spdl": spdl,
    "tf.data": lambda given: tfdata(given, cached=False),
    "tf.data cached": lambda given: tfdata(given, cached=True),
}


def listed(given: dict[str, Any]) -> list[tuple[str, int]]:
    """Every training image and its class's number."""
    folders = sorted(path for path in Path(given["root"], "train").iterdir() if path.is_dir())
    return [(str(path), number) for number, folder in enumerate(folders) for path in sorted(folder.iterdir())]


def pixels(given: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
    from PIL import Image

    files = listed(given)
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files]), [n for _, n in files]


def as_images(batch: Any) -> np.ndarray:
    """float32 [n, 3, 32, 32] of whatever holds it."""
    found = np.asarray(batch)
    return found.transpose(0, 3, 1, 2) if found.shape[-1] == 3 else found


class Seen:
    """What is counted of an untimed epoch: the proof that arms do the same work."""

    def __init__(self) -> None:
        self.samples, self.blank, self.total, self.squares, self.numbers = 0, 0, 0.0, 0.0, 0
        self.classes: dict[int, int] = {}

    def add(self, images: np.ndarray, classes: Any) -> None:
        assert (str(images.dtype), images.shape[1:]) == ("float32", (3, SIDE, SIDE)), (images.dtype, images.shape)
        self.samples += len(images)
        self.numbers += images.size
        self.total += float(images.sum(dtype=np.float64))
        self.squares += float(np.square(images, dtype=np.float64).sum())
        self.blank += int((images == 0).all(axis=1).sum())
        for number in np.asarray(classes).tolist():
            self.classes[number] = self.classes.get(number, 0) + 1

    def told(self) -> dict[str, Any]:
        mean = self.total / self.numbers
        return {
            "samples": self.samples,
            "mean": mean,
            "std": (self.squares / self.numbers - mean**2) ** 0.5,
            "blank": self.blank / (self.numbers / 3),
            "classes": len(self.classes),
        }


class Shifts:
    """Of images whose red grows to the right and whose green grows downwards, what was done to them shows."""

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = (np.reshape(each, (1, 3, 1, 1)) for each in (mean, std))
        self.flipped: list[bool] = []
        self.down: list[int] = []

    def add(self, images: np.ndarray) -> None:
        shown = images * self.std + self.mean
        middle = np.median(shown, axis=3)[:, 1, SIDE // 2]  # a blank square leaves more than half of a row
        self.down += np.clip(np.rint(middle / 8).astype(int) - SIDE // 2, -BORDER, BORDER).tolist()
        columns = np.median(shown, axis=2)[:, 0]
        self.flipped += (columns[:, 8] > columns[:, 24]).tolist()

    def told(self) -> dict[str, float]:
        """Shares, and chi-square of the nine shifts being equally likely (8 degrees: 26.1 is exceeded once in 1000)."""
        counts = np.bincount(np.array(self.down) + BORDER, minlength=2 * BORDER + 1)
        expected = len(self.down) / len(counts)
        return {
            "images": len(self.down),
            "flipped": float(np.mean(self.flipped)),
            "chi_square": float(((counts - expected) ** 2 / expected).sum()),
        }


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    given = json.loads((folder / "given.json").read_text())
    window = Window(folder / "window.json", 0, 0)
    if kind == "build":
        build(given, window)
        return
    if kind == "decode":
        decode(given, window)
        return
    if kind == "hold":
        hold(given, folder)
        return
    if "spdl" not in kind and "tf" not in kind:
        import torch

        # What is done to one sample is too small for several threads: they would only wait for each other.
        torch.set_num_threads(given["threads"] if kind == "accel" else 1)
    epoch, version, own = ARMS[kind](given)
    seen = Seen()
    shifts = Shifts(own.get("mean", given["mean"]), own.get("std", given["std"])) if given["probe"] else None
    for inputs, classes in epoch():
        images = as_images(inputs)
        seen.add(images, classes)
        if shifts is not None:
            shifts.add(images)
    count = 0
    window.begin()
    for _ in range(given["epochs"]):
        for inputs, _classes in epoch():
            count += len(inputs)
    window.end()
    window.write(version=version, seen=seen.told(), count=count, shifts=shifts.told() if shifts else None)


def build(given: dict[str, Any], window: Window) -> None:
    """accel's cache of the folder, from nothing."""
    from accel_cli.config.parts import implementation
    from accel_cli.config.plan import plan
    from accel_cli.data.base import quiet

    run = plan(given["words"]).run
    data = implementation("data", run.data)(run.data, run.train.seed)
    window.begin()
    data.prepare(quiet)
    window.end()
    window.write(count=data.describe().train_samples)


def decode(given: dict[str, Any], window: Window) -> None:
    """One pass of ImageFolder in this process: PIL decodes each image, as DataLoader does without workers."""
    import torchvision

    window.begin()
    folder = torchvision.datasets.ImageFolder(os.path.join(given["root"], "train"))
    for index in range(len(folder)):
        folder[index]
    window.end()
    window.write(count=len(folder), version=torchvision.__version__)


def hold(given: dict[str, Any], folder: Path) -> None:
    """A rank that has read every sample of the cache, and stays until its input ends."""
    epoch, _, _ = accel(given)
    for _ in epoch():
        pass
    maps = Path("/proc/self/smaps").read_text().split("VmFlags")
    found = [piece for piece in maps if "inputs.npy" in piece]
    lines = [line.split() for piece in found for line in piece.splitlines()]
    kilobytes = {name: sum(int(line[1]) for line in lines if line[0] == name) for name in ("Rss:", "Pss:")}
    inodes = sorted({line[4] for line in lines if line[-1].endswith("inputs.npy")})
    sys.stdout.write(json.dumps({"ready": True, "rss": kilobytes["Rss:"], "inodes": inodes}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    again = Path("/proc/self/smaps").read_text().split("VmFlags")
    pss = sum(
        int(line.split()[1])
        for piece in again
        if "inputs.npy" in piece
        for line in piece.splitlines()
        if line.startswith("Pss:")
    )
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    whole = {line.split()[0]: int(line.split()[1]) for line in rollup[1:]}
    sys.stdout.write(json.dumps({"pss": pss, "whole_pss": whole["Pss:"], "whole_rss": whole["Rss:"]}) + "\n")
    sys.stdout.flush()
    time.sleep(0.1)


if __name__ == "__main__":
    main()
