"""DDPG, the deep deterministic policy gradient.

Lillicrap et al. (2016), *Continuous Control with Deep Reinforcement Learning*, arXiv:1509.02971: one critic, one
deterministic actor, and a slow copy of each. DDPG is TD3 without the three changes of TD3. The noise on actions is
uncorrelated. The paper uses an Ornstein-Uhlenbeck process, which has no advantage (Fujimoto et al., 2018).
"""

from jaxtyping import Array

from duologue.algorithms.td3 import AbstractDeterministic, TD3State, deterministic_init, policy_loss
from duologue.fields import Fraction
from duologue.ops.losses import td_loss
from duologue.ops.optim import LearningRate, adam, descend, polyak
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Metrics, Transition


class DDPG(AbstractDeterministic):
    """Deep deterministic policy gradient (Lillicrap et al., 2016).

    Bounded Box actions; vector, image and Dict observations.
    """

    actor_learning_rate: LearningRate = 1e-3
    """Learning rate of the actor (η), a number or a `Linear` schedule; the paper has 1e-4."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (τ): target ← (1 − τ) target + τ learned. The paper has 0.001."""

    def init(self, spec: EnvSpec, *, key: Array) -> TD3State:
        return deterministic_init(self, spec, key, critics=1)

    def update(self, state: TD3State, batch: Transition, *, key: Array) -> tuple[TD3State, Metrics]:
        """One step of the critic, the actor and the targets, in this order, on sequences `[n, N]`."""
        obs, action = first_row(batch)
        # y = r + γ(1 − term) Q̄(s', μ̄(s')).
        next_value = state.target_critics(batch.next_obs, state.target_actor(batch.next_obs))[0]
        target = n_step_target(batch, next_value, self.discount)
        critic, critic_metrics = descend(
            td_loss, state.critics, adam(self.critic_learning_rate), obs, action, target, name="critic_"
        )
        actor, actor_metrics = descend(
            policy_loss, state.actor, adam(self.actor_learning_rate), critic, obs, action, name="actor_"
        )
        state = TD3State(
            actor=actor, critics=critic, target_actor=polyak(state.target_actor, actor.net, self.tau),
            target_critics=polyak(state.target_critics, critic.net, self.tau), bounds=state.bounds,
        )  # fmt: skip
        return state, {**critic_metrics, **actor_metrics}
