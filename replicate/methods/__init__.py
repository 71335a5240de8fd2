"""The five methods and the baselines they are compared with."""
