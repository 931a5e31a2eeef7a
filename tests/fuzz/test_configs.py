"""Configs: legal values that fit each other build the task; any values of the right types build it, or one line."""

from hypothesis import strategies as st

from localmim_jax.build import build_task
from localmim_jax.recipes.override import override
from tests.fuzz.legal_configs import MAKERS, legal, recipe, small
from tests.fuzz.rounds import fuzz, result_or_one_line

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


@st.composite
def any_change(draw):
    """Legal changes, and one to three of any values."""
    name, changes = draw(legal())
    keys = [key for key in recipe(name) if not key.startswith(KEPT)]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True))
    return name, changes[:1] + [f"{key}={draw(values_of(recipe(name)[key]))}" for key in chosen]


def require_task(built):
    task, _ = built
    assert task.num_steps >= 1
    assert task.steps_per_epoch > 0


def test_every_recipe_builds_as_it_is():
    for name in MAKERS:
        require_task(build_task(small(name), workdir=""))


@fuzz(20, drawn=legal())
def test_legal_values_build(folder, drawn):
    name, changes = drawn
    require_task(build_task(override(small(name), changes), workdir=""))


@fuzz(12, drawn=any_change())
def test_any_value_builds_or_is_one_line(folder, drawn):
    name, changes = drawn
    built = result_or_one_line(lambda: build_task(override(small(name), changes), workdir=""))
    if built is not None:
        require_task(built)
