"""PPO, proximal policy optimisation.

Schulman et al. (2017), *Proximal Policy Optimization Algorithms*, arXiv:1707.06347: from one rollout not one gradient
step, as in A2C, but many, on an objective that gains nothing from a policy far from the one that acted.
"""

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from duologue.algorithms.a2c import targets, value_loss
from duologue.algorithms.base import AbstractAlgorithm
from duologue.distributions import AbstractDistribution
from duologue.errors import ConfigError
from duologue.fields import Configurable, Fraction, NonNegative, Positive, PositiveInt
from duologue.networks import AbstractActorCritic, AbstractNetworks, Networks
from duologue.optim import Adam, LearningRate, RMSProp, clipped, every_step, gradient_step, minibatches, shuffled
from duologue.returns import learned_reward
from duologue.statistics import explained_variance, normalized
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

BETAS = (1e-6, 1e6)
"""The least and the greatest β."""


class Sample(NamedTuple):
    """What a gradient step knows of a transition: facts, and what the policy that acted thought of it."""

    obs: Obs
    action: Any
    old: AbstractDistribution
    log_prob: Array
    advantage: Array
    target: Array
    value: Array


class AbstractObjective(Configurable):
    """What replaces the policy gradient's log π(a|s) Â once the policy has left the one that acted."""

    def init(self) -> PyTree:
        """What adapts; arrays only."""
        return ()

    @abstractmethod
    def loss(
        self, state: PyTree, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss of r = π(a|s)/π_old(a|s), Â and KL(π_old ‖ π) of each sample."""

    def update(self, state: PyTree, kl: Float[Array, ""]) -> PyTree:
        """After all steps on a rollout that moved the policy by `kl`."""
        return state


class Clip(AbstractObjective):
    """L = −E[min(r Â, clip(r, 1 − ε, 1 + ε) Â)] (eq. 7)."""

    epsilon: Positive = 0.2
    """ε."""

    def loss(
        self, state: PyTree, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        near = jnp.clip(ratio, 1 - self.epsilon, 1 + self.epsilon)
        outside = jnp.mean((jnp.abs(ratio - 1) > self.epsilon).astype(jnp.float32))
        return -jnp.mean(jnp.minimum(ratio * advantage, near * advantage)), {"clip_fraction": outside}


class KLPenalty(AbstractObjective):
    """L = −E[r Â − β KL(π_old ‖ π)] (eq. 8), β doubled or halved where a rollout moved the policy too far or too little
    (§4)."""

    beta: Positive = 1.0
    """The first β."""
    target_kl: Positive = 0.01
    """KL(π_old ‖ π) aimed at: β doubles above 1.5 times this, and halves below this / 1.5."""

    def init(self) -> Float[Array, ""]:
        return jnp.asarray(self.beta, jnp.float32)

    def loss(
        self, state: Array, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        return -jnp.mean(ratio * advantage - state * kl), {"beta": state}

    def update(self, state: Array, kl: Float[Array, ""]) -> Array:
        far, near = kl > 1.5 * self.target_kl, kl < self.target_kl / 1.5
        beta = jnp.where(far, 2 * state, jnp.where(near, state / 2, state))
        return jnp.clip(beta, *BETAS)  # from 0, or infinity, it would never come back


class PPOState(eqx.Module):
    networks: AbstractActorCritic
    opt_state: PyTree
    objective: PyTree


def clipped_value_loss(
    value: Float[Array, " N"], old: Float[Array, " N"], target: Float[Array, " N"], epsilon: float
) -> Float[Array, ""]:
    """L_V = E[max((G − V)², (G − V_old − clip(V − V_old, ±ε))²)], as OpenAI Baselines has it; not in the paper."""
    near = old + jnp.clip(value - old, -epsilon, epsilon)
    return jnp.mean(jnp.maximum((target - value) ** 2, (target - near) ** 2))


class PPO(AbstractAlgorithm[PPOState]):
    """Proximal policy optimisation (Schulman et al., 2017), with the defaults of Stable-Baselines3.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 3e-4
    """η, a number or a `Linear` schedule."""
    objective: Clip | KLPenalty = Clip()
    """`Clip` of the ratio, or `KLPenalty` with an adaptive weight."""
    discount: Fraction = 0.99
    """γ."""
    lambda_: Fraction = 0.95
    """λ of generalised advantage estimation."""
    rollout_length: PositiveInt = 2048
    """T, steps of each environment between two updates."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    minibatch_size: PositiveInt = 64
    """Transitions of a gradient step; must divide T × B."""
    epochs: PositiveInt = 10
    """Passes over a rollout, each in an order of its own."""
    normalize_advantage: bool = True
    """Bring the advantages of each minibatch to mean 0 and standard deviation 1."""
    value_clip: Positive | None = None
    """Clip the critic's move since it acted to ± this; None for no clip."""
    target_kl: Positive | None = None
    """End the passes over a rollout before a minibatch that estimates KL above 1.5 times this; None for never."""
    value_coefficient: NonNegative = 0.5
    """c_V, weight of the critic's loss."""
    entropy_coefficient: NonNegative = 0.0
    """c_H, weight of the entropy bonus."""
    max_gradient_norm: Positive | None = 0.5
    """Clip of the gradient's global norm over actor and critic together; None for no clip."""
    optimizer: RMSProp | Adam = Adam(eps=1e-5)
    """The optimiser of actor and critic together."""
    networks: AbstractNetworks = Networks()
    """Builds actor and critic: `Networks`, or an object of your own."""
    reward_scale: Positive = 1.0
    """Rewards are multiplied by this before learning; returns are logged as they came."""
    reward_clip: Positive | None = None
    """Then clipped to ± this for learning; None for no clip."""
    test_policy: Literal["greedy", "sampled"] = "greedy"
    """How an evaluated agent acts: the mode of π, or a sample of it as in training."""

    @property
    def experience(self) -> Experience:
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ConfigError(
                "minibatch_size = 1: its one advantage would be normalised to 0. Give more, or set "
                "normalize_advantage to False."
            )
        count = minibatches(self.rollout_length * self.num_envs, self.minibatch_size)
        return Experience(self.num_envs, self.rollout_length, gradient_steps=self.epochs * count)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        # Flat: one vector of moments instead of one for each layer, for small networks are bound by overhead.
        return optax.flatten(clipped(self.optimizer.build(self.learning_rate), self.max_gradient_norm))

    def init(self, spec: EnvSpec, *, key: Array) -> PPOState:
        networks = self.networks.actor_critic(spec, key=key)
        opt_state = self._optimizer.init(networks)  # pyright: ignore[reportArgumentType]
        return PPOState(networks, opt_state, self.objective.init())

    def act(
        self, state: PPOState, carry: None, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], None]:
        policy = state.networks.policy(obs)
        return policy.sample(key) if explore or self.test_policy == "sampled" else policy.mode(), {}, carry

    def log_prob(self, state: PPOState, obs: Obs, action: Array) -> Array:
        return state.networks.policy(obs).log_prob(action)

    def v(self, state: PPOState, obs: Obs) -> Array:
        return state.networks.value(obs)

    def loss(
        self, networks: AbstractActorCritic, sample: Sample, objective: PyTree
    ) -> tuple[Float[Array, ""], Metrics]:
        """L = L_π + c_V L_V − c_H E[H(π(·|s))] (eq. 9) of a minibatch."""
        policy, value = networks.policy_and_value(sample.obs)
        log_ratio = policy.log_prob(sample.action) - sample.log_prob
        advantage = normalized(sample.advantage) if self.normalize_advantage else sample.advantage
        actor, metrics = self.objective.loss(objective, jnp.exp(log_ratio), advantage, sample.old.kl(policy))
        if self.value_clip is None:
            critic = value_loss(value, sample.target)
        else:
            critic = clipped_value_loss(value, sample.value, sample.target, self.value_clip)
        entropy = jnp.mean(policy.entropy())
        total = actor + self.value_coefficient * critic - self.entropy_coefficient * entropy
        # E[r − 1 − log r] ≥ 0, an estimate of KL(π_old ‖ π) from the actions taken (Schulman's blog, 2020).
        approx_kl = jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)
        return total, {
            "policy_loss": actor, "value_loss": critic, "entropy": entropy, "value": jnp.mean(value),
            "approx_kl": approx_kl, **metrics,
        }  # fmt: skip

    def update(self, state: PPOState, batch: Transition, *, key: Array) -> tuple[PPOState, Metrics]:
        """All gradient steps on a rollout `[T, B]`."""
        networks = state.networks
        reward = learned_reward(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        # Everything that does not move with the steps comes from the parameters that acted.
        advantage, target, value = targets(networks, batch, reward, discount=self.discount, lambda_=self.lambda_)
        old = networks.policy(batch.obs)
        rollout = Sample(batch.obs, batch.action, old, old.log_prob(batch.action), advantage, target, value)
        samples: Sample = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout)
        rows = shuffled(value.size, self.minibatch_size, self.epochs, key=key)

        def step(now: tuple[AbstractActorCritic, PyTree], rows: Int[Array, " M"]) -> tuple[PyTree, Metrics]:
            sample = jax.tree.map(lambda x: x[rows], samples)
            *after, metrics = gradient_step(self.loss, *now, self._optimizer, sample, state.objective)
            return tuple(after), metrics

        limit = self.target_kl
        stop = None if limit is None else lambda metrics: metrics["approx_kl"] > 1.5 * limit
        (networks, opt_state), metrics = every_step(step, (networks, state.opt_state), rows, stop=stop)
        kl = jnp.mean(old.kl(networks.policy(batch.obs)))
        metrics |= {"kl": kl, "explained_variance": explained_variance(value, target)}
        return PPOState(networks, opt_state, self.objective.update(state.objective, kl)), metrics
