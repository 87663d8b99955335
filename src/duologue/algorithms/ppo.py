"""PPO, proximal policy optimisation.

Schulman et al. (2017), *Proximal Policy Optimization Algorithms*, arXiv:1707.06347. PPO takes many gradient steps
on one rollout, while A2C takes one. The objective of PPO gives no gain to a policy that is far from the policy that
acted.
"""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from duologue.algorithms.a2c import Samples, samples_of, value_loss
from duologue.algorithms.families import AbstractOnPolicy
from duologue.errors import ConfigError
from duologue.fields import Configurable, NonNegative, Positive, PositiveInt
from duologue.networks.builder import AbstractActorCritic, AbstractNetworks, Networks
from duologue.ops.distributions import AbstractDistribution
from duologue.ops.optim import (
    Adam,
    LearningRate,
    RMSProp,
    Trained,
    descend,
    flat_optimizer,
    fold_steps,
    minibatch_count,
    minibatch_rows,
    skip_steps,
)
from duologue.ops.returns import scale_and_clip
from duologue.ops.statistics import explained_variance, standardize
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

BETAS = (1e-6, 1e6)
"""Smallest and largest β."""


class AbstractObjective(Configurable):
    """Loss of the policy for many gradient steps on one rollout. A2C takes one step, with the loss −log π(a|s) Â."""

    def init(self) -> PyTree:
        """Initial state of the objective, such as β; arrays only."""
        return ()

    @abstractmethod
    def loss(
        self, state: PyTree, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """L_π from r = π(a|s)/π_old(a|s), Â and KL(π_old ‖ π) of each sample."""

    def update(self, state: PyTree, kl: Float[Array, ""]) -> PyTree:
        """Return the state after all steps on a rollout, where `kl` is KL(π_old ‖ π) after these steps."""
        return state


class Clip(AbstractObjective):
    """L = −E[min(r Â, clip(r, 1 − ε, 1 + ε) Â)] (eq. 7)."""

    epsilon: Positive = 0.2
    """Largest distance of the ratio r from 1 without a clip (ε)."""

    def loss(
        self, state: PyTree, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        near = jnp.clip(ratio, 1 - self.epsilon, 1 + self.epsilon)
        outside = jnp.mean((jnp.abs(ratio - 1) > self.epsilon).astype(jnp.float32))
        return -jnp.mean(jnp.minimum(ratio * advantage, near * advantage)), {"clip_fraction": outside}


class KLPenalty(AbstractObjective):
    """L = −E[r Â − β KL(π_old ‖ π)] (eq. 8). β doubles after a rollout that moves the policy too far, and halves after
    a rollout that moves the policy too little (§4)."""

    beta: Positive = 1.0
    """Initial weight of the penalty (β)."""
    target_kl: Positive = 0.01
    """Target of KL(π_old ‖ π). β doubles above 1.5 × `target_kl`, and halves below `target_kl` / 1.5."""

    def init(self) -> Float[Array, ""]:
        return jnp.asarray(self.beta, jnp.float32)

    def loss(
        self, state: Array, ratio: Float[Array, " N"], advantage: Float[Array, " N"], kl: Float[Array, " N"]
    ) -> tuple[Float[Array, ""], Metrics]:
        return -jnp.mean(ratio * advantage - state * kl), {"beta": state}

    def update(self, state: Array, kl: Float[Array, ""]) -> Array:
        far, near = kl > 1.5 * self.target_kl, kl < self.target_kl / 1.5
        beta = jnp.where(far, 2 * state, jnp.where(near, state / 2, state))
        return jnp.clip(beta, *BETAS)  # β = 0 or ∞ would never change


class PPOState(eqx.Module):
    networks: Trained[AbstractActorCritic]
    objective: PyTree
    """State of the objective, such as β."""


def clipped_value_loss(
    value: Float[Array, " N"], old: Float[Array, " N"], target: Float[Array, " N"], epsilon: float
) -> Float[Array, ""]:
    """L_V = E[max((G − V)², (G − V_old − clip(V − V_old, ±ε))²)], as in OpenAI Baselines, not in the paper."""
    near = old + jnp.clip(value - old, -epsilon, epsilon)
    return jnp.mean(jnp.maximum((target - value) ** 2, (target - near) ** 2))


def loss(
    networks: AbstractActorCritic, sample: Samples,
    *, objective: AbstractObjective, adapted: PyTree, value_clip: float | None, value_coefficient: float,
    entropy_coefficient: float,
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """L = L_π + c_V L_V − c_H E[H(π(·|s))] (eq. 9) of a minibatch. The `objective` gives L_π."""
    policy, value = networks.policy_and_value(sample.obs)
    log_ratio = policy.log_prob(sample.action) - sample.log_prob
    actor, metrics = objective.loss(adapted, jnp.exp(log_ratio), sample.advantage, sample.old.kl(policy))
    if value_clip is None:
        critic = value_loss(value, sample.target)
    else:
        critic = clipped_value_loss(value, sample.value, sample.target, value_clip)
    entropy = jnp.mean(policy.entropy())
    total = actor + value_coefficient * critic - entropy_coefficient * entropy
    # E[r − 1 − log r] ≥ 0 estimates KL(π_old ‖ π) from the actions taken (Schulman's blog, 2020).
    approx_kl = jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)
    return total, {
        "actor_loss": actor, "value_loss": critic, "entropy": entropy, "value": jnp.mean(value),
        "approx_kl": approx_kl, **metrics,
    }  # fmt: skip


class PPO(AbstractOnPolicy[PPOState]):
    """Proximal policy optimisation (Schulman et al., 2017), with the defaults of Stable-Baselines3.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    learning_rate: LearningRate = 3e-4
    """Learning rate of actor and critic (η), a number or a `Linear` schedule."""
    objective: Clip | KLPenalty = Clip()
    """Bound on the steps of the policy: `Clip` of the ratio, or `KLPenalty` with an adaptive weight."""
    minibatch_size: PositiveInt = 64
    """Number of transitions in a gradient step. This number must divide T × B."""
    epochs: PositiveInt = 10
    """Number of passes over a rollout, each in a new random order."""
    normalize_advantage: bool = True
    """Whether to normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    value_clip: Positive | None = None
    """Largest change of V(s) since the rollout, for a clip in the critic's loss. None: no clip."""
    target_kl: Positive | None = None
    """Limit on the estimated KL. The epochs stop before the gradient step on the first minibatch with a KL above 1.5 ×
    `target_kl`. None: no limit."""
    value_coefficient: NonNegative = 0.5
    """Weight of the critic's loss (c_V)."""
    entropy_coefficient: NonNegative = 0.0
    """Weight of the entropy bonus (c_H)."""
    max_gradient_norm: Positive | None = 0.5
    """Largest global norm of the gradient over actor and critic together. None: no clip."""
    optimizer: RMSProp | Adam = Adam(eps=1e-5)
    """Optimiser of actor and critic together."""
    networks: AbstractNetworks = Networks()
    """Builder of actor and critic: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ConfigError(
                "minibatch_size = 1: the normalised advantage of one sample is always 0. Use at least 2, or set "
                "normalize_advantage to False."
            )
        count = minibatch_count(self.rollout_length * self.num_envs, self.minibatch_size)
        return Experience(self.num_envs, self.rollout_length, gradient_steps=self.epochs * count)

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)

    def init(self, spec: EnvSpec, *, key: Array) -> PPOState:
        networks = Trained.of(self.networks.actor_critic(spec, key=key), self._optimizer)
        return PPOState(networks=networks, objective=self.objective.init())

    def policy(self, state: PPOState, obs: Obs) -> AbstractDistribution:
        return state.networks.net.policy(obs)

    def v(self, state: PPOState, obs: Obs) -> Array:
        return state.networks.net.value(obs)

    def update(self, state: PPOState, batch: Transition, *, key: Array) -> tuple[PPOState, Metrics]:
        """All gradient steps on a rollout `[T, B]`."""
        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        samples = samples_of(state.networks.net, batch, reward, discount=self.discount, lambda_=self.lambda_)
        rows = minibatch_rows(samples.value.size, self.minibatch_size, self.epochs, key=key)
        minibatch_loss = partial(
            loss, objective=self.objective, adapted=state.objective, value_clip=self.value_clip,
            value_coefficient=self.value_coefficient, entropy_coefficient=self.entropy_coefficient,
        )  # fmt: skip

        def step(
            networks: Trained[AbstractActorCritic], rows: Int[Array, " size"]
        ) -> tuple[Trained[AbstractActorCritic], Metrics]:
            sample = jax.tree.map(lambda x: x[rows], samples)
            if self.normalize_advantage:
                sample = sample._replace(advantage=standardize(sample.advantage))
            return descend(minibatch_loss, networks, self._optimizer, sample)

        limit = self.target_kl
        stop = None if limit is None else lambda metrics: metrics["approx_kl"] > 1.5 * limit
        networks, metrics = fold_steps(step, state.networks, rows, stop=stop)
        # A schedule counts skipped steps too, so it follows the environment steps and ends with the run.
        networks = skip_steps(networks, len(rows) - metrics["steps"].astype(jnp.int32))
        kl = jnp.mean(samples.old.kl(networks.net.policy(samples.obs)))
        metrics |= {"kl": kl, "explained_variance": explained_variance(samples.value, samples.target)}
        return PPOState(networks=networks, objective=self.objective.update(state.objective, kl)), metrics
