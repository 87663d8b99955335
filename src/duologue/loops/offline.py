"""The offline loop: recorded data on the device, and nothing but sampling and updates, as many a call as
half a second takes.

A step is a gradient step of the network that takes most of them: one call of `update`, or D of one that gets D batches.
Several seeds are `vmap` over the loop and share one copy of the data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm, unwrapped
from duologue.data import dataset
from duologue.data.dataset import DataSet
from duologue.data.ring import Ring
from duologue.errors import ConfigError
from duologue.loops.dispatch import GrowingChunks
from duologue.loops.keys import key_for, purpose_key, run_key
from duologue.loops.learning import sample_batch
from duologue.loops.seeds import init_seeds, one_seed_shape, place_seeds, seed_count, seed_sharding, vmap_seeds
from duologue.loops.state import LoopState
from duologue.ops.metrics import add_metrics, empty_sums, train_row
from duologue.types import EnvSpec, PyTree, Replay, Transition


@dataclass(frozen=True)
class RecordedData:
    """Data as the loop reads them: all of them on the device, or a window of `window` rows at a time."""

    data: DataSet
    calls: int
    """Calls of `update` that a window serves: about as many as see each of its rows once."""
    window: int | None = None
    seed: int = 0
    """Of the windows, which all seeds of a program share."""

    @property
    def spec(self) -> EnvSpec:
        return self.data.spec

    def at(self, call: int) -> tuple[Ring, int]:
        """What the call number `call` samples from, and the number of the first call that no longer does."""
        if (window := self.window) is None:
            return dataset.full_ring(self.data), 2**31
        number = call // self.calls
        # Round the end: else rows near either end would be drawn less often. The last row is always cut.
        start = int(np.random.default_rng([self.seed, number]).integers(len(self.data)))
        rows = jax.tree.map(lambda x: x.take(range(start, start + window), axis=0, mode="wrap"), self.data.rows)
        return dataset.full_ring(replace(self.data, rows=rows)), (number + 1) * self.calls

    def close(self) -> None:
        """Nothing is open; environments on the host have this too."""

    def blocks(self) -> Iterator[Transition]:
        """All rows in order, `[n, 1, …]` of them at a time."""
        size = self.window or len(self.data)
        for start in range(0, len(self.data), size):
            rows = jax.tree.map(lambda x, start=start: x[start : start + size], self.data.rows)
            yield dataset.full_ring(replace(self.data, rows=rows)).data


class UpdateTotals(eqx.Module):
    """Of an interval: how many calls of `update` there were, and what their metrics came to."""

    updates: Array
    metrics: dict[str, Array]

    def summary(self, tasks: tuple[str, ...] = ()) -> dict[str, np.ndarray | np.float64]:
        """Values under the names users know. With several seeds each is `[S]`. Data hold one reward: there are no
        `tasks`."""
        return train_row(self.metrics, self.updates)


def prepare_data(algorithm: AnyAlgorithm, data: DataSet, *, window: int | None = None, seed: int = 0) -> RecordedData:
    """`data` for this algorithm, with what is drawn once a row, and windows that follow from `seed`.

    Raises `ConfigError` where it cannot learn from them.
    """
    experience = algorithm.experience
    replay = experience.replay
    name = type(unwrapped(algorithm)).__name__
    if experience.tasks:
        raise ConfigError(f"{name} learns several tasks, and {data.source} holds one reward. CQL, IQL, BEAR learn one.")
    if replay is None or experience.learn_from_rollout:
        raise ConfigError(
            f"{name} learns from its own rollouts, so not from recorded data. BC, BCQ, BEAR, CQL, IQL, TD3BC, SAC and "
            "TD3 do."
        )
    # One draw for all seeds and for ever: a mask belongs to a row of the data, not to a run.
    drawn = algorithm.drawn_extras(len(data), key=key_for(run_key(0), "data"))
    for extra in drawn.keys() & data.rows.extras.keys():
        shape, asked = data.rows.extras[extra].shape, drawn[extra].shape
        if shape != asked:
            raise ConfigError(f"extras/{extra} of {data.source} is {list(shape)}; {name} asks for {list(asked)}.")
    known = {**drawn, **data.rows.extras}
    missing = [extra for extra in experience.extras if extra not in known]
    if missing:
        raise ConfigError(
            f"{name} reads {', '.join(missing)} of each row, what the policy that acted knew, and {data.source} does "
            f"not hold that. It holds {', '.join(data.rows.extras) or 'nothing of the kind'}."
        )
    needed = replay.sequence_length or 1
    if window is not None and not needed <= window <= len(data):
        raise ConfigError(f"window = {window:,}: must be in [{needed}, {len(data):,}], the rows of {data.source}.")
    if len(data) < needed:
        raise ConfigError(f"{data.source} has {len(data):,} rows, fewer than the {needed} of one sequence.")
    extras = {extra: np.asarray(known[extra]) for extra in experience.extras}
    per_call = replay.batch_size * (replay.batches_per_update or 1)
    calls = max(1, (window or len(data)) // per_call)
    return RecordedData(replace(data, rows=data.rows._replace(extras=extras)), calls, window, seed)


def start(algorithm: AnyAlgorithm, source: RecordedData, seeds: Sequence[int]) -> LoopState:
    """The state before the first update; with several seeds every leaf leads with their axis. An algorithm that takes
    note of transitions has seen each row once, in order."""

    def begin(key: Array) -> LoopState:
        learner = algorithm.init(source.spec, key=key_for(key, "init"))
        return LoopState(
            learner, carry=None, env=None, obs=None, episodes=None, replay=None, key=key, step=jnp.zeros((), jnp.int32)
        )

    def see(both: tuple[PyTree, PyTree], rows: Transition) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(lambda both, row: (algorithm.observe(*both, row), None), both, rows)[0]

    state, several = init_seeds(begin, seeds), len(seeds) > 1
    if type(algorithm).observe is AbstractAlgorithm.observe:
        return state
    program = jax.jit(jax.vmap(see, (0, None)) if several else see)
    carry = algorithm.initial_carry(1)
    if several:
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(seeds), *x.shape)), carry)
    both = state.algorithm, carry
    for rows in source.blocks():
        both = program(both, rows)
    return replace(state, algorithm=both[0])


def shapes(algorithm: AnyAlgorithm, source: RecordedData, seeds: Sequence[int]) -> LoopState:
    """What `start` returns, as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda: start(algorithm, source, seeds))


