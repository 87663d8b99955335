"""An algorithm of your own: the actor imitates the actions in the replay, and good actions most. Needs `gymnax`.

The advantage-weighted actor-critic of Nair et al. (2020), arXiv:2006.09359. docs/your-own-algorithm.md explains it.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import duologue as dl
from duologue.algorithms.families import AbstractNStepReplayed
from duologue.fields import Positive, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.ops.distributions import TanhNormal
from duologue.ops.losses import td_loss
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import first_row, n_step_target
from duologue.types import EnvSpec, Metrics, Obs, PyTree, Transition


class AWACState(eqx.Module):
    actor: Trained
    critics: Trained
    target_critics: PyTree


def actor_loss(
    actor: PyTree, obs: Obs, action: Float[Array, "N d"], weight: Float[Array, " N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J = −Σ w log π(a|s); the weights are constants here, and sum to 1."""
    loss = -jnp.sum(weight * actor(obs).log_prob(action))
    return loss, {"actor_loss": loss, "weight_max": jnp.max(weight)}


class AWAC(AbstractNStepReplayed[AWACState]):
    """Advantage-weighted actor-critic. Bounded Box actions."""

    learning_rate: LearningRate = 1e-3
    """Learning rate of the actor and the critics (η)."""
    temperature: Positive = 1.0
    """Temperature of the weights, in units of the return (λ): the smaller, the greedier the imitation."""
    replay_capacity: PositiveInt = 100_000
    """Largest number of transitions in the replay memory."""
    networks: AbstractNetworks = Networks(activation="relu", init="lecun")
    """Builder of actor and critics."""

    def init(self, spec: EnvSpec, *, key: Array) -> AWACState:
        actor_key, critics_key = jax.random.split(key)
        actor = self.networks.squashed_actor(spec, key=actor_key)
        critics = self.networks.critics(spec, 2, key=critics_key)
        optimizer = adam(self.learning_rate)
        return AWACState(Trained.of(actor, optimizer), Trained.of(critics, optimizer), target_of(critics))

    def policy(self, state: AWACState, obs: Obs) -> TanhNormal:
        return state.actor(obs)

    def q(self, state: AWACState, obs: Obs, action: Array) -> Array:
        return state.critics(obs, action)

    def update(self, state: AWACState, batch: Transition, *, key: Array) -> tuple[AWACState, Metrics]:
        """One step of the critics, the actor and the targets, on sequences `[n, N]`."""
        target_key, value_key = jax.random.split(key)
        (obs, action), optimizer = first_row(batch), adam(self.learning_rate)

        next_action = state.actor(batch.next_obs).sample(target_key)
        next_value = jnp.min(state.target_critics(batch.next_obs, next_action), axis=0)
        target = n_step_target(batch, next_value, self.discount)
        critics, critic_metrics = descend(td_loss, state.critics, optimizer, obs, action, target, name="critic_")

        value = jnp.min(critics(obs, state.actor(obs).sample(value_key)), axis=0)
        advantage = jnp.min(critics(obs, action), axis=0) - value
        weight = jax.nn.softmax(advantage / self.temperature)
        actor, actor_metrics = descend(actor_loss, state.actor, optimizer, obs, action, weight, name="actor_")

        target_critics = polyak(state.target_critics, critics.net, self.tau)
        return AWACState(actor, critics, target_critics), {**critic_metrics, **actor_metrics}


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
