"""The codecs we ship pass the suite we ask of others."""

from __future__ import annotations

from geostore.classical import KltAv1Family
from geostore.codec import Effort, RawFamily
from geostore.collection import Policy
from geostore.dct import KltDctFamily
from geostore.testing.codecs import CodecTests
from geostore.vae import FlatFamily, SingleBandFamily, VaeFamily
from geostore.vae.fit import fit_codec
from geostore.vae.sizing import sized


class TestRaw(CodecTests):
    """The lossless codec."""

    family = RawFamily()


class TestKltAv1(CodecTests):
    """A KLT over bands, AV1 over rasters in groups."""

    family = KltAv1Family()
    shape = (7, 4, 30, 21)
    policy = Policy(mse_max=2e-3, index_mae_max=0.05)
    dtypes = ("uint8", "uint16", "int16")


class TestKltAv1Bounded(CodecTests):
    """The same under a bound on every value and on every pixel's index: pictures with residuals on them."""

    family = KltAv1Family()
    shape = (7, 4, 30, 21)
    policy = Policy(mse_max=None, index_mae_max=None, max_error=0.01, index_max=0.05)
    dtypes = ("uint8", "uint16", "int16")


class TestKltDct(CodecTests):
    """A KLT over bands, dates expected from one another, cosines."""

    family = KltDctFamily()
    shape = (7, 4, 30, 21)
    policy = Policy(mse_max=2e-3, index_mae_max=0.05)
    dtypes = ("uint8", "uint16", "int16")


class Network(VaeFamily):
    """The spatial latent grid with a network even where none would pay, as on the suite's small series."""

    def fit(self, series, *, policy, effort, progress, parent=None):
        if not series.valid.any():
            return super().fit(series, policy=policy, effort=effort, progress=progress, parent=parent)
        plan = sized(len(series.bands), 3)
        return fit_codec(series, "grid", policy=policy, effort=effort, progress=progress, plan=plan)


class TestVae(CodecTests):
    """The family as it is, whatever it chooses."""

    family = VaeFamily()
    effort = Effort(steps=6)
    shape = (12, 4, 45, 43)


class TestNetwork(CodecTests):
    """The spatial latent grid."""

    family = Network()
    effort = Effort(steps=6)
    shape = (5, 4, 45, 43)


class TestBounded(CodecTests):
    """The same under a bound on every value and on every pixel's index."""

    family = Network()
    effort = Effort(steps=3)
    shape = (5, 4, 45, 43)
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
