-- Credits by the dimensions asked for, each credit once, beside the runs whose credits are unknown, by why. Where there
-- are only such runs `credits` is null: unknown is not zero.
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    sum(credits) AS credits,
    count(*) FILTER (WHERE is_counted AND basis <> 'unknown') AS charged_runs,
    coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits,
    count(*) FILTER (WHERE basis = 'unknown') AS unknown_runs,
    count(*) FILTER (WHERE unknown_why = 'not finished') AS unknown_unfinished,
    count(*) FILTER (WHERE unknown_why = 'failed or cancelled') AS unknown_failed,
    count(*) FILTER (WHERE unknown_why = 'created before reporting began') AS unknown_before_reporting,
    count(*) FILTER (WHERE unknown_why = 'processed but not reported') AS unknown_not_reported,
    CAST($data_as_of AS TIMESTAMPTZ) AS data_as_of
FROM asked
GROUP BY ALL
ORDER BY COLUMNS('^by_.+$') NULLS LAST
