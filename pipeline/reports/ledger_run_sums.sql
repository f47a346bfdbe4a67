-- What `run_sums.sql` has of some days' runs, added up, with the day under which they are stored.
SELECT
    day AS stored_day,
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
    CAST(max(fetched_at) AT TIME ZONE 'UTC' AS DATE) AS fetched_on,
    count(*) AS number
FROM runs
GROUP BY ALL
