"""Fields that families of algorithms share, each with the `Experience` that follows from them.

A page lists what its paper adds, and repeats a field only where its default or its meaning differs.
"""

from typing import Literal, TypeVar

from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegativeInt, Positive, PositiveInt
from duologue.types import Experience, Obs, PyTree, Replay

State = TypeVar("State")


class AbstractReplayed(AbstractAlgorithm[State]):
    """Learns from replay: each update reads transitions `[N]` of the past."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    tau: Fraction = 0.005
    """Share of the way that target networks move towards the learned ones in each of their steps (τ)."""
    batch_size: PositiveInt = 256
    """Transitions in a batch (N)."""
    replay_capacity: PositiveInt = 1_000_000
    """Largest number of transitions in the replay memory."""
    learning_starts: NonNegativeInt = 100
    """Environment steps before the first update."""
    start_steps: NonNegativeInt = 100
    """Environment steps with uniformly random actions, at the start."""
    rollout_length: PositiveInt = 1
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """Environments that step together (B)."""

    @property
    def experience(self) -> Experience:
        return replay_experience(self)


class AbstractNStepReplayed(AbstractReplayed[State]):
    """Learns from replayed sequences `[n, N]`, with n-step targets."""

    n_step: PositiveInt = 1
    """Rewards in the sum before a target bootstraps (n). Above 1, nothing corrects for actions that the policy would no
    longer take, and soft targets leave out the entropies in between."""

    @property
    def experience(self) -> Experience:
        return replay_experience(self, sequence_length=self.n_step)


class AbstractRecorded(AbstractAlgorithm[State]):
    """Made for data that others recorded: each update reads transitions `[N]`. In an environment it makes one update a
    step."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    batch_size: PositiveInt = 256
    """Transitions in a batch (N)."""
    replay_capacity: PositiveInt = 1_000_000
    """Largest number of transitions in the replay memory, in an environment."""
    num_envs: PositiveInt = 1
    """Environments that step together (B), where it learns in one."""

    @property
    def experience(self) -> Experience:
        return recorded_experience(self.batch_size, self.replay_capacity, self.num_envs)


class AbstractOnPolicy(AbstractAlgorithm[State]):
    """Learns from each rollout `[T, B]` of the newest policy, and then forgets the rollout."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    lambda_: Fraction = 0.95
    """Decay of generalised advantage estimation (λ); 1 sums all rewards of the rollout."""
    rollout_length: PositiveInt = 2048
    """Steps of each environment between two updates (T)."""
    num_envs: PositiveInt = 1
    """Environments that step together (B)."""
    reward_scale: Positive = 1.0
    """Factor of all rewards in learning; logged returns are without it."""
    reward_clip: Positive | None = None
    """Largest size of a reward in learning, after scaling; None for no clip."""
    test_policy: Literal["greedy", "sampled"] = "greedy"
    """Action of a test: the mode of the policy, or a sample of it as in training."""

    @property
    def experience(self) -> Experience:
        return Experience(num_envs=self.num_envs, rollout_length=self.rollout_length)

    def act(
        self, state: State, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        return super().act(state, carry, obs, key=key, explore=explore or self.test_policy == "sampled")


def replay_experience(
    algorithm: AbstractReplayed, *, sequence_length: int | None = None, batches_per_update: int | None = None
) -> Experience:
    """The experience of an algorithm that learns from replay alone."""
    replay = Replay(
        capacity=algorithm.replay_capacity,
        batch_size=algorithm.batch_size,
        sequence_length=sequence_length,
        updates=algorithm.updates,
        batches_per_update=batches_per_update,
        learning_starts=algorithm.learning_starts,
        start_steps=algorithm.start_steps,
    )
    return Experience(
        algorithm.num_envs, algorithm.rollout_length, learn_from_rollout=False, replay=replay,
        gradient_steps=batches_per_update or 1,
    )  # fmt: skip


def recorded_experience(
    batch_size: int, capacity: int = 1_000_000, num_envs: int = 1, *, extras: tuple[str, ...] = ()
) -> Experience:
    """The experience of an algorithm that is made for recorded data: batches `[N]` of single transitions, and one
    update a step in an environment."""
    replay = Replay(capacity=capacity, batch_size=batch_size, learning_starts=batch_size)
    return Experience(num_envs, 1, extras, learn_from_rollout=False, replay=replay)
