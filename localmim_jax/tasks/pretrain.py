"""Pre-training: images without labels, a random mask, and one reconstruction loss a tap."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from localmim_jax.data.own import Given
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.task import Evaluation, Task
from localmim_jax.errors import ConfigError
from localmim_jax.evals.knn import KNN
from localmim_jax.evals.rank import FeatureRank
from localmim_jax.evals.reconstruction import Reconstruction, TargetDescription
from localmim_jax.method.localmim import LocalMIM, LocalMIMConfig, draw_mask, pretrain_loss
from localmim_jax.method.masking import check_num_masks
from localmim_jax.method.targets import make_targets
from localmim_jax.params import Tree, model_state_of
from localmim_jax.tasks import from_config, inputs
from localmim_jax.tasks.initialize import initializer

_PICTURE_MASK_SEED = 0  # the same masks at every evaluation, so that pictures can be compared over time


def model_config(config: ConfigDict) -> LocalMIMConfig:
    """The model of a run's config, even if the file of its frozen gradient biases is gone."""
    bias = config.model.target.hog_bias
    if bias is not None and not Path(bias).is_file():
        logging.warning("model.target.hog_bias: %s is gone; no parameter depends on it, but an export lacks it", bias)
        config.model.target.hog_bias = None
    return from_config.localmim_config(config)


def build(config: ConfigDict, workdir: str, given: Given | None = None) -> Task:
    """The pre-training task of a config.

    Args:
        config: see `configs/parts`.
        workdir: where unreadable images are listed.
        given: a Python program's dataset and transform.

    Raises:
        ConfigError: an impossible model, schedule or evaluation.
        DataError: a missing or empty dataset.
    """
    model = from_config.localmim_config(config)
    normalize = inputs.normalizer(config)
    train = inputs.TrainInput(config, workdir, given=given)
    num_steps, steps_per_epoch = from_config.num_steps(config, len(train.source))
    if model.num_masks is not None:
        mesh = config.mesh
        devices = len(meshes.run_devices()) if mesh.data == -1 else mesh.data * mesh.fsdp
        check_num_masks(model.num_masks, config.batch_size // config.accum_steps, devices)

    def loss(
        model: LocalMIM, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Tree]:
        images = normalize(batch["image"])
        value, metrics = pretrain_loss(model, images, draw_mask(key, model.config, images.shape[0]))
        return value, metrics, model_state_of(model)

    return Task(
        name="pretrain",
        make_model=model.make,
        loss=loss,
        train_batches=functools.partial(train.batches, num_steps=num_steps),
        batch_size=config.batch_size,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        weight_decay_rules=model.encoder.weight_decay["pretrain"],
        init_from=initializer(config, model),
        data=train.record,
        evaluations=tuple(evaluations(config, model, train, steps_per_epoch)),
    )


def evaluations(
    config: ConfigDict, model: LocalMIMConfig, train: inputs.TrainInput, steps_per_epoch: float
) -> Iterator[Evaluation]:
    """k-NN and rank of the frozen encoder's features, and pictures of reconstructions."""
    knn, pictures = config.eval.knn, config.eval.reconstruction
    rank = config.eval.get("rank")  # runs of older versions have none
    normalize = inputs.normalizer(config)

    def features(model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {"feature": model.features(normalize(batch["image"])).astype(jnp.float32)}

    if knn.enabled:
        yield Evaluation(
            name="knn",
            batches=inputs.LabeledSplits(config, knn, train.given),
            predict=features,
            make_metric=functools.partial(KNN, knn.k, knn.temperature, knn.raw_pixels),
            every_steps=from_config.interval("eval.knn.every_epochs", knn.every_epochs, steps_per_epoch),
            at_start=True,
        )
    if rank is not None and rank.num_images < 0:
        raise ConfigError(f"eval.rank.num_images is {rank.num_images}: images are needed, or 0 for no rank")
    if rank is not None and rank.num_images:
        yield Evaluation(
            name="rank",
            batches=functools.partial(
                train.examples, rank.num_images, rank.resize, config.batch_size // config.accum_steps
            ),
            predict=features,
            make_metric=FeatureRank,
            every_steps=from_config.interval("eval.rank.every_epochs", rank.every_epochs, steps_per_epoch),
            at_start=True,
        )
    if pictures.num_images < 0:
        raise ConfigError(
            f"eval.reconstruction.num_images is {pictures.num_images}: give the number of pictures, or 0 for none"
        )
    if pictures.num_images:
        yield Evaluation(
            name="reconstruction",
            batches=functools.partial(train.examples, pictures.num_images, pictures.resize),
            predict=lambda model, batch: reconstruct(model, normalize(batch["image"])),
            make_metric=functools.partial(Reconstruction, describe_targets(model), pictures.num_images),
            every_steps=from_config.interval(
                "eval.reconstruction.every_epochs", pictures.every_epochs, steps_per_epoch
            ),
        )


def describe_targets(model: LocalMIMConfig) -> TargetDescription:
    """What the arrays of `reconstruct` mean."""
    return TargetDescription(model.target.kind, model.target.bins, model.target.cells, model.encoder.in_channels)


def reconstruct(model: LocalMIM, images: jax.Array, mask_seed: int | jax.Array = _PICTURE_MASK_SEED) -> dict[str, Any]:
    """Mask, targets and predictions of normalized images, as `evals.reconstruction` draws them."""
    one_each = dataclasses.replace(model.config, num_masks=None)
    mask = draw_mask(jax.random.key(mask_seed), one_each, images.shape[0])
    outputs = {"mask": mask.masked}
    targets = make_targets(images, model.config.target)
    for i, (target, prediction) in enumerate(zip(targets, model.predict(images, mask), strict=True)):
        outputs |= {f"target/{i}": target, f"prediction/{i}": prediction.astype(jnp.float32)}
    return outputs
