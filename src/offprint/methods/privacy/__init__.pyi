from .mechanisms import PrivacyReport as PrivacyReport
from .mechanisms import gaussian_mechanism as gaussian_mechanism
from .mechanisms import gaussian_scale as gaussian_scale
from .mechanisms import laplace_mechanism as laplace_mechanism
from .mechanisms import laplace_scale as laplace_scale

__all__ = ["PrivacyReport", "gaussian_mechanism", "gaussian_scale", "laplace_mechanism", "laplace_scale"]
