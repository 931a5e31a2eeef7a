"""Every recipe is complete, locked against typos, and says what it is."""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from localmim_jax import params as trees
from localmim_jax.configs import parts
from localmim_jax.convert import files
from localmim_jax.convert.weights import info_to_json
from localmim_jax.detection.mask_rcnn import MaskRCNNConfig
from localmim_jax.engine import settings
from localmim_jax.method.localmim import LocalMIMConfig
from localmim_jax.method.masking import check_num_masks
from localmim_jax.method.targets import TargetConfig
from localmim_jax.models import swin, vit
from localmim_jax.models.classifier import Classifier, ClassifierConfig
from localmim_jax.models.info import ModelInfo
from localmim_jax.ops.mixup import MixConfig
from localmim_jax.segmentation.upernet import SegmenterConfig
from localmim_jax.tasks import from_config
from tests.shrink import shrink
from tests.training import train

CONFIGS = Path(parts.__file__).parents[1]
FILES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")


def runs_of(file: str) -> list[str]:
    """A recipe, or "file:argument" for every run of one that takes arguments."""
    sweep = getattr(importlib.import_module(f"localmim_jax.configs.{file}"), "sweep", None)
    return [file] if sweep is None else [f"{file}:{argument}" for argument in sweep()]


RECIPES = [run for file in FILES for run in runs_of(file)]


def schema(config: ConfigDict) -> ConfigDict:
    """What declares the keys of a recipe: its task, and the kind of its model."""
    is_swin = config.model.variant.startswith("swin")
    return getattr(parts, config.task)(parts.swin("swin_b") if is_swin else parts.vit("vit_b"))


def recipe(name: str) -> ConfigDict:
    file, _, argument = name.partition(":")
    get_config = importlib.import_module(f"localmim_jax.configs.{file}").get_config
    return get_config(argument) if argument else get_config()


def keys(config: ConfigDict) -> set[str]:
    flat = set()
    for key in config:
        value = config[key]
        flat |= {f"{key}.{inner}" for inner in keys(value)} if isinstance(value, ConfigDict) else {key}
    return flat


def check_rules(config: ConfigDict) -> None:
    assert (config.schedule.base_lr is None) != (config.schedule.peak_lr is None), "exactly one of base_lr and peak_lr"
    assert (config.num_steps is None) != (config.num_epochs == 0), "exactly one of num_steps and num_epochs"
    assert config.batch_size % config.accum_steps == 0
    assert len(config.data.mean) == len(config.data.std) == config.data.channels
    assert all(side % config.model.patch_size == 0 for side in config.image_size)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_and_is_complete(name):
    config = recipe(name)
    config.lock()
    assert keys(config) == keys(schema(config))
    check_rules(config)
    assert config.schedule.warmup_epochs or config.schedule.warmup_steps
    with pytest.raises(AttributeError):
        config.batch_sise = 1
    with pytest.raises(TypeError):
        config.batch_size = "many"
    assert json.loads(json.dumps(config.to_dict()))["task"] == config.task


@pytest.mark.parametrize("name", FILES)
def test_recipe_header_has_its_command_and_its_result(name):
    header = inspect.getdoc(importlib.import_module(f"localmim_jax.configs.{name}"))
    if hasattr(importlib.import_module(f"localmim_jax.configs.{name}"), "sweep"):
        argument = re.search(rf"python main.py --config=configs/{name}.py:(\S+) --workdir=runs/\S+", header)[1]
        assert f"{name}:{argument}" in RECIPES
    else:
        assert f"python main.py --config=configs/{name}.py --workdir=runs/{name}" in header
    assert "Published:" in header


@pytest.mark.parametrize("name", FILES)
def test_overrides_named_in_a_header_exist(name):
    header = inspect.getdoc(importlib.import_module(f"localmim_jax.configs.{name}"))
    named = {word.removeprefix("--config.").split("=")[0] for word in header.split() if word.startswith("--config.")}
    assert named <= keys(recipe(name))


@pytest.mark.parametrize("name", RECIPES)
def test_shrunken_recipe_keeps_the_rules(name):
    config = recipe(name)
    config.lock()
    small = shrink(config)
    assert keys(small) == keys(schema(small))
    assert small.num_steps <= 3
    assert small.data.name == "fake"
    small.num_epochs = 0.0
    check_rules(small)
    if small.task != "pretrain":
        from_config.encoder_config(small)  # raises where impossible
    elif (num_masks := from_config.localmim_config(small).num_masks) is not None:
        check_num_masks(num_masks, small.batch_size, jax.device_count())


