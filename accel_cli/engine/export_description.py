"""model.json: what whoever runs an exported model has to know, and cannot read from its file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from accel_cli.config.run import Run
from accel_cli.engine.trained import TrainedModel

FORMAT_VERSION = 1
STANDARDISED = "float32 (stored - mean) / std, of each channel or feature; a std of 0 counts as 1"
PREPARATION = {
    "image": STANDARDISED,
    "vector": STANDARDISED,
    "tokens": "the tokenizer's numbers as int64",
    "other": "as the data set gives it",
}
FRESH = {"pretrained": False, "weights": None}
"""Of a model that is built to hold the exported weights: it need not fetch those that training began from."""
MEANING = {
    "class": "a logit for each class; the largest is the prediction",
    "number": "the numbers themselves",
    "next_token": "at each place a logit for each token of the vocabulary, of the one that comes next",
    "other": "what the model's task makes of it",
}


def describe_model(run: Run, trained: TrainedModel, *, inputs: Tensor, output: Tensor) -> dict[str, Any]:
    """What goes in, what comes out, and what builds the model again; ``inputs`` and ``output`` [n, ...]."""
    of = trained.description
    fresh = {key: value for key, value in FRESH.items() if hasattr(run.model, key)}
    entering: dict[str, Any] = {
        "name": "input",
        "kind": of.input,
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "shape": ["batch", *inputs.shape[1:]],
        "prepare": PREPARATION[of.input] if of.input in ("tokens", "other") or of.mean else "float32, as stored",
        "mean": of.mean,
        "std": of.std,
    }
    if of.input == "tokens":
        entering |= {"vocabulary": of.vocabulary, "tokenizer": getattr(run.data, "tokenizer", None)}
    return {
        "format_version": FORMAT_VERSION,
        "input": entering,
        "output": {
            "name": "output",
            "dtype": str(output.dtype).removeprefix("torch."),
            "shape": ["batch", *output.shape[1:]],
            "meaning": MEANING[of.target],
            "class_names": of.class_names,
        },
        "checkpoint": trained.checkpoint,
        "built_from": {
            "model": {**run.model.model_dump(), **fresh},
            "description": of.to_dict(),
            "transfer": run.transfer.model_dump(),
            "compression": {name: option.model_dump() for name, option in run.compression.items()},
            "structure": trained.structure,
        },
    }
