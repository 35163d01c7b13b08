"""ONNX models as torch modules, against onnxruntime on random inputs."""

from __future__ import annotations

import copy
import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from offprint.methods.certify.onnx_import.call import OnnxError, translators  # noqa: E402
from offprint.methods.certify.onnx_import.convert import from_onnx  # noqa: E402

F32 = TensorProto.FLOAT


def model(nodes, shapes, constants=None, *, opset=17, outputs=("y",), out_type=F32):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, value in (constants or {}).items():
        arrays[name] = rng.normal(size=value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=f"{op}_{outs[0]}", **attributes) for op, ins, outs, attributes in nodes],
        "test",
        [helper.make_tensor_value_info(name, F32, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, out_type, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def reference(proto, inputs):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {one.name: x for one, x in zip(session.get_inputs(), inputs, strict=True)})


def check(proto, *, low=-2.0, high=2.0, batched=True, seed=0) -> torch.nn.Module:
    """The same numbers as onnxruntime in float32 (1e-5 relative: sums in another order), and in float64 close to it."""
    module = from_onnx(proto)
    rng = np.random.default_rng(seed)
    shapes = module.meta["onnx"]["input_shapes"].values()
    for _ in range(3):
        inputs = [rng.uniform(low, high, shape).astype(np.float32) for shape in shapes]
        expected = reference(proto, inputs)
        found = module(*map(torch.from_numpy, inputs))
        found = found if isinstance(found, tuple) else (found,)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-5, atol=1e-5)
        double = copy.deepcopy(module).double()(*(torch.from_numpy(x).double() for x in inputs))
        for ours, theirs in zip(double if isinstance(double, tuple) else (double,), expected, strict=True):
            if ours.is_floating_point():
                assert ours.dtype == torch.float64
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-4)
    assert module.meta["onnx"]["batched"] == batched
    return module


def one(op, *, shape=(1, 3, 5), constants=None, opset=17, low=-2.0, high=2.0, batched=True, extra=(), **attributes):
    names = ["x", *(constants or {})]
    check(
        model([(op, names, ["y", *extra], attributes)], {"x": shape}, constants, opset=opset, outputs=("y", *extra)),
        low=low,
        high=high,
        batched=batched,
    )


UNARY = "Abs Atan Ceil Cos Erf Exp Floor HardSwish Mish Neg Relu Sigmoid Sign Sin Softplus Softsign Tanh Identity"
UNARY = UNARY.split()


@pytest.mark.parametrize("op", UNARY)
def test_functions_of_one_number(op) -> None:
    one(op, opset=18)


@pytest.mark.parametrize("op", ["Log", "Reciprocal", "Sqrt"])
def test_functions_of_a_positive_number(op) -> None:
    one(op, low=0.1)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {"alpha": 0.7}),
        ("Celu", {"alpha": 0.7}),
        ("Selu", {"alpha": 1.5, "gamma": 1.2}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("LeakyRelu", {}),
        ("Selu", {}),
        ("HardSigmoid", {}),
    ],
)
def test_functions_with_constants(op, attributes) -> None:
    one(op, **attributes)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate) -> None:
    one("Gelu", opset=20, approximate=approximate)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_with_constants_and_between_inputs(op) -> None:
    one(op, constants={"c": (3, 1)})
    one(op, constants={"c": np.float32(1.7)})
    check(model([(op, ["c", "x"], ["y"], {})], {"x": (1, 3, 5)}, {"c": (5,)}), low=0.5)
    check(model([(op, ["x", "z"], ["y"], {})], {"x": (1, 3, 5), "z": (1, 3, 5)}), low=0.5)


def test_broadcasting_of_opset_6() -> None:
    # onnxruntime begins at opset 7: the definition itself is the oracle.
    proto = model([("Add", ["x", "c"], ["y"], {"broadcast": 1, "axis": 1})], {"x": (1, 3, 5)}, {"c": (3,)}, opset=6)
    c = numpy_helper.to_array(proto.graph.initializer[0])
    x = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(from_onnx(proto)(x).detach(), x.numpy() + c[:, None], rtol=1e-6)


@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_any_number_of_inputs(op) -> None:
    one(op, constants={"c": (3, 5), "d": (5,)})
    one(op, constants={"c": np.float32(0.3)})
    check(model([(op, ["x", "z"], ["y"], {})], {"x": (1, 4), "z": (1, 4)}))