@pytest.mark.parametrize(
    ("name", "batch_size", "epochs", "warmup"),
    [
        ("vit_b_100ep", 2048, 100, 10),
        ("vit_b_1600ep", 2048, 1600, 40),
        ("vit_l_800ep", 4096, 800, 40),
        ("vit_s_100ep", 2048, 100, 10),
        ("swin_t_hog_100ep", 2048, 100, 10),
        ("swin_b_hog_100ep", 2048, 100, 10),
        ("swin_b_hog_400ep", 2048, 400, 40),
        ("swin_b_pixel_100ep", 2048, 100, 10),
        ("swin_b_pixel_400ep", 2048, 400, 40),
        ("swin_l_hog_800ep", 4096, 800, 40),
    ],
)
def test_settings_are_the_supplements(name, batch_size, epochs, warmup):
    config = recipe(name)
    is_swin = name.startswith("swin")
    assert config.batch_size == batch_size
    assert config.num_epochs == epochs
    assert config.schedule.warmup_epochs == warmup
    assert config.schedule.base_lr == (1e-4 if is_swin else 2e-4)
    assert config.schedule.min_lr == 0.0
    assert config.schedule.kind == "cosine"
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.b1, optimizer.b2, optimizer.weight_decay) == ("adamw", 0.9, 0.95, 0.05)
    assert optimizer.clip_norm is None
    assert config.image_size == (224, 224)
    kind = "pixels" if "_pixel_" in name else "hog"
    assert (config.model.target.kind, config.model.target.bins, config.model.mask_ratio) == (kind, 18, 0.75)
    if is_swin:
        assert (config.model.window, config.model.num_masks) == (14 if "_l_" in name else 7, 8)
    assert (config.data.crop_scale, config.data.flip, config.model.drop_path) == ((0.2, 1.0), True, 0.0)


@pytest.mark.parametrize(
    ("name", "batch_size", "epochs", "warmup", "rate", "min_lr", "layer_decay", "drop_path"),
    [
        ("vit_b_100ep", 1024, 100, 20, 4e-3, 1e-6, 0.75, 0.1),
        ("vit_b_1600ep", 1024, 100, 20, 2e-3, 1e-5, 0.65, 0.1),
        ("vit_b_1600ep_partial", 1024, 100, 20, 2e-3, 1e-5, 0.65, 0.1),
        ("vit_l_800ep", 4096, 50, 5, 3e-3, 1e-6, 0.75, 0.2),
        ("swin_b_hog_100ep", 1024, 100, 20, 5e-3, 2.5e-7, 0.9, 0.1),
        ("swin_b_hog_400ep", 1024, 100, 20, 4e-3, 2.5e-7, 0.9, 0.1),
        ("swin_b_pixel_400ep", 1024, 100, 20, 4e-3, 2.5e-7, 0.9, 0.1),
        ("swin_l_hog_800ep", 4096, 100, 20, 2e-3, 2.5e-7, 0.8, 0.3),
    ],
)
def test_fine_tuning_is_the_supplements(name, batch_size, epochs, warmup, rate, min_lr, layer_decay, drop_path):
    """Table 4, with the release's choice of rates."""
    config = recipe(f"{name}_finetune")
    schedule, optimizer = config.schedule, config.optimizer
    assert (config.batch_size, config.num_epochs) == (batch_size, epochs)
    assert (schedule.kind, schedule.warmup_epochs) == ("cosine", warmup)
    assert (schedule.base_lr, schedule.peak_lr, schedule.min_lr) == (None, rate, min_lr)
    assert (optimizer.name, optimizer.b1, optimizer.b2) == ("adamw", 0.9, 0.999)
    assert (optimizer.weight_decay, optimizer.layer_decay) == (0.05, layer_decay)
    assert (optimizer.clip_norm, optimizer.ema_decay) == (None, None)
    assert config.model.drop_path == drop_path
    assert config.model.get("window") == {"swin_b": 7, "swin_l": 14}.get(config.model.variant)
    assert config.augment.to_dict() == {
        "randaugment": "rand-m9-mstd0.5-inc1",
        "erasing": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "switch_prob": 0.5,
        "label_smoothing": 0.1,
    }
    assert (config.data.crop_scale, config.data.crop_ratio, config.data.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), True)
    assert (config.image_size, config.eval.resize) == ((224, 224), 0)
    assert (config.model.num_classes, config.model.head_order) == (1000, "pool_norm")


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_linear")])
def test_linear_probes_are_maes(name):
    config = recipe(name)
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay) == ("lars", 0.9, 0.0)
    assert (config.schedule.base_lr, config.batch_size) == (0.1, 16384)
    assert (config.num_epochs, config.schedule.warmup_epochs, config.schedule.min_lr) == (90, 10, 0.0)
    assert (config.model.batch_norm, config.model.head_std, config.model.drop_path) == (True, 0.01, 0.0)
    assert {key: value for key, value in config.augment.items() if value} == {"switch_prob": 0.5}


