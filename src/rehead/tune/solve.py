"""Heads whose optimum is unique: multinomial logistic regression and the nearest class mean, on stored features.

Both see standardised features (mean 0, variance 1 over the training photos) and give a `Head` that acts on raw ones.
The penalty is a number per photo, on standardised features: the objective is the mean loss of a photo, in nats, plus
penalty / 2 x |weight|^2; the bias is free. In scikit-learn's terms C = 1 / (penalty x photos), twice that for two
classes, where it has one logit and we have two.

Training by gradient steps is left to `train.py`, numbers on held-out photos to `verify`. Numpy alone does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head

Features = NDArray[np.floating]
Labels = NDArray[np.integer]
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]

PENALTIES: tuple[float, ...] = tuple(10.0 ** (exponent / 2) for exponent in range(4, -10, -1))
TIGHT, LOOSE, QUICK = 1e-5, 1e-3, 1e-2


@dataclass(frozen=True)
class Solved:
    head: Head
    penalty: float
    cv_accuracy: float | None
    cv_log_loss: float | None
    iterations: int
    note: str = ""


@dataclass(frozen=True)
class _Photos:
    features: Features
    mean: Array32
    basis: Array32
    curvature: Array32

    def blocks(self, rows: int) -> Iterator[tuple[slice, Array32]]:
        for start in range(0, len(self.features), rows):
            part = slice(start, start + rows)
            yield part, self.features[part]


def _standard(features):
    n, d = features.shape
    total = np.zeros(d)
    for start in range(0, n, 1024):
        total += features[start : start + 1024].sum(axis=0, dtype=np.float64)
    mean = (total / n).astype(np.float32)
    squares = np.zeros(d)
    for start in range(0, n, 1024):
        block = features[start : start + 1024] - mean
        squares += np.einsum("nd,nd->d", block, block)
    std = np.sqrt(squares / n)
    ok = std > 5e-7 * np.abs(mean)
    return mean, np.where(ok, 1 / np.where(ok, std, 1), 0).astype(np.float32)


def _rotation(sample, whole):
    n, d = sample.shape
    Z = sample.astype(np.float64)
    if n < d and whole:
        e, q = np.linalg.eigh(Z @ Z.T / n)
        keep = e > e[-1] * 1e-10
        e, q = e[keep], q[:, keep]
        return (Z.T @ (q / np.sqrt(n * e))).astype(np.float32), e
    e, v = np.linalg.eigh(Z.T @ Z / n)
    return v.astype(np.float32), np.maximum(e, 0)


def evaluate(P, Z, labels, weights, stats):
    F, K, r = P.shape
    stats["passes"] = stats.get("passes", 0) + 1
    n = len(Z)
    rows = max(256, 4_000_000 // (F * K))
    loss = np.zeros(F)
    grad = np.zeros((F * K, r), np.float32)
    flat = P.reshape(F * K, r)
    for s in range(0, n, rows):
        z = Z[s : s + rows]
        w = weights[:, s : s + rows]
        at = (slice(None), labels[s : s + rows], np.arange(len(z)))
        L = (flat @ z.T).reshape(F, K, -1)
        L -= L.max(axis=1, keepdims=True)
        own = L[at]
        np.exp(L, out=L)
        S = L.sum(axis=1)
        loss += np.einsum("fn,fn->f", w, (np.log(S) - own), dtype=np.float64)
        L *= (w / S)[:, None]
        L[at] -= w
        grad += L.reshape(F * K, -1) @ z
    return loss, grad.reshape(F, K, r)


def dot(a, b):
    return np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1))


def lbfgs(P, fun, scale, tol, max_iter=500, memory=10, trace=None):
    f, g = fun(P)
    F = len(P)
    hist = []
    gamma = np.ones(F, np.float32)
    for it in range(max_iter):
        norm = np.sqrt(dot(g * scale, g))
        if trace is not None:
            trace.append((f.copy(), norm.copy()))
        active = norm > tol
        if not active.any():
            break
        q = g.copy()
        alphas = []
        for s, y, rho in reversed(hist):
            a = rho * dot(s, q)
            q -= a[:, None, None] * y
            alphas.append(a)
        q *= scale * gamma[:, None, None]
        for (s, y, rho), a in zip(hist, reversed(alphas)):
            q += (a - rho * dot(y, q))[:, None, None] * s
        slope = -dot(g, q)
        t = active.astype(np.float32)
        for _ in range(20):
            new = P - t[:, None, None] * q
            f1, g1 = fun(new)
            bad = f1 > f + 1e-4 * t * slope + 1e-6 * f
            if not bad.any():
                break
            t[bad] *= 0.4
        s, y = new - P, g1 - g
        sy = dot(s, y)
        yhy = dot(y * scale, y)
        ok = sy > 1e-10 * yhy
        rho = np.where(ok, 1 / np.where(ok, sy, 1), 0).astype(np.float32)
        gamma = np.where(ok, sy / np.where(ok, yhy, 1), gamma).astype(np.float32)
        hist.append((s, y, rho))
        del hist[:-memory]
        P, f, g = new, f1, g1
    return P, f, it, gamma
