"""The host loop: environments step in Python, acting and learning are jitted calls. Learning is dispatched, never
waited for.

A host array that was handed to a dispatched call is never written again: the CPU backend reads it in place.
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
from duologue.loops.host_learner import HostLearner
from duologue.loops.keys import key_for  # fmt: skip
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
from duologue.types import Obs, PyTree, Step, Transition


def start(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """The state before the first step, with the environments reset; with several seeds every leaf leads with their
    axis, and `envs` are `SeedEnvs`."""
    obs = envs.reset()
    learner, carry, episodes, ring, key = init_seeds(_initial_arrays(algorithm, envs, obs, seeds), seeds)
    return LoopState(
        learner, carry, envs.snapshot(), obs, jax.device_get(episodes), ring, key, np.zeros(key.shape, np.int32)
    )


def shapes(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """What `start` returns, with `jax.ShapeDtypeStruct` for what is JAX's, and without a ring in memory. What rebuilds
    the environments grows with their episodes: `...` stands for any array there."""
    obs = envs.reset()
    learner, carry, episodes, ring, key = jax.eval_shape(
        lambda: init_seeds(_initial_arrays(algorithm, envs, obs, seeds), seeds)
    )
    episodes = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), episodes)
    return LoopState(
        learner, carry, dict.fromkeys(envs.snapshot(), ...), obs, episodes, ring, key, np.zeros(key.shape, np.int32)
    )


def _initial_arrays(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, obs: Obs, seeds: Sequence[int]) -> Callable:
    """From a key to what JAX holds at the beginning: learner, carry, running episodes, ring, and the key."""
    obs = one_seed_shape(obs, None if len(seeds) == 1 else len(seeds))

    def begin(key: Array) -> tuple[PyTree, PyTree, Episodes, PyTree, Array]:
        learner, carry = algorithm.init(envs.spec, key=key_for(key, "init")), algorithm.initial_carry(envs.num_envs)
        episodes = Episodes.zero(envs.num_envs, envs.spec.tasks)
        return learner, carry, episodes, empty_ring(algorithm, learner, carry, obs, envs.spec), key

    return begin


def restore(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, state: LoopState) -> tuple[LoopState, str | None]:
    """Bring fresh environments to where `state` left them; with a message in words where that cannot be done
    exactly."""
    obs, message = envs.restore(state.env)
    # What did not come back begins anew: nothing of the dropped episode may count for the next one, and no sequence
    # and no stack of frames run on from it.
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
    recorded: Ring | None = None, share: float = 0.0,
) -> Iterator[tuple[int, LoopState, Totals]]:  # fmt: skip
    """Go on from `state` until `steps` environment steps are made; yield `(steps, state, totals)` every `interval` of
    them.

    A `share` of each batch comes from the `recorded` data, where there are any.

    The yielded state is donated when the generator advances: copy what you keep. When `interrupted()` turns true, the
    loop yields after the running rollout, early. Raises `EnvError` for rewards or observations that are not finite,
    before they are learned from.
    """
    length, count = algorithm.experience.rollout_length, envs.num_envs
    per_rollout = length * count
    player, tally = HostLearner(algorithm, envs.spec, state, recorded=recorded, share=share), Tally(state.episodes)
    step, last = int(np.ravel(state.step)[0]), -(-steps // per_rollout) * length
    every = max(1, interval // per_rollout) * length
    obs = state.obs
    while step < last:
        until = min((step // every + 1) * every, last)
        while step < until and not interrupted():
            rows = []
            for t in range(step, step + length):
                action, extras = player.act(obs, t)
                seen = envs.step(action)
                rows.append(
                    Transition(obs, action, seen.reward, seen.terminated, seen.truncated, seen.next_obs, extras)
                )
                player.observe_later(rows[-1])
                tally.add(seen)
                obs = seen.obs
            rollout = jax.tree.map(lambda *column: np.array(column), *rows)
            check_rollout(rollout, step, count, envs.spec.tasks)
            player.learn(rollout, step)
            step += length
        learner, carry = player.state()
        state = LoopState(
            learner, carry, envs.snapshot(), obs, tally.episodes(), player.ring, state.key,
            np.full_like(state.step, step),
        )  # fmt: skip
        yield step * count, state, tally.totals(*player.fetch_metrics())


class Tally:
    """Returns, lengths and successes of running and finished episodes, `[*seeds, B]`, in NumPy; returns of several
    tasks are `[*seeds, B, K]`."""

    def __init__(self, episodes: Episodes):
        self.returns, self.lengths = np.array(episodes.returns), np.array(episodes.lengths)
        self._reset()

    def _reset(self) -> None:
        """An interval in which no episode has finished yet."""
        axis = self.lengths.ndim - 1  # of environments
        shape = self.returns.shape
        self.episodes_of, self.lengths_of = np.zeros((2, *shape[:axis]))
        self.returns_of, self.successes = np.zeros((*shape[:axis], *shape[axis + 1 :])), None

    def add(self, seen: Step) -> None:
        self.returns += seen.reward
        self.lengths += 1
        ended = seen.terminated | seen.truncated
        if ended.any():
            axis, over = ended.ndim - 1, broadcast_flags(ended, self.returns)
            self.episodes_of += ended.sum(-1)
            self.lengths_of += np.where(ended, self.lengths, 0).sum(-1)
            self.returns_of += np.where(over, self.returns, 0).sum(axis, dtype=np.float64)
            self.returns[ended], self.lengths[ended] = 0, 0
            if "is_success" in seen.info:
                known = np.where(ended, np.nan_to_num(seen.info["is_success"]), 0).sum(-1, dtype=np.float64)
                self.successes = known if self.successes is None else self.successes + known

    def episodes(self) -> Episodes:
        return Episodes(self.returns.copy(), self.lengths.copy())

    def totals(self, updates: Any, metrics: dict[str, Any]) -> Totals:
        """Sums over the episodes that finished since the last call, beside those of updates."""
        episodes, returns, lengths = self.episodes_of.astype(np.int64), self.returns_of, self.lengths_of
        successes = self.successes
        self._reset()
        return Totals(episodes, returns, lengths, updates, metrics, successes, None)


def check_rollout(rollout: Transition, began: int, num_envs: int, tasks: tuple[str, ...]) -> None:
    """Raise `EnvError` where a rollout `[T, *seeds, B]` has a number that is not finite."""
    floats = [x for x in jax.tree.leaves((rollout.obs, rollout.reward, rollout.next_obs)) if x.dtype.kind == "f"]
    if not all(np.isfinite(x).all() for x in floats):
        of_seeds = jax.vmap(first_fault, (1, None)) if rollout.terminated.ndim == 3 else first_fault
        raise_fault(of_seeds(jax.tree.map(jnp.asarray, rollout), jnp.int32(began)), num_envs, tasks)
