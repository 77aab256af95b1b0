"""Environments for the peers that benchmarks measure accel against, one each, so that none changes what accel runs on.

    .venv/bin/python benchmarks/peers.py DIR                        accelerate, lightning and spdl into DIR/<name>
    .venv/bin/python benchmarks/peers.py DIR tensorflow             tf.data, some 600 MB more: only by its own word
    .venv/bin/python benchmarks/peers.py DIR --remove               all of them

Each is a virtual environment that reads this Python's packages too: torch is the same files for every arm, and is not
installed again. A peer that does not install is reported, here and by each benchmark, never left out in silence.
"""

from __future__ import annotations

import argparse
import shutil
import site
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

PEERS = {
    "accelerate": ["accelerate"],
    "lightning": ["lightning"],
    "spdl": ["spdl-io", "spdl-core"],
    "tensorflow": ["tensorflow-cpu"],
}
"""Name, and module that has to be importable -> distributions."""
MODULES = {"spdl": "spdl.io"}
DEFAULT = ["accelerate", "lightning", "spdl"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--remove", action="store_true")
    given = parser.parse_args()
    if unknown := [name for name in given.peers if name not in PEERS]:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if given.remove:
        for name in given.peers or PEERS:
            shutil.rmtree(given.folder / name, ignore_errors=True)
        return 0
    failed = {name: why for name in given.peers or DEFAULT if (why := install(given.folder, name))}
    for name, why in failed.items():
        print(f"{name} did not install: {why}")
    return 1 if failed else 0


def install(folder: Path, name: str) -> str | None:
    """Make the peer's environment; returns why it could not be made, and leaves that beside it."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    print(f"{name}: installing {' '.join(PEERS[name])}")
    venv.create(place, with_pip=True, symlinks=True)
    python = str(place / "bin" / "python")
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (own / "accel.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    kept = place / "constraints.txt"  # another torch would be another benchmark
    kept.write_text("".join(f"{each}=={version(each).partition('+')[0]}\n" for each in ("torch", "torchvision")))
    for words in (["-m", "pip", "install", "-q", "-c", str(kept), *PEERS[name]], ["-c", f"import {module(name)}"]):
        done = subprocess.run([python, *words], capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            (place / "failed").write_text(why)
            return why
    return None


def module(name: str) -> str:
    return MODULES.get(name, name)


def find(folder: Path | None, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(peer -> its Python, peer -> why it is not there)."""
    pythons, missing = {}, {}
    for name in names:
        if folder is None:
            missing[name] = "no --peers DIR given; benchmarks/peers.py makes one"
        elif (folder / name / "failed").exists():
            missing[name] = f"did not install: {(folder / name / 'failed').read_text()}"
        elif not (folder / name / "bin" / "python").exists():
            missing[name] = f"not in {folder}; benchmarks/peers.py {folder} {name}"
        else:
            pythons[name] = str((folder / name / "bin" / "python").absolute())
    return pythons, missing


if __name__ == "__main__":
    sys.exit(main())
