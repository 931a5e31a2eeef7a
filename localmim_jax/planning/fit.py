"""What makes a step fit in memory, and the largest batch that does, in few compilations."""

import copy
import dataclasses
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from localmim_jax.errors import ConfigError

# Bytes that a config needs on each device; None where the compiler refused it without a number.
Needs = Callable[[ConfigDict], int | None]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A change of the config that was compiled: "accum_steps=4", the bytes that it needs, and whether these fit."""

    change: str
    bytes: int | None
    fits: bool


class Search:
    """Compiles changes of a config, so many at most, and remembers them.

    Attributes:
        attempts: everything that was compiled, in order.
    """

    def __init__(self, config: ConfigDict, needs: Needs, usable: int, compilations: int):
        self._config, self._needs, self._usable, self._left = config, needs, usable, compilations
        self.attempts: list[Attempt] = []

    def attempt(self, **changes: int | bool) -> Attempt | None:
        """The config with these values (dots as "__"); None where no compilation is left or it is not legal."""
        text = " ".join(f"{key.replace('__', '.')}={str(value).lower()}" for key, value in changes.items())
        done = next((attempt for attempt in self.attempts if attempt.change == text), None)
        if done is not None or self._left == 0:
            return done
        config = copy.deepcopy(self._config)
        for key, value in changes.items():
            section, _, last = key.rpartition("__")
            target = config[section] if section else config
            target[last] = value
        try:
            size = self._needs(config)
        except ConfigError:
            return None
        self._left -= 1
        self.attempts.append(Attempt(text, size, size is not None and size <= self._usable))
        return self.attempts[-1]

    def fixes(self, used: int | None, devices: int) -> Iterator[Attempt]:
        """Accumulation, remat and fsdp, each alone, for a step that needs `used` bytes and does not fit."""
        micro = self._config.batch_size // self._config.accum_steps
        if self._config.model.get("remat") is False and (found := self.attempt(model__remat=True)):
            yield found
        if devices > 1 and self._config.mesh.fsdp == 1 and (found := self.attempt(mesh__fsdp=devices)):
            yield found
        # Memory hardly falls faster than the micro-batch, so smaller factors than this would not do.
        factor = 2 if used is None else _power_of_two(used / self._usable)
        while micro // factor >= devices:
            found = self.attempt(accum_steps=self._config.accum_steps * factor)
            if found is not None:
                yield found
                if found.fits:
                    return
            elif self._left == 0:
                return
            factor *= 2

    def largest_batch(self, used: int | None, unit: int) -> Attempt | None:
        """The largest batch of this config that fits, among `unit` times 1, 2, 3, 4, 6, 8, 12, 16, ...

        Args:
            used: bytes of the config as it is; None where they are unknown.
            unit: devices times accum_steps.

        Memory grows linearly with the batch from some size on, so two sizes predict the others; each guess is compiled.
        """
        sizes = sorted({unit * f * 2**i for i in range(16) for f in (1, 3)})
        batch = self._config.batch_size
        known = {} if used is None else {batch: used}
        low, high = -1, len(sizes)  # the largest index known to fit, the smallest known not to
        for i, size in enumerate(sizes):
            if used is not None and used <= self._usable and size <= batch:
                low = i
            if used is None or used > self._usable:
                high = min(high, i) if size >= batch else high
        best = None
        while high - low > 1:
            guess = min(max(_predict(known, self._usable, sizes), low + 1), high - 1)
            found = self.attempt(batch_size=sizes[guess])
            if found is None and self._left == 0:
                break
            if found is None or not found.fits:
                high = guess
            else:
                low, best = guess, found
            if found is not None and found.bytes is not None:
                known[sizes[guess]] = found.bytes
        return best


def _predict(known: dict[int, int], usable: int, sizes: list[int]) -> int:
    """The index of the largest size that should fit, by the line through the two largest known."""
    points = sorted(known.items())[-2:]
    if not points:
        return len(sizes) // 2
    (first, small), (last, large) = points[0], points[-1]
    slope = (large - small) / (last - first) if last != first else large / last
    reach = last + (usable - large) / slope if slope > 0 else sizes[-1]
    return sum(size <= reach for size in sizes) - 1


def _power_of_two(ratio: float) -> int:
    factor = 2
    while factor < ratio:
        factor *= 2
    return factor
