"""The host loop: environments step in Python, acting and learning are jitted calls. The loop never waits for learning.

After a call has received a host array, no code writes to this array again, because the CPU backend reads it in place.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.algorithms.base import AnyAlgorithm
from duologue.data import ring as rings
from duologue.data.ring import Ring
from duologue.envs.base import AbstractHostEnvs
from duologue.envs.masks import check_masks
from duologue.envs.results import GAME_RETURN
from duologue.errors import DuologueError, EnvError
from duologue.loops.host_learner import HostLearner
from duologue.loops.keys import key_for
from duologue.loops.replay_ring import empty_ring
from duologue.loops.seeds import init_seeds, one_seed_shape, place_seeds, seed_count, vmap_seeds
from duologue.loops.state import (  # fmt: skip
    Episodes,
    LoopState,
    Totals,
    broadcast_flags,
    first_fault,
    raise_fault,
    restart_carry,
)
from duologue.ops.metrics import Counted
from duologue.types import Obs, PyTree, Step, Transition


def start(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """The state before the first step; resets the environments. With several seeds every leaf has a leading axis S, and
    `envs` are `SeedEnvs`."""
    obs = envs.reset()
    learner, carry, episodes, ring, key = init_seeds(_initial_arrays(algorithm, envs, obs, seeds), seeds)
    return LoopState(
        learner, carry, envs.snapshot(), obs, jax.device_get(episodes), ring, key, np.zeros(key.shape, np.int32)
    )


def shapes(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """The state that `start` returns, with `jax.ShapeDtypeStruct` for JAX arrays, and without a ring in memory. The
    arrays that rebuild the environments grow with their episodes, so here each is `...`: an array of any shape."""
    obs = envs.reset()
    learner, carry, episodes, ring, key = jax.eval_shape(
        lambda: init_seeds(_initial_arrays(algorithm, envs, obs, seeds), seeds)
    )
    episodes = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), episodes)
    return LoopState(
        learner, carry, dict.fromkeys(envs.snapshot(), ...), obs, episodes, ring, key, np.zeros(key.shape, np.int32)
    )


def _initial_arrays(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, obs: Obs, seeds: Sequence[int]) -> Callable:
    """A function from a key to the JAX arrays of the first state: learner, carry, running episodes, ring, key."""
    obs = one_seed_shape(obs, None if len(seeds) == 1 else len(seeds))

    def init(key: Array) -> tuple[PyTree, PyTree, Episodes, PyTree, Array]:
        learner, carry = algorithm.init(envs.spec, key=key_for(key, "init")), algorithm.initial_carry(envs.num_envs)
        episodes = Episodes.zero(envs.num_envs, envs.spec.tasks)
        return learner, carry, episodes, empty_ring(algorithm, learner, carry, obs, envs.spec), key

    return init


def restore(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, state: LoopState) -> tuple[LoopState, str | None]:
    """Restore new environments to those of `state`. Returns the new state, and a message if an environment differs."""
    obs, message = envs.restore(state.env)
    # A lost environment begins a new episode, with sums of zero. No sequence and no stack of frames may cross from the
    # old episode into the new episode.
    lost = envs.snapshot()["episode"] != state.env["episode"]
    episodes = jax.tree.map(lambda x: np.where(broadcast_flags(lost, x), 0, x).astype(x.dtype), state.episodes)
    seeds = seed_count(state.step)
    carry = vmap_seeds(restart_carry, seeds, (0, None, 0))(state.carry, algorithm.initial_carry(envs.num_envs), lost)
    ring = state.replay
    if ring is not None and lost.any():
        ring = jax.jit(vmap_seeds(rings.cut, seeds, (0, 0)), donate_argnums=0)(place_seeds(ring, seeds), lost)
    return dataclasses.replace(state, obs=obs, episodes=episodes, carry=carry, replay=ring), message


def run(
    algorithm: AnyAlgorithm, envs: AbstractHostEnvs, state: LoopState,
    *, steps: int, interval: int, interrupted: Callable[[], bool] = lambda: False,
    recorded: Ring | None = None, share: float = 0.0, log_info: Sequence[str] = (),
) -> Iterator[tuple[int, LoopState, Totals]]:  # fmt: skip
    """Continue from `state` until `steps` environment steps are made; yield `(steps, state, totals)` every `interval`
    steps.

    With `recorded` data, a `share` of each batch comes from them. The totals have the numbers of `info` that `log_info`
    names.

    The loop donates the yielded state when the generator advances: copy what you keep. Once `interrupted()` is true,
    the loop yields after the running rollout. Raises `EnvError` where an environment fails; for rewards or observations
    that are not finite, before the algorithm learns from them; and for an action mask that allows no action, before the
    algorithm acts. Before it raises, it yields the state at the beginning of the rollout that failed. If it has no step
    to yield, the last state that it yielded or took is valid.
    """
    length, count = algorithm.experience.rollout_length, envs.num_envs
    per_rollout = length * count
    learner = HostLearner(algorithm, envs.spec, state, recorded=recorded, share=share)
    tally = Tally(state.episodes, log_info)
    step, last = int(np.ravel(state.step)[0]), -(-steps // per_rollout) * length
    every = max(1, interval // per_rollout) * length
    obs, failure = state.obs, None
    while step < last:
        began, until = step, min((step // every + 1) * every, last)
        while step < until and not interrupted():
            envs.mark()
            learner.mark()
            try:
                rollout, results = play_rollout(learner, envs, obs, step, length)
            except EnvError as error:
                failure = error
                learner.return_to_mark()
                break
            for seen in results:
                tally.add(seen)
            obs = results[-1].obs
            learner.learn(rollout, step)
            step += length
        if failure is not None and step == began:
            raise failure
        state = LoopState(
            *learner.state(), envs.snapshot() if failure is None else envs.marked_snapshot(), obs, tally.episodes(),
            learner.ring, state.key, np.full_like(state.step, step),
        )  # fmt: skip
        yield step * count, state, tally.totals(*learner.fetch_metrics())
        if failure is not None:
            raise failure


def play_rollout(
    learner: HostLearner, envs: AbstractHostEnvs, obs: Obs, began: int, length: int
) -> tuple[Transition, list[Step]]:
    """Act for `length` steps, from `obs` at step `began` on. Returns the checked rollout `[T, *seeds, B]`, and the
    results of its steps."""
    rows: list[Transition] = []
    steps: list[Step] = []
    for t in range(began, began + length):
        check_masks(obs, envs.spec.action, t)
        action, extras = learner.act(obs, t)
        seen = step_envs(envs, action)
        rows.append(Transition(obs, action, seen.reward, seen.terminated, seen.truncated, seen.next_obs, extras))
        steps.append(seen)
        if learner.observes:
            learner.observe_later(rows[-1])
        obs = seen.obs
    rollout = jax.tree.map(lambda *column: np.array(column), *rows)
    check_rollout(rollout, began, envs.num_envs, envs.spec.tasks)
    return rollout, steps


def step_envs(envs: AbstractHostEnvs, action: np.ndarray) -> Step:
    """Step the environments. What an adapter of a user's own raises becomes an `EnvError`, `SystemExit` included."""
    try:
        return envs.step(action)
    except DuologueError:
        raise
    except (Exception, SystemExit) as error:
        raise EnvError(f"{type(envs).__name__} raised {type(error).__name__}: {error}") from error


