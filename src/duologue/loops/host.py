"""The host loop: environments step in Python, acting and learning are jitted calls. Learning is dispatched, never
waited for.

A host array that was handed to a dispatched call is never written again: the CPU backend reads it in place.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.envs.base import AbstractHostEnvs
from duologue.loops.lean import lean_jit
from duologue.loops.replay import empty_ring, exploring, learn
from duologue.loops.state import Episodes, LoopState, Totals, key_for, purpose_key, raise_fault, restarted, run_key
from duologue.replay.ring import Ring
from duologue.types import EnvSpec, Obs, PyTree, Step, Transition


def start(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """The state before the first step, with the environments reset. Takes one seed."""
    (seed,) = seeds
    key, obs = run_key(seed), envs.reset()
    learner = jax.jit(lambda key: algorithm.init(envs.spec, key=key_for(key, "init")))(key)
    carry = algorithm.initial_carry(envs.num_envs)
    episodes = jax.tree.map(np.asarray, Episodes.begin(envs.num_envs))
    ring = empty_ring(algorithm, learner, carry, obs)
    return LoopState(learner, carry, envs.snapshot(), obs, episodes, ring, key, np.zeros((), np.int32))


def shapes(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, seeds: Sequence[int]) -> LoopState:
    """What `start` returns. What rebuilds the environments grows with their episodes: `...` stands for any array
    there."""
    state = start(algorithm, envs, seeds)
    return dataclasses.replace(state, env={name: ... for name in state.env})


def restore(algorithm: AnyAlgorithm, envs: AbstractHostEnvs, state: LoopState) -> tuple[LoopState, str | None]:
    """Bring fresh environments to where `state` left them; with a message in words where that cannot be done
    exactly."""
    obs, message = envs.restore(state.env)
    # What did not come back begins anew: nothing of the dropped episode may count for the next one.
    lost = envs.snapshot()["episode"] != state.env["episode"]
    episodes = jax.tree.map(lambda x: np.where(lost, 0, x).astype(x.dtype), state.episodes)
    carry = restarted(state.carry, algorithm.initial_carry(envs.num_envs), lost)
    return dataclasses.replace(state, obs=obs, episodes=episodes, carry=carry), message


def run(
    algorithm: AnyAlgorithm, envs: AbstractHostEnvs, state: LoopState,
    *, steps: int, interval: int, interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, LoopState, Totals]]:  # fmt: skip
    """Go on from `state` until `steps` environment steps are made; yield `(steps, state, totals)` every `interval` of
    them.

    The yielded state is donated when the generator advances: copy what you keep. When `interrupted()` turns true, the
    loop yields after the running rollout, early. Raises `EnvError` for rewards or observations that are not finite,
    before they are learned from.
    """
    length, count = algorithm.experience.rollout_length, envs.num_envs
    per_rollout = length * count
    player, tally = _Player(algorithm, envs.spec, state), Tally(state.episodes)
    step, last = int(state.step), -(-steps // per_rollout) * length
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
                player.note(rows[-1])
                tally.add(seen)
                obs = seen.obs
            rollout = jax.tree.map(lambda *column: np.array(column), *rows)
            raise_fault(first_fault(rollout, step), count)
            player.learn(rollout, step)
            step += length
        learner, carry = player.state()
        state = LoopState(
            learner, carry, envs.snapshot(), obs, tally.episodes(), player.ring, state.key, np.asarray(step, np.int32)
        )
        yield step * count, state, tally.totals(*player.fetch())


class _Player:
    """The learner and its carry as the host holds them: a flat list of leaves, and the two or three programs that read
    it.

    A list, for flattening a tree of modules takes Python longer than a small network takes to act.
    """

    def __init__(self, algorithm: AnyAlgorithm, spec: EnvSpec, state: LoopState):
        self.ring = state.replay
        self._leaves, self._tree = jax.tree.flatten((state.algorithm, state.carry))
        self._carried = len(jax.tree.leaves(state.carry))
        self.watches = type(algorithm).observe is not AbstractAlgorithm.observe
        self._newest: Transition | None = None
        self._names: list[str] = []
        self._sums: list[Array] = []
        count = len(state.episodes.lengths)
        act_key, update_key = (purpose_key(state.key, purpose) for purpose in ("act", "update"))

        def act(leaves: list[Array], obs: Obs, t: Array) -> tuple[Array, dict[str, Array], list[Array]]:
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            key = jax.random.fold_in(act_key, t)
            action, extras, carry = algorithm.act(learner, carry, obs, key=key, explore=True)
            action = exploring(algorithm, spec, action, key=key, steps=t * count)
            return action, extras, jax.tree.leaves(carry)

        def watch(leaves: list[Array], newest: Transition) -> list[Array]:
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            return jax.tree.leaves(algorithm.observe(learner, carry, newest))

        def watch_and_act(leaves: list[Array], newest: Transition, obs: Obs, t: Array) -> tuple[list[Array], tuple]:
            leaves = watch(leaves, newest)
            return leaves, act(leaves, obs, t)

        def learn_and_sum(
            leaves: list[Array], ring: Ring | None, rollout: Transition, t: Array
        ) -> tuple[list[Array], Ring | None, Array]:
            if self.watches:
                leaves = watch(leaves, jax.tree.map(lambda x: x[-1], rollout))
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            steps, key = (t + len(rollout.reward)) * count, jax.random.fold_in(update_key, t)
            learned = learn(algorithm, learner, ring, rollout, key=key, steps=steps)
            self._names = list(learned.metrics)
            sums = jnp.stack([learned.updates.astype(jnp.float32), *learned.metrics.values()])
            return jax.tree.leaves((learned.learner, carry)), learned.ring, sums

        self._view, self._act = lean_jit(act, self._leaves, state.obs, np.int32(0))
        self._watch_and_act = jax.jit(watch_and_act, donate_argnums=0)
        self._learn = jax.jit(learn_and_sum, donate_argnums=(0, 1))
        self._seen = self._view(self._leaves)

    def act(self, obs: Obs, t: int) -> tuple[np.ndarray, dict[str, Array]]:
        """Actions for `obs`; takes note of the newest transition on the way, where the algorithm wants to."""
        if self._newest is not None:
            self._leaves, out = self._watch_and_act(self._leaves, self._newest, obs, np.int32(t))
        else:
            out = self._act(self._seen, obs, np.int32(t))
        action, extras, carry = out
        if carry:
            self._leaves[-self._carried :] = carry
            self._seen = self._view(self._leaves)
        return np.asarray(action), extras

    def note(self, newest: Transition) -> None:
        """Have `newest` observed by the next call that is made anyway."""
        if self.watches:
            self._newest = newest

    def learn(self, rollout: Transition, t: int) -> None:
        self._leaves, self.ring, sums = self._learn(self._leaves, self.ring, rollout, np.int32(t))
        self._sums.append(sums)
        self._seen, self._newest = self._view(self._leaves), None

    def state(self) -> tuple[PyTree, PyTree]:
        """The algorithm's state and the carry."""
        return jax.tree.unflatten(self._tree, self._leaves)

    def fetch(self) -> tuple[int, dict[str, np.float64]]:
        """How many updates there were since the last call, and the sums of their metrics."""
        rows, self._sums = [np.asarray(row) for row in self._sums], []
        updates, *sums = np.asarray(rows, np.float64).sum(0) if rows else (0,)
        return int(updates), dict(zip(self._names, sums, strict=True)) if rows else {}


