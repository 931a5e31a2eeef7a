"""Planning for hardware that is not here: names, the parser of compiled programs, floors, the search for what fits.

The programs are those of tests/hlo_texts.py, compiled for hardware; `make test-plan` compiles whole steps.
"""

import importlib.util
from pathlib import Path

import jax
import pytest

from localmim_jax.cli import commands
from localmim_jax.configs import parts
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.step import trace_step
from localmim_jax.errors import ConfigError
from localmim_jax.planning import compile as compilers
from localmim_jax.planning import fit, floor, hardware, hlo, program, report
from tests import hlo_texts
from tests.shrink import shrink
from tests.tiny import spec_for

TEXTS = Path(__file__).parent / "hlo"


def work(name: str) -> program.Work:
    return program.work_of(hlo.parse((TEXTS / f"{name}.txt").read_text()))


@pytest.mark.parametrize(
    ("name", "topology", "count", "per_host"),
    [
        ("h100", "1x1x1", 1, 1),
        ("H100x8", "1x1x8", 8, 8),
        ("a100x16", "1x2x8", 16, 8),
        ("tpu-v4-8", "v4:2x2x1", 4, 4),
        ("v5e-1", "v5e:1x1", 1, 1),
        ("v5e-16", "v5e:4x4", 16, 16),
        ("v5p-8", "v5p:2x2x1", 4, 4),
        ("v5p-64", "v5p:2x4x4", 32, 32),
        ("v6e-8", "v6e:2x4", 8, 8),
    ],
)
def test_hardware_names(name, topology, count, per_host):
    found = hardware.parse(name)
    assert (found.topology, found.count, found.per_host) == (topology, count, per_host)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h1000", "take one of h200, h100"),
        ("h100x12", "whole hosts of 8"),
        ("h100x0", "1 to 8 GPUs"),
        ("v5p-7", "a v5p slice has one of 8, 16"),
        ("v5e-512", "one of 1, 4, 8"),
        ("v100-8", "no such hardware"),
    ],
)
def test_hardware_that_does_not_exist(name, message):
    with pytest.raises(ConfigError, match=message):
        hardware.parse(name)


