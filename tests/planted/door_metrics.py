"""Bugs in what rows, scores and messages count: metrics between two rows, returns, numbers of info, steps, successors."""

from planted.mutant import Mutant, of

FOLDED = of("loops/test_folding.py", "a_row_is_that_of_all_its_updates_however_they_are_folded")
HELD = of("loops/test_folding.py", "arrays_stay_as_many_and_nothing_is_compiled_for_them")
FRAMES = of("data/test_frames.py", "however_short_episodes_are_no_terminated_row_takes_the_place_of_a_truncated_one")
STORED = of("data/test_frames.py", "what_is_sampled_is_what_was_written")
COUNTED = of("data/test_frames.py", "what_is_lost_is_counted")
SAID = of("runs/test_lost_successors.py", "the_share_is_a_number_in_the_rows_and_said_once")
STEPS = of("envs/test_step_numbers.py", "a_failure_names_the_action_that_failed")
GAME = of("runs/test_game_returns.py", "the_games_return_is_shown_and_the_learned_one_beside_it")
LIVES = of("runs/test_game_returns.py", "lives_are_episodes_and_games_are_what_is_shown")
BY_HAND = of("runs/test_game_returns.py", "returns_are_counted_as_by_hand")
READ = of("runs/test_game_returns.py", "a_step_is_read_by_hand")
NONE = of("runs/test_game_returns.py", "where_no_return_is_reported_the_learned_one_is_all")
TASKS = of("runs/test_game_returns.py", "tasks_are_scored_by_their_own_rewards")
BAD = of("runs/test_game_returns.py", "a_return_that_is_no_finite_number_is_refused_by_name")
WATCHED = of("runs/test_game_returns.py", "episodes_that_one_watches_have_the_same_returns")
MEAN = of("runs/test_log_info.py", "the_mean_over_all_steps_that_give_the_number")
FINITE = of("runs/test_log_info.py", "what_is_no_finite_number_is_refused_by_name")
ADAPTER = of("runs/test_log_info.py", "an_adapter_gives_one_number_for_each_environment")
IN_JAX = of("runs/test_log_info.py", "environments_in_jax_tell_numbers_too")
UNKNOWN = of("runs/test_log_info.py", "a_name_that_environments_in_jax_do_not_have_is_refused_before_anything_is_made")
PROCESSES = of("runs/test_log_info.py", "processes_tell_what_one_process_does")
NEVER = of("runs/test_log_info.py", "what_never_came_is_said_at_the_first_end_or_with_the_last_row")
RESUMED = of("runs/test_log_info.py", "a_run_keeps_the_names_resumes_with_them_and_says_what_never_came")
FAILED = of("runs/test_log_info.py", "a_success_that_is_never_reported_is_no_failure")

