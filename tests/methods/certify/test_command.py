"""``offprint certify``: the verdict on the first line, the exit status, and errors in one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import config
from typer.testing import CliRunner

from offprint.cli import app

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

HEADER = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))"


@pytest.fixture(autouse=True)
def _unchecked():
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


@pytest.fixture
def absolute_value(tmp_path: Path) -> Path:
    """|x|, as relu(x) + relu(-x)."""
    constants = [("w", [2, 1], [1.0, -1.0]), ("v", [1, 2], [1.0, 1.0])]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["z"], transB=1),
            helper.make_node("Relu", ["z"], ["h"]),
            helper.make_node("Gemm", ["h", "v"], ["y"], transB=1),
        ],
        "absolute",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor(name, TensorProto.FLOAT, shape, values) for name, shape, values in constants],
    )
    path = tmp_path / "absolute.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def certify(model: Path, condition: str, *options: str):
    prop = model.parent / "property.vnnlib"
    prop.write_text(HEADER + f"(assert {condition})")
    return CliRunner().invoke(app, ["certify", str(model), str(prop), *options])


def test_a_property_that_holds(absolute_value: Path) -> None:
    found = certify(absolute_value, "(>= Y_0 1.25)")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[0] == "verified"
    assert "no input has a margin below 0.25" in found.stdout


def test_a_counterexample_that_onnxruntime_confirms(absolute_value: Path, tmp_path: Path) -> None:
    found = certify(absolute_value, "(>= Y_0 0.75)")
    assert found.exit_code == 1, found.output
    assert found.stdout.splitlines()[0] == "counterexample"
    x = float(re.search(r"\(X_0 (\S+)\)", found.stdout).group(1))
    session = onnxruntime.InferenceSession(absolute_value, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.float32([[x]])})[0].item() >= 0.75
    written = certify(absolute_value, "(>= Y_0 0.75)", "--counterexample", str(tmp_path / "found.txt"))
    assert "(X_0" not in written.stdout
    assert (tmp_path / "found.txt").read_text().startswith("((X_0 ")


def test_no_time_is_an_unknown_answer(absolute_value: Path) -> None:
    found = certify(absolute_value, "(>= Y_0 1.25)", "--timeout", "1e-9")
    assert found.exit_code == 3, found.output
    assert found.stdout.splitlines()[0] == "unknown"


def test_every_option_reaches_the_verifier(absolute_value: Path) -> None:
    options = ["--method", "crown", "--branching", "relu", "--batch", "2", "--device", "cpu", "--timeout", "60"]
    found = certify(absolute_value, "(>= Y_0 1.25)", *options)
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(
    ("condition", "options", "message"),
    [
        ("(> Y_0)", (), "'>' takes two sides"),
        ("(>= Y_0 1)", ("--timeout", "0"), "time_limit: expected more than 0"),
        ("(>= Y_0 1)", ("--device", "nowhere"), "nowhere"),
    ],
)
def test_errors_are_one_line(absolute_value: Path, condition, options, message) -> None:
    found = certify(absolute_value, condition, *options)
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stderr.startswith("offprint: ")
    assert "Traceback" not in found.output


def test_files_that_are_not_there_or_not_what_they_should_be(absolute_value: Path, tmp_path: Path) -> None:
    missing = certify(tmp_path / "missing.onnx", "(>= Y_0 1)")
    assert missing.exit_code == 2
    assert "missing.onnx" in missing.stderr
    (tmp_path / "bad.onnx").write_text("no model")
    assert "is not an ONNX model" in certify(tmp_path / "bad.onnx", "(>= Y_0 1)").stderr
