"""User code by name: what may be imported, and importing it.

A factory ``package.module:name`` is imported only when the command line (``--plugin``) or the user's own ``accel.yaml``
named its module, file or folder, or when it is a public name of a library that every run trusts. A recipe, a run.yaml
or a checkpoint cannot grant that.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.errors import ConfigError, Problem, SecurityError

TRUSTED = {"torch.nn": "torch", "torch.optim": "torch", "torchvision.models": "torchvision"}
"""Modules whose own public classes and functions need no grant, and the library that must define them."""

_FORM = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_granted: list[str] = []


def plugin_module(plugin: str) -> str:
    """The top importable name that a ``--plugin`` grants: a module, a file ``nets.py`` or a folder."""
    path = Path(plugin)
    if plugin.endswith(".py") or "/" in plugin or path.is_dir():
        return path.resolve().name.removesuffix(".py")
    return plugin


def is_granted(factory: str, plugins: Sequence[str]) -> bool:
    """Whether the module of ``package.module:name`` is one of the granted plugins, or inside one, or trusted."""
    module = factory.split(":")[0]
    return module in TRUSTED or any(
        module == name or module.startswith(name + ".") for name in map(plugin_module, plugins)
    )


def form_problem(factory: str, where: str) -> Problem | None:
    """What is wrong with the spelling of a factory, if anything."""
    if _FORM.fullmatch(factory):
        return None
    guess = factory.rsplit(".", 1)
    fix = (
        f"try {where}={guess[0]}:{guess[1]}"
        if len(guess) == 2 and ":" not in factory
        else f"try {where}=my_file:MyName"
    )
    return Problem(f"{where}={factory}", "a factory is written package.module:name", fix)


def grant_problem(factory: str, where: str, plugins: Sequence[str]) -> Problem | None:
    """Why a factory may not be imported, if so."""
    if is_granted(factory, plugins):
        return None
    top = factory.split(":")[0].split(".")[0]
    return Problem(
        f"{where}={factory}",
        "would import code that the command line does not name",
        f"add --plugin {top}   (a module, a file or a folder; or plugins: [{top}] in accel.yaml here)",
    )


def grant(plugins: Sequence[str]) -> None:
    """Let this process import these plugins, and the working directory be searched for them."""
    for plugin in plugins:
        path = Path(plugin)
        is_path = plugin.endswith(".py") or "/" in plugin or path.is_dir()
        folder = str(path.resolve().parent if is_path else Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        if plugin not in _granted:
            _granted.append(plugin)


def load_factory(path: str, where: str) -> Any:
    """Import ``package.module:name`` for the key ``where``.

    Raises ConfigError for a spelling, module or name that does not exist, SecurityError where nothing granted it.
    An exception inside the user's own module passes through: its traceback is hers to read.
    """
    if problem := form_problem(path, where):
        raise ConfigError(problem)
    if problem := grant_problem(path, where, _granted):
        raise SecurityError(problem)
    module_name, name = path.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ConfigError(
            Problem(
                f"{where}={path}",
                f"no module {error.name} in {Path.cwd()}",
                "check the name, or --plugin path/to/file.py",
            )
        ) from None
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in vars(module) if not n.startswith("_")], n=3)
        fix = (
            f"did you mean {where}={module_name}:{near[0]} ?"
            if near
            else f"it has: {', '.join(sorted(vars(module))[:8])}"
        )
        raise ConfigError(Problem(f"{where}={path}", f"{module_name} has no {name}", fix))
    found = getattr(module, name)
    library = TRUSTED.get(module_name)
    if library and not str(getattr(found, "__module__", "")).startswith(library + "."):
        raise SecurityError(
            Problem(
                f"{where}={path}",
                f"not a public class or function of {library}",
                "name your own with --plugin",
            )
        )
    return found
