"""Five facial-landmark papers, replicated: LDDR, TCNN, DAN, RNN and ECT on the same faces with the same statistics."""

__version__ = "0.1.0"
