"""The table of docs/scaling.md: what its command prints, and how it looks for the accumulation that fits."""

import json

import pytest

from localmim_jax.cli import commands
from localmim_jax.planning.table import first_accumulation, more_accumulation, rows, table


@pytest.mark.parametrize(
    ("images", "accum_steps", "expected"),
    [(4096, 1, 32), (512, 1, 4), (128, 1, 1), (100, 1, 1), (600, 2, 8), (16, 4, 4)],
)
def test_the_first_try_gives_a_device_what_should_fit(images, accum_steps, expected):
    assert first_accumulation(images, accum_steps, 128.5) == expected


def test_memory_hardly_falls_faster_than_the_micro_batch():
    assert [more_accumulation([size], 10) for size in (11, 20, 21, 80)] == [2, 2, 4, 8]
    assert more_accumulation([5, 30], 10) == 4  # the larger of two shapes
    assert more_accumulation([None], 10) == 2  # the compiler did not say


def plan(**changes):
    """What `Cell.plan` writes, cut down to what the table shows."""
    program = {
        "hardware": {"name": "v100", "usable_bytes": 24 * 2**30},
        "image_size": [224, 224],
        "batch_size": 4096,
        "accum_steps": 32,
        "compile_seconds": 75.4,
        "fits": True,
        "memory": {"total": 12 * 2**30},
        "seconds": {"step": 1.5},
        "at_the_floor": {"images_per_second": 2730.7, "hours": 13.04},
        "at_0.52_of_it": {"images_per_second": 1420.0, "hours": 25.1},
    }
    return {
        "recipe": "configs/vit_b_100ep.py",
        "changes": ["model.dtype=float16", "accum_steps=32"],
        "programs": [program | changes],
    }


def test_a_row():
    (row,) = rows(plan())
    start = ("vit_b_100ep", "v100, model.dtype=float16", "4096", "32", "12, 24")
    assert row == (*start, "1500 ms", "2731, 1420", "13, 25.1", "75 s")


def test_what_does_not_fit_says_so():
    (row,) = rows(plan(fits=False, memory=None))
    assert row[4:6] == ("does not fit, 24", "")
    (row,) = rows(plan(fits=False))
    assert row[4] == "does not fit: 12, 24"


def test_a_program_that_cannot_be_read_still_has_its_memory():
    (row,) = rows(plan(counted=False, seconds=None))
    assert row[4:7] == ("12, 24", "not counted: this jaxlib cannot read the compiler's program", "")


def test_the_command_prints_what_is_there_and_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "vit_b_100ep_v100.json").write_text(json.dumps(plan()))
    commands.main(["plan_table", f"--plans={tmp_path}", "--recipes=vit_b_100ep", "--hardware=v100,h100x8"])
    printed = capsys.readouterr().out
    assert table([plan()]) in printed
    assert "missing, --run makes them: vit_b_100ep_h100x8" in printed


def test_bad_names_are_refused_before_anything_is_compiled(tmp_path, capsys):
    for flag, named in (("--recipes=vit_q", "vit_q"), ("--hardware=h900", "h900")):
        with pytest.raises(SystemExit) as refused:
            commands.main(["plan_table", f"--plans={tmp_path}", flag, "--run"])
        assert refused.value.code == 2
        assert named in capsys.readouterr().err