class Tally:
    """Returns, lengths and successes of running and finished episodes, in NumPy."""

    def __init__(self, episodes: Episodes):
        self.returns, self.lengths = np.array(episodes.returns), np.array(episodes.lengths)
        self.finished: list[tuple[float, int]] = []
        self.successes: float | None = None

    def add(self, seen: Step) -> None:
        self.returns += seen.reward
        self.lengths += 1
        ended = seen.terminated | seen.truncated
        if ended.any():
            self.finished += zip(self.returns[ended].tolist(), self.lengths[ended].tolist(), strict=True)
            self.returns[ended], self.lengths[ended] = 0, 0
            if "is_success" in seen.info:
                self.successes = (self.successes or 0.0) + float(np.nansum(seen.info["is_success"][ended]))

    def episodes(self) -> Episodes:
        return Episodes(self.returns.copy(), self.lengths.copy())

    def totals(self, updates: int, sums: dict[str, np.float64]) -> Totals:
        """Sums over the episodes that finished since the last call, beside those of updates."""
        finished, self.finished = np.asarray(self.finished, np.float64).reshape(-1, 2), []
        returns, lengths = finished.sum(0)
        successes, self.successes = self.successes, None if self.successes is None else 0.0
        return Totals(len(finished), returns, lengths, updates, sums, successes, -1)


def first_fault(rollout: Transition, began: int) -> int:
    """Where in a rollout `[T, B]` a reward or an observation first is not finite: `step · B + index`, else −1."""
    floats = [x for x in jax.tree.leaves((rollout.obs, rollout.reward, rollout.next_obs)) if x.dtype.kind == "f"]
    if all(np.isfinite(x).all() for x in floats):
        return -1
    shape = rollout.reward.shape
    bad = np.logical_or.reduce([~np.isfinite(x).reshape(*shape, -1).all(-1) for x in floats])
    return began * shape[1] + int(np.argmax(bad))
