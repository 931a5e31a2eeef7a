"""Faults that need the right to mount a file system (root, or user namespaces): `pytest -m mounts`."""

import pytest

from tests.program import Program


@pytest.mark.mounts
def test_a_full_file_system_and_a_read_only_one(tmp_path):
    """A tmpfs with room for two checkpoints, not for three; then the same directory made read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    both = (
        f'mount -t tmpfs -o size=1000k tmpfs {disk} && {{ "$@"; echo "first: $?"; ls {disk}/run/checkpoints; '
        f'mount -o remount,ro {disk}; "$@"; echo "then: $?"; }}'
    )
    program = Program(disk / "run", shell=both)
    assert program.end() == 0, program.log
    assert "step 12 could not be saved" in program.log
    assert "No space left on device" in program.log
    assert "first: 4\n10\n5\n" in program.log
    assert f"main.py: workdir {disk}/run cannot be written: Read-only file system" in program.log
    assert "then: 4\n" in program.log
