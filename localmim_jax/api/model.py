"""A model with its parameters: images in, numpy arrays out, computed in jitted batches on every device."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from localmim_jax import params as trees
from localmim_jax.api.results import Detections, Features, Reconstruction, Segmentation
from localmim_jax.data.augment import EvalTransform
from localmim_jax.data.config import DataConfig
from localmim_jax.data.decode import DecodeError, decode, to_array
from localmim_jax.data.given import GivenImages
from localmim_jax.data.levels import Levels, parse
from localmim_jax.data.source import Source
from localmim_jax.engine import mesh as meshes
from localmim_jax.engine.settings import MeshSettings
from localmim_jax.engine.task import Batch
from localmim_jax.errors import ConfigError, DataError
from localmim_jax.models.info import ModelInfo
from localmim_jax.params import Tree
from localmim_jax.tasks import inputs, lookup, pretrain

_MAX_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class Bound:
    """A module's graph definition with its parameters and model state (batch-norm statistics), on the host."""

    graphdef: Any
    params: Tree
    model_state: Tree


class Model:
    """A model with parameters bound, as `load` and `create_model` return it.

    Images are an array [n, h, w, c] or [h, w, c] (uint8, or floating in 0..1), a PIL image, a path or encoded bytes,
    or a sequence of these whose sizes may differ. Their preprocessing is that of the run's evaluation: the short side
    is resized (bicubic, or with the settings of a directory of timm or Transformers) to `resize` pixels, the center of
    the model's image size is cropped, and pixels are normalized by `config.data.mean` and `config.data.std`. For images
    of more than 8 bits per channel, `config.data.high_bit_depth` sets the values of black and white; a warning says if
    they do not suit the images.

    Attributes:
        config: the config of the model. `load` and `create_model` make their own copy.
        info: description of the model: family, kind, image size, heads.
        origin: where the parameters are from, for messages.
        bound: the parameters.
    """

    def __init__(self, config: ConfigDict, bound: Bound, info: ModelInfo, origin: str, classes: Any = ()):
        self.config, self.bound, self.info, self.origin = config, bound, info, origin
        self._classes = classes  # of a detector `Categories`, of a segmentation model names
        self._programs: dict[Hashable, Any] = {}

    def __repr__(self) -> str:
        h, w = self.config.image_size
        count = sum(leaf.size for leaf in jax.tree.leaves(self.bound.params))
        return f"Model({self.config.model.variant}, {self.info.kind}, {h}x{w} px, {count:,} parameters, {self.origin})"

    def encode(
        self,
        images: Any,
        *,
        layer: int = 0,
        tokens: bool = True,
        batch_size: int = 64,
        resize: int | None = None,
    ) -> Features:
        """Features of whole, unmasked images.

        Args:
            images: see the class.
            layer: layer of the returned tokens, counted from 1; 0 is the last. `pooled` is always of the last layer.
            tokens: whether tokens are returned too; they take far more memory than the pooled feature.
            batch_size: images per batch.
            resize: short side in pixels before the crop; None for the run's, 0 for 256 for every 224.

        Raises:
            ConfigError: a detector or a segmentation model, or no such layer.
            DataError: there is no image, or one cannot be read.
        """
        source = self.source(images)
        last = lookup.model_config(self.config).encoder.num_layers
        kinds = ("features", "tokens") if tokens else ("features",)
        parts = [outputs for outputs, _ in self.encode_source(source, kinds, layer, batch_size, resize)]
        arrays = {kind: np.concatenate([part[kind] for part in parts]) for kind in kinds}
        grid = lookup.model_config(self.config).encoder.feature_grid(layer or last)
        return Features(arrays["features"], arrays.get("tokens"), grid)

    def encode_source(
        self,
        source: Source,
        kinds: tuple[str, ...] = ("features",),
        layer: int = 0,
        batch_size: int = 64,
        resize: int | None = None,
    ) -> Iterator[tuple[dict[str, np.ndarray], Batch]]:
        """({"features" [b, d], "tokens" [b, t, d]} of `kinds`, batch) of a source, for what does not fit in memory.

        Arguments and errors as in `encode`.
        """
        config = lookup.model_config(self.config)
        if "features" in kinds:
            lookup.require_features(self.config, self.origin)
        last = config.encoder.num_layers
        if not 0 <= layer <= last:
            raise ConfigError(f"layer={layer}: the layers are 1 to {last}, and 0 is the last")

        def compute(model: Any, images: jax.Array) -> dict[str, jax.Array]:
            found = {}
            if "features" in kinds:
                found["features"] = model.features(images)
            if "tokens" in kinds:
                found["tokens"] = model.encoder(images, taps=(layer or last,))[0]
            return {kind: values.astype("float32") for kind, values in found.items()}

        batches = self.batches(source, batch_size, resize)
        return self.apply(compute, batches, ("encode", kinds, layer))

    def logits(self, images: Any, *, batch_size: int = 64, resize: int | None = None) -> np.ndarray:
        """Class scores before the softmax, float32 [n, num_classes]; arguments as in `encode`.

        Raises:
            ConfigError: the model has no classification head.
            DataError: there is no image, or one cannot be read.
        """
        if self.info.kind != "classifier":
            raise ConfigError(
                f"{self.origin} has no classification head ({self.info.kind}): fine-tune it first, with "
                "checkpoint.init_from in a fine-tuning recipe, or use encode() for its features"
            )
        batches = self.batches(self.source(images), batch_size, resize)
        parts = self.apply(lambda model, pixels: model(pixels).astype("float32"), batches, "logits")
        return np.concatenate([outputs for outputs, _ in parts])

    def reconstruct(
        self, images: Any, mask_seed: int = 0, *, mask_ratio: float | None = None, resize: int | None = None
    ) -> list[Reconstruction]:
        """The predictions of a pre-training model for each image, all under the same mask.

        Args:
            images: see the class.
            mask_seed: seed of the mask, 0 to 2**32 - 1.
            mask_ratio: masked fraction of the image; None for the config's.
            resize: as in `encode`.

        Raises:
            ConfigError: the model has no decoders, or an impossible seed or ratio.
            DataError: there is no image, or one cannot be read.
        """
        if self.info.kind != "pretrain":
            raise ConfigError(f"{self.origin} holds no decoders ({self.info.kind}), so it cannot reconstruct images")
        if not 0 <= mask_seed < _MAX_SEED:
            raise ConfigError(f"mask_seed={mask_seed}: it must be from 0 to {_MAX_SEED - 1}")
        model: Any = lookup.model_config(self.config)
        if mask_ratio is not None:
            model = dataclasses.replace(model, mask_ratio=mask_ratio)
        source = self.source(images)
        short_side = self.eval_resize() if resize is None else resize
        data = self._data(source)
        transform, levels = EvalTransform.of(data, short_side), parse(data.high_bit_depth)
        pixels = [_cropped(source, index, transform, levels) for index in range(len(source))]
        key = ("reconstruct", mask_ratio)
        if key not in self._programs:
            self._programs[key] = self._reconstruction_of(model)
        return [self._programs[key](image, np.uint32(mask_seed)) for image in pixels]

    def _reconstruction_of(self, model: Any) -> Callable[[np.ndarray, np.uint32], Reconstruction]:
        normalize, model_state, data = inputs.normalizer(self.config), self.bound.model_state, self.config.data
        graphdef, description = trees.split(model.make)[0], pretrain.describe_targets(model)

        @jax.jit
        def compute(params: Tree, batch: jax.Array, mask_seed: jax.Array) -> dict[str, Any]:
            return pretrain.reconstruct(trees.merge(graphdef, params, model_state), normalize(batch), mask_seed)

        def reconstruct(image: np.ndarray, mask_seed: np.uint32) -> Reconstruction:
            outputs = {
                name: array[0]
                for name, array in jax.device_get(compute(self.bound.params, image[None], mask_seed)).items()
            }
            targets, predictions = (
                tuple(outputs[f"{name}/{i}"] for i in range(len(model.taps))) for name in ("target", "prediction")
            )
            return Reconstruction(
                image, outputs["mask"], targets, predictions, description, model.taps, tuple(data.mean), tuple(data.std)
            )

        return reconstruct

    def predict(self, images: Any) -> list[Segmentation] | list[Detections]:
        """Segmentation or detections of each image, at its own size, computed as in the run's evaluation.

        Raises:
            ConfigError: the model neither segments nor detects.
            DataError: there is no image, or one cannot be read.
        """
        if self.info.kind not in ("segmenter", "detector"):
            raise ConfigError(
                f"{self.origin} neither segments nor detects ({self.info.kind}): use encode(), or logits() of a "
                "classifier"
            )
        names, found = self.class_names, self.predictor(self.pixels(images))
        if self.info.kind == "segmenter":
            return [Segmentation(labels, names) for _, labels in found]
        return [Detections(**each, class_names=names) for _, each in found]

    def pixels(self, images: Any) -> Iterator[np.ndarray]:
        """uint8 [h, w, 3] of each image at its own size. Raises DataError: there is none, or it cannot be read."""
        source = self.source(images)
        levels = parse(self._data(source).high_bit_depth)
        return (_whole(source, index, levels) for index in range(len(source)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of a segmentation model or a detector; () of another model."""
        return tuple(getattr(self._classes, "names", self._classes))

    @functools.cached_property
    def predictor(self) -> Any:
        """The segmentation or detection `Predictor`: uint8 images [h, w, 3] -> (image, result) of each, one by one."""
        bound = (self.bound.graphdef, self.bound.params, self.bound.model_state)
        if self.info.kind == "segmenter":
            from localmim_jax.segmentation import predict as segmentation

            return segmentation.Predictor(self.config, bound)
        from localmim_jax.detection import predict as detection

        return detection.Predictor(self.config, bound, self._classes)

    def source(self, images: Any) -> Source:
        """The images as a source that the methods below read. Raises DataError: there is none."""
        return GivenImages(images, self.config.data.channels)

    def eval_resize(self) -> int:
        """The short side in pixels to which the run resizes images when it evaluates; 0: 256 for every 224."""
        return inputs.eval_resize(self.config)

    def batches(self, source: Source, batch_size: int, resize: int | None = None) -> Iterator[Batch]:
        """Every example of a source once, resized and cropped, in batches of a multiple of the devices.

        Arguments as in `encode`. Raises ConfigError: no such batch size.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: at least 1 is needed")
        size = self.whole_batch(min(batch_size, len(source)))
        return inputs.center_crops(self._data(source), source, size, self.eval_resize() if resize is None else resize)

    def _data(self, source: Source) -> DataConfig:
        # Threads read the images of this process; other processes could not be handed them.
        return inputs.with_levels(dataclasses.replace(inputs.data_config(self.config), num_workers=0), source)

    def whole_batch(self, batch_size: int) -> int:
        """`batch_size`, rounded up to a multiple of the devices."""
        return -(-batch_size // self._mesh.size) * self._mesh.size

    def apply(
        self, function: Callable[[Any, jax.Array], Any], batches: Iterable[Batch], key: Hashable = None
    ) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        """(outputs, batch) of every batch, both on the host and without padding.

        Args:
            function: (module, normalized images float32 [b, h, w, c]) -> arrays with the example axis first; traced
                under jit, once for each batch size.
            batches: dicts with "image" uint8 [b, h, w, c] and "valid" bool [b], b a multiple of the devices.
            key: identifies the function, so that another call does not compile it again; None compiles it each time.
        """
        graphdef, normalize = self.bound.graphdef, inputs.normalizer(self.config)

        @jax.jit
        def compute(params: Tree, model_state: Tree, images: jax.Array) -> Any:
            return function(trees.merge(graphdef, params, model_state), normalize(images))

        if key is not None:
            compute = self._programs.setdefault(key, compute)
        waiting: list[tuple[Any, Batch]] = []  # the device computes one batch while the host prepares the next
        for batch in batches:
            (images,) = meshes.place_batch(self._mesh, {"image": batch["image"]}).values()
            waiting.append((compute(*self._placed, images), batch))
            if len(waiting) > 1:
                yield _without_padding(*waiting.pop(0))
        for outputs, batch in waiting:
            yield _without_padding(outputs, batch)

    @functools.cached_property
    def _mesh(self) -> Any:
        return meshes.make_mesh(MeshSettings(data=-1, fsdp=1))

    @functools.cached_property
    def _placed(self) -> tuple[Tree, Tree]:
        trees_ = (self.bound.params, self.bound.model_state)
        return meshes.place_state(trees_, meshes.state_shardings(self._mesh, trees_))


def _without_padding(outputs: Any, batch: Batch) -> tuple[Any, dict[str, np.ndarray]]:
    valid = np.asarray(batch["valid"])
    kept = {name: np.asarray(array)[valid] for name, array in batch.items()}
    return jax.tree.map(lambda array: np.asarray(array)[valid], jax.device_get(outputs)), kept


def _cropped(source: Source, index: int, transform: EvalTransform, levels: Levels | None) -> np.ndarray:
    """uint8 [h, w, c] of an image after the transform. Raises DataError with its name where it cannot be read."""
    try:
        return transform({**source[index], "levels": levels}, np.random.default_rng(0))["image"]
    except DecodeError as error:
        raise DataError(f"{source.name_of(index)}: {error}") from error


def _whole(source: Source, index: int, levels: Levels | None) -> np.ndarray:
    """uint8 [h, w, 3] of an image at its own size. Raises DataError with its name where it cannot be read."""
    try:
        return to_array(decode(source[index]["image"], 3, levels))
    except DecodeError as error:
        raise DataError(f"{source.name_of(index)}: {error}") from error
