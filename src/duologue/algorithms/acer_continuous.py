"""ACER for continuous actions, with stochastic duelling networks.

Wang et al. (2017), arXiv:1611.01224, §5 and algorithm 3. What differs from discrete actions: no sum over actions, so Q
is made of V, an advantage and samples; traces that do not die with the dimension of the action; and a second return for
the policy, without truncated traces.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from duologue.algorithms.acer import replayed_rollouts
from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import from_unit, require_bounded_box, to_unit
from duologue.ops.distributions import Normal, draws
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import Adam, LearningRate, RMSProp, flat_optimizer, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import general_off_policy_returns, retrace, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.ops.trust_region import project
from duologue.types import Box, EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], Normal]


class StochasticDuelling(eqx.Module):
    """π, V and A of one agent."""

    actor: Actor
    value: Callable[[Obs], Array]
    advantage: Callable[[Obs, Array], Array]
    space: Box = eqx.field(static=True)

    def statistics(self, policy: Normal) -> Float[Array, "*batch d"]:
        """φ, the mean in half-ranges of the box: in the environment's units δ would mean something else in each."""
        return to_unit(self.space, policy.loc)

    def q(
        self, obs: Obs, action: Float[Array, "*batch d"], samples: Float[Array, "n *batch d"]
    ) -> Float[Array, "*batch"]:
        """Q̃(s, a) = V(s) + A(s, a) − (1/n) Σᵢ A(s, uᵢ), uᵢ ~ π(·|s) (eq. 13): its mean over π is V."""
        (advantage,) = self.advantage(obs, action)
        baseline = jax.vmap(lambda u: self.advantage(obs, u)[0])(samples)
        return self.value(obs) + advantage - jnp.mean(baseline, axis=0)


class ACERContinuousState(eqx.Module):
    networks: StochasticDuelling
    average: Actor
    opt_state: PyTree


class Facts(NamedTuple):
    """Of each step `[T, B]`, constants of the loss."""

    obs: Obs
    action: Float[Array, "T B d"]
    samples: Float[Array, "n T B d"]
    ascent: Float[Array, "T B d"]
    q_retrace: Float[Array, "T B"]
    value_target: Float[Array, "T B"]


def log_ratio(policy: Normal, behaviour: Normal, action: Float[Array, "T B d"]) -> Float[Array, "T B"]:
    """log ρ = log π(a|s) − log μ(a|s)."""
    return policy.log_prob(action) - behaviour.log_prob(action)


def objective(
    moved: Normal, policy: Normal, behaviour: Normal, action: Float[Array, "T B d"], drawn: Float[Array, "T B d"],
    advantage: Float[Array, "T B"], drawn_advantage: Float[Array, "T B"],
    *, truncation: float,
) -> Float[Array, "T B"]:  # fmt: skip
    """What ascends: its gradient in the statistics φ of `moved`, f(·|φ), is ĝ^acer (algorithm 3). All else is constant.

    min(c, ρ) log f(a|φ) (Q^opc − V) + [1 − c/ρ']₊ log f(a'|φ) (Q̃(s, a') − V),   a' ~ π, ρ' = π(a'|s)/μ(a'|s)
    """
    rho, inverse = jnp.exp(log_ratio(policy, behaviour, action)), jnp.exp(log_ratio(behaviour, policy, drawn))
    truncated = jnp.minimum(truncation, rho) * moved.log_prob(action) * advantage
    cut_off = jnp.maximum(0.0, 1 - truncation * inverse)
    return truncated + cut_off * moved.log_prob(drawn) * drawn_advantage