@pytest.mark.parametrize(("name", "extra"), [("h100x8", "plan-gpu"), ("v5e-16", "plan-tpu")])
def test_without_the_compiler_one_line_says_what_to_install(name, extra, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'localmim-jax\[{extra}\]'"):
        compilers.require_compiler(hardware.parse(name))


def test_the_command_names_what_is_wrong(capsys):
    for arguments, message in (
        ([], "no --hardware given; for example --hardware=h100x8"),
        (["--hardware=gpu"], "no such hardware"),
    ):
        with pytest.raises(SystemExit) as end:
            commands.main(["plan", "--config=configs/quickstart.py", *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        commands.main(["train", "--config=configs/quickstart.py", "--hardware=h100", "--workdir=x"])
    assert "--hardware=h100 is for --dry_run" in capsys.readouterr().err


def test_arrays_of_a_tpu_are_padded_to_their_tiles():
    text = "(bf16[8,50,64]{2,1,0:T(8,128)(2,1)}, f32[10]{0:T(256)S(1)}, pred[], s4[3,7]{1,0})"
    first, second, third, fourth = hlo.arrays(text)
    assert (first.bytes, first.padded_bytes) == (8 * 50 * 64 * 2, 8 * 56 * 128 * 2)
    assert second.on_chip
    assert second.padded_bytes == 256 * 4
    assert (third.dims, third.bytes) == ((), 1)
    assert fourth.padded_bytes == 21
    (transposed,) = hlo.arrays("f32[8,50,64]{0,1,2:T(8,128)}")
    assert transposed.padded_bytes == 128 * 56 * 64 * 4


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(train_step)/gradients/jvp(encoder)/block_01/attention/dot_general", "encoder blocks"),
        ("jit(train_step)/gradients/transpose(jvp(encoder))/stage_2/block_01/mlp/mul", "encoder blocks"),
        ("jit(train_step)/gradients/transpose(gradients)/jvp(decoder_8px)/block_01/mlp/exp", "decoders"),
        ("jit(train_step)/gradients/jvp(encoder)/patch_embed/dot_general", "encoder, embedding"),
        ("jit(train_step)/gradients/jvp(backbone)/encoder/block_02/add", "encoder blocks"),
        ("jit(train_step)/gradients/jvp(hog)/jit(_pad)/concatenate", "hog"),
        ("jit(train_step)/gradients/jvp(masking)/vmap(jit(_uniform))/vmap()/or", "masking"),
        ("jit(train_step)/gradients/while/body/closed_call/jvp(loss)/reduce_sum", "loss"),
        ("jit(train_step)/optimizer/mul", "optimizer"),
        ("jit(train_step)/gradients/jit(_threefry_fold_in)/_gradients.<locals>.micro_gradients/xor", "other"),
        ("", "other"),
    ],
)
def test_parts_by_named_scope(op_name, part):
    assert program.part_of(op_name) == part


def product_flops(found: program.Work) -> float:
    return sum(kernel.flops * kernel.times for kernel in found.kernels)


@pytest.mark.parametrize(("name", "devices"), [("h100x2", 2), ("v5e-4", 4)])
def test_the_products_of_a_compiled_program_are_all_counted(name, devices):
    # Of five products: two forward, two for the weights, one for the hidden layer; in two micro-batches.
    expected = 2 * 5 * 2 * hlo_texts.BATCH // devices * hlo_texts.WIDTH * hlo_texts.HIDDEN
    found = work(name)
    assert product_flops(found) == expected
    assert {kernel.part for kernel in found.kernels if kernel.flops} == {"encoder blocks", "decoders"}
    assert found.unknown_loops == 0


@pytest.mark.parametrize("name", ["h100x2", "v5e-4"])
def test_only_gradients_cross_the_network(name):
    found = work(name)
    parameters = 2 * hlo_texts.WIDTH * hlo_texts.HIDDEN * 4
    assert {collective.kind for collective in found.collectives} == {"all-reduce"}
    assert {collective.group for collective in found.collectives} == {hardware.parse(name).count}
    # XLA sums the gradients of the micro-batches on each device first.
    assert sum(collective.payload * collective.times for collective in found.collectives) == parameters


def kernel(**values) -> program.Kernel:
    defaults = {"name": "k", "opcode": "fusion", "part": "loss", "backward": False, "times": 1, "bytes": 0}
    return program.Kernel(**(defaults | {"padding": 0, "flops": 0.0, "dtype": ""} | values))


def test_the_floor_takes_the_larger_of_memory_and_arithmetic_of_each_kernel():
    h100 = hardware.parse("h100x8")
    memory_bound = kernel(bytes=3_350_000_000, times=2)
    compute_bound = kernel(flops=989.4e9, dtype="bf16", bytes=10, part="encoder blocks")
    gather = program.Collective("all-gather", "other", 3, 1, 8 * 450_000_000, 8)
    found = program.Work((memory_bound, compute_bound), (gather,), 0)
    kernels, links = floor.floor_seconds(found, h100, "bfloat16")
    assert kernels == pytest.approx(2e-3 + 1e-3)
    assert links == pytest.approx(3 * 7e-3)
    parts_found = floor.parts(found.kernels, h100.device, "bfloat16")
    assert [(part.name, part.kernels) for part in parts_found] == [("loss", 2), ("encoder blocks", 1)]
    # Two hosts: the network is slower than the link within one.
    two = hardware.parse("h100x16")
    between = program.Collective("all-reduce", "other", 1, 1, 16 * 50_000_000, 16)
    assert floor.link_seconds(between, two) == pytest.approx(30e-3)


def test_a_v100_multiplies_bfloat16_as_float32():
    v100 = hardware.parse("v100").device
    assert floor.kernel_seconds(kernel(flops=15.7e9, dtype="bf16"), v100, "bfloat16") == pytest.approx(1e-3)
    assert floor.kernel_seconds(kernel(flops=125e9, dtype="f16"), v100, "float16") == pytest.approx(1e-3)


def test_usable_memory_is_what_jax_takes():
    h100, v5e = hardware.parse("h100"), hardware.parse("v5e-4")
    assert report.usable_memory(h100, {}) == int(0.75 * h100.device.memory)
    assert report.usable_memory(h100, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}) == int(0.9 * h100.device.memory)
    assert report.usable_memory(v5e, {}) == 16 * 2**30


def search(usable: int, compilations: int = 8, batch: int = 256, legal=lambda config: True):
    """A search over a step of 100 bytes and 10 an image, 4 with remat; fsdp halves the 100."""
    config = shrink(parts.pretrain(parts.vit("vit_b")))
    config.batch_size = batch

    def needs(config):
        if not legal(config):
            raise ConfigError("not legal")
        micro = config.batch_size // config.accum_steps
        return 100 // config.mesh.fsdp + micro * (4 if config.model.remat else 10)

    return fit.Search(config, needs, usable, compilations)


