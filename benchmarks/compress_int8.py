"""What int8 buys: fp32 against quantized after training and during it, all through ONNX Runtime.

    .venv/bin/python benchmarks/compress_int8.py --data digits     three seeds of a resnet 64 wide
    .venv/bin/python benchmarks/compress_int8.py --data cifar10-jpeg.tar.xz --samples 500

accuracy: on the test split, through the runtime, of each seed. file: bytes of the ONNX file / those of fp32. latency:
seconds computed in a call / those of fp32, arms taking turns; the floor is fp32 against itself. agree: samples of the
test split of which PyTorch's rounded model and the runtime's integers predict the same.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from compare import Ratio, interleave, merged, ratio, table

from accel_cli.api import train
from accel_cli.config.parts import implementation
from accel_cli.config.plan import plan
from accel_cli.engine.trained import trained_model
from accel_cli.export.base import deployed
from accel_cli.loader.evaluation import evaluation_batches

ARMS = {"fp32": [], "ptq": ["compression=ptq"], "qat": ["compression=qat"]}
CALLS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or an archive of train/<class>/* and test/")
    parser.add_argument(
        "--samples", type=int, default=500, help="of an archive: images of each class, a fifth of that to test"
    )
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--words", nargs="*", default=["model=resnet", "model.width=64", "model.blocks=[1,1]"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    words = [*given.words, f"train.epochs={given.epochs:g}", "hardware=cpu"]
    rows: list[list[object]] = [["seed", "arm", "accuracy", "against fp32", "file", "agree"]]
    kept: dict[str, Runtime] = {}
    with tempfile.TemporaryDirectory() as folder:
        if given.data == "digits":
            words.append("data=digits")
        else:
            unpack(Path(given.data), Path(folder) / "images", given.samples)
            words += ["data=image_folder", f"data.root={folder}/images", f"data.cache={folder}/cache"]
        for seed in range(given.seeds):
            found = {
                name: Runtime(Path(folder) / f"{seed}-{name}", [*words, *more], seed) for name, more in ARMS.items()
            }
            whole = found["fp32"]
            for name, one in found.items():
                drop = whole.accuracy - one.accuracy
                size = one.bytes / whole.bytes
                rows.append([seed, name, f"{one.accuracy:.4f}", f"{-drop:+.4f}", f"{size:.3f}", f"{one.agrees:.4f}"])
            kept = kept or found
        print(table(rows))
        for batch in (1, 32):
            latency(kept, batch, given.rounds)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {given.threads} thread(s)")


def unpack(archive: Path, folder: Path, samples: int) -> None:
    """The first images of each class, in the order of the archive."""
    counts: Counter[Path] = Counter()
    with tarfile.open(archive) as packed:
        for member in packed:
            place = Path(member.name)
            if not member.isfile() or len(place.parts) < 3:
                continue
            most = samples if place.parts[-3] == "train" else samples // 5
            if counts[place.parent] < most:
                counts[place.parent] += 1
                target = folder.joinpath(*place.parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.extractfile(member).read())  # type: ignore[union-attr]


def latency(found: dict[str, Runtime], batch: int, rounds: int) -> None:
    arms: dict[str, Callable[[], float]] = {name: (lambda one=one: one.timed(batch)) for name, one in found.items()}  # type: ignore[misc]
    arms["fp32 again"] = lambda: found["fp32"].timed(batch)
    seconds = interleave(arms, rounds, lambda line: None)
    floor = ratio(seconds["fp32 again"], seconds["fp32"])
    rows: list[list[object]] = [[f"batch {batch}", "ms", "against fp32", "quicker", "floor"]]
    for name in found:
        against = ratio(seconds[name], seconds["fp32"])
        told = "" if name == "fp32" else quicker(against, floor)
        rows.append([name, f"{min(seconds[name]) * 1e3:.3f}", against, told, floor])
    print(table(rows))


class Runtime:
    """A trained model in ONNX Runtime, beside the same in PyTorch."""

    def __init__(self, folder: Path, words: list[str], seed: int) -> None:
        train(merged([*words, f"train.seed={seed}"]), run_dir=folder)
        trained = trained_model(folder, "latest")
        model = trained.model.eval()
        run = plan(merged([*words, f"train.seed={seed}"])).run
        data = implementation("data", run.data)(run.data, seed)
        told: Any = {"batch_size": 256, "rank": 0, "world_size": 1, "device": torch.device("cpu")}
        read = evaluation_batches(data.split("test"), description=trained.description, collate=data.collate, **told)
        batches = [batch for batch, _ in read]
        self.inputs = batches[0][0]
        path = folder / "model.onnx"
        write(deployed(model), self.inputs[:2], path)
        self.bytes = path.stat().st_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        right = same = count = 0
        for inputs, targets in batches:
            predicted = self(inputs).argmax(1)
            with torch.no_grad():
                same += int((model(inputs).argmax(1) == predicted).sum())
            right += int((predicted == targets).sum())
            count += len(targets)
        self.accuracy, self.agrees = right / count, same / count

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._session.run(None, {self._name: inputs.numpy()})[0])

    def timed(self, batch: int) -> float:
        """Seconds that this thread computed for a call; neighbours don't lengthen them."""
        inputs = {self._name: self.inputs[:batch].contiguous().numpy()}
        self._session.run(None, inputs)
        began = time.process_time()
        for _ in range(CALLS):
            self._session.run(None, inputs)
        return (time.process_time() - began) / CALLS


def write(model: Any, inputs: torch.Tensor, path: Path) -> None:
    options: Any = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
    torch.onnx.export(model, (inputs,), str(path), external_data=False, **options)
    slim = onnx.load(path)
    for node in slim.graph.node:
        del node.metadata_props[:]
    del slim.graph.value_info[:]
    onnx.save(slim, path)


def quicker(found: Ratio, floor: Ratio) -> str:
    """Whether an arm takes less time than fp32, by more than fp32 differs from itself."""
    if found.high < min(1.0, floor.low):
        return "yes"
    return "no" if found.low > max(1.0, floor.high) else "cannot tell"


if __name__ == "__main__":
    main()
