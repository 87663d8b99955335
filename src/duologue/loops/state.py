"""The parts that all loops share: the whole run as one PyTree, and the totals of an interval."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from duologue.envs.masks import mask_error
from duologue.errors import EnvError, divergence_error
from duologue.ops.metrics import LEARNED_RETURN, RETURN, Counted, empty_sums, train_row
from duologue.types import ACTION_MASK, Dict, EnvSpec, Obs, PyTree, Space, Transition, bad_masks, has_mask, mask_sizes


class Episodes(eqx.Module):
    """Return and length so far of the running episode of each environment, `[B]`; with several tasks returns are
    `[B, K]`."""

    returns: Any
    lengths: Any

    @classmethod
    def zero(cls, num_envs: int, tasks: tuple[str, ...] = ()) -> "Episodes":
        return cls(jnp.zeros(rewards_shape(num_envs, tasks)), jnp.zeros(num_envs, jnp.int32))


def rewards_shape(num_envs: int, tasks: tuple[str, ...]) -> tuple[int, ...]:
    """Shape of rewards: `[B]`, with several tasks `[B, K]`."""
    return (num_envs, *((len(tasks),) if tasks else ()))


def broadcast_flags(flags: Any, rewards: Any) -> Any:
    """Flags `[*batch]` in a shape that broadcasts with rewards `[*batch]` or `[*batch, K]`."""
    return flags if flags.ndim == rewards.ndim else flags[..., None]


class LoopState(eqx.Module):
    """The state of a whole run, with everything that resuming needs. It is valid until the loop's generator advances.

    With several seeds every leaf has a leading axis S.
    """

    algorithm: PyTree
    carry: PyTree
    env: PyTree
    """The environments' state, or the arrays that rebuild it."""
    obs: Obs
    episodes: PyTree
    """Running `Episodes`; `None` in a loop without environments."""
    replay: PyTree
    """The ring of past transitions, `None` for an algorithm that keeps none."""
    key: Any
    step: Any
    """Steps of each environment so far. Users see this number times `num_envs`, the environment steps."""


@runtime_checkable
class Loop(Protocol):
    """The four functions of every loop. A loop is a module: `host`, `compiled`, `offline`.

    `envs` are the environments that the loop steps, or the recorded data from which it learns.
    """

    def start(self, algorithm: Any, envs: Any, seeds: Sequence[int], /) -> LoopState:
        """The state before the first step; with several seeds every leaf has a leading axis S."""
        ...

    def shapes(self, algorithm: Any, envs: Any, seeds: Sequence[int], /) -> LoopState:
        """The state that `start` returns, as shapes: the template for loading a checkpoint."""
        ...

    def restore(self, algorithm: Any, envs: Any, state: LoopState, /) -> tuple[LoopState, str | None]:
        """Restore new environments to those of a loaded state. Returns the state, and a message if one differs."""
        ...

    @property
    def run(self) -> Callable[..., Iterator[tuple[int, LoopState, Any]]]:
        """`run(algorithm, envs, state, *, steps, interval, interrupted)` yields `(step, state, totals)` every
        `interval` steps up to `steps`, and earlier once `interrupted()` is true."""
        ...


class BadMask(NamedTuple):
    """The first mask of an interval that allows no action, or that is no mask."""

    where: Any
    """`step · B + index`; −1 where there is none."""
    entries: Any
    """The mask, float32 `[n]`."""


