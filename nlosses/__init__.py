"""Machine-learning losses with exact gradients and curvature for NumPy arrays, compiled by Numba."""

from . import _scalar as scalar
from . import losses as _losses
from ._loss import Loss, classwise, elementwise

__version__ = "0.1.0"

binary_cross_entropy = Loss(_losses.binary_cross_entropy)
binary_cross_entropy_with_logits = Loss(_losses.binary_cross_entropy_with_logits)
cross_entropy = Loss(_losses.cross_entropy)
kl_div = Loss(_losses.kl_div)
l1_loss = Loss(_losses.l1_loss)
mse_loss = Loss(_losses.mse_loss)
nll_loss = Loss(_losses.nll_loss)
