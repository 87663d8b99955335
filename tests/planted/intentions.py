"""Bugs in SAC-X, its schedulers and tasks."""

from planted.mutant import Mutant

SACX, LEARNING = "algorithms/sac_x/sac_x.py", "algorithms/sac_x/targets.py"
LOSSES = "algorithms/sac_x/losses.py"
SCHEDULERS, TASKS = "algorithms/sac_x/task_schedulers.py", "envs/tasks.py"


def sac_x(*names: str) -> tuple[str, ...]:
    return tuple(f"algorithms/sac_x/test_sac_x.py::test_{name}" for name in names)


def scheduler(*names: str) -> tuple[str, ...]:
    return tuple(f"algorithms/sac_x/test_task_schedulers.py::test_{name}" for name in names)


def tasks(*names: str) -> tuple[str, ...]:
    return tuple(f"envs/test_tasks.py::test_{name}" for name in names)


BY_HAND = sac_x("gradients_are_those_of_the_papers_losses[discrete]")
IN_A_BOX = sac_x("gradients_are_those_of_the_papers_losses[box]")
RATIOS = sac_x("ratios_are_of_the_stored_behaviour_and_of_the_raw_action[discrete]")
COPIES = sac_x("targets_are_copies_every_period_and_constant_between")
SCORE = sac_x("the_policy_gradient_is_the_score_function_of_what_was_earned[discrete]")
GREEDY = sac_x("tests_play_the_main_task_or_another_and_greedily")
MOVED = sac_x("one_call_moves_every_head_and_the_trunk_and_nothing_else[discrete]")
TABLE = scheduler("the_table_is_the_papers_moving_average_of_executed_decisions")
PERIOD = scheduler("decisions_are_made_at_multiples_of_the_period_only")

