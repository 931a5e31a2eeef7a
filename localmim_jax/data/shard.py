"""Which part of each global batch a host reads."""

import dataclasses
from pathlib import Path

from localmim_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several equal parts of each global batch: host `index` of `count` reads part `index`.

    Attributes:
        index: this host, from 0.
        count: number of hosts.

    Raises:
        ValueError: there is no such part.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no part {self.index} of {self.count}")

    def examples_of(self, batch_size: int) -> int:
        """Number of examples of a global batch that each host reads.

        Raises:
            ConfigError: the batch does not divide among the hosts.
        """
        if batch_size % self.count:
            raise ConfigError(f"batch_size is {batch_size}; it must be a multiple of the {self.count} processes")
        return batch_size // self.count

    def own(self, path: str | Path) -> Path:
        """A file of this host alone: `path` itself on host 0, and "<path>.1" and so on on the others."""
        return Path(f"{path}.{self.index}" if self.index else path)


WHOLE = Shard()  # of a single host
