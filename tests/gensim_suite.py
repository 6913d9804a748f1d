"""Runs gensim's own tests of Word2Vec on hotrow, in a process of its own: python gensim_suite.py [name of a test]...

Prints, as a line of JSON, how many ran, the names of those that failed, and how many epochs hotrow trained.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import types
import unittest
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from hotrow import gensim


def _log_capture() -> Callable[[Any], Any]:
    """testfixtures.log_capture as far as these tests use it: passes the messages that a test logs to it."""

    class Lines(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.messages.append(record.getMessage())

        def __str__(self) -> str:
            return "\n".join(self.messages)

    def wrap(test: Any) -> Any:
        @functools.wraps(test)
        def run(self: unittest.TestCase) -> None:
            lines = Lines()
            logging.getLogger().addHandler(lines)
            try:
                test(self, lines)
            finally:
                logging.getLogger().removeHandler(lines)

        return run

    return wrap


def main(names: list[str]) -> None:
    if find_spec("testfixtures") is None:  # gensim's tests need it, gensim does not
        sys.modules["testfixtures"] = types.ModuleType("testfixtures")
        sys.modules["testfixtures"].log_capture = _log_capture  # type: ignore[attr-defined]
    module = import_module("gensim.test.test_word2vec")
    loader = unittest.defaultTestLoader
    train_on, epochs = gensim._train_on, []
    gensim._train_on = lambda *args: epochs.append(1) or train_on(*args)  # type: ignore[func-returns-value]
    suite = loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    with gensim.patched():
        result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = [*result.failures, *result.errors, *((test, "") for test in result.unexpectedSuccesses)]
    failed = sorted(test.id().rpartition(".")[2] for test, _ in bad)
    print(json.dumps({"run": result.testsRun, "failed": failed, "epochs": len(epochs)}))


if __name__ == "__main__":
    main(sys.argv[1:])
