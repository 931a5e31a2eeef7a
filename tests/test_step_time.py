import pytest
from absl import flags

from localmim_jax.bench import step_time
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from tests.shrink import shrink


def test_a_detectors_step_is_timed_lying_and_standing():
    config = shrink(parts.detect(parts.swin("swin_t")))
    config.num_steps = 6
    spec, shapes = step_time.prepare_shapes(config)
    assert spec.task.name == "detect"
    assert [[batch["image"].shape for batch in batches] for batches in shapes] == [
        [(8, 64, 96, 3)] * 2,
        [(8, 96, 64, 3)] * 2,
    ]
    assert all(batch["boxes"].shape == (8, config.data.fake_objects, 4) for batches in shapes for batch in batches)


def test_other_steps_have_one_shape():
    _, shapes = step_time.prepare_shapes(shrink(parts.pretrain(parts.vit("vit_b"))))
    assert [[batch["image"].shape for batch in batches] for batches in shapes] == [[(8, 32, 32, 3)] * 2]
    _, batches = step_time.prepare(shrink(parts.pretrain(parts.vit("vit_b"))))
    assert [batch["image"].shape for batch in batches] == [(8, 32, 32, 3)] * 2


def test_parts_of_a_detectors_step_are_refused():
    values = flags.FlagValues()
    step_time.define_flags(values)
    values(["bench", "--parts"])
    values["config"].value = shrink(parts.detect(parts.swin("swin_t")))
    with pytest.raises(ConfigError, match="this task is detect"):
        step_time.main(values)
