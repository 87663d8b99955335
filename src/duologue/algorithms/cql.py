"""CQL, conservative Q-learning.

Kumar et al. (2020), *Conservative Q-Learning for Offline Reinforcement Learning*, arXiv:2006.04779: SAC with one more
term in the critics' loss, which lowers Q of actions that are not in the data. This is CQL(H), which estimates the
integral over actions by importance sampling. By default, targets contain no entropy, as in the authors' code.
"""

from functools import partial
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.sac import (
    AbstractSoft,
    Actor,
    Critics,
    NextValue,
    SACState,
    bellman_residual,
    next_soft_value,
    sample_in_half_ranges,
    soft_init,
    soft_update,
)
from duologue.fields import NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal, draws
from duologue.ops.optim import LearningRate
from duologue.ops.returns import first_row
from duologue.ops.temperature import Dual, Fixed, Learned
from duologue.types import EnvSpec, Metrics, Obs, PyTree, Transition

PROPOSALS = 2**31
"""Number that `update` folds into its key to draw the proposals. SAC never splits its key into the same key. So CQL
with weight 0 and the "soft" backup is SAC."""


class CQLState(eqx.Module):
    sac: SACState
    conservatism: PyTree


def next_sampled_value(
    actor: Actor, target_critics: Critics, alpha: Float[Array, ""], next_obs: Obs, key: Array
) -> Float[Array, "*batch"]:
    """minᵢ Q̄ᵢ(s', ã') with ã' ~ π(·|s'), as in the authors' code. SAC also adds the entropy."""
    return jnp.min(target_critics(next_obs, actor(next_obs).sample(key)), axis=0)


def next_mean_value(
    actor: Actor, target_critics: Critics, alpha: Float[Array, ""], next_obs: Obs, key: Array
) -> Float[Array, "*batch"]:
    """minᵢ Q̄ᵢ(s', a') with the mean action a' of the policy, as in d3rlpy."""
    return jnp.min(target_critics(next_obs, actor(next_obs).mode()), axis=0)


Backup: TypeAlias = Literal["sampled", "mean", "soft"]
BACKUPS: dict[Backup, NextValue] = {"sampled": next_sampled_value, "mean": next_mean_value, "soft": next_soft_value}


def proposals(
    actor: Actor, obs: Obs, next_obs: Obs, count: int, key: Array
) -> tuple[Float[Array, "n N d"], Float[Array, "n N"]]:
    """Draw `count` actions from each of three policies, with log-densities in half-ranges: uniform, π(·|s) and π(·|s').

    The actions are for the estimate of log ∫ exp Q(s, a) da. The authors' code uses π(·|s'), the paper does not.
    """
    now, after = actor(obs), actor(next_obs)

    def uniform(key: Array) -> tuple[Float[Array, "N d"], Float[Array, " N"]]:
        unit = jax.random.uniform(key, now.loc.shape, minval=-1.0)
        N, d = now.loc.shape
        return now.bounds.centre + now.bounds.half_range * unit, jnp.full(N, -d * jnp.log(2.0))

    policies = uniform, partial(sample_in_half_ranges, now), partial(sample_in_half_ranges, after)
    keys = jax.random.split(key, len(policies))
    drawn = [draws(policy, count, key=key) for policy, key in zip(policies, keys, strict=True)]
    actions, log_probs = zip(*drawn, strict=True)
    return jnp.concatenate(actions), jnp.concatenate(log_probs)


def conservative_gap(
    critics: Critics,
    obs: Obs,
    action: Float[Array, "N d"],
    proposed: Float[Array, "n N d"],
    log_prob: Float[Array, "n N"],
) -> Float[Array, " E"]:
    """E[log ∫ exp Qᵢ(s, a) da − Qᵢ(s, a_data)] for each critic. The mean of exp(Qᵢ)/density over the proposals
    estimates the integral (appendix F)."""
    q = critics(obs, proposed)
    integral = jax.nn.logsumexp(q - log_prob[None], axis=1) - jnp.log(float(len(proposed)))
    return jnp.mean(integral - critics(obs, action), axis=-1)


def critic_loss(
    critics: Critics, obs: Obs, action: Float[Array, "N d"], target: Float[Array, " N"],
    *, proposed: Float[Array, "n N d"], log_prob: Float[Array, "n N"], weight: Float[Array, ""],
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """α_c Σᵢ E[log ∫ exp Qᵢ − Qᵢ(s, a_data)] + J_Q of SAC (eq. 4). α_c is not the α of SAC."""
    loss, metrics = bellman_residual(critics, obs, action, target)
    gap = conservative_gap(critics, obs, action, proposed, log_prob)
    return loss + weight * jnp.sum(gap), {**metrics, "conservative_gap": jnp.mean(gap)}


class CQL(AbstractSoft[CQLState]):
    """Conservative Q-learning on SAC (Kumar et al., 2020), for recorded data and for going on online.

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 1e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    conservatism: Dual | Fixed = Fixed(5.0)
    """Weight of the conservative term (α_c): `Fixed`, or `Dual` ascent that keeps the gap log ∫ exp Q − Q(data) at its
    threshold. The authors' code has no ½ in the squared errors, so the default 5 here is 10 in that code. That code
    also leaves −log(3 · `proposals`) out of the gap. So with 10 proposals, the paper's threshold 10 is 6.6 here."""
    proposals: PositiveInt = 10
    """Number of actions from each of uniform policy, π(·|s) and π(·|s'), for the integral over actions."""
    alpha: Learned | Fixed = Learned(learning_rate=1e-4)
    """Weight of the entropy (α): `Learned` or `Fixed`, as in SAC."""
    backup: Backup = "sampled"
    """Value of s' in the targets. "sampled": Q of a sampled action, as in the authors' code. "mean": Q of the mean
    action, as in d3rlpy. "soft": Q of a sampled action with the entropy, as in SAC."""
    start_steps: NonNegativeInt = 0
    """Environment steps with uniformly random actions, at the start."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256, 256), activation="relu", init="pytorch")
    """Builder of actor and critics: `Networks`, or an object of your own."""

    def init(self, spec: EnvSpec, *, key: Array) -> CQLState:
        return CQLState(sac=soft_init(self, spec, key), conservatism=self.conservatism.init())

    def policy(self, state: CQLState, obs: Obs) -> TanhNormal:
        return state.sac.actor(obs)

    def q(self, state: CQLState, obs: Obs, action: Array) -> Array:
        return state.sac.critics(obs, action)

    def update(self, state: CQLState, batch: Transition, *, key: Array) -> tuple[CQLState, Metrics]:
        """One step of critics, actor, temperature and conservatism on N sequences of n steps, `[n, N]`.

        This is the update of SAC with the `critic_loss` above, and with the value of s' that `backup` names.
        """
        obs, _ = first_row(batch)
        next_obs = jax.tree.map(lambda x: x[0], batch.next_obs)
        proposals_key = jax.random.fold_in(key, PROPOSALS)
        proposed, log_prob = proposals(state.sac.actor, obs, next_obs, self.proposals, proposals_key)
        weight = self.conservatism.weight(state.conservatism)
        conservative_loss = partial(critic_loss, proposed=proposed, log_prob=log_prob, weight=weight)
        learned, metrics = soft_update(
            self, state.sac, batch, key, critic_loss=conservative_loss, next_value=BACKUPS[self.backup]
        )
        conservatism, _ = self.conservatism.update(state.conservatism, metrics["conservative_gap"])
        return CQLState(sac=learned, conservatism=conservatism), {**metrics, "conservatism": weight}
