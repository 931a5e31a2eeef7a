import pytest

from localmim_jax import errors


@pytest.mark.parametrize("kind", [errors.DataError, errors.ConfigError, errors.StorageError])
def test_the_text_is_one_printable_line_whatever_a_file_is_called(kind):
    error = kind("photos/a\nb\r\x1b[2J\u2028\udcff é.jpg: it is empty")
    assert str(error) == r"photos/a\nb\r\x1b[2J\u2028\udcff é.jpg: it is empty"
    assert len(str(error).splitlines()) == 1
    assert errors.printable(str(error)) == str(error)
