-- A view of an exported database: failed runs by day, kind and processor; the rate is failed ÷ ended.
SELECT
    CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS day,
    kind,
    processor_name,
    processor_version,
    count(*) FILTER (WHERE status = 'FAILED') AS failed,
    count(*) FILTER (WHERE status IN ('PROCESSED', 'FAILED')) AS ended,
    count(*) FILTER (WHERE status = 'REJECTED') AS rejected,
    count(*) FILTER (WHERE status = 'CANCELLED') AS cancelled
FROM runs
GROUP BY ALL
ORDER BY day NULLS LAST, kind, processor_name, processor_version
