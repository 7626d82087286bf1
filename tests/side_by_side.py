"""How the test command hands out tests to its processes: file by file, the long ones first."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class Scheduling(LoadFileScheduling):
    """A test that takes its process with it has failed, once; another process goes on with those behind it.

    As pytest-xdist has it, the next process would begin with that test again, until no more processes are started.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """Takes a process off that has ended, and gives the test in which it did; None when it had nothing to do."""
        files = self.assigned_work.pop(node)
        waiting = {file: [test for test, is_done in tests.items() if not is_done] for file, tests in files.items()}
        crashed = next((test for tests in waiting.values() for test in tests), None)
        for file, tests in waiting.items():
            if left := {test: False for test in tests if test != crashed}:
                self.workqueue[file] = left
        if crashed is not None:
            for each in self.nodes:
                self._reschedule(each)
        return crashed


def long_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Puts the files with tests of real parts before the others: what begins last should not take long."""
    given = list(items)
    real = {item.path for item in given if item.get_closest_marker("real") is not None}
    return sorted(given, key=lambda item: item.path not in real)
