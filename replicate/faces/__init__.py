"""Faces: markups, face sets, protocols, the synthetic generator and the data set adapters."""
