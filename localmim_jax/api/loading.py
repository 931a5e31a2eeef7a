"""`load` and `create_model`: a run, a checkpoint, a file or a recipe becomes a `Model`."""

import copy
import dataclasses
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from localmim_jax import params as trees
from localmim_jax.api.binding import fill_model
from localmim_jax.api.infer import config_for, recipe_of
from localmim_jax.api.model import Bound, Model
from localmim_jax.convert import files, folders
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.registry import VARIANTS
from localmim_jax.recipes import hints
from localmim_jax.recipes.load import load_config
from localmim_jax.recipes.override import override
from localmim_jax.tasks import initialize, lookup


def load(
    checkpoint: str | os.PathLike[str],
    config: ConfigDict | str | None = None,
    *,
    standard_merging: bool | None = None,
    categories: str = "",
    dtype: str | None = None,
) -> Model:
    """A model with the parameters of a run, a checkpoint or a file; see docs/api.md.

    Args:
        checkpoint: a run directory (its newest good checkpoint, and the moving average of its parameters if it has
            one), one of its checkpoints, a converted directory, or a .safetensors, .npz or PyTorch file of this
            project, the release, MAE, timm or Transformers.
        config: a config, the name of a recipe or its path. None is the run's own. Without a run, the config is
            inferred from the arrays. Images are then resized and normalized with the settings of a directory of timm
            or Transformers, and otherwise normalized by ImageNet's mean and standard deviation.
        standard_merging: whether a Swin pre-training file has the standard order of patch merging, or (False) the
            release's; None: the release's where its decoders prove it.
        categories: COCO JSON with the classes of a detector; "" for those that its run recorded.
        dtype: compute dtype, "float32", "bfloat16" or "float16". None is the run's, or float32 without a run.

    Raises:
        ConfigError: the weights do not fill the config's model.
        DataError, StorageError: something is missing or damaged.
    """
    place = files.local_path(checkpoint)
    name = os.fspath(checkpoint)
    own = own_copy(config) if config is not None else _run_config(name)
    weights = initialize.read(name, standard_merging)
    kind = ""
    if own is None:
        kind = weights.info.kind
        own, weights = config_for(weights)
        pixels = folders.pixels(place if place.is_dir() else place.parent)
        if pixels is not None and len(pixels.mean) == own.data.channels:
            own.data.update({"mean": pixels.mean, "std": pixels.std})
            own.data.update({"eval_interpolation": pixels.interpolation, "eval_squash": pixels.squash})
            own.eval.get("knn", own.eval).resize = pixels.resize
    if dtype is not None:
        own.model.dtype = dtype
    model = lookup.model_config(own)
    classes: Any = ()
    if model.kind == "detector":
        from localmim_jax.detection import predict as detection

        classes = detection.read_categories(place, categories)
        detection.require_detector(name, own, weights, classes)
    elif model.kind == "segmenter":
        from localmim_jax.segmentation import predict as segmentation

        segmentation.require_segmenter(name, weights)
        classes = segmentation.class_names(own, name)
    bound = bind(own, weights, name, classes)
    if kind:  # an encoder alone has become a classifier without classes
        bound.info = dataclasses.replace(bound.info, kind=kind)
    return bound


def bind(config: ConfigDict, weights: Weights, origin: str, classes: Any = ()) -> Model:
    """The model of a config with these weights. Raises ConfigError: they do not fill it."""
    model = lookup.model_config(config)
    # Parts outside the encoder go over only between models of one kind.
    same_kind = weights.info.kind == model.kind
    whole = same_kind and model.kind in ("classifier", "segmenter")
    info = model.describe() if same_kind else dataclasses.replace(model.describe(), kind="encoder")
    return Model(config, Bound(*fill_model(config, weights, whole)), info, origin, classes)


def create_model(
    model: ConfigDict | str,
    *,
    num_classes: int = 0,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    **changes: Any,
) -> Model:
    """A model with random initial parameters.

    Args:
        model: a size, such as "vit_b" or "swin_t"; a recipe's name or path; or a config.
        num_classes: number of classes of a classifier. 0 leaves a recipe unchanged, and makes a pre-training model of a
            size.
        image_size: side or (height, width) in pixels.
        channels: color channels of the images.
        seed: seed of the parameters.
        dtype: compute dtype; None is the recipe's; float32 for a size.
        **changes: keys of `config.model`, as in `depth=6`.

    Raises:
        ConfigError: no such size or recipe, or an impossible model.
    """
    config = _config_of_size(model, num_classes) if isinstance(model, str) else None
    dtype = "float32" if config is not None and dtype is None else dtype
    config = own_copy(model) if config is None else config
    values: dict[str, Any] = {f"model.{key}": value for key, value in changes.items()}
    if num_classes:
        values["model.num_classes"] = num_classes
    if image_size is not None:
        values["image_size"] = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if channels is not None:
        values["data.channels"] = channels
        if channels != len(config.data.mean):
            values |= {"data.mean": (0.5,) * channels, "data.std": (0.25,) * channels}
    if dtype is not None:
        values["model.dtype"] = dtype
    changed(config, values)
    described = lookup.model_config(config)
    graphdef = trees.split(described.make)[0]
    drawn = jax.jit(lambda key: trees.initialize(described.make, key))(jax.random.key(seed))
    params, model_state = jax.device_get(drawn)
    return Model(config, Bound(graphdef, params, model_state), described.describe(), f"new {described.encoder.label}")


def own_copy(config: ConfigDict | str) -> ConfigDict:
    """A copy of a config that may be changed, or the one of a recipe. Raises ConfigError: no such recipe."""
    if isinstance(config, ConfigDict):
        return copy.deepcopy(config).unlock()
    return load_config(os.fspath(config)).unlock()


def changed(config: ConfigDict, values: dict[str, Any]) -> None:
    """Sets keys "a.b" of a config. Raises ConfigError: there is no such key, or it has another type."""
    config.lock()
    for key, value in values.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            override(config, [f"{key}={value}"])  # names the key that is meant, or the type that is needed
            raise ConfigError(f"config.{key}={value!r}: {hints.one_line(str(error))}") from error
    config.unlock()


def _config_of_size(name: str, num_classes: int) -> ConfigDict | None:
    """The recipe of a published size, for pre-training or with a head; None for another name."""
    if name not in VARIANTS:
        return None
    return recipe_of(VARIANTS[name][0].family, name, classifier=bool(num_classes))


def _run_config(checkpoint: str) -> ConfigDict | None:
    """The config of the run that a directory is or belongs to; None for a file, or a directory that is of no run.

    Raises DataError: a directory that is neither.
    """
    place = files.local_path(checkpoint)
    if not place.exists():
        raise DataError(f"{checkpoint} does not exist: give a run directory or a file")
    if place.is_file() or (place / initialize.CONVERTED).is_file() or folders.config_of(place) is not None:
        return None
    return initialize.run_config(place)
