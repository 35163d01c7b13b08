"""What is to be bounded, and which parameters are perturbed: specifications as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.outputs import Key
from offprint.methods.certify.lirpa.perturbations import Perturbation
from offprint.methods.certify.lirpa.problem import Problem, join_elements


def margin_spec(y: Int[Tensor, " samples"], n_classes: int) -> Float[Tensor, "samples margins n_classes"]:
    """Return the rows ``e_y - e_k`` for all classes k other than y: margins of the right class over each other one.

    Parameters
    ----------
    y : Tensor of int, shape (samples,)
        Labels in [0, n_classes).
    n_classes : int
        At least 2.

    Returns
    -------
    Tensor, shape (samples, n_classes - 1, n_classes)
        For ``C`` of `BoundedModule.compute_bounds`; float32.

    Raises
    ------
    ValueError
        If a label is out of range.

    Notes
    -----
    O(samples * n_classes ** 2) numbers.

    Examples
    --------
    >>> import torch
    >>> margin_spec(torch.tensor([1]), 3)
    tensor([[[-1.,  1.,  0.],
             [ 0.,  1., -1.]]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 3.4.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: expected at least 2, got {n_classes}")
    if y.ndim != 1 or y.is_floating_point() or bool((y < 0).any()) or bool((y >= n_classes).any()):
        raise ValueError(f"y: expected whole numbers in [0, {n_classes}) of shape (samples,)")
    eye = torch.eye(n_classes, device=y.device)
    margins = eye[y].unsqueeze(1) - eye
    others = torch.arange(n_classes, device=y.device) != y.unsqueeze(1)
    return margins[others].reshape(len(y), n_classes - 1, n_classes)


def perturb_parameters(
    module: nn.Module, names: Sequence[str] | None, perturbation: Perturbation
) -> dict[Key, Perturbation]:
    """Return perturbations of parameters by name, for `BoundedModule.compute_bounds`.

    Parameters
    ----------
    module : torch.nn.Module
    names : sequence of str, optional
        As in ``module.named_parameters()``; by default all of them. Tied weights are one parameter, under whichever of
        their names; in the result it is the first.
    perturbation : Perturbation
        Of each parameter by itself: each has a ball of its own, all its elements together.

    Returns
    -------
    dict of str to Perturbation
        To be joined with those of inputs: ``{0: ball, **perturb_parameters(...)}``.

    Raises
    ------
    ValueError
        If a name is none of the module's.

    Notes
    -----
    A linear layer of a fixed input with its weight in an l2 ball has exact intervals.

    Examples
    --------
    >>> from offprint.methods.certify.lirpa.perturbations import LpBall
    >>> import torch
    >>> sorted(perturb_parameters(torch.nn.Linear(2, 1), None, LpBall(2, 0.1)))
    ['bias', 'weight']

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 4.3.
    """
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    known = {name: first[id(one)] for name, one in module.named_parameters(remove_duplicate=False)}
    names = list(first.values()) if names is None else names
    for name in names:
        if name not in known:
            raise ValueError(f"names: expected parameters of the module, got {name!r}; it has {sorted(known)}")
    return dict.fromkeys([known[name] for name in names], perturbation)


def specified_rows(problem: Problem, target: Node, C: Tensor | None) -> Tensor | None:
    """Return the specification as rows of coefficients of the target, (rows, *shape)."""
    if C is None:
        return None
    n_outputs = target.shape.numel() // (problem.n_samples if problem.batched else 1)
    fits = C.ndim in (2, 3) and C.shape[-1] == n_outputs and C.shape[-2] > 0
    if not fits or (C.ndim == 3 and C.shape[0] != problem.n_samples):
        raise ValueError(
            f"C: expected shape ({problem.n_samples}, rows, {n_outputs}) or (rows, {n_outputs}), got {tuple(C.shape)}"
        )
    if not bool(torch.isfinite(C).all()):
        raise ValueError("C: expected finite numbers, got nan or inf")
    C = C.to(dtype=target.meta.dtype).expand(problem.n_samples, *C.shape[-2:])
    layout = problem.layouts[target]
    if layout is None and problem.tracked:
        if target.shape[:1] != (problem.n_samples,):
            raise ValueError("C: the output has no samples on its first axis")
        per_sample = C.new_zeros(C.shape[1], problem.n_samples, *C.shape[:1], C.shape[2])
        index = torch.arange(problem.n_samples, device=C.device)
        per_sample[:, index, index] = C.movedim(1, 0)
        return per_sample.reshape(-1, *target.shape)
    return join_elements(C.movedim(1, 0), target.shape, layout)
