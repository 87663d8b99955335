"""BCQ, batch-constrained Q-learning.

Fujimoto et al. (2019), *Off-Policy Deep Reinforcement Learning without Exploration*, arXiv:1812.02900: the policy
considers only actions that the data could contain in the same state. A VAE proposes actions, the network ξ changes each
action a little, and the critics choose one action.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.families import AbstractRecorded
from duologue.fields import Fraction, NonNegative, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.networks.vae import VAE, vae_loss
from duologue.ops.distributions import Bounds
from duologue.ops.losses import td_loss
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import EnvSpec, Metrics, Obs, PyTree, Transition

Perturbation: TypeAlias = Callable[[Obs, Array], Array]
Critics: TypeAlias = Callable[[Obs, Array], Array]


class BCQState(eqx.Module):
    vae: Trained[VAE]
    perturbation: Trained[Perturbation]
    critics: Trained[Critics]
    target_perturbation: Perturbation
    target_critics: Critics
    bounds: Bounds
    """Constant bounds of the actions."""


def clipped_double_q(q: Float[Array, "E ..."], minimum_weight: float) -> Float[Array, "*batch"]:
    """λ minᵢ Qᵢ + (1 − λ) maxᵢ Qᵢ (eq. 13). With λ = 1 this is the minimum, as in TD3."""
    return minimum_weight * jnp.min(q, axis=0) + (1 - minimum_weight) * jnp.max(q, axis=0)


def perturb(
    perturbation: Perturbation, obs: Obs, action: Float[Array, "*batch d"], bounds: Bounds, *, limit: float
) -> Float[Array, "*batch d"]:
    """a + Φ h ξ(s, a), clipped to the box. h is the half-range of the box."""
    box = bounds.broadcast(action)
    return box.clip(action + limit * box.half_range * perturbation(obs, action))


def propose(
    vae: VAE, perturbation: Perturbation, obs: Obs, bounds: Bounds, *, count: int, limit: float, key: Array
) -> Float[Array, "n N d"]:
    """Draw `count` actions of the VAE for each state, and perturb them. The constrained policy chooses among these
    actions."""
    return perturb(perturbation, obs, vae.sample(obs, count, key=key), bounds, limit=limit)


def best_action(critics: Critics, obs: Obs, actions: Float[Array, "n N d"]) -> Float[Array, "N d"]:
    """The action aₖ with the highest Q₁(s, aₖ), for each state."""
    best = jnp.argmax(critics(obs, actions)[0], axis=0)
    return jnp.take_along_axis(actions, best[None, :, None], axis=0)[0]


def target_value(
    critics: Critics, obs: Obs, actions: Float[Array, "n N d"], *, minimum_weight: float
) -> Float[Array, " N"]:
    """maxₖ [λ minᵢ Q̄ᵢ(s, aₖ) + (1 − λ) maxᵢ Q̄ᵢ(s, aₖ)]. The maximum over the actions comes last."""
    return jnp.max(clipped_double_q(critics(obs, actions), minimum_weight), axis=0)


def actor_loss(
    perturbation: Perturbation, critics: Critics, obs: Obs, action: Float[Array, "N d"], bounds: Bounds, limit: float
) -> tuple[Float[Array, ""], Metrics]:
    """J = −E[Q₁(s, a + Φ h ξ(s, a))], where the VAE draws a (eq. 11)."""
    better = perturb(perturbation, obs, action, bounds, limit=limit)
    loss = -jnp.mean(critics(obs, better)[0])
    return loss, {"actor_loss": loss}


class BCQ(AbstractRecorded[BCQState]):
    """Batch-constrained Q-learning (Fujimoto et al., 2019), for recorded data.

    Bounded Box actions; vector, image and Dict observations. The defaults come from the authors' code.
    """

    learning_rate: LearningRate = 1e-3
    """Learning rate of VAE, critics and perturbation (η), a number or a `Linear` schedule."""
    perturbation_limit: NonNegative = 0.05
    """Largest change of an action of the VAE, in half-ranges of the box (Φ)."""
    minimum_weight: Fraction = 0.75
    """Weight of the smallest critic in a target (λ); the largest has the rest."""
    target_candidates: PositiveInt = 10
    """Number of actions of the VAE from which a target takes the best."""
    candidates: PositiveInt = 100
    """Number of actions of the VAE from which the test policy takes the one with the highest Q₁."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (τ): target ← (1 − τ) target + τ learned, in each update."""
    batch_size: PositiveInt = 100
    """Transitions in a batch (N)."""
    networks: AbstractNetworks = Networks(hidden_sizes=(400, 300), activation="relu", init="lecun")
    """Builder of critics and perturbation: `Networks`, or an object of your own."""
    vae_networks: AbstractNetworks = Networks(hidden_sizes=(750, 750), activation="relu", init="lecun")
    """Builder of the VAE."""

    def init(self, spec: EnvSpec, *, key: Array) -> BCQState:
        vae_key, actor_key, critics_key = jax.random.split(key, 3)
        vae = self.vae_networks.vae(spec, key=vae_key)
        perturbation = self.networks.perturbation(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        optimizer = adam(self.learning_rate)
        return BCQState(
            vae=Trained.of(vae, optimizer),
            perturbation=Trained.of(perturbation, optimizer),
            critics=Trained.of(critics, optimizer),
            target_perturbation=target_of(perturbation),
            target_critics=target_of(critics),
            bounds=box_bounds(require_bounded_box(spec.action)),
        )

    def act(
        self, state: BCQState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """Test policy: of `candidates` proposals, the action with the highest Q₁. To explore: one proposal."""
        actions = propose(
            state.vae.net, state.perturbation, obs, state.bounds,
            count=1 if explore else self.candidates, limit=self.perturbation_limit, key=key,
        )  # fmt: skip
        return best_action(state.critics, obs, actions), {}, carry

    def q(self, state: BCQState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: BCQState, batch: Transition, *, key: Array) -> tuple[BCQState, Metrics]:
        """One step of VAE, critics, perturbation and targets, in this order, on transitions `[N]`."""
        vae_key, target_key, actor_key = jax.random.split(key, 3)
        obs, action, optimizer = batch.obs, batch.action, adam(self.learning_rate)

        vae, vae_metrics = descend(vae_loss, state.vae, optimizer, obs, action, vae_key, name="vae_")
        actions = propose(
            vae.net, state.target_perturbation, batch.next_obs, state.bounds,
            count=self.target_candidates, limit=self.perturbation_limit, key=target_key,
        )  # fmt: skip
        value = target_value(state.target_critics, batch.next_obs, actions, minimum_weight=self.minimum_weight)
        target = td_target(batch.reward, batch.terminated, value, self.discount)
        critics, critic_metrics = descend(td_loss, state.critics, optimizer, obs, action, target, name="critic_")
        generated = vae.net.sample(obs, 1, key=actor_key)[0]
        perturbation, actor_metrics = descend(
            actor_loss, state.perturbation, optimizer,
            critics, obs, generated, state.bounds, self.perturbation_limit, name="actor_",
        )  # fmt: skip
        state = BCQState(
            vae=vae, perturbation=perturbation, critics=critics,
            target_perturbation=polyak(state.target_perturbation, perturbation.net, self.tau),
            target_critics=polyak(state.target_critics, critics.net, self.tau), bounds=state.bounds,
        )  # fmt: skip
        return state, {**vae_metrics, **critic_metrics, **actor_metrics}
