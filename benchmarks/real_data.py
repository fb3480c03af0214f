"""Models trained on real data with NumPy, SciPy and nlosses alone, beside scikit-learn.

    python -m benchmarks.real_data [--quick] [--seed N] [--out PNG]

Three tasks, each with two trainers, `scipy.optimize.minimize` (L-BFGS-B, all data in each step) and a plain loop of momentum
SGD over mini-batches:

1. logistic regression on Wisconsin breast cancer, `binary_cross_entropy_with_logits`;
2. softmax regression on handwritten digits, `cross_entropy`;
3. distillation on the digits: a student network with few labels, alone and with a teacher's probabilities, `kl_div`.

Tasks 1 and 2 are convex, so there is one right answer: scikit-learn's solution of the same problem must have the same
objective to 1e-6 and the same test accuracy as that of L-BFGS.  In task 3 the student must gain from its teacher.  The exit
status is 1 where one of these fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

import nlosses as nl

from . import _terminal
from ._report import Curve, Report

UNLABELLED = -100  # what `cross_entropy` ignores
TEMPERATURE = 3.0
DRAWS = 5  # of the few labels; one draw would prove nothing
LABELS = 40
BATCH = 32

Rows = Any  # slice or indices of samples
Head = Callable[[np.ndarray, Rows], tuple[float, np.ndarray]]  # logits, rows -> mean loss, its gradient
Objective = Callable[..., tuple[float, np.ndarray]]  # parameters, rows -> value, gradient


class Data(NamedTuple):
    """Standardised features and labels."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def load(loader: Callable[..., Any], seed: int) -> Data:
    """A quarter of the data is for testing; the features are standardised by what the training data shows."""
    from sklearn.model_selection import train_test_split

    X, y = loader(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
    scale = X.std(axis=0)
    scale[scale == 0] = 1  # pixels that are always black
    return Data((X - X.mean(axis=0)) / scale, y, (X_test - X.mean(axis=0)) / scale, y_test)


# --- models ----------------------------------------------------------------------------------------------------------


class Network:
    """Dense layers with tanh between them; the parameters are one flat vector.  Without hidden layers it is linear."""

    def __init__(self, *sizes: int) -> None:
        self.shapes = [(m + 1, n) for m, n in pairwise(sizes)]  # the last row holds the offsets

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Zeros for a linear model, whose problem is convex; else small random numbers."""
        if len(self.shapes) == 1:
            return np.zeros(self.shapes[0][0] * self.shapes[0][1])
        return np.concatenate([(rng.standard_normal(s) / np.sqrt(s[0])).ravel() for s in self.shapes])

    def layers(self, theta: np.ndarray) -> Iterator[np.ndarray]:
        """Views of the matrices of all layers."""
        lo = 0
        for m, n in self.shapes:
            yield theta[lo : lo + m * n].reshape(m, n)
            lo += m * n

    def logits(self, theta: np.ndarray, X: np.ndarray) -> np.ndarray:
        return self._forward(theta, X)[-1]

    def _forward(self, theta: np.ndarray, X: np.ndarray) -> list[np.ndarray]:
        activations = [X]
        for k, W in enumerate(self.layers(theta)):
            z = activations[-1] @ W[:-1] + W[-1]
            activations.append(np.tanh(z) if k < len(self.shapes) - 1 else z)
        return activations

    def objective(self, X: np.ndarray, head: Head, penalty: float) -> Objective:
        """Mean loss plus ``penalty / 2`` times the sum of the squared weights, offsets excepted."""

        def value_and_grad(theta: np.ndarray, rows: Rows = slice(None)) -> tuple[float, np.ndarray]:
            *activations, z = self._forward(theta, X[rows])
            value, slope = head(z, rows)
            grad = np.empty_like(theta)
            for k, (W, G) in reversed(list(enumerate(zip(self.layers(theta), self.layers(grad), strict=True)))):
                a = activations[k]
                G[:-1] = a.T @ slope + penalty * W[:-1]
                G[-1] = slope.sum(axis=0)
                value += penalty / 2 * float(np.vdot(W[:-1], W[:-1]))
                if k:
                    slope = (slope @ W[:-1].T) * (1 - a * a)
            return value, grad

        return value_and_grad


def labels(loss: nl.Loss[Any], y: np.ndarray) -> Head:
    """Mean loss against labels; the gradient overwrites the logits, which nobody needs any more."""
    return lambda z, rows: loss.value_and_grad(z, y[rows], out=z)


def labels_and_teacher(y: np.ndarray, probabilities: np.ndarray) -> Head:
    """Divergence from the teacher's softened probabilities, plus the cross entropy of the samples that have a label."""
    T = TEMPERATURE

    def head(z: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        log_q = nl.log_softmax(z / T, axis=1)
        soft, slope = nl.kl_div.value_and_grad(log_q, probabilities[rows], reduction="sum")
        hard, grad = nl.cross_entropy.value_and_grad(z, y[rows], ignore_index=UNLABELLED, reduction="sum")
        grad += T * nl.log_softmax.vjp(slope, log_q, axis=1)  # T^2, and 1 / T from the argument of log_softmax
        return (T * T * soft + hard) / len(z), grad / len(z)

    return head


# --- trainers --------------------------------------------------------------------------------------------------------


@dataclass
class Trace:
    """Parameters after so many passes over the training data."""

    trainer: str
    passes: list[int] = field(default_factory=lambda: [0])
    thetas: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def theta(self) -> np.ndarray:
        return self.thetas[-1]


def lbfgs(objective: Objective, start: np.ndarray, rounds: int) -> Trace:
    trace = Trace("L-BFGS-B", thetas=[start])
    calls = 0

    def counted(theta: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return objective(theta)

    def watch(theta: np.ndarray) -> None:
        trace.passes.append(calls)
        trace.thetas.append(theta.copy())

    began = time.perf_counter()
    options = {"maxiter": rounds, "maxfun": 10 * rounds, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    minimize(counted, start, jac=True, method="L-BFGS-B", callback=watch, options=options)
    trace.seconds = time.perf_counter() - began
    return trace


def sgd(objective: Objective, start: np.ndarray, n: int, epochs: int, rate: float, rng: np.random.Generator) -> Trace:
    """Momentum SGD; the rate falls to 0 along half a cosine."""
    trace = Trace("momentum SGD", thetas=[start])
    theta, velocity = start.copy(), np.zeros_like(start)
    began = time.perf_counter()
    for epoch in range(epochs):
        order = rng.permutation(n)
        for lo in range(0, n, BATCH):
            now = rate * (1 + np.cos(np.pi * (epoch + lo / n) / epochs)) / 2
            _, grad = objective(theta, order[lo : lo + BATCH])
            velocity *= 0.9
            velocity -= now * grad
            theta += velocity
        trace.passes.append(epoch + 1)
        trace.thetas.append(theta.copy())
    trace.seconds = time.perf_counter() - began
    return trace


# --- tasks -----------------------------------------------------------------------------------------------------------


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
    return float((predicted == y).mean())


def convex(report: Report, title: str, data: Data, loss: nl.Loss[Any], k: int, rate: float, args: Any, step: Any) -> None:
    """Linear model by both trainers and by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    n, penalty = len(data.y), 0.01
    network = Network(data.X.shape[1], k)
    rng = np.random.default_rng(args.seed)
    y = data.y if k > 1 else data.y[:, None].astype(float)
    objective = network.objective(data.X, labels(loss, y), penalty)
    start = network.start(rng)
    objective(start)  # loads or compiles the kernels

    ours = lbfgs(objective, start, 2000)
    step()
    traces = [ours, sgd(objective, start, n, args.epochs, rate, rng)]
    step()
    for trace in traces:
        score = accuracy(network.logits(trace.theta, data.X_test), data.y_test)
        report.row(title, trace.trainer, objective(trace.theta)[0], score, trace.seconds)
        curve = Curve(trace.trainer, trace.passes, [objective(theta)[0] for theta in trace.thetas])
        report.panels.setdefault(title, []).append(curve)

    began = time.perf_counter()
    peer = LogisticRegression(C=1 / (penalty * n), tol=1e-9, max_iter=10_000).fit(data.X, data.y)
    seconds = time.perf_counter() - began
    theta = np.vstack([peer.coef_.T, peer.intercept_]).ravel()
    value, score = objective(theta)[0], accuracy(network.logits(theta, data.X_test), data.y_test)
    report.row(title, "scikit-learn", value, score, seconds)
    report.optima[title] = value
    difference = objective(ours.theta)[0] / value - 1
    report.check(
        abs(difference) <= report.tolerance,
        f"{title}: objective of L-BFGS-B within {difference:+.0e} of scikit-learn's",
    )
    same = accuracy(network.logits(ours.theta, data.X_test), data.y_test) == score
    report.check(same, f"{title}: test accuracy of L-BFGS-B {'equal to' if same else 'differs from'} scikit-learn's")
    step()


def distillation(report: Report, title: str, data: Data, args: Any, step: Any) -> None:
    """A small student with few labels, alone and with the probabilities of a teacher that has seen all labels."""
    n, d = data.X.shape
    rng = np.random.default_rng(args.seed)
    teacher, student = Network(d, 64, 10), Network(d, 12, 10)

    def held_out(network: Network, theta: np.ndarray) -> float:
        return float(nl.cross_entropy(network.logits(theta, data.X_test), data.y_test))

    def score(network: Network, theta: np.ndarray) -> float:
        return accuracy(network.logits(theta, data.X_test), data.y_test)

    objective = teacher.objective(data.X, labels(nl.cross_entropy, data.y), 1e-3)
    wise = sgd(objective, teacher.start(rng), n, args.epochs, 0.1, rng)
    report.row("teacher, all labels", wise.trainer, objective(wise.theta)[0], score(teacher, wise.theta), wise.seconds)
    step()
    probabilities = nl.softmax(teacher.logits(wise.theta, data.X) / TEMPERATURE, axis=1)

    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(DRAWS):
        few = np.concatenate([rng.choice(np.flatnonzero(data.y == c), LABELS // 10, replace=False) for c in range(10)])
        y = np.full(n, UNLABELLED)
        y[few] = data.y[few]
        alone = student.objective(data.X[few], labels(nl.cross_entropy, y[few]), 1e-2)
        taught = student.objective(data.X, labels_and_teacher(y, probabilities), 1e-3)
        start = student.start(rng)
        for name, f, size, epochs in (("alone", alone, LABELS, 4 * args.epochs), ("taught", taught, n, args.epochs)):
            f(start)  # loads or compiles the kernels
            for trace in (lbfgs(f, start, 2 * args.epochs), sgd(f, start, size, epochs, 0.05, rng)):
                results = found.setdefault((name, trace.trainer), [])
                results.append((f(trace.theta)[0], score(student, trace.theta), trace.seconds))
                losses = [held_out(student, theta) for theta in trace.thetas]
                curve = Curve(f"{name}, {trace.trainer}", trace.passes, losses)
                report.panels.setdefault(title, []).append(curve)
        step()
    report.panels[title].append(Curve("teacher", wise.passes, [held_out(teacher, theta) for theta in wise.thetas]))
    for (name, trainer), results in found.items():
        report.row(f"student {name}, {LABELS} labels", trainer, *np.mean(results, axis=0))
    for trainer in dict.fromkeys(trainer for _, trainer in found):
        gains = [100 * (b[1] - a[1]) for a, b in zip(found["alone", trainer], found["taught", trainer], strict=True)]
        text = f"student gains {np.mean(gains):.1f} points of accuracy from its teacher ({trainer}, {DRAWS} draws: "
        report.check(min(gains) > 0, text + ", ".join(f"{gain:+.1f}" for gain in gains) + ")")


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.real_data", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the draws and the mini-batches")
    default = Path(__file__).parent / "results" / "real_data.png"
    parser.add_argument("--out", type=Path, default=default, metavar="PNG", help="plot, or its folder (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.out.is_dir() or args.out.suffix.lower() != ".png":
        args.out = args.out / "real_data.png"
    args.epochs = 15 if args.quick else 60
    _terminal.require(parser.prog, "sklearn", "matplotlib", "rich")

    from sklearn.datasets import load_breast_cancer, load_digits
    from threadpoolctl import threadpool_limits

    report = Report()

    def work() -> int:
        # Matrices of this size gain nothing from threads, and OpenBLAS's spin where another program wants the cores.
        with _terminal.progress() as progress, threadpool_limits(1, user_api="blas"):
            task = progress.add_task("", total=3 + 3 + 1 + DRAWS)

            def step() -> None:
                progress.advance(task)

            progress.update(task, description="Breast cancer")
            cancer, digits = load(load_breast_cancer, args.seed), load(load_digits, args.seed)
            title = "Logistic regression, breast cancer"
            convex(report, title, cancer, nl.binary_cross_entropy_with_logits, 1, 0.05, args, step)
            progress.update(task, description="Digits")
            convex(report, "Softmax regression, digits", digits, nl.cross_entropy, 10, 0.05, args, step)
            progress.update(task, description="Distillation")
            distillation(report, f"Distillation, digits, {LABELS} labels", digits, args, step)
        report.plot(args.out)
        return 1 if report.failures else 0

    status = _terminal.guarded(work, report.show)
    if status != _terminal.INTERRUPTED:
        print(f"Plot: {args.out}")
    for text in report.failures:
        print(f"failed: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
