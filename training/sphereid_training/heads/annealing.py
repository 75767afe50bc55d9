"""How the share of the margin grows in L-Softmax and A-Softmax: target logit (λ cosθ + ψ)/(1 + λ), λ
falling."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Annealing:
    """λ_t = max(minimum, base · (1 + gamma·t)^−power), t counted from 1.

    The defaults are the released SphereFace training's; L-Softmax has gamma 2.5e-5 and power 35.
    """

    base: float = 1000.0
    gamma: float = 0.12
    power: float = 1.0
    minimum: float = 5.0

    def __call__(self, t: int) -> float:
        return max(self.minimum, self.base * float((1 + self.gamma * t) ** -self.power))
