"""Learning, the same in every loop: from the rollout, from the ring, or from both."""

import dataclasses
from functools import partial
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
    """Result of one rollout: learner, ring, and sums of the metrics over a number of updates."""

    learner: PyTree
    ring: Ring | None
    metrics: Metrics
    updates: Int[Array, ""]


def learn(
    algorithm: AnyAlgorithm, learner: PyTree, ring: Ring | None, rollout: Transition,
    *, key: Key[Array, ""], steps: Int[Array, ""], tasks: tuple[str, ...] = (), recorded: Ring | None = None,
    share: float = 0.0,
) -> Outcome:  # fmt: skip
    """Learn from a rollout `[T, B]` that ends after `steps` environment steps. With `recorded` data, a `share` of each
    batch comes from them. A metric of several `tasks` becomes one metric for each task."""
    experience = algorithm.experience
    replay, updates, sums = experience.replay, jnp.asarray(int(experience.learn_from_rollout), jnp.int32), {}
    if experience.learn_from_rollout:
        learner, metrics = algorithm.update(learner, rollout, key=key)
        sums = split_by_task(metrics, tasks)
    if replay is None or ring is None:
        assert experience.learn_from_rollout, "an algorithm learns from rollouts, from replay, or from both"
        return Outcome(learner, ring, sums, updates)
    ring = rings.add(ring, rollout)
    key = purpose_key(key, "replay")

    @partial(jax.jit, inline=True)  # traced once, for the shapes of its metrics and for the loop
    def update(learner: PyTree, ring: Ring, recorded: Ring | None, key: Array) -> tuple[PyTree, Metrics]:
        batch_key, update_key = jax.random.split(key)
        batch = sample_mixed_batch(ring, recorded, share, replay, batch_key)
        learner, metrics = algorithm.update(learner, batch, key=update_key)
        return learner, split_by_task(metrics, tasks)

    def once(i: Array, now: tuple[PyTree, Metrics]) -> tuple[PyTree, Metrics]:
        learner, metrics = update(now[0], ring, recorded, jax.random.fold_in(key, i))
        return learner, add_metrics(now[1], metrics)

    if not experience.learn_from_rollout:
        sums = empty_sums(jax.eval_shape(update, learner, ring, recorded, key)[1])
    # The number of updates is traced, so XLA does not fuse the loop with the write into the ring.
    first = first_learning_step(replay, rollout.reward.shape[1])
    more = jnp.where(steps >= first, draw_update_count(replay.updates, key), 0)
    learner, sums = jax.lax.fori_loop(0, more, once, (learner, sums))
    return Outcome(learner, ring, sums, updates + more)


def split_by_task(metrics: Metrics, tasks: tuple[str, ...]) -> Metrics:
    """Metrics as scalars: a metric `[K]` becomes K scalars, `name/task`."""
    scalars: Metrics = {}
    for name, value in metrics.items():
        names = [f"{name}/{task}" for task in tasks] if value.ndim else [name]
        scalars |= zip(names, value.ravel(), strict=True)
    return scalars


def draw_update_count(updates: int | Poisson, key: Key[Array, ""]) -> Int[Array, ""] | int:
    """The number of updates. It is drawn if `updates` is a `Poisson` distribution."""
    if isinstance(updates, Poisson):
        return jax.random.poisson(purpose_key(key, "count"), updates.mean, dtype=jnp.int32)
    return updates


def sample_mixed_batch(
    ring: Ring, recorded: Ring | None, share: float, replay: Replay, key: Key[Array, ""]
) -> Transition:
    """A batch; with `recorded` data, a `share` of it comes from them."""
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
    """Environment steps before the first batch: `learning_starts`, and at least the steps of one sequence."""
    return max(replay.learning_starts, num_envs * (replay.sequence_length or 1))


def sample_batch(ring: Ring, replay: Replay, key: Key[Array, ""]) -> Transition:
    """A batch in the shape that `replay` requires: `[N]` or `[L, N]`, or one of these with a leading axis D."""
    if replay.batches_per_update is None:
        return rings.sample(ring, key, replay.batch_size, replay.sequence_length)
    count, size = replay.batches_per_update, replay.batch_size
    drawn = rings.sample(ring, key, count * size, replay.sequence_length)
    time = 0 if replay.sequence_length is None else 1
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(*x.shape[:time], count, size, *x.shape[time + 1 :]), time, 0), drawn
    )
