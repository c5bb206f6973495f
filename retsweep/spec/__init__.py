"""Specs: what a run is, as frozen values. ``load_spec(["scale=tiny"])`` gives one."""

from retsweep.spec.base import SpecError
from retsweep.spec.compose import load_run, load_spec
from retsweep.spec.run import RunSpec
from retsweep.spec.settings import Settings

__all__ = ["RunSpec", "Settings", "SpecError", "load_run", "load_spec"]