class Totals(eqx.Module):
    """Sums over the finished episodes and over the updates of an interval. Its row is made from these sums."""

    episodes: Any
    returns: Any
    lengths: Any
    updates: Any
    metrics: dict[str, Any]
    successes: Any
    """Number of finished episodes that succeeded (`is_success` or `success` in `info`); `None` if no environment
    reports it."""
    fault: Any
    """The `first_fault` of the interval; `None` in a loop that raises for it before learning."""
    bad_mask: BadMask | None = None
    """The `first_bad_mask` of the interval; `None` without masks, and in a loop that raises for it before learning."""
    games: Counted | None = None
    """Returns that the environments report for finished episodes; `None` if no environment does."""
    info: dict[str, Counted] = eqx.field(default_factory=dict)
    """The numbers of `info` that the run names."""

    @classmethod
    def zero(cls, metrics: dict[str, Any], spec: EnvSpec, log_info: Sequence[str] = ()) -> "Totals":
        zero = jnp.zeros((), jnp.int32)
        returns = jnp.zeros(rewards_shape(1, spec.tasks)[1:])
        fault = jnp.full(2, -1, jnp.int32)
        info = dict.fromkeys(log_info, Counted(zero, jnp.zeros(())))
        return cls(zero, returns, jnp.zeros(()), zero, empty_sums(metrics), None, fault, no_bad_mask(spec), None, info)

    def summary(self, tasks: tuple[str, ...] = ()) -> dict[str, np.ndarray | np.float64]:
        """Means under the names that users know; NaN where no episode ended. With several seeds each is `[S]`. With
        several `tasks` the return is the main task's, and the return of each task has a name of its own. Where the
        environments report returns, the row has these, and the learned return under its own name."""
        episodes = np.maximum(self.episodes, 1)
        metrics = self.metrics if np.any(self.updates) else {}  # replay: learning may not have started
        nan_if_none = np.where(np.asarray(self.episodes) > 0, 0.0, np.nan)
        returns = np.asarray(self.returns) if tasks else np.asarray(self.returns)[..., None]
        task_returns = {name: returns[..., i] / episodes + nan_if_none for i, name in enumerate(tasks)}
        learned, games = returns[..., -1] / episodes + nan_if_none, self.games
        reported = {} if games is None else {LEARNED_RETURN: learned, "rollout/games": np.asarray(games.count, float)}
        return {
            RETURN: learned if games is None else games.mean(),
            **reported,
            **{f"{RETURN}/{name}": mean for name, mean in task_returns.items()},
            "rollout/ep_len_mean": np.asarray(self.lengths) / episodes + nan_if_none,
            "rollout/episodes": np.asarray(self.episodes, np.float64),
            **({} if self.successes is None else {"rollout/success_rate": self.successes / episodes + nan_if_none}),
            **{f"info/{name}": numbers.mean() for name, numbers in self.info.items()},
            **train_row(metrics, self.updates),
        }


def restart_carry(carry: PyTree, initial: PyTree, ended: Any) -> PyTree:
    """`carry` with the rows of `ended` environments `[B]` set to those of `initial`, the beginning of an episode."""

    def rows(now: Any, begin: Any) -> Any:
        flags = ended.reshape(-1, *(1,) * (now.ndim - 1))
        return jnp.where(jnp.broadcast_to(flags, now.shape), begin, now)

    return jax.tree.map(rows, carry, initial)


def first_fault(rollout: Transition, began: Int[Array, ""]) -> Int[Array, " 2"]:
    """`(step · B + index, part)` of the first number in a rollout `[T, B]` that is not finite; both −1 where all are
    finite. Part 0 is the action; it is first, because a bad action is a fault of the learner. Part i is the reward of
    task i, and the last part is the observation."""
    shape = rollout.terminated.shape

    def whole(*arrays: Array) -> Bool[Array, "T B 1"]:
        return jnp.stack([jnp.isfinite(x).reshape(*shape, -1).all(-1) for x in arrays]).all(0)[..., None]

    rewards, seen = jnp.isfinite(rollout.reward).reshape(*shape, -1), jax.tree.leaves((rollout.obs, rollout.next_obs))
    finite = jnp.concatenate([whole(rollout.action), rewards, whole(*seen)], axis=-1)
    where, part = jnp.divmod(jnp.argmin(finite).astype(jnp.int32), finite.shape[-1])
    return jnp.where(finite.all(), -1, jnp.stack([began * shape[1] + where, part]))


