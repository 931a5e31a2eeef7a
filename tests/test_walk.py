"""Folders as systems, archives and people leave them."""

import os
import socket

import pytest

from localmim_jax.data.decode import DecodeError, read_file
from localmim_jax.data.walk import find_files, is_file
from localmim_jax.errors import DataError, printable


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_every_suffix_that_is_read_and_the_others_by_number(tmp_path):
    images = ["1.tif", "2.TIFF", "3.jfif", "4.gif", "5.JPG", "6.mpo", "7.PnG", "8.pgm"]
    found = find_files(write(tmp_path, *images, "a.txt", "b.TXT", "c.psd", "README"))
    assert found.files == tuple(images)
    assert found.skipped == {".txt": 2, ".psd": 1, "": 1}
    assert found.notes() == [f"{tmp_path}: not read: 2 .txt, 1 without a suffix, 1 .psd"]
    assert find_files(tmp_path, (".txt",)).files == ("a.txt", "b.TXT")


def test_what_systems_and_archives_leave_behind_is_no_image(tmp_path):
    write(tmp_path, "cat/1.jpg", "cat/._1.jpg", "cat/.ipynb_checkpoints/1.jpg", "cat/@eaDir/1.jpg/thumb.jpg")
    write(tmp_path, "__MACOSX/cat/._1.jpg", ".DS_Store", "lost+found/2.jpg", ".Trash/3.jpg", "$RECYCLE.BIN/4.jpg")
    found = find_files(tmp_path)
    assert found.files == ("cat/1.jpg",)
    assert found.notes() == []


def test_folders_without_an_image_are_named(tmp_path):
    write(tmp_path, "cat/1.jpg", "dog/note.txt", "owl/deep/2.jpg")
    (tmp_path / "emu" / "inner").mkdir(parents=True)
    found = find_files(tmp_path)
    assert found.empty == ("dog", "emu")
    assert found.notes()[-1] == f"{tmp_path}: 2 folders hold no image: dog, emu"


def test_only_regular_files_are_images(tmp_path):
    write(tmp_path, "a/1.jpg")
    os.symlink("self.jpg", tmp_path / "self.jpg")
    os.symlink("two.jpg", tmp_path / "one.jpg")
    os.symlink("one.jpg", tmp_path / "two.jpg")
    os.symlink("nowhere.jpg", tmp_path / "dead.jpg")
    os.symlink("a/1.jpg", tmp_path / "good.jpg")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.png"))
        found = find_files(tmp_path)
    assert found.files == ("a/1.jpg", "good.jpg")
    assert found.unusable == {
        "dead.jpg": "a link that leads nowhere",
        "one.jpg": "a link that leads in a circle",
        "pipe.jpg": "a named pipe",
        "self.jpg": "a link that leads in a circle",
        "socket.png": "a socket",
        "two.jpg": "a link that leads in a circle",
        "zero.png": "a device",
    }
    assert f"{tmp_path}: 7 are named like images and are no files: dead.jpg (a link that" in found.notes()[0]
    assert found.empty == ("folder.jpg",)
    assert [is_file(tmp_path / name) for name in ("self.jpg", "pipe.jpg", "good.jpg", "a\0", "n" * 300)] == [
        *(False, False, True, False, False)
    ]


def test_what_becomes_a_pipe_after_the_walk_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(DecodeError, match="it is a named pipe, not a file"):
        read_file(tmp_path / "1.jpg")


def test_a_device_is_not_read():
    with pytest.raises(DecodeError, match="it is a device, not a file"):
        read_file("/dev/zero")


def test_links_to_folders_are_followed_and_circles_are_no_empty_folders(tmp_path):
    write(tmp_path, "set/a/1.jpg", "elsewhere/2.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set/b")
    os.symlink(tmp_path / "set", tmp_path / "set/up")
    found = find_files(tmp_path / "set")
    assert (found.files, found.empty) == (("a/1.jpg", "b/2.jpg"), ())


def test_names_are_shown_in_one_line(tmp_path):
    assert printable("é\n\x1b[31m\udcff") == "é\\n\\x1b[31m\\udcff"
    write(tmp_path, "é\n/1.txt", "a/1.jpg")
    assert find_files(tmp_path).notes()[-1] == f"{tmp_path}: 1 folders hold no image: é\\n"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_without_read_rights_is_named(tmp_path):
    write(tmp_path, "a/1.jpg")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(DataError, match=r"a cannot be listed \(Permission denied\): give it read rights"):
            find_files(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)
