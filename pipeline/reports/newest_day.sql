-- The newest day that a run was created on, and the day on which a payload was last received.
SELECT
    CAST(max(coalesce(created_at, initial_run_at)) AT TIME ZONE 'UTC' AS DATE) AS newest_day,
    CAST(max(fetched_at) AT TIME ZONE 'UTC' AS DATE) AS fetched_on
FROM runs
