"""Bugs in what wrappers, memories, processes and successes of a user's environment may do, planted."""

from planted.mutant import Mutant, of

NAMED = of("envs/test_wrappers.py", "running_statistics_are_named_with_their_remedy")
STILL = of("envs/test_wrappers.py", "what_stays_as_it_is_needs_no_remark")
THROUGH = of("envs/test_wrappers.py", "remarks_pass_through_seeds_tasks_and_processes")
TRAINING = of("runs/test_wrapper_statistics.py", "training_says_it_once_and_again_where_it_goes_on")
ON_DATA = of("runs/test_wrapper_statistics.py", "a_run_on_data_says_it_of_its_evaluations")
PLAYING = of("runs/test_wrapper_statistics.py", "evaluating_recording_and_watching_say_it")
EPISODES = of("runs/test_actor.py", "one_episode_after_the_other")
ROWS = of("runs/test_actor.py", "every_row_has_a_memory_of_its_own")
FITS = of("runs/test_actor.py", "what_does_not_fit_is_refused")
LITTLE = of("runs/test_actor.py", "one_observation_is_too_little_for_a_policy_that_remembers")
EVER = of("runs/test_actor.py", "a_policy_without_memory_acts_as_ever")
DECLARED = of("runs/test_actor.py", "what_an_algorithm_declares_is_what_its_test_policy_reads")
MADE = of("envs/test_worker.py", "what_a_process_raises_while_it_makes_its_environment_is_told")
ENDED = of("envs/test_worker.py", "a_process_that_ends_is_told_with_its_exit_code")
UNPACKED = of("envs/test_worker.py", "what_cannot_be_unpacked_there_is_told")
SCRIPT = of("envs/test_worker.py", "an_id_that_this_script_registers_is_known_there")
OWN = of("envs/test_worker.py", "an_error_of_the_users_own_in_a_step_is_told")
INFO = of("envs/test_worker.py", "only_what_is_read_of_info_leaves_the_process")
SPACES = of("envs/test_worker.py", "spaces_that_differ_there_are_named")
PAIR = of("envs/test_results.py", "a_reset_without_info_is_named", "what_is_no_pair_of_observation_and_info_is_refused")
SEEDLESS = of("envs/test_results.py", "a_reset_without_a_seed_is_refused_before_anything_runs")
PARTS = of("envs/test_results.py", "differences_are_named_part_by_part")
ALIKE = of("envs/test_results.py", "environments_of_one_run_that_differ_are_compared_part_by_part")
SHARE = of("runs/test_success.py", "the_share_of_test_episodes_that_succeed")
NOTHING = of("runs/test_success.py", "where_nothing_is_reported_there_is_no_share")
SEEDS = of("runs/test_success.py", "several_seeds_have_shares_of_their_own")
NAMES = of("runs/test_success.py", "both_names_reach_the_rollouts")
IN_JAX = of("loops/test_loops.py", "a_success_in_jax_is_that_of_the_last_step")

