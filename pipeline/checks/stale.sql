-- Runs that are not finished in the lake though they began more than so many days ago: stuck, or not asked for since.
SELECT
    run_id || ' is ' || coalesce(status, 'without a status') || ', of '
        || strftime(coalesce(created_at, initial_run_at, file_created_at, fetched_at) AT TIME ZONE 'UTC', '%Y-%m-%d')
        || ', last asked ' || strftime(fetched_at AT TIME ZONE 'UTC', '%Y-%m-%d') AS offender,
    1 AS amount
FROM stored_runs
WHERE deleted_at IS NULL
    AND (status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'CANCELLED', 'REJECTED'))
    AND coalesce(created_at, initial_run_at, file_created_at, fetched_at) < $now - to_days($days)
ORDER BY coalesce(created_at, initial_run_at, file_created_at, fetched_at), run_id
