"""A run while it runs: the plain Python between chunks. Logging, evaluation, checkpoints, callbacks and signals live
here."""

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from rich.console import Console

from duologue.data import ring as rings
from duologue.data.dataset import DataSet, full_ring
from duologue.errors import CheckpointError, ConfigError, divergence_error
from duologue.loops import compiled, host, offline
from duologue.loops.evaluate import Interrupted
from duologue.loops.offline import Recorded, Updates
from duologue.loops.replay_ring import memory
from duologue.loops.state import LoopState, Totals
from duologue.ops.metrics import EVALUATION
from duologue.runs.display.loggers import JsonLines, Logger, TensorBoard
from duologue.runs.display.screen import Screen, screen
from duologue.runs.evaluation import Evaluate, Evaluation, evaluator
from duologue.runs.horizon import idle_on_data
from duologue.runs.plan import Envs, EnvSource, Plan, in_words, is_compiled
from duologue.runs.signals import Interruption
from duologue.storage import checkpoint, files
from duologue.storage.jsonl import read_rows

Callback = Callable[[int, Mapping[str, np.ndarray | np.float64]], bool | None]
"""Called after every row of metrics with the step and the row, `[S]` each for several seeds; `False` stops the run,
saved."""


@dataclass(frozen=True)
class Session:
    """What stays the same from the first chunk to the last."""

    path: Path
    plan: Plan
    envs: Envs | Recorded
    source: EnvSource | None = None
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()
    console: Console | None = None
    recorded: DataSet | None = None
    """Recorded data mixed into each batch while learning in environments."""

    def __post_init__(self):
        check_listeners(self.callbacks, self.loggers)

    @property
    def seeds(self) -> list[int]:
        return list(range(self.plan.seed, self.plan.seed + self.plan.seeds))

    @property
    def loop(self) -> ModuleType:
        """The module whose `start`, `restore` and `run` fit the environments, or the data."""
        if isinstance(self.envs, Recorded):
            return offline
        return compiled if is_compiled(self.envs) else host

    def title(self) -> str:
        seeds = f"seed {self.plan.seed}" if self.plan.seeds == 1 else f"seeds {self.seeds[0]}…{self.seeds[-1]}"
        return f"{self.plan.name} · {self.plan.env or self.plan.dataset} · {seeds} · {jax.devices()[0].device_kind}"

    def drive(self, state: LoopState, *, notes: Sequence[str] = ()) -> LoopState:
        """Go on from `state` to the planned steps, saving on the way; the last state is always saved.

        After an interruption the state is saved and `KeyboardInterrupt` (or `SystemExit(143)` for SIGTERM) raised.
        """
        start = int(np.ravel(state.step)[0]) * self.plan.unit
        rows = JsonLines(self.path / "metrics.jsonl")
        sinks = [rows, TensorBoard(self.path / "tb", self.seeds, start=start), *self.loggers]
        shown = screen(self.plan.steps, self.title(), folder=self.path, console=self.console)
        try:
            with Interruption() as interruption, shown, self._evaluator(interruption) as evaluate:
                shown.start(start)
                for note in notes:
                    shown.note(note)
                state = self._chunks(state, start, rows, sinks, shown, interruption, evaluate)
        finally:
            for sink in sinks:
                sink.close()
        interruption.raise_again()
        return state

    def _chunks(
        self, state: LoopState, start: int, rows: JsonLines, sinks: Sequence[Logger], shown: Screen,
        interruption: Interruption, evaluate: Evaluate | None,
    ) -> LoopState:  # fmt: skip
        plan = self.plan
        saved, evaluated = Every(plan.save_every, start), Every(plan.evaluate_every, self._evaluated())
        best = self._best()
        step, stop, began = start, False, time.perf_counter()
        for note in [*self._memory(), *self._repaired(), *self._idle(), *plan.algorithm.notes(plan.spec)]:
            shown.note(note)
        shown.note("compiling the programs (a few seconds, kept for next time where a cache is set)")
        share = plan.offline_fraction  # of 0, no row is taken to the device
        beside = {"recorded": full_ring(self.recorded), "share": share} if self.recorded is not None and share else {}
        chunks = self.loop.run(
            plan.algorithm, self.envs, state,
            steps=plan.steps, interval=plan.log_every, interrupted=interruption, **beside,
        )  # fmt: skip
        for now, state, totals in chunks:
            if now == step:  # interrupted before anything was done: there is no row to write
                break
            seconds = time.perf_counter() - began
            metrics = row(totals, steps=(now - step) * plan.seeds, seconds=seconds, tasks=plan.spec.tasks)
            step = now
            with self._kept(state, step, rows):
                if evaluate is not None and evaluated.due(step):
                    with suppress(Interrupted):
                        score = evaluate(state.algorithm)
                        metrics |= evaluation_row(score)
                        if score.mean > best:
                            best = score.mean
                            self._save(state, step, score=best, directory="best")
                            shown.note(f"step {step:,}: best evaluation so far, {best:,.1f}, saved")
                self._write(sinks, step, metrics)
                shown.update(step, {name: over_seeds(value) for name, value in metrics.items()})
                answers = [callback(step, metrics) for callback in self.callbacks]
                stop = any(answer is not None and not answer for answer in answers)  # np.False_ is not False
            self._check(metrics, step)
            if stop or interruption():
                break
            if saved.due(step):
                rows.sync()
                self._save(state, step)
            began = time.perf_counter()
        rows.sync()
        self._save(state, step)
        if step < plan.steps:
            shown.note(f"stopped at step {step:,}, saved; next: duologue resume {shlex.quote(str(self.path))}")
        return state

    def _memory(self) -> list[str]:
        """What the replay takes, or the data that are learned from."""
        if not isinstance(self.envs, Recorded):
            kept = memory(self.plan.algorithm, self.plan.spec, self.plan.num_envs, self.plan.seeds)
            return [f"replay: up to {in_words(kept)} of memory"] if kept else []
        data, window = self.envs.data, self.envs.window
        said = f"data: {len(data):,} rows of {data.source}, {in_words(data.nbytes)}"
        if window is None:
            return [said]
        return [
            f"{said}; {window:,} of them on the device at a time, others after every {self.envs.calls:,} updates: an "
            "approximation of sampling from all"
        ]

    def _repaired(self) -> list[str]:
        """What reading the data assumed, dropped or changed."""
        data = self.envs.data if isinstance(self.envs, Recorded) else self.recorded
        return [] if data is None else [f"data: {note}" for note in data.notes]

    def _idle(self) -> list[str]:
        """Fields that somebody set, and that do nothing here."""
        fields = idle_on_data(self.plan.algorithm) if self.plan.offline else []
        return [f"no say on data, only in environments: {', '.join(fields)}"] if fields else []

    def load(self, path: Path) -> LoopState:
        """The state saved at `path`. What rebuilds Gymnasium environments has no fixed shape: any is taken."""
        like = self.loop.shapes(self.plan.algorithm, self.envs, self.seeds)
        if like.replay is None:
            return checkpoint.load_tree(path, like)
        state = checkpoint.load_tree(path, replace(like, replay=rings.open_template(like.replay)))
        try:
            return replace(state, replay=rings.unpack(state.replay, like.replay))
        except ValueError as error:
            raise CheckpointError(f"{path} holds a replay of another kind than this run's: {error}.") from error

    def _evaluator(self, interrupted: Callable[[], bool]) -> AbstractContextManager[Evaluate | None]:
        """Periodic evaluation; `None`, and nothing made, for a run without it."""
        if self.plan.evaluate_every is None:
            return nullcontext()
        purpose, episodes = "evaluate while training", self.plan.evaluate_episodes
        return evaluator(
            self.plan, self.source, seeds=self.seeds, episodes=episodes, purpose=purpose, interrupted=interrupted
        )

    @contextmanager
    def _kept(self, state: LoopState, step: int, rows: JsonLines) -> Iterator[None]:
        """Whatever fails inside, an evaluation, a logger or a callback: what was learned is saved."""
        try:
            yield
        except BaseException:
            try:
                rows.sync()
            finally:
                self._save(state, step)
            raise

    def _evaluated(self) -> int:
        """The step of the last evaluation: one that was interrupted is made up for."""
        path = self.path / "metrics.jsonl"
        known = read_rows(path) if self.plan.evaluate_every is not None and path.exists() else []
        return max((row["step"] for row in known if EVALUATION in row), default=0)

    def _best(self) -> float:
        """The best score so far, −∞ before the first."""
        try:
            return checkpoint.read_manifest(checkpoint.find_latest(self.path / "checkpoints" / "best")[0]).info["score"]
        except CheckpointError:
            return -np.inf

    def _save(self, state: LoopState, step: int, *, directory: str = "latest", score: float | None = None) -> None:
        where = self.path / "checkpoints" / directory
        if directory == "best":  # of which only the policy is ever read
            state = replace(state, replay=None)
            if (
                worse := checkpoint.checkpoint_path(where, step)
            ).exists():  # of this step, before a resume that was not exact
                files.discard(worse)
        kept = state if state.replay is None else replace(state, replay=rings.pack(state.replay))
        path = checkpoint.save_tree(where, step, kept, info={"score": score}, check=state.algorithm)
        checkpoint.prune(where, keep=2)
        if directory == "best":  # an earlier step may be the better one, after a resume
            for other in where.glob("step-*"):
                if other != path:
                    files.discard(other)

    def _write(self, sinks: Sequence[Logger], step: int, metrics: Mapping[str, np.ndarray | np.float64]) -> None:
        for index, seed in enumerate(self.seeds):
            one = {name: float(np.ravel(value)[index] if np.ndim(value) else value) for name, value in metrics.items()}
            for sink in sinks:
                sink.write(step, seed, one)

    def _check(self, metrics: Mapping[str, np.ndarray | np.float64], step: int) -> None:
        """Raise where learning has diverged: nothing good can follow, and a good checkpoint is on disk."""
        for name, value in metrics.items():
            if name.startswith("train/") and not np.isfinite(value).all():
                first = self.seeds[int(np.argmin(np.isfinite(value)))]
                seeds = "" if self.plan.seeds == 1 else f" for seed {first}"
                raise divergence_error(f"{name} is not finite at step {step:,}{seeds}")


