-- Each run stands in the file of its day: that of its creation, else of its first run, else of its file's, else unknown.
WITH days AS (
    SELECT
        run_id,
        file,
        regexp_extract(file, 'day=([^/]*)', 1) AS day,
        coalesce(
            strftime(coalesce(created_at, initial_run_at, file_created_at) AT TIME ZONE 'UTC', '%Y-%m-%d'), 'unknown'
        ) AS own_day
    FROM stored_runs
)
SELECT
    run_id || ' is in ' || file || ' and belongs to day=' || own_day AS offender,
    1 AS amount
FROM days
WHERE day <> own_day
ORDER BY run_id
