"""Bugs that readers of the whole library found in it, planted again."""

from planted.mutant import Mutant, of

DELAYED = of("algorithms/test_td3.py", "the_actors_schedule_counts_the_steps_of_the_critics")
SCHEDULE = of("runs/test_plan.py", "a_schedule_ends_with_the_last_step_of_its_network")
INSIDE = of("algorithms/test_fqe.py", "real_actions_are_inside_the_box_as_the_environment_executes_them")
MASKED = of("loops/test_exploration.py", "uniform_actions_are_those_that_a_mask_allows")
RECORDED = of("runs/test_recorded.py", "noise_is_in_half_ranges_or_a_share_of_random_actions")
COUNTS = of("algorithms/sac_x/test_sac_x.py", "the_target_entropy_counts_what_a_mask_allows")
HEEDED = of("runs/test_signals.py", "what_reaches_the_environments_processes_too_is_the_runs_to_heed")
ENDLESS = of("runs/test_signals.py", "an_evaluation_that_does_not_end_is_interrupted")
NUMPY = of("runs/test_session.py", "a_callback_may_answer_as_numpy_does")
FAILS = of("runs/test_session.py", "an_evaluation_that_fails_loses_nothing_learned")

DONE = of("envs/test_tasks.py", "a_task_sees_the_action_that_was_done")
CLIPPED = of("runs/test_recorded.py", "what_is_recorded_is_what_the_environment_did")
FAULT = of("envs/test_tasks.py", "a_reward_that_is_no_number_is_found_in_every_loop")
DISCRETE = of("algorithms/test_sac.py", "the_discrete_version_moves_its_critics_first_and_bootstraps_after_n_rewards")
LENGTH = of("runs/test_plan.py", "more_environments_make_fewer_updates")

SLOW = of("algorithms/test_fqe.py", "the_target_is_that_of_the_slow_copy")
SHARED = of("loops/test_learning.py", "a_share_of_what_a_loop_learns_from_is_recorded")
TOSSED = of("loops/test_loops.py", "each_step_of_an_evaluation_has_its_own_chance")
RATES = of("algorithms/test_constants.py", "each_network_moves_at_its_own_rate")
BEGINS = of("runs/test_recorded.py", "a_beginning_is_where_an_episode_is_known_to_begin")

