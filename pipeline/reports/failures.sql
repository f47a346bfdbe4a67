-- Failed runs by the dimensions asked for. The rate is failed ÷ (processed + failed), with its 95 % Wilson interval;
-- rejected and cancelled runs stand beside it, unfinished ones (and those of a status not known to be final) apart.
WITH counted AS (
    SELECT
        COLUMNS('^by_.+$'),
        CAST(coalesce(sum(number) FILTER (WHERE status = 'FAILED'), 0) AS BIGINT) AS failed,
        CAST(coalesce(sum(number) FILTER (WHERE status IN ('PROCESSED', 'FAILED')), 0) AS BIGINT) AS ended,
        CAST(coalesce(sum(number) FILTER (WHERE status = 'REJECTED'), 0) AS BIGINT) AS rejected,
        CAST(coalesce(sum(number) FILTER (WHERE status = 'CANCELLED'), 0) AS BIGINT) AS cancelled,
        CAST(
            coalesce(
                sum(number) FILTER (
                    WHERE NOT is_deleted
                        AND (status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'REJECTED', 'CANCELLED'))
                ),
                0
            ) AS BIGINT
        ) AS unfinished
    FROM asked
    GROUP BY ALL
),
measured AS (
    SELECT
        *,
        CAST(failed AS DOUBLE) / nullif(ended, 0) AS rate,
        1.959963984540054 AS z,
        CAST(nullif(ended, 0) AS DOUBLE) AS n
    FROM counted
),
bounded AS (
    SELECT
        *,
        (rate + z * z / (2 * n)) / (1 + z * z / n) AS middle,
        z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n) AS margin
    FROM measured
)
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    failed,
    ended,
    rate,
    -- Without an ended run both are null; `greatest` alone would make it 0.
    CASE WHEN n > 0 THEN greatest(0, middle - margin) END AS rate_low,
    CASE WHEN n > 0 THEN least(1, middle + margin) END AS rate_high,
    rejected,
    cancelled,
    unfinished
FROM bounded
ORDER BY COLUMNS('^by_.+$') NULLS LAST
