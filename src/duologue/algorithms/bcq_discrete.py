"""BCQ for discrete actions.

Fujimoto et al. (2019b), *Benchmarking Batch Deep Reinforcement Learning Algorithms*, arXiv:1910.01708: deep Q-learning
over those actions that a clone of the data finds likely enough.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from duologue.algorithms.base import AbstractAlgorithm, recorded
from duologue.fields import Fraction, NonNegative, PositiveInt
from duologue.networks.builder import AbstractNetworks, ActorQ, Networks
from duologue.ops.distributions import MASKED_LOGIT, Categorical, entry_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import ACTION_MASK, EnvSpec, Experience, Metrics, Obs, PyTree, Transition, has_mask


class BCQDiscreteState(eqx.Module):
    networks: ActorQ
    target_networks: ActorQ
    opt_state: PyTree


def allowed(clone: Categorical, obs: Obs, threshold: float) -> Bool[Array, "*batch n"]:
    """Actions with G(a|s) ≥ τ maxₐ G(a|s): all of them where τ = 0, the likeliest alone where τ = 1."""
    likely = clone.probs >= threshold * jnp.max(clone.probs, axis=-1, keepdims=True)
    return likely & (obs[ACTION_MASK] > 0) if has_mask(obs) else likely


def constrained(q: Float[Array, "*batch n"], among: Bool[Array, "*batch n"]) -> Int[Array, "*batch"]:
    """argmaxₐ Q(s, a) among the allowed (eq. 16)."""
    return jnp.argmax(jnp.where(among, q, -jnp.inf), axis=-1)


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


class BCQDiscrete(AbstractAlgorithm[BCQDiscreteState]):
    """Batch-constrained Q-learning over discrete actions (Fujimoto et al., 2019b), for recorded data.

    Discrete actions; vector, image and Dict observations, action masks.
    """

    learning_rate: LearningRate = 3e-4
    """η, a number or a `Linear` schedule (the paper has 6.25e-5 on Atari)."""
    threshold: Fraction = 0.3
    """τ, how likely an action must be against the likeliest one."""
    regularisation: NonNegative = 0.01
    """Weight of the clone's squared logits."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """How far the target network follows at each update (the paper copies it every 8,000)."""
    batch_size: PositiveInt = 256
    """N, transitions of an update (the paper has 32 on Atari)."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept where it goes on online."""
    num_envs: PositiveInt = 1
    """B, environments that step together there."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun")
    """Builds clone and Q: `Networks`, or an object of your own; `shared_trunk` gives them one encoder."""

    @property
    def experience(self) -> Experience:
        return recorded(self.batch_size, self.replay_capacity, self.num_envs)

    def init(self, spec: EnvSpec, *, key: Array) -> BCQDiscreteState:
        networks = self.networks.actor_q(spec, key=key)
        return BCQDiscreteState(
            networks=networks, target_networks=target_of(networks),
            opt_state=opt_init(adam(self.learning_rate), networks),
        )  # fmt: skip

    def act(
        self, state: BCQDiscreteState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        """The best of the allowed actions; to explore, a draw from the clone."""
        clone, q = state.networks.policy_and_q(obs)
        action = clone.sample(key) if explore else constrained(q, allowed(clone, obs, self.threshold))
        return action, {}, carry

    def log_prob(self, state: BCQDiscreteState, obs: Obs, action: Array) -> Array:
        """Of the clone."""
        return state.networks.policy(obs).log_prob(action)

    def q(self, state: BCQDiscreteState, obs: Obs, action: Array) -> Array:
        return entry_at(state.networks.policy_and_q(obs)[1], action)[None]

    def update(self, state: BCQDiscreteState, batch: Transition, *, key: Array) -> tuple[BCQDiscreteState, Metrics]:
        """One step of clone and Q, and of the target, on transitions `[N]`. Nothing is sampled."""
        clone, q = state.networks.policy_and_q(batch.next_obs)
        best = constrained(q, allowed(clone, batch.next_obs, self.threshold))
        value = entry_at(state.target_networks.policy_and_q(batch.next_obs)[1], best)
        target = td_target(batch.reward, batch.terminated, value, self.discount)
        networks, opt_state, metrics = gradient_step(
            loss, state.networks, state.opt_state, adam(self.learning_rate),
            batch.obs, batch.action, target, self.regularisation,
        )  # fmt: skip
        target_networks = polyak(state.target_networks, networks, self.tau)
        return BCQDiscreteState(networks=networks, target_networks=target_networks, opt_state=opt_state), metrics
