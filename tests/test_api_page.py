"""The examples of docs/api.md."""

import doctest
from pathlib import Path

from PIL import Image

from tests.own_data import photographs

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_examples_run(small_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(small_run)
    Image.fromarray(photographs(1)[0]).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert failed == 0
    assert attempted >= 15
