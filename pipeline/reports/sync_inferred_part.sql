-- What sync_inferred counts, in one of some parts, each of other resources: where no ledger is kept, the lines of all
-- credits would be in memory at once. By the rules of credit_lines.
WITH alone AS (
    -- What runs tell by a total alone.
    SELECT
        run_id,
        workspace_id,
        CASE WHEN kind IS DISTINCT FROM 'edit_run' THEN parse_run_id END AS resource_id
    FROM runs AS telling
    WHERE total_credits IS NOT NULL
        AND kind IS DISTINCT FROM 'workflow_run'
        AND breakdown IS NULL
        AND total_credits > credits
        AND hash(coalesce(parse_run_id, run_id)) % $parts = $part
        AND NOT EXISTS (
            FROM runs AS detection
            WHERE telling.kind = 'edit_run'
                AND detection.kind = 'form_detection_run'
                AND detection.credits IS NOT NULL
                AND detection.file_id = telling.file_id
        )
),
inferred AS (
    -- A resource that several tell of is charged once, to the one that stands nearest.
    SELECT
        resource_id,
        arg_min_null(workspace_id, run_id) AS workspace_id
    FROM alone
    GROUP BY resource_id, CASE WHEN resource_id IS NULL THEN run_id END
),
own AS (
    SELECT
        run_id,
        workspace_id,
        credits IS NOT NULL AND kind IS DISTINCT FROM 'workflow_run' AS is_told
    FROM runs
    WHERE run_id IN (SELECT resource_id FROM inferred)
),
others AS (
    -- What breakdowns tell.
    SELECT DISTINCT entry.id AS resource_id
    FROM (
        SELECT unnest(list_filter(breakdown, lambda entry: entry.id <> run_id)) AS entry
        FROM runs
        WHERE len(breakdown) > 0
    )
    WHERE entry.credits IS NOT NULL
        AND entry.object IS DISTINCT FROM 'workflow_run'
        AND entry.id IN (SELECT resource_id FROM inferred)
)
SELECT count(*) AS inferred
FROM inferred
LEFT JOIN own ON own.run_id = inferred.resource_id
LEFT JOIN others ON others.resource_id = inferred.resource_id
WHERE own.is_told IS NOT TRUE
    AND others.resource_id IS NULL
    AND coalesce(own.workspace_id, inferred.workspace_id) IS NOT DISTINCT FROM $workspace
