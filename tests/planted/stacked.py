"""Bugs in stacks of frames of which each is kept once, and in the end of an episode that was dropped."""

from planted.mutant import Mutant, of

LIST = of("data/test_stacks.py", "what_is_sampled_is_what_a_list_holds")
AGES = of("data/test_stacks.py", "ages_are_counted_from_the_last_flag")
SEEN = of("data/test_stacks.py", "what_a_host_loop_keeps_is_what_was_seen")
UNIFORM = of("data/test_stacks.py", "rows_whose_frames_are_there_are_drawn_uniformly")
NOTHING = of("data/test_stacks.py", "a_cut_of_nothing_is_none")
DROPPED = of("data/test_stacks.py", "an_episode_that_is_dropped_on_resuming_ends_there")
CAPACITY = of("data/test_stacks.py", "the_spec_decides_and_the_capacity_knows")
UNKNOWN = of("envs/test_stacked.py", "all_others_are_arrays_as_any")
BEFORE = of("runs/test_stacked.py", "a_run_from_before_goes_on_with_whole_stacks")
LAST = (
    '        *((WrapperSpec("LifeLoss", f"{__name__}:LifeLoss", {}),) if life_loss else ()),\n',
    '        WrapperSpec("FrameStackObservation", "gymnasium.wrappers:FrameStackObservation", {"stack_size": 4}),\n',
)
LIFE = of("envs/test_atari.py", "a_life_begins_with_a_stack_of_its_own")
WHOLE = of("runs/test_stacked.py", "a_run_cut_in_two_is_the_whole_run")

MUTANTS = [
    Mutant(
        "an age is one too small", "data/frames.py", "jnp.arange(1, most + 1)", "jnp.arange(0, most)", LIST,
    ),
    Mutant(
        "a stack ends with the frame of the next row", "data/frames.py", "(row[..., None] - back)",
        "(row[..., None] - back + 1)", LIST,
    ),
    Mutant(
        "a stack runs on across a time limit", "data/frames.py", "~(terminated[at] | truncated[at])",
        "~terminated[at]", LIST,
    ),
    Mutant(
        "the first episode begins with what lies at the end", "data/frames.py", "(before >= 0) & ", "", AGES,
    ),
    Mutant("the oldest frame is kept", "data/frames.py", "return x[:, :, -1]", "return x[:, :, 0]", SEEN),
    Mutant(
        "the frame before last goes, and not the oldest", "data/frames.py", "stack[:, :, 1:]", "stack[:, :, :-1]",
        SEEN,
    ),
    Mutant(
        "rows are drawn whose frames are overwritten", "data/ring.py", "oldest + history, 0)", "oldest, 0)", UNIFORM,
    ),
    Mutant(
        "rows whose frames are there are not drawn", "data/ring.py", "oldest + history, 0)",
        "oldest + history, history)", UNIFORM,
    ),
    Mutant(
        "what has ended is cut again", "data/ring.py", "envs & ~(data.terminated[row] | data.truncated[row])", "envs",
        NOTHING,
    ),
    Mutant(
        "a late cut has no number", "data/frames.py", "jnp.where(envs, numbers[0], x[row])", "x[row]", DROPPED,
    ),
    Mutant(
        "a dropped episode runs on in the ring", "loops/host.py", "if ring is not None and lost.any():", "if False:",
        DROPPED,
    ),
    Mutant(
        "a ring may be too small for a stack", "loops/replay_ring.py", "or 1) + history) // length)", "or 1)) // length)",
        CAPACITY,
    ),
    Mutant(
        "a stack padded with zeros is taken for one", "envs/gymnasium.py", ' and env.padding_type == "reset"', "",
        UNKNOWN,
    ),
    Mutant(
        "whatever is wrapped around a stack is ignored", "envs/gymnasium.py", "if not _leaves_observations(env):",
        "if not isinstance(env, gym.Wrapper):", UNKNOWN,
    ),
    Mutant(
        "the replay of a run from before is read as today's", "runs/environments.py",
        "spec if now == before else dataclasses.replace(spec, observation=plan.spec.observation)", "spec", BEFORE,
    ),
    Mutant(
        "a run goes on where frames are not stacked any more", "runs/environments.py", "if any(frames < kept for",
        "if any(False for", WHOLE,
    ),
    Mutant(
        "a life's first stack shows the life before", "envs/atari.py",
        LAST[0] + LAST[1], LAST[1] + LAST[0],
        LIFE,
    ),
]  # fmt: skip