def test_what_makes_a_step_fit_is_found():
    found = search(usable=800)
    attempts = {attempt.change: attempt.fits for attempt in found.fixes(used=2660, devices=2)}
    assert attempts == {"model.remat=true": False, "mesh.fsdp=2": False, "accum_steps=4": True}


def test_the_largest_batch_is_found_in_few_compilations():
    found = search(usable=1100)
    assert found.largest_batch(used=2660, unit=2).change == "batch_size=96"
    assert len(found.attempts) <= 4
    larger = search(usable=11000)
    assert larger.largest_batch(used=2660, unit=2).change == "batch_size=1024"
    assert search(usable=2700).largest_batch(used=2660, unit=2) is None
    assert search(usable=50).largest_batch(used=None, unit=2) is None


def test_the_search_ends_with_its_compilations_and_skips_illegal_batches():
    found = search(usable=1100, compilations=1)
    found.largest_batch(used=2660, unit=2)
    assert len(found.attempts) == 1
    even = search(usable=1100, legal=lambda config: config.batch_size % 64 == 0)
    assert even.largest_batch(used=2660, unit=2).change == "batch_size=64"


@pytest.mark.parametrize(("fsdp", "kinds"), [(1, {"all-reduce"}), (4, {"all-reduce", "all-gather"})])
def test_a_step_gathers_parameters_and_sends_no_activations(fsdp, kinds):
    spec = spec_for(devices=8, fsdp=fsdp)
    batch = meshes.abstract_batch(spec.mesh, next(spec.task.train_batches(0)))
    found = program.work_of(hlo.parse(trace_step(spec, batch).lower().compile().as_text())).collectives
    assert {collective.kind for collective in found} == kinds
    leaves = jax.tree.leaves(spec.abstract["params"])
    cut = sum(leaf.size * 4 for leaf in leaves if not leaf.sharding.is_fully_replicated)
    gathered = sum(collective.payload for collective in found if collective.kind == "all-gather")
    assert gathered in ({0} if fsdp == 1 else {cut, 2 * cut}), found
    reduced = sum(collective.payload for collective in found if collective.kind == "all-reduce")
    # On the data axis too, whose gradients are those of the parts.
    assert reduced <= 1.3 * sum(leaf.size * 4 for leaf in leaves), found
    assert {collective.group for collective in found} <= ({8} if fsdp == 1 else {2, 4, 8})


NESTED = """HloModule nested, is_scheduled=true

%cut (whole: f32[12,64,32], at: s32[]) -> f32[64,32] {
  %whole = f32[12,64,32]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,64,32]{2,1,0} dynamic-slice(%whole, %at, %zero, %zero), dynamic_slice_sizes={1,64,32}
  ROOT %flat = f32[64,32]{1,0} bitcast(%slice)
}

%outer (stack: f32[12,64,32], index: s32[]) -> f32[64,32] {
  %stack = f32[12,64,32]{2,1,0} parameter(0)
  %index = s32[] parameter(1)
  %inner = f32[64,32]{1,0} fusion(%stack, %index), kind=kLoop, calls=%cut
  ROOT %doubled = f32[64,32]{1,0} add(%inner, %inner)
}

ENTRY %main (stacked: f32[12,64,32], turn: s32[]) -> f32[64,32] {
  %stacked = f32[12,64,32]{2,1,0} parameter(0)
  %turn = s32[] parameter(1)
  %part-start = ((f32[12,64,32]{2,1,0}), f32[3,64,32]{2,1,0}, s32[]) slice-start(%stacked), slice={[0:3]}
  %part-done = f32[3,64,32]{2,1,0} slice-done(%part-start)
  ROOT %result = f32[64,32]{1,0} fusion(%stacked, %turn), kind=kLoop, calls=%outer
}
"""


def test_what_is_sliced_within_a_nested_fusion_or_ahead_of_time_is_read_in_part():
    kernels = {kernel.name: kernel for kernel in program.work_of(hlo.parse(NESTED)).kernels}
    assert kernels["result"].bytes == 2 * 64 * 32 * 4 + 4
    assert kernels["part-start"].bytes == 2 * 3 * 64 * 32 * 4
