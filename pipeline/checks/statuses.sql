-- Statuses that the vendor does not document for the kind. Needs `documented_statuses` (kind, status).
SELECT
    coalesce(kind, 'no kind') || ' ' || coalesce(stored_runs.status, 'without a status') || ': ' || count(*)
        || CASE count(*) WHEN 1 THEN ' run, ' ELSE ' runs, as ' END || min(run_id) AS offender,
    count(*) AS amount
FROM stored_runs
ANTI JOIN documented_statuses USING (kind, status)
GROUP BY kind, stored_runs.status
ORDER BY amount DESC, offender
