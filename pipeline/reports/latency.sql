-- From created to finished, in seconds, by the dimensions asked for.
--
-- A workflow run tells when it ended. Of the others the last change (`updated_at`) is taken for the end: true of a run
-- that no person has touched. A review moves both, hours or days later, so runs that were reviewed, edited or rejected
-- are left out and counted (`reviewed_left_out`), and so are those that lack one of the two times (`untimed`: parse,
-- edit and form-detection runs known by ID alone), or whose end lies before their beginning. `processing_p50` is the API's own
-- measure, without waiting, of the kinds that have it.
--
-- Of times to the microsecond a percentile of two digits has eight: rounded to them it is exact, where the last bit of an
-- interpolation depends on the engine and the processor.
WITH finished AS (
    SELECT
        *,
        coalesce(reviewed, false) OR coalesce(edited, false) OR reviewed_at IS NOT NULL OR status = 'REJECTED'
            AS is_reviewed,
        coalesce(created_at, initial_run_at) AS begun_at,
        coalesce(ended_at, updated_at) AS finished_at
    FROM asked
    WHERE status IN ('PROCESSED', 'FAILED', 'CANCELLED', 'REJECTED')
),
timed AS (
    SELECT
        *,
        NOT is_reviewed AND finished_at >= begun_at AS is_timed,
        CASE WHEN is_timed THEN (epoch_us(finished_at) - epoch_us(begun_at)) / 1e6 END AS seconds
    FROM finished
)
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    count(seconds) AS runs,
    round(quantile_cont(seconds, 0.5), 8) AS p50,
    round(quantile_cont(seconds, 0.9), 8) AS p90,
    round(quantile_cont(seconds, 0.95), 8) AS p95,
    round(quantile_cont(seconds, 0.99), 8) AS p99,
    max(seconds) AS longest,
    quantile_cont(processing_ms, 0.5) / 1e3 AS processing_p50,
    count(*) FILTER (WHERE is_reviewed) AS reviewed_left_out,
    count(*) FILTER (WHERE NOT is_reviewed AND seconds IS NULL) AS untimed
FROM timed
GROUP BY ALL
ORDER BY COLUMNS('^by_.+$') NULLS LAST