class Tally:
    """Counts returns, lengths and successes of running and finished episodes, and numbers of `info`, in NumPy. Arrays
    of running episodes are `[*seeds, B]`; with several tasks their returns are `[*seeds, B, K]`."""

    def __init__(self, episodes: Episodes, log_info: Sequence[str] = ()):
        self.returns, self.lengths = np.array(episodes.returns), np.array(episodes.lengths)
        self.successes, self.games, self._log_info = None, None, log_info
        self._reset()

    def _reset(self) -> None:
        """Begin an interval, in which no episode has finished yet."""
        axis = self.lengths.ndim - 1  # of environments
        shape = self.returns.shape
        self.episodes_of, self.lengths_of = np.zeros((2, *shape[:axis]))
        self.returns_of = np.zeros((*shape[:axis], *shape[axis + 1 :]))
        none = Counted(*np.zeros((2, *shape[:axis])))
        # What the environments have reported once stays in all rows.
        self.successes = None if self.successes is None else np.zeros(shape[:axis])
        self.games = None if self.games is None else none
        self.info = dict.fromkeys(self._log_info, none)

    def add(self, seen: Step) -> None:
        """Count one step of all environments."""
        self.returns += seen.reward
        self.lengths += 1
        ended = seen.terminated | seen.truncated
        if ended.any():
            axis, over = ended.ndim - 1, broadcast_flags(ended, self.returns)
            self.episodes_of += ended.sum(-1)
            self.lengths_of += np.where(ended, self.lengths, 0).sum(-1)
            self.returns_of += np.where(over, self.returns, 0).sum(axis, dtype=np.float64)
            self.returns[ended], self.lengths[ended] = 0, 0
            reported = seen.info.get("is_success")
            if reported is not None and (self.successes is not None or not np.isnan(reported).all()):
                known = np.where(ended, np.nan_to_num(reported), 0).sum(-1, dtype=np.float64)
                self.successes = known if self.successes is None else self.successes + known
            if GAME_RETURN in seen.info:
                self.games = add_numbers(self.games, np.where(ended, seen.info[GAME_RETURN], np.nan))
        for name in self._log_info:
            if name in seen.info:
                check_info_numbers(name, seen.info[name], self.lengths.shape)
                self.info[name] = add_numbers(self.info[name], seen.info[name])

    def episodes(self) -> Episodes:
        """The running episodes."""
        return Episodes(self.returns.copy(), self.lengths.copy())

    def totals(self, updates: Any, metrics: dict[str, Any]) -> Totals:
        """Sums over the episodes that finished since the last call, with the given sums over updates."""
        episodes, returns, lengths = self.episodes_of.astype(np.int64), self.returns_of, self.lengths_of
        successes, games, info = self.successes, self.games, self.info
        self._reset()
        return Totals(episodes, returns, lengths, updates, metrics, successes, None, games=games, info=info)


