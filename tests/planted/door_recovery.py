"""Bugs in what survives errors and stops: journals, fresh environments, boundaries, and what is told."""

from planted.mutant import Mutant, of

HELD = of("envs/test_journal.py", "a_snapshot_holds_what_a_list_would")
DROPPED = of("envs/test_journal.py", "the_actions_of_a_long_episode_are_dropped_at_once_and_those_of_others_stay")
LONG = of("envs/test_journal.py", "a_long_episode_is_cut_and_the_others_come_back")
LIMIT = of("envs/test_journal.py", "the_limit_that_counts_is_that_of_the_resumed_run")
NEVER = of("envs/test_journal.py", "what_must_never_be_replayed_is_reset_once_and_not_stepped")
SEEDS = of("envs/test_journal.py", "several_seeds_share_no_actions")
STEP = of("envs/test_journal.py", "an_error_in_a_replay_names_its_step")
ROW = of("envs/test_restarts.py", "a_failed_step_is_a_cut_row_and_the_environment_a_new_one")
ONCE = of("envs/test_restarts.py", "without_restarts_the_first_error_stops_at_once")
CLOSED = of("envs/test_restarts.py", "old_environments_are_closed_whatever_closing_does")
RESET = of("envs/test_restarts.py", "a_failed_reset_begins_the_next_episode_of_a_new_environment")
MADE = of("envs/test_restarts.py", "an_exit_while_an_environment_is_made_is_its_error")
PASSED = of("envs/test_restarts.py", "what_is_no_error_of_an_environment_passes")
TASKS = of("envs/test_restarts.py", "dicts_and_tasks_of_a_failed_step")
SHARED = of("envs/test_restarts.py", "seeds_share_the_restarts_and_count_their_own")
BOUNDARY = of("loops/test_boundaries.py", "the_last_boundary_comes_before_the_error_and_goes_on_bit_for_bit")
STATE = of("loops/test_boundaries.py", "an_error_in_the_first_rollout_after_a_state_leaves_that_state")
CHANGED = of("loops/test_boundaries.py", "leaves_that_a_function_passes_on_are_known")
RUNS = of("runs/test_recovery.py", "a_run_in_environments_that_fail")
NEXT = of("runs/test_recovery.py", "the_next_command_fits_the_environments")
PROMISED = of("runs/test_recovery.py", "nothing_is_promised_that_is_not_saved")
SCORED = of("runs/test_recovery.py", "an_environment_that_fails_in_an_evaluation")
REFUSED = of("runs/test_recovery.py", "what_cannot_work_is_refused_by_name")
VALID = of("runs/test_recovery.py", "a_donated_state_is_not_valid")