def loss(networks: StochasticDuelling, facts: Facts, *, q_coefficient: float) -> tuple[Float[Array, ""], Metrics]:
    """L = −E[z*ᵀφ(s)] + c_Q E[½ (Q^ret − Q̃(s, a))² + ½ (V^target − V(s))²]."""
    actor = -jnp.mean(jnp.sum(facts.ascent * networks.statistics(networks.actor(facts.obs)), axis=-1))
    critic_loss = jnp.mean(0.5 * (facts.q_retrace - networks.q(facts.obs, facts.action, facts.samples)) ** 2)
    value_loss = jnp.mean(0.5 * (facts.value_target - networks.value(facts.obs)) ** 2)
    return actor + q_coefficient * (critic_loss + value_loss), {"critic_loss": critic_loss, "value_loss": value_loss}


class ACERContinuous(AbstractAlgorithm[ACERContinuousState]):
    """Actor-critic with experience replay for continuous actions (Wang et al., 2017, algorithm 3).

    Bounded Box actions; vector, image and Dict observations. The policy is a normal whose deviation stays what
    `networks.initial_log_std` makes it: the paper fixes it at 0.3.
    """

    learning_rate: LearningRate = 7e-4
    """η, a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """γ."""
    lambda_: Fraction = 1.0
    """λ of Retrace, which weights by λ min(1, ρ^(1/d))."""
    rollout_length: PositiveInt = 50
    """T, steps of each environment between two rollouts' updates, and of a replayed sequence."""
    num_envs: PositiveInt = 8
    """B, environments that step together."""
    replay_ratio: NonNegative = 4.0
    """Replayed updates after each rollout's: as many as a Poisson law of this mean draws. 0 for on-policy learning."""
    batch_size: PositiveInt = 8
    """N, sequences of a replayed update."""
    replay_capacity: PositiveInt = 40_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 10_000
    """Environment steps before the first replayed update; rollouts are learned from at once."""
    samples: PositiveInt = 5
    """n, actions that Q̃ takes its mean over."""
    truncation: Positive = 5.0
    """c, where importance weights of the policy gradient are truncated."""
    trust_region: Positive | None = 1.0
    """δ: to first order, a unit step in the statistics φ of a sample's policy raises KL(π_avg ‖ π) by at most this. It
    bounds the gradient in φ, not the step of the parameters. None for no trust region."""
    average_decay: Fraction = 0.995
    """α, share of the average policy's parameters that stays at each update."""
    q_coefficient: NonNegative = 0.5
    """c_Q, weight of the losses of Q̃ and V."""
    max_gradient_norm: Positive | None = 10.0
    """Clip of the gradient's global norm; None for no clip."""
    optimizer: RMSProp | Adam = RMSProp()
    """The optimiser of all networks together."""
    networks: AbstractNetworks = Networks(initial_log_std=math.log(0.3))
    """Builds policy, V and A: `Networks`, or an object of your own."""
    reward_scale: Positive = 1.0
    """Rewards are multiplied by this before learning; returns are logged as they came."""
    reward_clip: Positive | None = None
    """Then clipped to ± this for learning; None for no clip."""

    @property
    def experience(self) -> Experience:
        return replayed_rollouts(self, extras=("loc", "scale"))

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)

    def init(self, spec: EnvSpec, *, key: Array) -> ACERContinuousState:
        actor_key, value_key, advantage_key = jax.random.split(key, 3)
        networks = StochasticDuelling(
            actor=self.networks.normal_actor(spec, key=actor_key),
            value=self.networks.state_value(spec, key=value_key),
            advantage=self.networks.critics(spec, 1, key=advantage_key),
            space=require_bounded_box(spec.action),
        )
        opt_state = opt_init(self._optimizer, networks)
        return ACERContinuousState(networks=networks, average=target_of(networks.actor), opt_state=opt_state)

    def act(
        self, state: ACERContinuousState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.networks.actor(obs)
        extras = {"loc": policy.loc, "scale": policy.scale}
        action = policy.sample(key) if explore else policy.mode()
        return action, extras, carry

    def log_prob(self, state: ACERContinuousState, obs: Obs, action: Array) -> Array:
        return state.networks.actor(obs).log_prob(action)

    def q(self, state: ACERContinuousState, obs: Obs, action: Array) -> Array:
        """Q̃, with the baseline's actions drawn by a key that is always the same."""
        samples = draws(state.networks.actor(obs).sample, self.samples, key=jax.random.key(0))
        return state.networks.q(obs, action, samples)[None]

    def v(self, state: ACERContinuousState, obs: Obs) -> Array:
        return state.networks.value(obs)

    def update(
        self, state: ACERContinuousState, batch: Transition, *, key: Array
    ) -> tuple[ACERContinuousState, Metrics]:
        """One gradient step on a rollout `[T, B]`, or on replayed sequences `[L, N]`."""
        facts, metrics = self._facts(state, batch, key)
        networks, opt_state, step_metrics = gradient_step(
            lambda networks: loss(networks, facts, q_coefficient=self.q_coefficient),
            state.networks, state.opt_state, self._optimizer,
        )  # fmt: skip
        average = polyak(state.average, networks.actor, 1 - self.average_decay)
        state = ACERContinuousState(networks=networks, average=average, opt_state=opt_state)
        return state, {**metrics, **step_metrics}

    def _facts(self, state: ACERContinuousState, batch: Transition, key: Array) -> tuple[Facts, Metrics]:
        """All that the loss holds constant, from the parameters before the step."""
        networks, obs, action = state.networks, batch.obs, batch.action
        baseline_key, drawn_key = jax.random.split(key)
        policy, behaviour = networks.actor(obs), Normal(batch.extras["loc"], batch.extras["scale"])
        # uᵢ ~ π, for the baseline of Q̃; and one more action for the term of bias correction.
        samples, drawn = draws(policy.sample, self.samples, key=baseline_key), policy.sample(drawn_key)
        value, q, drawn_q = networks.value(obs), networks.q(obs, action, samples), networks.q(obs, drawn, samples)
        log_rho = log_ratio(policy, behaviour, action)
        rho = jnp.exp(log_rho)

        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        rows = q, networks.value(batch.next_obs)
        ends = batch.terminated, batch.truncated
        # ρ^(1/d), for the ratio of d dimensions is a product of d, and the trace would die with it.
        trace = jnp.exp(log_rho / action.shape[-1])
        q_retrace = vmap_envs(retrace)(reward, *rows, trace, *ends, discount=self.discount, lambda_=self.lambda_)
        q_opc = vmap_envs(general_off_policy_returns)(reward, *rows, jnp.ones_like(rho), *ends, discount=self.discount)

        def at(statistics: Float[Array, "T B d"]) -> Normal:
            return Normal(from_unit(networks.space, statistics), policy.scale)

        def total(statistics: Float[Array, "T B d"]) -> Float[Array, ""]:
            # A sum: each sample's gradient is its own, and δ is compared with no average.
            return jnp.sum(
                objective(
                    at(statistics), policy, behaviour, action, drawn, q_opc - value, drawn_q - value,
                    truncation=self.truncation,
                )
            )  # fmt: skip

        statistics, average = networks.statistics(policy), state.average(obs)
        ascent = free = jax.grad(total)(statistics)
        if self.trust_region is not None:
            direction = jax.grad(lambda statistics: jnp.sum(average.kl(at(statistics))))(statistics)
            ascent = project(free, direction, self.trust_region)
        value_target = value + jnp.minimum(1.0, rho) * (q_retrace - q)
        return Facts(obs, action, samples, ascent, q_retrace, value_target), {
            "policy_objective": total(statistics) / rho.size,
            "bound_by_trust_region": jnp.mean(jnp.any(ascent != free, axis=-1).astype(jnp.float32)),
            "explained_variance": explained_variance(q, q_retrace),
            "rho": jnp.mean(jnp.minimum(rho, self.truncation)),
            **summary_metrics("q", q),
            **summary_metrics("kl", average.kl(policy)),
        }
