"""The learner and its carry as the host loop holds them: a flat list of leaves, and the programs that read it.

A list, for flattening a tree of modules takes Python longer than a small network takes to act.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.data.ring import Ring
from duologue.errors import divergence_error
from duologue.loops.dispatch import drop_unread_leaves
from duologue.loops.exploration import randomize_first_actions
from duologue.loops.keys import purpose_key
from duologue.loops.learning import learn
from duologue.loops.seeds import one_seed_shape, place_seeds, seed_count, vmap_seeds
from duologue.loops.state import LoopState
from duologue.ops.metrics import rule_of
from duologue.types import EnvSpec, Obs, PyTree, Transition

Leaves = list[Array]
Keys = dict[str, Array]


class HostLearner:
    """Acts, takes note of what came of it, and learns. With several seeds every array leads with their axis, but for a
    rollout, which is `[T, S, B]`."""

    def __init__(
        self, algorithm: AnyAlgorithm, spec: EnvSpec, state: LoopState,
        *, recorded: Ring | None = None, share: float = 0.0,
    ):  # fmt: skip
        seeds, count = seed_count(state.step), state.episodes.lengths.shape[-1]
        self._leaves, self._tree = jax.tree.flatten(place_seeds((state.algorithm, state.carry), seeds))
        self.ring = place_seeds(state.replay, seeds)
        self._recorded = recorded
        self._keys = jax.jit(vmap_seeds(keys, seeds, (0,)))(state.key)
        self._carried = len(jax.tree.leaves(state.carry))
        self.observes = type(algorithm).observe is not AbstractAlgorithm.observe
        self._newest: Transition | None = None
        self._names: list[str] = []
        self._told: list[Array] = []

        def act(leaves: Leaves, keys: Keys, obs: Obs, t: Array) -> tuple[Array, dict[str, Array], Leaves]:
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            key = jax.random.fold_in(keys["act"], t)
            action, extras, carry = algorithm.act(learner, carry, obs, key=key, explore=True)
            action = randomize_first_actions(algorithm, spec, obs, action, key=key, steps=t * count)
            return action, extras, jax.tree.leaves(carry)

        def watch(leaves: Leaves, newest: Transition) -> Leaves:
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            return jax.tree.leaves(algorithm.observe(learner, carry, newest))

        def watch_and_act(
            leaves: Leaves, newest: Transition, keys: Keys, obs: Obs, t: Array
        ) -> tuple[Leaves, tuple[Array, dict[str, Array], Leaves]]:
            leaves = watch(leaves, newest)
            return leaves, act(leaves, keys, obs, t)

        def learn_and_tell(
            leaves: Leaves, ring: Ring | None, rollout: Transition, keys: Keys, t: Array, recorded: Ring | None
        ) -> tuple[Leaves, Ring | None, Array]:
            if self.observes:
                leaves = watch(leaves, jax.tree.map(lambda x: x[-1], rollout))
            learner, carry = jax.tree.unflatten(self._tree, leaves)
            steps, key = (t + len(rollout.reward)) * count, jax.random.fold_in(keys["update"], t)
            learned = learn(
                algorithm, learner, ring, rollout,
                key=key, steps=steps, tasks=spec.tasks, recorded=recorded, share=share,
            )  # fmt: skip
            self._names = list(learned.metrics)
            told = jnp.stack([learned.updates.astype(jnp.float32), *learned.metrics.values()])
            return jax.tree.leaves((learned.learner, carry)), learned.ring, told

        single = one_seed_shape((self._leaves, self._keys, state.obs), seeds)
        self._view, lean_act = drop_unread_leaves(act, *single, np.int32(0))
        self._act = jax.jit(vmap_seeds(lean_act, seeds, (0, 0, 0, None)))
        self._watch_and_act = jax.jit(vmap_seeds(watch_and_act, seeds, (0, 0, 0, 0, None)), donate_argnums=0)
        self._learn = jax.jit(vmap_seeds(learn_and_tell, seeds, (0, 0, 1, 0, None, None)), donate_argnums=(0, 1))
        self._seen = self._view(self._leaves)

    def act(self, obs: Obs, t: int) -> tuple[np.ndarray, dict[str, Array]]:
        """Actions for `obs`; takes note of the newest transition on the way, where the algorithm wants to. Raises
        `DuologueError` for actions that are not finite."""
        if self._newest is not None:
            self._leaves, out = self._watch_and_act(self._leaves, self._newest, self._keys, obs, np.int32(t))
        else:
            out = self._act(self._seen, self._keys, obs, np.int32(t))
        action, extras, carry = out
        if carry:
            self._leaves[-self._carried :] = carry
            self._seen = self._view(self._leaves)
        action = np.asarray(action)
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise divergence_error(f"an action is not finite at step {t:,} of its environment")
        return action, extras

    def observe_later(self, newest: Transition) -> None:
        """Have `newest` observed by the next call that is made anyway."""
        if self.observes:
            self._newest = newest

    def learn(self, rollout: Transition, t: int) -> None:
        """Learn from a rollout that began at step `t`, without waiting for it."""
        self._leaves, self.ring, told = self._learn(
            self._leaves, self.ring, rollout, self._keys, np.int32(t), self._recorded
        )
        self._told.append(told)
        self._seen, self._newest = self._view(self._leaves), None

    def state(self) -> tuple[PyTree, PyTree]:
        """The algorithm's state and the carry."""
        return jax.tree.unflatten(self._tree, self._leaves)

    def fetch_metrics(self) -> tuple[Any, dict[str, Any]]:
        """How many updates there were since the last call, and what their metrics came to; `[S]` for several seeds."""
        rows, self._told = [np.asarray(row, np.float64) for row in self._told], []
        if not rows:
            return np.zeros((), np.int64), {}
        updates, *columns = np.moveaxis(np.stack(rows), -1, 0)
        told = {name: rule_of(name).reduce(x) for name, x in zip(self._names, columns, strict=True)}
        return updates.sum(axis=0).astype(np.int64), told


def keys(key: Array) -> Keys:
    """The keys of the loop's purposes, made once."""
    return {purpose: purpose_key(key, purpose) for purpose in ("act", "update")}
