"""Fields that families of algorithms share. Each family derives its `Experience` from its fields.

The page of an algorithm lists the fields that its paper adds. It repeats a shared field only where the default or the
meaning differs.
"""

from typing import Literal, TypeVar

from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm
from duologue.fields import Fraction, NonNegativeInt, Positive, PositiveInt
from duologue.types import Experience, Obs, PyTree, Replay

State = TypeVar("State")


class AbstractReplayed(AbstractAlgorithm[State]):
    """An algorithm that learns from replay. Each update reads N past transitions, `[N]`."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    tau: Fraction = 0.005
    """Polyak step size of the target networks (τ): target ← (1 − τ) target + τ learned, in each target update."""
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
    """An algorithm that learns from N replayed sequences of n steps, `[n, N]`, with n-step targets."""

    n_step: PositiveInt = 1
    """Number of rewards that a target sums before it bootstraps (n). With n > 1 the targets have no off-policy
    correction, and soft targets leave out the entropies of the steps in between."""

    @property
    def experience(self) -> Experience:
        return replay_experience(self, sequence_length=self.n_step)


class AbstractRecorded(AbstractAlgorithm[State]):
    """An algorithm for recorded data. Each update reads N transitions, `[N]`. In an environment the algorithm makes one
    update a step."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    batch_size: PositiveInt = 256
    """Transitions in a batch (N)."""
    replay_capacity: PositiveInt = 1_000_000
    """Largest number of transitions in the replay memory, where the algorithm learns in an environment."""
    num_envs: PositiveInt = 1
    """Environments that step together (B), where the algorithm learns in an environment."""

    @property
    def experience(self) -> Experience:
        return recorded_experience(self.batch_size, self.replay_capacity, self.num_envs)


class AbstractOnPolicy(AbstractAlgorithm[State]):
    """An algorithm that learns from each rollout `[T, B]` of the newest policy, and then discards the rollout."""

    discount: Fraction = 0.99
    """Discount factor (γ)."""
    lambda_: Fraction = 0.95
    """Decay of generalised advantage estimation (λ). λ = 1 sums all rewards of the rollout."""
    rollout_length: PositiveInt = 2048
    """Steps of each environment between two updates (T)."""
    num_envs: PositiveInt = 1
    """Environments that step together (B)."""
    reward_scale: Positive = 1.0
    """Factor that multiplies all rewards for learning. Logged returns do not contain this factor."""
    reward_clip: Positive | None = None
    """Largest absolute value of a reward for learning, after scaling. None: no clip."""
    test_policy: Literal["greedy", "sampled"] = "greedy"
    """Action in tests. "greedy": the mode of the policy. "sampled": a sample of the policy, as in training."""

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
    """Return the `Experience` of an algorithm that learns from replay alone."""
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
    """Return the `Experience` of an algorithm for recorded data: batches `[N]` of single transitions, and one update a
    step in an environment."""
    replay = Replay(capacity=capacity, batch_size=batch_size, learning_starts=batch_size)
    return Experience(num_envs, 1, extras, learn_from_rollout=False, replay=replay)
