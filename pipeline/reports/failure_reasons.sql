-- Failed runs by reason within the dimensions asked for, and a total of each group (`is_total`). The rate is failed ÷
-- (processed + failed) of the group, with its 95 % Wilson interval; rejected and cancelled runs stand beside it,
-- unfinished ones (and those of a status not known to be final) apart.
-- `documented` needs the table `documented_reasons` (kind, reason), which the catalog has: whether the vendor documents
-- the reason for a kind of run that failed with it.
WITH known AS (
    SELECT
        struct_pack(*COLUMNS('^by_.+$')) AS place,
        asked.kind,
        asked.status,
        asked.failure_reason,
        asked.is_deleted,
        asked.number,
        documented.reason IS NOT NULL AS is_documented
    FROM asked
    LEFT JOIN documented_reasons AS documented
        ON documented.kind = asked.kind AND documented.reason = asked.failure_reason
),
grouped AS (
    SELECT
        place,
        failure_reason AS reason,
        grouping(failure_reason) = 1 AS is_total,
        coalesce(bool_or(is_documented) FILTER (WHERE status = 'FAILED'), false) AS documented,
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
    FROM known
    GROUP BY GROUPING SETS ((place), (place, failure_reason))
),
counted AS (
    -- A reason's share is of all that ended in its group, and so is what stands beside the rate.
    SELECT
        unnest(place),
        reason,
        is_total,
        documented AND NOT is_total AS documented,
        failed,
        max(ended) FILTER (WHERE is_total) OVER (PARTITION BY place) AS ended,
        max(rejected) FILTER (WHERE is_total) OVER (PARTITION BY place) AS rejected,
        max(cancelled) FILTER (WHERE is_total) OVER (PARTITION BY place) AS cancelled,
        max(unfinished) FILTER (WHERE is_total) OVER (PARTITION BY place) AS unfinished
    FROM grouped
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
    reason,
    is_total,
    documented,
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
WHERE is_total OR failed > 0
ORDER BY COLUMNS('^by_.+$') NULLS LAST, is_total DESC, failed DESC, reason
