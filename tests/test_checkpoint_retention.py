"""Which steps stay."""

import logging

import pytest

from localmim_jax.engine.checkpoints.read import complete_steps
from tests.checkpoints import restore_latest, write_steps
from tests.defaults import checkpoint_settings


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep_last": 1}, [10]),
        ({"keep_last": 2}, [9, 10]),
        ({"keep_last": 1, "keep_every_steps": 4}, [4, 8, 10]),
    ],
)
def test_keeping(tmp_path, settings, kept):
    write_steps(tmp_path / "checkpoints", range(1, 11), checkpoint_settings(**settings))
    assert complete_steps(tmp_path / "checkpoints") == kept
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(map(str, kept))


def test_the_best_score_is_kept_also_after_a_restart(tmp_path):
    directory, settings = tmp_path / "checkpoints", checkpoint_settings(keep_last=1)
    write_steps(directory, [1, 2, 3], settings, scores={1: 0.2, 2: 0.9, 3: 0.5})
    assert complete_steps(directory) == [2, 3]
    write_steps(directory, [4, 5], settings, scores={4: 0.91})
    assert complete_steps(directory) == [4, 5]


def test_a_score_that_is_no_number_is_not_the_best(tmp_path):
    directory = tmp_path / "checkpoints"
    write_steps(directory, [1, 2, 3, 4], checkpoint_settings(keep_last=1), scores={1: 0.2, 2: float("nan"), 3: 0.1})
    assert complete_steps(directory) == [1, 4]


def test_strangers_are_ignored_with_a_warning(workdir, caplog):
    directory = workdir / "checkpoints"
    (directory / "999999").mkdir()
    (directory / "best").mkdir()
    (directory / "1000").write_text("not a directory")
    (directory / "7.orbax-checkpoint-tmp-3").mkdir()
    with caplog.at_level(logging.WARNING, "absl"):
        assert restore_latest(directory)[0] == 2
    assert all(f"{directory / name} has no manifest" in caplog.text for name in ("999999", "best", "1000"))
    assert sorted(path.name for path in directory.iterdir()) == ["1", "1000", "2", "999999", "best"]
