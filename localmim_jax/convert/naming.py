"""What a kind of backbone is called elsewhere: the interface of its naming tables, and how they are found."""

import abc
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from localmim_jax.convert.names import Rules
from localmim_jax.convert.weights import Weights
from localmim_jax.errors import ConfigError
from localmim_jax.models.info import ModelInfo
from localmim_jax.models.registry import KINDS

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a kind of file names its arrays.

    Attributes:
        info: what the names and shapes tell of the model.
        rules: as in `names`.
        ignored: (pattern of names, reason, check or None); a name whose array fails the check is unexpected.
        arrays: the file's arrays rearranged, under names that `rules` know; None: they are taken as they are.
        release_order: whether the arrays are in the order of the release's pre-training: True or False where the names
            prove it, None where they do not.
        assumed: as in `Weights`.
    """

    info: ModelInfo
    rules: Rules
    ignored: tuple[tuple[str, str, Callable[[np.ndarray], bool] | None], ...] = ()
    arrays: Arrays | None = None
    release_order: bool | None = False
    assumed: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TransformersModel:
    """A model of Hugging Face Transformers.

    Attributes:
        name: "ViT" for ViTModel and ViTForImageClassification.
        rules: names of the encoder and of the norm behind it, as in `names`.
        settings: what its `config.json` says of the encoder's sizes.
    """

    name: str
    rules: Rules
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TimmModel:
    """A model of timm.

    Attributes:
        architecture: name of the function that makes it; `settings` override all of its sizes.
        arrays: by timm's names.
        settings: arguments of the model, without image size, patch size and channels.
        num_features: channels of its pooled feature.
        classifier: name of the layer that classifies.
    """

    architecture: str
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    num_features: int
    classifier: str


class Naming(abc.ABC):
    """The names of one kind of backbone in files of the release, of timm and of Transformers.

    Attributes:
        encoder: rules of the encoder's own paths, by which a file without a description is told.
    """

    encoder: ClassVar[Rules]

    @abc.abstractmethod
    def recognize(self, arrays: Arrays, origin: str) -> Scheme | None:
        """How a file by others names this kind's arrays; None where it does not hold this kind.

        Raises:
            DataError: it does, and it is damaged.
        """

    def standard_order(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Arrays by our paths, in the order of the release's pre-training, in the order that this project uses."""
        return dict(arrays)

    def release(self, weights: Weights) -> dict[str, np.ndarray]:
        """Every array under the release's names. Raises ConfigError: the release has no such model."""
        raise ConfigError(f"{weights.origin}: the release has no such backbone; export with --names=localmim")

    @abc.abstractmethod
    def timm(self, weights: Weights) -> dict[str, np.ndarray]:
        """Every array of an encoder or classifier under timm's names. Raises ConfigError: timm has no such model."""

    @abc.abstractmethod
    def timm_model(self, weights: Weights) -> TimmModel:
        """The model of timm that is this encoder or classifier, which ends in a norm. Raises ConfigError: none is."""

    def transformers(self, weights: Weights) -> TransformersModel:
        """The model of Transformers that is this encoder or classifier. Raises ConfigError: there is none."""
        raise ConfigError(f"{weights.origin}: Transformers has no such backbone; export with --names=localmim or timm")


def naming_of(family: str) -> Naming:
    """The naming tables of a kind of backbone, a key of `registry.KINDS`."""
    return importlib.import_module(f"localmim_jax.convert.{family}_names").NAMING


def namings() -> Iterator[tuple[str, Naming]]:
    """(family, naming tables) of every kind of backbone."""
    for family in KINDS:
        yield family, naming_of(family)
