"""An HLS project for an FPGA, and its bit-accurate emulation in C++."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from hls4ml.model import ModelGraph
from hls4ml.utils.config import create_config
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.export.base import Export
from accel_cli.export.emulation import Emulation, build
from accel_cli.export.hls_layers import WHERE, Layers
from accel_cli.export.hls_operations import hls_layers

PROJECT, NAME, COUNTED = "project", "net", "layers.json"
EXAMPLES = 2
"""Samples that the project's own test bench compares: more of them are in the report of the emulation."""
DEFAULT = "fixed<16,6>"
"""hls4ml asks for one; every type of ours is said."""
COMMANDS = {
    "Vitis": "vitis-run --mode hls --tcl build_prj.tcl",
    "Vivado": 'vivado_hls -f build_prj.tcl "reset=1 csim=1 synth=1 cosim=0 validation=0 export=0 vsynth=0"',
    "Quartus": f"make {NAME}-fpga && ./{NAME}-fpga",
    "Catapult": "catapult -product ultra -shell -f build_prj.tcl",
}
"""What makes hardware of the project, where the vendor's tool is."""


class FPGA(Export):
    """By hls4ml (https://fastmachinelearning.org/hls4ml), from layers whose types hold every value exactly."""

    is_graph = False
    is_emulation = True

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        layers = hls_layers(model, inputs, self.config.backend)
        project = folder / PROJECT
        vectors = folder / "vectors"
        vectors.mkdir()
        with torch.no_grad():
            outputs = model(inputs[:EXAMPLES]).double()
        numpy.save(vectors / "inputs.npy", channels_last(inputs[:EXAMPLES]))
        numpy.save(vectors / "outputs.npy", outputs.numpy())
        settings = self.settings(layers, project) | {
            "InputData": str(vectors / "inputs.npy"),
            "OutputPredictions": str(vectors / "outputs.npy"),
        }
        first, last = layers.layers[0]["name"], layers.layers[-1]["name"]
        try:
            graph = ModelGraph.from_layer_list(settings, layers.layers, inputs=[first], outputs=[last])
            graph.config.config["Stamp"] = "emulation"
            graph.write()
        except Exception as error:  # hls4ml raises plain Exception for what a backend does not have
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(Problem(WHERE, f"hls4ml cannot write it: {said}", "try export.backend=Vitis")) from error
        shutil.rmtree(vectors)
        project.with_suffix(".tar.gz").unlink(missing_ok=True)
        movable(project)
        reuse = {layer.name: int(layer.get_attr("reuse_factor") or 1) for layer in graph.get_layers()}
        counted = [{**row, "reuse_factor": reuse.get(row["layer"], 1)} for row in layers.counted]
        facts = {"input": layers.layers[0]["input_shape"], "outputs": outputs.shape[1], "layers": counted}
        facts["types"] = layers.types
        (project / COUNTED).write_text(json.dumps(facts, indent=1) + "\n")
        firmware = project / "firmware"
        return sorted([*firmware.glob("*.cpp"), *firmware.glob("*.h"), *firmware.glob("weights/*.h")])

    def settings(self, layers: Layers, project: Path) -> dict[str, Any]:
        """hls4ml's own configuration."""
        chosen = self.config
        how = {"Strategy": chosen.strategy, "ReuseFactor": chosen.reuse_factor}
        more = {} if chosen.part is None else {"part": chosen.part}
        settings: dict[str, Any] = create_config(
            output_dir=str(project), project_name=NAME, backend=chosen.backend, io_type=chosen.io_type,
            clock_period=chosen.clock_period, **more,
        )  # fmt: skip
        settings["HLSConfig"] = {
            "Model": {"Precision": {"default": DEFAULT}, "BramFactor": 10**9, **how},
            "LayerName": {name: {"Precision": types, **how} for name, types in layers.types.items()},
        }
        return settings

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        project = folder / PROJECT
        facts = json.loads((project / COUNTED).read_text())
        emulation = Emulation(build(project), NAME, math.prod(facts["input"]), facts["outputs"])

        def run(inputs: Tensor) -> Tensor:
            return torch.from_numpy(emulation(channels_last(inputs))).float()

        return run

    def facts(self, folder: Path) -> dict[str, Any]:
        """Counted from the model's own integers: no vendor's tool has run, so there are no flip-flops to report."""
        project = folder / PROJECT
        counted = json.loads((project / COUNTED).read_text())["layers"]
        multipliers = [
            math.ceil(row["nonzero_weights" if self.config.strategy == "latency" else "weights"] / row["reuse_factor"])
            for row in counted
        ]
        asked = self.config.reuse_factor
        others = [f"{row['layer']} {row['reuse_factor']}" for row in counted if row["reuse_factor"] != asked]
        return {
            "emulated": "every value's bits, in C++ by g++",
            "not_synthesised": "resources are counted from the model, not by the vendor's tool, which has not run",
            "reuse_factors": ", ".join([str(asked), *others]),
            "multipliers": sum(multipliers),
            "multiplications_a_sample": sum(row["multiplications"] for row in counted),
            "parameter_bits": sum(row["parameter_bits"] for row in counted),
            "widest_sum_bits": max(row["bits"]["accum"] for row in counted),
            "to_synthesise": f"cd {PROJECT} && {COMMANDS[self.config.backend]}",
        }


def channels_last(inputs: Tensor) -> numpy.ndarray[Any, Any]:
    """[n, channels, height, width] -> [n, height, width, channels], others as they are; exact in float64."""
    ordered = inputs.permute(0, 2, 3, 1) if inputs.dim() == 4 else inputs
    return ordered.double().contiguous().numpy()


def movable(project: Path) -> None:
    """Leave the folder's own place out of what hls4ml has written of itself."""
    settings = project / "hls4ml_config.yml"
    lines = settings.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("InputData:", "OutputPredictions:"))]
    settings.write_text("\n".join("OutputDir: ." if line.startswith("OutputDir:") else line for line in kept) + "\n")
