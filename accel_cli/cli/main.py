"""The command line: one parser, a file a verb. Nothing here imports torch."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from accel_cli.errors import AccelError, ConfigError, Problem, format_problems

STARTED = time.time()

TRAIN_EPILOG = """\
overrides are Hydra's: group=option, group.key=value, ~group, lists [a,b]; accel list prints what there is.

  accel train                                               the default: handwritten digits, any machine
  accel train +strategy=ddp precision=fp16                  two processes, half precision
  accel train model=gpt data=text data.path=FILE            a character-level language model
  accel train model=custom model.factory=nets:Net --plugin nets.py
  accel train -m optimizer.learning_rate=0.1,0.01           one run for each value
"""


SWEEP_EPILOG = """\
axes are in Hydra's grammar: a=1,2,3  a=range(1,5)  a=choice(x,y)  group=glob(adam*)
and to draw from: a=interval(0.1,0.9)  a=tag(log, interval(1e-4,1e-1))  a=int(interval(1,8))

  accel sweep optimizer.learning_rate=0.1,0.01 model=cnn,mlp
  accel sweep --search random --trials 30 'optimizer.learning_rate=tag(log, interval(1e-4,1e-1))'
  accel sweep --search optuna --trials 50 optimizer=glob(adam*) optimizer.weight_decay=0,0.01,0.1

killed or interrupted, the same line goes on where it was.
"""


LEDGER_EPILOG = """\
a technique is one override, or several in quotation marks; all are compared with the run as it is without them.

  accel ledger precision=bf16 compile=full                  each alone, both together, each left out
  accel ledger loader=memory "optimizer=sgd optimizer.learning_rate=0.1" --base "data=image_folder data.root=photos"
  accel ledger compile=full --run runs/X --to-target validation_accuracy=0.97 --seeds 5
"""


TUNE_EPILOG = """\
overrides are those of the run. The levers that can be used here are tried, or where a word names several values those:
the first of them is where it starts. Beside them: objective=throughput, time_to_target (of stopping=target) or memory,
and floor=METRIC-AMOUNT, what may be lost of the metric on validation; with a plus for a loss; floor=none.

  accel tune model=resnet data=cifar10                      every lever, accuracy kept to 0.003
  accel tune loader=auto,workers hardware.threads=2,1 floor=validation_accuracy-0.001 --seeds 5
  accel tune objective=time_to_target stopping=target stopping.target=0.97
"""


BENCH_EPILOG = """\
the run's steps take turns with a fixed load of plain torch and Python, so that what the machine itself does cancels.

  accel bench model=resnet --save bench/resnet.json                          once, where the gate will run
  accel bench model=resnet --against bench/resnet.json --max-slowdown 5%     exit 1: slower, beyond noise
"""


EXPORT_EPILOG = """\
formats are the options of the group export: accel list export prints them. What is written lies in RUN/export/FORMAT.

  accel export RUN format=onnx                              a model.onnx for any batch size
  accel export RUN format=onnx export.opset=18 --which best
  accel train export=onnx                                   the same at the end of a run
"""


class Parser(argparse.ArgumentParser):
    """argparse, with accel's own error format and a suggestion for a mistyped verb or flag."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(_parse_problem(self, message))


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """Between 0 and 1; ``5%`` is 0.05."""
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _parse_problem(parser: argparse.ArgumentParser, message: str) -> Problem:
    from accel_cli.config.suggest import did_you_mean, nearest

    if "invalid choice: " in message:
        word = message.split("invalid choice: ")[1].split("'")[1]
        known = [c for a in parser._actions for c in (a.choices or ())]
        what = "no such verb" if parser.prog == "accel" else "not one of its choices"
        return Problem(
            word, what, did_you_mean(nearest(word, map(str, known))) or f"one of: {', '.join(map(str, known))}"
        )
    if message.startswith("unrecognized arguments: "):
        word = message.removeprefix("unrecognized arguments: ").split()[0]
        flags = [flag for action in parser._actions for flag in action.option_strings]
        return Problem(word, "no such flag", did_you_mean(nearest(word, flags)) or f"see {parser.prog} --help")
    return Problem(parser.prog, message, f"see {parser.prog} --help")


