import pytest

from localmim_jax.data.shard import WHOLE, Shard
from localmim_jax.errors import ConfigError


def test_a_batch_divides_among_hosts():
    assert WHOLE.examples_of(12) == 12
    assert Shard(1, 3).examples_of(12) == 4
    with pytest.raises(ConfigError, match="batch_size is 12; it must be a multiple of the 5 processes"):
        Shard(0, 5).examples_of(12)


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_host_is_one_of_all(index, count):
    with pytest.raises(ValueError, match=f"there is no part {index} of {count}"):
        Shard(index, count)


def test_each_host_has_a_file_of_its_own(tmp_path):
    assert Shard(0, 2).own(tmp_path / "bad.txt") == tmp_path / "bad.txt"
    assert Shard(1, 2).own(tmp_path / "bad.txt").name == "bad.txt.1"
