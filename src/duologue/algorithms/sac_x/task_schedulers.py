"""Schedulers of scheduled auxiliary control, which choose the next intention (Riedmiller et al., 2018, §5).

Every `period` steps of an episode, the scheduler makes a decision: it draws one of K tasks. The intention of this task
acts until the next decision. A scheduler learns a *table*, which is part of the learner's state. It keeps the data of
running episodes in a `Schedule`, which is part of the carry. `choose` updates the schedule before a step, `observe`
updates the schedule after a step.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from duologue.errors import ConfigError
from duologue.fields import Configurable, Positive, PositiveInt
from duologue.types import Metrics, PyTree

Discount = float | Float[Array, ""]


class Schedule(eqx.Module):
    """Progress of the running episodes of `B` environments."""

    left: Int[Array, " B"]
    """Steps until the next decision."""
    decisions: Int[Array, " B"]
    """Decisions so far in this episode."""
    task: Int[Array, " B"]
    """Intention that acts."""
    memory: PyTree = None
    """Memory of the scheduler for this episode."""


class AbstractScheduler(Configurable):
    """Draws the next task of each environment."""

    @abstractmethod
    def probs(self, table: PyTree, schedule: Schedule, tasks: int) -> Float[Array, "B K"]:
        """P(next task) at the next decision of `schedule`."""

    def init(self, tasks: int) -> PyTree:
        """Table before the first episode; arrays only."""
        return ()

    def memory(self, num_envs: int) -> PyTree:
        """Memory at the start of episodes."""
        return None

    def after_choice(self, table: PyTree, schedule: Schedule, task: Int[Array, " B"], due: Bool[Array, " B"]) -> PyTree:
        """Memory after the choice of `task`, where a decision was `due`."""
        return schedule.memory

    def after_reward(
        self, table: PyTree, schedule: Schedule,
        reward: Float[Array, " B"], ended: Bool[Array, " B"], discount: Discount,
    ) -> tuple[PyTree, PyTree]:  # fmt: skip
        """Table and memory after the main task's `reward`."""
        return table, schedule.memory

    def metrics(self, table: PyTree, tasks: int) -> Metrics:
        """Probabilities `[K]` at the first decision of an episode."""
        return {"schedule_probability": self.probs(table, begin(self, 1), tasks)[0]}


def begin(scheduler: AbstractScheduler, num_envs: int) -> Schedule:
    """Schedule before the first decision of an episode."""
    zero = jnp.zeros(num_envs, jnp.int32)
    return Schedule(zero, zero, zero, scheduler.memory(num_envs))


def choose(
    scheduler: AbstractScheduler, table: PyTree, schedule: Schedule, *, tasks: int, period: Int[Array, ""], key: Array
) -> Schedule:
    """Return the schedule before a step, with a new task where the period of the last task is over."""
    due = schedule.left == 0
    drawn = jax.random.categorical(key, jnp.log(scheduler.probs(table, schedule, tasks))).astype(jnp.int32)
    task = jnp.where(due, drawn, schedule.task)
    memory = scheduler.after_choice(table, schedule, task, due)
    left = jnp.where(due, jnp.broadcast_to(period, due.shape), schedule.left) - 1
    return Schedule(left, schedule.decisions + due.astype(jnp.int32), task, memory)


def observe(
    scheduler: AbstractScheduler, table: PyTree, schedule: Schedule,
    reward: Float[Array, " B"], ended: Bool[Array, " B"], discount: Discount,
) -> tuple[PyTree, Schedule]:  # fmt: skip
    """Return table and schedule after a step with the main task's `reward`. Where an episode `ended`, the schedule
    starts again."""
    table, memory = scheduler.after_reward(table, schedule, reward, ended, discount)
    schedule = Schedule(schedule.left, schedule.decisions, schedule.task, memory)
    first = begin(scheduler, ended.shape[0])
    return table, jax.tree.map(lambda new, now: jnp.where(spread(ended, now), new, now), first, schedule)


def spread(flags: Bool[Array, " B"], like: Array) -> Bool[Array, "..."]:
    """`[B]` flags in the shape of `like`, `[B, …]`."""
    return jnp.broadcast_to(flags.reshape(-1, *(1,) * (like.ndim - 1)), like.shape)


class Uniform(AbstractScheduler):
    """SAC-U: every task with probability 1/K."""

    def probs(self, table: tuple[()], schedule: Schedule, tasks: int) -> Float[Array, "B K"]:
        return jnp.full((schedule.left.shape[0], tasks), 1 / tasks)


class FixedTask(AbstractScheduler):
    """The same intention at every decision."""

    task: int = -1
    """Number of the task, from 0. Negative numbers count from the end: −1 is the main task."""

    def probs(self, table: tuple[()], schedule: Schedule, tasks: int) -> Float[Array, "B K"]:
        if not -tasks <= self.task < tasks:
            raise ConfigError(f"FixedTask.task = {self.task}: must be in [{-tasks}, {tasks - 1}], for {tasks} tasks.")
        return jax.nn.one_hot(jnp.full_like(schedule.left, self.task % tasks), tasks)


class Sequential(AbstractScheduler):
    """All tasks in turn, with the main task last, then again from the first task."""

    def probs(self, table: tuple[()], schedule: Schedule, tasks: int) -> Float[Array, "B K"]:
        return jax.nn.one_hot(schedule.decisions % tasks, tasks)


