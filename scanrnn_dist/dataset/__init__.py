"""Parquet in and out: layouts, sources, units, parts and the records of a job. Never imports JAX."""
