-- Failure reasons that the vendor does not document for the kind. Needs `documented_reasons` (kind, reason).
SELECT
    coalesce(kind, 'no kind') || ' ' || failure_reason || ': ' || count(*)
        || CASE count(*) WHEN 1 THEN ' run, ' ELSE ' runs, as ' END || min(run_id) AS offender,
    count(*) AS amount
FROM stored_runs
WHERE failure_reason IS NOT NULL
    AND NOT EXISTS (
        FROM documented_reasons
        WHERE documented_reasons.kind = stored_runs.kind AND documented_reasons.reason = stored_runs.failure_reason
    )
GROUP BY kind, failure_reason
ORDER BY amount DESC, offender
