"""torchvision's DenseNet-121, without the half of torch that torchvision drags along.

`torchvision.ops.roi_align` imports torch's compiler for a function that it calls when it compiles, which we never do:
most of the time that importing a network takes. Here that function imports it, when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["DenseNet", "densenet121"]

_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


@contextmanager
def _compiler_left_out() -> Iterator[None]:
    """For what is imported meanwhile, the compiler is that one function."""
    if any(name in sys.modules for name in _COMPILER):
        yield
        return
    package, utils = (ModuleType(name) for name in _COMPILER)
    package.__path__ = []
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update(zip(_COMPILER, (package, utils), strict=True))
    try:
        yield
    finally:
        for name in _COMPILER:
            del sys.modules[name]


def _is_compile_supported(device: Any) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))


try:
    with _compiler_left_out():
        from torchvision.models import DenseNet, densenet121
except ImportError:  # a torchvision that needs more of it
    from torchvision.models import DenseNet, densenet121
