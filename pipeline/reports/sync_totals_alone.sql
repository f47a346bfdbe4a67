-- How many runs tell a total beyond their own credits, and not for what: without any nothing is inferred (see
-- credit_lines).
SELECT count(*) AS alone
FROM runs
WHERE total_credits IS NOT NULL -- said again, so that files without any are passed by
    AND kind IS DISTINCT FROM 'workflow_run'
    AND breakdown IS NULL
    AND total_credits > credits
