"""retsweep: how much attention does a language model need?"""

__version__ = "0.1.0"
