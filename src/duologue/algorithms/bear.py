"""BEAR, bootstrapping error accumulation reduction.

Kumar et al. (2019), *Stabilizing Off-Policy Q-Learning via Bootstrapping Error Reduction*, arXiv:1906.00949. The
policy stays on the support of the data. It solves max_π E[Q(s, a)] subject to E[MMD(data(·|s), π(·|s))] ≤ ε, by dual
ascent on λ.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from duologue.algorithms.bcq import Critics, best_action, target_value
from duologue.algorithms.families import AbstractRecorded, recorded_experience
from duologue.errors import ConfigError
from duologue.fields import Fraction, NonNegative, NonNegativeInt, PositiveInt, Share
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.vae import VAE, vae_loss
from duologue.ops.distributions import TanhNormal, draws
from duologue.ops.divergences import KL, MMD
from duologue.ops.metrics import summary_metrics
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.ops.temperature import Dual, Fixed
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition

Actor: TypeAlias = Callable[[Obs], TanhNormal]
Value: TypeAlias = Callable[[Obs, Array], tuple[Array, Metrics]]

REDUCTIONS = {"min": jnp.min, "max": jnp.max, "mean": jnp.mean}
"""Functions that reduce the values of the ensemble to one value."""
DEVIATIONS = ((1 - 0.1) / 0.1) ** 0.5
"""Number of standard deviations to subtract for a lower bound with confidence 1 − δ: √((1 − δ)/δ), δ = 0.1 (§5.2)."""


class BEARState(eqx.Module):
    vae: Trained[VAE]
    actor: Trained[Actor]
    critics: Trained[Critics]
    target_actor: Actor
    target_critics: Critics
    multiplier: PyTree
    step: Int[Array, ""]
    """Updates so far."""


def critic_loss(
    critics: Critics, obs: Obs, action: Float[Array, "N d"], target: Float[Array, " N"], mask: Float[Array, "E N"]
) -> tuple[Float[Array, ""], Metrics]:
    """L = Σᵢ E[mᵢ (Qᵢ(s, a) − y)²]; critic i learns from the rows in its mask."""
    q = critics(obs, action)
    loss = jnp.sum(jnp.mean(mask * (q - target[None]) ** 2, axis=-1))
    return loss, {"critic_loss": loss, **summary_metrics("q", q)}


def policy_value(
    critics: Critics, obs: Obs, actions: Float[Array, "n N d"],
    *, q_samples: int | None, ensemble: str, variance_weight: float,
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """Objective of the actor, E[Qₑ(s, ã)] − λ_std √((1 − δ)/δ) E[std Q], for actions ã of the policy.

    Each critic is averaged over the first `q_samples` actions, then Qₑ is the min, max or mean over the ensemble.
    """
    q = jnp.mean(critics(obs, actions[:q_samples]), axis=1)
    # 1e-6: where all critics are equal, the gradient of the root would be infinite.
    spread = DEVIATIONS * jnp.mean(jnp.sqrt(jnp.var(q, axis=0) + 1e-6))
    value = jnp.mean(REDUCTIONS[ensemble](q, axis=0))
    return value - variance_weight * spread, {"q_spread": spread}


def actor_loss(
    actor: Actor, value: Value, distance: MMD | KL, multiplier: Float[Array, ""], warm: Bool[Array, ""],
    data: Float[Array, "n N d"], obs: Obs, key: Array,
) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """J = −V(s, ã) + λ E[D(data(·|s), π(·|s))], where `policy_value` gives V. While `warm`, J has no −V(s, ã).

    Raw actions are actions before the tanh. `data` holds raw actions of the VAE, and gets no gradient. The policy draws
    the same number of raw actions, and gets the gradient through them.
    """
    policy = actor(obs)
    raw = draws(policy.base.sample, len(data), key=key)
    divergence = distance(data, policy.base, raw)
    actions = jax.vmap(policy.squash)(raw)
    improvement, metrics = value(obs, actions)
    loss = jnp.where(warm, 0.0, -improvement) + multiplier * jnp.mean(divergence)
    return loss, {
        "actor_loss": loss, **metrics, **summary_metrics("divergence", divergence),
        **summary_metrics("action_distance", squared_distance(jax.vmap(policy.squash)(data), actions)),
        **summary_metrics("raw_action_distance", squared_distance(data, raw)),
    }  # fmt: skip


def squared_distance(x: Float[Array, "n N d"], y: Float[Array, "n N d"]) -> Float[Array, "n N"]:
    """‖x − y‖² of each pair. The authors' code calls it the action divergence. It is only logged."""
    return jnp.sum((x - y) ** 2, axis=-1)


