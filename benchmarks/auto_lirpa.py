"""auto_LiRPA 0.3, the newest release on the package index, made to run with the torch and numpy of today.

It looks for private functions where they were years ago; they are put there before it is imported. Install it with
``pip install --no-deps auto_LiRPA==0.3 && pip install appdirs graphviz packaging``; without it there is no comparison.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch.onnx.symbolic_helper
import torch.onnx.utils
from torch import Tensor, nn


def is_installed() -> bool:
    """Return whether the package can be found."""
    return find_spec("auto_LiRPA") is not None


def crown(model: nn.Module, x: Tensor, eps: float, *, matrices: bool) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that bounds the outputs in an l-infinity ball by CROWN.

    ``matrices`` keeps coefficients of convolutions as matrices: its patches do not know networks without convolutions.
    The model is copied, since the package lets all its weights require gradients.
    """
    _prepare()
    from auto_LiRPA import BoundedModule, BoundedTensor  # type: ignore[import-not-found]
    from auto_LiRPA.perturbations import PerturbationLpNorm  # type: ignore[import-not-found]

    logging.getLogger("auto_LiRPA").setLevel(logging.CRITICAL)
    options = {"conv_mode": "matrix" if matrices else "patches", "fixed_reducemax_index": True}
    bounded = BoundedModule(copy.deepcopy(model), x, bound_opts=options, device="cpu")

    def run() -> tuple[Tensor, Tensor]:
        ball = BoundedTensor(x, PerturbationLpNorm(norm=np.inf, eps=eps))
        with torch.no_grad():
            lower, upper = bounded.compute_bounds(x=(ball,), method="CROWN")
        return lower, upper

    return run


def _prepare() -> None:
    """Put what auto_LiRPA imports where it looks for it; once."""
    if "auto_LiRPA" in sys.modules:
        return
    from torch.onnx._internal.torchscript_exporter import symbolic_opset12  # noqa: F401  registers operators
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS
    from torch.onnx._internal.torchscript_exporter.utils import _optimize_graph

    sets = ModuleType("numpy.lib.arraysetops")
    vars(sets)["isin"] = np.isin
    sys.modules.setdefault("numpy.lib.arraysetops", sets)
    vars(torch.onnx.utils)["_optimize_graph"] = _optimize_graph
    vars(torch.onnx.symbolic_helper)["_set_opset_version"] = lambda version: setattr(
        GLOBALS, "export_onnx_opset_version", version
    )
    attribute = "__getitem__"
    setattr(torch._C.Node, attribute, lambda node, key: getattr(node, node.kindOf(key))(key))
    from auto_LiRPA import BoundedModule

    named_members = BoundedModule._named_members

    def without_duplicates(self: Any, *args: Any, remove_duplicate: bool = True, **options: Any) -> Any:
        return named_members(self, *args, **options)

    BoundedModule._named_members = without_duplicates
