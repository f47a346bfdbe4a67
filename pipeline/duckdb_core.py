"""DuckDB's connections and errors without the rest of its Python package, which takes three times as long to import as
DuckDB itself takes to be loaded.

That rest is relations: `con.sql`, `con.table`, `con.read_parquet`, … Whoever wants one imports `duckdb`; then every
connection has them.
"""

import importlib

try:
    from _duckdb import (
        BinderException,
        CatalogException,
        DuckDBPyConnection,
        Error,
        ParserException,
        PermissionException,
        __version__,
        connect,
    )
except ImportError:  # a version that has them elsewhere
    from duckdb import (
        BinderException,
        CatalogException,
        DuckDBPyConnection,
        Error,
        ParserException,
        PermissionException,
        __version__,
        connect,
    )

__all__ = [
    "BinderException",
    "CatalogException",
    "DuckDBPyConnection",
    "Error",
    "ParserException",
    "PermissionException",
    "__version__",
    "connect",
    "have_relations",
]


def have_relations() -> None:
    """Let connections have what DuckDB's package adds to them."""
    importlib.import_module("duckdb")
