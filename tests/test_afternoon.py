"""A user's afternoon: a folder of mixed files becomes a pre-trained, probed, fine-tuned and exported model (slow)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from skimage import data

ROOT = Path(__file__).parents[1]
CLASSES = {"coffee cup": data.coffee, "cat": data.chelsea, "rocket": data.rocket}
SIDE = 48


def write_photos(folder: Path) -> None:
    """200 tiles of each of three photographs: JPEG, gray TIFF of 16 bits, PNG with alpha; spaces in the names."""
    rng = np.random.default_rng(0)
    for name, photograph in CLASSES.items():
        (folder / name).mkdir(parents=True)
        pixels = photograph()
        for i in range(200):
            top, left = (int(rng.integers(0, size - SIDE)) for size in pixels.shape[:2])
            tile = pixels[top : top + SIDE, left : left + SIDE]
            if i % 3 == 0:
                Image.fromarray(tile).save(folder / name / f"tile {i}.jpg", quality=95)
            elif i % 3 == 1:
                gray = np.asarray(Image.fromarray(tile).convert("L")).astype(np.uint16) * 257
                Image.fromarray(gray).save(folder / name / f"tile {i}.tif")
            else:
                alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
                Image.fromarray(np.concatenate([tile, alpha], -1)).save(folder / name / f"tile {i}.png")


PRETRAIN = (
    "train --config=quickstart_photos --workdir=runs/pretrain --config.data.name=folder:photos "
    "--config.data.val_fraction=0.2 --config.num_epochs=12 --config.schedule.warmup_epochs=1 "
    "--config.eval.knn.enabled=true --config.eval.knn.name=folder:photos --config.eval.knn.test_split=val"
)
FINETUNE = (
    "train --config=finetune --workdir=runs/finetune --config.checkpoint.init_from=runs/pretrain "
    "--config.data.name=folder:photos --config.data.val_fraction=0.2 --config.eval.split=val "
    "--config.model.num_classes=3 --config.num_epochs=12 --config.schedule.warmup_epochs=1"
)
COMMANDS = (
    PRETRAIN,
    "probe --checkpoint=runs/pretrain --data=folder:photos --test_split=val --val_fraction=0.2",
    "knn --checkpoint=runs/pretrain --data=folder:photos --test_split=val --val_fraction=0.2",
    "features --checkpoint=runs/pretrain --images=photos --output=features.csv --plot=plot",
    FINETUNE,
    "evaluate --checkpoint=runs/finetune",
    "convert --source=runs/finetune --target=exported/timm --names=timm",
    "convert --source=runs/pretrain --target=exported/transformers --names=transformers",
)


@pytest.mark.slow
def test_from_a_folder_to_exported_models(tmp_path):
    write_photos(tmp_path / "photos")
    environment = {name: text for name, text in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    environment["PYTHONPATH"] = str(ROOT)

    def localmim(command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "localmim_jax", *command.split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"$ localmim {command}", done.stdout, "\n".join(done.stderr.splitlines()[-12:]), sep="\n")
        assert done.returncode == 0, command
        return done.stdout

    _, probe, knn, *_ = (localmim(command) for command in COMMANDS)
    assert float(probe.split("\naccuracy ")[1].split()[0]) > 0.6
    assert float(knn.split("accuracy ")[1].split()[0]) > 0.5
    lines = (tmp_path / "features.csv").read_text().splitlines()
    assert len(lines) == 601
    assert any("tile 0.jpg" in line for line in lines)
    assert np.asarray(Image.open(tmp_path / "plot.png")).std() > 10
    page = (tmp_path / "plot.html").read_text()
    assert "tile 0.jpg" in page
    assert "data:image" in page
    reports = [json.loads(line) for line in (tmp_path / "runs" / "finetune" / "metrics.jsonl").read_text().splitlines()]
    assert [report["val/top1"] for report in reports if "val/top1" in report][-1] > 0.6
    exported = tmp_path / "exported"
    assert load_file(exported / "timm" / "model.safetensors")["head.weight"].shape == (3, 128)
    if os.environ.get("LOCALMIM_TORCH"):
        reload(exported)


def reload(exported: Path) -> None:
    """Both libraries read their directories strictly."""
    import timm
    import torch
    from transformers import AutoModel

    model = timm.create_model(f"local-dir:{exported / 'timm'}", pretrained=True)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    tokens = AutoModel.from_pretrained(exported / "transformers", add_pooling_layer=False)
    assert tokens(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape == (1, 65, 128)