def test_powers() -> None:
    one("Pow", constants={"c": np.float32(2)})
    one("Pow", constants={"c": np.float32(0.5)}, low=0.1)
    one("Pow", constants={"c": (5,)}, low=0.1)


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, 2), (11, None), (13, 1), (13, -1), (13, None)])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_old_and_new_opsets(op, opset, axis) -> None:
    one(op, opset=opset, **({} if axis is None else {"axis": axis}))


def test_clip_by_attributes_and_by_inputs() -> None:
    one("Clip", opset=10, min=-0.5, max=0.7)
    one("Clip", opset=10, max=0.7)
    one("Clip", constants={"min": np.float32(-0.5), "max": np.float32(0.7)})
    check(model([("Clip", ["x", "", "max"], ["y"], {})], {"x": (1, 4)}, {"max": np.float32(0.2)}))


def test_parametric_relu() -> None:
    one("PRelu", constants={"slope": (3, 1)})
    one("PRelu", constants={"slope": np.float32([0.2])})


@pytest.mark.parametrize("opset", [7, 12, 13])
def test_dropout_is_the_identity(opset) -> None:
    one("Dropout", opset=opset)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (4,), (1, 4), (1,)])
def test_gemm(trans_b, bias) -> None:
    constants = {"w": (4, 3) if trans_b else (3, 4)} | ({"b": bias} if bias else {})
    one("Gemm", shape=(1, 3), constants=constants, transB=trans_b)
    one("Gemm", shape=(1, 3), constants=constants, transB=trans_b, alpha=0.7, beta=1.3)


def test_gemm_with_its_first_factor_transposed() -> None:
    one("Gemm", shape=(3, 1), constants={"w": (3, 4)}, transA=1, batched=False)


def test_matmul() -> None:
    one("MatMul", constants={"w": (5, 4)})
    one("MatMul", constants={"w": (2, 5, 4)}, shape=(1, 2, 3, 5))
    check(model([("MatMul", ["w", "x"], ["y"], {})], {"x": (1, 3, 5)}, {"w": (4, 3)}))
    check(model([("MatMul", ["x", "z"], ["y"], {})], {"x": (1, 2, 3), "z": (1, 3, 4)}))


CONVOLUTIONS = [
    {},
    {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 1]},
    {"dilations": [2, 1], "pads": [2, 0, 1, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 1]},  # one column more than can be shared evenly
    {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
    {"auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
def test_convolution(attributes) -> None:
    one("Conv", shape=(1, 2, 7, 8), constants={"w": (4, 2, 3, 2), "b": (4,)}, **attributes)
    one("Conv", shape=(1, 2, 7, 8), constants={"w": (4, 1, 3, 2)}, group=2, **attributes)


def test_convolution_over_one_and_three_axes() -> None:
    one("Conv", shape=(1, 2, 9), constants={"w": (3, 2, 4), "b": (3,)}, pads=[2, 1])
    one("Conv", shape=(1, 2, 4, 5, 4), constants={"w": (3, 2, 2, 3, 2)}, pads=[1, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 3], "pads": [1, 0, 0, 1]},
        {"strides": [2, 2], "output_padding": [1, 1]},
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        {"strides": [3, 2], "output_shape": [13, 10]},
        {"strides": [3, 2], "output_shape": [14, 9], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"dilations": [2, 1]},
    ],
)
def test_transposed_convolution(attributes) -> None:
    one("ConvTranspose", shape=(1, 4, 5, 4), constants={"w": (4, 3, 3, 3), "b": (3,)}, **attributes)
    one("ConvTranspose", shape=(1, 4, 5, 4), constants={"w": (4, 3, 3, 3)}, group=2, **attributes)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"strides": [1, 2], "pads": [2, 1, 0, 1]},
        {"strides": [2, 2], "ceil_mode": 1},
        {"strides": [2, 3], "ceil_mode": 1, "pads": [0, 1, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ],
)
def test_pooling(op, attributes) -> None:
    one(op, shape=(1, 2, 7, 8), kernel_shape=[3, 3], opset=19, **attributes)
    if op == "AveragePool":
        one(op, shape=(1, 2, 7, 8), kernel_shape=[3, 3], count_include_pad=1, opset=19, **attributes)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_no_window_begins_in_the_padding_after_the_end(op) -> None:
    one(op, shape=(1, 2, 4), kernel_shape=[3], strides=[3], pads=[1, 2], ceil_mode=1, opset=19)


def test_pooling_over_all() -> None:
    one("GlobalAveragePool", shape=(1, 2, 4, 5))
    one("GlobalMaxPool", shape=(1, 2, 4, 5))
    one("MaxPool", shape=(1, 2, 9), kernel_shape=[2], dilations=[2])


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization(opset) -> None:
    constants = {"scale": (3,), "bias": (3,), "mean": (3,), "var": np.float32([0.5, 1.0, 2.0])}
    one("BatchNormalization", shape=(1, 3, 4, 2), constants=constants, opset=opset, epsilon=1e-3)


