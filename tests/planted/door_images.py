"""Bugs in what is an image, which axis is its channels', and how bytes are read."""

from planted.mutant import Mutant, of

IMAGES, ENCODERS = "test_images.py", "networks/test_encoders.py"
SHAPE = of(IMAGES, "the_shape_decides_which_axis_is_that_of_the_channels")
SETTING = of(IMAGES, "a_setting_decides_before_the_shape")
STACK = of(IMAGES, "the_axis_of_a_known_stack_is_certain")
COLOUR = of(ENCODERS, "frames_of_a_stack_are_convolved_as_channels_frame_after_frame")
GREY = of(IMAGES, "two_axes_are_a_grey_image_if_they_hold_all_bytes")
SCALE = of(ENCODERS, "bytes_are_read_as_the_same_floats_from_0_to_1")
BUILDERS = of("networks/test_builder.py", "every_network_reads_the_axes_as_the_field_says")
NOTE = of("runs/test_images.py", "a_run_tells_once_how_it_reads_images")
ONCE = of("runs/test_images.py", "several_networks_tell_it_once")
SPACES = of("runs/test_images.py", "an_environment_whose_bytes_have_another_scale_is_another_one")
BOUND = of("envs/test_gymnasium.py", "of_the_bounds_of_many_elements_the_widest_is_kept")
NORMALIZED = of("algorithms/test_normalized.py", "images_are_those_that_the_networks_convolve")
RECORDED = of("data/test_dataset.py", "images_of_every_rank_stay_bytes_and_bytes_of_0_and_1_have_this_bound")
FLOATS = of("data/test_dataset.py", "bytes_fit_floats_only_as_0_and_1")

MUTANTS = [
    Mutant("a board with more channels than cells has its channels first", "images.py", "if first == middle:", "if False:", SHAPE),
    Mutant("channels are never in the middle", "images.py", "if first == last:", "if False:", SHAPE),
    Mutant("the larger outer axis is that of the channels", "images.py", "first < last else 2", "first > last else 2", SHAPE),
    Mutant("nobody asks whether frames are stacked", "images.py", "if space.stacked or len", "if len", STACK),
    Mutant("no setting makes vectors of images", "images.py", ' or channels == "none"', "", SETTING),
    Mutant("channels of a stack come before its frames", "images.py", "*stack, *own)", "*own, *stack)", COLOUR),
    Mutant("a board of bytes is a grey image", "images.py", "<= {BYTE, None}", "<= {*range(256)}", GREY),
    Mutant("all bytes are divided by 255", "images.py", "return Reading(image, size)", "return Reading(image, BYTE)", SCALE),
    Mutant("only images have their bytes divided", "networks/encoders.py", "Flatten(shape, scale)", "Flatten(shape)", SCALE),
    Mutant("networks do not pass on the axis of the channels", "networks/builder.py", "channels=self.channels", "channels=None", BUILDERS),
    Mutant("a run keeps the reading of images to itself", "runs/drive.py", " + reading_notes(plan)", "", NOTE),
    Mutant("each network tells how it reads images", "runs/drive.py", "list(dict.fromkeys(notes))", "list(notes)", ONCE),
    Mutant("bytes of another scale are the same space", "runs/environments.py", "return shape, dtype, read_box(space)", "return shape, dtype", SPACES),
    Mutant("bounds of large observations are forgotten", "envs/spaces.py", "(float(bound),) if np.abs(bound)", "(float(bound),) if False and np.abs(bound)", BOUND),
    Mutant("normalisation does not know how networks read axes", "algorithms/normalized.py", "{builder.channels for builder in network_builders(self)} or {None}", "{None}", NORMALIZED),
    Mutant("recorded grey images become floats", "data/cleaning.py", 'find_image(Box(x.shape[1:], "uint8"), smallest=1)', "x.ndim == 4", RECORDED),
    Mutant("a recorded board is an image of 255 shades", "data/dataset.py", "obs.max() == 1", "obs.max() < 0", RECORDED),
    Mutant("recorded bytes are floats of any environment", "data/dataset.py", "obs.max() > 1", "obs.max() > 255", FLOATS),
]  # fmt: skip
