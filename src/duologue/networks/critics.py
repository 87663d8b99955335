"""Critics: state values, action values, and ensembles of them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from duologue.networks.encoders import AbstractEncoder
from duologue.networks.heads import to_unit
from duologue.networks.layers import MLP, join_features
from duologue.types import Box, Obs, PyTree


class ActionValue(eqx.Module):
    """Q(s, a) of real actions; the network reads them in half-ranges of their box. A state may have several actions,
    `[n, *batch, d]`; the state is encoded once."""

    encoder: AbstractEncoder
    mlp: MLP
    space: Box = eqx.field(static=True)

    def __call__(self, obs: Obs, action: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        return self.mlp(join_features(self.encoder(obs), to_unit(self.space, action)))[..., 0]


class ActionValues(eqx.Module):
    """Q(s, ·) of discrete actions, one output each."""

    encoder: AbstractEncoder
    mlp: MLP

    def __call__(self, obs: Obs) -> Float[Array, "*batch n"]:
        return self.mlp(self.encoder(obs))


class StateValue(eqx.Module):
    """V(s)."""

    encoder: AbstractEncoder
    mlp: MLP

    def __call__(self, obs: Obs) -> Float[Array, "*batch"]:
        return self.mlp(self.encoder(obs))[..., 0]


class Ensemble(eqx.Module):
    """E networks of one shape, each with its own parameters, in one batched product. Leaves have a leading axis E."""

    members: PyTree

    @classmethod
    def create(cls, build: Callable[[Array], eqx.Module], members: int, *, key: Array) -> "Ensemble":
        """Make `members` networks, each by `build(key)`."""
        # `map` instead of `vmap`: a batched QR of orthogonal weights may wait forever (see `loops.seeds.init_seeds`).
        return cls(jax.lax.map(build, jax.random.split(key, members)))

    def __call__(self, *args: Any) -> Float[Array, "E ..."]:
        return jax.vmap(lambda member: member(*args))(self.members)
