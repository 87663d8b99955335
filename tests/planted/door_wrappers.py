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

MUTANTS = [
    Mutant("only the outermost wrapper is looked at", "envs/wrappers.py", "while isinstance(env, gym.Wrapper):", "while False:", NAMED),
    Mutant("statistics inside a dict are not found", "envs/wrappers.py", "value.values() if isinstance(value, dict) else ", "", NAMED),
    Mutant("statistics that stay as they are are named", "envs/wrappers.py", ' and bool(getattr(env, "update_running_mean", True))', "", STILL),
    Mutant("tasks hide the remarks", "envs/tasks.py", "spec, envs.num_envs, envs.notes", "spec, envs.num_envs, ()", THROUGH),
    Mutant("training does not say it", "runs/drive.py", "*env_notes(envs), ", "", TRAINING),
    Mutant("training says it twice", "runs/session.py", "shown.note if plan.offline else lambda _: None", "shown.note", TRAINING),
    Mutant("a run on data does not say it", "runs/session.py", "shown.note if plan.offline else lambda _: None", "lambda _: None", ON_DATA),
    Mutant("an evaluation does not say it", "runs/evaluation.py", "            note(text)", "            pass", PLAYING),
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
]  # fmt: skip
