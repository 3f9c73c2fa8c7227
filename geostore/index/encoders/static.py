"""The `wordllama` encoder: texts as the mean of their tokens' vectors, from weights that the package brings along."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geostore.errors import NotInstalled
from geostore.index.encoders import Floats, check_texts, unit

_WEIGHTS, _TOKENS = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"


class Static:
    """Nothing is computed but a mean, so it is as fast as counting letters, and it knows that a lake is water.

    References:
        WordLlama, static token vectors taken out of a language model; weights and tokens of 256 components are in its
        package, and nothing is fetched.
    """

    name: ClassVar[str] = "wordllama"
    width: ClassVar[int] = 256
    least: ClassVar[float] = 0.3  # cosine from which two words are held to be about one thing

    def digest(self) -> str:
        """Over the weights and the tokens."""
        return self._digest

    def text(self, texts: Sequence[str]) -> Floats:
        """(N, width), a row a text."""
        tokens, vectors = self._loaded
        rows = [tokens.encode(text.lower(), add_special_tokens=False).ids for text in check_texts(texts)]
        return unit(np.array([vectors[ids].astype(np.float32).mean(axis=0) for ids in rows], np.float32))

    @cached_property
    def _root(self) -> Path:
        if not installed():
            raise NotInstalled("text by meaning needs wordllama and tokenizers: pip install 'geostore[text]'")
        found = find_spec("wordllama")
        assert found is not None
        assert found.submodule_search_locations is not None
        return Path(next(iter(found.submodule_search_locations)))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        root = self._root
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(root / _TOKENS)), load_file(root / _WEIGHTS)["embedding.weight"]

    @cached_property
    def _digest(self) -> str:
        parts = [(self._root / name).read_bytes() for name in (_WEIGHTS, _TOKENS)]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:32]


def installed() -> bool:
    """Whether the packages are there."""
    return all(find_spec(name) is not None for name in ("wordllama", "tokenizers"))
