"""Actors and critics of several tasks: one trunk, and a head for each task, all heads in one batched product."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from duologue.networks.critics import Ensemble
from duologue.networks.encoders import AbstractEncoder
from duologue.networks.heads import CategoricalHead, SquashedNormalHead, to_unit
from duologue.networks.layers import Trunk, join_features
from duologue.types import Box, Obs


class Intentions(eqx.Module):
    """πᵢ(·|s), the policies of K tasks. A call returns distributions with a leading axis `K`."""

    encoder: AbstractEncoder
    trunk: Trunk
    tasks: Ensemble
    head: CategoricalHead | SquashedNormalHead

    def __call__(self, obs: Obs) -> Any:
        return self.head(self._outputs(obs), obs)

    def task_policy(self, obs: Obs, task: Int[Array, " N"]) -> Any:
        """The policy of task `task[i]` for observation i of N."""
        outputs = self._outputs(obs)
        return self.head(outputs[task, jnp.arange(outputs.shape[1])], obs)

    def _outputs(self, obs: Obs) -> Float[Array, "K *batch size"]:
        return self.tasks(self.trunk(self.encoder(obs)))


class TaskValues(eqx.Module):
    """Qᵢ(s, ·) of discrete actions, `[K, *batch, n]`."""

    encoder: AbstractEncoder
    trunk: Trunk
    tasks: Ensemble

    def __call__(self, obs: Obs) -> Float[Array, "K *batch n"]:
        return self.tasks(self.trunk(self.encoder(obs)))


class TaskValue(eqx.Module):
    """Qᵢ(s, a) of real actions, `[K, *batch]`."""

    encoder: AbstractEncoder
    trunk: Trunk
    tasks: Ensemble
    space: Box = eqx.field(static=True)

    def __call__(self, obs: Obs, action: Float[Array, "*batch d"]) -> Float[Array, " K *batch"]:
        return self.tasks(self.trunk(join_features(self.encoder(obs), to_unit(self.space, action))))[..., 0]

    def own_values(self, obs: Obs, action: Float[Array, "K *batch d"]) -> Float[Array, " K *batch"]:
        """Qᵢ(s, aᵢ): each task's value of its own action, `action[i]`."""
        features = join_features(self.encoder(obs), to_unit(self.space, action))
        return jax.vmap(lambda task, x: task(x))(self.tasks.members, self.trunk(features))[..., 0]