MUTANTS = [
    Mutant("only the outermost wrapper is looked at", "envs/wrappers.py", "while isinstance(env, gym.Wrapper):", "while False:", NAMED),
    Mutant("statistics inside a dict are not found", "envs/wrappers.py", "value.values() if isinstance(value, dict) else ", "", NAMED),
    Mutant("statistics that stay as they are are named", "envs/wrappers.py", ' and bool(getattr(env, "update_running_mean", True))', "", STILL),
    Mutant("tasks hide the remarks", "envs/tasks.py", "spec, envs.num_envs, envs.notes", "spec, envs.num_envs, ()", THROUGH),
    Mutant("training does not say it", "runs/drive.py", "*env_notes(envs), ", "", TRAINING),
    Mutant("training says it twice", "runs/session.py", "text in known or shown.note(text)", "shown.note(text)", TRAINING),
    Mutant("a run on data does not say it", "runs/session.py", "text in known or shown.note(text)", "None", ON_DATA),
    Mutant("an evaluation does not say it", "runs/evaluator.py", "            note(text)", "            pass", PLAYING),
    Mutant("an actor forgets at every call", "runs/actor.py", "        if self._rows is None:\n            self._rows, self", "        if True:\n            self._rows, self", EPISODES),
    Mutant("a reset changes no memory", "runs/actor.py", "            self._rows = None\n", "            pass\n", EPISODES),
    Mutant("an episode that ends ends them all", "runs/actor.py", "flags.reshape(-1))", "np.ones(flags.size, bool))", ROWS),
    Mutant("flags of any shape are taken", "runs/actor.py", "flags.dtype != bool or flags.shape != self._rows", "False", FITS),
    Mutant("the rows of another batch are taken", "runs/actor.py", "if rows != self._rows:", "if False:", FITS),
    Mutant("one observation is taken for an episode", "runs/policy.py", "if self.algorithm.remembers:", "if False:", LITTLE),
    Mutant("fitted Q reads no memory", "algorithms/fqe.py", "if self.algorithm.remembers:", "if False:", LITTLE),
    Mutant("Normalized hides what its algorithm remembers", "algorithms/normalized.py", "return self.algorithm.remembers", "return False", LITTLE),
    Mutant("Normalized has a memory of its own", "algorithms/normalized.py", "return self.algorithm.remembers", "return True", DECLARED),
    Mutant("every draw of an actor is the same", "runs/actor.py", "        self._calls += 1\n", "", EVER),
    Mutant("a failure while making reads like one of the pool", "envs/asynchronous.py", "    except RemoteError as error:\n        raise EnvError(\n", "    except () as error:\n        raise EnvError(\n", MADE),
    Mutant("the traceback of the process is lost", "envs/asynchronous.py", 'leave out asynchronous.\\n{error.trace}"', 'leave out asynchronous."', MADE),
    Mutant("an exit is no failure", "envs/worker.py", "except (Exception, SystemExit) as error:", "except Exception as error:", MADE),
    Mutant("a process that ended has no exit code", "envs/pool.py", "            if lost:\n", "            if False:\n", ENDED),
    Mutant("factories are unpacked where nothing is told", "envs/worker.py", "        self._state = CloudpickleWrapper(factory).__getstate__()", "        self._state = factory", UNPACKED),
    Mutant("the script's ids are unknown in a process", "envs/worker.py", "    gym.registry.setdefault(spec.id, spec)\n", "", SCRIPT),
    Mutant("errors travel as objects", "envs/worker.py", "failures.put((index, what, ", "failures.put((index, error, ", OWN),
    Mutant("the whole info travels", "envs/worker.py", "numbers = read_step(env.step(data), names, counter)", "numbers = env.step(data)", INFO),
    Mutant("spaces of processes are not compared", "envs/asynchronous.py", "check_same_spec(i, there, self._first, ", "str(there) and (", SPACES),
    Mutant("an observation alone is a pair", "envs/results.py", "len(result) == 2 and ", "", PAIR),
    Mutant("any two values are a pair", "envs/results.py", " and isinstance(result[1], Mapping | None)", "", PAIR),
    Mutant("a wrapper's reset is not looked at", "envs/gymnasium.py", "for each in wrapper_chain(env):", "for each in (env.unwrapped,):", SEEDLESS),
    Mutant("a part that is gone is not named", "envs/differences.py", "if part not in now.spaces)]:", "if False)]:", PARTS),
    Mutant("the last number that differs is shown", "envs/differences.py", "{now[where[0]]}, not", "{now[where[-1]]}, not", PARTS),
    Mutant("only two environments are compared", "envs/gymnasium.py", "for i, env in enumerate(self._envs):\n            check", "for i, env in enumerate(self._envs[:2]):\n            check", ALIKE),
    Mutant("success has one name", "envs/results.py", 'SUCCESS = ("is_success", "success")', 'SUCCESS = ("is_success",)', NAMES),
    Mutant("the general name goes first", "envs/results.py", 'SUCCESS = ("is_success", "success")', 'SUCCESS = ("success", "is_success")', SHARE),
    Mutant("only episodes with a report count", "runs/evaluation.py", "float(np.mean(self.successes))", "float(np.mean(self.successes[self.successes > 0]))", SHARE),
    Mutant("no report is a failure of all", "runs/evaluation.py", "None if np.isnan(scores.successes).all() else np.nan_to_num", "np.nan_to_num", NOTHING),
    Mutant("seeds share their successes", "runs/rows.py", "score.successes.mean(-1, dtype", "0 * score.successes.mean(dtype", SEEDS),
    Mutant("the first report of an episode counts in JAX", "loops/evaluate.py", "jnp.where(now.over, now.successes, reported", "jnp.where(now.t > 0, now.successes, reported", IN_JAX),
]  # fmt: skip