def check_listeners(callbacks: Any, loggers: Any) -> None:
    """Raise `ConfigError` for what would fail at the first row."""
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ConfigError(f"callbacks = {callbacks!r}: must be a list of functions (step, metrics).")
    if not isinstance(loggers, Sequence) or not all(hasattr(x, "write") and hasattr(x, "close") for x in loggers):
        raise ConfigError(f"loggers = {loggers!r}: must be a list of objects with write and close.")


class Every:
    """Whether a multiple of `interval` has been passed since the last time it was asked; never, for `None`."""

    def __init__(self, interval: int | None, start: int):
        self.interval, self.last = interval, start

    def due(self, step: int) -> bool:
        passed = self.interval is not None and step // self.interval > self.last // self.interval
        self.last = step
        return passed


def over_seeds(value: np.ndarray | np.float64) -> float:
    """The mean of those seeds that have a number; NaN if none has."""
    known = np.ravel(value)[~np.isnan(np.ravel(value))]
    return float(known.mean()) if known.size else float("nan")


def row(
    totals: Totals | Updates, *, steps: int, seconds: float, tasks: tuple[str, ...] = ()
) -> dict[str, np.ndarray | np.float64]:
    """One row of metrics under the names users know; `[S]` each for several seeds."""
    return {**totals.summary(tasks), "time/fps": np.asarray(steps / max(seconds, 1e-9))}


def evaluation_row(score: Evaluation) -> dict[str, np.ndarray | np.float64]:
    """What an evaluation adds to a row."""
    returns, lengths = np.asarray(score.returns, np.float64), np.asarray(score.lengths, np.float64)
    return {
        EVALUATION: returns.mean(-1),
        "eval/std_reward": returns.std(-1),
        "eval/mean_ep_length": lengths.mean(-1),
    }
