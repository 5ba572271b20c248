"""The command line: ``bertkit demo | train | resume | evaluate | predict | advise | hosts | …``.

A user's mistake is one sentence on standard error and exit code 2; a run that failed exits with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bertkit import __version__
from bertkit.config import Config, Setting, read_mapping, settings
from bertkit.errors import (
    AdvisorError,
    BertkitError,
    ConfigError,
    DataError,
    FieldProblem,
    ModelError,
    RunError,
)
from bertkit.events import Progress
from bertkit.presets import PRESETS, preset
from bertkit.run import Result, Run

if TYPE_CHECKING:
    from bertkit.cluster import Cluster
    from bertkit.training.prediction import Predictor

USER_MISTAKES = (AdvisorError, ConfigError, DataError, ModelError, RunError)
CURVES_FILE = "curves.png"
INTERRUPTED = "interrupted; 'bertkit resume FOLDER' goes on from the newest checkpoint"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after ``bertkit``; by default those of this process.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 a mistake of the user's, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    return run_command(options.command, options)


def run_command(
    command: Callable[[argparse.Namespace], int | None], options: argparse.Namespace
) -> int:
    """Run a command, and say what went wrong in one line.

    Args:
        command: What to call with the options.
        options: Its options.

    Returns:
        The exit code, as of `main`.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # leave as after Ctrl-C: nothing behind
    try:
        return command(options) or 0
    except USER_MISTAKES as error:
        return _say(error, 2)
    except BertkitError as error:
        return _say(error, 1)
    except KeyboardInterrupt as interrupted:
        return _say(str(interrupted) or INTERRUPTED, 130)


