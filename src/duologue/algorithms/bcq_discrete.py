"""BCQ for discrete actions.

Fujimoto et al. (2019b), *Benchmarking Batch Deep Reinforcement Learning Algorithms*, arXiv:1910.01708: deep Q-learning
over the actions to which a clone of the data gives enough probability.
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
    """Actions with G(a|s) ≥ τ maxₐ G(a|s). τ = 0 allows all actions, τ = 1 only the most probable action."""
    likely = clone.probs >= threshold * jnp.max(clone.probs, axis=-1, keepdims=True)
    return likely & (obs[ACTION_MASK] > 0) if has_mask(obs) else likely


def best_allowed(q: Float[Array, "*batch n"], allowed: Bool[Array, "*batch n"]) -> Int[Array, "*batch"]:
    """argmaxₐ Q(s, a) over the allowed actions (eq. 16)."""
    return jnp.argmax(jnp.where(allowed, q, -jnp.inf), axis=-1)


def loss(
    networks: ActorQ, obs: Obs, action: Int[Array, " N"], target: Float[Array, " N"], regularisation: float
) -> tuple[Float[Array, ""], Metrics]:
    """Sum of the Huber loss of Q(s, a), the cross-entropy of the clone, and a penalty on the logits of the clone."""
    clone, q = networks.policy_and_q(obs)
    error = jnp.abs(entry_at(q, action) - target)
    huber = jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5))
    cloning = -jnp.mean(clone.log_prob(action))
    # The penalty leaves out masked logits, because no parameter changes them.
    logits = jnp.where(clone.logits > 0.5 * MASKED_LOGIT, clone.logits, 0.0)
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
    """Learning rate (η), a number or a `Linear` schedule. The paper has 6.25e-5 on Atari."""
    threshold: Fraction = 0.3
    """Smallest ratio G(a|s) / maxₐ G(a|s) of an allowed action (τ), where G is the clone."""
    regularisation: NonNegative = 0.01
    """Weight of the clone's squared logits in the loss."""
    tau: Fraction = 0.005
    """Polyak step size of the target network (τ): target ← (1 − τ) target + τ learned. The paper copies the learned
    network every 8,000 updates instead."""
    networks: AbstractNetworks = Networks(vector_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of clone and Q: `Networks`, or an object of your own. With `shared_trunk`, by default for images,
    both have one encoder."""

    def init(self, spec: EnvSpec, *, key: Array) -> BCQDiscreteState:
        networks = self.networks.actor_q(spec, key=key)
        return BCQDiscreteState(Trained.of(networks, adam(self.learning_rate)), target_of(networks))

    def policy(self, state: BCQDiscreteState, obs: Obs) -> Categorical:
        """Return the clone. Exploration samples from the clone, and `log_prob` uses the clone."""
        return state.networks.net.policy(obs)

    def act(
        self, state: BCQDiscreteState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """Test policy: the allowed action with the highest Q. To explore: one sample of the clone."""
        clone, q = state.networks.net.policy_and_q(obs)
        action = clone.sample(key) if explore else best_allowed(q, allowed_actions(clone, obs, self.threshold))
        return action, {}, carry

    def q(self, state: BCQDiscreteState, obs: Obs, action: Array) -> Array:
        return entry_at(state.networks.net.policy_and_q(obs)[1], action)[None]

    def update(self, state: BCQDiscreteState, batch: Transition, *, key: Array) -> tuple[BCQDiscreteState, Metrics]:
        """One step of clone and Q, then of the target, on transitions `[N]`. The update draws no random numbers."""
        clone, q = state.networks.net.policy_and_q(batch.next_obs)
        best = best_allowed(q, allowed_actions(clone, batch.next_obs, self.threshold))
        value = entry_at(state.target_networks.policy_and_q(batch.next_obs)[1], best)
        target = td_target(batch.reward, batch.terminated, value, self.discount)
        networks, metrics = descend(
            loss, state.networks, adam(self.learning_rate), batch.obs, batch.action, target, self.regularisation
        )
        return BCQDiscreteState(networks, polyak(state.target_networks, networks.net, self.tau)), metrics
