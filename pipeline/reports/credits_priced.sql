-- Credits by the dimensions asked for, with what they cost at the rates given, each in force from its day on.
-- A line whose day is not known has the one rate that there is; of several, none. What has no rate is `unpriced_credits`.
WITH rates AS (
    SELECT
        unnest(CAST($rate_since AS DATE[])) AS rate_since,
        unnest(CAST($rate_usd AS DECIMAL(18, 9)[])) AS usd
),
daily AS (
    SELECT
        COLUMNS('^by_.+$'),
        charged_on,
        sum(credits) AS credits,
        count(*) FILTER (WHERE is_counted AND basis <> 'unknown') AS charged_runs,
        coalesce(sum(credits) FILTER (WHERE basis = 'inferred'), 0) AS inferred_credits,
        count(*) FILTER (WHERE basis = 'unknown') AS unknown_runs,
        count(*) FILTER (WHERE unknown_why = 'not finished') AS unknown_unfinished,
        count(*) FILTER (WHERE unknown_why = 'failed or cancelled') AS unknown_failed,
        count(*) FILTER (WHERE unknown_why = 'created before reporting began') AS unknown_before_reporting,
        count(*) FILTER (WHERE unknown_why = 'processed but not reported') AS unknown_not_reported
    FROM asked
    GROUP BY ALL
),
priced AS (
    SELECT
        daily.*,
        CASE
            WHEN charged_on IS NOT NULL OR (SELECT count(*) FROM rates) = 1
            THEN (
                SELECT arg_max(rates.usd, rates.rate_since)
                FROM rates
                WHERE rates.rate_since <= coalesce(daily.charged_on, DATE '9999-12-31')
            )
        END AS rate
    FROM daily
)
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    sum(credits) AS credits,
    CAST(coalesce(sum(CAST(credits AS DECIMAL(28, 6)) * CAST(rate AS DECIMAL(10, 9))), 0) AS DECIMAL(38, 9)) AS usd,
    coalesce(sum(credits) FILTER (WHERE rate IS NULL), 0) AS unpriced_credits,
    CAST(sum(charged_runs) AS BIGINT) AS charged_runs,
    sum(inferred_credits) AS inferred_credits,
    CAST(sum(unknown_runs) AS BIGINT) AS unknown_runs,
    CAST(sum(unknown_unfinished) AS BIGINT) AS unknown_unfinished,
    CAST(sum(unknown_failed) AS BIGINT) AS unknown_failed,
    CAST(sum(unknown_before_reporting) AS BIGINT) AS unknown_before_reporting,
    CAST(sum(unknown_not_reported) AS BIGINT) AS unknown_not_reported,
    CAST($data_as_of AS TIMESTAMPTZ) AS data_as_of
FROM priced
GROUP BY ALL
ORDER BY COLUMNS('^by_.+$') NULLS LAST
