-- Credits by the dimensions asked for, each credit once, beside the runs whose credits are unknown, by why. Where there
-- are only such runs `credits` is null: unknown is not zero.
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    sum(credits) AS credits,
    CAST(coalesce(sum(lines) FILTER (WHERE is_counted AND basis <> 'unknown'), 0) AS BIGINT) AS charged_runs,
    coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits,
    CAST(coalesce(sum(lines) FILTER (WHERE basis = 'unknown'), 0) AS BIGINT) AS unknown_runs,
    CAST(coalesce(sum(lines) FILTER (WHERE unknown_why = 'not finished'), 0) AS BIGINT) AS unknown_unfinished,
    CAST(coalesce(sum(lines) FILTER (WHERE unknown_why = 'failed or cancelled'), 0) AS BIGINT) AS unknown_failed,
    CAST(
        coalesce(sum(lines) FILTER (WHERE unknown_why = 'created before reporting began'), 0) AS BIGINT
    ) AS unknown_before_reporting,
    CAST(
        coalesce(sum(lines) FILTER (WHERE unknown_why = 'processed but not reported'), 0) AS BIGINT
    ) AS unknown_not_reported,
    CAST($data_as_of AS TIMESTAMPTZ) AS data_as_of
FROM asked
GROUP BY ALL
ORDER BY COLUMNS('^by_.+$') NULLS LAST
