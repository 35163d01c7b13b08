"""Is a network provably monotone in a feature: at every sample, whatever the feature's value."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from offprint.methods.certify.lipschitz.local import Forward, captured, directional_bounds
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.perturbations import Box

AT_ONCE = 1024


def monotonicity(
    model: nn.Module | BoundedModule,
    X: Float[Tensor, "batch features"],
    feature: int,
    low: float = 0.0,
    high: float = 1.0,
    output: int = 0,
    *,
    pieces: int = 1,
    forward: Forward = "alpha-crown",
    memory: int = 2**30,
) -> Shaped[np.ndarray, " batch"]:
    """Tell for each sample whether an output provably only grows, or only falls, with a feature.

    The feature takes all values from ``low`` to ``high`` while the others stay as they are in the sample. Use it to
    prove that a score treats a feature the way it must: a higher income never lowers a credit score.

    Parameters
    ----------
    model : torch.nn.Module or BoundedModule
        As for :func:`local_lipschitz`.
    X : Tensor, shape (batch, features)
        Samples, finite, in the model's dtype.
    feature : int
        Column of ``X``.
    low, high : float
        Range of the feature, finite, ``low < high``. The sample's own value need not be inside.
    output : int
        Column of the output.
    pieces : int
        Parts that the range is cut into, at least 1; more prove more, at a cost that grows as much.
    forward : {"alpha-crown", "crown", "ibp"}
        How pre-activations are bounded.
    memory : int
        About how many bytes of coefficients to hold at once.

    Returns
    -------
    numpy.ndarray of str, shape (batch,)
        "increasing" where the derivative is proved to be at least 0 everywhere on the range, "decreasing" where it is
        proved to be at most 0, and "unknown" where neither is proved. A constant output is "increasing".

    Raises
    ------
    ValueError
        If an argument is out of its range, not finite or does not fit, or the model is refused as by
        :func:`local_lipschitz`.
    TypeError
        If ``model`` is no module or ``X`` no floating-point tensor.

    Notes
    -----
    One call of :func:`jvp_bounds` along the feature on ``batch * pieces`` samples, about 1000 at a time.

    Examples
    --------
    >>> import torch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> for layer in (model[0], model[2]):
    ...     layer.weight.data = layer.weight.data.abs()
    >>> monotonicity(model, torch.zeros(2, 2), feature=0).tolist()
    ['increasing', 'increasing']

    References
    ----------
    Zhouxing Shi, Yihan Wang, Huan Zhang, J. Zico Kolter, Cho-Jui Hsieh, Efficiently Computing Local Lipschitz Constants
    of Neural Networks via Bound Propagation, arXiv:2210.07394, experiments on monotonicity.
    """
    if isinstance(X, Tensor) and X.ndim != 2:
        raise ValueError(f"X: expected shape (batch, features), got {tuple(X.shape)}")
    network, _ = captured(model, X, "X")
    if not -X.shape[1] <= feature < X.shape[1]:
        raise ValueError(f"feature: expected a column of X, which has {X.shape[1]}, got {feature}")
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"low, high: expected finite numbers with low < high, got {low} and {high}")
    if pieces < 1:
        raise ValueError(f"pieces: expected at least 1, got {pieces}")
    edges = torch.linspace(low, high, pieces + 1, dtype=X.dtype, device=X.device)
    direction = torch.zeros_like(X[0])
    direction[feature] = 1
    labels = []
    with torch.no_grad():
        for part in torch.split(X, max(1, AT_ONCE // pieces)):
            lower, upper = (part.repeat_interleave(pieces, 0) for _ in range(2))
            lower[:, feature] = edges[:-1].repeat(len(part))
            upper[:, feature] = edges[1:].repeat(len(part))
            middle = (lower + upper) / 2
            least, greatest = directional_bounds(
                network, middle, direction.expand(middle.shape), Box(lower, upper), forward, "hull", memory
            )
            if not -least.shape[1] <= output < least.shape[1]:
                raise ValueError(f"output: expected a column of the output, which has {least.shape[1]}, got {output}")
            labels.append(_labels(least[:, output].reshape(-1, pieces), greatest[:, output].reshape(-1, pieces)))
    return np.concatenate(labels)


def _labels(least: Tensor, greatest: Tensor) -> np.ndarray:
    grows, falls = (least >= 0).all(1).cpu().numpy(), (greatest <= 0).all(1).cpu().numpy()
    return np.where(grows, "increasing", np.where(falls, "decreasing", "unknown"))
