-- What is told of one resource by several runs is the same: by itself, by the run that caused it, by a workflow.
WITH tellings AS (
    SELECT
        run_id AS teller,
        unnest(breakdown) AS entry
    FROM stored_runs
    WHERE len(breakdown) > 0
),
told AS (
    SELECT
        entry.id AS resource_id,
        teller,
        entry.credits AS credits
    FROM tellings
    WHERE entry.object IS DISTINCT FROM 'workflow_run' AND entry.credits IS NOT NULL
),
others AS (
    SELECT
        resource_id,
        min(credits) AS least,
        max(credits) AS most,
        arg_min(teller, (credits, teller)) AS least_teller,
        arg_max(teller, (credits, teller)) AS most_teller
    FROM told
    GROUP BY resource_id
),
own AS (
    SELECT
        run_id,
        credits
    FROM stored_runs
    WHERE credits IS NOT NULL AND kind IS DISTINCT FROM 'workflow_run'
)
SELECT
    resource_id || ': ' || CASE
        WHEN own.credits IS NULL THEN least || ' credits by ' || least_teller || ', ' || most || ' by ' || most_teller
        WHEN own.credits <> least THEN own.credits || ' credits by itself, ' || least || ' by ' || least_teller
        ELSE own.credits || ' credits by itself, ' || most || ' by ' || most_teller
    END AS offender,
    1 AS amount
FROM others
LEFT JOIN own ON own.run_id = others.resource_id
WHERE least <> most OR own.credits <> least
ORDER BY resource_id
