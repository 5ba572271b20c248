"""The samplers that are compared, all behind one function: problem, count and seed in, metrics out.

Every peer runs as its own documentation shows. scikit-optimize knows one objective, so it gets the
last metric (F1 on the table). Optuna's NSGA-II draws its first population at random, 50 trials by
default; of 25 trials that would be random search, so its population is 8.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.advisor.problems import Metrics, Problem
from bertkit.advisor.parameters import Choices, Parameter, Range
from bertkit.advisor.proposing import ParEgo, RandomSampler, Sampler
from bertkit.advisor.surrogate import Encoding
from bertkit.advisor.trial import State, Trial
from bertkit.config import Scalar

Search = Callable[[Problem, int, int], list[Metrics]]
"""Takes a problem, the number of trials and a seed; gives the trials' metrics in order."""

NSGA_POPULATION = 8


def bertkit_search(sampler: Sampler) -> Search:
    """A sampler of bertkit's."""

    def search(problem: Problem, count: int, seed: int) -> list[Metrics]:
        trials: list[Trial] = []
        for number in range(1, count + 1):
            proposal = sampler.propose(problem.space, problem.goals, trials, seed)
            trials.append(
                Trial(
                    number=number,
                    parameters=proposal.parameters,
                    state=State.FINISHED,
                    origin=proposal.origin,
                    metrics=problem.evaluate(proposal.parameters),
                )
            )
        return [trial.metrics for trial in trials]

    return search


def skopt_search(problem: Problem, count: int, seed: int) -> list[Metrics]:
    """scikit-optimize's own ``Optimizer`` with its defaults, on the last metric alone."""
    from skopt import Optimizer

    encoding, metric = Encoding(problem.space), problem.goals.metrics[-1]
    optimizer = Optimizer(encoding.dimensions, random_state=seed)
    found: list[Metrics] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of points it proposes again
        for _ in range(count):
            point = optimizer.ask()
            found.append(problem.evaluate(encoding.assignment(point)))
            optimizer.tell(point, metric.sign * found[-1][metric.name])
    return found


def optuna_search(make: Callable[[Any, int], Any]) -> Search:
    """A sampler of Optuna's, made from its ``samplers`` and a seed."""

    def search(problem: Problem, count: int, seed: int) -> list[Metrics]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions = [metric.objective for metric in problem.goals.metrics]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = make(optuna.samplers, seed)
            study = optuna.create_study(directions=directions, sampler=sampler)
        found: list[Metrics] = []
        for _ in range(count):
            trial = study.ask()
            assignment = {p.name: _suggest(trial, p) for p in problem.space.parameters}
            found.append(problem.evaluate(assignment))
            study.tell(trial, [found[-1][name] for name in problem.goals.names])
        return found

    return search


def _suggest(trial: Any, parameter: Parameter) -> Scalar:
    """Ordered values go by their position, as bertkit's own model sees them."""
    if isinstance(parameter, Choices) and parameter.ordered:
        place: int = trial.suggest_int(parameter.name, 0, len(parameter.choices) - 1)
        return parameter.choices[place]
    if isinstance(parameter, Range) and not parameter.whole:
        value: float = trial.suggest_float(
            parameter.name, parameter.low, parameter.high, log=parameter.log
        )
        return value
    chosen: Scalar = trial.suggest_categorical(parameter.name, parameter.values)
    return chosen


SAMPLERS: Mapping[str, Search] = {
    "bertkit": bertkit_search(ParEgo()),
    "random": bertkit_search(RandomSampler()),
    "skopt_on_last_metric": skopt_search,
    "optuna_tpe": optuna_search(lambda samplers, seed: samplers.TPESampler(seed=seed)),
    "optuna_nsga2": optuna_search(
        lambda samplers, seed: samplers.NSGAIISampler(seed=seed, population_size=NSGA_POPULATION)
    ),
}
