"""What int8 buys: fp32 against quantized after training and during it, all through ONNX Runtime.

    .venv/bin/python benchmarks/compress_int8.py --data digits                   three seeds of a resnet 64 wide
    .venv/bin/python benchmarks/compress_int8.py --data FOLDER --samples 5000    of an image folder, such as CIFAR-10's

metric: test accuracy through the runtime, of each seed. file: bytes of the ONNX file / those of fp32. latency: seconds of
a call / those of fp32, arms taking turns on one thread; the floor is fp32 against itself. agree: samples of the test
split of which PyTorch's rounded model and the runtime's integers predict the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from compare import interleave, ratio, table, verdict

import accel_cli
from accel_cli.api import train
from accel_cli.export.base import deployed

ARMS = {"fp32": [], "ptq": ["compression=ptq"], "qat": ["compression=qat"]}
FILE, LATENCY, METRIC = 0.3, 1.0, 0.005
CALLS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, or an image folder")
    parser.add_argument("--samples", type=int, default=None, help="of an image folder, at most so many to train on")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--words", nargs="*", default=["model=resnet", "model.width=64", "model.blocks=[1,1]"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    words = [*given.words, f"train.epochs={given.epochs:g}", "hardware=cpu"]
    words += ["data=digits"] if given.data == "digits" else ["data=image_folder", f"data.root={given.data}"]
    if given.samples:
        words.append(f"data.max_samples={given.samples}")
    rows: list[list[object]] = [["seed", "arm", "accuracy", "against fp32", "file", "agree"]]
    kept: dict[str, Runtime] = {}
    with tempfile.TemporaryDirectory() as folder:
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
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {onnxruntime.get_device()}, 1 thread")


def latency(found: dict[str, Runtime], batch: int, rounds: int) -> None:
    arms: dict[str, Callable[[], float]] = {name: (lambda one=one: one.timed(batch)) for name, one in found.items()}  # type: ignore[misc]
    arms["fp32 again"] = lambda: found["fp32"].timed(batch)
    seconds = interleave(arms, rounds, lambda line: None)
    floor = ratio(seconds["fp32 again"], seconds["fp32"])
    rows: list[list[object]] = [[f"batch {batch}", "ms", "against fp32", f"at most {LATENCY:g}", "floor"]]
    for name in found:
        against = ratio(seconds[name], seconds["fp32"])
        told = "" if name == "fp32" else verdict(against, floor, LATENCY)
        rows.append([name, f"{min(seconds[name]) * 1e3:.3f}", against, told, floor])
    print(table(rows))


class Runtime:
    """A trained model in ONNX Runtime, beside the same in PyTorch."""

    def __init__(self, folder: Path, words: list[str], seed: int) -> None:
        train([*words, f"train.seed={seed}"], run_dir=folder)
        loaded = accel_cli.load(folder)
        model = loaded.model.eval()
        batches = list(loaded.batches("test"))
        self.inputs = batches[0][0]
        path = folder / "model.onnx"
        write(deployed(model), self.inputs[:2], path)
        self.bytes = path.stat().st_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
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


if __name__ == "__main__":
    main()
