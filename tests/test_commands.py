"""`localmim`: every command is found by its name, and a wrong name is answered in one line."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from localmim_jax.cli import commands, program

ROOT = Path(__file__).parents[1]


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        commands.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_every_command_is_registered():
    """A command is a module with define_flags and main."""
    found = set()
    for folder in ("cli", "analysis", "bench"):
        for path in (ROOT / "localmim_jax" / folder).glob("*.py"):
            text = path.read_text()
            if "\ndef define_flags(values: flags.FlagValues) -> None:" in text and "\ndef main(" in text:
                found.add(f"localmim_jax.{folder}.{path.stem}")
    assert found == set(commands.COMMANDS.values())


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_explains_itself(name):
    module = importlib.import_module(commands.COMMANDS[name])
    summary, _, rest = module.__doc__.partition("\n")
    assert f"    localmim {name}" in rest
    assert f"  {name} " in (listing := commands.listing(commands.COMMANDS))
    assert summary.endswith(".")
    assert max(map(len, listing.splitlines())) <= 100
    text = program.help_text(module.define_flags, module.__doc__)
    assert max(map(len, text.splitlines())) <= 120
    if positional := getattr(module, "POSITIONAL", ""):
        assert isinstance(program.parse(["--help"], module.define_flags, positional), type(None))
        assert f"  --{positional}" in text


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_listing(arguments, capsys):
    commands.main(arguments)
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in commands.COMMANDS)


def test_the_listing_needs_no_jax():
    code = "import sys; from localmim_jax.cli.commands import main; main(['--help']); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "--help"]])
def test_a_group_lists_its_own(arguments, capsys):
    commands.main(arguments)
    out = capsys.readouterr().out
    assert "  bench hog " in out
    assert "train" not in {line.split()[0] for line in out.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "localmim: no command 'trian'; did you mean localmim train?"),
        (["x"], "localmim: no command 'x'; localmim --help lists the commands"),
        (["bench", "step-time"], "localmim: no command 'bench step-time'; did you mean localmim bench step_time?"),
        (["bench.step_time"], "did you mean localmim bench step_time?"),
        (["analysis", "attentoin"], "did you mean localmim analysis attention?"),
        (["analyse"], "did you mean localmim analysis?"),
        (["--config=x.py"], "localmim: no command before --config=x.py; for example localmim train --config=x.py"),
        (["train", "--workdri=x"], "localmim train: --workdri: no such flag; did you mean --workdir?"),
        (["bench", "gpu_hours", "--rounds=0"], "localmim bench gpu_hours: --rounds=0: a whole number of at least 1"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(arguments, expected, capsys):
    assert expected in refusal(capsys, *arguments)


def test_help_of_a_command(capsys):
    commands.main(["train", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("Train a model")
    assert "\n  --dry_run " in out


@pytest.mark.parametrize("start", [["-m", "localmim_jax", "train"], ["-m", "localmim_jax.train"]])
def test_as_a_module(start):
    done = subprocess.run([sys.executable, *start, "--config=quickstar.py"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("localmim train: config file quickstar.py not found")


def test_the_console_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"localmim": "localmim_jax.cli.commands:main"}


@pytest.mark.parametrize("first", ["import tensorflow", ""])
def test_tensorflow_sees_no_accelerator(first):
    """Whether it was loaded before or is loaded later. CPUs stand for accelerators, which a test may not have."""
    code = f"""
{first}
import sys
from localmim_jax import process
process.hide_accelerators_from_tensorflow(["CPU"])
process.hide_accelerators_from_tensorflow(["CPU"])
assert {bool(first)} or "tensorflow" not in sys.modules
import tensorflow
print(tensorflow.config.get_visible_devices(), tensorflow.constant is not None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"
