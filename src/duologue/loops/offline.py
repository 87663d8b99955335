"""The offline loop: recorded data on the device, and programs of about half a second that sample and update.

A step is a gradient step of the network with the most gradient steps: one for each call of `update`, or D if a call
gets D batches. Several seeds run by `vmap` over the loop and share one copy of the data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from duologue.algorithms.base import AbstractAlgorithm, AnyAlgorithm, unwrapped
from duologue.data import cleaning, dataset
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
    """Recorded data as the loop reads them: all on the device, or `window` rows at a time."""

    data: DataSet
    calls: int
    """Number of calls of `update` with one window. In them, each row of the window is drawn about once."""
    window: int | None = None
    seed: int = 0
    """Seed of the windows. All seeds of a program share the windows."""

    @property
    def spec(self) -> EnvSpec:
        return self.data.spec

    def at(self, call: int) -> tuple[Ring, int]:
        """The ring for call number `call` of `update`, and the number of the first later call with another ring."""
        if (window := self.window) is None:
            return dataset.full_ring(self.data), 2**31
        number = call // self.calls
        # A window that passes the end continues with the first rows. Else rows near both ends would be rarer. The last
        # row of the data is flagged, so no return crosses the end.
        start = int(np.random.default_rng([self.seed, number]).integers(len(self.data)))
        rows = jax.tree.map(lambda x: x.take(range(start, start + window), axis=0, mode="wrap"), self.data.rows)
        return dataset.full_ring(replace(self.data, rows=rows)), (number + 1) * self.calls

    def close(self) -> None:
        """Do nothing: no file is open. Environments have this method, too."""

    def blocks(self) -> Iterator[Transition]:
        """Yield all rows in order, in blocks `[n, 1, …]`."""
        size = self.window or len(self.data)
        for start in range(0, len(self.data), size):
            rows = jax.tree.map(lambda x, start=start: x[start : start + size], self.data.rows)
            yield dataset.full_ring(replace(self.data, rows=rows)).data


class UpdateTotals(eqx.Module):
    """Sums of an interval: the number of calls of `update`, and sums of their metrics."""

    updates: Array
    metrics: dict[str, Array]

    def summary(self, tasks: tuple[str, ...] = ()) -> dict[str, np.ndarray | np.float64]:
        """Values under the names that users know. With several seeds each is `[S]`. Data hold one reward: there are
        no `tasks`."""
        return train_row(self.metrics, self.updates)


def prepare_data(algorithm: AnyAlgorithm, data: DataSet, *, window: int | None = None, seed: int = 0) -> RecordedData:
    """`data` for this algorithm: with extras that the algorithm draws once for each row, and with windows that `seed`
    decides.

    Raises `ConfigError` where the algorithm cannot learn from the data.
    """
    experience = algorithm.experience
    replay = experience.replay
    name = type(unwrapped(algorithm)).__name__
    if experience.tasks:
        raise ConfigError(f"{name} learns several tasks, and {data.source} holds one reward. Use CQL, IQL or BEAR.")
    if replay is None or experience.learn_from_rollout:
        raise ConfigError(
            f"{name} learns from its own rollouts, not from recorded data. Use BC, BCQ, BEAR, CQL, IQL, TD3BC, SAC or "
            "TD3."
        )
    cleaning.check_allowed(data.rows.obs, data.rows.action, data.spec.action)
    # All seeds and all runs use one draw, because a mask belongs to a row of the data, not to a run.
    drawn = algorithm.drawn_extras(len(data), key=key_for(run_key(0), "data"))
    for extra in drawn.keys() & data.rows.extras.keys():
        shape, wanted = data.rows.extras[extra].shape, drawn[extra].shape
        if shape != wanted:
            raise ConfigError(
                f"extras/{extra} of {data.source} has shape {list(shape)}: must have {list(wanted)} for {name}."
            )
    known = {**drawn, **data.rows.extras}
    missing = [extra for extra in experience.extras if extra not in known]
    if missing:
        raise ConfigError(
            f"{name} reads {', '.join(missing)} of each row, recorded by the policy that acted, and {data.source} "
            f"lacks it. It holds {', '.join(data.rows.extras) or 'no extras'}."
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
    """The state before the first update; with several seeds every leaf has a leading axis S. An algorithm that observes
    transitions has observed each row once, in order."""

    def init(key: Array) -> LoopState:
        learner = algorithm.init(source.spec, key=key_for(key, "init"))
        return LoopState(
            learner, carry=None, env=None, obs=None, episodes=None, replay=None, key=key, step=jnp.zeros((), jnp.int32)
        )

    def observe(now: tuple[PyTree, PyTree], rows: Transition) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(lambda now, row: (algorithm.observe(*now, row), None), now, rows)[0]

    state, several = init_seeds(init, seeds), len(seeds) > 1
    if type(algorithm).observe is AbstractAlgorithm.observe:
        return state
    program = jax.jit(jax.vmap(observe, (0, None)) if several else observe)
    carry = algorithm.initial_carry(1)
    if several:
        carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(seeds), *x.shape)), carry)
    learner = state.algorithm
    for rows in source.blocks():
        learner, carry = program((learner, carry), rows)
    return replace(state, algorithm=learner)


def shapes(algorithm: AnyAlgorithm, source: RecordedData, seeds: Sequence[int]) -> LoopState:
    """The state that `start` returns, as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda: start(algorithm, source, seeds))


