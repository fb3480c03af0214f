"""The mathematics of sigmoid, log_sigmoid, softmax and log_softmax and of their vector-Jacobian products, on scalars.

Drivers of every target call these; the forward passes of rows of classes are in `_softmax`.
"""

from __future__ import annotations

from . import _scalar
from ._scalar import exp, expm1

_sigmoid = _scalar.sigmoid
_log_sigmoid = _scalar.log_sigmoid


# --- of each element: (x, unused) forward, (output y, upstream gradient g) backward ----------------------------------------


def sigmoid_forward(x, g):
    return _sigmoid(x)


def sigmoid_backward(y, g):
    return g * (y * (type(y)(1) - y))


def log_sigmoid_forward(x, g):
    return _log_sigmoid(x)


def log_sigmoid_backward(y, g):
    return -g * expm1(y)


ELEMENTWISE = {f.__name__: f for f in (sigmoid_forward, sigmoid_backward, log_sigmoid_forward, log_sigmoid_backward)}


# --- of each element of a row: what g is multiplied by in a sum over the row, and the result from that sum ------------------


def softmax_share(y):
    return y


def softmax_backward(y, g, dot):
    """y (g - sum(g y))."""
    return y * (g - type(y)(dot))


def log_softmax_share(y):
    return type(y)(1)


def log_softmax_backward(y, g, dot):
    """g - exp(y) sum(g), without the cancellation of g where exp(y) is near 1."""
    others = type(y)(dot - g)
    return -g * expm1(y) - exp(y) * others


CLASSWISE = {
    "softmax_backward": (softmax_share, softmax_backward),
    "log_softmax_backward": (log_softmax_share, log_softmax_backward),
}
