"""BCQ for discrete actions.

Fujimoto et al. (2019b), *Benchmarking Batch Deep Reinforcement Learning Algorithms*, arXiv:1910.01708: deep Q-learning
over those actions that a clone of the data finds likely enough.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from duologue.algorithms.families import AbstractRecorded
from duologue.fields import Fraction, NonNegative
from duologue.networks.builder import AbstractNetworks, ActorQ, Networks
from duologue.ops.distributions import MASKED_LOGIT, Categorical, entry_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import ACTION_MASK, EnvSpec, Metrics, Obs, PyTree, Transition, has_mask


class BCQDiscreteState(eqx.Module):
    networks: Trained[ActorQ]
    target_networks: ActorQ


def allowed_actions(clone: Categorical, obs: Obs, threshold: float) -> Bool[Array, "*batch n"]:
    """Actions with G(a|s) ≥ τ maxₐ G(a|s): all of them where τ = 0, the likeliest alone where τ = 1."""
    likely = clone.probs >= threshold * jnp.max(clone.probs, axis=-1, keepdims=True)
    return likely & (obs[ACTION_MASK] > 0) if has_mask(obs) else likely


def best_allowed(q: Float[Array, "*batch n"], allowed: Bool[Array, "*batch n"]) -> Int[Array, "*batch"]:
    """argmaxₐ Q(s, a) among the allowed (eq. 16)."""
    return jnp.argmax(jnp.where(allowed, q, -jnp.inf), axis=-1)


def loss(
    networks: ActorQ, obs: Obs, action: Int[Array, " N"], target: Float[Array, " N"], regularisation: float
) -> tuple[Float[Array, ""], Metrics]:
    """Huber loss of Q(s, a) to its target, cross-entropy of the clone, and a little weight on its logits."""
    clone, q = networks.policy_and_q(obs)
    error = jnp.abs(entry_at(q, action) - target)
    huber = jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5))
    cloning = -jnp.mean(clone.log_prob(action))
    logits = jnp.where(clone.logits > 0.5 * MASKED_LOGIT, clone.logits, 0.0)  # no parameter moves a masked one
    total = huber + cloning + regularisation * jnp.mean(logits**2)
    return total, {
        "loss": total,
        "critic_loss": huber,
        "cloning_loss": cloning,
        **summary_metrics("q", entry_at(q, action)),
    }


class BCQDiscrete(AbstractRecorded[BCQDiscreteState]):
    """Batch-constrained Q-learning over discrete actions (Fujimoto et al., 2019b), for recorded data.

    Discrete actions; vector, image and Dict observations, action masks.
    """

    learning_rate: LearningRate = 3e-4
    """Learning rate (η), a number or a `Linear` schedule; the paper has 6.25e-5 on Atari."""
    threshold: Fraction = 0.3
    """Least probability of an allowed action, as a share of the likeliest one's (τ)."""
    regularisation: NonNegative = 0.01
    """Weight of the clone's squared logits in the loss."""
    tau: Fraction = 0.005
    """Share of the way that the target network moves in each update; the paper copies it every 8,000."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of clone and Q: `Networks`, or an object of your own; `shared_trunk` gives them one encoder."""

    def init(self, spec: EnvSpec, *, key: Array) -> BCQDiscreteState:
        networks = self.networks.actor_q(spec, key=key)
        return BCQDiscreteState(Trained.of(networks, adam(self.learning_rate)), target_of(networks))

    def policy(self, state: BCQDiscreteState, obs: Obs) -> Categorical:
        """The clone, which explores and has the densities."""
        return state.networks.net.policy(obs)

    def act(
        self, state: BCQDiscreteState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """The best of the allowed actions; to explore, a draw from the clone."""
        clone, q = state.networks.net.policy_and_q(obs)
        action = clone.sample(key) if explore else best_allowed(q, allowed_actions(clone, obs, self.threshold))
        return action, {}, carry

    def q(self, state: BCQDiscreteState, obs: Obs, action: Array) -> Array:
        return entry_at(state.networks.net.policy_and_q(obs)[1], action)[None]

    def update(self, state: BCQDiscreteState, batch: Transition, *, key: Array) -> tuple[BCQDiscreteState, Metrics]:
        """One step of clone and Q, and of the target, on transitions `[N]`. Nothing is sampled."""
        clone, q = state.networks.net.policy_and_q(batch.next_obs)
        best = best_allowed(q, allowed_actions(clone, batch.next_obs, self.threshold))
        value = entry_at(state.target_networks.policy_and_q(batch.next_obs)[1], best)
        target = td_target(batch.reward, batch.terminated, value, self.discount)
        networks, metrics = descend(
            loss, state.networks, adam(self.learning_rate), batch.obs, batch.action, target, self.regularisation
        )
        return BCQDiscreteState(networks, polyak(state.target_networks, networks.net, self.tau)), metrics
