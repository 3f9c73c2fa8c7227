"""A CLIP-like encoder with tiny weights, made here: images, texts and locations of one space of 16 numbers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import nn

WIDTH = 16
NAMES = ("red", "green", "blue")
WORDS = ("[unk]", "[pad]", "water", "field", "town", "lake", "meadow", "city", "lakes", "motorway")
MEANS = {"water": 0, "lake": 0, "lakes": 0, "field": 1, "meadow": 1, "town": 2, "city": 2, "motorway": 2}
COLOURS = torch.tensor([[0.3, 0.4, 0.3], [0.5, 0.7, 0.4], [2.2, 2.0, 1.8]]) / 10  # reflectance of water, field, town


class Image(nn.Module):
    """Likeness of the mean colour to each kind of ground."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colours", COLOURS)
        self.spread = nn.Linear(3, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        apart = ((x.mean(dim=(2, 3))[:, None] - self.colours) ** 2).sum(dim=2)  # (1, 3)
        return self.spread(torch.softmax(-apart / 0.002, dim=1))


class Text(nn.Module):
    """The mean of what words stand for."""

    def __init__(self, spread: nn.Linear) -> None:
        super().__init__()
        table = torch.zeros(len(WORDS), 3)
        for word, kind in MEANS.items():
            table[WORDS.index(word), kind] = 1
        self.register_buffer("table", table)
        self.spread = spread

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.spread(self.table[ids].sum(dim=1))


class Location(nn.Module):
    """Water in the west, fields in the middle, towns in the east of the strip from 20 to 23 degrees."""

    def __init__(self, spread: nn.Linear) -> None:
        super().__init__()
        self.spread = spread

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        middles = torch.tensor([20.0, 21.5, 23.0])
        return self.spread(torch.softmax(-((place[:, :1] - middles) ** 2), dim=1))


def write_encoder(folder: Path, sides: tuple[str, ...] = ("image", "text", "location"), seed: int = 0) -> Path:
    """The folder as a user has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    image = Image()
    given = {
        "image": (image, torch.zeros(1, 3, 8, 8)),
        "text": (Text(image.spread), torch.zeros(1, 6, dtype=torch.int64)),
        "location": (Location(image.spread), torch.zeros(1, 2)),
    }
    declared = {
        "image": {"bands": NAMES, "size": [8, 8], "low": [0] * 3, "high": [1] * 3, "mean": [0] * 3, "std": [1] * 3},
        "text": {"tokens": "tokenizer.json", "length": 6, "pad": 1, "lower": True},
        "location": {},
    }
    for side in sides:
        module, example = given[side]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, not ours to answer for
            torch.export.save(torch.export.export(module.eval(), (example,)), folder / f"{side}.pt2")
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[unk]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.save(str(folder / "tokenizer.json"))
    about = {side: {"file": f"{side}.pt2", **declared[side]} for side in sides}
    (folder / "encoder.json").write_text(json.dumps({"format": 1, "name": "tiny", "width": WIDTH, **about}))
    return folder
