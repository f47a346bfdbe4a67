"""DuckDB's connections and errors without the rest of its Python package, which takes three times as long to import as
DuckDB itself takes to be loaded.

That rest is relations: `con.sql`, `con.table`, `con.read_parquet`, … Whoever wants one imports `duckdb`; then every
connection has them.
"""

import importlib

try:
    import _duckdb as core
except ImportError:  # a version that has it elsewhere
    import duckdb as core  # type: ignore[no-redef]  # the same, by another name

BinderException = core.BinderException
CatalogException = core.CatalogException
DuckDBPyConnection = core.DuckDBPyConnection
Error = core.Error
ParserException = core.ParserException
PermissionException = core.PermissionException
__version__ = core.__version__
connect = core.connect


def have_relations() -> None:
    """Let connections have what DuckDB's package adds to them."""
    importlib.import_module("duckdb")
