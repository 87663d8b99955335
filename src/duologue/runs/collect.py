"""Record a policy in an environment, as a file of columns that data sets can read."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from duologue.data.dataset import adapt_to_env
from duologue.data.writing import (
    check_data_path,
    columns_of,
    file_metadata,
    flatten_columns,
    prepend_columns,
    write_columns,
)
from duologue.envs.make import AbstractHostEnvs, AbstractJaxEnvs, make
from duologue.envs.masks import check_masks
from duologue.errors import ConfigError
from duologue.fields import Count, NonNegative, Seed, check
from duologue.loops.keys import key_for, run_key
from duologue.ops.metrics import RETURN
from duologue.runs.checks import check_mask
from duologue.runs.data_sources import DataSource, read_data
from duologue.runs.display.screen import Screen, make_screen
from duologue.runs.environments import Envs, EnvSource, close_envs, describe_source, env_notes
from duologue.runs.signals import Interruption
from duologue.types import ACTION_MASK, Box, Discrete, Obs, Space, Step, box_sides, clip_to_bounds, has_mask

Act = Callable[[Obs, int, bool], np.ndarray]
"""`(obs, step, began) -> actions`, both `[1, …]`; `began` says whether an episode begins with this step. Discrete
actions count from 0, as in adapters."""


class SingleEnv:
    """One environment, stepped from Python. A jitted call steps an environment written in JAX."""

    def __init__(self, envs: Envs, seed: int):
        self.envs, self.key, self.t = envs, key_for(run_key(seed), "collect"), 0
        if isinstance(envs, AbstractJaxEnvs):
            self.program = jax.jit(lambda state, action, key: envs.step(state, action, key=key))

    def reset(self) -> Obs:
        if isinstance(self.envs, AbstractHostEnvs):
            return self.envs.reset()
        self.state, obs = jax.device_get(self.envs.reset(self.key))
        return obs

    def step(self, action: np.ndarray) -> Step:
        if isinstance(self.envs, AbstractHostEnvs):
            return self.envs.step(action)
        self.t += 1
        self.state, seen = self.program(self.state, action, jax.random.fold_in(self.key, self.t))
        return jax.device_get(seen)


class TransitionBuffer:
    """Arrays for `steps` transitions, filled one after the other."""

    def __init__(self, steps: int):
        self.steps, self.count = steps, 0
        self._columns: Any = None

    def add(self, row: tuple[Any, ...]) -> None:
        """Append one row of arrays `[1, …]`. The first row decides shapes and dtypes."""
        if self._columns is None:
            self._columns = jax.tree.map(lambda x: np.empty((self.steps, *x.shape[1:]), x.dtype), row)
        jax.tree.map(lambda column, x: np.copyto(column[self.count : self.count + 1], x), self._columns, row)
        self.count += 1

    def columns(self) -> tuple[Any, ...]:
        """The columns filled so far, `[count, …]`."""
        return jax.tree.map(lambda column: column[: self.count], self._columns)


def record_policy(
    make_envs: Callable[[], Envs], act: Act | None, steps: int, out: str | Path,
    *, source: EnvSource, noise: float, seed: int, policy: str, after: DataSource | None, console: Console | None,
) -> Path:  # fmt: skip
    """Record `steps` transitions of `act` to `out`, after the rows of the data `after`. `act = None`: the uniformly
    random policy. `make_envs` makes the environment from `source`.

    If the environment raises or a signal arrives, the rows so far are written, and the error is raised again.
    Raises `ConfigError`, if possible before anything is made, and `EnvError`.
    """
    check(Count, steps=steps)
    check(Seed, seed=seed)
    check(NonNegative, noise=noise)
    path, earlier, env = check_data_path(out), None if after is None else read_data(after), describe_source(source)
    envs = make_envs()
    try:
        check_mask(envs.spec)
        about = file_metadata(env, envs.spec.action, policy=policy, noise=str(noise), seed=str(seed))
        first: dict[str, np.ndarray] = {}
        if earlier is not None:
            first, about = columns_of(adapt_to_env(earlier, envs.spec)), about | {"after": earlier.source}
        act = uniform_policy(envs.spec.action, seed) if act is None else act
        rows = TransitionBuffer(steps)
        shown = make_screen(steps, f"recording · {policy} · {env} · seed {seed}", console=console)
        with Interruption() as interruption, shown:
            for note in env_notes(envs):
                shown.note(note)
            try:
                fill_buffer(rows, transitions(envs, act, noise=noise, seed=seed), shown, interruption)
                for note in envs.reset_notes() if isinstance(envs, AbstractHostEnvs) else ():
                    shown.note(note)
            finally:
                if rows.count:
                    write_columns(path, prepend_columns(first, flatten_columns(envs.spec, rows.columns())), about)
                if 0 < rows.count < steps:
                    shown.note(f"stopped: recorded {rows.count:,} of {steps:,} rows in {path}")
    finally:
        close_envs(envs, source)
    interruption.raise_again()
    return path


def collect_random(
    env: EnvSource, steps: int, out: str | Path, *, seed: int = 0, after: DataSource | None = None,
    console: Console | None = None,
) -> Path:  # fmt: skip
    """Record `steps` transitions of uniformly random actions to `out` (`.npz` or `.hdf5`), after the rows of the data
    `after`. `console` shows progress, by default the terminal. Raises `ConfigError`; `EnvError` if the environment
    fails; `KeyboardInterrupt` after Ctrl-C. The rows so far are written in each case."""
    make_envs = lambda: make(env, 1, seed=seed, purpose="collect")  # noqa: E731
    how = {"noise": 0.0, "seed": seed, "policy": "uniform", "after": after, "console": console}
    return record_policy(make_envs, None, steps, out, source=env, **how)


def transitions(envs: Envs, act: Act, *, noise: float, seed: int) -> Iterator[tuple[Any, ...]]:
    """Yield transitions of one environment without end: rows of arrays `[1, …]`, in the order of `flatten_columns`."""
    generator, hosted = np.random.default_rng(seed), SingleEnv(envs, seed)
    space, obs, began = envs.spec.action, hosted.reset(), True
    for t in itertools.count():
        check_masks(obs, space, t)
        action = clip_to_bounds(space, disturb_action(space, obs, act(obs, t, began), noise, generator))
        seen = hosted.step(action)
        reward = seen.reward[..., -1] if envs.spec.tasks else seen.reward  # the main task's: data hold one reward
        yield obs, action, reward, seen.terminated, seen.truncated, seen.next_obs
        obs, began = seen.obs, bool(seen.terminated[0] | seen.truncated[0])


def fill_buffer(
    rows: TransitionBuffer, seen: Iterator[tuple[Any, ...]], shown: Screen, interrupted: Callable[[], bool]
) -> None:
    """Fill `rows` from `seen` and show progress; stop early once `interrupted()`."""
    total, last = 0.0, float("nan")
    for row in seen:
        rows.add(row)
        _, _, reward, terminated, truncated, _ = row
        total += float(reward[0])
        if terminated[0] or truncated[0]:
            total, last = 0.0, total
        if (ends := rows.count == rows.steps or interrupted()) or rows.count % 100 == 0:
            shown.update(rows.count, {RETURN: last})
        if ends:
            return


def disturb_action(
    space: Space, obs: Obs, action: np.ndarray, noise: float, generator: np.random.Generator
) -> np.ndarray:
    """`action` with noise. Box: normal noise of σ = `noise` half-ranges is added. Discrete: with probability `noise`,
    a uniform draw replaces the action."""
    match space:
        case _ if noise == 0:
            return action
        case Discrete(n):
            return draw_action(n, obs, generator) if generator.random() < noise else action
        case Box() if space.bounded:
            lowest, highest = box_sides(space)
            moved = action + noise * 0.5 * (highest - lowest) * generator.standard_normal(action.shape)
            return moved.astype(np.float32)
    raise ConfigError(f"noise = {noise:g}: must be 0 for actions of {space}, which have no scale. Leave it out.")


def uniform_policy(space: Space, seed: int) -> Act:
    """The uniformly random policy. Raises `ConfigError` for actions without bounds."""
    generator = np.random.default_rng([seed, 1])
    match space:
        case Discrete(n):
            return lambda obs, *_: draw_action(n, obs, generator)
        case Box() if space.bounded:
            low, high = (side.astype(np.float64) for side in box_sides(space))
            return lambda *_: generator.uniform(low, high)[None].astype(np.float32)
    raise ConfigError(
        f"Uniformly random actions need bounds for every component, and {space} lacks some. Record a policy instead."
    )


def draw_action(n: int, obs: Obs, generator: np.random.Generator) -> np.ndarray:
    """A uniform draw `[1]` among n discrete actions, or among those that a mask allows."""
    allowed = np.flatnonzero(obs[ACTION_MASK][0]) if has_mask(obs) else np.arange(n)
    return generator.choice(allowed, size=1).astype(np.int32)
