"""Loads the house rules and the fixtures of every test, where tests run.

The process that hands tests out to the workers of pytest-xdist runs none: it is ready at once if it imports no network.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("tests.fixtures")
