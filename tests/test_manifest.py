"""The proof that a checkpoint is whole, on plain files."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from localmim_jax.engine.checkpoints import manifest
from localmim_jax.errors import StorageError


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "7" / "state" / "d").mkdir(parents=True)
    (tmp_path / "7" / "_METADATA").write_text("{}")
    (tmp_path / "7" / "state" / "empty").write_bytes(b"")
    (tmp_path / "7" / "state" / "d" / "data").write_bytes(os.urandom(100_000))
    return tmp_path / "7"


def test_what_is_published_is_what_is_read(checkpoint):
    assert not manifest.exists(checkpoint)
    published = manifest.publish(checkpoint, 7)
    assert manifest.exists(checkpoint)
    assert manifest.read(checkpoint) == manifest.verify(checkpoint) == published
    assert (published.step, published.score) == (7, None)
    manifest.rate(checkpoint, 0.25)
    assert manifest.verify(checkpoint) == dataclasses.replace(published, score=0.25)
    assert list(published.files) == ["_METADATA", "state/d/data", "state/empty"]
    assert published.files["state/empty"][0] == 0
    assert published.files["state/d/data"][0] == 100_000


def test_the_hashes_are_plain_sha256(checkpoint):
    of_braces = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert manifest.publish(checkpoint, 7).files["_METADATA"] == (2, of_braces)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "data has 99999 bytes instead of 100000$"),
        (lambda path: path.write_bytes(bytes(100_000)), r"data has changed since it was written \(sha256 differs\)$"),
        (lambda path: path.unlink(), r"data cannot be read \(No such file or directory\)$"),
    ],
)
def test_damage_is_named(checkpoint, damage, message):
    manifest.publish(checkpoint, 7)
    damage(checkpoint / "state" / "d" / "data")
    manifest.read(checkpoint)  # looks at no file
    with pytest.raises(StorageError, match=message):
        manifest.verify(checkpoint)


def test_every_changed_character_of_the_manifest_is_noticed(checkpoint):
    manifest.publish(checkpoint, 7)
    manifest.rate(checkpoint, 0.25)
    path = checkpoint / "manifest.json"
    content = path.read_bytes()
    unnoticed = []
    for index, byte in enumerate(content):
        path.write_bytes(content[:index] + bytes([byte ^ 1]) + content[index + 1 :])
        try:
            manifest.verify(checkpoint)
        except StorageError:
            continue
        unnoticed.append(index)
    assert unnoticed == []


def killed_in(call: str, checkpoint) -> None:
    """Calls it in a process that dies once the manifest is written under its temporary name."""
    script = f"import sys, pathlib; from localmim_jax.engine.checkpoints import manifest; manifest.{call}"
    environment = {**os.environ, "LOCALMIM_FAULT": "before_publish"}
    command = [sys.executable, "-c", script, str(checkpoint)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert (checkpoint / "manifest.json.tmp").exists()


def test_an_unfinished_manifest_does_not_count(checkpoint):
    killed_in("publish(pathlib.Path(sys.argv[1]), 7)", checkpoint)
    assert not manifest.exists(checkpoint)
    assert len(manifest.publish(checkpoint, 7).files) == 3


def test_a_kill_while_the_score_is_added_leaves_the_checkpoint_whole(checkpoint):
    manifest.publish(checkpoint, 7)
    killed_in("rate(pathlib.Path(sys.argv[1]), 0.5)", checkpoint)
    assert manifest.verify(checkpoint).score is None
    manifest.rate(checkpoint, 0.5)
    assert manifest.verify(checkpoint).score == 0.5


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"digest": "x"}', "\x00" * 100])
def test_anything_else_in_its_place_is_damage(checkpoint, content):
    (checkpoint / "manifest.json").write_text(content)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        manifest.read(checkpoint)
