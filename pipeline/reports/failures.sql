-- Failed runs by kind and reason, and a total for each kind (`is_total`). The rate is failed ÷ (processed + failed) of
-- the kind, with its 95 % Wilson interval; rejected and cancelled runs stand beside it, unfinished ones (and those of a
-- status not known to be final) apart.
-- `documented` needs the table `documented_reasons` (kind, reason), which the catalog has.
WITH kinds AS (
    SELECT
        kind,
        count(*) FILTER (WHERE status IN ('PROCESSED', 'FAILED')) AS ended,
        count(*) FILTER (WHERE status = 'FAILED') AS failed,
        count(*) FILTER (WHERE status = 'REJECTED') AS rejected,
        count(*) FILTER (WHERE status = 'CANCELLED') AS cancelled,
        count(*) FILTER (
            WHERE status IS NULL OR status NOT IN ('PROCESSED', 'FAILED', 'REJECTED', 'CANCELLED')
        ) AS unfinished
    FROM runs
    GROUP BY kind
),
reasons AS (
    SELECT
        kind,
        failure_reason AS reason,
        count(*) AS failed
    FROM runs
    WHERE status = 'FAILED'
    GROUP BY kind, failure_reason
),
counted AS (
    SELECT
        kind,
        NULL AS reason,
        TRUE AS is_total,
        failed,
        ended
    FROM kinds
    UNION ALL
    SELECT
        reasons.kind,
        reasons.reason,
        FALSE,
        reasons.failed,
        kinds.ended
    FROM reasons
    INNER JOIN kinds ON kinds.kind IS NOT DISTINCT FROM reasons.kind
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
    bounded.kind,
    bounded.reason,
    bounded.is_total,
    documented.reason IS NOT NULL AS documented,
    bounded.failed,
    bounded.ended,
    bounded.rate,
    -- Without an ended run both are null; `greatest` alone would make it 0.
    CASE WHEN bounded.n > 0 THEN greatest(0, bounded.middle - bounded.margin) END AS rate_low,
    CASE WHEN bounded.n > 0 THEN least(1, bounded.middle + bounded.margin) END AS rate_high,
    kinds.rejected,
    kinds.cancelled,
    kinds.unfinished
FROM bounded
INNER JOIN kinds ON kinds.kind IS NOT DISTINCT FROM bounded.kind
LEFT JOIN documented_reasons AS documented
    ON documented.kind = bounded.kind AND documented.reason = bounded.reason
ORDER BY bounded.kind, bounded.is_total DESC, bounded.failed DESC, bounded.reason
