"""Learning, the same in every loop: from the rollout, from the ring, or from both."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from duologue.algorithms.base import AnyAlgorithm
from duologue.envs.spaces import depths, empty
from duologue.errors import ConfigError
from duologue.loops.state import purpose_key, rewards_shape
from duologue.metrics import before, joined
from duologue.replay import frames
from duologue.replay import ring as rings
from duologue.replay.ring import Ring
from duologue.types import (
    ACTION_MASK,
    Box,
    Discrete,
    EnvSpec,
    Metrics,
    MultiDiscrete,
    Obs,
    Poisson,
    PyTree,
    Replay,
    Space,
    Transition,
    has_mask,
)


class Outcome(NamedTuple):
    """What comes of one rollout: the learner, the ring, and what the metrics of so many updates came to."""

    learner: PyTree
    ring: Ring | None
    metrics: Metrics
    updates: Int[Array, ""]


def empty_ring(algorithm: AnyAlgorithm, learner: PyTree, carry: PyTree, obs: Obs, spec: EnvSpec) -> Ring | None:
    """The ring that the algorithm asks for, for observations like `obs`, `[B]`; `None` if it asks for none."""
    if algorithm.experience.replay is None:
        return None
    return rings.init(*_ring_of(algorithm, transition_shape(algorithm, learner, carry, obs, spec.tasks), spec))


def _ring_of(algorithm: AnyAlgorithm, example: Transition, spec: EnvSpec) -> tuple[Transition, int, PyTree]:
    """What a ring is made from, for transitions like `example`, `[B]`: that, its rows, and the frames of stacks."""
    stacked = depths(spec.observation)
    behind = frames.behind(frames.depths_of(example.obs, stacked))
    return example, rows(algorithm, example.reward.shape[0], behind), stacked


def memory(algorithm: AnyAlgorithm, spec: EnvSpec, num_envs: int, seeds: int) -> int:
    """Bytes of the rings of all seeds. Raises `ConfigError` for a replay that cannot work."""
    experience = algorithm.experience
    replay = experience.replay
    if replay is None:
        return 0
    if replay.start_steps and experience.extras:
        raise ConfigError(
            f"start_steps = {replay.start_steps:,}: must be 0 here, for the algorithm learns from what its policy knew "
            f"when it acted ({', '.join(experience.extras)}), and uniform actions are not its own."
        )
    learner = jax.eval_shape(lambda: algorithm.init(spec, key=jax.random.key(0)))
    carry, obs = algorithm.initial_carry(num_envs), empty(spec.observation, num_envs)
    example = transition_shape(algorithm, learner, carry, obs, spec.tasks)
    if replay.start_steps:
        jax.eval_shape(
            lambda: uniform(spec.action, obs, jnp.zeros(example.action.shape, example.action.dtype), jax.random.key(0))
        )
    made = _ring_of(algorithm, example, spec)
    if replay.batch_size > (most := made[1] * num_envs):
        raise ConfigError(
            f"batch_size = {replay.batch_size:,}: must be at most {most:,}, the transitions that a replay_capacity of "
            f"{replay.capacity:,} keeps here. Give a smaller batch_size, or a larger replay_capacity."
        )
    return seeds * rings.nbytes(*made)


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


def rows(algorithm: AnyAlgorithm, num_envs: int, behind: int = 0) -> int:
    """Rows of the ring: its capacity in steps of `num_envs` environments, rounded down to whole rollouts.
    `behind` is how many earlier rows a stacked observation needs, which are kept in front of those of a sequence."""
    length, replay = algorithm.experience.rollout_length, algorithm.experience.replay
    assert replay is not None
    whole = replay.capacity // (num_envs * length) * length
    rollouts = -(-((replay.sequence_length or 1) + behind) // length)
    if whole < rollouts * length:
        raise ConfigError(
            f"replay_capacity = {replay.capacity:,}: must be at least {num_envs * rollouts * length:,} here, one "
            f"sequence in whole rollouts of each environment. Give more, or fewer environments or shorter rollouts."
        )
    return whole


def learn(
    algorithm: AnyAlgorithm, learner: PyTree, ring: Ring | None, rollout: Transition,
    *, key: Key[Array, ""], steps: Int[Array, ""], tasks: tuple[str, ...] = (), recorded: Ring | None = None,
    share: float = 0.0,
) -> Outcome:  # fmt: skip
    """Learn from a rollout `[T, B]` that ends after `steps` environment steps; where there are `recorded` data too, a
    `share` of each batch comes from them. Metrics of several `tasks` are split and named by them."""
    experience = algorithm.experience
    updates = jnp.asarray(int(experience.learn_from_rollout), jnp.int32)
    if experience.learn_from_rollout:
        learner, metrics = algorithm.update(learner, rollout, key=key)
        metrics = named(metrics, tasks)
    else:
        metrics = before(metrics_shape(algorithm, learner, ring, tasks))
    replay = experience.replay
    if replay is None or ring is None:
        return Outcome(learner, ring, metrics, updates)
    ring = rings.add(ring, rollout)
    # Traced, and so the loop below is one that XLA does not fuse with the write above.
    key = purpose_key(key, "replay")
    more = jnp.where(steps >= enough(replay, rollout.reward.shape[1]), times(replay.updates, key), 0)

    def once(i: Array, both: tuple[PyTree, Metrics]) -> tuple[PyTree, Metrics]:
        of_batch, of_update = jax.random.split(jax.random.fold_in(key, i))
        learner, news = algorithm.update(both[0], mixed(ring, recorded, share, replay, of_batch), key=of_update)
        return learner, joined(both[1], named(news, tasks))

    learner, metrics = jax.lax.fori_loop(0, more, once, (learner, metrics))
    return Outcome(learner, ring, metrics, updates + more)


def named(metrics: Metrics, tasks: tuple[str, ...]) -> Metrics:
    """Metrics as scalars: one `[K]` becomes K of them, `name/task`."""
    scalars: Metrics = {}
    for name, value in metrics.items():
        names = [f"{name}/{task}" for task in tasks] if value.ndim else [name]
        scalars |= zip(names, value.ravel(), strict=True)
    return scalars


def times(updates: int | Poisson, key: Key[Array, ""]) -> Int[Array, ""] | int:
    """The number of updates, drawn where it is a law."""
    if isinstance(updates, Poisson):
        return jax.random.poisson(purpose_key(key, "count"), updates.mean, dtype=jnp.int32)
    return updates


def mixed(ring: Ring, recorded: Ring | None, share: float, replay: Replay, key: Key[Array, ""]) -> Transition:
    """A batch, `share` of it from the recorded data, if there are any."""
    if recorded is None:
        return batch(ring, replay, key)
    old = round(share * replay.batch_size)
    sizes = ((recorded, old), (ring, replay.batch_size - old))
    parts = [
        batch(source, dataclasses.replace(replay, batch_size=size), each)
        for (source, size), each in zip(sizes, jax.random.split(key), strict=True)
        if size
    ]
    rows = (replay.batches_per_update is not None) + (replay.sequence_length is not None)
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=rows), *parts)


def enough(replay: Replay, num_envs: int) -> int:
    """Environment steps after which batches are drawn: `learning_starts`, or what one sequence needs."""
    return max(replay.learning_starts, num_envs * (replay.sequence_length or 1))


def batch(ring: Ring, replay: Replay, key: Key[Array, ""]) -> Transition:
    """`[N]`, `[L, N]`, or either behind an axis D, as `replay` has it."""
    if replay.batches_per_update is None:
        return rings.sample(ring, key, replay.batch_size, replay.sequence_length)
    count, size = replay.batches_per_update, replay.batch_size
    drawn = rings.sample(ring, key, count * size, replay.sequence_length)
    time = 0 if replay.sequence_length is None else 1
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(*x.shape[:time], count, size, *x.shape[time + 1 :]), time, 0), drawn
    )


def metrics_shape(algorithm: AnyAlgorithm, learner: PyTree, ring: Ring | None, tasks: tuple[str, ...] = ()) -> PyTree:
    """The metrics of an update on a batch of `ring`, as `jax.ShapeDtypeStruct`."""
    key, replay = jax.eval_shape(lambda: jax.random.key(0)), algorithm.experience.replay
    assert replay is not None and ring is not None, "an algorithm learns from rollouts, from replay, or from both"
    return jax.eval_shape(
        lambda *x: named(algorithm.update(x[0], batch(x[1], replay, x[2]), key=x[2])[1], tasks), learner, ring, key
    )


def exploring(
    algorithm: AnyAlgorithm, spec: EnvSpec, obs: Obs, action: Array, *, key: Key[Array, ""], steps: Int[Array, ""]
) -> Array:
    """`action` `[B]`, or uniformly random ones during the first steps, where the algorithm wants that."""
    replay = algorithm.experience.replay
    if replay is None or replay.start_steps == 0:
        return action
    return jnp.where(steps < replay.start_steps, uniform(spec.action, obs, action, key), action)


def allowed(mask: Array, key: Key[Array, ""]) -> Int[Array, " B"]:
    """A uniform draw from what each mask, `[B, n]`, allows."""
    return jnp.argmax(jnp.where(mask > 0, jax.random.uniform(key, mask.shape), -1.0), axis=-1)


def uniform(space: Space, obs: Obs, like: Array, key: Key[Array, ""]) -> Array:
    """Uniformly random actions in the shape and type of `like`, in environment units; of those that a mask allows."""
    match space:
        case Discrete() if has_mask(obs):
            return allowed(obs[ACTION_MASK], key).astype(like.dtype)
        case MultiDiscrete(nvec) if has_mask(obs):
            masks, keys = jnp.split(obs[ACTION_MASK], np.cumsum(nvec)[:-1], axis=-1), jax.random.split(key, len(nvec))
            return jnp.stack(list(map(allowed, masks, keys)), axis=-1).astype(like.dtype)
        case Discrete(n):
            return jax.random.randint(key, like.shape, 0, n, like.dtype)
        case MultiDiscrete(nvec):
            return jax.random.randint(key, like.shape, 0, jnp.broadcast_to(jnp.asarray(nvec), like.shape), like.dtype)
        case Box(shape, low=low, high=high) if low is not None and high is not None:
            low, high = (jnp.asarray(bound, like.dtype).reshape(shape) for bound in (low, high))
            low, high = jnp.broadcast_to(low, like.shape), jnp.broadcast_to(high, like.shape)
            return low + (high - low) * jax.random.uniform(key, like.shape, like.dtype)
    raise ConfigError(f"start_steps: actions of {space} cannot be drawn uniformly; they have no bounds. Set it to 0.")