MUTANTS = [
    Mutant("metrics wait on the device for a row", "loops/host_learner.py", "if len(self._rows) == ROWS_ON_DEVICE:", "if False:", HELD),
    Mutant("folding forgets the rows", "loops/host_learner.py", "self._rows = [self._fold_rows()]", "self._rows = []", FOLDED),
    Mutant("extrema are folded as sums", "loops/host_learner.py", "rules = [SUM, *map(rule_of, self._metric_names)]", "rules = [SUM] * (1 + len(self._metric_names))", FOLDED),
    Mutant("terminated rows take slots", "data/frames.py", "rollout.truncated & ~rollout.terminated, images", "rollout.truncated | rollout.terminated, images", FRAMES),
    Mutant("a terminated row has the successor of the next episode", "data/frames.py", "jnp.where(rollout.terminated, TERMINATED, numbers)", "jnp.where(rollout.terminated, RUNNING, numbers)", STORED),
    Mutant("rows that were never written are truncated", "data/ring.py", "(jnp.arange(ring.capacity) < ring.rows)[:, None]", "True", COUNTED),
    Mutant("lost successors are not in the rows", "runs/session.py", "row |= lost_successors_row(state.replay)", "pass", SAID),
    Mutant("lost successors are said in every row", "runs/rows.py", 'LOST not in row or not self._is_new("replay")', "LOST not in row", SAID),
    Mutant("a failing action is one too late", "envs/journal.py", "length - 1 if step is None", "length if step is None", STEPS),
    Mutant("the learned return is the game's", "loops/state.py", "RETURN: learned if games is None else games.mean()", "RETURN: learned", GAME),
    Mutant("a score is the learned return", "runs/evaluation.py", "scores.games if known == scores.games.size and not tasks else scores.returns", "scores.returns", GAME),
    Mutant("a score mixes games and lives", "runs/evaluation.py", "known == scores.games.size and not tasks", "known and not tasks", LIVES),
    Mutant("what the wrapper will report is not known before", "envs/journaled.py", "[GAME_RETURN] if counts_returns else []", "", LIVES),
    Mutant("returns that are not there count as 0", "loops/host.py", "known = ~np.isnan(numbers)\n", "known = ~np.isnan(np.nan_to_num(numbers))\n", BY_HAND),
    Mutant("sums of running episodes count", "envs/results.py", "    if terminated or truncated:\n        game", "    if True:\n        game", READ),
    Mutant("a limit outside of the wrapper ends no game", "envs/results.py", "if game is None and truncated and statistics is not None:", "if False:", GAME),
    Mutant("a life is a game", "envs/results.py", "if game is None and truncated and statistics", "if game is None and statistics", LIVES),
    Mutant("statistics of any key are the game's", "envs/wrappers.py", 'getattr(each, "_stats_key", "episode") == "episode"', "True", NONE),
    Mutant("tasks are scored by the environment's reward", "envs/tasks.py", "        seen.info.pop(GAME_RETURN, None)", "        pass", TASKS),
    Mutant("a return may be infinite", "envs/results.py", "if not math.isfinite(number):", "if False:", BAD),
    Mutant("one watches learned returns", "runs/watch.py", "total = total if np.isnan(game) else game", "pass", WATCHED),
    Mutant("a mean of info is over all steps", "ops/metrics.py", "np.maximum(count, 1) + np", "np.maximum(count.max(), 16) + np", MEAN),
    Mutant("any value of info is taken", "envs/results.py", "finite_number(info[name], ", "one_number(info[name], ", FINITE),
    Mutant("an adapter's numbers are not looked at", "loops/host.py", "                check_info_numbers(name, seen.info[name], self.lengths.shape)\n", "", ADAPTER),
    Mutant("an infinite number in JAX is a mean", "loops/compiled.py", "if not np.isfinite(numbers.total).all():", "if False:", IN_JAX),
    Mutant("what JAX does not tell is 0", "loops/compiled.py", "known = ~jnp.isnan(numbers)", "known = jnp.ones(numbers.shape, bool)", IN_JAX),
    Mutant("names of info in JAX are not looked at", "envs/make.py", "            check_info(envs, options.get(\"info\", ()))", "            pass", UNKNOWN),
    Mutant("processes read no names", "envs/asynchronous.py", "functools.partial(work, names=info)", "work", PROCESSES),
    Mutant("processes keep the game's return", "envs/results.py", '{"episode": {"r": numbers[GAME_RETURN]}} if GAME_RETURN in numbers else {}', "{}", PROCESSES),
    Mutant("what never came is not said at the end", "runs/session.py", "for text in remarks.missing_info():", "for text in []:", of("runs/test_log_info.py", "a_short_run_says_at_its_end_what_never_came")),
    Mutant("what never came is said with every row", "runs/rows.py", 'if not self._missing or not self._is_new("info"):', "if not self._missing:", NEVER),
    Mutant("a resumed run forgets the names", "runs/environments.py", "{\"info\": plan.log_info, **recovery", "{**recovery", RESUMED),
    Mutant("a name that never comes is a failure", "loops/host.py", "not np.isnan(reported).all()", "True", FAILED),
]  # fmt: skip
