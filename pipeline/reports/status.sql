-- What the lake has of each kind: runs, those not finished, and the days they were created on.
SELECT
    kind,
    count(*) AS runs,
    count(*) FILTER (WHERE is_detail) AS in_detail,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    count(*) FILTER (
        WHERE deleted_at IS NULL
            AND (status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'CANCELLED', 'REJECTED'))
    ) AS unfinished,
    CAST(min(created_at) AT TIME ZONE 'UTC' AS DATE) AS first_day,
    CAST(max(created_at) AT TIME ZONE 'UTC' AS DATE) AS last_day,
    count(*) FILTER (WHERE created_at IS NULL) AS no_creation_time
FROM runs
GROUP BY kind
ORDER BY kind
