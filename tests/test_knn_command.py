"""`localmim knn` on a run of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localmim_jax.cli.knn import knn
from localmim_jax.data.augment import EvalTransform
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.evals.knn import knn_accuracy
from localmim_jax.method.localmim import LocalMIM
from localmim_jax.params import merge, split
from localmim_jax.tasks import from_config, initialize, inputs
from tests.test_finetune import pretrained, recipe  # noqa: F401


def test_what_belongs_to_no_run(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    for name, message in (
        ("", "does not belong to a run: there is no config.json"),
        ("gone", "gone does not exist: give a run directory or a file"),
        ("weights.npz", r"weights\.npz is damaged, or no npz file"),
    ):
        with pytest.raises(DataError, match=message):
            knn(str(tmp_path / name), data="digits")


@pytest.mark.parametrize("name", ["batch_size", "temperature"])
def test_a_wrong_number_is_named_as_its_flag(pretrained, name):  # noqa: F811
    workdir, _ = pretrained
    with pytest.raises(ConfigError, match=f"--{name}=0: "):
        knn(str(workdir), data="digits", **{name: 0})


def test_the_knn_command_scores_the_averaged_encoder(pretrained):  # noqa: F811
    """Against the same features computed here, on a memory bank and queries that divide into no batch."""
    workdir, params = pretrained
    found = knn(
        str(workdir), data="digits", train_split="train[:50]", test_split="test[:45]", batch_size=16, k=5, resize=0
    )
    config = initialize.run_config(workdir)
    model = from_config.localmim_config(config)
    graphdef, _, _ = split(lambda rngs: LocalMIM(model, rngs=rngs))
    averaged = merge(graphdef, jax.tree.map(lambda p: jnp.asarray(p + 1), params), {})
    parts = []
    for name in ("train[:50]", "test[:45]"):
        source, transform = inputs.open_split(inputs.data_config(recipe()), split=name), EvalTransform((16, 16), 1)
        examples = [transform(source[i], np.random.default_rng(0)) for i in range(len(source))]
        pixels = jnp.asarray(np.stack([example["image"] for example in examples]))
        features = jax.jit(averaged.features)(inputs.normalizer(config)(pixels))
        parts += [np.asarray(features), np.array([example["label"] for example in examples])]
    assert found["accuracy"] == knn_accuracy(*parts, k=5, temperature=0.07, num_classes=10)
    assert (found["k"], found["train_examples"], found["test_examples"]) == (5, 50, 45)
