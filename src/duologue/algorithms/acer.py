"""ACER, the actor-critic with experience replay, for discrete actions.

Wang et al. (2017), *Sample Efficient Actor-Critic with Experience Replay*, arXiv:1611.01224. ACER learns once from each
rollout, as A2C does, and then several times from replayed sequences of earlier policies. This needs three corrections:
Retrace targets for Q, truncated importance weights with a term that corrects the bias of the truncation, and a trust
region around an average of past policies.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, ActorQ, Networks
from duologue.ops.distributions import Categorical, entry_at
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import Adam, LearningRate, RMSProp, Trained, descend, flat_optimizer, polyak, target_of
from duologue.ops.returns import retrace, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.ops.trust_region import project
from duologue.types import EnvSpec, Experience, Metrics, Obs, Poisson, PyTree, Replay, Transition

State = TypeVar("State")

EPSILON = 1e-6
"""Constant added to probabilities in a logarithm and in the denominator of k. Also the smallest divisor ρ of c."""


class ACERState(eqx.Module):
    networks: Trained[ActorQ]
    average: ActorQ


class Facts(NamedTuple):
    """Constants of the loss, for each step `[T, B]`."""

    obs: Obs
    action: Int[Array, "T B"]
    ascent: Float[Array, "T B n"]
    q_retrace: Float[Array, "T B"]


def ratios(probs: Float[Array, "T B n"], behaviour: Float[Array, "T B n"]) -> Float[Array, "T B n"]:
    """ρₜ(a) = π(a|sₜ)/μ(a|sₜ), for all actions. Where μ is 0, the ratio can be very large, but never NaN."""
    return probs / jnp.maximum(behaviour, jnp.finfo(behaviour.dtype).tiny)


def objective(
    statistics: Float[Array, "T B n"], probs: Float[Array, "T B n"], rho: Float[Array, "T B n"],
    action: Int[Array, "T B"], q_retrace: Float[Array, "T B"], q: Float[Array, "T B n"],
    *, truncation: float, entropy_coefficient: float,
) -> Float[Array, "T B"]:  # fmt: skip
    """Objective of the policy. Its gradient with respect to the `statistics` φ of the policy, here the probabilities,
    is ĝ^acer (eq. 9) plus the gradient of the entropy bonus.

    min(c, ρₜ(aₜ)) log φ(aₜ) (Q^ret − V) + Σₐ [1 − c/ρₜ(a)]₊ π(a) log φ(a) (Q(s, a) − V) + c_H H(φ)

    The sum over actions uses Q of the network, never Q^ret. All inputs but φ are constants.
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


def trust_region_ascent(
    objective: Callable[[Array], Float[Array, "T B"]], statistics: Float[Array, "T B n"],
    kl_gradient: Float[Array, "T B n"], delta: float | None,
) -> tuple[Float[Array, "T B n"], Metrics]:  # fmt: skip
    """z*, the gradient of `objective` with respect to the statistics φ of each sample, after a projection (eq. 12).

    A unit step along this z* raises KL(π_avg ‖ π) by at most δ, to first order. δ = None: no projection.
    """

    def total(statistics: Array) -> Float[Array, ""]:
        # δ bounds the gradient of each sample. A mean would divide this gradient by the number of samples.
        return jnp.sum(objective(statistics))

    gradient = jax.grad(total)(statistics)
    ascent = gradient if delta is None else project(gradient, kl_gradient, delta)
    bound = jnp.any(ascent != gradient, axis=-1)
    return ascent, {
        "policy_objective": total(statistics) / bound.size,
        "bound_by_trust_region": jnp.mean(bound.astype(jnp.float32)),
    }


def loss(networks: ActorQ, facts: Facts, *, q_coefficient: float) -> tuple[Float[Array, ""], Metrics]:
    """L = −E[z*ᵀφ(s)] + c_Q E[½ (Q^ret − Q(s, a))²]. The gradient of the first term passes z* through φ to the
    parameters, as a vector–Jacobian product."""
    policy, q = networks.policy_and_q(facts.obs)
    actor = -jnp.mean(jnp.sum(facts.ascent * policy.probs, axis=-1))
    critic = jnp.mean(0.5 * (facts.q_retrace - entry_at(q, facts.action)) ** 2)
    return actor + q_coefficient * critic, {"critic_loss": critic, **summary_metrics("entropy", policy.entropy())}