def test_other_normalizations() -> None:
    one("LayerNormalization", constants={"scale": (5,), "bias": (5,)})
    one("LayerNormalization", constants={"scale": (3, 5)}, axis=1, epsilon=1e-2)
    one("InstanceNormalization", shape=(1, 3, 4, 4), constants={"scale": (3,), "bias": (3,)})


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare"])
def test_reductions(op) -> None:
    one(op, opset=11, axes=[1, -1], keepdims=0)
    one(op, opset=11, axes=[2])
    one(op, opset=11, batched=False)
    if op != "ReduceSum":
        one(op, opset=18, constants={"axes": np.int64([2])}, keepdims=0)
    else:
        one(op, opset=13, constants={"axes": np.int64([2])}, keepdims=0)
        one(op, opset=13, noop_with_empty_axes=1)


def test_reshape_by_attribute_by_input_and_with_a_batch_of_one() -> None:
    one("Reshape", shape=(1, 3, 4), constants={"shape": np.int64([0, 2, -1])})
    one("Reshape", shape=(1, 3, 4), constants={"shape": np.int64([1, 12])})
    one("Reshape", shape=(1, 3, 4), constants={"shape": np.int64([-1, 12])})
    one("Reshape", shape=(1, 3, 4), constants={"shape": np.int64([1, -1])})
    one("Reshape", shape=(1, 3, 4), constants={"shape": np.int64([3, 4])}, batched=False)
    one("Flatten", shape=(1, 3, 4))
    one("Flatten", shape=(1, 3, 4), axis=0)
    one("Flatten", shape=(1, 3, 4), axis=2, batched=False)


def test_reshape_of_opset_1() -> None:
    # onnxruntime has it no more; numpy's reshape is the oracle.
    proto = model([("Reshape", ["x"], ["y"], {"shape": [0, 2, -1]})], {"x": (1, 3, 4)}, opset=4)
    x = torch.arange(12.0).reshape(1, 3, 4)
    np.testing.assert_array_equal(from_onnx(proto)(x), x.numpy().reshape(1, 2, 6))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze_of_old_and_new_opsets(opset) -> None:
    def given(axes):
        return {"axes": axes} if opset < 13 else {"constants": {"axes": np.int64(axes)}}

    one("Squeeze", shape=(1, 1, 3, 1), opset=opset, **given([1, -1]))
    one("Squeeze", shape=(1, 1, 3, 1), opset=opset, batched=False)
    one("Unsqueeze", shape=(1, 3), opset=opset, **given([1, 3]))
    one("Unsqueeze", shape=(1, 3), opset=opset, **given([-1]))


@pytest.mark.parametrize("opset", [9, 10])
def test_slices_of_old_and_new_opsets(opset) -> None:
    if opset == 9:
        one("Slice", shape=(1, 5, 6), opset=9, starts=[1, -3], ends=[-1, 100], axes=[1, 2])
        return
    constants = {
        "starts": np.int64([4, -1]),
        "ends": np.int64([0, -100]),
        "axes": np.int64([1, 2]),
        "steps": np.int64([-2, -1]),
    }
    one("Slice", shape=(1, 5, 6), constants=constants)
    one("Slice", shape=(1, 5, 6), constants={"starts": np.int64([0, 1]), "ends": np.int64([1, 4])})
    one("Slice", shape=(1, 5, 6), constants={**constants, "ends": np.int64([0, 2]), "steps": np.int64([-3, -2])})


@pytest.mark.parametrize("indices", [2, [1], [3, 0, -1], [[0, 1], [2, 2]]])
def test_gather(indices) -> None:
    one("Gather", shape=(1, 4, 3), constants={"i": np.int64(indices)}, axis=1)


def test_split_of_old_and_new_opsets() -> None:
    one("Split", shape=(1, 6), opset=11, axis=1, split=[2, 4], extra=("z",))
    one("Split", shape=(1, 6), opset=13, axis=-1, extra=("z",))
    one("Split", shape=(1, 6), opset=13, axis=1, constants={"split": np.int64([1, 5])}, extra=("z",))
    one("Split", shape=(1, 7), opset=18, axis=1, num_outputs=2, extra=("z",))


