"""The lake in other shapes: the FOCUS dataset of costs, a DuckDB database, CSV, Parquet."""
