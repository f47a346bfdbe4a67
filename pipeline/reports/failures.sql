-- Failed runs by kind and reason. The rate is failed ÷ (processed + failed) of the kind, with its 95 % Wilson interval;
-- rejected and cancelled runs stand beside it, unfinished ones (and those of a status not known to be final) apart.
-- `documented` needs the table `documented_reasons` (kind, reason), which the catalog has.
WITH kinds AS (
    SELECT
        kind,
        count(*) FILTER (WHERE status IN ('PROCESSED', 'FAILED')) AS ended,
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
        kinds.kind,
        reasons.reason,
        coalesce(reasons.failed, 0) AS failed,
        kinds.ended,
        reasons.failed / nullif(kinds.ended, 0)::DOUBLE AS share,
        kinds.rejected,
        kinds.cancelled,
        kinds.unfinished,
        1.959963984540054 AS z
    FROM kinds
    LEFT JOIN reasons ON reasons.kind IS NOT DISTINCT FROM kinds.kind
)
SELECT
    counted.kind,
    counted.reason,
    documented.reason IS NOT NULL AS documented,
    failed,
    ended,
    CASE WHEN ended > 0 THEN coalesce(share, 0) END AS rate,
    CASE WHEN ended > 0 THEN greatest(0, (
        (coalesce(share, 0) + z * z / (2 * ended)
        - z * sqrt(coalesce(share, 0) * (1 - coalesce(share, 0)) / ended + z * z / (4 * ended * ended)))
        / (1 + z * z / ended)
    )) END AS rate_low,
    CASE WHEN ended > 0 THEN least(1, (
        (coalesce(share, 0) + z * z / (2 * ended)
        + z * sqrt(coalesce(share, 0) * (1 - coalesce(share, 0)) / ended + z * z / (4 * ended * ended)))
        / (1 + z * z / ended)
    )) END AS rate_high,
    rejected,
    cancelled,
    unfinished
FROM counted
LEFT JOIN documented_reasons AS documented
    ON documented.kind = counted.kind AND documented.reason = counted.reason
ORDER BY counted.kind, failed DESC, counted.reason
