"""A trained agent in a loop of the user's own, with its memory of the running episodes."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from duologue.envs.spaces import split_actions
from duologue.errors import ConfigError
from duologue.loops.keys import key_for
from duologue.loops.state import restart_carry
from duologue.runs.policy import TrainedPolicy, checked_batch
from duologue.types import Obs, PyTree


class Actor:
    """Acts on one environment, or on `n` environments that step together. NumPy in, NumPy out.

    The actor keeps the carry of the running episodes from call to call. Its call number t, from 0, draws as
    `run.policy(obs, step=t)` does, or as `run.sample` to explore.
    """

    def __init__(self, policy: TrainedPolicy, *, key: Array, explore: bool):
        self._policy, self._key, self._explore = policy, key, explore
        self._calls, self._rows, self._carry = 0, None, None

    def reset(self, ended: Any = None) -> None:
        """Begin an episode in every environment; the next call may have another number of them. With the flags `ended`
        `[n]` (for one environment a single flag), begin one in these environments alone. Raises `ConfigError` for other
        flags."""
        if ended is None:
            self._rows = None
        if ended is None or self._rows is None:  # all episodes begin at the next call
            return
        flags = np.asarray(ended)
        if flags.dtype != bool or flags.shape != self._rows:
            raise ConfigError(
                f"ended is {flags.dtype.name}{list(flags.shape)}: must be bool{list(self._rows)}, one flag for each "
                "observation of the last call."
            )
        self._carry = restart_carry(self._carry, self._begin(flags.size), flags.reshape(-1))

    def __call__(self, obs: Obs) -> np.ndarray | np.generic:
        """Actions for one observation or for `[n, …]`, in the environment's units: ready for `env.step`. Raises
        `ConfigError` for other observations, or for another number of them than in the last call."""
        batch, single = checked_batch(self._policy.spec, obs)
        count = len(jax.tree.leaves(batch)[0])
        rows = () if single else (count,)
        if self._rows is None:
            self._rows, self._carry = rows, self._begin(count)
        if rows != self._rows:
            raise ConfigError(
                f"The actor remembers {_episodes(self._rows)}, and got {_episodes(rows)}. Call actor.reset() first, or "
                "use an actor for each."
            )
        key = key_for(self._key, "policy", self._calls)
        action, self._carry = self._policy.act_from(self._carry, batch, key=key, explore=self._explore)
        self._calls += 1
        return split_actions(self._policy.spec.action, action)[0] if single else action

    def _begin(self, count: int) -> PyTree:
        return self._policy.algorithm.initial_carry(count)


def _episodes(rows: tuple[int, ...]) -> str:
    return f"a batch of {rows[0]} episodes" if rows else "one episode"
