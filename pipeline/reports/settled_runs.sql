-- Each of `stored_runs` once while some of them (`moving_runs`) are on their way from one day to another: for this moment
-- a run may stand in two files, and the row that was written last is the run's.
SELECT *
FROM stored_runs
WHERE run_id NOT IN (SELECT run_id FROM moving_runs)
UNION ALL
SELECT * EXCLUDE (turn)
FROM (
    SELECT
        *,
        row_number() OVER (PARTITION BY run_id ORDER BY load_id DESC, created_at NULLS LAST) AS turn
    FROM stored_runs
    WHERE run_id IN (SELECT run_id FROM moving_runs)
)
WHERE turn = 1
