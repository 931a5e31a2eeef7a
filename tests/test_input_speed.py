import re

import pytest
from PIL import Image

from localmim_jax.bench import input_speed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return input_speed.make_ways(tmp_path_factory.mktemp("input_speed"), 12, 320)


def test_every_way_is_measured(made):
    files, ways = made
    assert len(files) == 12
    for file in files:
        width, height = Image.open(file).size
        assert 256 <= width <= 384
        assert height == width * 3 // 4
    speeds, costs = input_speed.measure(ways, input_speed.BATCH, 1)
    assert len(speeds) == 6
    assert speeds.keys() == costs.keys()
    assert min(speeds.values()) > 0
    assert min(costs.values()) > 0


def test_the_table_has_both_ratios():
    loops = {input_speed.LOOP_FLOAT: 100.0, input_speed.LOOP_UINT8: 200.0}
    text = input_speed.table(loops | {"pipeline": 300.0}, dict.fromkeys([*loops, "pipeline"], 0.004))
    assert "| pipeline | 300 | 3.00 | 1.50 | 4.00 |" in text
    assert all(line.count("|") == 6 for line in text.splitlines())


def test_the_loop_reads_as_many_images_as_told(made, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(input_speed.Image, "open", lambda file: opened.append(file) or real(file))
    input_speed.read_in_a_loop(made[0], 15, to_float=True)
    assert opened == (made[0] * 2)[:15]


def test_the_pixel_difference_of_the_fast_way(made):
    mean, high = input_speed.fast_decode_difference([file.read_bytes() for file in made[0]])
    assert 0 < mean < 4
    assert mean < high <= 255


def test_the_command_prints_a_table(capsys):
    from absl import flags

    values = flags.FlagValues()
    input_speed.define_flags(values)
    values(["bench", "--files=4", "--images=64", "--turns=1", "--width=300"])
    input_speed.main(values)
    out = capsys.readouterr().out
    assert re.search(r"4 JPEGs, about 300 pixels wide and \d+ kB; \d+ cores", out)
    assert "pixels differ from the exact ones by" in out
