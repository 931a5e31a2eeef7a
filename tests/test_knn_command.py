"""`python -m localmim_jax.knn` on a run of ours."""

import jax
import jax.numpy as jnp
import numpy as np

from localmim_jax.commands.knn import knn
from localmim_jax.data.augment import EvalTransform
from localmim_jax.evals.knn import knn_accuracy
from localmim_jax.localmim import LocalMIM
from localmim_jax.params import merge, split
from localmim_jax.tasks import initialise, inputs, settings
from tests.test_finetune import pretrained, recipe  # noqa: F401


def test_the_knn_command_scores_the_averaged_encoder(pretrained):  # noqa: F811
    """Against the same features computed here, on a memory bank and queries that divide into no batch."""
    workdir, params = pretrained
    found = knn(str(workdir), data="digits", train_split="train[:50]", test_split="test[:45]", batch_size=16, k=5)
    config = initialise.run_config(workdir)
    model = settings.localmim_config(config)
    graphdef, _, _ = split(lambda rngs: LocalMIM(model, rngs=rngs))
    averaged = merge(graphdef, jax.tree.map(lambda p: jnp.asarray(p + 1), params), {})
    parts = []
    for name in ("train[:50]", "test[:45]"):
        source, transform = inputs.open_split(inputs.data_config(recipe()), split=name), EvalTransform((16, 16), 1)
        examples = [transform(source[i], np.random.default_rng(0)) for i in range(len(source))]
        pixels = jnp.asarray(np.stack([example["image"] for example in examples]))
        features = jax.jit(averaged.features)(inputs.normaliser(config)(pixels))
        parts += [np.asarray(features), np.array([example["label"] for example in examples])]
    assert found["accuracy"] == knn_accuracy(*parts, k=5, temperature=0.07, num_classes=10)
    assert (found["k"], found["train_examples"], found["test_examples"]) == (5, 50, 45)
