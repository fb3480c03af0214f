"""Machine-learning losses with exact gradients and curvature for NumPy arrays, compiled by Numba."""

from . import _scalar as scalar
from . import losses as _losses
from ._functions import log_sigmoid, log_softmax, sigmoid, softmax
from ._loss import Loss, classwise, elementwise
from ._memory import release_memory
from ._modules import module as _module
from ._spec import Interval
from ._version import __version__ as __version__

binary_cross_entropy = Loss(_losses.binary_cross_entropy)
binary_cross_entropy_with_logits = Loss(_losses.binary_cross_entropy_with_logits)
cross_entropy = Loss(_losses.cross_entropy)
kl_div = Loss(_losses.kl_div)
l1_loss = Loss(_losses.l1_loss)
mse_loss = Loss(_losses.mse_loss)
nll_loss = Loss(_losses.nll_loss)

BCELoss = _module(binary_cross_entropy)
BCEWithLogitsLoss = _module(binary_cross_entropy_with_logits)
CrossEntropyLoss = _module(cross_entropy)
KLDivLoss = _module(kl_div)
L1Loss = _module(l1_loss)
MSELoss = _module(mse_loss)
NLLLoss = _module(nll_loss)

#: The losses of the library by name.
LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        cross_entropy,
        kl_div,
        l1_loss,
        mse_loss,
        nll_loss,
    )
}

__all__ = [
    "LOSSES",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Interval",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "NLLLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "classwise",
    "cross_entropy",
    "elementwise",
    "kl_div",
    "l1_loss",
    "log_sigmoid",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "release_memory",
    "scalar",
    "sigmoid",
    "softmax",
]
