-- The runs by all that reports on failures group them by, but for metadata: a `number` of runs, and the last day on which
-- one was received. Beside a large lake their sums are kept (`ledger_run_sums.sql`); else each row is one run.
SELECT
    CAST(coalesce(created_at, initial_run_at) AT TIME ZONE 'UTC' AS DATE) AS created_on,
    kind,
    status,
    failure_reason,
    processor_id,
    processor_name,
    processor_version,
    workspace_id,
    file_type,
    source,
    deleted_at IS NOT NULL AS is_deleted,
    CAST(fetched_at AT TIME ZONE 'UTC' AS DATE) AS fetched_on,
    1 AS number
FROM runs
