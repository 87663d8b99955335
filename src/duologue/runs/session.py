"""A running run: logging, evaluation, checkpoints, callbacks and signals between the intervals of the loop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from duologue.envs.base import AbstractHostEnvs
from duologue.errors import CheckpointError, ConfigError, EnvError
from duologue.loops.evaluate import Interrupted
from duologue.loops.state import Loop, LoopState
from duologue.runs.display.loggers import Logger
from duologue.runs.display.screen import Screen, make_screen
from duologue.runs.environments import EnvSource, env_notes, evaluation_env
from duologue.runs.evaluator import EvaluationOptions, Evaluator, open_evaluator
from duologue.runs.plan import Plan
from duologue.runs.recovery import add_place, is_valid, restarts_since, resume_command
from duologue.runs.rows import (
    Row,
    RowRemarks,
    RowWriter,
    check_finite,
    evaluation_row,
    last_evaluation,
    lost_successors_row,
    mean_over_seeds,
    training_row,
)
from duologue.runs.saved_states import SavedStates
from duologue.runs.signals import Interruption

FEWER = "To open one only, set evaluate_num_envs=1, on the command line --evaluate-num-envs 1."
NOT_TWICE = (
    "Those of training are open, too. If the simulator cannot be open twice, leave out evaluate_every, and call "
    "run.evaluate(num_envs=1) after training."
)
"""Remedies where a simulator cannot be open often enough: in every run, and in one that also trains in it."""

Callback = Callable[[int, Row], bool | None]
"""Called after every row of metrics with the step and the row; `False` stops the run and saves it."""


@dataclass(frozen=True)
class Listeners:
    """Receivers of a run's progress: callbacks, loggers, and the console."""

    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()
    console: Console | None = None

    def __post_init__(self):
        if not isinstance(self.callbacks, Sequence) or not all(map(callable, self.callbacks)):
            raise ConfigError(
                f"callbacks = {self.callbacks!r}: must be a list of functions, each with the arguments (step, metrics)."
            )
        is_logger = lambda logger: hasattr(logger, "write") and hasattr(logger, "close")  # noqa: E731
        if not isinstance(self.loggers, Sequence) or not all(map(is_logger, self.loggers)):
            raise ConfigError(f"loggers = {self.loggers!r}: must be a list of objects with write and close.")


