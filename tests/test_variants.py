import pytest
from absl import flags

from localmim_jax.bench import peak, variants
from localmim_jax.configs import parts
from localmim_jax.errors import ConfigError
from tests.shrink import shrink


def options(*settings):
    values = flags.FlagValues()
    variants.define_flags(values)
    values(["bench", "--steps=1"])
    values["settings"].value = list(settings)
    values["config"].value = shrink(parts.pretrain(parts.vit("vit_b"))).lock()
    return values


@pytest.mark.slow
def test_settings_are_measured_side_by_side(capsys):
    variants.main(options("as-is", "batch_size=16 model.remat=true"))
    _, header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["images/s", "ratio", "ms/step"]
    assert [row.split(maxsplit=7)[7] for row in rows] == ["as-is", "batch_size=16 model.remat=true"]
    (first, *_), second = (list(map(float, row.split()[:7])) for row in rows)
    assert rows[0].split()[1] == "1.000"
    assert second[1] == pytest.approx(second[0] / first, rel=0.01)


@pytest.mark.parametrize(("settings", "message"), [((), "no settings"), (("model.remt=true",), "model.remat")])
def test_wrong_settings_are_refused_before_anything_runs(settings, message):
    with pytest.raises(ConfigError, match=message):
        variants.main(options(*settings))


def test_rates_of_a_device_are_positive():
    assert peak.matmul_flops("float32", side=64, rounds=2) > 0