def test_transposing_joining_and_repeating() -> None:
    one("Transpose", shape=(1, 2, 3, 4), perm=[0, 2, 3, 1])
    one("Transpose", shape=(2, 3), batched=False)
    one("Concat", shape=(1, 3), constants={"c": (1, 2)}, axis=1)
    check(model([("Concat", ["c", "x"], ["y"], {"axis": -1})], {"x": (1, 3, 2)}, {"c": (1, 3, 2)}))
    check(model([("Concat", ["x", "z"], ["y"], {"axis": 1})], {"x": (1, 2), "z": (1, 3)}))
    one("Expand", shape=(1, 3, 1), constants={"shape": np.int64([3, 4])})
    one("Tile", shape=(1, 3), constants={"repeats": np.int64([1, 2])})


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad_of_old_and_new_opsets(mode) -> None:
    pads = [0, 0, 1, 2, 0, 0, 2, 0]
    one("Pad", shape=(1, 2, 4, 5), opset=10, mode=mode, pads=pads)
    one("Pad", shape=(1, 2, 4, 5), opset=13, mode=mode, constants={"pads": np.int64(pads)})
    constants = {"pads": np.int64([2, 1]), "value": np.float32(0.5), "axes": np.int64([-1])}
    one("Pad", shape=(1, 2, 4, 5), opset=18, mode=mode, constants=constants)


@pytest.mark.parametrize("place", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_resize_to_the_nearest(place, rounding) -> None:
    how = {"coordinate_transformation_mode": place, "nearest_mode": rounding, "mode": "nearest"}
    for given in ({"scales": np.float32([1, 1, 2, 1.5])}, {"scales": np.float32([]), "sizes": np.int64([1, 2, 3, 9])}):
        inputs = ["x", "", *given]
        check(model([("Resize", inputs, ["y"], how)], {"x": (1, 2, 4, 6)}, given))


def test_resize_of_old_opsets() -> None:
    one("Upsample", shape=(1, 2, 3, 3), opset=7, scales=[1.0, 1.0, 2.0, 3.0])
    one("Upsample", shape=(1, 2, 3, 3), opset=9, constants={"scales": np.float32([1, 1, 2, 2])})
    one("Resize", shape=(1, 2, 3, 3), opset=10, constants={"scales": np.float32([1, 1, 2, 2])})


def test_shapes_are_folded_and_leave_the_batch_open() -> None:
    nodes = [
        ("Shape", ["x"], ["shape"], {}),
        ("Gather", ["shape", "zero"], ["n"], {}),
        ("Unsqueeze", ["n", "zeros"], ["ns"], {}),
        ("Concat", ["ns", "rest"], ["target"], {"axis": 0}),
        ("Reshape", ["x", "target"], ["y"], {}),
    ]
    constants = {"zero": np.int64(0), "zeros": np.int64([0]), "rest": np.int64([-1])}
    module = check(model(nodes, {"x": ("n", 2, 3)}, constants))
    assert module(torch.zeros(7, 2, 3)).shape == (7, 6)
    assert not list(module.buffers())


def test_constants_that_are_computed() -> None:
    value = helper.make_tensor("v", F32, [1], [2.5])
    nodes = [
        ("ConstantOfShape", ["shape"], ["c"], {"value": value}),
        ("Constant", [], ["d"], {"value_floats": [1.0, 2.0]}),
        ("Cast", ["i"], ["f"], {"to": F32}),
        ("Range", ["start", "limit", "delta"], ["r"], {}),
        ("Mul", ["c", "d"], ["e"], {}),
        ("Add", ["x", "e"], ["g"], {}),
        ("Where", ["mask", "g", "f"], ["h"], {}),
        ("Add", ["h", "r"], ["y"], {}),
    ]
    constants = {
        "shape": np.int64([2]),
        "i": np.int64([3, 4]),
        "mask": np.array([True, False]),
        "start": np.float32(0),
        "limit": np.float32(2),
        "delta": np.float32(1),
    }
    check(model(nodes, {"x": (1, 2)}, constants))


def test_rows_of_a_table_are_looked_up() -> None:
    nodes = [("Gather", ["table", "i"], ["y"], {})]
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "test",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [1, 3])],
        [helper.make_tensor_value_info("y", F32, None)],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    indices = np.int64([[3, 0, 2]])
    np.testing.assert_array_equal(from_onnx(proto)(torch.from_numpy(indices)).detach(), reference(proto, [indices])[0])


