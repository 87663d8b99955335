"""TRPO, trust region policy optimisation.

Schulman et al. (2015), *Trust Region Policy Optimization*, arXiv:1502.05477. For each rollout, the policy takes one
large step along the natural gradient, as far as KL(π_old ‖ π) ≤ δ allows. A line search shortens this step until the
policy improves. The critic learns by its own gradient steps.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from duologue.algorithms.a2c import Samples, samples_of, value_loss
from duologue.algorithms.families import AbstractOnPolicy
from duologue.errors import ConfigError
from duologue.fields import OpenFraction, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks, SeparateActorCritic
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
)
from duologue.ops.returns import scale_and_clip
from duologue.ops.statistics import explained_variance, standardize
from duologue.ops.trust_region import line_search, natural_step
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition


class TRPOState(eqx.Module):
    networks: SeparateActorCritic
    critic_opt: PyTree
    """State of the critic's optimiser. The actor has no optimiser."""


def surrogate(networks: SeparateActorCritic, samples: Samples) -> Float[Array, ""]:
    """E[π(a|s)/π_old(a|s) Â] (eq. 14). Its gradient at θ_old is the policy gradient."""
    log_ratio = networks.policy(samples.obs).log_prob(samples.action) - samples.log_prob
    return jnp.mean(jnp.exp(log_ratio) * samples.advantage)


def mean_kl(networks: SeparateActorCritic, samples: Samples) -> Float[Array, ""]:
    """E[KL(π_old ‖ π)], where π_old is a constant."""
    return jnp.mean(samples.old.kl(networks.policy(samples.obs)))


def critic_loss(
    critic: PyTree, networks: SeparateActorCritic, obs: Obs, target: Float[Array, " size"]
) -> tuple[Array, Metrics]:
    """L_V = E[(G − V(s))²] as a function of the critic's parameters alone."""
    loss = value_loss(eqx.tree_at(critic_of, networks, critic).value(obs), target)
    return loss, {"value_loss": loss}


