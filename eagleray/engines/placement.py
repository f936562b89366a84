"""Where this process runs models: cores, device and precision, as the replica has reserved them.

A process has one place, as it has one `torch.set_num_threads`; a bundle takes it when it is loaded.
"""

from dataclasses import dataclass
from typing import Literal

from eagleray import errors

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 4e-2}
"""Largest error of a golden output, relative to max(1, |output|). Float32 sums in another order, or
on another processor, differ by less; in half precision a number has 11 or 8 bits."""


@dataclass(frozen=True)
class Placement:
    """Cores, device and precision of models."""

    threads: int = 0  # for one batch; 0: as many as the library takes
    device: Device = "cpu"
    precision: Precision = "fp32"
    measured: bool = False  # whether to take the faster of two ways to run a module

    def __str__(self) -> str:
        threads = f"threads: {self.threads or 'as many as the library takes'}"
        return f"{self.device}, {threads}, {self.precision}"


_now = [Placement()]


def use(placement: Placement) -> None:
    """Set the place of bundles that are loaded from now on, and the calling thread's cores.

    ServingError if the device is a GPU, and torch sees none.
    """
    import torch

    if placement.device == "cuda" and not torch.cuda.is_available():
        raise errors.ServingError(
            f"gpus: a replica that reserves a GPU must see one, but torch {torch.__version__} sees "
            "none; is it a build for CPUs?"
        )
    _now[:] = [placement]
    if placement.threads:
        torch.set_num_threads(placement.threads)
    if placement.device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # 10 bits are too few for the golden rows


def now() -> Placement:
    """The place that this process has."""
    return _now[0]
