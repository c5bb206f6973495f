"""Decoding: a prompt is read at once, then one token after the other is chosen and fed back."""

from retsweep.decode.engine import Decoder, continuation, halve
from retsweep.decode.sampling import Sampler, Sampling
from retsweep.layers.mixer import RoomError

__all__ = ["Decoder", "RoomError", "Sampler", "Sampling", "continuation", "halve"]
