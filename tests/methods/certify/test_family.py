"""What the family exports: every name, lazily, a module among them, and without the optional package onnx."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from offprint.methods import certify

STUB = Path(certify.__file__).with_suffix(".pyi")


def test_the_stub_lists_what_it_imports_once() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    (listed,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert len(imported) == len(set(imported))
    assert sorted(imported) == sorted(listed) == certify.__all__


@pytest.mark.parametrize("name", certify.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(certify, name).__name__.rpartition(".")[2] == name


def test_names_that_two_parts_share_are_those_of_the_stub() -> None:
    assert certify.Certificate.__module__ == "offprint.methods.certify.smoothing.certificate"
    assert certify.certify.__module__ == "offprint.methods.certify.lirpa.certificates"


IMPORTED = """
import sys
sys.modules["onnx"] = None  # as if it were not installed
from offprint.methods import certify
print(sorted(name for name in ("torch", "onnx") if sys.modules.get(name)))
print(certify.vnnlib.read.__name__)
from offprint.methods.certify import from_onnx, verify, vnnlib, BoundedModule
try:
    from_onnx("model.onnx")
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_onnx_only_reading_a_model_fails() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == [
        "[]",
        "read",
        "reading ONNX models needs the package onnx: pip install 'offprint[onnx]'",
    ], run.stderr
