"""Optional terms that keep latents from collapsing without the help of a slow teacher. Off by default."""

import torch
from torch import Tensor


def sigreg(x: Tensor, num_slices: int = 256, num_points: int = 17) -> Tensor:
    """Sketched isotropic Gaussian regularisation (LeJEPA, arXiv 2511.08544, section 4).

    Tokens (..., D) are projected on random unit directions; the Epps-Pulley statistic compares the empirical
    characteristic function of each projection with exp(-s^2 / 2), weighted by it. Zero for a standard normal.
    """
    x = x.flatten(0, -2).float()  # (n, D)
    directions = torch.nn.functional.normalize(torch.randn(x.shape[1], num_slices, device=x.device), dim=0)
    s = torch.linspace(0, 3, num_points, device=x.device)  # the integrand is even
    phase = (x @ directions)[..., None] * s  # (n, slices, points)
    normal = torch.exp(-0.5 * s**2)
    error = (phase.cos().mean(0) - normal) ** 2 + phase.sin().mean(0) ** 2
    return torch.trapezoid(error * normal, s, dim=1).mean()


def vicreg(x: Tensor) -> Tensor:
    """Variance and covariance terms of VICReg (arXiv 2105.04906, eq. 1-3) over tokens (..., D).

    Mean hinge on a standard deviation of 1, plus the squared off-diagonal covariances summed and divided by D.
    """
    x = x.flatten(0, -2).float()
    x = x - x.mean(0)
    covariance = x.T @ x / (len(x) - 1)
    variance = covariance.diagonal()
    off_diagonal = covariance.pow(2).sum() - variance.pow(2).sum()
    return (1 - (variance + 1e-4).sqrt()).relu().mean() + off_diagonal / x.shape[1]
