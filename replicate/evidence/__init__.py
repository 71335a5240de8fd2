"""What the papers say and what was measured: published values, rows, predictions, claims, tables, figures."""
