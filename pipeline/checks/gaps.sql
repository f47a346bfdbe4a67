-- Days without a run between the first and the last, as stretches; the longest first.
WITH days AS (
    SELECT DISTINCT CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS day
    FROM stored_runs
    WHERE created_at IS NOT NULL
),
stretches AS (
    SELECT
        day + 1 AS first_day,
        lead(day) OVER (ORDER BY day) - 1 AS last_day
    FROM days
)
SELECT
    CASE
        WHEN first_day = last_day THEN CAST(first_day AS VARCHAR)
        ELSE first_day || ' to ' || last_day || ' (' || (last_day - first_day + 1) || ' days)'
    END AS offender,
    last_day - first_day + 1 AS amount
FROM stretches
WHERE last_day >= first_day
ORDER BY amount DESC, first_day
