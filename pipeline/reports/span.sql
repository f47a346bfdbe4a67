-- The first and the last day of the runs asked for, how many runs, and how many of them tell no day.
SELECT
    min(created_on) AS first_day,
    max(created_on) AS last_day,
    count(*) AS runs,
    count(*) FILTER (WHERE created_on IS NULL) AS undated_runs,
    count(*) FILTER (
        WHERE status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'REJECTED', 'CANCELLED')
    ) AS unfinished_runs
FROM asked
