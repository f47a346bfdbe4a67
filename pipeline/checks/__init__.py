"""Does the lake keep its promises? `pipeline check` asks each in turn, and mends what can be rebuilt.

findings      what a check found
parquet_files every Parquet file, to the last byte
raw_logs      every raw log, to the last byte, and what it says the lake should have
tables        what the tables must be, in SQL (`*.sql` beside this)
lake          all of them in turn
repair        what can be mended
"""