class AbstractACER(AbstractAlgorithm[State]):
    """The fields of ACER for discrete and for continuous actions."""

    learning_rate: LearningRate = 7e-4
    """Learning rate of all networks (η), a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """Discount factor (γ)."""
    lambda_: Fraction = 1.0
    """Decay of Retrace (λ), in the trace λ min(1, ρ)."""
    rollout_length: PositiveInt = 20
    """Number of steps of each environment in a rollout, and number of steps in a replayed sequence (T)."""
    num_envs: PositiveInt = 16
    """Environments that step together (B)."""
    replay_ratio: NonNegative = 4.0
    """Mean number of replayed updates after the update on each rollout. A Poisson distribution gives the number. 0:
    on-policy learning."""
    batch_size: PositiveInt = 16
    """Number of sequences in a replayed update (N)."""
    replay_capacity: PositiveInt = 50_000
    """Largest number of transitions in the replay memory."""
    learning_starts: NonNegativeInt = 10_000
    """Environment steps before the first replayed update. Updates on rollouts start at once."""
    truncation: Positive = 10.0
    """Largest importance weight of the policy gradient (c). Retrace truncates its trace separately, at 1."""
    trust_region: Positive | None = 1.0
    """Largest increase of KL(π_avg ‖ π), to first order, in a unit step of the statistics φ of one sample (δ). The
    bound limits the gradient with respect to φ, not the step of the parameters. None: no trust region."""
    average_decay: Fraction = 0.99
    """Share of its old parameters that the average policy keeps in each update (α)."""
    q_coefficient: NonNegative = 0.5
    """Weight of the critic's loss (c_Q)."""
    max_gradient_norm: Positive | None = 10.0
    """Largest global norm of the gradient. None: no clip."""
    optimizer: RMSProp | Adam = RMSProp()
    """Optimiser of all networks together."""
    reward_scale: Positive = 1.0
    """Factor that multiplies all rewards for learning. Logged returns do not contain this factor."""
    reward_clip: Positive | None = None
    """Largest absolute value of a reward for learning, after scaling. None: no clip."""

    def replayed_rollouts(self, *, extras: tuple[str, ...]) -> Experience:
        """Experience with one update on each rollout, then a random number of updates on sequences of T steps."""
        replay = Replay(
            capacity=self.replay_capacity,
            batch_size=self.batch_size,
            sequence_length=self.rollout_length,
            updates=Poisson(self.replay_ratio),
            learning_starts=self.learning_starts,
        )
        return Experience(self.num_envs, self.rollout_length, extras=extras, replay=replay)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)


class ACER(AbstractACER[ACERState]):
    """Actor-critic with experience replay (Wang et al., 2017), with the coefficients of OpenAI Baselines.

    Discrete actions; vector, image and Dict observations, action masks.
    """

    entropy_coefficient: NonNegative = 0.01
    """Weight of the entropy bonus (c_H)."""
    networks: AbstractNetworks = Networks()
    """Builder of actor and critic: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return self.replayed_rollouts(extras=("probs",))

    def init(self, spec: EnvSpec, *, key: Array) -> ACERState:
        networks = self.networks.actor_q(spec, key=key)
        return ACERState(Trained.of(networks, self._optimizer), average=target_of(networks))

    def policy(self, state: ACERState, obs: Obs) -> Categorical:
        return state.networks.net.policy(obs)

    def act(
        self, state: ACERState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        policy = self.policy(state, obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {"probs": policy.probs}, carry

    def q(self, state: ACERState, obs: Obs, action: Array) -> Array:
        return entry_at(state.networks.net.policy_and_q(obs)[1], action)[None]

    def v(self, state: ACERState, obs: Obs) -> Array:
        policy, q = state.networks.net.policy_and_q(obs)
        return jnp.sum(policy.probs * q, axis=-1)

    def update(self, state: ACERState, batch: Transition, *, key: Array) -> tuple[ACERState, Metrics]:
        """One gradient step on a rollout `[T, B]`, or on N replayed sequences of L steps, `[L, N]`."""
        facts, metrics = self._facts(state, batch)
        networks, step_metrics = descend(
            partial(loss, q_coefficient=self.q_coefficient), state.networks, self._optimizer, facts
        )
        average = polyak(state.average, networks.net, 1 - self.average_decay)
        return ACERState(networks, average), {**metrics, **step_metrics}

    def _facts(self, state: ACERState, batch: Transition) -> tuple[Facts, Metrics]:
        """Compute the constants of the loss, from the parameters before the step."""
        policy, q = state.networks.net.policy_and_q(batch.obs)
        average = state.average.policy(batch.obs)
        rho = ratios(policy.probs, batch.extras["probs"])
        q_taken, rho_taken = entry_at(q, batch.action), entry_at(rho, batch.action)
        q_retrace = vmap_envs(retrace)(
            scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip),
            q_taken, self.v(state, batch.next_obs), rho_taken, batch.terminated, batch.truncated,
            discount=self.discount, lambda_=self.lambda_,
        )  # fmt: skip

        def objective_at(statistics: Float[Array, "T B n"]) -> Float[Array, "T B"]:
            return objective(
                statistics, policy.probs, rho, batch.action, q_retrace, q,
                truncation=self.truncation, entropy_coefficient=self.entropy_coefficient,
            )  # fmt: skip

        ascent, metrics = trust_region_ascent(
            objective_at, policy.probs, kl_gradient(average.probs, policy.probs), self.trust_region
        )
        return Facts(batch.obs, batch.action, ascent, q_retrace), {
            **metrics,
            "explained_variance": explained_variance(q_taken, q_retrace),
            "rho": jnp.mean(jnp.minimum(rho_taken, self.truncation)),
            **summary_metrics("q", q_taken),
            **summary_metrics("kl", average.kl(policy)),
        }
