-- Each row names a load that is in `loads`, and each load is there once.
SELECT
    count(*) || CASE count(*) WHEN 1 THEN ' run names' ELSE ' runs name' END || ' load '
        || coalesce(load_id, 'null') || ', as ' || min(run_id) || ' in ' || min(file) AS offender,
    count(*) AS amount
FROM stored_runs
WHERE NOT EXISTS (FROM loads WHERE loads.load_id = stored_runs.load_id)
GROUP BY load_id
UNION ALL
SELECT
    'load ' || load_id || ' is there ' || count(*) || ' times',
    1
FROM loads
GROUP BY load_id
HAVING count(*) > 1
ORDER BY offender
