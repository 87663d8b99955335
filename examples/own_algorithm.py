"""An algorithm of your own: the actor imitates the actions in the replay, and good actions most. Needs `gymnax`.

The advantage-weighted actor-critic of Nair et al. (2020), arXiv:2006.09359. docs/your-own-algorithm.md explains it.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import duologue as dl
from duologue.algorithms.base import AbstractAlgorithm, replayed
from duologue.fields import Fraction, NonNegativeInt, Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.losses import td_loss
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Transition


class AWACState(eqx.Module):
    actor: PyTree
    critics: PyTree
    target_critics: PyTree
    actor_opt: PyTree
    critic_opt: PyTree


def actor_loss(
    actor: PyTree, obs: Obs, action: Float[Array, "N d"], weight: Float[Array, " N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J = −Σ w log π(a|s); the weights are data here, and sum to 1."""
    loss = -jnp.sum(weight * actor(obs).log_prob(action))
    return loss, {"actor_loss": loss, "weight_max": jnp.max(weight)}


class AWAC(AbstractAlgorithm[AWACState]):
    """Advantage-weighted actor-critic. Bounded Box actions."""

    learning_rate: LearningRate = 1e-3
    """η of the actor and the critics."""
    temperature: Positive = 1.0
    """λ, in units of the return: the smaller, the greedier the imitation."""
    discount: Fraction = 0.99
    """γ."""
    tau: Fraction = 0.005
    """τ, how far the target critics follow at each update."""
    n_step: PositiveInt = 1
    """Rewards in a target before it bootstraps."""
    batch_size: PositiveInt = 256
    """N, transitions of an update."""
    replay_capacity: PositiveInt = 100_000
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
    networks: AbstractNetworks = Networks(activation="relu", init="lecun")
    """Builds actor and critics."""

    @property
    def experience(self) -> Experience:
        return replayed(self)

    def init(self, spec: EnvSpec, *, key: Array) -> AWACState:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        optimizer = adam(self.learning_rate)
        return AWACState(
            actor=actor, critics=critics, target_critics=target_of(critics),
            actor_opt=opt_init(optimizer, actor), critic_opt=opt_init(optimizer, critics),
        )  # fmt: skip

    def act(self, state: AWACState, carry: None, obs: Obs, *, key: Array, explore: bool):
        policy = state.actor(obs)
        action = policy.sample(key) if explore else policy.mode()
        return action, {}, carry

    def q(self, state: AWACState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: AWACState, batch: Transition, *, key: Array) -> tuple[AWACState, Metrics]:
        """One step of the critics, the actor and the targets, on sequences `[n, N]`."""
        target_key, value_key = jax.random.split(key)
        (obs, action), optimizer = first_row(batch), adam(self.learning_rate)

        next_action = state.actor(batch.next_obs).sample(target_key)
        next_value = jnp.min(state.target_critics(batch.next_obs, next_action), axis=0)
        target = n_step_target(batch, next_value, self.discount)
        critics, critic_opt, critic_metrics = gradient_step(
            td_loss, state.critics, state.critic_opt, optimizer, obs, action, target, name="critic_"
        )
        value = jnp.min(critics(obs, state.actor(obs).sample(value_key)), axis=0)
        advantage = jnp.min(critics(obs, action), axis=0) - value
        weight = jax.nn.softmax(advantage / self.temperature)
        actor, actor_opt, actor_metrics = gradient_step(
            actor_loss, state.actor, state.actor_opt, optimizer, obs, action, weight, name="actor_"
        )
        state = AWACState(
            actor=actor, critics=critics, target_critics=polyak(state.target_critics, critics, self.tau),
            actor_opt=actor_opt, critic_opt=critic_opt,
        )  # fmt: skip
        return state, {**critic_metrics, **actor_metrics}


def main(steps: int) -> None:
    runs = dl.train(AWAC(), "gymnax/Pendulum-v1", steps=steps, seeds=3)
    print(runs.evaluate(episodes=10))

    # The folder names the class and does not hold it. So pass the class to load and to resume.
    same = dl.load(runs.path, algorithm=AWAC)
    obs = jnp.array([1.0, 0.0, 0.0])
    assert same[2].policy(obs) == runs[2].policy(obs)
    print(dl.resume(runs.path, steps=steps + steps // 5, algorithm=AWAC).evaluate(episodes=10))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of each seed")
    main(parser.parse_args().steps)
