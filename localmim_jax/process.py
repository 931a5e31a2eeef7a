"""What a process needs once before it trains or reads datasets: a TensorFlow without accelerators, absl's flags."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from typing import Any

from absl import flags


def set_up() -> None:
    """Keeps TensorFlow off the accelerators, and marks absl's own flags as parsed for the libraries that read them."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # libraries below, grain's worker processes among them, read absl's own flags
    hide_accelerators_from_tensorflow()


def hide_accelerators_from_tensorflow(kinds: Sequence[str] = ("GPU", "TPU")) -> None:
    """TensorFlow, which reads datasets and writes logs, would otherwise take all the memory of a GPU.

    It is not loaded for this, which takes seconds and few commands need: it is told when something imports it.
    """
    if "tensorflow" in sys.modules:
        _hide(sys.modules["tensorflow"], kinds)
    elif not any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder(kinds))


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as usual, and hides devices from it as soon as it is loaded."""

    def __init__(self, kinds: Sequence[str]):
        self._kinds = kinds

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)  # whoever only asks for the spec does not import it
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_hide(module: Any) -> None:
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                load(module)
                _hide(module, self._kinds)

            spec.loader.exec_module = load_and_hide  # type: ignore[method-assign]
        return spec


def _hide(tensorflow: Any, kinds: Sequence[str]) -> None:
    for kind in kinds:
        tensorflow.config.set_visible_devices([], kind)