def restore(algorithm: AnyAlgorithm, source: RecordedData, state: LoopState) -> tuple[LoopState, None]:
    """Return a loaded state unchanged."""
    return state, None


def run(
    algorithm: AnyAlgorithm, source: RecordedData, state: LoopState,
    *, steps: int, interval: int, interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, LoopState, UpdateTotals]]:  # fmt: skip
    """Continue from `state` until each seed has made `steps` steps; yield `(steps, state, updates)` every `interval`
    steps.

    The loop donates the yielded state when the generator advances: copy what you keep. Once `interrupted()` is true,
    the loop yields after the running chunk.
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
    """`(run_chunk, zero)`: the jitted program `run_chunk(state, sums, ring, first, calls)`, which makes `calls`
    calls of `update` from number `first` on, and a function that makes sums of zero."""
    replay = algorithm.experience.replay
    assert isinstance(replay, Replay)

    def once(learner: PyTree, ring: Ring, key: Array) -> tuple[PyTree, dict[str, Array]]:
        batch_key, update_key = jax.random.split(key)
        return algorithm.update(learner, sample_batch(ring, replay, batch_key), key=update_key)

    learner, key = one_seed_shape((state.algorithm, state.key), seeds)
    metrics = jax.eval_shape(lambda *args: once(*args)[1], learner, ring, key)

    def zero() -> UpdateTotals:
        none = UpdateTotals(jnp.zeros((), jnp.int32), empty_sums(metrics))
        return none if seeds is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), none)

    def chunk(
        state: LoopState, sums: UpdateTotals, ring: Ring, first: Int[Array, ""], calls: Int[Array, ""]
    ) -> tuple[LoopState, UpdateTotals]:
        key = purpose_key(state.key, "update")

        def step(i: Array, now: tuple[PyTree, UpdateTotals]) -> tuple[PyTree, UpdateTotals]:
            learner, news = once(now[0], ring, jax.random.fold_in(key, i))
            return learner, UpdateTotals(now[1].updates + 1, add_metrics(now[1].metrics, news))

        # The count is traced, so one program runs chunks of every length. All lengths then give the same bits.
        learner, sums = jax.lax.fori_loop(first, first + calls, step, (state.algorithm, sums))
        return replace(state, algorithm=learner, step=state.step + calls), sums

    jitted = jax.jit(vmap_seeds(chunk, seeds, (0, 0, None, None, None)), donate_argnums=(0, 1))
    return jitted, jax.jit(zero, out_shardings=None if seeds is None else seed_sharding(seeds))
