"""Bugs in what runs share: the settings of JAX before its first use, and the lists that no part may repeat."""

from planted.mutant import Mutant
from planted.recorded import of

SMALL = of("runs/test_jax_setup.py", "products_are_small_by_rows_and_widths")
LATER = of("runs/test_jax_setup.py", "one_thread_for_small_products_and_a_note_for_a_larger_run_later")
USERS = of("runs/test_jax_setup.py", "what_the_user_has_set_stays")
USED = of("runs/test_jax_setup.py", "nothing_changes_once_jax_has_used_a_device")
IMAGES = of("runs/test_jax_setup.py", "images_are_known_by_their_axes_or_the_name")

MUTANTS = [
    Mutant("a wrapper hides how large its networks are", "runs/jax_setup.py", "unwrapped(algorithm), algorithm.exp", "algorithm, algorithm.exp", SMALL),
    Mutant("minibatches are as large as rollouts", "runs/jax_setup.py", 'getattr(inner, "minibatch_size", rollout)', "rollout", SMALL),
    Mutant("a batch of replay has no products", "runs/jax_setup.py", "rows += [replay.batch_size", "rows += [0 * replay.batch_size", SMALL),
    Mutant("a larger run later is not noticed", "runs/jax_setup.py", "if not _one_thread or (", "if True or (", LATER),
    Mutant("the user's number of threads is replaced", "runs/jax_setup.py", ' and "NPROC" not in os.environ', "", USERS),
    Mutant("the settings change after the first device", "runs/jax_setup.py", "if client_exists():", "if False:", USED),
    Mutant("a dict hides its images", "runs/jax_setup.py", "return any(map(has_images, spaces.values()))", "return False", IMAGES),
]  # fmt: skip
