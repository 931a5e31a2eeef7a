"""Every way of mistyping a command line ends in one helpful line; a right one gives the right config."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from localmim_jax.cli import program, train
from localmim_jax.errors import ConfigError, Diverged, Interrupted, Preempted, StorageError
from localmim_jax.recipes import hints

ROOT = Path(__file__).parents[1]
QUICKSTART = "--config=configs/quickstart.py"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(*arguments: str) -> flags.FlagValues:
    return program.parse(arguments, train.define_flags)


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    assert "\n" not in hints.one_line(str(caught.value))
    return hints.one_line(str(caught.value))


def test_overrides_reach_the_config():
    config = parse(
        QUICKSTART,
        "--config.batch_size=32",
        "--config.seed",
        "-3",
        "--config.model.taps=1,2",
        "--config.image_size=(48, 64)",
        "--config.data.crop_scale=1,1.0",
        "--noconfig.data.flip",
        "--config.num_epochs=3",
        "--config.log.notes=a=b, c",
        "--config.model.target.hog_bias=bias.npz",
        "--workdir=x",
    ).config
    assert (config.batch_size, config.seed, config.model.taps, config.image_size) == (32, -3, (1, 2), (48, 64))
    assert (config.data.crop_scale, config.data.flip) == ((1, 1.0), False)
    assert config.num_epochs == 3.0
    assert isinstance(config.num_epochs, float)
    assert (config.log.notes, config.model.target.hog_bias) == ("a=b, c", "bias.npz")
    assert config.is_locked


def test_overrides_may_stand_before_the_config():
    assert parse("--config.seed=5", "--config", "configs/quickstart.py").config.seed == 5


def test_none_unsets_what_may_be_unset():
    config = parse(QUICKSTART, "--config.schedule.base_lr=None", "--config.schedule.peak_lr=1").config
    assert config.schedule.base_lr is None
    assert config.schedule.peak_lr == 1.0
    assert "always needs a value" in refusal(QUICKSTART, "--config.batch_size=None")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no --config given; for example --config=configs/quickstart.py"),
        (["--config=configs/vit_b100ep.py"], "not found; did you mean configs/vit_b_100ep.py?"),
        (["configs/quickstart.py"], "left-over argument 'configs/quickstart.py'; did you mean --config=configs/quick"),
        ([QUICKSTART, "batch_size=3"], "left-over argument 'batch_size=3'; did you mean --config.batch_size?"),
        ([QUICKSTART, "workdir=3"], "left-over argument 'workdir=3'; did you mean --workdir=3?"),
        ([QUICKSTART, "train"], "left-over argument 'train'; every option starts with --"),
        ([QUICKSTART, "--workdri=3"], "--workdri: no such flag; did you mean --workdir?"),
        ([QUICKSTART, "--workdir"], "--workdir: a value is needed, as in --workdir=VALUE"),
        (
            ["--config.seed=1"],
            "--config.seed changes a recipe, and there is no --config; for example --config=configs/",
        ),
        ([QUICKSTART, "--num_processes=two"], "--num_processes=two: a whole number is needed"),
        ([QUICKSTART, "--dry_run=no"], "--dry_run=no: true or false is needed; write --dry_run=false"),
        ([QUICKSTART, "--config.batch_sise=3"], "no such key; did you mean --config.batch_size?"),
        ([QUICKSTART, "--config.depht=3"], "did you mean --config.model.depth"),
        ([QUICKSTART, "--config.model.depth.x=3"], "no such key; did you mean --config.model.depth?"),
        ([QUICKSTART, "--config.lr=3"], "--config.schedule.base_lr"),
        ([QUICKSTART, "--config.items=3"], "no such key"),
        ([QUICKSTART, "--config.=3"], "no such key"),
        ([QUICKSTART, "--config.model=3"], "a section, not a value; set a key of it"),
        ([QUICKSTART, "--config.batch_size=1e3"], "a whole number is needed; write --config.batch_size=1000"),
        ([QUICKSTART, "--config.batch_size=1.5"], "--config.batch_size=1.5: a whole number is needed"),
        ([QUICKSTART, "--config.batch_size"], "--config.batch_size=: a whole number is needed"),
        ([QUICKSTART, "--config.model.mask_ratio=most"], "--config.model.mask_ratio=most: a number is needed"),
        ([QUICKSTART, "--config.data.flip=no"], "true or false is needed; write --config.data.flip=false"),
        ([QUICKSTART, "--config.model.taps=a,b"], "whole numbers separated by commas are needed"),
        ([QUICKSTART, "--config.image_size=32.5,32"], "whole numbers separated by commas are needed"),
        ([QUICKSTART, "--config.data.mean=a"], "numbers separated by commas are needed"),
    ],
)
def test_bad_command_line(arguments, expected):
    assert expected in refusal(*arguments)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def get_config():\n    return missing\n", "line 2: NameError: name 'missing' is not defined"),
        ("def get_config(:\n", "SyntaxError"),
        ("import nowhere_to_be_found\n", "line 1: ModuleNotFoundError"),
        ("x = 1\n", "has no function get_config()"),
        ("def get_config():\n    return {}\n", "returned a dict, not a ConfigDict"),
        (
            "from localmim_jax.configs import parts\ndef get_config():\n    parts.vit('vit_b').lock().widht = 1\n",
            'Did you mean "width"',
        ),
    ],
)
def test_bad_config_file(tmp_path, source, expected):
    path = tmp_path / "recipe.py"
    path.write_text(source)
    message = refusal(f"--config={path}")
    assert expected in message
    assert str(path) in message
    assert len(message) < 300 + len(str(path))


def test_an_unknown_run_of_a_recipe_with_several_is_told_the_known_ones():
    assert "table1.py has no 'vit_b_local_mutli'; did you mean vit_b_local_multi?" in refusal(
        "--config=configs/table1.py:vit_b_local_mutli"
    )
    assert "has no 'x'; it has vit_b_global_single, vit_b_" in refusal("--config=configs/table1.py:x")


def test_help_names_every_flag():
    assert parse("--help") is None
    text = program.help_text(train.define_flags, train.__doc__)
    for flag in ("--config", "--workdir", "--dry_run", "--coordinator_address", "--num_processes", "--process_id"):
        assert f"\n  {flag} " in text
    assert len(text.splitlines()) < 30


def test_workdir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert program.workdir("~/run") == str(tmp_path / "run")
    assert program.workdir("run") == str(ROOT / "run")
    assert program.workdir("gs://bucket/run") == "gs://bucket/run"
    with pytest.raises(ConfigError, match="no --workdir given"):
        program.workdir(None)
    with pytest.raises(ConfigError, match="web address"):
        program.workdir("https://host/run")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("a\n b"), 2),
        (Diverged("a\n b"), 3),
        (StorageError("a\n b"), 4),
        (Preempted("a\n b"), 75),
        (Interrupted("a\n b"), 130),
    ],
)
def test_user_errors_end_in_one_line_and_their_status(error, status, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(train, "main", fail)
    with pytest.raises(SystemExit) as caught:
        program.run(train, "localmim train", [QUICKSTART])
    assert caught.value.code == status
    assert capsys.readouterr().err == "localmim train: a\\n b\n"


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def fail(options):
        raise ZeroDivisionError

    monkeypatch.setattr(train, "main", fail)
    with pytest.raises(ZeroDivisionError):
        program.run(train, "localmim train", [QUICKSTART])


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--config=configs/quickstart.py", "--config.batch_size=1e3"], 2, "main.py: --config.batch_size=1e3"),
        (["--config=configs/quickstart.py"], 2, "main.py: no --workdir given"),
    ],
)
def test_process_ends_with_one_line(arguments, status, expected):
    done = subprocess.run([sys.executable, "main.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_is_one_line_a_flag_with_its_default():
    def define(values):
        flags.DEFINE_integer("k", 20, "neighbors", flag_values=values)
        flags.DEFINE_multi_string("images", [], "image file; may be repeated", flag_values=values)
        flags.DEFINE_enum("scale", "full", ["full", "small"], "full or small", flag_values=values)
        flags.DEFINE_bool("parts", False, "also the parts", flag_values=values)
        flags.DEFINE_list("sizes", ["32", "64"], "numbers", flag_values=values)

    lines = sorted(program.help_text(define, "usage").splitlines()[2:])
    assert [line.split(None, 1)[1] for line in lines] == [
        "image file; may be repeated",
        "neighbors (20)",
        "also the parts",
        "full or small (full)",
        "numbers (32,64)",
    ]


def test_a_value_out_of_range_is_told_the_range():
    def define(values):
        flags.DEFINE_integer("k", 20, "neighbors", flag_values=values, lower_bound=1)
        flags.DEFINE_enum("scale", "full", ["full", "small"], "full or small", flag_values=values)

    with pytest.raises(ConfigError, match="--scale=tiny: it must be one of full, small"):
        program.parse(["--scale=tiny"], define)
    for value in ("0", "many"):
        with pytest.raises(ConfigError, match=f"--k={value}: a whole number of at least 1 is needed"):
            program.parse([f"--k={value}"], define)


def test_recipes_are_found_outside_the_repository(tmp_path):
    """As after installing a wheel: the commands and the recipes, in a directory that has neither."""
    program = [sys.executable, "-m", "localmim_jax.train"]
    environment = os.environ | {"PYTHONPATH": ROOT}
    for config, expected in (
        ("configs/quickstart.py", "localmim train: no --workdir given"),
        (
            "configs/quickstrat.py",
            "localmim train: config file configs/quickstrat.py not found; did you mean configs/qui",
        ),
        ("other/quickstart.py", "localmim train: config file other/quickstart.py not found"),
    ):
        command = [*program, f"--config={config}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(expected)


def test_arguments_without_dashes_go_to_a_list_flag_where_a_command_has_one():
    def define(values):
        flags.DEFINE_string("checkpoint", None, "", flag_values=values)
        flags.DEFINE_list("images", [], "", flag_values=values)

    options = program.parse(["a.jpg", "--checkpoint=x", "b c.png", "--images=d,e"], define, "images")
    assert (options.checkpoint, options.images) == ("x", ["d", "e", "a.jpg", "b c.png"])
    assert program.parse(["--checkpoint=x"], define, "images").images == []
    with pytest.raises(ConfigError, match=r"left-over argument 'a\.jpg'"):
        program.parse(["a.jpg"], define)
