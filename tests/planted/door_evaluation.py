"""Bugs in the limit of steps, the number and the choice of the environments of evaluations, planted."""

from planted.mutant import Mutant, of

HOST = of("loops/test_limit.py", "on_the_host_episodes_end_at_the_limit_at_the_latest")
IN_JAX = of("loops/test_limit.py", "in_jax_episodes_end_at_the_limit_at_the_latest")
PROGRESS = of("loops/test_limit.py", "progress_counts_steps_and_ends")
NEXT = of("loops/test_limit.py", "an_adapter_begins_the_next_episodes_of_some_environments")
DEFAULT = of("loops/test_limit.py", "the_limit_is_a_hundred_thousand_steps_by_default")
SAID = of("runs/test_evaluator.py", "without_a_limit_it_is_said_and_cut_all_the_same")
REACHED = of("runs/test_evaluator.py", "a_limit_that_the_environment_does_not_reach")
NOTES = of("runs/test_evaluator.py", "progress_is_said_while_it_runs")
ROWS = of("runs/test_evaluator.py", "rows_and_screen_of_a_run_count_cut_episodes")
OFTEN = of("runs/test_evaluator.py", "a_simulator_that_cannot_be_open_often_enough")
SEEDS = of("runs/test_evaluator.py", "agents_of_several_seeds_play_one_after_the_other_where_few_are_allowed")
KEPT = of("runs/test_evaluator.py", "the_number_of_environments_is_kept_for_every_evaluation_of_a_run")
OWN = of("runs/test_evaluator.py", "evaluations_have_an_environment_of_their_own")
IDS = of("runs/test_evaluator.py", "an_id_and_its_arguments_are_kept")
CLOSED = of("runs/test_evaluator.py", "it_is_closed_before_training_opens_its_own")
REFUSED = of("runs/test_evaluator.py", "what_cannot_play_evaluations_is_refused_by_name")
TASKS = of("runs/test_evaluator.py", "tasks_of_training_are_those_of_evaluations")

SCORED = of("runs/display/test_curves.py", "what_is_learned_from_keeps_runs_apart")
GRID = of("cli/test_grid.py", "cut_episodes_stand_beside_the_score")
MODULE = of("runs/test_evaluator.py", "an_id_with_a_module_is_passed_again")

