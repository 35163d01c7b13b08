from .gradient import AttackResult as AttackResult
from .gradient import projected_gradient_descent as projected_gradient_descent

__all__ = ["AttackResult", "projected_gradient_descent"]
