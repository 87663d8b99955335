"""Bugs in what stands behind a CNN by default, and in games that wait for FIRE."""

from planted.mutant import Mutant, of

DECIDES = of("networks/test_behind_images.py", "the_observation_decides_by_default")
NAMED = of("networks/test_behind_images.py", "what_is_named_holds_behind_every_encoder")
ACTIONS = of("networks/test_behind_images.py", "what_reads_an_action_too_keeps_its_hidden_layers")
SOURCES = of("networks/test_behind_images.py", "the_defaults_are_those_of_the_sources")
NORM = of("networks/test_behind_images.py", "normalising_layers_that_there_are_not_is_refused")
PRESSED = of("envs/test_fire.py", "fire_is_pressed_at_the_beginning_and_after_a_lost_life")
BEGINS = of("envs/test_fire.py", "a_game_that_ends_during_the_first_press_begins_again")
LATER = of("envs/test_fire.py", "a_game_that_ends_during_a_later_press_is_over")
GAMES = of("envs/test_fire.py", "only_games_that_wait_get_it")
CERTAIN = of("envs/test_fire.py", "a_press_is_certain_and_follows_the_no_ops")

MUTANTS = [
    Mutant("a Dict with one image among its parts has no hidden layers", "networks/encoders.py", "return len(encoders) == 1 and all(map(is_cnn, encoders.values()))", "return any(map(is_cnn, encoders.values()))", DECIDES),
    Mutant("actor and critic share only an image that is alone", "networks/builder.py", "if has_cnn(actor_encoder) if", "if is_cnn(actor_encoder) if", DECIDES),
    Mutant("no hidden layers behind a CNN, whatever is named", "networks/builder.py", "sizes = () if self.hidden_sizes is None and is_cnn(encoder)", "sizes = () if is_cnn(encoder)", NAMED),
    Mutant("a trunk of False is shared with images", "networks/builder.py", "if self.shared_trunk is None else self.shared_trunk:", "if not self.shared_trunk else self.shared_trunk:", NAMED),
    Mutant("Q(s, a) of images is linear in the action", "networks/builder.py", "is_cnn(encoder) and not inputs else", "is_cnn(encoder) else", ACTIONS),
    Mutant("layer normalisation of no layers is silent", "networks/builder.py", "if self.layer_norm and not sizes:", "if False:", NORM),
    Mutant("TRPO shares the CNN", "algorithms/trpo.py", "separate(self.networks).actor_critic", "self.networks.actor_critic", SOURCES),
    Mutant("FIRE is not pressed after a lost life", "envs/atari.py", "if lives_left(self) < self._lives and not (terminated or truncated):", "if False:", PRESSED),
    Mutant("FIRE is pressed after the end", "envs/atari.py", "if lives_left(self) < self._lives and not (terminated or truncated):", "if lives_left(self) < self._lives:", PRESSED),
    Mutant("the reward of a press is lost", "envs/atari.py", "reward = float(reward) + float(more)", "reward = float(reward)", PRESSED),
    Mutant("a game that ended during the first press is played on", "envs/atari.py", "        if terminated or truncated:\n            return self.reset(options=options)\n", "", BEGINS),
    Mutant("an end during a later press is lost", "envs/atari.py", "obs, more, terminated, truncated, info = self._press()", "obs, more, _, _, info = self._press()", LATER),
    Mutant("an older action may be repeated in place of FIRE", "envs/atari.py", 'self.env.set_wrapper_attr("last_action", None)', "pass", CERTAIN),
    Mutant("every game gets FIRE", "envs/atari.py", 'spec.kwargs.get("game") in WAITING', "True", GAMES),
]  # fmt: skip