class BEAR(AbstractRecorded[BEARState]):
    """Bootstrapping error accumulation reduction (Kumar et al., 2019), for recorded data.

    Bounded Box actions; vector, image and Dict observations. The defaults are the settings in the
    example command of the authors' first code, for Walker2d. `LATER` has the settings of their later code.
    """

    actor_learning_rate: LearningRate = 1e-3
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 1e-3
    """Learning rate of the critics (η)."""
    vae_learning_rate: LearningRate = 1e-3
    """Learning rate of the VAE (η). The VAE models the behaviour policy."""
    distance: MMD | KL = MMD()
    """Divergence between data and policy (D): `MMD` for support matching, `KL` for distribution matching."""
    multiplier: Dual | Fixed = Dual(threshold=0.05)
    """Weight of the divergence (λ): `Dual` ascent that keeps D at its threshold ε, or `Fixed`. `KL` leaves
    out the entropy of the data, so its value can be negative. With `KL`, the authors use ε = −2."""
    samples: PositiveInt = 5
    """Number of raw actions that D compares (n): n of the VAE and n of the policy."""
    q_samples: PositiveInt | None = None
    """The policy draws `samples` actions. The actor's objective averages each critic over the first `q_samples`.
    None: over all of them."""
    ensemble: Literal["min", "max", "mean"] = "min"
    """Reduction of the critics to the value that the actor maximises."""
    ensemble_size: PositiveInt = 2
    """Number of critics (E)."""
    variance_weight: NonNegative = 0.0
    """Weight of the deviation of the critics in the actor's loss (λ_std)."""
    mask_probability: Share | None = None
    """Probability that a critic learns from a row. A mask is drawn once for each row and critic (bootstrapped
    ensemble). None: all learn from all rows."""
    warm_start: NonNegativeInt = 20_000
    """Number of updates at the start in which the actor follows only the constraint."""
    target_actor: bool = True
    """True: a Polyak copy of the actor draws the next actions for the targets. False: the actor itself draws them."""
    target_candidates: PositiveInt = 10
    """Number of actions that the policy draws to compute a target. The target is the value of the best of them."""
    minimum_weight: Fraction = 0.75
    """Weight of the smallest critic value in a target; the largest value has the weight 1 − this."""
    candidates: NonNegativeInt = 10
    """Number of actions that the test policy draws, to take the one with the highest Q₁. 0: the mean action."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (τ): target ← (1 − τ) target + τ learned, in each update."""
    batch_size: PositiveInt = 100
    """Transitions in a batch (N)."""
    networks: AbstractNetworks = Networks(hidden_sizes=(400, 300), activation="relu", init="lecun")
    """Builder of actor and critics: `Networks`, or an object of your own."""
    vae_networks: AbstractNetworks = Networks(hidden_sizes=(750, 750), activation="relu", init="lecun")
    """Builder of the VAE."""

    def __check_init__(self):
        if self.q_samples is not None and self.q_samples > self.samples:
            raise ConfigError(f"BEAR.q_samples = {self.q_samples}: must be at most samples = {self.samples}.")

    @property
    def experience(self) -> Experience:
        extras = () if self.mask_probability is None else ("mask",)
        return recorded_experience(self.batch_size, self.replay_capacity, self.num_envs, extras=extras)

    def init(self, spec: EnvSpec, *, key: Array) -> BEARState:
        vae_key, actor_key, critics_key = jax.random.split(key, 3)
        vae = self.vae_networks.vae(spec, key=vae_key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, self.ensemble_size, key=critics_key)
        return BEARState(
            vae=Trained.of(vae, adam(self.vae_learning_rate)),
            actor=Trained.of(actor, adam(self.actor_learning_rate)),
            critics=Trained.of(critics, adam(self.critic_learning_rate)),
            target_actor=target_of(actor),
            target_critics=target_of(critics),
            multiplier=self.multiplier.init(),
            step=jnp.int32(0),
        )

    def policy(self, state: BEARState, obs: Obs) -> TanhNormal:
        return state.actor(obs)

    def act(
        self, state: BEARState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """To test, draw `candidates` actions and take the one with the highest Q₁. To explore, draw one action."""
        policy = state.actor(obs)
        action_key, extras_key = jax.random.split(key)
        if explore:
            action = policy.sample(action_key)
        elif self.candidates:
            action = best_action(state.critics, obs, draws(policy.sample, self.candidates, key=action_key))
        else:
            action = policy.mode()
        return action, self.drawn_extras(len(action), key=extras_key), carry

    def drawn_extras(self, count: int, *, key: Array) -> dict[str, Array]:
        if self.mask_probability is None:
            return {}
        mask = jax.random.bernoulli(key, self.mask_probability, (count, self.ensemble_size))
        return {"mask": mask.astype(jnp.float32)}

    def q(self, state: BEARState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: BEARState, batch: Transition, *, key: Array) -> tuple[BEARState, Metrics]:
        """One step of VAE, critics, actor, multiplier and targets, in this order, on transitions `[N]`."""
        vae_key, target_key, data_key, actor_key = jax.random.split(key, 4)
        obs, action = batch.obs, batch.action

        vae, vae_metrics = descend(vae_loss, state.vae, adam(self.vae_learning_rate), obs, action, vae_key, name="vae_")
        policy = (state.target_actor if self.target_actor else state.actor)(batch.next_obs)
        next_actions = draws(policy.sample, self.target_candidates, key=target_key)
        next_value = target_value(
            state.target_critics, batch.next_obs, next_actions, minimum_weight=self.minimum_weight
        )
        target = td_target(batch.reward, batch.terminated, next_value, self.discount)
        mask = jnp.ones((self.ensemble_size, 1)) if self.mask_probability is None else batch.extras["mask"].T
        mask = jnp.broadcast_to(mask, (self.ensemble_size, len(target)))
        critics, critic_metrics = descend(
            critic_loss, state.critics, adam(self.critic_learning_rate), obs, action, target, mask, name="critic_"
        )
        value = partial(
            policy_value, critics,
            q_samples=self.q_samples, ensemble=self.ensemble, variance_weight=self.variance_weight,
        )  # fmt: skip
        weight, warm = self.multiplier.weight(state.multiplier), state.step < self.warm_start
        data = vae.net.sample_raw(obs, self.samples, key=data_key)
        actor, actor_metrics = descend(
            actor_loss, state.actor, adam(self.actor_learning_rate),
            value, self.distance, weight, warm, data, obs, actor_key, name="actor_",
        )  # fmt: skip
        multiplier, _ = self.multiplier.update(state.multiplier, actor_metrics["divergence_mean"])
        state = BEARState(
            vae=vae, actor=actor, critics=critics, target_actor=polyak(state.target_actor, actor.net, self.tau),
            target_critics=polyak(state.target_critics, critics.net, self.tau),
            multiplier=multiplier, step=state.step + 1,
        )  # fmt: skip
        return state, {**vae_metrics, **critic_metrics, **actor_metrics, "multiplier": weight}


LATER = BEAR(
    actor_learning_rate=1e-4, critic_learning_rate=3e-4, vae_learning_rate=3e-4, samples=4, q_samples=1,
    distance=MMD(kernel="laplacian"), warm_start=40_000, target_actor=False, candidates=100, batch_size=256,
    networks=Networks(hidden_sizes=(256, 256), activation="relu", init="lecun"),
)  # fmt: skip
"""The settings of the authors' later code, for the D4RL benchmark. The authors recommend them. For HalfCheetah they use
a Gaussian kernel: `distance=MMD(kernel="gaussian")`.

Two differences remain. First, the authors' code computes all three losses, and then updates critics, actor and
multiplier. Duologue updates each of these before it computes the next loss. Second, their actor clips log σ to [−5, 2];
ours does not."""
