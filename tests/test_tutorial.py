"""`docs/tutorial.md` typed as it stands in an empty directory, from a folder of images to exported files (slow)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
STARTS = ("python ", "localmim ")


def commands() -> list[str]:
    """Its blocks that are commands, without installation and without what needs other data and an accelerator."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    part = text[text.index("## 2.") : text.index("## With photographs")]
    return [block for block in re.findall(r"```\n(.*?)```", part, flags=re.DOTALL) if block.startswith(STARTS)]


def test_it_has_every_step():
    steps = [re.match(r"(?:python|localmim) (\S+)", block)[1] for block in commands()]
    assert steps == ["-", "train", "train", "visualize", "train", "convert"]


@pytest.mark.slow
def test_it_works_as_it_stands(tmp_path):
    environment = {name: text for name, text in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    for block in commands():
        done = subprocess.run(
            ["bash", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        print(block, done.stdout, done.stderr[-3000:], sep="\n")
        assert done.returncode == 0, block

    def last(run, name):
        lines = [json.loads(line) for line in (tmp_path / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        return [line[name] for line in lines if name in line][-1]

    assert last("pretrain", "knn/accuracy") > 0.85
    assert last("finetune", "val/top1") > last("scratch", "val/top1")
    for name in ("45", "40"):
        assert np.asarray(Image.open(tmp_path / "pictures" / f"{name}.png")).std() > 10
    with np.load(tmp_path / "features.npz") as features:
        assert features["features"].shape[0] == len(list((tmp_path / "digits" / "val").glob("*/*.png"))) == 360
    encoder = load_file(tmp_path / "exported" / "encoder.safetensors")
    classifier = load_file(tmp_path / "exported" / "classifier.safetensors")
    assert classifier["head.weight"].shape == (10, 128)
    assert encoder["patch_embed.proj.weight"].shape == (128, 1, 8, 8)
    assert np.abs(encoder["blocks.0.attn.qkv.weight"] - classifier["blocks.0.attn.qkv.weight"]).max() > 0
    assert sorted(path.name for path in (tmp_path / "exported" / "transformers").iterdir())[0] == "config.json"