MUTANTS = [
    Mutant("curves mix scores of several environments", "runs/display/curves.py", '    "evaluate_env",\n', "", SCORED),
    Mutant("a grid hides cut episodes", "cli/grid.py", "{interval}{score.cut_note and f', {score.cut_note}'}", "{interval}", GRID),
    Mutant("a module named in a file is imported", "runs/environments.py", 'check_source(plan, evaluate_env, option="evaluate_env")', "pass", MODULE),
    Mutant("an episode is cut one step late", "loops/evaluate.py", "running_length >= limit", "running_length > limit", HOST),
    Mutant("what terminates at the limit is cut", "loops/evaluate.py", "late[i] and not step.terminated[i]", "late[i]", HOST),
    Mutant("what is truncated at the limit is not cut", "loops/evaluate.py", "late[i] and not step.terminated[i]", "late[i] and not over[i]", HOST),
    Mutant("a cut episode goes on", "loops/evaluate.py", "obs = envs.cut_episodes(again)", "pass", HOST),
    Mutant("an episode that ended at the limit is cut again", "loops/evaluate.py", "np.flatnonzero(late & ~over)", "np.flatnonzero(late)", HOST),
    Mutant("an environment that has played its last episode is cut", "loops/evaluate.py", " if i + played[i] * count < episodes]", "]", HOST),
    Mutant("an episode in JAX is cut one step late", "loops/evaluate.py", "late = now.t + 1 >= limit", "late = now.t >= limit", IN_JAX),
    Mutant("what terminates at the limit is cut in JAX", "loops/evaluate.py", "(late & ~now.over & ~seen.terminated)", "(late & ~now.over)", IN_JAX),
    Mutant("what ended before the limit is cut in JAX", "loops/evaluate.py", "(late & ~now.over & ~seen.terminated)", "(late & ~seen.terminated)", IN_JAX),
    Mutant("progress in JAX counts every step again", "loops/evaluate.py", "progress(t - before, ends", "progress(t, ends", PROGRESS),
    Mutant("an episode may last a million steps", "loops/evaluate.py", "LONGEST_EPISODE = 100_000", "LONGEST_EPISODE = 1_000_000", DEFAULT),
    Mutant("a cut begins every episode anew", "envs/journaled.py", "self._begin(which, self._obs)", "self._begin(range(self.num_envs), self._obs)", NEXT),
    Mutant("a cut writes into observations of before", "envs/journaled.py", "self._obs = copy_obs(self._obs)\n", "pass\n", NEXT),
    Mutant("tasks look at the episode before the cut", "envs/tasks.py", "self._obs = self._envs.cut_episodes(which)", "self._envs.cut_episodes(which)", NEXT),
    Mutant("what was opened before a failure stays open", "envs/base.py", "opened.enter_context(closing(each))", "each", OFTEN),
    Mutant("an unknown limit is not said", "runs/evaluator.py", "own is not None and own <= limit", "own is None or own <= limit", SAID),
    Mutant("a limit above that of the evaluation is not said", "runs/evaluator.py", "own is not None and own <= limit", "own is not None", SAID),
    Mutant("a given limit leaves the environment as it is", "runs/evaluator.py", "limited = plan if options.max_episode_steps is None else", "limited = plan if True else", REACHED),
    Mutant("a limit that is never reached is taken", "runs/evaluator.py", "given is not None and own is not None and own < given", "False", REACHED),
    Mutant("progress is said at every step", "runs/evaluator.py", "self._last >= NOTE_EVERY", "self._last >= 0", NOTES),
    Mutant("progress counts all evaluations", "runs/evaluator.py", "self.steps, self.ends, self._last = 0, 0, time.monotonic()", 'self.steps, self.ends, self._last = getattr(self, "steps", 0), 0, time.monotonic()', NOTES),
    Mutant("seeds share their cut episodes", "runs/rows.py", '"eval/cut": cut.sum(-1)', '"eval/cut": cut.sum()', ROWS),
    Mutant("cut episodes are not said", "runs/session.py", "if score.cut_note:", "if False:", ROWS),
    Mutant("seeds open their environments together", "runs/evaluator.py", "elif len(seeds) > 1 and one_by_one:", "elif False:", SEEDS),
    Mutant("the number of a run is forgotten", "runs/evaluator.py", "options.num_envs or plan.evaluate_num_envs or most", "options.num_envs or most", KEPT),
    Mutant("periodic evaluations are in the environment of training", "runs/session.py", "tested, source = evaluation_env(plan, self.source, self.evaluate_source)", "tested, source = plan, self.source", OWN),
    Mutant("an evaluation after training is in its environment", "runs/run.py", "plan, source = evaluation_env(plan, agent.env, agent.evaluate_env)", "source = agent.env", OWN),
    Mutant("a resumed run asks too late", "runs/drive.py", "        evaluation_env(plan, env, evaluate_env)  # raises", "        pass  # raises", OWN),
    Mutant("evaluations have the arguments of training", "runs/environments.py", "env_kwargs=plan.evaluate_env_kwargs, max", "max", IDS),
    Mutant("evaluations have the limit of training", "runs/environments.py", "env_kwargs=plan.evaluate_env_kwargs, max_episode_steps=None", "env_kwargs=plan.evaluate_env_kwargs", IDS),
    Mutant("the environment of evaluations stays open", "runs/environments.py", "    close_envs(envs, source)\n    return envs.spec", "    return envs.spec", CLOSED),
    Mutant("other spaces are taken", "runs/planning.py", "if tested is not None:", "if False:", REFUSED),
    Mutant("evaluations have no tasks", "runs/planning.py", "return trained.tasks.attach(env)", "return env", TASKS),
]  # fmt: skip
