-- How many charges of a workspace are known as the rest of a run's total alone.
SELECT count(*) AS inferred
FROM credit_ledger
WHERE basis = 'inferred' AND workspace_id IS NOT DISTINCT FROM $workspace
