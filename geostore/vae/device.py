"""Where a fit runs, and how precisely its networks do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from geostore.errors import InvalidInput


@dataclass(frozen=True)
class Device:
    """A place to fit at.

    Attributes:
        where: the device.
        half: networks run in bfloat16; losses, latents, bits and the optimiser stay in float32.
    """

    where: torch.device
    half: bool

    @classmethod
    def named(cls, name: str) -> Device:
        """What `Effort.device` names: "auto" is a GPU where there is one. A GPU that can takes bfloat16.

        Raises:
            InvalidInput: no such device, or no GPU is to be had.
        """
        if name not in ("auto", "cpu", "cuda"):
            raise InvalidInput(f"device {name!r}; use auto, cpu or cuda")
        gpu = torch.cuda.is_available()
        if name == "cuda" and not gpu:
            raise InvalidInput("no CUDA device is to be had here; use device auto or cpu")
        if name == "cpu" or not gpu:
            return cls(torch.device("cpu"), half=False)
        return cls(torch.device("cuda"), half=torch.cuda.is_bf16_supported())

    def networks(self) -> torch.autocast:
        """A context in which networks run as precisely as they should here."""
        return torch.autocast(self.where.type, torch.bfloat16, enabled=self.half)
