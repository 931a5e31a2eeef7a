"""Reads that do not end: named, and no reason not to obey a signal."""

import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

from localmim_jax.data import slow_reads
from localmim_jax.data.decode import read_file
from tests.leases import leased
from tests.program import LONG, Program


def test_a_file_that_is_held_up_is_named_once_and_then_read(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(slow_reads, "SLOW", 0.1)
    path = tmp_path / "held\n.jpg"
    path.write_bytes(b"content")
    found = []
    with leased(path):
        reader = threading.Thread(target=lambda: found.append(read_file(path)))
        reader.start()
        while not caplog.records:
            time.sleep(0.05)
        time.sleep(1.2)  # another look of the watcher
        assert not found
    reader.join()
    assert found == [b"content"]
    messages = [entry.getMessage() for entry in caplog.records]
    assert len(messages) == 1
    assert messages[0].startswith(f"reading {tmp_path}/held\\n.jpg has taken")
    assert not slow_reads._reading


def images(root, count):
    root.mkdir()
    for i in range(count):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(root / f"{i}.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_names_the_file_that_it_waits_for_and_obeys_sigterm(tmp_path, workers):
    folder = images(tmp_path / "images", 8)
    flags = [f"--config.data.name=folder:{folder}", LONG, "--config.log.every_steps=5"]
    flags.append(f"--config.data.num_workers={workers}")
    program = Program(tmp_path / "run", *flags).wait_for(" 20/1000000")
    with leased(folder / "5.png"):
        program.wait_for("5.png has taken")
        start = time.monotonic()
        status = program.signal(signal.SIGTERM).end()
        assert time.monotonic() - start < 20
    assert status == 75, program.log
    assert "SIGTERM: step" in program.last_line()
    resumed = Program(tmp_path / "run", *flags).wait_for("resuming from step")
    assert resumed.signal(signal.SIGTERM).end() == 75
    assert "Traceback" not in program.log + resumed.log
    shutil.rmtree(tmp_path / "run")


@pytest.mark.slow
def test_a_pipe_a_device_and_a_link_to_itself_in_a_folder_cost_nothing(tmp_path):
    folder = images(tmp_path / "images", 8)
    os.mkfifo(folder / "pipe.jpg")
    os.symlink("self.jpg", folder / "self.jpg")
    os.symlink("/dev/zero", folder / "zero.png")
    program = Program(tmp_path / "run", f"--config.data.name=folder:{folder}")
    assert program.end() == 0, program.log
    line = "3 are named like images and are no files: pipe.jpg (a named pipe), self.jpg (a link that leads in a circle)"
    assert line in program.log