def raise_fault(fault: Any, num_envs: int, tasks: tuple[str, ...]) -> None:
    """Raise `EnvError` for the first fault of any seed, `[2]` or `[S, 2]`; it names environment, step and part. Where
    the action is at fault, raise the error for a learner that has diverged."""
    for seed, (where, part) in enumerate(np.atleast_2d(fault).tolist()):
        if where >= 0:
            of_seed = f" of seed number {seed}" if np.ndim(fault) == 2 else ""
            at = f"environment {where % num_envs}{of_seed}", f"at its step {where // num_envs:,}"
            if part == 0:
                raise divergence_error(f"the action for {' '.join(at)} is not finite")
            rewards = [f"reward of task {name!r}" for name in tasks] or ["reward"]
            what = [*rewards, "observation"][part - 1]
            raise EnvError(
                f"{at[0]} gave a NaN or infinite {what} {at[1]}. Nothing learned from it is kept; earlier checkpoints "
                "are intact. Correct the environment, or replace the value there (numpy.nan_to_num) if it has a "
                "meaning."
            )


def no_bad_mask(spec: EnvSpec) -> BadMask | None:
    """The `first_bad_mask` of no rollout; `None` if observations hold no mask."""
    seen = isinstance(spec.observation, Dict) and ACTION_MASK in spec.observation.spaces
    return BadMask(jnp.full((), -1, jnp.int32), jnp.zeros(sum(mask_sizes(spec.action)))) if seen else None


def first_bad_mask(obs: Obs, began: Int[Array, ""], action: Space) -> BadMask | None:
    """The first of the observations `[T, B]` of a rollout whose mask can mask no action; `None` without masks. The
    policy has acted on each of them, unlike on the successors of ends."""
    if not has_mask(obs):
        return None
    bad, masks = bad_masks(obs, action).ravel(), obs[ACTION_MASK]
    first = jnp.argmax(bad).astype(jnp.int32)
    entries = masks.reshape(-1, masks.shape[-1])[first].astype(jnp.float32)
    return BadMask(jnp.where(bad.any(), began * masks.shape[1] + first, -1), entries)


def keep_first(before: BadMask | None, new: BadMask | None) -> BadMask | None:
    """The first of two bad masks, `before` if there is one."""
    if before is None or new is None:
        return None
    return BadMask(*(jnp.where(before.where < 0, y, x) for x, y in zip(before, new, strict=True)))


def raise_bad_mask(bad: BadMask | None, num_envs: int, action: Space) -> None:
    """Raise `EnvError` for the first bad mask of any seed; it names environment, step and mask."""
    if bad is None:
        return
    for seed, (where, entries) in enumerate(zip(np.ravel(bad.where).tolist(), np.atleast_2d(bad.entries), strict=True)):
        if where >= 0:
            step, i = divmod(where, num_envs)
            raise mask_error(entries, action, i, step, seed if np.ndim(bad.where) else None)


def track_episodes(
    episodes: Episodes, reward: Float[Array, " B *K"], ended: Bool[Array, " B"]
) -> tuple[Episodes, tuple[Int[Array, ""], Float[Array, "*K"], Float[Array, ""]]]:
    """Running episodes after a step, and `(count, sum of returns, sum of lengths)` of the episodes that ended in it."""
    returns, lengths = episodes.returns + reward, episodes.lengths + 1
    over = jnp.broadcast_to(broadcast_flags(ended, returns), returns.shape)
    finished = (
        jnp.sum(ended, dtype=jnp.int32),
        jnp.sum(jnp.where(over, returns, 0.0), axis=0),
        jnp.sum(jnp.where(ended, lengths, 0).astype(jnp.float32)),
    )
    return Episodes(jnp.where(over, 0.0, returns), jnp.where(ended, 0, lengths)), finished
