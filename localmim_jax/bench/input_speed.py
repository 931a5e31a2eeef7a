"""Measure images per second of the input pipeline against a plain loop.

    localmim bench input_speed

The command makes JPEGs of about 500 x 375 pixels (--width), the usual size in ImageNet, from photographs in installed
packages, and reads random 224 x 224 crops of them. It compares a plain loop that returns normalized float32 pixels, one
that returns uint8, and the real pipeline on all cores: exact, with data.fast_decode, and from prepared copies. The
methods take turns, and the best turn of each counts, so noise has little effect on their ratios. CPU time is printed
too, because it is reliable even on a busy machine.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from localmim_jax.data.augment import TrainTransform, random_resized_crop
from localmim_jax.data.builders.reencode import Converter
from localmim_jax.data.builders.write import write_copy
from localmim_jax.data.config import DataConfig, available_cores
from localmim_jax.data.pipeline import train_batches
from localmim_jax.data.source import Source
from localmim_jax.data.sources import open_source
from localmim_jax.recipes.load import load_config
from localmim_jax.tasks.inputs import data_config

SIZE = (224, 224)
BATCH = 64
LOOP_FLOAT, LOOP_UINT8 = "loop, one thread, to float32", "loop, one thread, to uint8"

_MEAN, _STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("width", 500, "approximate width of the JPEGs in pixels", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("files", 300, "number of JPEGs to make", flag_values=values, lower_bound=1)
    flags.DEFINE_integer(
        "images", 640, f"images per turn; whole batches of {BATCH} are read", flag_values=values, lower_bound=BATCH
    )
    flags.DEFINE_integer("turns", 5, "turns of each method", flag_values=values, lower_bound=1)


def main(options: flags.FlagValues) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, ways = make_ways(Path(folder), options.files, options.width)
        num_images = max(1, options.images // BATCH) * BATCH
        speeds = measure(ways, num_images, options.turns)
        kilobytes = statistics.mean(file.stat().st_size for file in files) / 1000
        print(
            f"{len(files)} JPEGs, about {options.width} pixels wide and {kilobytes:.0f} kB; {available_cores()} cores"
        )
        print(table(*speeds))
        mean, high = fast_decode_difference([file.read_bytes() for file in files[:50]])
        print(f"data.fast_decode: pixels differ from the exact ones by {mean:.2f} of 255 on average, at most {high}")


def make_ways(folder: Path, num_files: int, width: int) -> tuple[list[Path], dict[str, Callable[[int], object]]]:
    """(the files, by name a function that reads so many images). Everything is written below `folder`."""
    files = write_jpegs(folder / "jpegs", num_files, width)
    name = f"folder:{folder / 'jpegs'}"
    ways: dict[str, Callable[[int], object]] = {
        LOOP_FLOAT: lambda count: read_in_a_loop(files, count, to_float=True),
        LOOP_UINT8: lambda count: read_in_a_loop(files, count, to_float=False),
        "pipeline": _pipeline(open_source(name)),
        "pipeline, data.fast_decode": _pipeline(open_source(name), fast_decode=True),
    }
    for encoding in ("jpeg", "raw"):
        with contextlib.redirect_stdout(None), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            write_copy(name, str(folder), f"copy_{encoding}", Converter(short_side=256, encoding=encoding))
        copy = open_source(f"tfds:copy_{encoding}", data_dir=str(folder))
        ways[f"pipeline, copy of short side 256, {encoding}"] = _pipeline(copy)
    return files, ways


def write_jpegs(folder: Path, count: int, width: int) -> list[Path]:
    """Random pieces of real photographs, 4:3, as JPEGs of quality 90 and `width` pixels give or take a fifth."""
    from localmim_jax.data.builders.photos import photographs

    images = [image for split in ("train", "test") for image in photographs(split).values()]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    files = []
    for index in range(count):
        image = images[index % len(images)]
        top, left, h, w = random_resized_crop(rng, image.height, image.width, (0.4, 1.0), (4 / 3, 4 / 3))
        side = int(rng.integers(width * 4 // 5, width * 6 // 5 + 1))
        piece = image.resize((side, side * 3 // 4), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
        files.append(folder / f"{index:04d}.jpg")
        piece.save(files[-1], quality=90)
    return files


def read_in_a_loop(files: list[Path], count: int, to_float: bool) -> None:
    """What a first version of a training script does, image by image."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = Image.open(files[index % len(files)]).convert("RGB")
        top, left, height, width = random_resized_crop(rng, image.height, image.width, (0.2, 1.0), (3 / 4, 4 / 3))
        image = image.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(image)
        if to_float:
            (pixels.astype(np.float32) / 255 - _MEAN) / _STD


def _data(**changes: Any) -> DataConfig:
    """The input settings of ViT-B pre-training."""
    config = load_config("vit_b_100ep")
    config.update({"image_size": SIZE, "batch_size": BATCH})
    config.data.update(changes)
    return data_config(config)


def _pipeline(source: Source, **changes: Any) -> Callable[[int], object]:
    config = _data(**changes)

    def read(count: int) -> None:
        for _ in train_batches(config, source, 0, count // BATCH):
            pass

    return read


def measure(
    ways: dict[str, Callable[[int], object]], num_images: int, turns: int
) -> tuple[dict[str, float], dict[str, float]]:
    """(images per second, seconds of CPU time per image) of each way in its best turns, start included."""
    speeds, costs = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, float("inf"))
    for _ in range(turns):
        for name, read in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            read(num_images)
            speeds[name] = max(speeds[name], num_images / (time.perf_counter() - wall))
            costs[name] = min(costs[name], (time.process_time() - cpu) / num_images)
    return speeds, costs


def table(speeds: dict[str, float], costs: dict[str, float]) -> str:
    """Markdown: images per second, ratios to the two loops, CPU time."""
    lines = ["| way | images/s | to the float32 loop | to the uint8 loop | CPU ms an image |", "|---|---|---|---|---|"]
    for name, speed in speeds.items():
        ratios = f"{speed / speeds[LOOP_FLOAT]:.2f} | {speed / speeds[LOOP_UINT8]:.2f}"
        lines.append(f"| {name} | {speed:.0f} | {ratios} | {1000 * costs[name]:.2f} |")
    return "\n".join(lines)


def fast_decode_difference(images: list[bytes]) -> tuple[float, int]:
    """(mean, largest) absolute difference in pixel values, 0 to 255, between the two ways, over the same crops."""
    exact = TrainTransform.of(_data())
    fast = TrainTransform.of(_data(fast_decode=True))
    gaps = [
        np.abs(
            exact({"image": image}, np.random.default_rng(seed))["image"].astype(np.int16)
            - fast({"image": image}, np.random.default_rng(seed))["image"]
        )
        for seed, image in enumerate(images)
    ]
    return float(np.mean(gaps)), int(np.max(gaps))
