import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from duologue.errors import CheckpointError, ConfigError, MissingExtraError
from duologue.runs.display.curves import Group, average_curves, figure, group_curves, learning_curve, title_and_labels

A2C = {"type": "A2C", "discount": 0.99}
NORMALIZED = {"type": "Normalized", "algorithm": A2C, "obs": True}
BAND = "(mean and 95 % bootstrap interval over {} seeds)"


def run(folder: Path, returns: dict[int, list[float]], *, algorithm=A2C, env="CartPole-v1", evaluate=False) -> Path:
    """A run folder with a row every thousand steps; evaluations, one above the return, every two thousand."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"algorithm": algorithm, "env": env}))
    rows = [
        {"step": 1000 * (i + 1), "seed": seed, "time": 1.0, "rollout/ep_rew_mean": value, "train/entropy": 0.5}
        | ({"eval/mean_reward": value + 1} if evaluate and i % 2 else {})
        for seed, values in returns.items()
        for i, value in enumerate(values)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def lines(drawing) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in drawing.axes[0].get_lines()
    }


def test_one_seed_with_evaluations(tmp_path: Path):
    drawing = figure([run(tmp_path / "a", {7: [1.0, 2.0, 4.0, 8.0]}, evaluate=True)])
    assert lines(drawing) == {
        "training": ([1000, 2000, 3000, 4000], [1, 2, 4, 8]),
        "evaluation (1 seed)": ([2000, 4000], [3, 9]),
    }
    (axes,) = drawing.axes
    assert axes.get_title("left") == "A2C on CartPole-v1"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "episode return")
    assert not axes.collections  # no band around one seed
    assert axes.xaxis.get_major_formatter()(1_000_000, 0) == "1,000,000"
    assert axes.yaxis.get_major_formatter()(0.1 + 0.2, 0) == "0.3"


def test_seeds_of_one_group_are_averaged_within_one_folder_and_over_several(tmp_path: Path):
    paths = [
        run(tmp_path / "a", {0: [0.0, 0.0, 0.0], 1: [3.0, 3.0, 9.0]}),
        run(tmp_path / "b", {2: [6.0, 9.0, 12.0, 500.0]}),
    ]
    drawing = figure([*paths, paths[0]])  # a folder that is named twice counts once
    # The fourth step is left out: only one of the seeds has data there.
    assert lines(drawing) == {f"training {BAND.format(3)}": ([1000, 2000, 3000], [3, 4, 7])}
    (band,) = drawing.axes[0].collections
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].min() == 0 and edges[:, 1].max() == 12  # 3 seeds: the interval reaches the extremes


def test_algorithms_are_groups_and_a_wrapper_is_its_own(tmp_path: Path):
    paths = [
        run(tmp_path / "a", {0: [1.0, 1.0], 1: [2.0, 2.0]}, evaluate=True),
        run(tmp_path / "b", {0: [5.0, 5.0]}, algorithm=NORMALIZED),
    ]
    drawing = figure(paths, title="Mine")
    assert set(lines(drawing)) == {
        "A2C training (mean)", f"A2C evaluation {BAND.format(2)}", "Normalized(A2C) training (1 seed)",
    }  # fmt: skip
    assert drawing.axes[0].get_title("left") == "Mine"
    assert figure(paths).axes[0].get_title("left") == "CartPole-v1"


def test_a_metric_by_its_key(tmp_path: Path):
    drawing = figure([run(tmp_path / "a", {0: [1.0, 1.0]}, evaluate=True)], key="train/entropy")
    assert lines(drawing) == {"entropy (1 seed)": ([1000, 2000], [0.5, 0.5])}
    assert drawing.axes[0].get_ylabel() == "entropy"


def test_titles_say_what_groups_share():
    def named(*groups):
        return title_and_labels([Group(*group) for group in groups])

    assert named(("A2C", "Hopper-v5")) == ("A2C on Hopper-v5", [""])
    assert named(("A2C", "Hopper-v5"), ("SAC", "Hopper-v5")) == ("Hopper-v5", ["A2C", "SAC"])
    assert named(("A2C", "Hopper-v5"), ("A2C", "Ant-v5")) == ("A2C", ["Hopper-v5", "Ant-v5"])
    assert named(("A2C", "Ant-v5"), ("SAC", "")) == ("Learning curves", ["A2C on Ant-v5", "SAC"])


def test_settings_that_differ_are_lines_of_their_own_and_named(tmp_path: Path):
    fast, wide = ({"type": "A2C", "learning_rate": rate, "networks": {"type": "Networks", "hidden_sizes": sizes}}
                  for rate, sizes in ((0.01, [64]), (0.001, [128])))  # fmt: skip
    paths = [
        run(tmp_path / "a", {0: [1.0, 1.0]}, algorithm=fast),
        run(tmp_path / "b", {1: [2.0, 2.0]}, algorithm=fast),
        run(tmp_path / "c", {0: [3.0, 3.0]}, algorithm=wide),
    ]
    drawing = figure(paths)
    assert drawing.axes[0].get_title("left") == "A2C on CartPole-v1"
    assert set(lines(drawing)) == {
        f"learning_rate=0.01, hidden_sizes=[64] training {BAND.format(2)}",
        "learning_rate=0.001, hidden_sizes=[128] training (1 seed)",
    }


def test_objects_are_named_by_their_kind_and_schedules_by_their_ends(tmp_path):
    count = itertools.count()

    def labels(*algorithms):
        folders = [
            run(tmp_path / str(next(count)), {0: [1.0]}, algorithm={"type": "A2C"} | each) for each in algorithms
        ]
        return title_and_labels(list(group_curves(folders, ["rollout/ep_rew_mean"])))[1]

    linear = {"type": "Linear", "start": 0.003, "end": 0.0, "updates": 125}
    rates = [{"learning_rate": rate} for rate in (0.001, linear, linear | {"updates": 250})]
    assert labels(*rates[:2]) == ["learning_rate=0.001", "learning_rate=linear:0.003:0.0"]
    assert labels(*rates)[1:] == [f"learning_rate=linear:0.003:0.0, updates={n}" for n in (125, 250)]
    rms, adam = {"type": "RMSProp", "eps": 1e-5, "decay": 0.99}, {"type": "Adam", "eps": 1e-8, "b1": 0.9}
    kinds = [{"optimizer": kind} for kind in (rms, adam, adam | {"b1": 0.5})]
    assert labels(*kinds[:2]) == ["optimizer=RMSProp", "optimizer=Adam"]
    assert labels(*kinds)[1:] == ["b1=0.9, optimizer=Adam", "b1=0.5, optimizer=Adam"]
    assert labels({"eps": 1, "optimizer": rms}, {"eps": 2, "optimizer": rms | {"eps": 1}}) == [
        "eps=1, optimizer.eps=1e-05", "eps=2, optimizer.eps=1",
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["dataset", "evaluate_env"])
def test_what_is_learned_from_keeps_runs_apart(tmp_path: Path, field: str):
    """And what it is scored in."""
    paths = [run(tmp_path / name, {0: [1.0, 1.0]}) for name in "ab"]
    for path, name in zip(paths, ("one", "two"), strict=True):
        content = json.loads((path / "config.json").read_text()) | {field: name, "num_envs": 1}
        (path / "config.json").write_text(json.dumps(content))
    assert set(lines(figure(paths))) == {f"{field}={name} training (1 seed)" for name in ("one", "two")}


def test_the_longer_run_of_a_seed_is_drawn(tmp_path: Path):
    long, short = run(tmp_path / "a", {0: [1.0, 2.0, 3.0]}), run(tmp_path / "b", {0: [1.0, 2.5]})
    for paths in ([long, short], [short, long]):
        assert lines(figure(paths)) == {"training (1 seed)": ([1000, 2000, 3000], [1, 2, 3])}


def test_many_groups_have_lines_of_their_own_and_a_short_legend(tmp_path: Path):
    paths = [
        run(tmp_path / str(i), {0: [1.0, 2.0]}, algorithm={"type": "A2C", "discount": i}, evaluate=True)
        for i in range(9)
    ]
    drawing = figure(paths)
    (legend,) = drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"discount={i} evaluation (1 seed)" for i in range(9)]
    looks = [(line.get_color(), line.get_linestyle()) for line in drawing.axes[0].get_lines() if line.get_alpha()]
    assert len(set(looks)) == len(looks) == 9
    assert drawing.axes[0].get_ylabel() == "episode return (thin lines: training)"
    assert drawing.get_figheight() > figure(paths[:1]).get_figheight()


def test_curves_at_different_steps_meet_on_straight_lines():
    line = average_curves(
        [(np.asarray([0, 10, 20]), np.asarray([0.0, 1.0, 2.0])), (np.asarray([5, 25]), np.asarray([0.0, 2.0]))]
    )
    np.testing.assert_array_equal(line.steps, [5, 10, 20])
    np.testing.assert_allclose(line.mean, [0.25, 0.75, 1.75])
    assert line.seeds == 2


def test_long_curves_are_thinned_between_their_common_ends():
    steps = np.arange(1, 5001)
    line = average_curves([(steps, 2.0 * steps), (steps + 10, 2.0 * steps + 20)])
    assert len(line.steps) == 400 and (line.steps[0], line.steps[-1]) == (11, 5000)
    np.testing.assert_allclose(line.mean, 2 * line.steps)


def test_curves_without_a_common_step_are_refused():
    with pytest.raises(ConfigError, match="one ends at step 10, another begins at 20"):
        average_curves([(np.asarray([0, 10]), np.zeros(2)), (np.asarray([20, 30]), np.zeros(2))])


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_files_by_suffix(tmp_path: Path, name: str, magic: bytes):
    path = run(tmp_path / "a", {0: [1.0, 2.0], 1: [2.0, 3.0]})
    out = learning_curve([path], tmp_path / name)
    assert out == tmp_path / name
    data = out.read_bytes()
    assert data.startswith(magic) and len(data) > 5000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", name]  # nothing left beside


def test_other_rewards_are_another_group_and_steps_on_data_are_of_gradients(tmp_path: Path):
    paths = [run(tmp_path / "a", {0: [1.0, 2.0]}), run(tmp_path / "b", {0: [3.0, 4.0]})]
    told = json.loads((paths[1] / "config.json").read_text())
    (paths[1] / "config.json").write_text(json.dumps(told | {"tasks": "lunar-lander"}))
    assert len(lines(figure(paths))) == 2
    (paths[1] / "config.json").write_text(json.dumps(told | {"dataset": "data.npz"}))
    labels = [figure(each).axes[0].get_xlabel() for each in (paths[1:], paths, paths[:1])]
    assert labels == ["gradient steps", "steps", "environment steps"]
    for share in (0.5, 0.0):  # gone on with in an environment, also with nothing more from the data
        (paths[1] / "config.json").write_text(json.dumps(told | {"dataset": "data.npz", "offline_fraction": share}))
        assert figure(paths).axes[0].get_xlabel() == "environment steps"


def test_what_cannot_be_drawn_says_why(tmp_path: Path):
    path = run(tmp_path / "a", {0: [1.0]})
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf"):
        learning_curve([path], tmp_path / "a.jpeg")
    with pytest.raises(ConfigError, match=r"no train/entrpy .*Did you mean 'train/entropy'\?"):
        figure([path], key="train/entrpy")
    with pytest.raises(CheckpointError, match="the folder of a run"):
        figure([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="plot needs one run folder or more"):
        figure([])


def test_a_run_in_which_no_episode_has_ended_is_named_beside_others(tmp_path: Path):
    slow = {"type": "A2C", "discount": 0.5}
    paths = [run(tmp_path / "a", {0: [1.0, 2.0]}), run(tmp_path / "b", {0: [None, None]}, algorithm=slow)]
    assert lines(figure(paths)) == {
        "discount=0.99 training (1 seed)": ([1000, 2000], [1, 2]),
        "discount=0.5 (nothing to draw yet)": ([], []),
    }
    with pytest.raises(ConfigError, match=r"There is no eval/mean_reward or rollout/ep_rew_mean in .*b yet\.$"):
        figure(paths[1:])


@pytest.mark.parametrize("config", [None, "[]", "{}", "torn {"])
def test_a_run_without_its_configuration_goes_by_its_folder(tmp_path: Path, config: str | None):
    path = run(tmp_path / "mine", {0: [1.0, 2.0]})
    (path / "config.json").unlink()
    if config is not None:
        (path / "config.json").write_text(config)
    assert figure([path]).axes[0].get_title("left") == "mine"


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"\.\[plots\]"):
        figure([run(tmp_path / "a", {0: [1.0]})])


def test_importing_the_module_imports_no_matplotlib():
    code = "import sys, duologue.runs.display.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