def _say(message: object, code: int) -> int:
    print(f"bertkit: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# Commands ----------------------------------------------------------------------------------------


def demo(options: argparse.Namespace) -> None:
    """Fine-tune the packaged model on the bundled sample."""
    _train(_config(options, preset("demo")), options)


def train(options: argparse.Namespace) -> None:
    """Fine-tune a model on a folder of questions."""
    _train(config_of_train(options), options)


def config_of_train(options: argparse.Namespace) -> Config:
    """What the options of ``train`` come to."""
    return _config(options, preset(options.preset) if options.preset else Config())


def resume(options: argparse.Namespace) -> None:
    """Go on with a run from its newest checkpoint."""
    run = Run(options.folder)
    _check_inputs(run.config)
    with _cluster(options) as cluster:
        show(cluster.resume(run.folder), tensorboard=run.config.tensorboard)


def evaluate(options: argparse.Namespace) -> None:
    """Score a model on a file of questions."""
    from bertkit.reports.console import ConsoleProgress
    from bertkit.squad.reading import read_squad

    dataset = read_squad(options.data)
    with ConsoleProgress() as show:
        scores, _ = _predictor(options, show).evaluate(dataset, _progress(show, "Scoring"))
    values = {"f1": scores.f1, "exact_match": scores.exact_match, "total": scores.total}
    if options.json:
        _write(options.json, values)
    found = f"F1 {scores.f1:.2f} %, exact match {scores.exact_match:.2f} %"
    print(f"{found} on {scores.total:,} questions")


def predict(options: argparse.Namespace) -> None:
    """Answer one question about a paragraph, or every question of a file."""
    if options.data:
        _predict_file(options)
    elif options.context and options.question:
        _predict_one(options)
    else:
        raise ConfigError(
            [FieldProblem("predict", "needs --data FILE, or --context TEXT and --question TEXT")]
        )


def advise(options: argparse.Namespace) -> None:
    """Search for hyperparameters of a faster, good-enough model, as a file of settings says."""
    from bertkit.advisor.conf import read_conf
    from bertkit.advisor.console import launch

    sda = read_conf(options.conf, resume=options.resume)
    if sda.config is not None:
        _check_inputs(sda.config)
    launch(sda, options.conf)


def sample(options: argparse.Namespace) -> None:
    """Write the bundled sample's questions as files in the official format."""
    from bertkit.squad.sample import write_sample

    write_sample(Path(options.out), seed=options.seed)
    print(f"wrote train-v1.1.json and dev-v1.1.json to {options.out}")


def hosts(options: argparse.Namespace) -> int:
    """Check hosts: whether engines can run there, and what to do where they cannot."""
    from bertkit.cluster import check_hosts
    from bertkit.cluster.host_table import host_table, to_json

    reports = check_hosts(
        options.hosts,
        data=options.data,
        output=options.output,
        interface=options.interface,
        python=options.python,
        ssh_options=options.ssh_options,
    )
    if options.json:
        _write(options.json, to_json(reports))
    print(host_table(reports))
    return 0 if all(report.ready for report in reports) else 2


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine can do, and try each transport that Horovod was built with."""
    from bertkit.cluster.doctor import diagnose
    from bertkit.reports.console import ConsoleProgress

    with ConsoleProgress() as show:
        found = diagnose(show)
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)
    return 0 if found.healthy else 1


def _predict_file(options: argparse.Namespace) -> None:
    from bertkit.reports.console import ConsoleProgress
    from bertkit.squad.reading import read_squad

    dataset = read_squad(options.data)
    with ConsoleProgress() as show:
        found = _predictor(options, show).predict(dataset, _progress(show, "Answering"))
    texts = {name: answer.text for name, answer in found.items()}
    if options.json:
        _write(options.json, texts)
    else:
        print(json.dumps(texts, indent=2, ensure_ascii=False))


def _predict_one(options: argparse.Namespace) -> None:
    from bertkit.reports.console import ConsoleProgress

    with ConsoleProgress() as show:
        answers = _predictor(options, show).ask(options.context, options.question)
    for answer in answers:
        print(f"{answer.score:6.1%}  {answer.text or '(no answer)'}")


def _predictor(options: argparse.Namespace, show: Callable[[Progress], None]) -> Predictor:
    _load_tensorflow(show)
    from bertkit.training.prediction import Predictor

    return Predictor(options.model, _config(options))


def _load_tensorflow(show: Callable[[Progress], None]) -> None:
    from bertkit.loading_tensorflow import load_tensorflow

    show(Progress(stage="Loading TensorFlow"))
    load_tensorflow(only_bertkit=True)


def _progress(show: Callable[[Progress], None], stage: str) -> Callable[[int, int], None]:
    return lambda done, total: show(Progress(stage=stage, done=done, total=total))


def _train(config: Config, options: argparse.Namespace) -> None:
    _check_inputs(config)
    with _cluster(options) as cluster:
        show(cluster.train(config), tensorboard=config.tensorboard)


def _cluster(options: argparse.Namespace) -> Cluster:
    """The engines that the options ask for, not started yet."""
    from bertkit.cluster import Cluster

    if options.hosts is None:
        return Cluster(n=options.engines, interface=options.interface)
    return Cluster(
        hosts=options.hosts,
        interface=options.interface,
        python=options.python,
        ssh_options=options.ssh_options,
    )


def _check_inputs(config: Config) -> None:
    """Find a user's mistake before any engine is started for it."""
    from bertkit.reports.console import ConsoleProgress

    with ConsoleProgress() as show:
        _load_tensorflow(show)
        from bertkit.training.inputs import read_inputs

        read_inputs(config, lambda event: show(event) if isinstance(event, Progress) else None)


def show(run: Run, *, tensorboard: bool) -> None:
    """Show a run until it is over, then its result and its curves."""
    from bertkit.reports.console import describe_result
    from bertkit.reports.curves import plot_curves

    print(f"Run folder   {run.folder}", file=sys.stderr)
    result = _wait(run)
    plot_curves(run).savefig(run.folder / CURVES_FILE)
    if tensorboard:
        from bertkit.reports.tensorboard import write_tensorboard

        write_tensorboard(run)
    print(describe_result(result))
    print(f"{'Curves':<12} {run.folder / CURVES_FILE}")


def _wait(run: Run) -> Result:
    """Wait for a run; the first Ctrl-C asks it to stop and score its best model."""
    from bertkit.reports.console import ConsoleProgress

    with ConsoleProgress() as show:
        try:
            return run.wait(on_event=show)
        except KeyboardInterrupt:
            print("Stopping after this step; Ctrl-C again leaves at once", file=sys.stderr)
    with ConsoleProgress() as show:
        return run.wait(on_event=show)


def _config(options: argparse.Namespace, base: Config | None = None) -> Config:
    """Defaults, then the preset, then the file, then what stands on the command line."""
    values = (base or Config()).to_dict()
    if getattr(options, "config", None):
        values.update(read_mapping(options.config))
    for one in settings():
        text = getattr(options, one.name, None)
        # evaluate's and predict's own --model and --data are no fields of a run
        if text is not None and one.name not in getattr(options, "own_names", ()):
            values[one.name] = one.parse(text)
    return Config.from_dict(values)


def _write(path: str, values: object) -> None:
    try:
        Path(path).write_text(
            json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            [FieldProblem("json", f"cannot write {path}: {error.strerror}")]
        ) from None


# Words -------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line; the usage is one ``--help`` away."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"bertkit: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bertkit", description="Fine-tune BERT on SQuAD with Horovod.")
    parser.add_argument("--version", action="version", version=f"bertkit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_train(commands)
    _add_resume(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_advise(commands)
    _add_sample(commands)
    _add_hosts(commands)
    _add_doctor(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[_Parser], command: Callable[..., int | None]
) -> _Parser:
    text = command.__doc__ or ""
    added = commands.add_parser(command.__name__, help=text, description=text)
    added.set_defaults(command=command)
    return added


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, demo)
    _add_engines(words)
    _add_settings(words)


def _add_train(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, train)
    _add_engines(words)
    add_run_settings(words)


def add_run_settings(words: argparse.ArgumentParser) -> None:
    """Add the options that make a run's configuration."""
    words.add_argument("--config", metavar="FILE", help="YAML or JSON file of fields")
    words.add_argument("--preset", choices=list(PRESETS), help="fields to begin from")
    _add_settings(words)


def one_command_parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser for a program of one command, which says mistakes as this one does."""
    return _Parser(prog=program, description=description)


def _add_resume(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, resume)
    words.add_argument("folder", help="the run's folder")
    _add_engines(words)


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, evaluate)
    words.add_argument("--model", required=True, metavar="FOLDER", help="a run's model folder")
    words.add_argument("--data", required=True, metavar="FILE", help="questions with answers")
    words.add_argument("--json", metavar="OUT", help="also write f1, exact_match and total here")
    _add_settings(words, without=("model", "data"), group="data")


def _add_predict(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, predict)
    words.add_argument("--model", required=True, metavar="FOLDER", help="a run's model folder")
    words.add_argument("--data", metavar="FILE", help="questions to answer")
    words.add_argument("--context", metavar="TEXT", help="the paragraph of one question")
    words.add_argument("--question", metavar="TEXT", help="the question")
    words.add_argument("--json", metavar="OUT", help="write the answers here")
    _add_settings(words, without=("model", "data"), group="data")


def _add_advise(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, advise)
    words.add_argument(
        "--conf", required=True, metavar="FILE", help="YAML or JSON file of the published settings"
    )
    words.add_argument(
        "--resume", type=_whole, metavar="ID",
        help="go on with this experiment; its line says the id",
    )  # fmt: skip


def _add_sample(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, sample)
    words.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    words.add_argument("--seed", type=int, default=0, help="another seed, other questions")


def _add_hosts(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, hosts)
    words.add_argument(
        "hosts", type=_hosts, metavar="HOSTS", help="hosts and their engines: node1:2,node2:2"
    )
    words.add_argument("--data", metavar="PATH", help="file or folder that must be readable there")
    words.add_argument(
        "--output", metavar="DIR", help="folder of the runs, which all hosts have to share"
    )
    words.add_argument("--json", metavar="OUT", help="also write the findings here")
    _add_reaching(words)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = _add(commands, doctor)
    words.add_argument("--json", action="store_true", help="as JSON")


def _add_reaching(words: _Parser) -> None:
    words.add_argument(
        "--interface", metavar="NAME", help="network interface that reaches the hosts, as eth0"
    )
    words.add_argument(
        "--python", metavar="PATH", help="Python on the hosts (default: the path it has here)"
    )
    words.add_argument(
        "--ssh_options", "--ssh-options", type=shlex.split, default=[], metavar="WORDS",
        help="more options of ssh in one word, such as '-p 2222 -i key'",
    )  # fmt: skip


def _add_engines(words: _Parser) -> None:
    cores = len(os.sched_getaffinity(0))
    words.add_argument(
        "--engines", type=_whole, default=min(cores, 4), metavar="N",
        help="engines to start on this machine, each with its share of the cores "
        f"(default here {min(cores, 4)})",
    )  # fmt: skip
    words.add_argument(
        "--hosts", type=_hosts, metavar="HOSTS",
        help="start engines over ssh on these hosts instead: node1:2,node2:2",
    )  # fmt: skip
    _add_reaching(words)


def _hosts(text: str) -> str:
    from bertkit.cluster.hosts import read_hosts

    try:
        read_hosts(text)
    except BertkitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a whole number of at least 1")
    return int(text)


def _add_settings(
    words: argparse.ArgumentParser, without: Sequence[str] = (), group: str | None = None
) -> None:
    words.set_defaults(own_names=without)
    for one in settings():
        if one.name in without or (group and one.group not in (group, "run")):
            continue
        flags = dict.fromkeys([f"--{one.name}", f"--{one.name.replace('_', '-')}"])
        words.add_argument(*flags, dest=one.name, metavar="VALUE", help=_help(one))


def _help(one: Setting) -> str:
    default = "empty" if one.default is None else one.default
    text = f"{one.help} Expected {one.expectation()}; default {default}."
    return text.replace("%", "%%")