def residual_network():
    nodes = [
        ("Sub", ["x", "mean"], ["a"], {}),
        ("Conv", ["a", "w1", "b1"], ["b"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("BatchNormalization", ["b", "s", "o", "m", "v"], ["c"], {}),
        ("Relu", ["c"], ["d"], {}),
        ("Conv", ["d", "w2"], ["e"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("Add", ["e", "d"], ["f"], {}),
        ("Relu", ["f"], ["g"], {}),
        ("MaxPool", ["g"], ["h"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", ["h"], ["i"], {}),
        ("Gemm", ["i", "w3", "b3"], ["y"], {"transB": 1}),
    ]
    constants = {
        "mean": (1, 2, 1, 1),
        "w1": (4, 2, 3, 3),
        "b1": (4,),
        "s": (4,),
        "o": (4,),
        "m": (4,),
        "v": np.float32([1, 2, 0.5, 1]),
        "w2": (4, 4, 3, 3),
        "w3": (5, 36),
        "b3": (5,),
    }
    return model(nodes, {"x": (1, 2, 6, 6)}, constants)


def test_a_residual_network_is_an_ordinary_module(tmp_path) -> None:
    proto = residual_network()
    module = check(proto)
    assert dict(module.named_parameters()).keys() == {"mean", "w1", "b1", "s", "o", "w2", "w3", "b3"}
    assert module.meta["onnx"]["output_shapes"] == {"y": (1, 5)}
    x = torch.rand(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = np.concatenate([reference(proto, [one[None].numpy()])[0] for one in x])
    np.testing.assert_allclose(module(x).detach(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(copy.deepcopy(module)(x), module(x))
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
    (tmp_path / "model.onnx.gz").write_bytes(gzip.compress(proto.SerializeToString()))
    assert torch.equal(from_onnx(tmp_path / "model.onnx.gz")(x), module(x))
    onnx.save(proto, tmp_path / "model.onnx")
    assert torch.equal(from_onnx(str(tmp_path / "model.onnx"))(x), module(x))


def test_an_unsupported_operator_is_named_with_its_node() -> None:
    proto = model([("Det", ["x"], ["z"], {}), ("NonZero", ["z"], ["y"], {})], {"x": (1, 2, 2)})
    with pytest.raises(OnnxError, match=r"Det \(node 'Det_z'\), NonZero \(node 'NonZero_y'\).*supported are.*Gemm"):
        from_onnx(proto)


def test_what_cannot_be_translated_is_refused_by_node(tmp_path) -> None:
    with pytest.raises(OnnxError, match=r"node 'Resize_y' .*'cubic' is not supported"):
        from_onnx(model([("Resize", ["x", "", "s"], ["y"], {"mode": "cubic"})], {"x": (1, 1, 2, 2)}, {"s": (4,)}))
    with pytest.raises(OnnxError, match=r"node 'MatMul_y' .*shapes \[\(1, 3\), \(4, 2\)\]"):
        from_onnx(model([("MatMul", ["x", "w"], ["y"], {})], {"x": (1, 3)}, {"w": (4, 2)}))
    with pytest.raises(OnnxError, match="input 1 depends on the model's inputs"):
        from_onnx(model([("Clip", ["x", "z"], ["y"], {})], {"x": (1, 3), "z": ()}))
    with pytest.raises(OnnxError, match=r"input 'x': its shape \[1, 0\] is open"):
        from_onnx(model([("Relu", ["x"], ["y"], {})], {"x": (1, "n")}))
    assert from_onnx(model([("Relu", ["x"], ["y"], {})], {"x": (1, "n")}), input_shapes={"x": (1, 3)})(
        torch.ones(1, 3)
    ).shape == (1, 3)
    with pytest.raises(OnnxError, match="no input 'z'"):
        from_onnx(model([("Relu", ["x"], ["y"], {})], {"x": (1, 2)}), input_shapes={"z": (1, 3)})
    with pytest.raises(OnnxError, match="its input 'q' comes from nowhere"):
        from_onnx(model([("Relu", ["q"], ["y"], {})], {"x": (1, 2)}))
    (tmp_path / "bad.onnx").write_text("no model")
    with pytest.raises(OnnxError, match="is not an ONNX model"):
        from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(TypeError, match="model: expected a path"):
        from_onnx(3)


def test_a_missing_package_says_which_install_brings_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'offprint\[onnx\]'"):
        from_onnx("model.onnx")


def test_every_operator_of_the_table_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    untested = [op for op in translators if f'"{op}"' not in text and op not in UNARY]
    assert set(untested) <= {"CastLike", "Round", "Not", "And", "Or", "Equal", "Greater", "GreaterOrEqual", "Less"} | {
        "LessOrEqual",
        "Size",
        "EyeLike",
    }
