-- Runs of which no log holds a payload: it was not kept, or was pruned. They cannot be rebuilt.
SELECT
    count(*) || CASE count(*) WHEN 1 THEN ' run of load ' ELSE ' runs of load ' END || load_id || ', as ' || min(run_id)
        AS offender,
    count(*) AS amount
FROM stored_runs
WHERE NOT EXISTS (FROM logged WHERE logged.run_id = stored_runs.run_id)
GROUP BY load_id
ORDER BY load_id