class TRPO(AbstractOnPolicy[TRPOState]):
    """Trust region policy optimisation (Schulman et al., 2015), with the defaults of sb3-contrib.

    Discrete, MultiDiscrete and Box actions; vector, image and Dict observations.
    """

    max_kl: Positive = 0.01
    """Largest E[KL(π_old ‖ π)] of one step (δ)."""
    damping: Positive = 0.1
    """Constant added to the diagonal of the Fisher matrix (κ)."""
    conjugate_gradient_steps: PositiveInt = 15
    """Iterations of conjugate gradient."""
    line_search_steps: PositiveInt = 10
    """Number of step lengths βʲ to try, j = 0, 1, …"""
    line_search_shrink: OpenFraction = 0.8
    """Factor from one step length to the next (β)."""
    learning_rate: LearningRate = 1e-3
    """Learning rate of the critic (η), a number or a `Linear` schedule."""
    minibatch_size: PositiveInt = 128
    """Number of transitions in a gradient step of the critic. This number must divide T × B."""
    epochs: PositiveInt = 10
    """Number of passes of the critic over a rollout."""
    normalize_advantage: bool = True
    """Whether to normalise the advantages of a rollout to mean 0 and standard deviation 1."""
    optimizer: RMSProp | Adam = Adam()
    """Optimiser of the critic."""
    networks: AbstractNetworks = Networks()
    """Builder of actor and critic: `Networks`, or an object of your own. Actor and critic share no parameters."""

    @property
    def experience(self) -> Experience:
        count = minibatch_count(self.rollout_length * self.num_envs, self.minibatch_size)
        return Experience(self.num_envs, self.rollout_length, gradient_steps=self.epochs * count)

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return flat_optimizer(self.optimizer, self.learning_rate)

    def init(self, spec: EnvSpec, *, key: Array) -> TRPOState:
        networks = separate(self.networks).actor_critic(spec, key=key)
        if not isinstance(networks, SeparateActorCritic):
            raise ConfigError(
                f"TRPO.networks builds {type(networks).__name__}: actor and critic must share no weights, because "
                "steps of the critic would move the actor out of its trust region. Set shared_trunk to False, or "
                "build a SeparateActorCritic."
            )
        critic_opt = self._critic_optimizer.init(critic_of(networks))
        return TRPOState(networks=networks, critic_opt=critic_opt)

    def policy(self, state: TRPOState, obs: Obs) -> AbstractDistribution:
        return state.networks.policy(obs)

    def v(self, state: TRPOState, obs: Obs) -> Array:
        return state.networks.value(obs)

    def update(self, state: TRPOState, batch: Transition, *, key: Array) -> tuple[TRPOState, Metrics]:
        """One step of the actor, and the epochs of the critic, on a rollout `[T, B]`."""
        networks = state.networks
        reward = scale_and_clip(batch.reward, scale=self.reward_scale, clip=self.reward_clip)
        samples = samples_of(networks, batch, reward, discount=self.discount, lambda_=self.lambda_)
        if self.normalize_advantage:
            samples = samples._replace(advantage=standardize(samples.advantage))
        networks, actor_metrics = self._actor_step(networks, samples)
        rows = minibatch_rows(samples.value.size, self.minibatch_size, self.epochs, key=key)

        def step(critic: Trained[PyTree], rows: Int[Array, " size"]) -> tuple[Trained[PyTree], Metrics]:
            obs, target = jax.tree.map(lambda x: x[rows], (samples.obs, samples.target))
            return descend(critic_loss, critic, self._critic_optimizer, networks, obs, target, name="critic_")

        critic, critic_metrics = fold_steps(step, Trained(critic_of(networks), state.critic_opt), rows)
        networks = eqx.tree_at(critic_of, networks, critic.net)
        fit = explained_variance(samples.value, samples.target)
        state = TRPOState(networks=networks, critic_opt=critic.opt_state)
        return state, {**actor_metrics, **critic_metrics, "explained_variance": fit}

    def _actor_step(self, networks: SeparateActorCritic, samples: Samples) -> tuple[SeparateActorCritic, Metrics]:
        """Return the networks after the first step that raises the surrogate and has a KL of at most δ. If no step does
        both, the networks stay the same, bit for bit."""

        def with_actor(actor: PyTree) -> SeparateActorCritic:
            return eqx.tree_at(actor_of, networks, actor)

        actor = actor_of(networks)
        before, gradient = jax.value_and_grad(lambda actor: surrogate(with_actor(actor), samples))(actor)
        step = natural_step(
            lambda actor: mean_kl(with_actor(actor), samples), actor, gradient,
            delta=self.max_kl, damping=self.damping, iterations=self.conjugate_gradient_steps,
        )  # fmt: skip

        def accept(actor: PyTree) -> Bool[Array, ""]:
            tried = with_actor(actor)
            return (surrogate(tried, samples) > before) & (mean_kl(tried, samples) <= self.max_kl)

        actor, share = line_search(actor, step, accept, shrink=self.line_search_shrink, tries=self.line_search_steps)
        networks = with_actor(actor)
        return networks, {
            "policy_objective": surrogate(networks, samples) - before,
            "kl": mean_kl(networks, samples),
            "line_search": share,
            "entropy": jnp.mean(samples.old.entropy()),
            "value": jnp.mean(networks.value(samples.obs)),
            "actor_gradient_norm": optax.tree.norm(gradient),
        }


def separate(networks: AbstractNetworks) -> AbstractNetworks:
    """`networks`; `Networks` that leave the choice to the observation share no trunk."""
    undecided = isinstance(networks, Networks) and networks.shared_trunk is None
    return replace(networks, shared_trunk=False) if undecided else networks


def actor_of(networks: SeparateActorCritic) -> PyTree:
    """The part of the networks that the policy depends on."""
    return networks.actor_encoder, networks.actor, networks.head


def critic_of(networks: SeparateActorCritic) -> PyTree:
    """The part of the networks that the value depends on."""
    return networks.critic_encoder, networks.critic
