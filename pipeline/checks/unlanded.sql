-- Every run of the raw log is in the lake, as new as the newest payload there. Needs `logged` (run_id, fetched_at, log).
WITH newest AS (
    SELECT
        run_id,
        max(fetched_at) AS fetched_at,
        arg_max(log, fetched_at) AS log
    FROM logged
    GROUP BY run_id
),
landed AS (
    SELECT
        run_id,
        max(fetched_at) AS fetched_at
    FROM stored_runs
    GROUP BY run_id
)
SELECT
    newest.run_id,
    newest.log,
    newest.run_id || CASE
        WHEN landed.run_id IS NULL THEN ' is in no file of runs'
        ELSE ' was last received ' || strftime(landed.fetched_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S')
            || ' by the lake'
    END || ', and ' || strftime(newest.fetched_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S') || ' by ' || newest.log
        AS offender
FROM newest
LEFT JOIN landed ON landed.run_id = newest.run_id
WHERE landed.run_id IS NULL OR landed.fetched_at < newest.fetched_at
ORDER BY newest.run_id
