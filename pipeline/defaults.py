"""What holds where the user says nothing, and what there is to choose from. Imports nothing."""

LAKE = "data/lake"
DEMO_LAKE = "data/demo"
QPS = 10.0
"""The pay-as-you-go plan's limit, in requests a second for the whole organization."""
CONCURRENCY = 64
SANDBOX_KEY = "sandbox"
FORMATS = ("table", "csv", "json", "markdown", "parquet", "html")
"""How answers can be written; the first if the user says nothing."""
TABLES = ("runs", "charges", "credit_ledger", "loads", "dead_letters")
"""What a lake consists of, for who asks it."""
