"""DDPG, the deep deterministic policy gradient.

Lillicrap et al. (2016), *Continuous Control with Deep Reinforcement Learning*, arXiv:1509.02971: one critic, one
deterministic actor, a slow copy of each. It is TD3 without its three changes. The noise on actions is uncorrelated
(the paper's Ornstein-Uhlenbeck process gains nothing, Fujimoto et al., 2018).
"""

import jax
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.algorithms.td3 import TD3, TD3State, actor_loss
from duologue.fields import Fraction, NonNegative, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.ops.losses import td_loss
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Experience, Metrics, Transition


class DDPG(AbstractAlgorithm[TD3State]):
    """Deep deterministic policy gradient (Lillicrap et al., 2016).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 1e-3
    """η of the actor, a number or a `Linear` schedule (the paper has 1e-4)."""
    critic_learning_rate: LearningRate = 1e-3
    """η of the critic."""
    exploration_noise: NonNegative = 0.1
    """σ of the noise on actions while training, in half-ranges of the box."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the targets follow at each update (the paper has 0.001)."""
    n_step: PositiveInt = 1
    """n, rewards summed before a target bootstraps. Above 1 nothing corrects for actions that the policy would not take
    now."""
    batch_size: PositiveInt = 256
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 100
    """Environment steps before the first update."""
    start_steps: NonNegativeInt = 100
    """Environment steps with uniformly random actions."""
    rollout_length: PositiveInt = 1
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    networks: AbstractNetworks = Networks(hidden_sizes=(256, 256), activation="relu", init="lecun", policy_scale=1.0)
    """Builds actor and critic: `Networks`, or an object of your own."""

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> TD3State:
        actor_key, critic_key = jax.random.split(key)
        actor = self.networks.deterministic_actor(spec, key=actor_key)
        critic = self.networks.critics(spec, 1, key=critic_key)
        return TD3State(
            actor=actor, critics=critic, target_actor=target_of(actor), target_critics=target_of(critic),
            bounds=box_bounds(require_bounded_box(spec.action)),
            actor_opt=opt_init(adam(self.actor_learning_rate), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critic),
        )  # fmt: skip

    act, q = TD3.act, TD3.q

    def update(self, state: TD3State, batch: Transition, *, key: Array) -> tuple[TD3State, Metrics]:
        """One step of the critic, the actor and the targets, in this order, on sequences `[n, N]`."""
        obs, action = first_row(batch)
        # y = r + γ(1 − term) Q̄(s', μ̄(s')).
        next_value = state.target_critics(batch.next_obs, state.target_actor(batch.next_obs))[0]
        critic, critic_opt, critic_metrics = gradient_step(
            td_loss, state.critics, state.critic_opt, adam(self.critic_learning_rate),
            obs, action, n_step_target(batch, next_value, self.discount), name="critic_",
        )  # fmt: skip
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, adam(self.actor_learning_rate), critic, obs, action, name="actor_"
        )
        state = TD3State(
            actor=actor, critics=critic, target_actor=polyak(state.target_actor, actor, self.tau),
            target_critics=polyak(state.target_critics, critic, self.tau), bounds=state.bounds,
            actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**critic_metrics, **actor_metrics}
