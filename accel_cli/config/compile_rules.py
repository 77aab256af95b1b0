"""Rules about compiling."""

from __future__ import annotations

import os
import shutil

from accel_cli.config.facts import Facts, Rule


def _compiler_is_absent(facts: Facts) -> bool:
    if facts.run.compile.option in ("none", "auto") or facts.run.compile.backend != "inductor" or facts.device != "cpu":
        return False
    return not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))


COMPILE_RULES: tuple[Rule, ...] = (
    Rule(
        "compiler-present", "refuse", "compile.backend=inductor on a CPU needs a C++ compiler",
        lambda f: f"compile={f.run.compile.option}",
        _compiler_is_absent,
        "inductor needs a C++ compiler, and there is none on PATH",
        "try compile=none, or install g++",
    ),
    Rule(
        "autotune-by-inductor", "refuse", "compile=max_autotune chooses among inductor's kernels",
        lambda f: f"compile.backend={f.run.compile.backend}",
        lambda f: f.run.compile.option == "max_autotune" and f.run.compile.backend != "inductor",
        "only inductor has kernels to choose from",
        "try compile.backend=inductor or compile=full",
    ),
    Rule(
        "cuda-graphs-on-cuda", "refuse", "compile.cuda_graphs records kernels of an NVIDIA GPU, through inductor",
        "compile.cuda_graphs=true",
        lambda f: f.run.compile.option != "none"
        and f.run.compile.cuda_graphs
        and (f.device != "cuda" or f.run.compile.backend != "inductor"),
        lambda f: f"inductor records them on cuda; this is {f.run.compile.backend} on {f.device}",
        "try compile.cuda_graphs=false",
    ),
)  # fmt: skip
