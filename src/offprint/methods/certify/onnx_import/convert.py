"""ONNX models as torch modules."""

from __future__ import annotations

import gzip
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from offprint.methods.certify.onnx_import.call import Call, OnnxError, Step, translators
from offprint.methods.certify.onnx_import.operators import elementwise, linear, windows  # noqa: F401  fill the table
from offprint.methods.certify.onnx_import.operators import shape as shapes_and_places  # noqa: F401

if TYPE_CHECKING:
    import onnx


def from_onnx(
    model: str | os.PathLike[str] | onnx.ModelProto, *, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> nn.Module:
    """Turn an ONNX model into an ordinary torch module that computes the same.

    The module has the model's weights as parameters, takes batches where the model is made of operators that treat
    samples apart (also one that was exported for a single sample), and can be bounded, attacked, verified, moved to a
    device or turned to float64 (``module.double()``) like any other.

    Parameters
    ----------
    model : path or onnx.ModelProto
        A file (``.onnx``, also gzipped as ``.onnx.gz``), or a model that has been loaded. Standard operators of opsets
        6 to 22; without control flow, as it is at inference.
    input_shapes : mapping of str to sequence of int, optional
        Shapes by input name, for a batch of one, where the model leaves other axes than the first open.

    Returns
    -------
    torch.nn.Module
        In evaluation mode. It takes the model's inputs in their order and returns its output, or a tuple of them.
        ``module.meta["onnx"]`` says what they are: ``input_shapes`` and ``output_shapes`` (name to shape for a batch of
        one) and ``batched``, whether a batch of samples gives the same as each sample alone (tried when converting).

    Raises
    ------
    OnnxError
        A `ValueError`: an operator is not supported (it is named, with its node and what is supported), the file is no
        ONNX model, or an input's shape is not known.
    ModuleNotFoundError
        If the package ``onnx`` is missing: ``pip install 'offprint[onnx]'``.

    Notes
    -----
    What depends on constants and shapes alone is computed once, when converting. Casts between floating types do
    nothing, so that the module computes in the precision of its parameters. The module is a
    :class:`torch.fx.GraphModule`: ``print(module.code)`` shows what it does.

    Examples
    --------
    >>> import torch
    >>> from onnx import TensorProto, helper
    >>> graph = helper.make_graph(
    ...     [helper.make_node("Gemm", ["x", "W"], ["z"], transB=1), helper.make_node("Relu", ["z"], ["y"])],
    ...     "tiny",
    ...     [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
    ...     [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    ...     [helper.make_tensor("W", TensorProto.FLOAT, [2, 2], [1.0, 2.0, -1.0, 0.0])],
    ... )
    >>> module = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    >>> module(torch.ones(3, 2))[0].tolist()
    [3.0, 0.0]

    References
    ----------
    ONNX operators, https://onnx.ai/onnx/operators.
    """
    proto = _load(model)
    conversion = _Conversion(proto, input_shapes or {})
    module = conversion.module()
    shapes = {name: tuple(conversion.examples[name].shape) for name in conversion.input_names}
    outputs = {name: tuple(conversion.examples[name].shape) for name in conversion.output_names}
    module.meta["onnx"] = {"input_shapes": shapes, "output_shapes": outputs, "batched": _is_batched(module, shapes)}
    return module


def _onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        message = "reading ONNX models needs the package onnx: pip install 'offprint[onnx]'"
        raise ModuleNotFoundError(message, name="onnx") from error


def _load(model: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    onnx = _onnx()
    if isinstance(model, onnx.ModelProto):
        return model  # type: ignore[no-any-return]
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model: expected a path or an onnx.ModelProto, got {type(model).__name__}")
    path = Path(model)
    try:
        if path.suffix == ".gz":
            proto = onnx.load_model_from_string(gzip.decompress(path.read_bytes()))
        else:
            proto = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # the parser of protocol buffers raises errors of its own package
        raise OnnxError(f"model: {path} is not an ONNX model ({error})") from error
    if not proto.graph.output:
        raise OnnxError(f"model: {path} is not an ONNX model: it has no outputs")
    return proto  # type: ignore[no-any-return]


class _Conversion:
    """A model on its way to a module: nodes are run once on examples, and entered in a graph of torch.fx."""

    def __init__(self, proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> None:
        self.proto = proto
        self.opset = _opset(proto)
        _check_operators(proto)
        self.examples: dict[str, Tensor] = {}
        self.parameters: set[str] = set()
        self.constants: set[str] = set()
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        numpy_helper = importlib.import_module("onnx.numpy_helper")
        for initializer in proto.graph.initializer:
            self.examples[initializer.name] = torch.from_numpy(numpy_helper.to_array(initializer).copy())
            self.constants.add(initializer.name)
            if self.examples[initializer.name].is_floating_point():
                self.parameters.add(initializer.name)
        self.input_names = [one.name for one in proto.graph.input if one.name not in self.constants]
        self.output_names = [one.name for one in proto.graph.output]
        unknown = set(input_shapes) - set(self.input_names)
        if unknown:
            raise OnnxError(f"input_shapes: no input {sorted(unknown)[0]!r}; the inputs are {self.input_names}")
        for one in proto.graph.input:
            if one.name in self.input_names:
                self._add_input(one, input_shapes.get(one.name))

    def _add_input(self, info: onnx.ValueInfoProto, given: Sequence[int] | None) -> None:
        tensor_type = info.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor_type.shape.dim]
        if given is not None:
            dims = list(given)
        elif dims and dims[0] <= 0:
            dims[0] = 1
        if any(d <= 0 for d in dims) or (given is None and not tensor_type.HasField("shape")):
            raise OnnxError(f"input {info.name!r}: its shape {dims} is open (0); give it in input_shapes")
        dtype = importlib.import_module("onnx.helper").tensor_dtype_to_np_dtype(tensor_type.elem_type)
        torch_dtype = getattr(torch, str(dtype), torch.float32)
        generator = torch.Generator().manual_seed(0)
        example = torch.rand(dims, generator=generator, dtype=torch.float64)
        self.examples[info.name] = example.to(torch_dtype)
        self.values[info.name] = self.graph.placeholder(_identifier(info.name, "input"))

    def module(self) -> fx.GraphModule:
        """Run through the nodes and return the module."""
        for index, node in enumerate(self.proto.graph.node):
            self._add_node(node, node.name or f"{node.op_type}_{index}")
        outputs = tuple(self._value(name) for name in self.output_names)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, class_name="OnnxModel").eval()

    def _add_node(self, node: onnx.NodeProto, name: str) -> None:
        call = self._call(node, name)
        try:
            step = translators[node.op_type](call)
            keywords = {**step.keywords, **step.tensors}
            with torch.no_grad():
                result = step.function(*step.arguments(call.inputs), **keywords)
        except OnnxError:
            raise
        except Exception as error:
            shapes = [None if x is None else tuple(x.shape) for x in call.inputs]
            raise call.refuse(f"cannot be applied to inputs of shapes {shapes}: {error}") from error
        results = result if isinstance(result, tuple | list) else (result,)
        named = [(output, value) for output, value in zip(node.output, results, strict=False) if output]
        if len(named) < sum(bool(output) for output in node.output):
            raise call.refuse(f"only its first {len(results)} outputs are supported")
        self.examples.update(named)
        # Looking at a shape makes a constant of what is not one.
        if all(call.constant) or node.op_type in ("Shape", "Size", "EyeLike"):
            self.constants.update(output for output, _ in named)
            return
        self._enter(node, name, step, isinstance(result, tuple | list))

    def _enter(self, node: onnx.NodeProto, name: str, step: Step, several: bool) -> None:
        self.parameters.difference_update(node.input[i] for i in step.statistics)
        inputs = [self._value(one) if one and i in step.inputs else None for i, one in enumerate(node.input)]
        tensors = {key: self._buffers(f"{name}_{key}", value) for key, value in step.tensors.items()}
        made = self.graph.create_node(
            "call_function",
            step.function,
            step.arguments(inputs),
            {**step.keywords, **tensors},
            name=_identifier(name, node.op_type.lower()),
        )
        for i, output in enumerate(node.output):
            if output:
                self.values[output] = self.graph.call_function(_item, (made, i)) if several else made

    def _call(self, node: onnx.NodeProto, name: str) -> Call:
        helper = importlib.import_module("onnx.helper")
        missing = [one for one in node.input if one and one not in self.examples]
        if missing:
            raise OnnxError(f"node {name!r} ({node.op_type}): its input {missing[0]!r} comes from nowhere")
        attributes = {a.name: _attribute(helper.get_attribute_value(a)) for a in node.attribute}
        inputs = tuple(self.examples[one] if one else None for one in node.input)
        constant = tuple(not one or one in self.constants for one in node.input)
        return Call(node.op_type, name, self.opset, attributes, inputs, constant, len(node.output))

    def _value(self, name: str) -> fx.Node:
        """Return a value's place in the graph; a constant becomes a parameter or a buffer when it is first used."""
        if name not in self.values:
            if name not in self.constants:
                raise OnnxError(f"output {name!r} comes from nowhere")
            self.values[name] = self._constant(name, self.examples[name], name in self.parameters)
        return self.values[name]

    def _buffers(self, name: str, value: Tensor | list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            return self._constant(name, value, False)
        return [self._constant(f"{name}_{i}", one, False) for i, one in enumerate(value)]

    def _constant(self, name: str, value: Tensor, is_parameter: bool) -> fx.Node:
        attribute = _identifier(name, "constant")
        while hasattr(self.root, attribute):
            attribute += "_"
        if is_parameter:
            self.root.register_parameter(attribute, nn.Parameter(value))
        else:
            self.root.register_buffer(attribute, value.clone())
        return self.graph.get_attr(attribute)


def _item(values: Sequence[Tensor], index: int) -> Tensor:
    return values[index]


def _opset(proto: onnx.ModelProto) -> int:
    versions = [one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")]
    if not versions:
        raise OnnxError("model: it imports no version of the standard operators")
    return int(max(versions))


def _check_operators(proto: onnx.ModelProto) -> None:
    """Refuse what cannot be translated before any work is done, all of it at once."""
    unknown: dict[str, str] = {}
    for index, node in enumerate(proto.graph.node):
        if node.op_type not in translators or node.domain not in ("", "ai.onnx"):
            label = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            unknown.setdefault(label, node.name or f"{node.op_type}_{index}")
    if unknown:
        named = ", ".join(f"{op} (node {name!r})" for op, name in unknown.items())
        raise OnnxError(f"unsupported operators: {named}; supported are {', '.join(sorted(translators))}")


def _attribute(value: Any) -> Any:
    """Return tensors as torch tensors and everything else as it is."""
    if type(value).__name__ == "TensorProto":
        return torch.from_numpy(importlib.import_module("onnx.numpy_helper").to_array(value).copy())
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def _identifier(name: str, fallback: str) -> str:
    """Return a name that Python and ``register_buffer`` accept."""
    cleaned = re.sub(r"\W+", "_", name).strip("_") or fallback
    return f"{fallback}_{cleaned}" if cleaned[0].isdigit() else cleaned


def _is_batched(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Try whether three samples at once give what each of them gives alone."""
    generator = torch.Generator().manual_seed(1)
    dtypes = {p.dtype for p in module.parameters()} or {torch.float32}
    if len(dtypes) > 1 or any(not shape for shape in shapes.values()):
        return False
    dtype = dtypes.pop()
    inputs = []
    for shape in shapes.values():
        sample = shape[1:] if shape[0] == 1 else shape
        inputs.append(torch.rand((3, *sample), generator=generator, dtype=torch.float64).to(dtype))
    try:
        with torch.no_grad():
            together = _tensors(module(*inputs))
            for i in range(3):
                alone = _tensors(module(*(x[i : i + 1] for x in inputs)))
                for many, one in zip(together, alone, strict=True):
                    if many[i : i + 1].shape != one.shape or not _close(many[i : i + 1], one):
                        return False
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True)


def _tensors(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
