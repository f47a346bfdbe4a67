-- A dead letter is there once, and not of a run that has come since.
SELECT
    dead_letters.run_id || ' is a dead letter ' || CASE
        WHEN count(DISTINCT stored_runs.run_id) > 0
        THEN 'and has come since, in ' || any_value(stored_runs.file)
        ELSE count(*) || ' times'
    END AS offender,
    1 AS amount
FROM dead_letters
LEFT JOIN stored_runs
    ON stored_runs.run_id = dead_letters.run_id AND stored_runs.fetched_at >= dead_letters.failed_at
GROUP BY dead_letters.run_id
HAVING count(*) > 1 OR count(stored_runs.run_id) > 0
ORDER BY dead_letters.run_id
