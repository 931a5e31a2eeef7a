"""The list of mutations fits the tree: running it takes an hour, seeing that it can be run a moment."""

import pytest

from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_finds_its_text_and_its_tests(name):
    file, text, replacement, tests = MUTATIONS[name]
    assert text in (ROOT / file).read_text(), f"{file} no longer holds the text: update the mutation"
    assert replacement != text
    missing = [test for test in tests.split() if not (ROOT / f"tests/test_{test}.py").is_file()]
    assert tests
    assert not missing
