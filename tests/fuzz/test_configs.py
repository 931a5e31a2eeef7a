"""Configs with values of the right types: the task builds, or one line."""

import functools

from hypothesis import strategies as st

from localmim_jax.build import build_task
from localmim_jax.configs import parts
from localmim_jax.recipes.override import flatten, override
from tests.fuzz.rounds import fuzz, result_or_one_line
from tests.shrink import shrink

MAKERS = {
    f"{task} {encoder.__name__}": functools.partial(
        lambda task, encoder, name: getattr(parts, task)(encoder(name)), task, encoder, name
    )
    for task in ("pretrain", "finetune", "linear_probe", "segment", "detect")
    for encoder, name in ((parts.vit, "vit_b"), (parts.swin, "swin_t"))
    if (task, name) != ("detect", "vit_b")
}
# What is opened, and how much of it, is no value to draw; nor is what takes hours to see refused.
KEPT = (
    "data.name",
    "data.data_dir",
    "data.fake_examples",
    "eval.knn",
    "checkpoint.init_from",
    "task",
    "batch_size",
    "image_size",
)


def values_of(value):
    """Strategies by the type of a key's value."""
    if isinstance(value, bool):
        return st.booleans().map(str)
    if isinstance(value, int):
        return (st.integers(-2, 20) | st.sampled_from([value + 1, value * 2, 1000])).map(str)
    if isinstance(value, float):
        return (st.floats(-2, 20) | st.sampled_from([0.0, 1.0, float("nan"), float("inf"), 1e-30, 1e30])).map(str)
    if isinstance(value, tuple):
        return st.lists(
            st.integers(-1, 70) if all(isinstance(v, int) for v in value) else st.floats(-1, 2), min_size=1, max_size=5
        ).map(lambda each: ",".join(map(str, each)))
    return st.sampled_from(
        ["", "xla", "float32", "bfloat16", "cosine", "linear", "steps", "hog", "pixel", "a b", "é", "None"]
    )


@functools.cache
def recipe(name):
    config = shrink(MAKERS[name]())
    if "knn" in config.eval:
        config.eval.knn.enabled = False
    return flatten(config)


def small(name):
    config = shrink(MAKERS[name]())
    if "knn" in config.eval:
        config.eval.knn.enabled = False
    return config.lock()


@st.composite
def changes(draw):
    name = draw(st.sampled_from(sorted(MAKERS)))
    keys = [key for key in recipe(name) if not key.startswith(KEPT)]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True))
    return name, [f"{key}={draw(values_of(recipe(name)[key]))}" for key in chosen]


@fuzz(25, drawn=changes())
def test_a_config_builds_or_is_one_line(folder, drawn):
    name, overrides = drawn
    built = result_or_one_line(lambda: build_task(override(small(name), overrides), workdir=""))
    if built is not None:
        task, _ = built
        assert task.num_steps >= 1
        assert task.steps_per_epoch > 0
