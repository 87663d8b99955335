"""Learning, the same in every loop: from the rollout, from the ring, or from both."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from duologue.algorithms.base import AnyAlgorithm
from duologue.data import ring as rings
from duologue.data.ring import Ring
from duologue.loops.keys import purpose_key
from duologue.ops.metrics import add_metrics, empty_sums
from duologue.types import (
    Metrics,
    Poisson,
    PyTree,
    Replay,
    Transition,
)


class Outcome(NamedTuple):
    """What comes of one rollout: the learner, the ring, and what the metrics of so many updates came to."""

    learner: PyTree
    ring: Ring | None
    metrics: Metrics
    updates: Int[Array, ""]


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
        metrics = split_by_task(metrics, tasks)
    else:
        metrics = empty_sums(metrics_shape(algorithm, learner, ring, tasks))
    replay = experience.replay
    if replay is None or ring is None:
        return Outcome(learner, ring, metrics, updates)
    ring = rings.add(ring, rollout)
    # Traced, and so the loop below is one that XLA does not fuse with the write above.
    key = purpose_key(key, "replay")
    more = jnp.where(
        steps >= first_learning_step(replay, rollout.reward.shape[1]), draw_update_count(replay.updates, key), 0
    )

    def once(i: Array, both: tuple[PyTree, Metrics]) -> tuple[PyTree, Metrics]:
        of_batch, of_update = jax.random.split(jax.random.fold_in(key, i))
        learner, news = algorithm.update(
            both[0], sample_mixed_batch(ring, recorded, share, replay, of_batch), key=of_update
        )
        return learner, add_metrics(both[1], split_by_task(news, tasks))

    learner, metrics = jax.lax.fori_loop(0, more, once, (learner, metrics))
    return Outcome(learner, ring, metrics, updates + more)


def split_by_task(metrics: Metrics, tasks: tuple[str, ...]) -> Metrics:
    """Metrics as scalars: one `[K]` becomes K of them, `name/task`."""
    scalars: Metrics = {}
    for name, value in metrics.items():
        names = [f"{name}/{task}" for task in tasks] if value.ndim else [name]
        scalars |= zip(names, value.ravel(), strict=True)
    return scalars


def draw_update_count(updates: int | Poisson, key: Key[Array, ""]) -> Int[Array, ""] | int:
    """The number of updates, drawn where it is a law."""
    if isinstance(updates, Poisson):
        return jax.random.poisson(purpose_key(key, "count"), updates.mean, dtype=jnp.int32)
    return updates


def sample_mixed_batch(
    ring: Ring, recorded: Ring | None, share: float, replay: Replay, key: Key[Array, ""]
) -> Transition:
    """A batch, `share` of it from the recorded data, if there are any."""
    if recorded is None:
        return sample_batch(ring, replay, key)
    old = round(share * replay.batch_size)
    sizes = ((recorded, old), (ring, replay.batch_size - old))
    parts = [
        sample_batch(source, dataclasses.replace(replay, batch_size=size), each)
        for (source, size), each in zip(sizes, jax.random.split(key), strict=True)
        if size
    ]
    rows = (replay.batches_per_update is not None) + (replay.sequence_length is not None)
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=rows), *parts)


def first_learning_step(replay: Replay, num_envs: int) -> int:
    """Environment steps after which batches are drawn: `learning_starts`, or what one sequence needs."""
    return max(replay.learning_starts, num_envs * (replay.sequence_length or 1))


def sample_batch(ring: Ring, replay: Replay, key: Key[Array, ""]) -> Transition:
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
        lambda *x: split_by_task(algorithm.update(x[0], sample_batch(x[1], replay, x[2]), key=x[2])[1], tasks),
        learner,
        ring,
        key,
    )
