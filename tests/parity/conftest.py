"""Prints the parity table where ``--parity-table`` asks for it."""

from __future__ import annotations

import pytest

from . import table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.config.getoption("parity_table") and table.ROWS:
        terminalreporter.section("differences from the golden numbers")
        for line in table.lines():
            terminalreporter.write_line(line)