def parallel(text: str) -> int | None:
    """As many as fit, None, for auto."""
    return None if text == "auto" else count(text)


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

    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    common.add_argument("--traceback", action="store_true", help="show what lies under a message")

    code = Parser(add_help=False)
    code.add_argument(
        "--plugin", action="append", default=[], metavar="NAME", help="a module, file or folder of your own to import"
    )
    composing = Parser(add_help=False, parents=[common, code])
    composing.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="such as strategy=ddp or train.epochs=3")
    composing.add_argument(
        "--config-dir", action="append", default=[], type=Path, metavar="DIR", help="your own options and recipes"
    )
    composing.add_argument(
        "--run", type=Path, metavar="RUN", help="begin from another run's run.yaml instead of the defaults"
    )

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

    sweep = verb("sweep", "a run for each point of several values; a table and a page", composing, epilog=SWEEP_EPILOG)
    sweep.add_argument("--run-dir", type=Path, metavar="DIR", help="the sweep's folder; default runs/<time>-sweep")
    sweep.add_argument("--new", action="store_true", help="begin another, though a sweep of this line is unfinished")
    sweep.add_argument("--retry-failed", action="store_true", help="also run again what has failed or was refused")
    sweep.add_argument(
        "--search", default="grid", choices=["grid", "random", "optuna"], help="every point (default), or some"
    )
    sweep.add_argument("--trials", type=count, metavar="N", help="points of --search random and optuna; default 20")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the search; default 0")
    sweep.add_argument(
        "--pruner",
        default="median",
        choices=["median", "asha", "none"],
        help="ends bad points of --search optuna early",
    )
    sweep.add_argument(
        "--metric", metavar="NAME", help="train_seconds, validation_loss ...; default the run's own, on validation"
    )
    sweep.add_argument("--mode", choices=["min", "max"], help="whether less or more of --metric is better")
    sweep.add_argument(
        "--parallel", type=parallel, default=1, metavar="N", help="points beside each other, or auto; default 1"
    )
    sweep.add_argument("--limit", type=positive, metavar="SECONDS", help="most that a point may take")

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
        "overrides", nargs="*", metavar="OVERRIDE", help="how it runs from here on, such as strategy=fsdp"
    )

    evaluate = verb("evaluate", "the metrics of a run's checkpoint on a split", common, code)
    evaluate.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    evaluate.add_argument("--split", default="test", choices=["test", "validation", "train"], help="which samples")
    evaluate.add_argument("--which", default="latest", metavar="NAME", help="latest, best or step-00000100")

    export = verb("export", "a run's model for other runtimes, compared there", common, code, epilog=EXPORT_EPILOG)
    export.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    export.add_argument(
        "formats", nargs="*", metavar="FORMAT", help="such as format=onnx export.opset=18; default: the run's own"
    )
    export.add_argument("--which", default="latest", metavar="NAME", help="latest, best or step-00000100")

    advise = verb("advise", "try the override that a run's end names: expected against measured", common, code)
    advise.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    advise.add_argument(
        "--budget", type=positive, default=5.0, metavar="MINUTES", help="no further round once it is spent; default 5"
    )

    ledger = verb(
        "ledger",
        "what each technique buys, alone and together, against a noise floor",
        common,
        code,
        epilog=LEDGER_EPILOG,
    )
    ledger.add_argument("techniques", nargs="+", metavar="TECHNIQUE", help="one or more overrides in one word")
    ledger.add_argument(
        "--base", action="append", default=[], metavar="OVERRIDES", help="of the run that is compared with"
    )
    ledger.add_argument("--run", type=Path, metavar="RUN", help="compare with this run's settings")
    ledger.add_argument("--config-dir", action="append", default=[], type=Path, metavar="DIR", help="your own options")
    ledger.add_argument("--alone", action="store_true", help="each technique alone only, no combinations")
    ledger.add_argument("--budget", type=positive, default=10.0, metavar="MINUTES", help="of probes; default 10")
    ledger.add_argument("--margin", type=share, default=0.01, help="effects up to this share are none; default 0.01")
    ledger.add_argument("--error", type=share, default=0.001, help="how often a verdict may err; default 0.001")
    ledger.add_argument("--seeds", type=count, default=0, metavar="N", help="also train whole runs over N seeds")
    ledger.add_argument(
        "--to-target", metavar="METRIC=VALUE", help="time until then in whole runs, such as validation_accuracy=0.97"
    )
    ledger.add_argument("--unequal", action="store_true", help="compare other work too, and say so")
    ledger.add_argument("--run-dir", type=Path, metavar="DIR", help="its folder; default runs/<time>-ledger")
    ledger.add_argument("--new", action="store_true", help="do not go on with an unfinished one")

    tune = verb("tune", "the fastest settings that fit and keep the metric", composing, epilog=TUNE_EPILOG)
    tune.add_argument("--budget", type=positive, default=15.0, metavar="MINUTES", help="of all of it; default 15")
    tune.add_argument("--seeds", type=count, default=3, metavar="N", help="whole runs that confirm; default 3")
    tune.add_argument(
        "--max-slowdown", type=share, default=0.25, metavar="SHARE", help="for objective=memory; default 25%%"
    )
    tune.add_argument("--run-dir", type=Path, metavar="DIR", help="its folder; default runs/<time>-tune")
    tune.add_argument("--new", action="store_true", help="do not go on with an unfinished one")

    report = verb("report", "one self-contained HTML page about runs, a ledger, a sweep, a tune", common)
    report.add_argument("runs", nargs="+", type=Path, metavar="X", help="run folders, or the folder of one study")
    report.add_argument("--markdown", action="store_true", help="print Markdown instead, for a pull request")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first folder")

    bench = verb(
        "bench", "is a run slower than it was? A gate for CI: exit 1 only beyond noise", composing, epilog=BENCH_EPILOG
    )
    bench.add_argument("--save", type=Path, metavar="FILE", help="measure, and write a baseline")
    bench.add_argument("--against", type=Path, metavar="FILE", help="measure, and compare with a baseline")
    bench.add_argument("--max-slowdown", type=share, default=0.05, metavar="SHARE", help="allowed; default 5%%")
    bench.add_argument("--budget", type=positive, default=10.0, metavar="MINUTES", help="of rounds; default 10")
    bench.add_argument("--error", type=share, default=0.001, help="how often a verdict may err; default 0.001")
    bench.add_argument("--unequal", action="store_true", help="compare another machine or other work too, and say so")
    bench.add_argument("--run-dir", type=Path, metavar="DIR", help="its folder; default runs/<time>-bench")
    bench.add_argument("--new", action="store_true", help="do not go on with an unfinished one")

    runs = verb("runs", "list or clean the run folders below a folder", common)
    runs.add_argument("action", nargs="?", default="list", choices=["list", "clean"], help="default list")
    runs.add_argument("--folder", type=Path, default=Path("runs"), metavar="DIR", help="default runs")
    runs.add_argument("--yes", action="store_true", help="clean: delete; without it, only say what would go")

    completion = verb("completion", "print the shell's completion script", common)
    completion.add_argument("shell", choices=["bash", "zsh", "fish"], help="source <(accel completion bash)")
    return top