@dataclass(frozen=True)
class Session:
    """One run from its first interval to its last. `loop` makes the intervals; everything else is the same for all
    loops."""

    path: Path
    plan: Plan
    loop: Loop
    envs: Any
    """Environments, or recorded data, as the loop takes them."""
    source: EnvSource | None = None
    """The Python object that makes the environments; `None` for the plan's id."""
    listeners: Listeners = Listeners()
    options: Mapping[str, Any] | None = None
    """Further arguments of `loop.run`."""
    evaluate_source: EnvSource | None = None
    """The same for the plan's `evaluate_env`."""

    def title(self) -> str:
        """Algorithm, environment, seeds and device, for the screen."""
        plan, seeds = self.plan, self.plan.seed_numbers
        numbers = f"seed {plan.seed}" if len(seeds) == 1 else f"seeds {seeds[0]}…{seeds[-1]}"
        return f"{plan.name} · {plan.env or plan.dataset} · {numbers} · {jax.devices()[0].device_kind}"

    def run(self, state: LoopState, *, notes: Sequence[str] = ()) -> LoopState:
        """Run from `state` to the planned steps, and save checkpoints; always save the last state.

        After an interruption it saves the state, then raises `KeyboardInterrupt`, or `SystemExit(143)` for SIGTERM.
        After an error of an environment it saves the last boundary between two rollouts, then raises the `EnvError`,
        which tells where.
        """
        plan, start = self.plan, int(np.ravel(state.step)[0]) * self.plan.unit
        rows = RowWriter(self.path, plan.seed_numbers, start, self.listeners.loggers)
        shown = make_screen(plan.steps, self.title(), folder=self.path, console=self.listeners.console)
        try:
            with Interruption() as interruption, shown, self._evaluator(interruption, shown) as evaluate:
                shown.start(start)
                for note in [*notes, *plan.algorithm.notes(plan.spec)]:
                    shown.note(note)
                shown.note("compiling the programs (takes some seconds; with a cache, only the first time)")
                state = self._run_intervals(state, start, rows, shown, interruption, evaluate)
        finally:
            rows.close()
        interruption.raise_again()
        return state

    def _run_intervals(
        self, state: LoopState, start: int, rows: RowWriter, shown: Screen, interruption: Interruption,
        evaluate: Evaluator | None,
    ) -> LoopState:  # fmt: skip
        """Log, evaluate and save after every interval; return the last state."""
        plan, saved, step = self.plan, SavedStates(self.path), start
        saving = Interval(plan.save_every, start)
        evaluating = Interval(plan.evaluate_every, last_evaluation(self.path) if evaluate else 0)
        intervals, remarks = self._intervals(state, start, interruption), RowRemarks(plan.log_info)
        try:
            for step, state, row in intervals:
                if not row:  # interrupted before the first step
                    break
                for note in self.envs.take_notes() if isinstance(self.envs, AbstractHostEnvs) else ():
                    shown.note(note)
                with saved.save_on_failure(state, step, rows):
                    if evaluate is not None and evaluating.is_due(step):
                        row |= self._evaluation(evaluate, state, step, saved, shown)
                    row |= lost_successors_row(state.replay)
                    rows.write(step, row)
                    for text in remarks.read(row):
                        shown.note(text)
                    shown.update(step, {name: mean_over_seeds(value) for name, value in row.items()})
                    stop = self._callbacks_stop(step, row)
                check_finite(row, step, plan.seed_numbers)
                if stop or interruption():
                    break
                if saving.is_due(step):
                    rows.sync()
                    saved.save(state, step)
        except EnvError as error:
            self._save_boundary(error, state, step, saved, rows)
            raise
        rows.sync()
        saved.save(state, step)
        for text in remarks.missing_info():
            shown.note(text)
        if step < plan.steps:
            shown.note(f"stopped and saved at step {step:,}; continue with: {resume_command(self.path, plan)}")
        return state

    def _save_boundary(self, error: EnvError, state: LoopState, step: int, saved: SavedStates, rows: RowWriter) -> None:
        """Save the last boundary before an error of an environment, and add its place to the error. A state that a
        compiled loop has donated is gone, and at step 0 there is nothing to save."""
        if step and is_valid(state):
            rows.sync()
            try:
                saved.save(state, step)
            except CheckpointError as problem:
                error.args = (f"{error}\n{problem}",)
            else:
                add_place(error, step, resume_command(self.path, self.plan))

    def _intervals(
        self, state: LoopState, start: int, interruption: Interruption
    ) -> Iterator[tuple[int, LoopState, dict[str, Any]]]:
        """Step, state and row of each interval of the loop; an empty row for an interval without a step."""
        plan, before, began, restarts = self.plan, start, time.perf_counter(), 0
        named = {"log_info": plan.log_info} if plan.log_info else {}
        intervals = self.loop.run(
            plan.algorithm, self.envs, state,
            steps=plan.steps, interval=plan.log_every, interrupted=interruption, **named, **(self.options or {}),
        )  # fmt: skip
        for step, state, totals in intervals:
            if step == before:
                yield step, state, {}
                return
            seconds, steps = time.perf_counter() - began, (step - before) * plan.seeds
            row = training_row(totals, steps=steps, seconds=seconds, tasks=plan.spec.tasks)
            if plan.on_env_error == "restart":
                row["rollout/restarts"] = restarts_since(self.envs, restarts)
                restarts = self.envs.restarts
            yield step, state, row
            before, began = step, time.perf_counter()

    def _evaluator(self, interrupted: Callable[[], bool], shown: Screen) -> AbstractContextManager[Evaluator | None]:
        """A context with the evaluation during training; with `None` for a run without it."""
        plan = self.plan
        if plan.evaluate_every is None:
            return nullcontext()
        known = env_notes(self.envs)  # on the screen already
        tested, source = evaluation_env(plan, self.source, self.evaluate_source)
        return open_evaluator(
            tested, source, EvaluationOptions(episodes=plan.evaluate_episodes),
            seeds=plan.seed_numbers, purpose="evaluate while training", interrupted=interrupted,
            note=lambda text: text in known or shown.note(text),
            fewer=FEWER if plan.offline else f"{FEWER} {NOT_TWICE}",
        )  # fmt: skip

    def _evaluation(
        self, evaluate: Evaluator, state: LoopState, step: int, saved: SavedStates, shown: Screen
    ) -> dict[str, Any]:
        """Evaluate, and save the best state so far. Returns the metrics; none after an interruption."""
        with suppress(Interrupted):
            score = evaluate(state.algorithm)
            if score.mean > saved.best_score:
                saved.save_best(state, step, score.mean)
                shown.note(f"step {step:,}: saved the best evaluation so far, mean return {score.mean:,.1f}")
            if score.cut_note:
                shown.note(f"step {step:,}: {score.cut_note} in the evaluation")
            return evaluation_row(score)
        return {}

    def _callbacks_stop(self, step: int, row: Row) -> bool:
        """Call every callback, and return whether one of them returned `False`, Python's or NumPy's."""
        results = [callback(step, row) for callback in self.listeners.callbacks]
        return any(result is not None and not result for result in results)


class Interval:
    """Tells when steps pass a multiple of `interval`; never for `None`."""

    def __init__(self, interval: int | None, start: int):
        self.interval, self.last = interval, start

    def is_due(self, step: int) -> bool:
        """Whether a multiple lies between the step of the last call and this one."""
        passed = self.interval is not None and step // self.interval > self.last // self.interval
        self.last = step
        return passed
