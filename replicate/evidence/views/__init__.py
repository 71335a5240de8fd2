"""Figures and tables that belong to one method: what its chapter shows."""
