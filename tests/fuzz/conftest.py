"""Divides the time of `make fuzz` among the properties, and counts their examples at the end."""

import pytest

from tests.fuzz import rounds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rounds.properties[:] = [item.function.fuzzed for item in items if hasattr(getattr(item, "function", 0), "fuzzed")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not rounds.SECONDS:
        return
    terminalreporter.section("examples")
    for name in rounds.properties:
        terminalreporter.write_line(f"{name} {rounds.tried[name]}, of them {rounds.refused[name]} refused in one line")
    terminalreporter.write_line(f"in all {sum(rounds.tried.values())}")
