"""Steps of tiny models, compiled for GPUs and TPUs that are not here: `make test-plan`."""

import json

import jax
import pytest

from localmim_jax.cli import commands
from localmim_jax.configs import parts
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.state import StateSpec
from localmim_jax.planning import compile as compilers
from localmim_jax.planning import hardware, hlo, program, report
from localmim_jax.tasks.from_config import encoder_config
from tests import hlo_texts
from tests.shrink import shrink

pytestmark = pytest.mark.plan


def config(fsdp=1):
    small = shrink(parts.pretrain(parts.vit("vit_b")))
    small.batch_size = 32
    small.mesh.fsdp = fsdp
    small.model.update({"depth": 2, "taps": (1, 2), "width": 128})
    small.model.target.cells = (8, 16)
    small.model.decoder.width = 64
    return small


def compiled(name, **changes):
    target = hardware.parse(name)
    (found,) = compilers.compile_for(config(**changes), target, compilers.devices_of(target))
    return found, target, program.work_of(hlo.parse(found.text))


def num_parameters(found) -> int:
    spec = StateSpec(found.built.task, found.built.settings, meshes.make_mesh(found.built.settings.mesh))
    return sum(leaf.size for leaf in jax.tree.leaves(spec.abstract_params))


def test_one_gpu():
    found, target, work = compiled("h100")
    assert not work.collectives
    assert any("fmha" in kernel.opcode for kernel in work.kernels)  # "auto" attention is the target's
    assert {"encoder blocks", "decoders", "hog", "optimizer"} <= {kernel.part for kernel in work.kernels}
    numbers = report.numbers(found, target, price_per_hour=2.0)
    json.dumps(numbers)
    assert numbers["fits"]
    assert numbers["at_the_floor"]["cost"] == pytest.approx(2 * numbers["at_the_floor"]["device_hours"])
    memory = found.memory
    state = memory.parameters + memory.optimizer + memory.other + memory.batch
    assert memory.total == pytest.approx(state + memory.temporaries, rel=0.02)
    text = "\n".join(report.lines(numbers))
    assert "no traffic between devices" in text


def check_data_parallel(name):
    found, target, work = compiled(name)
    assert {collective.group for collective in work.collectives} == {target.count}
    assert {collective.kind for collective in work.collectives} == {"all-reduce"}
    payload = sum(collective.payload * collective.times for collective in work.collectives)
    # The gradients once, in bfloat16 where XLA casts them after the sum and else in float32; scalars and statistics.
    assert 2 * num_parameters(found) <= payload < 4.08 * num_parameters(found) + 4096


@pytest.mark.parametrize("name", ["h100x8", "v5e-4", "v5e-16"])
def test_data_parallel_sends_the_gradients_and_nothing_else(name):
    check_data_parallel(name)


@pytest.mark.parametrize("name", ["h100x8", "v5e-16"])
def test_fsdp_gathers_parameters_and_no_images(name):
    target = hardware.parse(name)
    found, _, work = compiled(name, fsdp=target.count)
    whole, _, _ = compiled(name)
    assert found.memory.parameters < 0.3 * whole.memory.parameters
    gathered = sum(c.payload * c.times for c in work.collectives if c.kind == "all-gather")
    # Parameters at most once forward and once backward, in two or four bytes.
    assert 0 < gathered <= 8.4 * num_parameters(whole)
    assert {"all-to-all", "collective-permute"}.isdisjoint({c.kind for c in work.collectives})


def test_attention_and_the_loop_over_blocks_are_those_of_the_target():
    for name, expected in (("h100", "cudnn"), ("v100", "xla"), ("v5e-4", "xla")):
        target = hardware.parse(name)
        small = config()
        small.model.dtype = "float16" if name == "v100" else "bfloat16"
        with meshes.on_devices(compilers.devices_of(target)):
            assert encoder_config(small).attention == expected
            assert encoder_config(small).scan_blocks == (target.device.platform == "tpu")
    assert encoder_config(config()).attention == "xla"  # this machine's again


@pytest.mark.parametrize("name", list(hardware.DEVICES))
def test_every_device_has_a_topology(name):
    one = f"{name}-8" if hardware.DEVICES[name].platform == "tpu" else name
    target = hardware.parse(one)
    devices = compilers.devices_of(target)
    assert {device.device_kind for device in devices} == {target.device.kind}


@pytest.mark.parametrize("name", ["h100x2", "v5e-4"])
def test_the_committed_programs_are_those_of_today(name):
    """Their products and traffic; names and numbers of instructions change with XLA."""
    old = program.work_of(hlo.parse((hlo_texts.FOLDER / f"{name}.txt").read_text()))
    new = program.work_of(hlo.parse(hlo_texts.compile_text(name)))
    assert sum(k.flops * k.times for k in new.kernels) == sum(k.flops * k.times for k in old.kernels)
    assert {c.kind for c in new.collectives} == {c.kind for c in old.collectives}


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--config=quickstart", "--config.data.name=fake", "--config.batch_size=64"]
    commands.main(["plan", *small, "--hardware=v5e-4", "--compare=model.remat=true", "--output=plan.json"])
    printed = capsys.readouterr().out
    assert "images/s at the floor" in printed
    plans = json.loads((tmp_path / "plan.json").read_text())
    assert set(plans) == {"as-is", "model.remat=true"}
    assert all(plan["fits"] for plan in plans.values())