MUTANTS = [
    Mutant("an endless episode is kept", "envs/journal.py", "if episode.length == limit:", "if False:", DROPPED),
    Mutant("a mark loses the actions that are dropped after it", "envs/journal.py", "episode = running[i] = Running(episode.number, episode.length, None)", "episode.actions = None", HELD),
    Mutant("a moment has the actions of later steps", "envs/journal.py", "bytes(one.actions[: length * size])", "bytes(one.actions)", HELD),
    Mutant("the limit of a resumed run is that of its snapshot", "envs/journal.py", "if not 0 <= length <= most]", "if length < 0]", LIMIT),
    Mutant("what must never be replayed is replayed from its first step", "envs/journal.py", "most = -1 if self.limit is None else self.limit", "most = 10**9", LIMIT),
    Mutant("a cut episode begins again", "envs/journal.py", "    for i in unknown:\n        journal.next_episode(i)\n", "", LONG),
    Mutant("an error in a replay names the last step", "envs/journal.py", "        journal.add(action, running)\n", "        journal.add(action, list(running) * 2)\n", STEP),
    Mutant("the reasons are one", "envs/journal.py", "        if limit is None\n", "        if False\n", NEVER),
    Mutant("snapshots of seeds count what is not kept", "envs/journal.py", "return np.maximum(lengths, 0)", "return lengths", SEEDS),
    Mutant("a failed step terminates", "envs/journal.py", "= 0.0, False, True", "= 0.0, True, False", ROW),
    Mutant("a failed step has any successor", "envs/journal.py", "        copy_row(obs, self.obs, i)\n", "", ROW),
    Mutant("a failed reset is tried again with its seed", "envs/journaled.py", "            for i in failures:\n                self._journal.next_episode(i)\n", "", RESET),
    Mutant("each seed has restarts of its own", "envs/journaled.py", "budget = self._restarts\n", "budget = self._restarts = Restarts(self._restarts.most) if not self.restarts else self._restarts\n", SHARED),
    Mutant("the others step on after the last error", "envs/gymnasium.py", "if len(failures) > self._restarts.left:", "if False:", ONCE),
    Mutant("an exit of an environment ends the program", "envs/gymnasium.py", "except (Exception, SystemExit) as error:\n                failures[i] = self._journal.failure(i, error)\n                if", "except Exception as error:\n                failures[i] = self._journal.failure(i, error)\n                if", ROW),
    Mutant("an exit while an environment is made ends the program", "envs/gymnasium.py", "    except (Exception, SystemExit) as error:\n        raise EnvError(f", "    except Exception as error:\n        raise EnvError(f", MADE),
    Mutant("Ctrl-C is an error of an environment", "envs/gymnasium.py", "except (Exception, SystemExit) as error:\n                failures[i] = self._journal.failure(i, error)\n                if", "except BaseException as error:\n                failures[i] = self._journal.failure(i, error)\n                if", PASSED),
    Mutant("old environments stay open", "envs/gymnasium.py", "            self._envs[i].close()\n", "            pass\n", CLOSED),
    Mutant("tasks value a step that was not made", "envs/tasks.py", 'rewards[seen.info["restarted"]] = 0', "pass", TASKS),
    Mutant("a boundary keeps what its rollout moved", "loops/host.py", "                learner.return_to_mark()\n", "", BOUNDARY),
    Mutant("a boundary has the environments of the error", "loops/host.py", "envs.snapshot() if failure is None else envs.marked_snapshot()", "envs.snapshot()", BOUNDARY),
    Mutant("an error without a new step is lost", "loops/host.py", "if failure is not None and step == began:", "if False:", STATE),
    Mutant("leaves that observing changes stay old", "loops/dispatch.py", "if new is not jaxpr.invars[i]]", "if new is jaxpr.invars[i]]", CHANGED),
    Mutant("a boundary at step 0 is saved", "runs/session.py", "if step and is_valid(state):", "if is_valid(state):", PROMISED),
    Mutant("a state that is gone is saved", "runs/session.py", "if step and is_valid(state):", "if step:", PROMISED),
    Mutant("donated arrays are valid", "runs/recovery.py", "return not any(isinstance(x, jax.Array) and x.is_deleted()", "return not any(isinstance(x, str) and x.is_deleted()", VALID),
    Mutant("a command forgets the environment of evaluations", "runs/recovery.py", '"evaluate_env": plan.evaluate_env or ""', '"evaluate_env": ""', NEXT),
    Mutant("a command names a Python object", "runs/recovery.py", 'if any(source.startswith("<") for source in again.values()):', "if False:", NEXT),
    Mutant("restarts are counted again in every row", "runs/session.py", "                restarts = self.envs.restarts\n", "", RUNS),
    Mutant("nobody grades a resumed run", "runs/drive.py", "[] if plan.offline else [grade_note(message)]", "[]", RUNS),
    Mutant("evaluations make their environments anew", "runs/environments.py", "**({\"info\": plan.log_info, **recovery_arguments(plan)} if training else {}),", "**{\"info\": (), **recovery_arguments(plan)},", SCORED),
    Mutant("exact = False is forgotten", "runs/recovery.py", "options.replay_limit if options.exact else None", "options.replay_limit", RUNS),
    Mutant("options without effect are taken", "runs/recovery.py", "    if changed and why is not None:\n", "    if False:\n", REFUSED),
]  # fmt: skip
