-- Credits by the dimensions asked for, beside those of the window before (its days moved into this one).
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    coalesce(sum(credits) FILTER (WHERE NOT is_before), 0) AS credits,
    coalesce(sum(credits) FILTER (WHERE is_before), 0) AS credits_before,
    coalesce(sum(credits) FILTER (WHERE NOT is_before), 0) - coalesce(sum(credits) FILTER (WHERE is_before), 0) AS change,
    coalesce(sum(credits) FILTER (WHERE basis = 'inferred' AND NOT is_before), 0) AS inferred_credits,
    count(*) FILTER (WHERE basis = 'unknown' AND NOT is_before) AS unknown_runs,
    count(*) FILTER (WHERE unknown_why = 'not finished' AND NOT is_before) AS unknown_unfinished,
    count(*) FILTER (WHERE unknown_why = 'failed or cancelled' AND NOT is_before) AS unknown_failed,
    count(*) FILTER (
        WHERE unknown_why = 'created before reporting began' AND NOT is_before
    ) AS unknown_before_reporting,
    count(*) FILTER (WHERE unknown_why = 'processed but not reported' AND NOT is_before) AS unknown_not_reported,
    count(*) FILTER (WHERE basis = 'unknown' AND is_before) AS unknown_runs_before,
    CAST($data_as_of AS TIMESTAMPTZ) AS data_as_of
FROM asked
GROUP BY ALL
ORDER BY COLUMNS('^by_.+$') NULLS LAST
