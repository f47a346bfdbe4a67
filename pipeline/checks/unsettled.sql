-- Runs that stand more than once, or in another day's file, with the days whose files have them. Needs `stored_rows`.
WITH stored AS (
    SELECT
        run_id,
        regexp_extract(filename, 'day=([^/\\]+)', 1) AS day,
        coalesce(
            strftime(coalesce(created_at, initial_run_at, file_created_at) AT TIME ZONE 'UTC', '%Y-%m-%d'), 'unknown'
        ) AS own_day
    FROM stored_rows
)
SELECT
    run_id,
    list(DISTINCT day) AS days
FROM stored
GROUP BY run_id
HAVING count(*) > 1 OR bool_or(day <> own_day)
