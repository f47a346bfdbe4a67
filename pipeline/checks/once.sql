-- Each run stands once, in one file.
SELECT
    run_id || ' stands ' || count(*) || ' times, in ' || string_agg(DISTINCT file, ', ' ORDER BY file) AS offender,
    1 AS amount
FROM stored_runs
GROUP BY run_id
HAVING count(*) > 1
ORDER BY run_id
