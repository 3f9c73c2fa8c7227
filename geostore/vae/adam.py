"""Adam without the machinery around it, whose import takes a worker two seconds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

_EPSILON = 1e-8


class Adam:
    """Steps as `torch.optim.Adam` takes them, bit for bit, at a rate given anew each time.

    The first of torch's own optimisers in a process imports its compiler, which nothing here uses: more than encoding
    a small series takes.

    References:
        Kingma, Ba (2015), "Adam: A Method for Stochastic Optimization".
    """

    def __init__(self, parameters: Iterable[Tensor], betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.parameters, self.betas = list(parameters), betas
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [torch.zeros(()) for _ in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient, then forget the gradients."""
        gradients = [(i, p.grad) for i, p in enumerate(self.parameters) if p.grad is not None]
        moved = [i for i, _ in gradients]
        adam(
            [self.parameters[i] for i in moved],
            [gradient for _, gradient in gradients],
            [self._means[i] for i in moved],
            [self._squares[i] for i in moved],
            [],
            [self._steps[i] for i in moved],
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )
        for p in self.parameters:
            p.grad = None
