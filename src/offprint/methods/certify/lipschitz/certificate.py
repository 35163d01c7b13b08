"""What a bound rests on, kept so that it can be checked again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lipschitz.jacobian import Jacobian
from offprint.methods.certify.lipschitz.region import draw
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Relaxation, Scaled
from offprint.methods.certify.lirpa.perturbations import Perturbation
from offprint.methods.certify.lirpa.problem import Problem


@dataclass(frozen=True)
class Check:
    """What a second look at a certificate found.

    Parameters
    ----------
    holds : bool
        Whether nothing exceeded ``tolerance``.
    excess : dict of str to float
        By how much points left each kind of bound, at worst, relative to its size (at least 1): "inputs" of
        activations, "slopes", "gradients", "lines", "entries" of the Jacobian, "norms", and "arithmetic", the bound
        computed once more from the stored coefficients.
    n_points : int
        Points looked at.
    """

    holds: bool
    excess: dict[str, float]
    n_points: int


@dataclass(frozen=True, eq=False)
class Certificate:
    """Intervals, slopes, lines and coefficients of one bound on a Jacobian.

    Parameters
    ----------
    forward : Problem
        The network, with intervals of its pre-activations.
    jacobian : Jacobian
        Its gradient, with intervals and lines.
    region : Perturbation
    order : {1, 2}
    bounds : Tensor, shape (batch * rows,)
        Of the l1 norms, or the squared l2 norms.
    """

    forward: Problem
    jacobian: Jacobian
    region: Perturbation
    order: int
    bounds: Tensor

    def check(
        self, n_points: int = 100, generator: torch.Generator | None = None, tolerance: float | None = None
    ) -> Check:
        """Evaluate the network at points of the region and compare all it does there with what was certified.

        Parameters
        ----------
        n_points : int
            Points for each sample, at least 1.
        generator : torch.Generator, optional
            By default seeded with 0.
        tolerance : float, optional
            For rounding; by default 1000 times the dtype's.

        Returns
        -------
        Check

        Raises
        ------
        ValueError
            If ``n_points`` is below 1.

        Examples
        --------
        >>> import torch
        >>> from offprint.methods.certify.lipschitz import local_lipschitz
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> local_lipschitz(model, torch.zeros(1, 2), 0.3).certificate.check().holds
        True
        """
        if n_points < 1:
            raise ValueError(f"n_points: expected at least 1, got {n_points}")
        (root,) = self.forward.perturbations
        x = self.forward.value(root)
        generator = generator or torch.Generator(device=x.device).manual_seed(0)
        tolerance = 1000 * torch.finfo(x.dtype).eps if tolerance is None else tolerance
        excess: dict[str, float] = {"arithmetic": self._arithmetic()}
        with torch.no_grad():
            for point in draw(self.region, x, n_points, generator):
                for name, value in self._at(point).items():
                    excess[name] = max(excess.get(name, 0.0), value)
        return Check(all(value <= tolerance for value in excess.values()), excess, n_points)

    def _at(self, point: Tensor) -> dict[str, float]:
        (root,) = self.forward.perturbations
        roots = {node: value for node, value in self.forward.values.items() if node.target is None}
        network = Problem(self.forward.graph, roots | {root: point}, {}, None)
        excess = {"inputs": 0.0, "slopes": 0.0, "gradients": 0.0, "lines": 0.0, "entries": 0.0, "norms": 0.0}
        problem, slopes = self.jacobian.problem, {}
        given: dict[Node, Tensor] = {node: value for node, value in problem.values.items() if node.target is None}
        for product in self.jacobian.products:
            z = network.value(product.inputs)
            excess["inputs"] = max(excess["inputs"], _outside(z, *self.forward.intervals[product.inputs]))
            slope = self._slope(network, product.activation, product.inputs).repeat_interleave(
                len(product.least) // len(z), 0
            )
            excess["slopes"] = max(excess["slopes"], _outside(slope, product.least, product.greatest))
            slopes[product.node] = slope
            if isinstance(product.gradient, Tensor):
                given[product.node] = product.gradient * slope
            else:
                given.update(dict.fromkeys(product.node.args[1:], slope))
        gradient = Problem(problem.graph, given, {}, None)
        for product in self.jacobian.products:
            if isinstance(product.gradient, Node):
                g = gradient.value(product.gradient)
                excess["gradients"] = max(
                    excess["gradients"], _outside(g, *problem.intervals.get(product.gradient, (g, g)))
                )
                relaxation = problem.relaxations.get(product.node)
                if relaxation is not None:
                    excess["lines"] = max(excess["lines"], _off_lines(relaxation, g, g * slopes[product.node]))
        if isinstance(self.jacobian.node, Node) and isinstance(self.jacobian.total, Node):
            entries = gradient.value(self.jacobian.node)
            excess["entries"] = _outside(entries, *problem.intervals[self.jacobian.node])
            excess["norms"] = _outside(gradient.value(self.jacobian.total), None, self.bounds)
        return excess

    def _slope(self, network: Problem, activation: Node, inputs: Node) -> Tensor:
        operator, z = self.forward.operator(activation), network.value(inputs)
        if isinstance(operator, ElementwiseOperator):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                value = operator.function(self.forward.call(activation)).value(z)
                slope: Tensor = torch.autograd.grad(value.sum(), z)[0]
            return slope
        (other,) = [one for one in self.forward.inputs(activation) if one is not inputs]
        value = network.value(other)
        assert isinstance(value, Tensor)
        return value.expand(activation.shape)

    def _arithmetic(self) -> float:
        """Return how much the bound exceeds what the stored coefficients give in float64, on the side that matters."""
        pulled = self.jacobian.pulled
        if pulled is None:
            return 0.0
        total = pulled.constant[0, 0].double()
        for node, rows in pulled.coefficients.items():
            box = self.jacobian.problem.perturbations[node].box(self.jacobian.problem.value(node))
            lower, upper = (end.double() for end in box)
            matrix = rows[0, 0].double()
            total = total + torch.maximum(matrix * lower, matrix * upper).flatten(1).sum(1)
        # Only the linear bound is here; the certified one may be the interval bound, if that is smaller.
        return _outside(self.bounds.double(), None, total)


def _outside(value: Tensor, lower: Tensor | None, upper: Tensor) -> float:
    above = (value - upper) / upper.abs().clamp(min=1)
    worst = float(above.detach().max())
    if lower is not None:
        worst = max(worst, float(((lower - value) / lower.abs().clamp(min=1)).detach().max()))
    return max(worst, 0.0)


def _off_lines(relaxation: Relaxation, gradient: Tensor, product: Tensor) -> float:
    ends = []
    for plane in (relaxation.lower, relaxation.upper):
        assert isinstance(plane, Scaled)
        assert plane.offset is not None
        ends.append(plane.slope * gradient + plane.offset)
    return _outside(product, *ends)
