-- Whether any run tells a total beyond its own credits, and not for what: else nothing is inferred (see credit_lines).
SELECT count(*) > 0 AS are_there
FROM runs
WHERE total_credits IS NOT NULL -- said again, so that files without any are passed by
    AND kind IS DISTINCT FROM 'workflow_run'
    AND breakdown IS NULL
    AND total_credits > credits
