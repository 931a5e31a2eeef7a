import pytest
from absl import flags

from localmim_jax.bench import step_time
from localmim_jax.bench.step_parts import by_part
from localmim_jax.configs import parts
from localmim_jax.planning.program import Kernel, Work
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


@pytest.mark.slow
def test_the_time_of_a_step_by_part_of_the_model(capsys):
    """Each part of the model has time, bytes and products, from the very program that was timed."""
    values = flags.FlagValues()
    step_time.define_flags(values)
    values(["bench", "--parts", "--steps=2"])
    values["config"].value = shrink(parts.pretrain(parts.vit("vit_b")))
    step_time.main(values)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = {(cells[0].strip(), next(c for c in cells[1:] if c).strip()): cells for cells in lines if len(cells) > 4}
    for part in ("encoder blocks", "decoders"):
        for which in ("forward", "backward"):
            ms, *_, gflop = [cell for cell in rows[part, which][1:] if cell.strip()][1:]
            assert float(ms) > 0
            assert float(gflop) > 0
    assert {("hog", "forward"), ("optimizer", "forward")} <= set(rows)


def test_kernels_and_their_times_are_joined_by_name():
    def kernel(name, part, backward=False, times=1):
        return Kernel(name, "fusion", part, backward, times, bytes=10, padding=0, flops=3.0, dtype="f32")

    kernels = (kernel("dot.1", "decoders"), kernel("dot.2", "decoders", times=4), kernel("dot.3", "decoders", True))
    seconds = {"dot.1": 1.0, "dot.2": 2.0, "dot.3": 5.0, "all-reduce.7": 0.5, "while.1": 9.0, "copy.1": 0.25}
    assert [vars(entry) for entry in by_part(Work(kernels, (), 0), seconds)] == [
        {"part": "decoders", "backward": True, "seconds": 5.0, "kernels": 1, "bytes": 10, "flops": 3.0},
        {"part": "decoders", "backward": False, "seconds": 3.0, "kernels": 5, "bytes": 50, "flops": 15.0},
        {"part": "between devices", "backward": False, "seconds": 0.5, "kernels": 1, "bytes": 0, "flops": 0.0},
        {"part": "other", "backward": False, "seconds": 0.25, "kernels": 1, "bytes": 0, "flops": 0.0},
    ]
