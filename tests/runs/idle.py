"""An algorithm without networks, for tests of what runs count: it acts with zeros, and its programs compile at once."""

import jax.numpy as jnp
import numpy as np

from duologue.algorithms.base import AbstractAlgorithm
from duologue.types import Experience, Replay, action_type


class Idle(AbstractAlgorithm[dict]):
    """Its state counts its updates, and its only metric is their number before each."""

    num_envs: int = 2
    rollout_length: int = 4
    actions: tuple[int, ...] = ()
    """Shape of an action."""
    real: bool = False
    capacity: int = 0
    """Transitions of its replay, from which it learns; 0 means that it learns from its rollouts."""

    @property
    def experience(self):
        replay = Replay(self.capacity, batch_size=4, learning_starts=8) if self.capacity else None
        return Experience(self.num_envs, self.rollout_length, learn_from_rollout=not replay, replay=replay)

    def init(self, spec, *, key):
        assert action_type(spec.action) == (self.actions, np.float32 if self.real else np.int32)
        return {"updates": jnp.int32(0)}

    def act(self, state, carry, obs, *, key, explore):
        kind = jnp.float32 if self.real else jnp.int32
        return jnp.zeros((obs.shape[0], *self.actions), kind), {}, carry

    def update(self, state, batch, *, key):
        return {"updates": state["updates"] + 1}, {"before": state["updates"].astype(jnp.float32)}
