"""The codecs we ship pass the suite we ask of others."""

from __future__ import annotations

from geostore.codec import Effort, RawFamily
from geostore.collection import Policy
from geostore.testing.codecs import CodecTests
from geostore.vae import FlatFamily, SingleBandFamily, VaeFamily


class TestRaw(CodecTests):
    """The lossless codec."""

    family = RawFamily()


class TestVae(CodecTests):
    """The spatial latent grid."""

    family = VaeFamily()
    effort = Effort(steps=6)
    shape = (12, 4, 45, 43)


class TestVaeBounded(CodecTests):
    """The same under a bound on every value and on every pixel's index."""

    family = VaeFamily()
    effort = Effort(steps=3)
    shape = (12, 4, 45, 43)
    policy = Policy(mse_max=None, max_error=0.02, index_mae_max=None, index_max=0.1)
    dtypes = ("uint8", "uint16", "int16")


class TestFlat(CodecTests):
    """The paper's VAE over all bands."""

    family = FlatFamily()
    effort = Effort(steps=3)


class TestSingleBand(CodecTests):
    """The paper's VAE band by band."""

    family = SingleBandFamily()
    effort = Effort(steps=3)
