"""The rule `data.high_bit_depth` on a dataset: levels measured on some of its images, and a warning of dark ones."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from localmim_jax.data.decode import StoredImage, guarded, opened
from localmim_jax.data.levels import MEASURED, Levels, Values, is_deep, parse, read_values, single_values, to_uint8
from localmim_jax.data.source import Source
from localmim_jax.errors import DataError

_SAMPLED = 64  # images that are looked at, evenly spaced
_PIXELS = 65536  # values of each that are looked at
_PERCENTILES = (0.1, 99.9)
_MIN_CONTRAST = 32  # of 255, between those percentiles
_MAX_CUT = 0.01  # fraction of values beyond the levels
_JPEG = b"\xff\xd8"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was found in a sample of a dataset.

    Attributes:
        rule: the levels as `data.high_bit_depth` takes them; "" where the type's range is meant, or no image has more
            than 8 bits a channel.
        notes: lines for the user; [] where no image has more than 8 bits a channel.
        warnings: lines on images that come out too dark, too bright or without contrast.
    """

    rule: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def measure(rule: str, source: Source, key: str = "data.high_bit_depth") -> Measured:
    """The levels of a dataset by a rule of `data.levels`, from up to 64 evenly spaced images: the same each time.

    Args:
        rule: how.
        source: the dataset.
        key: what a user sets to have another rule, for notes and warnings.

    Raises:
        ConfigError: it is no rule.
        DataError: it is to be measured, and images differ in type, so that no two values suit them all.
    """
    levels = parse(rule)
    sample = list(_sample(source))
    found = [values for values in sample if values is not None and values.values.size]
    if not found:
        return Measured("" if rule in MEASURED else rule)
    kinds = sorted({entry.kind for entry in found})
    pooled = np.concatenate([entry.values for entry in found])
    if rule in MEASURED:
        if len(kinds) > 1:
            raise DataError(
                f"{source.name} has {' and '.join(kinds)} images, and {key}={rule} takes two values for "
                "all: leave it empty, or convert them to one type"
            )
        levels = _measured(rule, pooled)
    shown = f"{len(found)} of {len(sample)} sampled images of {source.name} are {' and '.join(kinds)}"
    used = str(levels) if levels else "the range of the type"
    note = f"{shown}; {key}: {used} becomes 0 to 255"
    problem = _problem(found, levels)
    warning = f"{shown}, and with {used} as black and white {problem}: set {key}=max, percentile, or BLACK:WHITE"
    return Measured(str(levels) if levels else "", (note,), (warning,) if problem else ())


def levels_of(rule: str, source: Source) -> Levels | None:
    """The levels for a source: those that the rule names, or those measured on this source; None for the type's."""
    return parse(measure(rule, source).rule) if rule in MEASURED else parse(rule)


def _sample(source: Source) -> Iterator[Values | None]:
    """Of each readable image some values [n], None where it has 8 bits a channel."""
    if source.passthrough:
        return
    for index in sorted({int(i) for i in np.linspace(0, len(source) - 1, min(_SAMPLED, len(source)))}):
        try:
            image = source.image(index)
            if isinstance(image, np.ndarray) and not source.mixed:
                return
            yield _values(image)
        except DataError:  # whoever reads the batches decides what becomes of it
            continue


def _values(data: StoredImage) -> Values | None:
    if isinstance(data, np.ndarray) or (isinstance(data, bytes) and data.startswith(_JPEG)):
        return None
    image = opened(data) if isinstance(data, bytes) else data
    if not is_deep(image):
        return None
    whole = guarded(lambda: read_values(image, data) if isinstance(data, bytes) else single_values(image))
    finite = whole.values[np.isfinite(whole.values)]
    return dataclasses.replace(whole, values=finite[:: max(1, finite.size // _PIXELS)].astype(np.float64))


def _measured(rule: str, pooled: np.ndarray) -> Levels:
    low, high = (pooled.min(), pooled.max()) if rule == "max" else np.percentile(pooled, _PERCENTILES)
    black = min(0.0, float(low)) if rule == "max" else float(low)
    return Levels(black, max(float(high), black + 1e-6 * max(1.0, abs(black))))


def _problem(found: list[Values], levels: Levels | None) -> str:
    """What is wrong with the images as they would be read; "" where nothing is."""
    shown, cut, values = [], [], []
    for entry in found:
        sample, used = entry.values, levels or entry.full
        shown.append(to_uint8(sample, used))
        cut.append((sample < used.black) | (sample > used.white))
        values.append(sample)
    low, high = np.percentile(np.concatenate(shown), _PERCENTILES)
    least, most = np.percentile(np.concatenate(values), _PERCENTILES)
    fraction = float(np.concatenate(cut).mean())
    between = f"99.8 % of their values, {least:.6g} to {most:.6g}, come out at {low:.0f} to {high:.0f} of 255"
    if high - low < _MIN_CONTRAST:
        return between
    return f"{fraction:.0%} of their values are beyond black or white ({between})" if fraction > _MAX_CUT else ""