def _parse(words: list[str]) -> argparse.Namespace:
    """Flags and overrides in any order, which argparse allows for a verb's own parser only."""
    top = parser()
    verbs = next(action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction))
    own = verbs.get(words[0]) if words else None
    if own is None:
        return top.parse_args(words)
    return own.parse_intermixed_args(words[1:], argparse.Namespace(verb=words[0]))


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code of the contract."""
    words = sys.argv[1:] if argv is None else argv
    if words[:2] == ["completion", "words"]:  # asked by the shell at every press of the key
        from accel_cli.cli import completion_words

        return completion_words.main(words[2:])
    try:
        arguments = _parse(words)
        if arguments.verb is None:
            parser().print_help()
            return 0
        arguments.words = words
        return int(importlib.import_module(f"accel_cli.cli.{arguments.verb}").main(arguments))
    except AccelError as error:
        return _say(error, words)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except RecursionError:
        return _say(ConfigError(Problem("command", "nested too deep", "write it out plainly")), words)
    except Exception as error:
        if "--traceback" in words:
            raise
        why = f"accel itself failed: {type(error).__name__}: {error}"
        return _say(AccelError(why, "a fault of ours: please report it, with what --traceback shows"), words)


def _say(error: AccelError, words: list[str]) -> int:
    if "--traceback" in words:
        import traceback

        traceback.print_exception(error)
    if "--json" in words:
        problems = [vars(p) for p in error.problems] if isinstance(error, ConfigError) else []
        print(
            json.dumps({"exit_code": error.exit_code, "message": error.message, "try": error.fix, "problems": problems})
        )
    text = format_problems(error.problems) if isinstance(error, ConfigError) else error.message
    if error.fix:
        text += f"\n  {error.fix}"
    print(f"accel: {text}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
