-- The rows of `credit_lines` that come from the runs of some days, each with the day under which its run is stored: the
-- run whose own row it is, else the run that tells of it.
SELECT
    credit_lines.*,
    home.day
FROM credit_lines
INNER JOIN (
    SELECT
        run_id,
        day
    FROM runs
    WHERE day IN (SELECT unnest($days))
) AS home
    ON home.run_id = CASE WHEN basis IN ('own', 'unknown') THEN resource_id ELSE caused_by_run_id END
