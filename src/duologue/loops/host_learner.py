"""The learner of the host loop: the algorithm's state and the carry as a flat list of leaves, and programs on it.

The list is flat because Python takes longer to flatten a tree of modules than a small network takes to act.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm
from duologue.data.ring import Ring
from duologue.errors import divergence_error
from duologue.loops.dispatch import drop_unread_leaves, find_changed_leaves
from duologue.loops.exploration import randomize_first_actions
from duologue.loops.keys import purpose_keys
from duologue.loops.learning import learn
from duologue.loops.seeds import one_seed_shape, place_seeds, seed_count, vmap_seeds
from duologue.loops.state import LoopState
from duologue.ops.metrics import SUM, rule_of
from duologue.types import EnvSpec, Obs, PyTree, Transition

Leaves = list[Array]
Keys = dict[str, Array]
Acted = tuple[Array, dict[str, Array], Leaves]
"""Action, extras, and the leaves of the new carry."""
ROWS_ON_DEVICE = 50
"""Largest number of rows of metrics on the device. Then the host folds them to one row, in double precision."""


class HostLearner:
    """Acts, observes transitions, and learns. With several seeds every array has a leading axis S, except a rollout,
    which is `[T, S, B]`."""

    def __init__(
        self, algorithm: AnyAlgorithm, spec: EnvSpec, state: LoopState,
        *, recorded: Ring | None = None, share: float = 0.0,
    ):  # fmt: skip
        self._algorithm, self._spec, self._recorded, self._share = algorithm, spec, recorded, share
        self._num_envs, seeds = state.episodes.lengths.shape[-1], seed_count(state.step)
        self._seeds = seeds
        self._leaves, self._tree = jax.tree.flatten(place_seeds((state.algorithm, state.carry), seeds))
        self._carry_size = len(jax.tree.leaves(state.carry))
        self.ring = place_seeds(state.replay, seeds)
        self._keys = jax.jit(vmap_seeds(partial(purpose_keys, purposes=("act", "update")), seeds, (0,)))(state.key)
        self.observes = type(algorithm).observe is not AbstractAlgorithm.observe
        self._newest: Transition | None = None
        self._observing: list[int] | None = None
        self._metric_names: list[str] = []
        self._rows: list[Any] = []

        one = one_seed_shape((self._leaves, self._keys, state.obs), seeds)
        self._read, act = drop_unread_leaves(self._act_program, *one, np.int32(0))
        self._act = jax.jit(vmap_seeds(act, seeds, (0, 0, 0, None)))
        self._observe_and_act = jax.jit(vmap_seeds(self._observe_and_act_program, seeds, (0, 0, 0, 0, None)))
        self._learn = jax.jit(vmap_seeds(self._learn_program, seeds, (0, 0, 1, 0, None, None)), donate_argnums=(0, 1))
        self._take_read_leaves()

    def act(self, obs: Obs, t: int) -> tuple[np.ndarray, dict[str, Array]]:
        """Actions and extras for `obs`. If the algorithm observes, the same call first observes the newest transition.
        Raises `DuologueError` for actions that are not finite."""
        if self._newest is not None:
            changed, acted = self._observe_and_act(self._leaves, self._newest, self._keys, obs, np.int32(t))
            for i, leaf in zip(self._observing or (), changed, strict=True):
                self._leaves[i] = leaf
        else:
            acted = self._act(self._read_leaves, self._keys, obs, np.int32(t))
        action, extras, carry = acted
        if carry:
            self._leaves[-self._carry_size :] = carry
            self._take_read_leaves()
        action = np.asarray(action)
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise divergence_error(f"an action is not finite at step {t:,} of its environment")
        return action, extras

    def mark(self) -> None:
        """Remember this moment, between two rollouts. No call donates leaves until `learn`."""
        self._marked = list(self._leaves)

    def return_to_mark(self) -> None:
        """Forget all that the running rollout has moved: the carry, and what the algorithm has observed."""
        self._leaves, self._newest = list(self._marked), None
        self._take_read_leaves()

    def observe_later(self, newest: Transition) -> None:
        """Observe `newest` in the next call of a program; for an algorithm that `observes`."""
        if self._observing is None:  # the first transition shows which leaves observing changes
            one = one_seed_shape((self._leaves, newest), self._seeds)
            self._observing = find_changed_leaves(self._observe_program, *one)
        self._newest = newest

    def learn(self, rollout: Transition, t: int) -> None:
        """Learn from a rollout that began at step `t`, without waiting for the result."""
        self._leaves, self.ring, row = self._learn(
            self._leaves, self.ring, rollout, self._keys, np.int32(t), self._recorded
        )
        if len(self._rows) == ROWS_ON_DEVICE:  # the program of the newest row may still run: append it afterwards
            self._rows = [self._fold_rows()]
        self._rows.append(row)
        self._newest = None
        self._take_read_leaves()

    def state(self) -> tuple[PyTree, PyTree]:
        """The algorithm's state and the carry."""
        return jax.tree.unflatten(self._tree, self._leaves)

    def fetch_metrics(self) -> tuple[Any, dict[str, Any]]:
        """Number of updates since the last call, and their metrics; `[S]` for several seeds."""
        if not self._rows:
            return np.zeros((), np.int64), {}
        updates, *metrics = np.moveaxis(self._fold_rows(), -1, 0)
        self._rows = []
        return updates.astype(np.int64), dict(zip(self._metric_names, metrics, strict=True))

    def _fold_rows(self) -> np.ndarray:
        """All rows as one row `[*seeds, 1 + metrics]`, float64: the sum of the updates, then the metrics, each by its
        rule."""
        rules = [SUM, *map(rule_of, self._metric_names)]
        columns = np.moveaxis(np.stack(jax.device_get(self._rows)).astype(np.float64), -1, 0)
        return np.stack([rule.reduce(column) for rule, column in zip(rules, columns, strict=True)], axis=-1)

    def _take_read_leaves(self) -> None:
        """Update the list of those leaves that acting reads."""
        self._read_leaves = [self._leaves[i] for i in self._read]

    # Programs, for one seed

    def _act_program(self, leaves: Leaves, keys: Keys, obs: Obs, t: Array) -> Acted:
        learner, carry = jax.tree.unflatten(self._tree, leaves)
        key = jax.random.fold_in(keys["act"], t)
        action, extras, carry = self._algorithm.act(learner, carry, obs, key=key, explore=True)
        action = randomize_first_actions(self._algorithm, self._spec, obs, action, key=key, steps=t * self._num_envs)
        return action, extras, jax.tree.leaves(carry)

    def _observe_program(self, leaves: Leaves, newest: Transition) -> Leaves:
        learner, carry = jax.tree.unflatten(self._tree, leaves)
        return jax.tree.leaves(self._algorithm.observe(learner, carry, newest))

    def _observe_and_act_program(
        self, leaves: Leaves, newest: Transition, keys: Keys, obs: Obs, t: Array
    ) -> tuple[Leaves, Acted]:
        """The leaves that observing changes, and the result of acting with them."""
        leaves = self._observe_program(leaves, newest)
        return [leaves[i] for i in self._observing or ()], self._act_program(leaves, keys, obs, t)

    def _learn_program(
        self, leaves: Leaves, ring: Ring | None, rollout: Transition, keys: Keys, t: Array, recorded: Ring | None
    ) -> tuple[Leaves, Ring | None, Array]:
        """Leaves, ring, and one row: the number of updates and their metrics, in the order of `_metric_names`."""
        if self.observes:
            leaves = self._observe_program(leaves, jax.tree.map(lambda x: x[-1], rollout))
        learner, carry = jax.tree.unflatten(self._tree, leaves)
        learned = learn(
            self._algorithm, learner, ring, rollout,
            key=jax.random.fold_in(keys["update"], t), steps=(t + len(rollout.reward)) * self._num_envs,
            tasks=self._spec.tasks, recorded=recorded, share=self._share,
        )  # fmt: skip
        self._metric_names = list(learned.metrics)  # known once the program is traced
        row = jnp.stack([learned.updates.astype(jnp.float32), *learned.metrics.values()])
        return jax.tree.leaves((learned.learner, carry)), learned.ring, row