MUTANTS = (
    Mutant(
        "SAC-X's ratios are of the policy that acts now", LEARNING,
        "return target_actor",
        "return actor",
        (*RATIOS, *BY_HAND),
    ),
    Mutant(
        "a score function is weighed by the target policy", LEARNING,
        "return actor\n",
        "return target_actor\n",
        SCORE,
    ),
    Mutant(
        "SAC-X bootstraps from the new critic", SACX,
        "soft_value(next_policy, state.target_critic,",
        "soft_value(next_policy, state.critic,",
        BY_HAND,
    ),
    Mutant(
        "SAC-X bootstraps under the policy that acts now", SACX,
        "next_policy, no_entropy = state.target_actor(batch.next_obs)",
        "next_policy, no_entropy = state.actor(batch.next_obs)",
        BY_HAND,
    ),
    Mutant(
        "Retrace subtracts the new critic's Q", SACX,
        "q=action_value(state.target_critic, batch.obs, batch.action)",
        "q=action_value(state.critic, batch.obs, batch.action)",
        BY_HAND,
    ),
    Mutant(
        "the behaviour's probability is computed again", SACX,
        '- batch.extras["log_prob"][None]',
        '- log_prob(state.actor(batch.obs), batch.extras["raw_action"])',
        RATIOS,
    ),
    Mutant(
        "the ratio is of the squashed action", SACX,
        'log_ratio = log_prob(policy, batch.extras["raw_action"])',
        "log_ratio = policy.to_half_ranges(policy.log_prob(jnp.broadcast_to(batch.action, policy.loc.shape)))",
        sac_x("ratios_of_saturated_actions"),
    ),
    Mutant(
        "SAC-X's critics are of the entropy too", SACX,
        "jnp.zeros(state.acted.shape[0])",
        "jnp.full(state.acted.shape[0], 0.3)",
        BY_HAND,
    ),
    Mutant(
        "every task learns the main task's reward", SACX,
        "reward=jnp.moveaxis(batch.reward, -1, 0)",
        "reward=jnp.repeat(batch.reward[None, ..., -1], batch.reward.shape[-1], axis=0)",
        BY_HAND,
    ),
    Mutant(
        "the critic's losses are summed over tasks", LOSSES,
        'return jnp.mean(losses), {"critic_loss"',
        'return jnp.sum(losses), {"critic_loss"',
        BY_HAND,
    ),
    Mutant(
        "every critic is asked for the first intention's action", LOSSES,
        "critic.own_values(obs, action), log_prob(policy, raw)",
        "critic(obs, action[0]), log_prob(policy, raw)",
        IN_A_BOX,
    ),
    Mutant(
        "SAC-X's actor climbs the critic from before its step", SACX,
        "actor_optimizer, critic.net, estimate",
        "actor_optimizer, state.critic.net, estimate",
        BY_HAND,
    ),
    Mutant(
        "SAC-X copies its targets at every update", SACX,
        "updates, self.target_period",
        "updates, 1",
        COPIES,
    ),
    Mutant(
        "SAC-X's target policy is a copy of the one before", SACX,
        "(state.target_actor, state.target_critic), (actor.net, critic.net)",
        "(state.target_actor, state.target_critic), (state.actor.net, critic.net)",
        COPIES,
    ),
    Mutant(
        "the scheduler learns what the first task earned", SACX,
        "transition.reward[:, -1], ended",
        "transition.reward[:, 0], ended",
        sac_x("the_scheduler_learns_the_main_tasks_reward_alone"),
    ),
    Mutant(
        "tests play the first task", SACX,
        "self.test_task % tasks",
        "0 * tasks",
        GREEDY,
    ),
    Mutant(
        "half the largest entropy of discrete actions is the whole", SACX,
        "0.5 * largest_entropy(batch.obs, n)",
        "largest_entropy(batch.obs, n)",
        sac_x("alpha_is_learned_for_each_task[discrete]"),
    ),
    Mutant(
        "the score function is not weighed by the ratio", LEARNING,
        "facts.ratio * (sums",
        "(sums",
        SCORE,
    ),
    Mutant(
        "the heads of all intentions are the first's", "networks/multitask.py",
        "outputs[task, jnp.arange(outputs.shape[1])]",
        "outputs[0 * task, jnp.arange(outputs.shape[1])]",
        sac_x("what_is_stored_is_of_the_intention_that_acted[discrete]"),
    ),
    Mutant(
        "heads see no gradient", "networks/multitask.py",
        "return self.tasks(self.trunk(self.encoder(obs)))\n\n\nclass TaskValues",
        "return jax.lax.stop_gradient(self.tasks)(self.trunk(self.encoder(obs)))\n\n\nclass TaskValues",
        MOVED,
    ),
    Mutant(
        "γ counts from the beginning of the episode", SCHEDULERS,
        "fade=jnp.where(here, 1.0, now.fade)",
        "fade=jnp.where(here, jnp.where(schedule.decisions[:, None] > 0, now.fade[:, :1], 1.0), now.fade)",
        TABLE,
    ),
    Mutant(
        "the moving average is over M from the first visit on", SCHEDULERS,
        "jnp.minimum(visits, window), count)",
        "jnp.full_like(visits, window), count)",
        TABLE,
    ),
    Mutant(
        "decisions that were not made are learned from", SCHEDULERS,
        "ended[:, None] & (rows < schedule.decisions[:, None])",
        "ended[:, None] & (rows >= 0)",
        TABLE,
    ),
    Mutant(
        "a return in the shared row goes on from the last one's", SCHEDULERS,
        "returns=jnp.where(here, 0.0, now.returns)",
        "returns=now.returns",
        TABLE,
    ),
    Mutant(
        "two of the choices before count as their sum", SCHEDULERS,
        "(now.code * tasks + task) % columns",
        "(now.code + task) % columns",
        TABLE,
    ),
    Mutant(
        "several returns at once count as their sum", SCHEDULERS,
        "mean = total / jnp.maximum(count, 1).astype(total.dtype)",
        "mean = total",
        TABLE,
    ),
    Mutant(
        "a decision comes one step early", SCHEDULERS,
        "due = schedule.left == 0",
        "due = schedule.left <= 1",
        PERIOD,
    ),
    Mutant(
        "a new episode goes on with the last one's task", SCHEDULERS,
        "jnp.where(spread(ended, now), new, now), first, schedule)",
        "now, first, schedule)",
        PERIOD,
    ),
    Mutant(
        "the scheduler's temperature is its inverse", SCHEDULERS,
        "schedule.memory.code] / self.temperature",
        "schedule.memory.code] * self.temperature",
        scheduler("boltzmann_probabilities_of_the_entry_that_stands_before"),
    ),
    Mutant(
        "rewards on the host are of the observation after a reset", TASKS,
        "self._rewards(self._obs, done, seen.reward, seen.next_obs,",
        "self._rewards(self._obs, done, seen.reward, seen.obs,",
        tasks("the_true_successor_is_rewarded_before_any_reset"),
    ),
    Mutant(
        "compiled rewards are of the observation after a reset", TASKS,
        "self._tasks.rewards(obs, done, seen.reward, seen.next_obs,",
        "self._tasks.rewards(obs, done, seen.reward, seen.obs,",
        tasks("gymnax_ends_are_rewarded_before_the_reset"),
    ),
    Mutant(
        "an algorithm of one reward learns the first task", TASKS,
        "Tasks(self.functions[-1], info=self.info)",
        "Tasks(self.functions[0], info=self.info)",
        tasks("an_algorithm_of_one_reward_gets_the_main_tasks_alone"),
    ),
    Mutant(
        "a landing is paid before the end", "envs/task_rewards.py",
        "terminated & (reward >= 100)",
        "reward >= 100",
        tasks("landed_is_the_bonus_at_the_end_and_nothing_else"),
    ),
    Mutant(
        "a task is not traced before the run", TASKS,
        "                if number:\n",
        "                if False:\n",
        tasks("tasks_that_cannot_be"),
    ),
    Mutant(
        "a row's return is the first task's", "loops/state.py",
        "learned, games = returns[..., -1]",
        "learned, games = returns[..., 0]",
        ("runs/test_intentions.py::test_rows_have_a_value_for_each_task",),
    ),
    Mutant(
        "data hold the first task's reward", "runs/collect.py",
        "seen.reward[..., -1]",
        "seen.reward[..., 0]",
        ("runs/test_intentions.py::test_data_hold_the_main_tasks_reward",),
    ),
)  # fmt: skip
