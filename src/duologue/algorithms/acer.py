"""ACER, the actor-critic with experience replay, for discrete actions.

Wang et al. (2017), *Sample Efficient Actor-Critic with Experience Replay*, arXiv:1611.01224. A2C's rollout is learned
from once; then sequences of what earlier policies did are, several times over, which takes three corrections: Retrace
targets for Q, truncated importance weights with a term for what truncation cut off, and a trust region around an
average of past policies.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, ActorQ, Networks
from duologue.ops.distributions import entry_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import Adam, LearningRate, RMSProp, flat_optimizer, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import retrace, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.ops.trust_region import project
from duologue.types import EnvSpec, Experience, Metrics, Obs, Poisson, PyTree, Replay, Transition

EPSILON = 1e-6
"""Beside probabilities whose logarithm is taken, in the denominator of k, and the least ratio that c is divided by."""


class ACERState(eqx.Module):
    networks: ActorQ
    average: ActorQ
    opt_state: PyTree


class Facts(NamedTuple):
    """Of each step `[T, B]`, constants of the loss."""

    obs: Obs
    action: Int[Array, "T B"]
    ascent: Float[Array, "T B n"]
    q_retrace: Float[Array, "T B"]


def ratios(probs: Float[Array, "T B n"], behaviour: Float[Array, "T B n"]) -> Float[Array, "T B n"]:
    """ρₜ(a) = π(a|sₜ)/μ(a|sₜ), for all actions; huge where μ is 0, and never NaN."""
    return probs / jnp.maximum(behaviour, jnp.finfo(behaviour.dtype).tiny)


def objective(
    statistics: Float[Array, "T B n"], probs: Float[Array, "T B n"], rho: Float[Array, "T B n"],
    action: Int[Array, "T B"], q_retrace: Float[Array, "T B"], q: Float[Array, "T B n"],
    *, truncation: float, entropy_coefficient: float,
) -> Float[Array, "T B"]:  # fmt: skip
    """What ascends: its gradient in the policy's `statistics` φ, here its probabilities, is ĝ^acer (eq. 9), and the
    entropy's.

    min(c, ρₜ(aₜ)) log φ(aₜ) (Q^ret − V) + Σₐ [1 − c/ρₜ(a)]₊ π(a) log φ(a) (Q(s, a) − V) + c_H H(φ)

    The second sum is over the network's own Q, never over Q^ret. All but φ are constants.
    """
    value = jnp.sum(probs * q, axis=-1)
    log = jnp.log(statistics + EPSILON)
    truncated = jnp.minimum(truncation, entry_at(rho, action)) * entry_at(log, action) * (q_retrace - value)
    cut_off = jnp.maximum(0.0, 1 - truncation / jnp.maximum(rho, EPSILON)) * probs
    correction = jnp.sum(cut_off * log * (q - value[..., None]), axis=-1)
    return truncated + correction - entropy_coefficient * jnp.sum(statistics * log, axis=-1)


def kl_gradient(average: Float[Array, "T B n"], probs: Float[Array, "T B n"]) -> Float[Array, "T B n"]:
    """k = ∇_φ KL(f(·|φ_avg) ‖ f(·|φ)) = −φ_avg/φ."""
    return -average / (probs + EPSILON)


def loss(networks: ActorQ, facts: Facts, *, q_coefficient: float) -> tuple[Float[Array, ""], Metrics]:
    """L = −E[z*ᵀφ(s)] + c_Q E[½ (Q^ret − Q(s, a))²]: the first term hands z* through the statistics to the parameters,
    as a vector–Jacobian product."""
    policy, q = networks.policy_and_q(facts.obs)
    actor = -jnp.mean(jnp.sum(facts.ascent * policy.probs, axis=-1))
    critic = jnp.mean(0.5 * (facts.q_retrace - entry_at(q, facts.action)) ** 2)
    return actor + q_coefficient * critic, {"critic_loss": critic, **summary_metrics("entropy", policy.entropy())}


class ACER(AbstractAlgorithm[ACERState]):
    """Actor-critic with experience replay (Wang et al., 2017), with the coefficients of OpenAI Baselines.

    Discrete actions; vector, image and Dict observations, action masks.
    """

    learning_rate: LearningRate = 7e-4
    """η, a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """γ."""
    lambda_: Fraction = 1.0
    """λ of Retrace, which weights by λ min(1, ρ)."""
    rollout_length: PositiveInt = 20
    """T, steps of each environment between two rollouts' updates, and of a replayed sequence."""
    num_envs: PositiveInt = 16
    """B, environments that step together."""
    replay_ratio: NonNegative = 4.0
    """Replayed updates after each rollout's: as many as a Poisson law of this mean draws. 0 for on-policy learning."""
    batch_size: PositiveInt = 16
    """N, sequences of a replayed update."""
    replay_capacity: PositiveInt = 50_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 10_000
    """Environment steps before the first replayed update; rollouts are learned from at once."""
    truncation: Positive = 10.0
    """c, where importance weights of the policy gradient are truncated. Retrace's own 1 is not this."""
    trust_region: Positive | None = 1.0
    """δ: to first order, a unit step in the statistics φ of a sample's policy raises KL(π_avg ‖ π) by at most this. It
    bounds the gradient in φ, not the step of the parameters. None for no trust region."""
    average_decay: Fraction = 0.99
    """α, share of the average policy's parameters that stays at each update."""
    q_coefficient: NonNegative = 0.5
    """c_Q, weight of the critic's loss."""
    entropy_coefficient: NonNegative = 0.01
    """c_H, weight of the entropy bonus."""
    max_gradient_norm: Positive | None = 10.0
    """Clip of the gradient's global norm; None for no clip."""
    optimizer: RMSProp | Adam = RMSProp()
    """The optimiser of actor and critic together."""
    networks: AbstractNetworks = Networks()
    """Builds actor and critic: `Networks`, or an object of your own."""
    reward_scale: Positive = 1.0
    """Rewards are multiplied by this before learning; returns are logged as they came."""
    reward_clip: Positive | None = None
    """Then clipped to ± this for learning; None for no clip."""

    @property
    def experience(self) -> Experience:
        return replayed_rollouts(self, extras=("probs",))

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)

    def init(self, spec: EnvSpec, *, key: Array) -> ACERState:
        networks = self.networks.actor_q(spec, key=key)
        opt_state = opt_init(self._optimizer, networks)
        return ACERState(networks=networks, average=target_of(networks), opt_state=opt_state)

    def act(
        self, state: ACERState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.networks.policy(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {"probs": policy.probs}, carry

    def log_prob(self, state: ACERState, obs: Obs, action: Array) -> Array:
        return state.networks.policy(obs).log_prob(action)

    def q(self, state: ACERState, obs: Obs, action: Array) -> Array:
        return entry_at(state.networks.policy_and_q(obs)[1], action)[None]

    def v(self, state: ACERState, obs: Obs) -> Array:
        policy, q = state.networks.policy_and_q(obs)
        return jnp.sum(policy.probs * q, axis=-1)

    def update(self, state: ACERState, batch: Transition, *, key: Array) -> tuple[ACERState, Metrics]:
        """One gradient step on a rollout `[T, B]`, or on replayed sequences `[L, N]`."""
        facts, metrics = self._facts(state, batch)
        networks, opt_state, step_metrics = gradient_step(
            lambda networks: loss(networks, facts, q_coefficient=self.q_coefficient),
            state.networks, state.opt_state, self._optimizer,
        )  # fmt: skip
        average = polyak(state.average, networks, 1 - self.average_decay)
        return ACERState(networks=networks, average=average, opt_state=opt_state), {**metrics, **step_metrics}

    def _facts(self, state: ACERState, batch: Transition) -> tuple[Facts, Metrics]:
        """All that the loss holds constant, from the parameters before the step."""
        policy, q = state.networks.policy_and_q(batch.obs)
        probs, rho = policy.probs, ratios(policy.probs, batch.extras["probs"])
        q_taken, rho_taken = entry_at(q, batch.action), entry_at(rho, batch.action)
        q_retrace = vmap_envs(retrace)(
            scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip),
            q_taken, self.v(state, batch.next_obs), rho_taken, batch.terminated, batch.truncated,
            discount=self.discount, lambda_=self.lambda_,
        )  # fmt: skip

        def total(statistics: Float[Array, "T B n"]) -> Float[Array, ""]:
            # A sum: each sample's gradient is its own, and δ is compared with no average.
            return jnp.sum(
                objective(
                    statistics, probs, rho, batch.action, q_retrace, q,
                    truncation=self.truncation, entropy_coefficient=self.entropy_coefficient,
                )
            )  # fmt: skip

        average = state.average.policy(batch.obs)
        ascent = free = jax.grad(total)(probs)
        if self.trust_region is not None:
            ascent = project(free, kl_gradient(average.probs, probs), self.trust_region)
        bound = jnp.mean(jnp.any(ascent != free, axis=-1).astype(jnp.float32))
        return Facts(batch.obs, batch.action, ascent, q_retrace), {
            "policy_objective": total(probs) / q_taken.size,
            "bound_by_trust_region": bound,
            "explained_variance": explained_variance(q_taken, q_retrace),
            "rho": jnp.mean(jnp.minimum(rho_taken, self.truncation)),
            **summary_metrics("q", q_taken),
            **summary_metrics("kl", average.kl(policy)),
        }


def replayed_rollouts(algorithm: Any, *, extras: tuple[str, ...]) -> Experience:
    """Each rollout once, then a drawn number of batches of sequences as long."""
    replay = Replay(
        capacity=algorithm.replay_capacity,
        batch_size=algorithm.batch_size,
        sequence_length=algorithm.rollout_length,
        updates=Poisson(algorithm.replay_ratio),
        learning_starts=algorithm.learning_starts,
    )
    return Experience(algorithm.num_envs, algorithm.rollout_length, extras=extras, replay=replay)