class Table(eqx.Module):
    """Q(T₀:ₕ₋₁, Tₕ). Axes: number of the decision, code of the earlier choices, choice."""

    value: Float[Array, "H C K"]
    visits: Int[Array, "H C K"]


class Decisions(eqx.Module):
    """Decisions of running episodes, H rows for each episode."""

    code: Int[Array, " B"]
    """The last `history` choices as one number in base K. The newest choice is the last digit."""
    choices: Int[Array, "B H"]
    codes: Int[Array, "B H"]
    """Value of `code` before each choice."""
    returns: Float[Array, "B H"]
    """Rₕ = Σ γ^(t − tₕ) r_main(t) so far, from the decision at tₕ on."""
    fade: Float[Array, "B H"]
    """Discount γ^(t − tₕ) of the next reward."""


class QTable(AbstractScheduler):
    """SAC-Q: a Boltzmann policy over a table of the main task's return after each choice.

    P(Tₕ | T₀:ₕ₋₁) ∝ exp(Q(T₀:ₕ₋₁, Tₕ)/η),   Q ← Q + (Rₕ − Q)/min(n, M) at the end of an episode, for each decision h
    of the episode (Riedmiller et al., 2018, §5.2). n is the number of visits of the entry. Rₕ sums the rewards from
    decision h to the end of the episode, and its discount starts at decision h.

    The paper's table depends on all earlier choices. This table depends on the number of the decision and on the last
    `history` choices; with `history` = `max_decisions` both tables are the same. All decisions after the last row use
    the last row. If one episode has several of these decisions, the table learns from the newest.
    """

    temperature: Positive = 1.0
    """Temperature of the choice (η), in units of the main task's returns. Set the temperature by the size of these
    returns."""
    window: PositiveInt = 50
    """Number of visits over which an entry averages (M)."""
    history: PositiveInt = 2
    """Number of earlier choices that the value of a decision depends on."""
    max_decisions: PositiveInt = 8
    """Number of rows of the table (H)."""

    def __check_init__(self):
        if self.history > self.max_decisions:
            raise ConfigError(
                f"QTable.history = {self.history}: must be at most max_decisions = {self.max_decisions}, which is the "
                "paper's table."
            )

    def init(self, tasks: int) -> Table:
        if tasks**self.history * tasks * self.max_decisions > 2**24:
            raise ConfigError(
                f"QTable.history = {self.history}: a table of {tasks} tasks would have {tasks}^{self.history} columns. "
                "Reduce it."
            )
        shape = (self.max_decisions, tasks**self.history, tasks)
        return Table(jnp.zeros(shape), jnp.zeros(shape, jnp.int32))

    def memory(self, num_envs: int) -> Decisions:
        shape = (num_envs, self.max_decisions)
        zero, none = jnp.zeros(shape), jnp.zeros(shape, jnp.int32)
        return Decisions(code=none[:, 0], choices=none, codes=none, returns=zero, fade=zero)

    def probs(self, table: Table, schedule: Schedule, tasks: int) -> Float[Array, "B K"]:
        row = jnp.minimum(schedule.decisions, self.max_decisions - 1)
        return jax.nn.softmax(table.value[row, schedule.memory.code] / self.temperature, axis=-1)

    def after_choice(
        self, table: Table, schedule: Schedule, task: Int[Array, " B"], due: Bool[Array, " B"]
    ) -> Decisions:
        now, (_, columns, tasks) = schedule.memory, table.value.shape
        row = jnp.minimum(schedule.decisions, self.max_decisions - 1)
        here = due[:, None] & jax.nn.one_hot(row, self.max_decisions, dtype=bool)
        over = lambda x: jnp.broadcast_to(x[:, None], here.shape)  # noqa: E731
        return Decisions(
            code=jnp.where(due, (now.code * tasks + task) % columns, now.code),
            choices=jnp.where(here, over(task), now.choices),
            codes=jnp.where(here, over(now.code), now.codes),
            returns=jnp.where(here, 0.0, now.returns),
            fade=jnp.where(here, 1.0, now.fade),
        )

    def after_reward(
        self, table: Table, schedule: Schedule, reward: Float[Array, " B"], ended: Bool[Array, " B"], discount: Discount
    ) -> tuple[Table, Decisions]:
        now = schedule.memory
        returns = now.returns + now.fade * reward[:, None]
        memory = Decisions(now.code, now.choices, now.codes, returns, now.fade * discount)
        rows = jnp.broadcast_to(jnp.arange(self.max_decisions), returns.shape)
        executed = ended[:, None] & (rows < schedule.decisions[:, None])
        where = rows, now.codes, now.choices
        count = jnp.zeros_like(table.visits).at[where].add(executed.astype(jnp.int32))
        total = jnp.zeros_like(table.value).at[where].add(jnp.where(executed, returns, 0.0))
        return move_averages(table, count, total, self.window), memory

    def metrics(self, table: Table, tasks: int) -> Metrics:
        return {**super().metrics(table, tasks), "schedule_value": table.value[0, 0]}


def move_averages(table: Table, count: Int[Array, "H C K"], total: Float[Array, "H C K"], window: int) -> Table:
    """Q ← Q + (R̄ − Q) m/max(m, min(n, M)) for m returns with mean R̄ at the same time. n is the number of visits,
    with these m. m = 1 gives the rule of the paper."""
    visits = table.visits + count
    weight = count / jnp.maximum(jnp.maximum(jnp.minimum(visits, window), count), 1)
    mean = total / jnp.maximum(count, 1).astype(total.dtype)
    return Table(table.value + weight * (mean - table.value), visits)
