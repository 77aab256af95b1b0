"""The parser of the whole command line, a block a verb."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from accel_cli.cli.arguments import Parser, shared
from accel_cli.cli.study_verbs import add_studies

TRAIN_EPILOG = """\
overrides are Hydra's: group=option, group.key=value, ~group, lists [a,b]; accel list prints what there is.

  accel train                                               the default: handwritten digits, any machine
  accel train +strategy=ddp precision=fp16                  two processes, half precision
  accel train model=gpt data=text data.path=FILE            a character-level language model
  accel train model=custom model.factory=nets:Net --plugin nets.py
  accel train -m optimizer.learning_rate=0.1,0.01           one run for each value
"""


EXPORT_EPILOG = """\
formats are the options of the group export: accel list export prints them. What is written lies in RUN/export/FORMAT.

  accel export RUN format=onnx                              a model.onnx for any batch size
  accel export RUN format=onnx export.opset=18 --which best
  accel train export=onnx                                   the same at the end of a run
"""


def parser() -> Parser:
    """The whole command line."""
    from accel_cli import __version__

    top = Parser(
        prog="accel",
        description="Train PyTorch models faster: every known way is one word on the command line.",
        epilog="accel VERB --help tells more. Exit codes: 0 done, 2 bad command or configuration, "
        "3 training code failed, 4 no usable checkpoint, 5 diverged, 6 hang, 7 out of a resource, "
        "8 refused for security, 75 saved: run me again, 130 Ctrl-C.",
    )
    top.add_argument("--version", action="version", version=f"accel {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)

    common, code, composing, _ = parents = shared()

    def verb(name: str, text: str, *parents: Parser, **more: Any) -> Parser:
        return verbs.add_parser(
            name,
            help=text,
            description=text,
            parents=list(parents),
            formatter_class=argparse.RawTextHelpFormatter,
            **more,
        )

    train = verb("train", "compose, check, launch, train", composing, epilog=TRAIN_EPILOG)
    train.add_argument("--run-dir", type=Path, metavar="DIR", help="the run folder; default runs/<time>-<name>")
    train.add_argument("--resume", action="store_true", help="go on where the run in --run-dir stopped")
    train.add_argument(
        "--dry-run", action="store_true", help="write the run folder and print the torchrun line; start nothing"
    )
    train.add_argument("-m", "--multirun", action="store_true", help="a run for each point of a=1,2 b=x,y")
    train.add_argument(
        "--new", action="store_true", help="with -m: begin another, though one of this line is unfinished"
    )
    train.add_argument("--cfg", choices=["job"], help="print the composed configuration; start nothing")
    train.add_argument("--inline", action="store_true", help="one rank in this process, for a debugger")

    check = verb("check", "validate only; starts nothing", composing)
    check.add_argument("--deep", action="store_true", help="also what only the model and the data can tell")

    show = verb("show", "the composed tree, and who set what", composing)
    show.add_argument("--explain", metavar="KEY", help="value, who set it, what it overrode")
    show.add_argument("--schedule", action="store_true", help="the course of the learning rate, and of the momentum")
    show.add_argument("--plot", type=Path, metavar="FILE", help="the same as a picture: .png, .svg or .pdf")
    show.add_argument("--help-keys", action="store_true", help="every key of the chosen options: type, range, meaning")

    listing = verb("list", "groups, options, recipes, rules: a line each", common)
    listing.add_argument(
        "what", nargs="?", default="groups", help="groups, options, recipes, rules, or the name of a group"
    )
    listing.add_argument("--config-dir", action="append", default=[], type=Path, metavar="DIR", help="your own options")

    verb("doctor", "this machine: devices, cores, versions, rates; what can be used here", common)

    resume = verb("resume", "go on with a run from its newest checkpoint", common, code)
    resume.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    resume.add_argument(
        "overrides", nargs="*", default=[], metavar="OVERRIDE", help="how it runs from here on, such as strategy=fsdp"
    )

    evaluate = verb("evaluate", "the metrics of a run's checkpoint on a split", common, code)
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    evaluate.add_argument("--split", default="test", choices=["test", "validation", "train"], help="which samples")
    evaluate.add_argument("--which", default="latest", metavar="NAME", help="latest, best or step-00000100")

    export = verb("export", "a run's model for other runtimes, compared there", common, code, epilog=EXPORT_EPILOG)
    export.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    export.add_argument(
        "formats",
        nargs="*",
        default=[],
        metavar="FORMAT",
        help="such as format=onnx export.opset=18; default: the run's own",
    )
    export.add_argument("--which", default="latest", metavar="NAME", help="latest, best or step-00000100")

    report = verb("report", "one self-contained HTML page about runs, a ledger, a sweep, a tune", common)
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or the folder of one study")
    report.add_argument("--markdown", action="store_true", help="print Markdown instead, for a pull request")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first folder")

    add_studies(verb, parents)

    runs = verb("runs", "list the runs and studies below a folder, or clean it of runs that hold nothing", common)
    runs.add_argument("action", nargs="?", default="list", choices=["list", "clean"], help="default list")
    runs.add_argument(
        "--folder", type=Path, default=Path("runs"), metavar="DIR", help="default runs; that of a study has its runs"
    )
    runs.add_argument("--yes", action="store_true", help="clean: delete; without it, only say what would go")

    completion = verb("completion", "print the shell's completion script", common)
    completion.add_argument("shell", choices=["bash", "zsh", "fish"], help="source <(accel completion bash)")
    return top
