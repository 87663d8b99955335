"""ACER for continuous actions, with stochastic duelling networks.

Wang et al. (2017), arXiv:1611.01224, §5 and algorithm 3. Three things differ from discrete actions. A sum over
actions is not possible, so Q consists of V, an advantage and sampled actions. The trace uses ρ^(1/d), so it does not
vanish where the action has many dimensions d. The policy learns from a second return, without truncated traces.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.acer import AbstractACER, trust_region_ascent
from duologue.fields import Fraction, NonNegative, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import from_unit, require_bounded_box, to_unit
from duologue.ops.distributions import Normal, draws
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import Trained, descend, polyak, target_of
from duologue.ops.returns import general_off_policy_returns, retrace, scale_and_clip, vmap_envs
from duologue.ops.statistics import explained_variance
from duologue.types import Box, EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], Normal]


class StochasticDuelling(eqx.Module):
    """π, V and A of one agent."""

    actor: Actor
    value: Callable[[Obs], Array]
    advantage: Callable[[Obs, Array], Array]
    space: Box = eqx.field(static=True)

    def statistics(self, policy: Normal) -> Float[Array, "*batch d"]:
        """φ, the mean of the policy in half-ranges of the box. So δ has the same meaning in every environment."""
        return to_unit(self.space, policy.loc)

    def q(
        self, obs: Obs, action: Float[Array, "*batch d"], samples: Float[Array, "n *batch d"]
    ) -> Float[Array, "*batch"]:
        """Q̃(s, a) = V(s) + A(s, a) − (1/n) Σᵢ A(s, uᵢ), uᵢ ~ π(·|s) (eq. 13). The mean of Q̃ over π is V."""
        (advantage,) = self.advantage(obs, action)
        baseline = jax.vmap(lambda u: self.advantage(obs, u)[0])(samples)
        return self.value(obs) + advantage - jnp.mean(baseline, axis=0)


class ACERContinuousState(eqx.Module):
    networks: Trained[StochasticDuelling]
    average: Actor


class Facts(NamedTuple):
    """Constants of the loss, for each step `[T, B]`."""

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
    candidate: Normal, policy: Normal, behaviour: Normal, action: Float[Array, "T B d"], fresh: Float[Array, "T B d"],
    advantage: Float[Array, "T B"], fresh_advantage: Float[Array, "T B"],
    *, truncation: float,
) -> Float[Array, "T B"]:  # fmt: skip
    """Objective of the policy. Its gradient with respect to the statistics φ of the `candidate` f(·|φ) is ĝ^acer
    (algorithm 3). All other inputs are constants.

    min(c, ρ) log f(a|φ) (Q^opc − V) + [1 − c/ρ']₊ log f(a'|φ) (Q̃(s, a') − V),   a' ~ π, ρ' = π(a'|s)/μ(a'|s)
    """
    rho, inverse = jnp.exp(log_ratio(policy, behaviour, action)), jnp.exp(log_ratio(behaviour, policy, fresh))
    truncated = jnp.minimum(truncation, rho) * candidate.log_prob(action) * advantage
    cut_off = jnp.maximum(0.0, 1 - truncation * inverse)
    return truncated + cut_off * candidate.log_prob(fresh) * fresh_advantage


def loss(networks: StochasticDuelling, facts: Facts, *, q_coefficient: float) -> tuple[Float[Array, ""], Metrics]:
    """L = −E[z*ᵀφ(s)] + c_Q E[½ (Q^ret − Q̃(s, a))² + ½ (V^target − V(s))²]."""
    actor = -jnp.mean(jnp.sum(facts.ascent * networks.statistics(networks.actor(facts.obs)), axis=-1))
    critic_loss = jnp.mean(0.5 * (facts.q_retrace - networks.q(facts.obs, facts.action, facts.samples)) ** 2)
    value_loss = jnp.mean(0.5 * (facts.value_target - networks.value(facts.obs)) ** 2)
    return actor + q_coefficient * (critic_loss + value_loss), {"critic_loss": critic_loss, "value_loss": value_loss}


class ACERContinuous(AbstractACER[ACERContinuousState]):
    """Actor-critic with experience replay for continuous actions (Wang et al., 2017, algorithm 3).

    Bounded Box actions; vector, image and Dict observations. The policy is a normal. Learning does not
    change its standard deviation, which `networks.initial_log_std` sets. The paper uses 0.3.
    """

    lambda_: Fraction = 1.0
    """Decay of Retrace (λ), in the trace λ min(1, ρ^(1/d))."""
    rollout_length: PositiveInt = 50
    """Number of steps of each environment in a rollout, and number of steps in a replayed sequence (T)."""
    num_envs: PositiveInt = 8
    """Environments that step together (B)."""
    batch_size: PositiveInt = 8
    """Number of sequences in a replayed update (N)."""
    replay_capacity: PositiveInt = 40_000
    """Largest number of transitions in the replay memory."""
    samples: PositiveInt = 5
    """Number of sampled actions in the mean advantage that Q̃ subtracts (n)."""
    truncation: Positive = 5.0
    """Largest importance weight of the policy gradient (c). Retrace truncates its trace separately, at 1."""
    average_decay: Fraction = 0.995
    """Share of its old parameters that the average policy keeps in each update (α)."""
    q_coefficient: NonNegative = 0.5
    """Weight of the losses of Q̃ and V (c_Q)."""
    networks: AbstractNetworks = Networks(initial_log_std=math.log(0.3))
    """Builder of policy, V and A: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return self.replayed_rollouts(extras=("loc", "scale"))

    def init(self, spec: EnvSpec, *, key: Array) -> ACERContinuousState:
        actor_key, value_key, advantage_key = jax.random.split(key, 3)
        networks = StochasticDuelling(
            actor=self.networks.normal_actor(spec, key=actor_key),
            value=self.networks.state_value(spec, key=value_key),
            advantage=self.networks.critics(spec, 1, key=advantage_key),
            space=require_bounded_box(spec.action),
        )
        return ACERContinuousState(Trained.of(networks, self._optimizer), average=target_of(networks.actor))

    def policy(self, state: ACERContinuousState, obs: Obs) -> Normal:
        return state.networks.net.actor(obs)

    def act(
        self, state: ACERContinuousState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        policy = self.policy(state, obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {"loc": policy.loc, "scale": policy.scale}, carry

    def q(self, state: ACERContinuousState, obs: Obs, action: Array) -> Array:
        """Q̃(s, a). Every call draws the actions of the mean with the same key."""
        samples = draws(self.policy(state, obs).sample, self.samples, key=jax.random.key(0))
        return state.networks.net.q(obs, action, samples)[None]

    def v(self, state: ACERContinuousState, obs: Obs) -> Array:
        return state.networks.net.value(obs)

    def update(
        self, state: ACERContinuousState, batch: Transition, *, key: Array
    ) -> tuple[ACERContinuousState, Metrics]:
        """One gradient step on a rollout `[T, B]`, or on N replayed sequences of L steps, `[L, N]`."""
        facts, metrics = self._facts(state, batch, key)
        networks, step_metrics = descend(
            partial(loss, q_coefficient=self.q_coefficient), state.networks, self._optimizer, facts
        )
        average = polyak(state.average, networks.net.actor, 1 - self.average_decay)
        return ACERContinuousState(networks, average), {**metrics, **step_metrics}

    def _facts(self, state: ACERContinuousState, batch: Transition, key: Array) -> tuple[Facts, Metrics]:
        """Compute the constants of the loss, from the parameters before the step."""
        networks, obs, action = state.networks.net, batch.obs, batch.action
        baseline_key, fresh_key = jax.random.split(key)
        policy, behaviour = networks.actor(obs), Normal(batch.extras["loc"], batch.extras["scale"])
        average, statistics = state.average(obs), networks.statistics(policy)
        # Draw uᵢ ~ π for the mean in Q̃, and one more action a' ~ π for the bias correction.
        samples, fresh = draws(policy.sample, self.samples, key=baseline_key), policy.sample(fresh_key)
        value, q, fresh_q = networks.value(obs), networks.q(obs, action, samples), networks.q(obs, fresh, samples)

        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        rows = q, networks.value(batch.next_obs)
        ends = batch.terminated, batch.truncated
        log_rho = log_ratio(policy, behaviour, action)
        rho = jnp.exp(log_rho)
        # ρ is a product of d ratios, one for each dimension. With ρ^(1/d) the trace does not vanish where d is large.
        trace = jnp.exp(log_rho / action.shape[-1])
        q_retrace = vmap_envs(retrace)(reward, *rows, trace, *ends, discount=self.discount, lambda_=self.lambda_)
        q_opc = vmap_envs(general_off_policy_returns)(reward, *rows, jnp.ones_like(rho), *ends, discount=self.discount)

        def policy_at(statistics: Float[Array, "T B d"]) -> Normal:
            return Normal(from_unit(networks.space, statistics), policy.scale)

        def objective_at(statistics: Float[Array, "T B d"]) -> Float[Array, "T B"]:
            return objective(
                policy_at(statistics), policy, behaviour, action, fresh, q_opc - value, fresh_q - value,
                truncation=self.truncation,
            )  # fmt: skip

        def total_kl(statistics: Float[Array, "T B d"]) -> Float[Array, ""]:
            return jnp.sum(average.kl(policy_at(statistics)))

        ascent, metrics = trust_region_ascent(
            objective_at, statistics, jax.grad(total_kl)(statistics), self.trust_region
        )
        value_target = value + jnp.minimum(1.0, rho) * (q_retrace - q)
        return Facts(obs, action, samples, ascent, q_retrace, value_target), {
            **metrics,
            "explained_variance": explained_variance(q, q_retrace),
            "rho": jnp.mean(jnp.minimum(rho, self.truncation)),
            **summary_metrics("q", q),
            **summary_metrics("kl", average.kl(policy)),
        }