MUTANTS = [
    Mutant(
        "the temperature slows down as it falls", "ops/temperature.py",
        "log_alpha_step(temperature_loss, state", "log_alpha_step(dual_loss, state",
        of("algorithms/test_sac.py", "alpha_falls_above_the_target_entropy_rises_below_and_stays_at_it"),
    ),
    Mutant(
        "a multiplier moves as a temperature", "ops/temperature.py",
        "log_alpha_step(dual_loss, state", "log_alpha_step(temperature_loss, state",
        of("algorithms/test_bear.py", "the_multiplier_ascends_by_the_divergence_of_the_actors_own_samples"),
    ),
    Mutant(
        "an interrupted evaluation is forgotten", "runs/session.py", "Interval(plan.evaluate_every, last_evaluation(self.path) if evaluate else 0)",
        "Interval(plan.evaluate_every, start)",
        of("runs/test_session.py", "an_evaluation_that_was_interrupted_is_made_up_for"),
    ),
    Mutant(
        "a bad action is the environment's fault", "loops/state.py", "[whole(rollout.action), rewards",
        "[jnp.ones((*shape, 1), bool), rewards",
        of("loops/test_loops.py", "a_policy_that_has_diverged_is_no_fault_of_the_environment"),
    ),
    Mutant(
        "a best checkpoint is one to go on from", "storage/checkpoint.py",
        'bool(_newest_first(run / "checkpoints" / "latest"))', '(run / "checkpoints").exists()',
        of("runs/test_session.py", "a_folder_whose_run_was_killed_before_it_saved_is_free"),
    ),
    Mutant(
        "a limit is asked of the wrapper that sets it", "envs/gymnasium.py", "time_limit(theirs)", "time_limit(env)",
        of("envs/test_gymnasium.py", "a_limit_of_its_own_is_not_outlived"),
    ),
    Mutant(
        "processes keep their successes", "envs/worker.py", "(*step, numbers_as_info(numbers))", "(*step, {})",
        of("envs/test_asynchronous.py", "successes_are_those_of_one_process"),
    ),
    Mutant(
        "checkpoints wait for rare rows", "runs/planning.py", "evaluate_every, save_every)\n    log_every",
        "evaluate_every)\n    log_every",
        of("runs/test_session.py", "a_checkpoint_is_made_as_often_as_it_says_however_rare_the_rows_are"),
    ),
    Mutant(
        "a file's word imports a module", "runs/environments.py", "named and module not in sys.modules", "False",
        of("cli/test_main.py", "a_module_that_a_file_names_is_not_imported"),
    ),
    Mutant(
        "a task on the host sees what was asked for", "envs/tasks.py", "self._rewards(self._obs, done,",
        "self._rewards(self._obs, action,", DONE,
    ),
    Mutant(
        "a compiled task sees what was asked for", "envs/tasks.py", "self._tasks.rewards(obs, done,",
        "self._tasks.rewards(obs, action,", DONE,
    ),
    Mutant(
        "what is recorded was never done", "runs/collect.py", "clip_to_bounds(space, disturb_action(", "(disturb_action(",
        CLIPPED,
    ),
    Mutant(
        "a file's own bounds are not kept", "data/cleaning.py", "within = clip_to_bounds(space, x)", "within = x", CLIPPED,
    ),
    Mutant(
        "a mask is drawn though the data have one", "loops/offline.py", "{**drawn, **data.rows.extras}",
        "{**data.rows.extras, **drawn}",
        of("loops/test_offline.py", "a_mask_of_the_data_is_used_and_a_drawn_one_only_where_there_is_none"),
    ),
    Mutant(
        "each block of data begins the discounted return anew", "loops/offline.py",
        "learner, carry = program((learner, carry), rows)", "learner, _ = program((learner, carry), rows)",
        of("loops/test_offline.py", "a_window_does_not_change_what_is_seen_before_the_first_update"),
    ),
    Mutant(
        "a clone's schedule knows one environment", "algorithms/families.py", "self.replay_capacity, self.num_envs",
        "self.replay_capacity, 1", LENGTH,
    ),
    Mutant(
        "float images are normalised", "algorithms/normalized.py", " and not any(find_image(space, each) for each in channels)", "",
        of("algorithms/test_normalized.py", "images_integers_and_masks_are_left_alone"),
    ),
    Mutant(
        "the fault's part is forgotten", "loops/state.py", "jnp.stack([began * shape[1] + where, part])",
        "jnp.stack([began * shape[1] + where, jnp.zeros_like(part)])", FAULT,
    ),
    Mutant(
        "a fault's step is counted from the rollout", "loops/state.py", "began * shape[1] + where", "where", FAULT,
    ),
    Mutant(
        "TD3's actor counts its own steps on the critics' schedule", "algorithms/td3.py",
        "delayed_rate(algorithm.actor_learning_rate, algorithm.policy_delay)", "algorithm.actor_learning_rate", DELAYED,
    ),
    Mutant(
        "a schedule counts updates that learning_starts forbids", "runs/horizon.py",
        "max(0, rollouts - idle_rollouts(experience))", "rollouts", SCHEDULE,
    ),
    Mutant(
        "FQE asks for actions outside the box", "algorithms/fqe.py", "if state.bounds is not None:", "if False:",
        INSIDE,
    ),
    Mutant(
        "first actions forget the mask", "loops/exploration.py", "case Discrete() if has_mask(obs):",
        "case Discrete() if False:", MASKED,
    ),
    Mutant(
        "masks of components are read from the first", "loops/exploration.py", "np.cumsum(nvec)[:-1], axis=-1)",
        "np.arange(1, len(nvec)), axis=-1)", MASKED,
    ),
    Mutant(
        "recorded noise forgets the mask", "runs/collect.py", "if has_mask(obs) else", "if False else", RECORDED,
    ),
    Mutant(
        "SAC-X's target entropy forgets the mask", "algorithms/sac_x/sac_x.py", "largest_entropy(batch.obs, n)",
        "largest_entropy(None, n)", COUNTS,
    ),
    Mutant(
        "the tracker of resources unblocks Ctrl-C", "envs/pool.py", "    resource_tracker.ensure_running()",
        "    pass", HEEDED,
    ),
    Mutant(
        "SIGTERM ends the environments' processes", "envs/pool.py", "{signal.SIGINT, signal.SIGTERM}",
        "{signal.SIGINT}", HEEDED,
    ),
    Mutant(
        "evaluation never looks up", "loops/evaluate.py",
        "while left:\n            if interrupted():", "while left:\n            if False:", ENDLESS,
    ),
    Mutant(
        "compiled evaluation never looks up", "loops/evaluate.py",
        "over.all():\n            if interrupted():", "over.all():\n            if False:",
        of("loops/test_loops.py", "an_evaluation_in_jax_without_end_is_interrupted"),
    ),
    Mutant(
        "only False itself stops a run", "runs/session.py", "result is not None and not result", "result is False",
        NUMPY,
    ),
    Mutant(
        "a failing evaluation takes what was learned along", "runs/saved_states.py",
        "            finally:\n                self.save(state, step)", "            finally:\n                pass",
        FAILS,
    ),
    Mutant(
        "a fine-tuned schedule ends where the data's part did", "runs/horizon.py",
        "updates=done + more", "updates=done",
        of("runs/test_recorded.py", "a_schedule_goes_on_over_both_parts_of_the_learning"),
    ),
    Mutant(
        "the best checkpoint of a step stays, whatever scores better", "runs/saved_states.py",
        "            files.discard(worse)", "            pass",
        of("runs/test_session.py", "of_two_evaluations_of_one_step_the_better_is_kept"),
    ),
    Mutant(
        "all runs see the same windows of the data", "loops/offline.py", "default_rng([self.seed, number])",
        "default_rng(number)", of("loops/test_offline.py", "runs_of_other_seeds_see_other_windows"),
    ),
    Mutant(
        "an episode that ends before its time is stepped on", "envs/journal.py",
        "if t < len(part) and i not in rows.ended]", "if t < len(part)]",
        of("envs/test_asynchronous.py", "an_episode_that_ends_before_its_time_is_lost_and_said"),
    ),
    Mutant(
        "pixels between 0 and 1 are cut to black", "runs/policy.py", "not np.array_equal(cast, array)", "False",
        of("runs/test_policy.py", "integers_take_nothing_but_integers"),
    ),
    Mutant(
        "a replay is learned from raw at first", "algorithms/normalized.py",
        "known_moments(state) if self.experience.learn_from_rollout else merged", "state.current",
        of("algorithms/test_normalized.py", "a_replay_is_normalised_from_its_first_update_on"),
    ),
    Mutant(
        "a limit of Atari counts frames", "envs/atari.py",
        "    spec.additional_wrappers = (\n        WrapperSpec(\"StickyAction\"",
        "    spec.additional_wrappers = (\n        *(() if max_episode_steps is None else (limit,)),\n"
        "        WrapperSpec(\"StickyAction\"",
        of("envs/test_atari.py", "a_limit_is_of_the_agents_steps"),
    ),
    Mutant(
        "a game goes on from what was played before", "envs/atari.py",
        "            self._game.ale.restoreSystemState(self._start)\n", "",
        of("envs/test_atari.py", "an_episode_follows_from_its_seed_alone"),
    ),
    Mutant(
        "no action of a game is repeated", "envs/atari.py",
        'spec.kwargs.get("repeat_action_probability", 0.0)', "0.0",
        of("envs/test_atari.py", "actions_are_repeated_with_the_probability_of_the_game"),
    ),
    Mutant(
        "a game is begun without its seed", "envs/atari.py", "if seed is not None:", "if seed is None:",
        of("envs/test_atari.py", "an_episode_follows_from_its_seed_alone"),
    ),
    Mutant(
        "what is watched is scored under the main task", "runs/watch.py",
        "film(), episodes, most, console, plan.test_task, path)", "film(), episodes, most, console, -1, path)",
        of("runs/test_intentions.py", "each_intention_is_watched_and_scored_under_its_own_reward"),
    ),
    Mutant(
        "a long period is said where it is none", "algorithms/sac_x/sac_x.py", "period <= limit", "period >= limit",
        of("algorithms/sac_x/test_sac_x.py", "a_period_longer_than_every_episode_is_said"),
    ),
    Mutant(
        "SACDiscrete's actor follows the critics of before", "algorithms/sac_discrete.py",
        "q = critics(obs)", "q = state.critics(obs)", DISCRETE,
    ),
    Mutant(
        "SACDiscrete's critics follow their slow copies", "algorithms/sac_discrete.py",
        "polyak(state.target_critics, critics.net, self.tau)", "polyak(critics.net, state.target_critics, self.tau)", DISCRETE,
    ),
    Mutant(
        "the smallest of an interval is the largest of the smallest", "ops/metrics.py",
        "lambda x: x.min(0)", "lambda x: x.max(0)",
        of("ops/test_metrics.py", "loops_tell_the_extrema_of_the_interval"),
    ),
    Mutant(
        "the smallest of a batch is its largest", "ops/metrics.py",
        '("min", jnp.min), ("max", jnp.max),', '("min", jnp.max), ("max", jnp.min),',
        of("ops/test_metrics.py", "described_is_numpys"),
    ),
    Mutant(
        "the share of the data is the share of the replay", "loops/learning.py",
        "old = round(share * replay.batch_size)", "old = round((1 - share) * replay.batch_size)",
        of("runs/test_recorded.py", "that_share_of_each_batch_is_of_the_data"),
    ),
    Mutant(
        "time limits flagged twice are deaths", "data/cleaning.py",
        "return terminals & ~twice, timeouts", "return terminals, timeouts & ~twice",
        of("data/test_dataset.py", "time_limits_that_are_all_terminals_too_are_time_limits"),
    ),
    Mutant(
        "a time limit's successor is the next episode's first observation", "data/dataset.py",
        "dropped = truncated.copy()", "dropped = np.zeros_like(truncated)",
        of("data/test_dataset.py", "without_successors_a_time_limits_row_is_dropped_and_the_row_before_cut"),
    ),
    Mutant(
        "SAC begins with a last policy layer of a hundredth", "algorithms/sac.py",
        'init="lecun", policy_scale=1.0)', 'init="lecun", policy_scale=0.01)',
        of("networks/test_builder.py", "the_last_policy_layer_of_what_learns_from_replay_begins_as_all_others"),
    ),
    Mutant(
        "fitted Q values a policy that was never trained", "runs/fitted_q.py",
        "replace(first.algorithm, policy=jax.tree.map(jnp.copy, state))", "first.algorithm",
        of("runs/test_recorded.py", "fitted_q_evaluation_finds_what_a_policy_is_worth"),
    ),
    Mutant(
        "fitted Q draws the batches of the training", "runs/fitted_q.py", ', key=purpose_key(first.key, "fit")', "",
        of("runs/test_recorded.py", "a_fit_draws_no_batch_of_the_training"),
    ),
    Mutant(
        "fitted Q has no slow copy", "algorithms/fqe.py", "action_value(state.target_critics",
        "action_value(state.critics", SLOW,
    ),
    Mutant(
        "fitted Q's slow copy runs ahead", "algorithms/fqe.py", "polyak(state.target_critics, critics.net,",
        "polyak(critics.net, state.target_critics,", SLOW,
    ),
    Mutant(
        "a cut begins an episode", "data/dataset.py", "ends[list(self.cut)] = False", "pass", BEGINS,
    ),
    Mutant(
        "a replay that has gone round sets in with an episode", "runs/data_sources.py",
        "starts_episode=head <= kept.data.reward.shape[int(axis)]", "starts_episode=True", BEGINS,
    ),
    Mutant(
        "going on online forgets the data on the host", "loops/host.py", "recorded=recorded, share=share",
        "recorded=recorded, share=0.0", SHARED,
    ),
    Mutant(
        "going on online forgets the data in JAX", "loops/compiled.py", "recorded=recorded, share=share",
        "recorded=recorded, share=0.0", SHARED,
    ),
    Mutant(
        "each chunk is a program", "loops/compiled.py", "None, None, None)), donate_argnums=(0, 1))",
        "None, None, None)), donate_argnums=(0, 1), static_argnums=(4,))",
        of("loops/test_loops.py", "one_program_serves_every_chunk"),
    ),
    Mutant(
        "an evaluation on the host has one chance for all steps", "loops/evaluate.py",
        'obs, key=key_for(key, "act", t)', 'obs, key=key_for(key, "act")', TOSSED,
    ),
    Mutant(
        "an evaluation in JAX has one chance for all actions", "loops/evaluate.py", 'key_for(key, "act", now.t)',
        'key_for(key, "act")', TOSSED,
    ),
    Mutant(
        "an evaluation in JAX has one chance for all steps", "loops/evaluate.py", 'key_for(key, "env", now.t)',
        'key_for(key, "env")', TOSSED,
    ),
    Mutant(
        "windows of a run that goes on are those of seed 0", "runs/drive.py", "window=plan.window, seed=plan.seed)",
        "window=plan.window)", of("loops/test_offline.py", "a_run_goes_on_bit_for_bit_from_its_file"),
    ),
    Mutant(
        "a discrete target allows what the last mask did", "algorithms/bcq_discrete.py",
        "allowed_actions(clone, batch.next_obs", "allowed_actions(clone, batch.obs",
        of("algorithms/test_bcq.py", "the_discrete_target_is_of_an_action_that_the_successors_mask_allows"),
    ),
    Mutant(
        "a mask leaves SAC's target entropy as it is", "algorithms/sac_discrete.py", "largest_entropy(obs, q",
        "largest_entropy(None, q", of("algorithms/test_sac.py", "a_mask_lowers_the_discrete_target_entropy"),
    ),
    Mutant(
        "IQL's critics move at the actor's rate", "algorithms/iql.py",
        "state.critics, adam(self.critic_learning_rate)", "state.critics, adam(self.actor_learning_rate)", RATES,
    ),
    Mutant(
        "SACv1's value moves at the actor's rate", "algorithms/sac_v1.py",
        "state.value, adam(self.critic_learning_rate)", "state.value, adam(self.actor_learning_rate)", RATES,
    ),
    Mutant(
        "SAC has two critics, whatever its field says", "algorithms/sac.py", "spec, algorithm.ensemble_size", "spec, 2",
        of("algorithms/test_sac.py", "the_ensemble_has_the_size_of_its_field"),
    ),
    Mutant(
        "KL-control explores by its mean", "algorithms/base.py",
        "policy.sample(key) if explore else policy.mode()", "policy.mode()",
        of("algorithms/test_cloning.py", "what_explores_samples_and_what_is_tested_does_not"),
    ),
    Mutant(
        "an action near a bound counts as farther off", "ops/distributions.py", "-1 + 1e-6, 1 - 1e-6",
        "-1 + 1e-3, 1 - 1e-3",
        of("ops/test_distributions.py", "tanh_normal_knows_the_density_of_an_action_near_a_bound"),
    ),
    Mutant(
        "a root of less than nothing", "ops/divergences.py", "jnp.sqrt(jnp.maximum(squared, 0.0) + 1e-6)",
        "jnp.sqrt(squared + 1e-6)", of("ops/test_divergences.py", "an_estimate_below_zero_counts_as_zero"),
    ),
    Mutant(
        "a break may be a tenth wide", "data/dataset.py", "TOLERANCE = 1e-5", "TOLERANCE = 1e-1",
        of("data/test_dataset.py", "a_successor_may_be_off_by_what_rounding_does_and_no_more"),
    ),
    Mutant(
        "β has no bounds", "algorithms/ppo.py", "return jnp.clip(beta, *BETAS)", "return beta",
        of("algorithms/test_ppo.py", "beta_stays_within_its_bounds"),
    ),
    Mutant(
        "a mask is the run's", "loops/offline.py", "run_key(0)", "run_key(seed)",
        of("loops/test_offline.py", "a_mask_of_the_data_is_used_and_a_drawn_one_only_where_there_is_none"),
    ),
    Mutant(
        "exploring noise is a tenth", "algorithms/td3.py", "noise=self.exploration_noise", "noise=0.1",
        of("algorithms/test_td3.py", "acting_adds_noise_only_while_exploring"),
    ),
    Mutant(
        "ACER's KL the other way round", "algorithms/acer.py", "average.kl(policy)", "policy.kl(average)",
        of("algorithms/test_acer.py", "the_gradient_is_that_of_the_paper_by_hand"),
    ),
]  # fmt: skip