VIT, SWIN = (functools.partial(make, size) for make, size in ((parts.vit, "vit_b"), (parts.swin, "swin_b")))
ALL = [parts.pretrain, parts.finetune, parts.linear_probe, parts.segment, parts.detect]
SECTIONS = {  # dataclass: the sections of recipes that it is made from
    vit.ViTConfig: [VIT()],
    swin.SwinConfig: [SWIN()],
    LocalMIMConfig: [parts.pretrain(VIT()).model, parts.pretrain(SWIN()).model],
    TargetConfig: [parts.pretrain(VIT()).model.target],
    ClassifierConfig: [parts.finetune(VIT()).model],
    SegmenterConfig: [parts.segment(VIT()).model],
    MaskRCNNConfig: [parts.detect(SWIN()).model],
    settings.RunSettings: [task(SWIN()) for task in ALL],
    settings.OptimizerSettings: [task(SWIN()).optimizer for task in ALL],
    settings.ScheduleSettings: [task(SWIN()).schedule for task in ALL],
    settings.MeshSettings: [task(SWIN()).mesh for task in ALL],
    settings.CheckpointSettings: [task(SWIN()).checkpoint for task in ALL],
    settings.LogSettings: [task(SWIN()).log for task in ALL],
    MixConfig: [parts.finetune(VIT()).augment],
}
# Any recipe may choose LARS or momentum, and only the linear probe's has the key.
TWO_HOMES = {(settings.OptimizerSettings, "momentum")}


@pytest.mark.parametrize("cls", SECTIONS, ids=lambda cls: cls.__name__)
def test_a_recipes_value_is_no_default_of_a_dataclass(cls):
    """Recipes are the home of values. A dataclass knows only what a missing key means: None, off or empty."""
    sections = [set(section) for section in SECTIONS[cls]]
    for field in dataclasses.fields(cls):
        has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if has_default and field.name in set.union(*sections) and (cls, field.name) not in TWO_HOMES:
            assert field.name not in set.intersection(*sections)
            assert field.default in (None, False, ())


def test_two_configs_share_nothing():
    first, second = recipe("vit_b_100ep"), recipe("vit_b_100ep")
    first.model.depth = 3
    first.schedule.base_lr = 1.0
    assert second.model.depth is None
    assert second.schedule.base_lr == 2e-4


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_configs_import_only_ml_collections_and_one_another(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    ours = {name for name in imported if name.startswith("localmim_jax.configs")}
    assert imported - ours <= {"ml_collections", "ml_collections.config_dict", "typing"}


def test_recipes_load_without_an_accelerator_library():
    """In a process of its own, since this one has them all."""
    program = "import sys, localmim_jax.configs.table1 as t; t.get_config(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"jax", "flax", "numpy", "tensorflow"} & set(done.stdout.split())


def test_an_encoder_refuses_an_unknown_key():
    with pytest.raises(KeyError, match="depht"):
        parts.vit("vit_b", depht=3)


def test_the_wheel_has_every_package():
    """`localmim_jax.configs` is a directory of the top level, so packages are listed and not searched for."""
    root = CONFIGS.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [path.parent.relative_to(root) for path in (root / "localmim_jax").rglob("__init__.py")]
    folders += ["localmim_jax" / path.parent.relative_to(root) for path in CONFIGS.rglob("__init__.py")]
    assert sorted(listed["packages"]) == sorted(".".join(folder.parts) for folder in folders)
    assert listed["package-dir"] == {"localmim_jax.configs": CONFIGS.name}


def encoder_file(config: ConfigDict, path: Path) -> str:
    """A file with some encoder, for a linear probe, which does not start without."""
    model = from_config.classifier_config(config)
    params = trees.flatten(trees.split(lambda rngs: Classifier(model, rngs=rngs))[1])
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in params.items()
        if name.startswith("encoder/")
    }
    files.write(path, arrays, info_to_json(ModelInfo(model.describe().family, "encoder", tuple(config.image_size))))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_shrunken_recipe_runs(name, tmp_path):
    """Three steps, on one device."""
    config = shrink(recipe(name).lock())
    if config.task == "linear_probe":
        config.checkpoint.init_from = encoder_file(config, tmp_path / "encoder.npz")
    summary = train(config, tmp_path)
    assert int(summary.state["step"]) == 3
    assert int(summary.state["bad_steps"]["total"]) == 0
    if "knn" in config.eval and config.eval.knn.enabled:
        assert summary.evaluations["knn/k"] == config.eval.knn.k
    if "reconstruction" in config.eval:
        assert summary.evaluations["reconstruction/grid"].shape[-1] == 3
