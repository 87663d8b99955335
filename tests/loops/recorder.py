"""An algorithm whose state is what its updates were given."""

import jax
import jax.numpy as jnp

from duologue.algorithms.base import AbstractAlgorithm
from duologue.types import Experience, Replay


class Recorder(AbstractAlgorithm[dict]):
    """Always acts alike, out of bounds; its state is what its updates were given."""

    replay: Replay | None = None
    learn_from_rollout: bool = False
    rollout_length: int = 2
    discount: float = 0.9

    @property
    def experience(self):
        return Experience(2, self.rollout_length, learn_from_rollout=self.learn_from_rollout, replay=self.replay)

    def init(self, spec, *, key):
        return {"updates": jnp.int32(0), "shapes": jnp.zeros((99, 3), jnp.int32), "means": jnp.zeros(99)}

    def act(self, state, carry, obs, *, key, explore):
        return jnp.full((obs.shape[0], 1), 7.0), {}, carry

    def update(self, state, batch, *, key):
        i, mean = state["updates"], jnp.mean(batch.reward)
        shape = jnp.array([*batch.reward.shape, *(0,) * (3 - batch.reward.ndim)], jnp.int32)
        shapes, means = state["shapes"].at[i].set(shape), state["means"].at[i].set(mean)
        assert all(x.shape[: batch.reward.ndim] == batch.reward.shape for x in jax.tree.leaves(batch))
        return {"updates": i + 1, "shapes": shapes, "means": means}, {"mean": mean, "one": jnp.ones(())}
