"""The replay ring of an algorithm: its size, its memory, and its transitions."""

import jax
import numpy as np

from duologue.algorithms.base import AnyAlgorithm
from duologue.data import frames
from duologue.data import ring as rings
from duologue.data.ring import Ring
from duologue.envs.spaces import empty_arrays, stack_depths
from duologue.errors import ConfigError
from duologue.loops.exploration import uniform_actions
from duologue.loops.state import rewards_shape
from duologue.types import (
    EnvSpec,
    Obs,
    PyTree,
    Transition,
)


def empty_ring(algorithm: AnyAlgorithm, learner: PyTree, carry: PyTree, obs: Obs, spec: EnvSpec) -> Ring | None:
    """An empty ring for observations like `obs`, `[B]`; `None` for an algorithm without replay."""
    if algorithm.experience.replay is None:
        return None
    return rings.init(*_ring_arguments(algorithm, transition_shape(algorithm, learner, carry, obs, spec.tasks), spec))


def _ring_arguments(algorithm: AnyAlgorithm, example: Transition, spec: EnvSpec) -> tuple[Transition, int, PyTree]:
    """Arguments of `ring.init` for transitions like `example`, `[B]`: the example, rows, and frames of stacks."""
    stacked = stack_depths(spec.observation)
    history = frames.history(frames.frame_depths(example.obs, stacked))
    return example, ring_rows(algorithm, example.reward.shape[0], history), stacked


def ring_bytes(algorithm: AnyAlgorithm, spec: EnvSpec, num_envs: int, seeds: int) -> int:
    """Bytes of the rings of all seeds. Raises `ConfigError` for a replay that cannot work."""
    experience = algorithm.experience
    replay = experience.replay
    if replay is None:
        return 0
    if replay.start_steps and experience.extras:
        raise ConfigError(
            f"start_steps = {replay.start_steps:,}: must be 0 here. The algorithm learns from what its policy knew "
            f"when it acted ({', '.join(experience.extras)}), and uniform actions do not come from its policy."
        )
    learner = jax.eval_shape(lambda: algorithm.init(spec, key=jax.random.key(0)))
    carry, obs = algorithm.initial_carry(num_envs), empty_arrays(spec.observation, num_envs)
    example = transition_shape(algorithm, learner, carry, obs, spec.tasks)
    if replay.start_steps:
        draw = lambda obs, like: uniform_actions(spec.action, obs, like, jax.random.key(0))  # noqa: E731
        jax.eval_shape(draw, obs, example.action)
    arguments = _ring_arguments(algorithm, example, spec)
    if replay.batch_size > (most := arguments[1] * num_envs):
        raise ConfigError(
            f"batch_size = {replay.batch_size:,}: must be at most {most:,}, the transitions that a replay_capacity of "
            f"{replay.capacity:,} keeps here. Give a smaller batch_size, or a larger replay_capacity."
        )
    return seeds * rings.nbytes(*arguments)


def transition_shape(
    algorithm: AnyAlgorithm, learner: PyTree, carry: PyTree, obs: Obs, tasks: tuple[str, ...] = ()
) -> Transition:
    """One step `[B]` as `jax.ShapeDtypeStruct`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action, extras, _ = jax.eval_shape(
        lambda *args: algorithm.act(*args[:3], key=args[3], explore=True), learner, carry, obs, key
    )
    obs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), obs)
    reward = jax.ShapeDtypeStruct(rewards_shape(action.shape[0], tasks), np.float32)
    flag = jax.ShapeDtypeStruct(action.shape[:1], np.bool_)
    return Transition(obs, action, reward, flag, flag, obs, extras)


def ring_rows(algorithm: AnyAlgorithm, num_envs: int, history: int = 0) -> int:
    """Rows of the ring: its capacity in steps of `num_envs` environments, rounded down to whole rollouts. `history` is
    the number of earlier rows that a stacked observation needs; the ring keeps them before the rows of a sequence.
    Raises `ConfigError` for a capacity that cannot hold one sequence."""
    experience = algorithm.experience
    length, replay = experience.rollout_length, experience.replay
    assert replay is not None
    whole = replay.capacity // (num_envs * length) * length
    rollouts = -(-((replay.sequence_length or 1) + history) // length)
    if whole < rollouts * length:
        raise ConfigError(
            f"replay_capacity = {replay.capacity:,}: must be at least {num_envs * rollouts * length:,} here, one "
            f"sequence in whole rollouts of each environment. Give more, or use fewer environments or shorter rollouts."
        )
    return whole
