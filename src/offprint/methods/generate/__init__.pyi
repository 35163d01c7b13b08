from .diffusion import Denoiser as Denoiser
from .diffusion import denoising_loss as denoising_loss
from .diffusion import karras_times as karras_times
from .diffusion import probability_flow as probability_flow

__all__ = [
    "Denoiser",
    "denoising_loss",
    "karras_times",
    "probability_flow",
]