def check_info_numbers(name: str, numbers: Any, shape: tuple[int, ...]) -> None:
    """Raise `EnvError` unless the entry `name` of `info` has one finite number, or NaN, for each environment."""
    if np.shape(numbers) != shape:
        raise EnvError(
            f"info[{name!r}] has the shape {list(np.shape(numbers))}: must be {list(shape)}, one number each."
        )
    if np.isinf(numbers).any():
        raise EnvError(f"info[{name!r}] is infinite in environment {np.isinf(numbers).argmax()}: must be finite.")


def add_numbers(sums: Counted | None, numbers: Any) -> Counted:
    """`sums` with the numbers `[*seeds, B]` of one step, NaN where an environment gives none."""
    known = ~np.isnan(numbers)
    new = Counted(known.sum(-1), np.where(known, numbers, 0).sum(-1, dtype=np.float64))
    return new if sums is None else Counted(sums.count + new.count, sums.total + new.total)


def check_rollout(rollout: Transition, began: int, num_envs: int, tasks: tuple[str, ...]) -> None:
    """Raise `EnvError` where a rollout `[T, *seeds, B]` holds a number that is not finite."""
    floats = [x for x in jax.tree.leaves((rollout.obs, rollout.reward, rollout.next_obs)) if x.dtype.kind == "f"]
    if not all(np.isfinite(x).all() for x in floats):
        find = jax.vmap(first_fault, (1, None)) if rollout.terminated.ndim == 3 else first_fault
        raise_fault(find(jax.tree.map(jnp.asarray, rollout), jnp.int32(began)), num_envs, tasks)
