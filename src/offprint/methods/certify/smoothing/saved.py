"""Certificates in a file, one line each, so that a long run over a test set can be stopped and go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.certify.smoothing.certificate import Certificate


class SavedCertificates:
    """A file of JSON lines: what was run, then one certificate a line, in the order of the inputs.

    Parameters
    ----------
    path : Path
        The file; it need not exist.
    base : callable
        The model; the weights of a ``torch.nn.Module`` count as part of the run, other callables cannot be told apart.
    inputs : tensor, shape (n, ...)
        What is certified.
    seeds : sequence of int, shape (n,)
        Of the noise of each input.
    settings : mapping
        Everything else that the certificates depend on, as plain numbers and words.
    """

    def __init__(
        self,
        path: Path,
        base: object,
        inputs: Float[Tensor, "n *input"],
        seeds: Sequence[int],
        settings: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.run = {**settings, "inputs": _digest(inputs, seeds), "model": _digest_of_model(base)}

    def read(self) -> list[Certificate]:
        """Return the certificates that are there; a last line that was cut short is dropped from the file."""
        if not self.path.exists() or not self.path.stat().st_size:
            self.path.write_text(json.dumps(self.run) + "\n", encoding="utf-8")
            return []
        lines = self.path.read_bytes().split(b"\n")
        whole, rest = lines[:-1], lines[-1]
        found = json.loads(whole[0]) if whole else {}
        differing = [name for name, value in self.run.items() if found.get(name) != value]
        if differing:
            raise ValueError(
                f"save_to: {self.path} holds certificates of another run, with different {', '.join(differing)}; "
                "give another file, or remove it"
            )
        if rest:
            self.path.write_bytes(b"\n".join(whole) + b"\n")
        return [_certificate(json.loads(line)) for line in whole[1:]]

    def append(self, certificate: Certificate) -> None:
        """Add one certificate."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(certificate)) + "\n")


def _certificate(fields: dict[str, Any]) -> Certificate:
    return Certificate(**{**fields, "counts": tuple(fields["counts"])})


def _digest(inputs: Tensor, seeds: Sequence[int]) -> str:
    content = hashlib.sha256(repr((inputs.dtype, tuple(inputs.shape), list(seeds))).encode())
    content.update(_bytes(inputs))
    return content.hexdigest()


def _digest_of_model(base: object) -> str | None:
    if not isinstance(base, nn.Module):
        return None
    content = hashlib.sha256()
    for name, tensor in base.state_dict().items():
        if isinstance(tensor, Tensor):
            content.update(name.encode() + _bytes(tensor))
    return content.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
