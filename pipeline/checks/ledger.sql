-- The ledger has every credit once: a resource is charged on one basis alone, and what runs say of themselves is in it.
WITH resources AS (
    SELECT
        resource_id,
        count(DISTINCT basis) AS bases,
        sum(credits) AS charged,
        bool_or(basis = 'own') AS is_own
    FROM credit_ledger
    WHERE resource_id IS NOT NULL
    GROUP BY resource_id
),
own AS (
    SELECT DISTINCT ON (run_id)
        run_id,
        credits
    FROM runs
    WHERE credits IS NOT NULL AND kind IS DISTINCT FROM 'workflow_run'
)
SELECT
    coalesce(resource_id, run_id) || CASE
        WHEN bases > 1 THEN ' is charged on ' || bases || ' bases'
        ELSE ' says ' || own.credits || ' credits, and the ledger ' || coalesce(CAST(charged AS VARCHAR), 'nothing')
    END AS offender,
    1 AS amount
FROM resources
FULL JOIN own ON own.run_id = resources.resource_id
WHERE bases > 1 OR (own.credits IS NOT NULL AND charged IS DISTINCT FROM own.credits)
ORDER BY 1
