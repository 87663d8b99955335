"""Networks of your own: one class is the builder, one class is the network.

The fields of the builder are hyperparameters. They are checked, written to the run folder, and read back from it.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import duologue as dl
from duologue.fields import PositiveInt
from duologue.networks.builder import AbstractActorCritic, AbstractNetworks
from duologue.networks.encoders import AbstractEncoder, make_encoder
from duologue.networks.heads import AbstractHead, policy_head
from duologue.networks.layers import Dense


class Residual(eqx.Module):
    """x + W₂ relu(W₁ norm(x)), with norm(x) of mean 0 and variance 1 over the features."""

    up: Dense
    down: Dense

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return x + self.down(jax.nn.relu(self.up(jax.nn.standardize(x, axis=-1))))


class ResidualActorCritic(AbstractActorCritic):
    """One residual trunk, and a linear layer each for policy and value. Every leaf is an array and is trained."""

    encoder: AbstractEncoder
    first: Dense
    blocks: tuple[Residual, ...]
    actor: Dense
    head: AbstractHead
    critic: Dense

    def features(self, obs: Array) -> Float[Array, "*batch d"]:
        x = self.first(self.encoder(obs))
        for block in self.blocks:
            x = block(x)
        return jnp.tanh(x)

    def policy(self, obs: Array):
        return self.head(self.actor(self.features(obs)), obs)

    def value(self, obs: Array) -> Float[Array, "*batch"]:
        return self.critic(self.features(obs))[..., 0]


class ResidualNetworks(AbstractNetworks):
    """Builds the network from the spaces of the environment."""

    width: PositiveInt = 64
    """Features of the trunk."""
    blocks: PositiveInt = 2
    """Residual blocks."""

    def actor_critic(self, spec, *, key: Array) -> ResidualActorCritic:
        keys = iter(jax.random.split(key, 4 + 2 * self.blocks))
        reads = make_encoder(spec.observation, init="orthogonal", key=next(keys))
        head = policy_head(spec.action, state_dependent_std=False, initial_log_std=0.0)

        def dense(inputs: int, outputs: int, scale: float) -> Dense:
            return Dense(inputs, outputs, scale=scale, init="orthogonal", key=next(keys))

        return ResidualActorCritic(
            encoder=reads,
            first=dense(reads.size, self.width, 1.0),
            blocks=tuple(
                Residual(dense(self.width, self.width, 1.4), dense(self.width, self.width, 0.1))
                for _ in range(self.blocks)
            ),
            actor=dense(self.width, head.size, 0.01),  # a first policy near uniform
            head=head,
            critic=dense(self.width, 1, 1.0),
        )


def main(steps: int) -> None:
    run = dl.train(dl.A2C(networks=ResidualNetworks(width=32)), "CartPole-v1", steps=steps)
    # Duologue imports no class by a name in a file. So pass your own class to load.
    run = dl.load(run.path, algorithm=ResidualNetworks)
    print(run.plan.algorithm.networks)
    print(run.evaluate(episodes=20))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps to learn from")
    main(parser.parse_args().steps)
