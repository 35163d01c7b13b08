"""Functions of single elements, and arithmetic of two tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.onnx_import.call import IDENTITY, Call, Step, as_dtype, operator

_PLAIN: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}


@operator(*_PLAIN)
def plain(call: Call) -> Step:
    """Translate an operator that has the same meaning in torch and no attributes."""
    return Step(_PLAIN[call.op])


@operator("LeakyRelu")
def leaky_relu(call: Call) -> Step:
    """Translate LeakyRelu."""
    return Step(F.leaky_relu, keywords={"negative_slope": call.attribute("alpha", 0.01)})


@operator("Elu", "Celu")
def elu(call: Call) -> Step:
    """Translate Elu and Celu."""
    return Step(F.elu if call.op == "Elu" else F.celu, keywords={"alpha": call.attribute("alpha", 1.0)})


@operator("Selu")
def selu(call: Call) -> Step:
    """Translate Selu, with whatever constants it is given."""
    defaults = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
    return Step(_selu, keywords={key: call.attribute(key, value) for key, value in defaults.items()})


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * F.elu(x, alpha=alpha)


@operator("HardSigmoid")
def hard_sigmoid(call: Call) -> Step:
    """Translate HardSigmoid."""
    return Step(_hard_sigmoid, keywords={"alpha": call.attribute("alpha", 0.2), "beta": call.attribute("beta", 0.5)})


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, min=0.0, max=1.0)


@operator("Gelu")
def gelu(call: Call) -> Step:
    """Translate Gelu."""
    return Step(F.gelu, keywords={"approximate": call.attribute("approximate", "none")})


@operator("PRelu")
def prelu(call: Call) -> Step:
    """Translate PRelu: one slope, or slopes that broadcast."""
    if call.is_number(1):
        return Step(F.leaky_relu, keywords={"negative_slope": call.number(1)})
    return Step(_prelu, (0, 1))


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.relu(x) - slope * torch.relu(-x)


@operator("Clip")
def clip(call: Call) -> Step:
    """Translate Clip: its limits are attributes before opset 11 and inputs since."""
    limits = {}
    for index, name in ((1, "min"), (2, "max")):
        limit = call.number(index) if call.has(index) else call.attribute(name)
        if limit is not None:
            limits[name] = limit
    return Step(torch.clamp, keywords=limits) if limits else IDENTITY


@operator("Add", "Sub", "Mul", "Div")
def arithmetic(call: Call) -> Step:
    """Translate arithmetic of two tensors, with the broadcasting of opset 6 where that was asked for."""
    functions: dict[str, Callable[..., Any]] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}
    first, second = call.example(0), call.example(1)
    if call.op == "Div" and not first.is_floating_point():
        return Step(_integer_division, (0, 1))
    if call.opset < 7 and call.attribute("broadcast", 0) and call.attribute("axis") is not None:
        axis = call.axis(call.attribute("axis"))
        return Step(_broadcast_at, (0, 1), {"function": call.op.lower(), "trailing": first.ndim - axis - second.ndim})
    return Step(functions[call.op], (0, 1))


def _integer_division(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="trunc")


def _broadcast_at(a: Tensor, b: Tensor, function: str, trailing: int) -> Tensor:
    result: Tensor = getattr(torch, function)(a, b.reshape(*b.shape, *[1] * trailing))
    return result


@operator("Pow")
def power(call: Call) -> Step:
    """Translate Pow; an exponent that is one number stays a number."""
    if call.is_number(1):
        exponent = call.number(1)
        return Step(torch.pow, keywords={"exponent": int(exponent) if exponent.is_integer() else exponent})
    return Step(torch.pow, (0, 1))


@operator("Max", "Min")
def extreme(call: Call) -> Step:
    """Translate Max and Min of any number of tensors; against one number it is a clamp, which has tight bounds."""
    every = call.every_input()
    numbers = [i for i in every if call.is_number(i) and call.example(i).is_floating_point()]
    if len(every) == 2 and len(numbers) == 1:
        tensor = next(i for i in every if i not in numbers)
        return Step(torch.clamp, (tensor,), {"min" if call.op == "Max" else "max": call.number(numbers[0])})
    return Step(_reduced, every, {"function": "maximum" if call.op == "Max" else "minimum"}, as_list=True)


@operator("Sum", "Mean")
def total(call: Call) -> Step:
    """Translate Sum and Mean of any number of tensors."""
    every = call.every_input()
    return Step(_total, every, {"factor": 1 / len(every) if call.op == "Mean" else 1.0}, as_list=True)


def _total(tensors: Sequence[Tensor], factor: float) -> Tensor:
    found = _reduced(tensors, "add")
    return found if factor == 1 else found * factor


def _reduced(tensors: Sequence[Tensor], function: str) -> Tensor:
    result = tensors[0]
    for one in tensors[1:]:
        result = getattr(torch, function)(result, one)
    return result


@operator("Softmax", "LogSoftmax")
def softmax(call: Call) -> Step:
    """Translate Softmax: before opset 13 it normalises over all axes from ``axis`` on."""
    rank = call.example().ndim
    axis = call.axis(call.attribute("axis", -1 if call.opset >= 13 else 1))
    function: Callable[..., Any] = torch.softmax if call.op == "Softmax" else torch.log_softmax
    if call.opset >= 13 or axis == rank - 1:
        return Step(function, keywords={"dim": axis})
    return Step(_softmax_from, keywords={"log": call.op == "LogSoftmax", "axis": axis, "rest": call.shape()[axis:]})


def _softmax_from(x: Tensor, log: bool, axis: int, rest: Sequence[int]) -> Tensor:
    flat = x.flatten(axis)
    flat = torch.log_softmax(flat, dim=axis) if log else torch.softmax(flat, dim=axis)
    return torch.unflatten(flat, axis, list(rest))


@operator("Cast", "CastLike")
def cast(call: Call) -> Step:
    """Translate Cast. Between floating types it does nothing, so that ``module.double()`` computes in float64."""
    target = as_dtype(call.attribute("to")) if call.op == "Cast" else call.example(1).dtype
    if call.example().is_floating_point() and target.is_floating_point and not call.is_constant(0):
        return IDENTITY
    return Step(_cast, keywords={"dtype": target})


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)


@operator("Where")
def where(call: Call) -> Step:
    """Translate Where."""
    return Step(torch.where, (0, 1, 2))


@operator("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or")
def comparison(call: Call) -> Step:
    """Translate comparisons and logic, which mostly occur in computed shapes and masks."""
    functions: dict[str, Callable[..., Any]] = {
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "And": torch.logical_and,
        "Or": torch.logical_or,
    }
    return Step(functions[call.op], (0, 1))


@operator("Identity")
def identity(call: Call) -> Step:
    """Translate Identity."""
    return IDENTITY


@operator("Dropout")
def dropout(call: Call) -> Step:
    """Translate Dropout as it is at inference: the identity, and a mask that keeps all where one is asked for."""
    if call.is_constant(2) and bool(call.value(2)):
        raise call.refuse("training_mode is set; export the model for inference")
    return IDENTITY if call.n_outputs == 1 else Step(_kept)


def _kept(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)
