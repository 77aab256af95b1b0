"""The graph of a model, for any batch size; what cannot become one is refused with the operation and its line."""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from accel_cli.errors import ConfigError, Problem

ACCEL, LIBRARY = str(Path(__file__).parents[1]), os.sep + "site-packages" + os.sep
TORCH = str(Path(torch.__file__).parent)
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_OPERATOR = re.compile(r"(?:CustomOpDef\(|op='|torch\.ops\.)?\b([a-z_]\w*(?:\.|::)\w+)")


def captured(model: nn.Module, inputs: Tensor, where: str, *, any_batch: bool = True) -> ExportedProgram:
    """torch.export's graph of ``model`` for inputs like ``inputs`` [n, ...], n at least 2 unless it stays as it is.

    Raises ConfigError for ``where``, such as ``export=onnx``, with the operation and the line that it stands on.
    """
    shapes = ({0: Dim("batch")},) if any_batch else None
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            return torch.export.export(model, (inputs,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ConfigError(_refusal(error, where, len(inputs))) from error


def not_known(program: ExportedProgram, operator: str, where: str, who: str) -> ConfigError:
    """``who`` has no form of ``operator``, such as ``aten.linalg_lu``, which stands somewhere in the graph."""
    place = next((found for target, found in _operations(program) if target.startswith(operator)), None)
    why = f"{who} has no {operator}{_at(place)}"
    return ConfigError(Problem(where, why, "write it with other operations, or try export=torch_export"))


def _operations(program: ExportedProgram) -> Iterator[tuple[str, str | None]]:
    """(operator, the line of the model that it comes from) of every node."""
    for node in program.graph.nodes:
        if node.op == "call_function":
            places = _PLACE.findall(node.meta.get("stack_trace") or "")
            yield str(node.target), _innermost([(file, int(line)) for file, line in places])


def _refusal(error: Exception, where: str, batch: int) -> Problem:
    place = _innermost(_frames(error.__traceback__))
    text = str(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        why = f"aten.item{_at(place)}: what the model does next depends on a tensor's value, which no graph can"
        return Problem(where, why, "choose with torch.where, or torch.cond")
    if "specialized it to be a constant" in text:
        why = f"the model was written for one batch size: it fixes that of the example, {batch}"
        return Problem(where, why, "take the size from its input: x.shape[0], or x.flatten(1)")
    named = _OPERATOR.search(text) if "fake impl" in text or "registered for" in text else None
    if named is not None:
        operator = named[1].replace("::", ".")
        why = f"{operator}{_at(place)} has no form for tracing: it says nothing of its output's shape"
        return Problem(where, why, f"register one: torch.library.register_fake('{operator.replace('.', '::')}')")
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return Problem(
        where, f"the model cannot be captured{_at(place)}: {first}", "accel export RUN --traceback tells more"
    )


def _at(place: str | None) -> str:
    return f" ({place})" if place else ""


def _frames(trace: TracebackType | None) -> list[tuple[str, int]]:
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(trace)]


def _innermost(frames: list[tuple[str, int]]) -> str | None:
    """``file:line`` of the user's own code, else of accel's models or a library's; never torch's."""
    known = [(file, line) for file, line in frames if os.path.isabs(file) and not file.startswith(TORCH)]
    own = [(file, line) for file, line in known if LIBRARY not in file and not file.startswith(ACCEL)]
    models = [(file, line) for file, line in known if LIBRARY in file or f"{os.sep}model{os.sep}" in file]
    chosen = own or models
    return f"{chosen[-1][0]}:{chosen[-1][1]}" if chosen else None