def restore(algorithm: AnyAlgorithm, source: RecordedData, state: LoopState) -> tuple[LoopState, None]:
    """A loaded state goes on as it is."""
    return state, None


def run(
    algorithm: AnyAlgorithm, source: RecordedData, state: LoopState,
    *, steps: int, interval: int, interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, LoopState, UpdateTotals]]:  # fmt: skip
    """Go on from `state` until each seed has made `steps` steps; yield `(steps, state, updates)` every `interval` of
    them.

    The yielded state is donated when the generator advances: copy what you keep. When `interrupted()` turns true, the
    loop yields at the next chunk, early.
    """
    unit, seeds = algorithm.experience.gradient_steps, seed_count(state.step)
    done, last, every = int(np.ravel(state.step)[0]), -(-steps // unit), max(1, interval // unit)
    ring, until_swap = source.at(done)
    program, zero = _compile_updates(algorithm, state, ring, seeds)
    state, chunks = place_seeds(state, seeds), GrowingChunks()
    while done < last:
        updates, until = zero(), min((done // every + 1) * every, last)
        while done < until and not interrupted():
            if done >= until_swap:
                ring, until_swap = source.at(done)
            for first, count in chunks.split(done, min(until, until_swap), interrupted):
                state, updates = program(state, updates, ring, np.int32(first), np.int32(count))
                jax.block_until_ready(state.step)
                done = first + count
        yield done * unit, state, jax.device_get(updates)


def _compile_updates(
    algorithm: AnyAlgorithm, state: LoopState, ring: Ring, seeds: int | None
) -> tuple[Callable[..., tuple[LoopState, UpdateTotals]], Callable[[], UpdateTotals]]:
    """The jitted chunk, from any call for any number of them, and a maker of empty records."""
    replay = algorithm.experience.replay
    assert isinstance(replay, Replay)

    def once(learner: PyTree, ring: Ring, key: Array) -> tuple[PyTree, dict[str, Array]]:
        of_batch, of_update = jax.random.split(key)
        return algorithm.update(learner, sample_batch(ring, replay, of_batch), key=of_update)

    learner, key = one_seed_shape((state.algorithm, state.key), seeds)
    metrics = jax.eval_shape(lambda *args: once(*args)[1], learner, ring, key)

    def zero() -> UpdateTotals:
        none = UpdateTotals(jnp.zeros((), jnp.int32), empty_sums(metrics))
        return none if seeds is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), none)

    def chunk(
        state: LoopState, so_far: UpdateTotals, ring: Ring, first: Int[Array, ""], calls: Int[Array, ""]
    ) -> tuple[LoopState, UpdateTotals]:
        key = purpose_key(state.key, "update")

        def step(i: Array, now: tuple[PyTree, UpdateTotals]) -> tuple[PyTree, UpdateTotals]:
            learner, news = once(now[0], ring, jax.random.fold_in(key, i))
            return learner, UpdateTotals(now[1].updates + 1, add_metrics(now[1].metrics, news))

        # A traced count: one program for every length, and so the same bits however a run is cut into chunks.
        learner, so_far = jax.lax.fori_loop(first, first + calls, step, (state.algorithm, so_far))
        return replace(state, algorithm=learner, step=state.step + calls), so_far

    jitted = jax.jit(vmap_seeds(chunk, seeds, (0, 0, None, None, None)), donate_argnums=(0, 1))
    return jitted, jax.jit(zero, out_shardings=None if seeds is None else seed_sharding(seeds))
