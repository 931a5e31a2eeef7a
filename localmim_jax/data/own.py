"""A dataset and a transform that a Python program hands over, as a source and a transform of the input pipeline."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from localmim_jax.data.augment import label_of
from localmim_jax.data.decode import DecodeError, decode, to_array
from localmim_jax.data.given import image_of
from localmim_jax.data.source import Source
from localmim_jax.errors import ConfigError, DataError

PREFIX = "python:"  # of `data.name`, where a run reads such a dataset

# (numpy generator, {"image": uint8 [h, w, c], optional "label": int}) -> the same, with the image at its final size
Function = Callable[[np.random.Generator, dict[str, Any]], Mapping[str, Any]]


class OwnSource(Source):
    """A dataset of Python: any object with `len` and `[i]`, whose items are images or {"image", optional "label"}.

    It is read from several threads (`data.num_threads=1`: from one). Labels count from 0; `class_names` and
    `num_classes` are the object's attributes of that name, where it has them.

    Args:
        dataset: the object; its images are what `data.given.image_of` takes.
        name: for messages.
        channels: of the images.
        num_classes: where the object does not tell; 0: unknown.

    Raises:
        DataError: it is empty, or no such object.
    """

    mixed = True

    def __init__(self, dataset: Any, name: str, channels: int, num_classes: int = 0):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(f"dataset is a {type(dataset).__name__}; an object with len() and [i] is needed")
        if not len(dataset):
            raise DataError(f"{name} is empty")
        self.name = name
        self._dataset, self._channels = dataset, channels
        first = dataset[0]
        if isinstance(first, Mapping) and "label" in first:
            names = getattr(dataset, "class_names", None)
            self.class_names = () if names is None else tuple(map(str, names))
            known = getattr(dataset, "num_classes", len(self.class_names)) or num_classes
            self.num_classes = int(known) or np.iinfo(np.int32).max  # unknown: any label is legal

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self._dataset[index]
        example: dict[str, Any] = {"image": image_of(item, self._channels)}
        if self.labeled:
            try:
                example["label"] = operator.index(np.asarray(item["label"]).item())
            except (TypeError, KeyError, ValueError, IndexError) as error:
                raise DataError(f"{self.name_of(index)} has no whole number as its label, as example 0 has") from error
        return example

    def key_of(self, index: int) -> str:
        return f"{index}"


@dataclasses.dataclass(frozen=True)
class OwnTransform:
    """A function of Python in place of the recipe's crop, flip and RandAugment; see `Function`.

    Its generator belongs to the example's position in the run, so a pure function resumes exactly.

    Attributes:
        function: the function.
        name: for messages.
        image_size: (h, w) in pixels that it has to return.
        channels: of the images.
    """

    function: Function
    name: str
    image_size: tuple[int, int]
    channels: int

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Raises DecodeError: the image cannot be read; DataError: the function returned something else."""
        pixels = to_array(decode(example["image"], self.channels, example.get("levels")))
        found = self.function(rng, {"image": pixels.copy(), **label_of(example)})
        try:
            if not isinstance(found, Mapping):
                raise DecodeError(f"a {type(found).__name__}")
            image = to_array(decode(image_of(found, self.channels), self.channels))
        except DecodeError as error:
            raise DataError(f'transform {self.name} returned no {{"image": ...}} that can be used: {error}') from error
        if image.shape != (*self.image_size, self.channels):
            raise DataError(
                f"transform {self.name} returned an image of shape {list(image.shape)}; the run's are "
                f"{[*self.image_size, self.channels]}: crop or resize there"
            )
        return {"image": image, **label_of({**label_of(example), **found})}


@dataclasses.dataclass(frozen=True)
class Given:
    """What a Python program hands to a run in place of the config's dataset and augmentation.

    Attributes:
        name: `data.name` of the run; "" where the config's dataset is read.
        sources: split -> source.
        transform: of training; None for the recipe's.
    """

    name: str = ""
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    transform: OwnTransform | None = None

    def split(self, name: str) -> Source:
        """The source of a split. Raises ConfigError: there is none."""
        if name not in self.sources:
            raise ConfigError(
                f"the dataset has no split {name!r}, only {', '.join(self.sources)}: give "
                'dataset={"train": ..., "validation": ...}'
            )
        return self.sources[name]


def name_of(thing: Any) -> str:
    """The name under which a run records a function or the class of an object: "module.name", or "name" of a script."""
    for attribute in ("func", "__wrapped__"):  # of functools.partial and of decorated functions
        thing = getattr(thing, attribute, thing)
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    module = thing.__module__
    return thing.__qualname__ if module in ("__main__", "builtins") else f"{module}.{thing.__qualname__}"
